public import Logging
internal import NIOCore
internal import NIOHTTP1

/// The API of a real server, over HTTP/1.1 and TLS.
///
/// Retries nothing but a request that was answered with 401 (once, with the token read again): callers are level-triggered and know
/// better when to come back.
public final class KubernetesClient: KubernetesAPI {
    private let transport: Transport

    /// Reads what the configuration names; connects when there is something to ask.
    public init(
        _ configuration: ClientConfiguration, clock: KubernetesClock = .system, logger: Logger
    ) throws(KubernetesError) {
        transport = try Transport(configuration, clock: clock, logger: logger)
    }

    /// Closes the connections; requests under way fail. A client that nobody holds any more does this by itself.
    public func shutdown() async { await transport.shutdown() }

    /// Reads one object.
    public func get<O: KubernetesObject>(_ type: O.Type, _ key: ObjectKey) async throws(KubernetesError) -> O {
        try await send(type, .GET, path(type, key))
    }

    /// Reads one page of a list.
    public func list<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: ListOptions
    ) async throws(KubernetesError) -> ObjectList<O> {
        // A token stands for the version of the first page; asking for another one is an error.
        let version = options.continueToken == nil ? options.resourceVersion : nil
        let query = Paths.query([
            ("labelSelector", options.labelSelector), ("fieldSelector", options.fieldSelector),
            ("limit", options.limit.map { String($0) }), ("continue", options.continueToken),
            ("resourceVersion", version),
        ])
        let path = try Paths.path(O.resource, version: options.version, namespace: namespace)
        return try await transport.send(.init(method: .GET, target: path + query)) {
            (bytes) throws(KubernetesError) in try Wire.decodeList(type, bytes)
        }
    }

    /// One watch request.
    public func watch<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: WatchOptions, onEvent: (WatchEvent<O>) async throws -> Void
    ) async throws(KubernetesError) {
        let query = Paths.query([
            ("watch", "1"), ("allowWatchBookmarks", "true"), ("labelSelector", options.labelSelector),
            ("fieldSelector", options.fieldSelector), ("resourceVersion", options.resourceVersion),
            ("timeoutSeconds", String(max(1, options.timeout.components.seconds))),
        ])
        let path = try Paths.path(O.resource, version: options.version, namespace: namespace)
        func handOver(_ event: WatchEvent<O>) async throws {
            do {
                try await onEvent(event)
            } catch {
                throw Transport.HandlerFailure(
                    error: error as? KubernetesError ?? KubernetesError(.handler, "a handler failed: \(error)"))
            }
        }
        try await transport.stream(
            .init(method: .GET, target: path + query), duration: options.timeout,
            onOpen: { try await handOver(.opened) },
            onLine: { line in
                try await handOver(try line.withUnsafeReadableBytes { try Wire.decodeEvent(type, $0) })
            })
    }

    /// POST.
    public func create<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        if O.resource.isNamespaced && object.metadata.namespace == nil {
            throw KubernetesError(.badRequest, "\(O.resource.kind) \(object.key): the namespace is missing")
        }
        let path = try Paths.path(O.resource, namespace: object.metadata.namespace)
        return try await send(O.self, .POST, path, body: Wire.encode(object))
    }

    /// PUT.
    public func replace<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        try await send(O.self, .PUT, path(O.self, object.key), body: Wire.encode(object))
    }

    /// PUT of the status subresource.
    public func replaceStatus<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        try await send(O.self, .PUT, path(O.self, object.key, "status"), body: Wire.encode(object))
    }

    /// JSON merge patch.
    public func mergePatch<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, subresource: String?, body: [UInt8]
    ) async throws(KubernetesError) -> O {
        try await send(
            type, .PATCH, path(type, key, subresource), contentType: "application/merge-patch+json", body: body)
    }

    /// Server-side apply.
    public func apply<O: KubernetesObject>(
        _ object: O, subresource: String?, fieldManager: String, force: Bool
    ) async throws(KubernetesError) -> O {
        let query = Paths.query([("fieldManager", fieldManager), ("force", force ? "true" : "false")])
        // JSON is YAML.
        return try await send(
            O.self, .PATCH, path(O.self, object.key, subresource) + query,
            contentType: "application/apply-patch+yaml", body: Wire.encode(object))
    }

    /// DELETE. Dependents are deleted in the background.
    public func delete<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, preconditionUID: String?
    ) async throws(KubernetesError) {
        var request = Transport.Request(method: .DELETE, target: try path(type, key))
        if let preconditionUID { request.body = Wire.deleteOptions(uid: preconditionUID) }
        try await transport.send(request) { _ in }
    }

    /// Discovery: the group, then each of its versions.
    public func servedVersions(group: String, plural: String) async throws(KubernetesError) -> [String] {
        let root = group.isEmpty ? "/api" : "/apis/\(group)"
        var versions: [String] = []
        if group.isEmpty {
            versions = ["v1"]
        } else {
            guard let found = try await discover(root) else { return [] }
            versions = found.versions?.map { $0.version } ?? []
            if let preferred = found.preferredVersion?.version, let index = versions.firstIndex(of: preferred) {
                versions.insert(versions.remove(at: index), at: 0)
            }
        }
        var served: [String] = []
        for version in versions {
            let resources = try await discover("\(root)/\(version)")?.resources ?? []
            if resources.contains(where: { $0.name == plural }) { served.append(version) }
        }
        return served
    }

    // MARK: -

    private func discover(_ path: String) async throws(KubernetesError) -> Wire.Discovery? {
        do throws(KubernetesError) {
            return try await transport.send(.init(method: .GET, target: path)) {
                (bytes) throws(KubernetesError) in try Wire.Discovery(bytes)
            }
        } catch {
            // Not the same as "cannot be asked".
            if error.code == .notFound { return nil }
            throw error
        }
    }

    private func path<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, _ subresource: String? = nil
    ) throws(KubernetesError) -> String {
        try Paths.path(O.resource, namespace: key.namespace, name: key.name, subresource: subresource)
    }

    private func send<O: KubernetesObject>(
        _ type: O.Type, _ method: HTTPMethod, _ target: String, contentType: String = "application/json",
        body: [UInt8]? = nil
    ) async throws(KubernetesError) -> O {
        let request = Transport.Request(method: method, target: target, contentType: contentType, body: body)
        return try await transport.send(request) { (bytes) throws(KubernetesError) in try Wire.decode(type, bytes) }
    }
}
