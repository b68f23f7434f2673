public import Logging

/// The API of a real server.
public final class KubernetesClient: KubernetesAPI {
    /// Reads what the configuration names; connects when there is something to ask.
    public init(_ configuration: ClientConfiguration, logger: Logger) throws(KubernetesError) {
        throw KubernetesError(.configuration, "not yet")
    }

    /// Closes the connections. Requests under way fail. Call it once, at the end.
    public func shutdown() async {}

    /// Reads one object.
    public func get<O: KubernetesObject>(_ type: O.Type, _ key: ObjectKey) async throws(KubernetesError) -> O {
        throw KubernetesError(.configuration, "not yet")
    }
    /// Reads one page of a list.
    public func list<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: ListOptions
    ) async throws(KubernetesError) -> ObjectList<O> {
        throw KubernetesError(.configuration, "not yet")
    }
    /// One watch request.
    public func watch<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: WatchOptions, onEvent: (WatchEvent<O>) async throws -> Void
    ) async throws(KubernetesError) {
        throw KubernetesError(.configuration, "not yet")
    }
    /// POST.
    public func create<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        throw KubernetesError(.configuration, "not yet")
    }
    /// PUT.
    public func replace<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        throw KubernetesError(.configuration, "not yet")
    }
    /// PUT of the status subresource.
    public func replaceStatus<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        throw KubernetesError(.configuration, "not yet")
    }
    /// JSON merge patch.
    public func mergePatch<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, subresource: String?, body: [UInt8]
    ) async throws(KubernetesError) -> O {
        throw KubernetesError(.configuration, "not yet")
    }
    /// Server-side apply.
    public func apply<O: KubernetesObject>(
        _ object: O, subresource: String?, fieldManager: String, force: Bool
    ) async throws(KubernetesError) -> O {
        throw KubernetesError(.configuration, "not yet")
    }
    /// DELETE.
    public func delete<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, preconditionUID: String?
    ) async throws(KubernetesError) {
        throw KubernetesError(.configuration, "not yet")
    }
    /// Discovery.
    public func servedVersions(group: String, plural: String) async throws(KubernetesError) -> [String] {
        throw KubernetesError(.configuration, "not yet")
    }
}
