public import Keys
public import Kubernetes

/// A data key and its time: `encryptionepochs`, named `epoch-NUMBER`. The operator writes it; its spec never changes.
public struct EncryptionEpochObject: KubernetesObject, Hashable {
    /// `encryptionepochs.encryption.ebpf.xdp`
    public static let resource = EncryptionAPI.kind("EncryptionEpoch", "encryptionepochs")
    /// Annotation with the id of the cluster that the DEK is bound to: it brings back a `cluster.json` that was lost.
    public static let clusterIDAnnotation = "ebpf.xdp/cluster-id"

    /// Name, annotations.
    public var metadata: ObjectMeta
    /// The epoch; nil when it cannot be read.
    public var spec: EncryptionEpoch?
    /// Where it stands. For people.
    public var status: Status?
    /// Why the spec cannot be read.
    public var unreadable: String?

    /// Makes an object without a status.
    public init(_ epoch: EncryptionEpoch) {
        metadata = ObjectMeta(name: Self.name(epoch.number))
        spec = epoch
    }

    /// `epoch-7`
    public static func name(_ number: Epoch) -> String { "epoch-\(number)" }

    /// The number in a name; nil for any other name.
    public static func number(_ name: String) -> Epoch? {
        guard name.hasPrefix("epoch-"), let number = Epoch(name.dropFirst(6)), name == Self.name(number) else {
            return nil
        }
        return number
    }

    /// Where an epoch stands. For people.
    public struct Status: Sendable, Hashable, Codable {
        /// As `EpochDecision.State`.
        public var phase: EpochDecision.State?
        /// How many nodes hold its keys.
        public var acknowledged: Int?
        /// How many nodes there are.
        public var nodes: Int?
        /// The first 20 nodes that do not hold its keys.
        public var missing: [String]?
        /// `Acknowledged`
        public var conditions: [Condition]?

        /// Makes a status.
        public init(
            phase: EpochDecision.State? = nil, acknowledged: Int? = nil, nodes: Int? = nil, missing: [String]? = nil,
            conditions: [Condition]? = nil
        ) {
            self.phase = phase
            self.acknowledged = acknowledged
            self.nodes = nodes
            self.missing = missing
            self.conditions = conditions
        }
    }
}

extension EncryptionEpochObject {
    private enum CodingKeys: String, CodingKey {
        case metadata, spec, status
    }

    /// Reads an object. A spec that makes no sense, or that is not the one of the object's name, is reported in `unreadable`.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try container.decode(ObjectMeta.self, forKey: .metadata)
        (spec, unreadable) = readable(EncryptionEpoch.self, in: container, .spec)
        status = (try? container.decodeIfPresent(Status.self, forKey: .status)) ?? nil
        if let spec, Self.name(spec.number) != metadata.name {
            unreadable = "spec.number: \(spec.number) does not belong to the name \(metadata.name)"
            self.spec = nil
        } else if spec == nil, unreadable == nil {
            unreadable = "spec: is missing"
        }
    }

    /// Writes an object.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(metadata, forKey: .metadata)
        try container.encodeIfPresent(spec, forKey: .spec)
        try container.encodeIfPresent(status, forKey: .status)
    }
}
