import Measure
import Testing

@Suite("Profiles")
struct ProfileTests {
    private let report = """
        # Samples: 1K of event 'cpu-clock'
         500       |[k] aesti_encrypt
         100       |[k] crypto_ecb_encrypt2
         200       |[k] bpf_prog_b8195975b77e99b5_xe_decrypt
         60        |[k] skb_pp_cow_data
         90        |[k] tcp_ack
         50        |[.] http_parser_execute
         9000      |[k] pv_native_safe_halt
        """

    @Test("Samples become µs of a request, and idle CPUs do not count")
    func groups() throws {
        let profile = try Profile(report: report, perRequest: 50, requestsPerSecond: 40_000)
        #expect(ProfileGroup.allCases.map { profile.time($0) } == [25, 5, 10, 3, 4.5, 2.5])
    }

    @Test("What perf could not sample is an error and not a table of zeroes")
    func empty() {
        #expect(throws: ToolOutputError.self) {
            try Profile(report: "# no samples\n", perRequest: 50, requestsPerSecond: 1)
        }
        #expect(throws: ToolOutputError.self) {
            try Profile(report: " 10 |[k] pv_native_safe_halt\n", perRequest: 50, requestsPerSecond: 1)
        }
    }

    @Test("A conclusion for each candidate that uses AES in the kernel")
    func conclusion() throws {
        var report = ProfileReport(date: "", machine: .current())
        report.candidates = [
            .init(
                name: "plain",
                profile: try Profile(report: "1|[k] tcp_ack", perRequest: 20, requestsPerSecond: 100)),
            .init(name: "ours", profile: try Profile(report: self.report, perRequest: 50, requestsPerSecond: 40)),
            .init(
                name: "sidecars",
                profile: try Profile(report: "1|[k] tcp_ack", perRequest: 90, requestsPerSecond: 20)),
        ]
        #expect(
            report.conclusions == [
                "ours: with plain's time and AES alone a request would take 45.0 µs: 0.90 of what it takes, 0.50 of what sidecars take"
            ])
    }
}
