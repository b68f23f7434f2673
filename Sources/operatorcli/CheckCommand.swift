import ArgumentParser
import Cluster
import KMS
import Kubernetes
import Logging
import Operator
import Telemetry

/// `ebpf-xdp-operator check`.
struct CheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Reads the configuration, asks the API server and the KMS, and says what is wrong. Changes nothing.",
        discussion: """
            EXAMPLE
              ebpf-xdp-operator check --config /etc/xdp-encryptor/operator.json

            EXIT STATUS
              0 in order, 1 the API server or the KMS is not, 64 wrong arguments, 78 the configuration cannot work
            """)

    @OptionGroup var options: CommonOptions

    func run() async throws {
        let configuration = try options.read()
        let logger = Logger(label: "operator") { _ in LineLogHandler(level: .critical) }
        let kms: any KeyManagementService
        do throws(KMSError) {
            kms = try configuration.kms.makeService(environment: processEnvironment)
        } catch {
            throw Exit.configuration("\(options.path): \(error.message)")
        }
        let (client, namespace) = try options.connect(configuration, logger)
        var isGood = true
        func report(_ sentence: String) {
            say("error: \(sentence)")
            isGood = false
        }
        do throws(KMSError) {
            try await kms.checkHealth()
        } catch {
            report("\(error)")
        }
        await probe(Pod.self, client, report)
        await probe(Service.self, client, report)
        await probe(EndpointSlice.self, client, report)
        await probe(Node.self, client, report)
        await probe(Namespace.self, client, report)
        await probe(EncryptionPolicy.self, client, report)
        await probe(EncryptionNodeObject.self, client, report)
        await probe(EncryptionEpochObject.self, client, report)
        await probe(EncryptedEndpointSlice.self, client, report)
        await client.shutdown()
        guard isGood else { throw ExitCode(1) }
        print("in order: namespace \(namespace), KMS \(kms.provider.rawValue)")
    }

    private func probe<O: KubernetesObject>(
        _ type: O.Type, _ client: KubernetesClient, _ report: (String) -> Void
    ) async {
        do throws(KubernetesError) {
            _ = try await client.list(type, namespace: nil, options: ListOptions(limit: 1))
        } catch {
            let hint =
                switch error.code {
                case .notFound where O.resource.group == EncryptionAPI.group: " (apply deploy/crds)"
                case .notFound: " (the server is older than Kubernetes 1.30)"
                case .forbidden: " (apply the ClusterRole of deploy/)"
                default: ""
                }
            report("\(O.resource.plural): \(error.message)\(hint)")
        }
    }
}
