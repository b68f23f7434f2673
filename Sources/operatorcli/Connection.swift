import ArgumentParser
import Commands
import Kubernetes
import Logging
import Operator

extension CommonOptions {
    /// The API server as the options say, and the namespace to work in.
    func connect(
        _ configuration: OperatorConfiguration, _ logger: Logger
    ) throws -> (client: KubernetesClient, namespace: String) {
        do throws(KubernetesError) {
            var access =
                if let kubeconfig {
                    try ClientConfiguration.kubeconfig(kubeconfig)
                } else {
                    try ClientConfiguration.inCluster()
                }
            access.userAgent = "ebpf-xdp-operator/\(OperatorCommand.configuration.version)"
            let fromEnvironment = Program.environment["POD_NAMESPACE"].flatMap { $0.isEmpty ? nil : $0 }
            let namespace = configuration.namespace ?? fromEnvironment ?? access.namespace
            return (try KubernetesClient(access, logger: logger), namespace)
        } catch {
            throw program.configuration("the API server: \(error.message)")
        }
    }
}
