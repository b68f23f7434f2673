/// Where objects of a kind are found.
public struct ResourceKind: Sendable, Hashable {
    /// Empty for the core group.
    public var group: String
    /// "v1".
    public var version: String
    /// "Pod".
    public var kind: String
    /// "pods", as in paths.
    public var plural: String
    /// False for kinds without a namespace, as nodes are.
    public var isNamespaced: Bool

    /// Makes a kind.
    public init(group: String, version: String, kind: String, plural: String, isNamespaced: Bool) {
        self.group = group
        self.version = version
        self.kind = kind
        self.plural = plural
        self.isNamespaced = isNamespaced
    }

    /// "v1" or "apps/v1".
    public var apiVersion: String { group.isEmpty ? version : "\(group)/\(version)" }
}

/// An object of the API, trimmed to what its user reads: keys without a property are skipped when decoding.
///
/// Types neither have nor need `apiVersion` and `kind`: the client adds them to what it sends.
public protocol KubernetesObject: Codable, Sendable {
    /// The kind.
    static var resource: ResourceKind { get }
    /// Name, labels, version.
    var metadata: ObjectMeta { get set }
    /// Called on every object as soon as it is decoded: drops what nobody reads (long annotations), so that a hundred thousand
    /// of them fit into memory. Does nothing unless a type implements it.
    mutating func trim()
    /// Reads an object without Codable, for kinds with many or very large objects. Whatever this gives up on is decoded as usual.
    /// Nil, unless a type implements it: not for this kind.
    static func read(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> Self?
}

extension KubernetesObject {
    /// Keeps everything.
    public mutating func trim() {}

    /// Decodes as usual.
    public static func read(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> Self? { nil }

    /// Namespace and name.
    public var key: ObjectKey { ObjectKey(namespace: metadata.namespace, name: metadata.name) }
}

/// Which object of a kind. Ordered by namespace, then by name.
public struct ObjectKey: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// Nil for cluster-scoped objects.
    public var namespace: String?
    /// The object's name.
    public var name: String

    /// Makes a key. An empty namespace counts as none.
    public init(namespace: String? = nil, name: String) {
        self.namespace = namespace == "" ? nil : namespace
        self.name = name
    }

    /// A fixed order, for lists that must not change by themselves.
    public static func < (a: ObjectKey, b: ObjectKey) -> Bool {
        (a.namespace ?? "", a.name) < (b.namespace ?? "", b.name)
    }

    /// "namespace/name", or the name alone.
    public var description: String { namespace.map { "\($0)/\(name)" } ?? name }
}
