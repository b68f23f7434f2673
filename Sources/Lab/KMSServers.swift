internal import FoundationEssentials
internal import Glibc

/// The KMS servers that Tests/kms/servers.py has started, made reachable from a lab's nodes.
public struct KMSServers: Sendable {
    /// Where to ask the servers for something.
    let control: String
    /// The `kms` section of a configuration, in JSON.
    let section: String

    /// Files with tokens that nodes show.
    let secretFiles: [String]

    private struct Description: Decodable {
        struct Case: Decodable {
            var provider: String
            var text: String
            var primary: Bool?
            var secretFiles: [String]?
        }
        var control: String
        var cases: [Case]
    }

    private let provider: String

    /// Reads the file that `KMS_SERVERS` names. `provider` is aws, gcp, azure or openbao.
    public init(provider: String) throws {
        guard let path = getenv("KMS_SERVERS").map({ String(cString: $0) }) else {
            throw LabError("KMS_SERVERS is not set: start with `make demo KMS=\(provider)`, which runs the servers")
        }
        guard let bytes = try? readBytes(path),
            let description = try? JSONDecoder().decode(Description.self, from: Data(bytes))
        else { throw LabError("\(path) does not describe servers as Tests/kms/servers.py does") }
        guard let found = description.cases.first(where: { $0.provider == provider && $0.primary == true }) else {
            throw LabError("there is no server of a KMS \"\(provider)\"; expected aws, gcp, azure or openbao")
        }
        self.provider = provider
        control = description.control
        section = found.text
        secretFiles = found.secretFiles ?? []
    }

    /// Makes the servers' ports, which are on our loopback, reachable on the loopback of the lab's nodes.
    func connect(_ lab: Lab) throws {
        let namespaces = lab.nodes.map { "\"\($0.namespace.path)\"" }.joined(separator: ",")
        try ask(lab, "all/relay", "{\"namespaces\":[\(namespaces)]}")
    }

    /// Rotates the KEK, as its owner would.
    func rotate(_ lab: Lab) throws { try ask(lab, "\(provider)/rotate", "{}") }

    private func ask(_ lab: Lab, _ path: String, _ body: String) throws {
        guard let root = Python.repository else { throw LabError("cannot find Tests/kms: run this in the repository") }
        try lab.require([Python.interpreter, root + "/Tests/kms/control.py", "\(control)/\(path)", body])
    }
}
