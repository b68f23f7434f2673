import Glibc
import Lab

/// What the programs say of themselves, as far as they are there.
func versions() -> [String: String] {
    let log = "/tmp/xe-bench-\(getpid())"
    defer {
        unlink(log + ".out")
        unlink(log + ".err")
    }
    func firstNumber(_ command: [String]) -> String? {
        guard let outcome = try? ChildProcess(command, log: log).wait(until: .seconds(10)) else { return nil }
        // wrk prints its version and exits with 1.
        let words = (outcome.output + outcome.errors).split { $0 == " " || $0 == "/" || $0.isNewline || $0 == "v" }
        return words.first { $0.first?.isNumber == true && $0.contains(".") }.map { String($0) }
    }
    var found: [String: String] = [:]
    for program in ["haproxy", "nginx", "wrk", "h2load", "iperf3", "wireguard-go"] {
        guard let path = find(program) else { continue }
        let option = program == "haproxy" || program == "nginx" ? "-v" : "--version"
        found[program] = firstNumber([path, option])
    }
    if let envoy = EnvoyPair.program() { found["envoy"] = firstNumber([envoy, "--version"]) }
    return found
}
