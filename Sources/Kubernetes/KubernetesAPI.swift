/// The Kubernetes API, as far as it is used: the edge that tests fake. `KubernetesClient` is the real one.
public protocol KubernetesAPI: Sendable {
    /// Reads one object.
    func get<O: KubernetesObject>(_ type: O.Type, _ key: ObjectKey) async throws(KubernetesError) -> O

    /// Reads one page of a list.
    ///
    /// - Parameter namespace: nil for all namespaces, and for cluster-scoped kinds.
    func list<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: ListOptions
    ) async throws(KubernetesError) -> ObjectList<O>

    /// Makes one watch request, and hands over its events in order until it ends. Events wait in the network, not in memory, while
    /// `onEvent` works. Returns when the server ends the watch, as it does after `options.timeout`, or when nothing has come for long.
    /// An expired version is thrown as `.expired`, however the server reports it.
    func watch<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: WatchOptions, onEvent: (WatchEvent<O>) async throws -> Void
    ) async throws(KubernetesError)

    /// Creates an object; `.alreadyExists` if there is one.
    func create<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O

    /// PUT. With `metadata.resourceVersion`, only if nobody has changed the object since: otherwise `.conflict`.
    func replace<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O

    /// The same for the status subresource: everything but `status` is ignored.
    func replaceStatus<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O

    /// JSON merge patch (RFC 7396).
    ///
    /// - Parameters:
    ///   - subresource: "status", or nil for the object itself.
    ///   - body: JSON; null removes a key.
    func mergePatch<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, subresource: String?, body: [UInt8]
    ) async throws(KubernetesError) -> O

    /// Server-side apply: creates the object or sets the fields that it has, removes those that this manager set before and does not
    /// any more. Without `force`, fields of other managers are `.conflict`.
    func apply<O: KubernetesObject>(
        _ object: O, subresource: String?, fieldManager: String, force: Bool
    ) async throws(KubernetesError) -> O

    /// Deletes an object.
    ///
    /// - Parameter preconditionUID: only if it is still this one; otherwise `.conflict`.
    func delete<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, preconditionUID: String?
    ) async throws(KubernetesError)

    /// The versions in which the server has a resource, the preferred one first; empty when there is no such resource (no CRD).
    func servedVersions(group: String, plural: String) async throws(KubernetesError) -> [String]
}

extension KubernetesAPI {
    /// Applies an object, taking over fields of others.
    public func apply<O: KubernetesObject>(_ object: O, fieldManager: String) async throws(KubernetesError) -> O {
        try await apply(object, subresource: nil, fieldManager: fieldManager, force: true)
    }

    /// Deletes whatever object has this name.
    public func delete<O: KubernetesObject>(_ type: O.Type, _ key: ObjectKey) async throws(KubernetesError) {
        try await delete(type, key, preconditionUID: nil)
    }

    /// All pages of a list. For what is known to be short: a `Reflector` does not hold all of a long list at once.
    public func listAll<O: KubernetesObject>(
        _ type: O.Type, namespace: String? = nil, options: ListOptions = ListOptions()
    ) async throws(KubernetesError) -> ObjectList<O> {
        var options = options
        if options.limit == nil { options.limit = 500 }
        var all = try await list(type, namespace: namespace, options: options)
        while let token = all.continueToken {
            options.continueToken = token
            let page = try await list(type, namespace: namespace, options: options)
            all.items += page.items
            all.undecodable += page.undecodable
            all.continueToken = page.continueToken
            all.resourceVersion = page.resourceVersion
        }
        return all
    }
}

/// Which objects to list.
public struct ListOptions: Sendable, Hashable {
    /// "spec.nodeName=worker-1".
    public var fieldSelector: String?
    /// "app=web,tier!=cache".
    public var labelSelector: String?
    /// How many objects a page has at most; nil for all.
    public var limit: Int?
    /// From the page before.
    public var continueToken: String?
    /// Nil for the newest state; "0" for whatever the server has in memory.
    public var resourceVersion: String?
    /// Instead of the type's own, for kinds that are served alike in several versions.
    public var version: String?

    /// Makes options.
    public init(
        fieldSelector: String? = nil, labelSelector: String? = nil, limit: Int? = nil, continueToken: String? = nil,
        resourceVersion: String? = nil, version: String? = nil
    ) {
        self.fieldSelector = fieldSelector
        self.labelSelector = labelSelector
        self.limit = limit
        self.continueToken = continueToken
        self.resourceVersion = resourceVersion
        self.version = version
    }
}

/// Which objects to watch, and from when.
public struct WatchOptions: Sendable, Hashable {
    /// "metadata.name=worker-1".
    public var fieldSelector: String?
    /// "app=web".
    public var labelSelector: String?
    /// Events after this version.
    public var resourceVersion: String
    /// When the server is to end the watch. Whole seconds.
    public var timeout: Duration
    /// Instead of the type's own.
    public var version: String?

    /// Makes options. Bookmarks are always asked for.
    public init(
        fieldSelector: String? = nil, labelSelector: String? = nil, resourceVersion: String,
        timeout: Duration = .seconds(300), version: String? = nil
    ) {
        self.fieldSelector = fieldSelector
        self.labelSelector = labelSelector
        self.resourceVersion = resourceVersion
        self.timeout = timeout
        self.version = version
    }
}

/// A page of a list.
public struct ObjectList<O: KubernetesObject>: Sendable {
    /// What could be decoded.
    public var items: [O]
    /// What could not; a part of the page all the same.
    public var undecodable: [UndecodableObject]
    /// The state that this is; where a watch begins.
    public var resourceVersion: String
    /// For the next page; nil when this is the last.
    public var continueToken: String?

    /// Makes a page.
    public init(
        items: [O], undecodable: [UndecodableObject] = [], resourceVersion: String, continueToken: String? = nil
    ) {
        self.items = items
        self.undecodable = undecodable
        self.resourceVersion = resourceVersion
        self.continueToken = continueToken
    }
}

/// An object that does not fit its type: written by a newer or an older program, or by a person before there was a schema.
public struct UndecodableObject: Sendable, Hashable {
    /// Which one.
    public var key: ObjectKey
    /// Empty when not even this can be read.
    public var resourceVersion: String
    /// The key within it and what was expected, for people.
    public var problem: String

    /// Makes a report.
    public init(key: ObjectKey, resourceVersion: String, problem: String) {
        self.key = key
        self.resourceVersion = resourceVersion
        self.problem = problem
    }
}

/// What a watch reports.
public enum WatchEvent<O: KubernetesObject>: Sendable {
    /// The server has accepted the watch; the first event of each.
    case opened
    /// New, or new to the selectors.
    case added(O)
    /// Changed.
    case modified(O)
    /// Gone, or no longer selected: the last metadata.
    case deleted(ObjectMeta)
    /// Nothing but progress: a watch can resume from this version.
    case bookmark(resourceVersion: String)
    /// Added or changed, but it does not fit its type.
    case undecodable(UndecodableObject)
}
