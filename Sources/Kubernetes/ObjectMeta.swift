/// `metav1.ObjectMeta`, trimmed to what this project reads and writes.
///
/// `managedFields` is never decoded (it is often half of an object) and never sent.
public struct ObjectMeta: Codable, Sendable, Hashable {
    /// Unique in its namespace, or in the cluster. Empty where the server is to make one of `generateName`.
    public var name: String
    /// Nil for cluster-scoped objects.
    public var namespace: String?
    /// What the server puts before random letters when `name` is empty.
    public var generateName: String?
    /// Tells an object from one of the same name that came before it.
    public var uid: String?
    /// Opaque: compare for equality only.
    public var resourceVersion: String?
    /// Rises with every change of the specification.
    public var generation: Int64?
    /// For selectors.
    public var labels: [String: String]?
    /// For everything else.
    public var annotations: [String: String]?
    /// RFC 3339; set while finalizers, or a pod's grace period, hold a deletion back.
    public var deletionTimestamp: String?
    /// RFC 3339.
    public var creationTimestamp: String?
    /// The garbage collector deletes this object with these.
    public var ownerReferences: [OwnerReference]?
    /// Who has to agree before the object goes.
    public var finalizers: [String]?

    /// Names an object.
    public init(name: String, namespace: String? = nil) {
        self.name = name
        self.namespace = namespace
    }

    /// Reads what is known, and ignores the rest.
    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decodeIfPresent(String.self, forKey: .name) ?? ""
        namespace = try values.decodeIfPresent(String.self, forKey: .namespace)
        generateName = try values.decodeIfPresent(String.self, forKey: .generateName)
        uid = try values.decodeIfPresent(String.self, forKey: .uid)
        resourceVersion = try values.decodeIfPresent(String.self, forKey: .resourceVersion)
        generation = try values.decodeIfPresent(Int64.self, forKey: .generation)
        labels = try values.decodeIfPresent([String: String].self, forKey: .labels)
        annotations = try values.decodeIfPresent([String: String].self, forKey: .annotations)
        deletionTimestamp = try values.decodeIfPresent(String.self, forKey: .deletionTimestamp)
        creationTimestamp = try values.decodeIfPresent(String.self, forKey: .creationTimestamp)
        ownerReferences = try values.decodeIfPresent([OwnerReference].self, forKey: .ownerReferences)
        finalizers = try values.decodeIfPresent([String].self, forKey: .finalizers)
    }

    /// Writes what is there.
    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        if !name.isEmpty { try values.encode(name, forKey: .name) }
        try values.encodeIfPresent(namespace, forKey: .namespace)
        try values.encodeIfPresent(generateName, forKey: .generateName)
        try values.encodeIfPresent(uid, forKey: .uid)
        try values.encodeIfPresent(resourceVersion, forKey: .resourceVersion)
        try values.encodeIfPresent(generation, forKey: .generation)
        try values.encodeIfPresent(labels, forKey: .labels)
        try values.encodeIfPresent(annotations, forKey: .annotations)
        try values.encodeIfPresent(deletionTimestamp, forKey: .deletionTimestamp)
        try values.encodeIfPresent(creationTimestamp, forKey: .creationTimestamp)
        try values.encodeIfPresent(ownerReferences, forKey: .ownerReferences)
        try values.encodeIfPresent(finalizers, forKey: .finalizers)
    }

    private enum CodingKeys: String, CodingKey {
        case name, namespace, generateName, uid, resourceVersion, generation, labels, annotations, deletionTimestamp
        case creationTimestamp, ownerReferences, finalizers
    }
}

/// `metav1.OwnerReference`.
public struct OwnerReference: Codable, Sendable, Hashable {
    /// Group and version of the owner.
    public var apiVersion: String
    /// Kind of the owner.
    public var kind: String
    /// Name of the owner.
    public var name: String
    /// The owner's uid; a new object of the same name is no owner.
    public var uid: String
    /// The one owner that manages the object.
    public var controller: Bool?
    /// The owner must not go before this object.
    public var blockOwnerDeletion: Bool?

    /// Makes a reference.
    public init(
        apiVersion: String, kind: String, name: String, uid: String, controller: Bool? = nil,
        blockOwnerDeletion: Bool? = nil
    ) {
        self.apiVersion = apiVersion
        self.kind = kind
        self.name = name
        self.uid = uid
        self.controller = controller
        self.blockOwnerDeletion = blockOwnerDeletion
    }
}
