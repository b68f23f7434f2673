import Cluster
import Foundation
import Keys
import Logging
import Netlink
import Testing

@testable import Kubernetes
@testable import Operator

let quiet = Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() }

/// Objects of a YAML fixture, put into an inventory as if they had been listed.
struct Fixture {
    let objects: [[String: Any]]

    init(_ name: String) throws {
        let url = try #require(Bundle.module.url(forResource: "Fixtures/\(name)", withExtension: "yaml"))
        let text = try String(contentsOf: url, encoding: .utf8)
        objects = try text.components(separatedBy: "\n---\n").map { document in
            try #require(Self.value(try YAML(Array(document.utf8)), isText: false) as? [String: Any])
        }
    }

    /// Kinds of maps in which everything is text.
    private static let textMaps: Set<String> = ["labels", "annotations", "matchLabels", "selector", "data"]

    private static func value(_ yaml: YAML, isText: Bool) -> Any {
        switch yaml {
        case .scalar(let text):
            if isText { return text }
            if text == "true" || text == "false" { return text == "true" }
            return Int(text) ?? text
        case .list(let list): return list.map { value($0, isText: isText) }
        case .map(let map):
            return map.reduce(into: [String: Any]()) { object, pair in
                let isMapOfText: Bool
                if case .map(let inner) = pair.value {
                    // `workloadSelector: {labels: ...}` has one more level; a Service's selector has not.
                    isMapOfText =
                        Self.textMaps.contains(pair.key)
                        && !inner.contains { ["matchLabels", "matchExpressions"].contains($0.key) }
                } else {
                    isMapOfText = false
                }
                object[pair.key] = value(pair.value, isText: isText || isMapOfText)
            }
        }
    }

    /// The objects as JSON.
    func json() throws -> [String] {
        try objects.map { String(decoding: try JSONSerialization.data(withJSONObject: $0), as: UTF8.self) }
    }

    /// A YAML file with one object, as JSON.
    static func json(ofYAML path: String) throws -> String {
        let bytes = Array(try Data(contentsOf: URL(fileURLWithPath: path)))
        let object = value(try YAML(bytes), isText: false)
        return String(decoding: try JSONSerialization.data(withJSONObject: object), as: UTF8.self)
    }

    func decode<O: KubernetesObject>(_ type: O.Type) throws -> [O] {
        try objects.filter { $0["kind"] as? String == O.resource.kind }.map { object in
            var decoded = try JSONDecoder().decode(type, from: JSONSerialization.data(withJSONObject: object))
            decoded.trim()
            return decoded
        }
    }

    /// All of them in an inventory, with everything synced.
    func inventory() throws -> Inventory {
        var inventory = Inventory()
        try put(into: &inventory)
        inventory.setAllSynced()
        return inventory
    }

    func put(into inventory: inout Inventory) throws {
        for object in try decode(Namespace.self) { inventory.put(object) }
        for object in try decode(Node.self) { inventory.put(object) }
        for object in try decode(Service.self) { inventory.put(object) }
        for object in try decode(Pod.self) { inventory.put(object) }
        for object in try decode(EndpointSlice.self) { inventory.put(object) }
        for object in try decode(ServiceEntry.self) { inventory.put(object) }
        for object in try decode(VirtualService.self) { inventory.put(object) }
        for object in try decode(DestinationRule.self) { inventory.put(object) }
        for object in try decode(EncryptionPolicy.self) { inventory.put(object) }
        for object in try decode(CiliumNode.self) { inventory.put(object) }
        for object in try decode(CiliumEndpoint.self) { inventory.put(object) }
    }
}

extension Inventory {
    mutating func setAllSynced() {
        for kind in WatchedKind.allCases {
            kinds[kind]?.isSynced = true
            kinds[kind]?.failure = nil
        }
    }

    /// `namespace/name` of all protected pods with their modes, after settling.
    mutating func protected() -> [String: Mode] {
        _ = settle()
        return pods.reduce(into: [:]) { result, pair in
            if let mode = pair.value.decision.mode { result["\(pair.key)"] = mode }
        }
    }

    func decision(_ pod: String) -> PodDecision? { pods[key(pod)]?.decision }
    func plan(_ pod: String, mayLift: Bool = true) -> AnnotationPlan? { annotationPlan(key(pod), mayLift: mayLift) }
}

func key(_ text: String) -> ObjectKey {
    let parts = text.split(separator: "/")
    return parts.count == 2
        ? ObjectKey(namespace: String(parts[0]), name: String(parts[1])) : ObjectKey(name: String(parts[0]))
}

func pod(
    _ name: String, node: String? = "node-a", ips: [String] = [], labels: [String: String] = [:],
    annotations: [String: String]? = nil, uid: String? = nil, phase: String = "Running", hostNetwork: Bool = false,
    created: String = "2026-05-04T12:00:00Z", deleted: Bool = false, version: String? = nil
) -> Pod {
    let key = key(name)
    var metadata = ObjectMeta(name: key.name, namespace: key.namespace ?? "default")
    metadata.uid = uid ?? "uid-\(key.namespace ?? "default")-\(key.name)"
    metadata.labels = labels
    metadata.annotations = annotations
    metadata.creationTimestamp = created
    metadata.resourceVersion = version
    if deleted { metadata.deletionTimestamp = "2026-05-04T12:30:00Z" }
    return Pod(
        metadata: metadata, spec: .init(nodeName: node, hostNetwork: hostNetwork ? true : nil),
        status: .init(phase: phase, podIPs: ips.map { Pod.PodIP(ip: $0) }))
}

func node(_ name: String, _ address: String, labels: [String: String] = [:]) -> Node {
    var metadata = ObjectMeta(name: name)
    metadata.labels = labels
    metadata.uid = "uid-\(name)"
    return Node(metadata: metadata, status: .init(addresses: [.init(type: "InternalIP", address: address)]))
}

func policy(_ name: String, _ spec: EncryptionPolicy.Spec, generation: Int64 = 1) -> EncryptionPolicy {
    var policy = EncryptionPolicy(name: name, spec: spec)
    policy.metadata.generation = generation
    policy.metadata.uid = "uid-\(name)"
    return policy
}

func meta(_ name: String, labels: [String: String]? = nil) -> ObjectMeta {
    let key = key(name)
    var metadata = ObjectMeta(name: key.name, namespace: key.namespace)
    metadata.labels = labels
    metadata.uid = "uid-\(name)"
    return metadata
}

func address(_ text: String) throws -> IPAddress { try IPAddress(text) }

/// A seeded generator, so that a failing run can be run again.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
