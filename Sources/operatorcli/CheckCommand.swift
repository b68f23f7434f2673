import ArgumentParser
import Cluster
import Commands
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
            kms = try configuration.kms.makeService(environment: Program.environment)
        } catch {
            throw program.configuration("\(options.path): \(error.message)")
        }
        let (client, namespace) = try options.connect(configuration, logger)
        var isGood = true
        func report(_ sentence: String) {
            program.say("error: \(sentence)")
            isGood = false
        }
        do throws(KMSError) {
            try await kms.checkHealth()
        } catch {
            report("\(error)")
        }
        for problem in await Operator.problems(reading: client) { report(problem) }
        await client.shutdown()
        guard isGood else { throw ExitCode(1) }
        print("in order: namespace \(namespace), KMS \(kms.provider.rawValue)")
    }
}
