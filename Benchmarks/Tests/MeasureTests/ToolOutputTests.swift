import Testing

@testable import Measure

@Suite struct ToolOutputTests {
    @Test func wrk() throws {
        let output = "Running 1s test\n  1 threads and 32 connections\nresult 5000 2000000 3 400 1200 2500\n"
        let result = try readWrk(output)
        #expect(result == LoadResult(requests: 5000, seconds: 2, failed: 3, p50: 400, p99: 1200, p999: 2500))
        #expect(throws: ToolOutputError.self) { try readWrk("unable to connect to 127.0.0.1:15001 Connection refused") }
        #expect(throws: ToolOutputError.self) { try readWrk("result 0 2000000 0 0 0 0") }
    }

    @Test func h2load() throws {
        let log =
            "1700000000000000\t200\t100\n1700000000000001\t200\t300\n1700000000000002\t503\t5\n1700000000000003\t-1\t9\n"
        let result = try readH2LoadLog(Array(log.utf8), seconds: 1)
        #expect(result == LoadResult(requests: 2, seconds: 1, failed: 2, p50: 100, p99: 300, p999: 300))
        #expect(throws: ToolOutputError.self) { try readH2LoadLog([], seconds: 1) }
    }

    @Test func iperf() throws {
        let output = #"{"end": {"sum_received": {"seconds": 2.0, "bytes": 250000000, "bits_per_second": 1e9}}}"#
        #expect(try readIperf(output) == BulkResult(bytes: 250_000_000, seconds: 2))
        #expect(throws: ToolOutputError.self) { try readIperf(#"{"end": {}, "error": "unable to connect"}"#) }
        #expect(throws: ToolOutputError.self) { try readIperf("") }
    }
}

@Suite struct TableTests {
    @Test func numbers() {
        #expect(number(0) == "0")
        #expect(number(999.5) == "1,000")
        #expect(number(1234567) == "1,234,567")
        #expect(number(1.05, digits: 1) == "1.1")
        #expect(number(0.005, digits: 2) == "0.01")
        #expect(number(-1234.5, digits: 1) == "-1,234.5")
    }

    @Test func columns() {
        var table = Table(["name", "value"])
        table.add(["a", "1"])
        table.add(["longer"])
        #expect(table.lines == ["name    value", "a           1", "longer"])
    }

    @Test func targets() {
        #expect(Report.Target("x", wanted: 5, measured: 5, atLeast: true).holds == true)
        #expect(Report.Target("x", wanted: 5, measured: 4.9, atLeast: true).holds == false)
        #expect(Report.Target("x", wanted: 0.25, measured: 0.26, atLeast: false).holds == false)
        #expect(Report.Target("x", wanted: 0.25, measured: nil, atLeast: false).holds == nil)
    }

    @Test func targetsBesidePlain() {
        let one = Report.Target("x", wanted: 5, measured: 4, atLeast: true, plain: 7)
        let other = Report.Target("y", wanted: 0.5, measured: 0.25, atLeast: false)
        #expect(
            Report.verdicts(of: [one, other]) == [
                "   wanted  measured         without encryption",
                "x  ≥ 5.00      4.00  FAILS                7.00",
                "y  ≤ 0.50      0.25  holds",
            ])
        #expect(Report.verdicts(of: [other]) == ["   wanted  measured", "y  ≤ 0.50      0.25  holds"])
    }

    @Test func plotsEscapeText() {
        let svg = Plot(
            title: "a < b & c", foot: [],
            panels: [.init(title: "t", bars: [("ours", Spread([1])), ("x", nil)], digits: 0)]
        ).svg
        #expect(svg.contains("a &lt; b &amp; c"))
        #expect(svg.contains("absent"))
    }
}

@Suite struct MachineTests {
    @Test func ciphers() {
        let lines = [
            "name         : ecb(aes)", "driver       : ecb(aes-fixed-time)", "module       : kernel",
            "priority     : 101",
            "", "name         : ecb(aes)", "driver       : ecb-aes-aesni", "priority     : 400",
            "name         : sha256",
            "driver       : sha256-generic", "priority     : 100",
        ]
        #expect(Machine.drivers(lines) == ["ecb(aes)": ["ecb-aes-aesni (400)", "ecb(aes-fixed-time) (101)"]])
    }

    @Test func processorTimeIsNotNegative() {
        let start = ProcessorTime.now()
        let end = ProcessorTime.now()
        #expect(ProcessorTime.used(from: start, to: end) >= 0)
    }
}
