internal import Cluster
internal import Kubernetes
internal import Netlink

/// Policies and mesh resources, made ready to be asked about pods. Immutable once built; built anew when one of its parts changes.
public struct Rules: Sendable {
    /// By name.
    public internal(set) var policies: [PolicyRule] = []
    /// What each mesh resource came to.
    public internal(set) var mesh: [MeshReference: MeshOutcome] = [:]

    /// What is asked of the pods of a service.
    struct ServiceAsk: Sendable, Hashable {
        var ask: Ask
        /// Labels of a subset; nil: all of its pods.
        var subset: [String: String]?
    }
    /// A service with asks.
    struct ServiceRule: Sendable {
        var name: ServiceName
        /// Empty: it has no selector.
        var selector: [String: String]
        var asks: [ServiceAsk]
    }
    /// What is asked of workloads of a namespace.
    struct WorkloadAsk: Sendable {
        var labels: [String: String]
        var ask: Ask
    }
    /// A label in a namespace.
    struct Place: Hashable, Sendable {
        var namespace: String
        var key: String
        var value: String
    }

    var services: [ServiceName: ServiceRule] = [:]
    /// Services by one label of their selector.
    var servicesByLabel: [Place: [ServiceName]] = [:]
    var workloads: [String: [WorkloadAsk]] = [:]
    var addresses: [IPAddress: [Ask]] = [:]
    /// What is asked of everybody in a network.
    var prefixes: [IPPrefix: [Ask]] = [:]
    var namespaceLabels: [String: [String: String]] = [:]

    /// No rules.
    public init() {}

    /// What they say to pods of a shape.
    func evaluate(_ shape: PodShape) -> ShapeSelection {
        // Every namespace has this label; the object may come a moment later than the first pod.
        let labels = namespaceLabels[shape.namespace] ?? ["kubernetes.io/metadata.name": shape.namespace]
        let selecting = policies.indices.filter {
            policies[$0].selects(namespaceLabels: labels, podLabels: shape.labels)
        }
        var asks = selecting.map { policies[$0].ask }
        var fitting: [ServiceName] = []
        if !servicesByLabel.isEmpty {
            for (key, value) in shape.labels {
                for name in servicesByLabel[Place(namespace: shape.namespace, key: key, value: value)] ?? [] {
                    guard let service = services[name], service.selector.isContained(in: shape.labels) else {
                        continue
                    }
                    fitting.append(name)
                    asks += service.asks(of: shape.labels)
                }
            }
        }
        for workload in workloads[shape.namespace] ?? [] where workload.labels.isContained(in: shape.labels) {
            asks.append(workload.ask)
        }
        return ShapeSelection(policies: selecting, services: fitting.sorted(), asks: Set(asks).sorted())
    }
}

extension Rules.ServiceRule {
    /// What is asked of a pod with these labels behind the service.
    func asks(of labels: [String: String]) -> [Ask] {
        asks.filter { $0.subset?.isContained(in: labels) ?? true }.map(\.ask)
    }
}

extension [String: String] {
    /// Whether all of these pairs are among others.
    func isContained(in other: [String: String]) -> Bool { allSatisfy { other[$0.key] == $0.value } }
}
