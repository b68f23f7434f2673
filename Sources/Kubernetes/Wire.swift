internal import FoundationEssentials

/// What the API sends and takes around objects.
enum Wire {
    /// Adds `apiVersion` and `kind`.
    private struct Outgoing<O: KubernetesObject>: Encodable {
        let object: O
        private enum CodingKeys: String, CodingKey { case apiVersion, kind }

        func encode(to encoder: any Encoder) throws {
            try object.encode(to: encoder)
            var values = encoder.container(keyedBy: CodingKeys.self)
            try values.encode(O.resource.apiVersion, forKey: .apiVersion)
            try values.encode(O.resource.kind, forKey: .kind)
        }
    }

    /// An object as the server takes it.
    static func encode<O: KubernetesObject>(_ object: O) throws(KubernetesError) -> [UInt8] {
        do {
            return Array(try JSONEncoder().encode(Outgoing(object: object)))
        } catch {
            throw KubernetesError(.badRequest, "\(O.resource.kind) \(object.key) cannot be encoded: \(error)")
        }
    }

    /// The body of a deletion that is for one object only, not for another of its name.
    static func deleteOptions(uid: String) -> [UInt8] {
        struct Options: Encodable {
            struct Preconditions: Encodable { var uid: String }
            var apiVersion = "v1"
            var kind = "DeleteOptions"
            var preconditions: Preconditions
        }
        // Text always encodes.
        return (try? JSONEncoder().encode(Options(preconditions: .init(uid: uid)))).map { Array($0) } ?? []
    }

    /// One object, trimmed.
    static func decode<O: KubernetesObject>(
        _ type: O.Type, _ bytes: UnsafeRawBufferPointer
    ) throws(KubernetesError) -> O {
        if let object = quickly(type, bytes) { return object }
        do {
            var object = try JSONDecoder().decode(type, from: data(bytes))
            object.trim()
            return object
        } catch {
            throw KubernetesError(.decoding, "\(type.resource.kind) in the answer: \(describe(error))")
        }
    }

    /// One page of a list.
    static func decodeList<O: KubernetesObject>(
        _ type: O.Type, _ bytes: UnsafeRawBufferPointer
    ) throws(KubernetesError) -> ObjectList<O> {
        if let list = quickList(type, bytes) { return list }
        let page: Page<O>
        do {
            page = try JSONDecoder().decode(Page<O>.self, from: data(bytes))
        } catch {
            throw KubernetesError(.decoding, "list of \(type.resource.plural) in the answer: \(describe(error))")
        }
        var list = ObjectList<O>(items: [], resourceVersion: page.metadata.resourceVersion ?? "")
        if let token = page.metadata.continue, !token.isEmpty { list.continueToken = token }
        list.items.reserveCapacity(page.items?.count ?? 0)
        for item in page.items ?? [] {
            switch item {
            case .object(let object): list.items.append(object)
            case .undecodable(let object): list.undecodable.append(object)
            }
        }
        return list
    }

    /// One line of a watch.
    static func decodeEvent<O: KubernetesObject>(
        _ type: O.Type, _ bytes: UnsafeRawBufferPointer
    ) throws(KubernetesError) -> WatchEvent<O> {
        if let event = quickEvent(type, bytes) { return event }
        let line: Line<O>
        do {
            line = try JSONDecoder().decode(Line<O>.self, from: data(bytes))
        } catch {
            throw KubernetesError(.decoding, "event in the watch of \(type.resource.plural): \(describe(error))")
        }
        switch line {
        case .event(let event): return event
        case .status(let status): throw KubernetesError(status, httpStatus: status.code ?? 500, retryAfter: nil)
        }
    }

    // MARK: Without Codable, where a kind can be read so. Nil: decode as usual.

    private static func quickly<O: KubernetesObject>(_ type: O.Type, _ bytes: UnsafeRawBufferPointer) -> O? {
        var json = JSONReader(bytes)
        guard var object = try? O.read(&json), json.isAtEnd() else { return nil }
        object.trim()
        return object
    }

    private static func quickList<O: KubernetesObject>(
        _ type: O.Type, _ bytes: UnsafeRawBufferPointer
    ) -> ObjectList<O>? {
        var json = JSONReader(bytes)
        var list = ObjectList<O>(items: [], resourceVersion: "")
        do throws(JSONReader.Unexpected) {
            try json.object { (json, key) throws(JSONReader.Unexpected) in
                switch key {
                case "metadata":
                    try json.object { (json, key) throws(JSONReader.Unexpected) in
                        switch key {
                        case "resourceVersion": list.resourceVersion = try json.string() ?? ""
                        case "continue": list.continueToken = try json.string().flatMap { $0.isEmpty ? nil : $0 }
                        default: try json.skip()
                        }
                    }
                case "items":
                    try json.array { (json) throws(JSONReader.Unexpected) in
                        guard var object = try O.read(&json) else { throw JSONReader.Unexpected() }
                        object.trim()
                        list.items.append(object)
                    }
                default: try json.skip()
                }
            }
        } catch {
            return nil
        }
        // An empty list of a kind that is decoded as usual may be taken from here, too.
        return json.isAtEnd() && !list.resourceVersion.isEmpty ? list : nil
    }

    private static func quickEvent<O: KubernetesObject>(
        _ type: O.Type, _ bytes: UnsafeRawBufferPointer
    ) -> WatchEvent<O>? {
        var json = JSONReader(bytes)
        var kind: JSONReader.Text?
        var event: WatchEvent<O>?
        do throws(JSONReader.Unexpected) {
            try json.object { (json, key) throws(JSONReader.Unexpected) in
                if key == "type" {
                    kind = try json.text()
                    return
                }
                guard key == "object", let kind, event == nil else { throw JSONReader.Unexpected() }
                guard kind == "ADDED" || kind == "MODIFIED" || kind == "DELETED", var object = try O.read(&json) else {
                    throw JSONReader.Unexpected()
                }
                object.trim()
                event =
                    kind == "ADDED"
                    ? .added(object) : kind == "MODIFIED" ? .modified(object) : .deleted(object.metadata)
            }
        } catch {
            return nil
        }
        return json.isAtEnd() ? event : nil
    }

    private static func data(_ bytes: UnsafeRawBufferPointer) -> Data {
        bytes.baseAddress.map { Data(bytes: $0, count: bytes.count) } ?? Data()
    }

    private struct Page<O: KubernetesObject>: Decodable {
        struct Metadata: Decodable {
            var resourceVersion: String?
            var `continue`: String?
        }
        var metadata: Metadata
        var items: [Lenient<O>]?
    }

    /// An object, or why it is none.
    private enum Lenient<O: KubernetesObject>: Decodable {
        case object(O)
        case undecodable(UndecodableObject)

        private enum CodingKeys: String, CodingKey { case metadata }

        init(from decoder: any Decoder) throws {
            do {
                var object = try O(from: decoder)
                object.trim()
                self = .object(object)
            } catch {
                let values = try? decoder.container(keyedBy: CodingKeys.self)
                let metadata = try? values?.decode(Identity.self, forKey: .metadata)
                self = .undecodable(
                    UndecodableObject(
                        key: ObjectKey(namespace: metadata?.namespace, name: metadata?.name ?? ""),
                        resourceVersion: metadata?.resourceVersion ?? "", problem: Wire.describe(error)))
            }
        }
    }

    /// What is left of metadata when anything else in it may be odd.
    private struct Identity: Decodable {
        var name: String?
        var namespace: String?
        var resourceVersion: String?
    }

    private enum Line<O: KubernetesObject>: Decodable {
        case event(WatchEvent<O>)
        case status(Status)

        private enum CodingKeys: String, CodingKey { case type, object }
        private struct Deleted: Decodable { var metadata: ObjectMeta }
        private struct Bookmark: Decodable { var metadata: Identity }

        init(from decoder: any Decoder) throws {
            let values = try decoder.container(keyedBy: CodingKeys.self)
            let type = try values.decode(String.self, forKey: .type)
            switch type {
            case "ADDED", "MODIFIED":
                switch try values.decode(Lenient<O>.self, forKey: .object) {
                case .object(let object): self = .event(type == "ADDED" ? .added(object) : .modified(object))
                case .undecodable(let object): self = .event(.undecodable(object))
                }
            case "DELETED":
                self = .event(.deleted(try values.decode(Deleted.self, forKey: .object).metadata))
            case "BOOKMARK":
                let bookmark = try values.decode(Bookmark.self, forKey: .object)
                self = .event(.bookmark(resourceVersion: bookmark.metadata.resourceVersion ?? ""))
            case "ERROR":
                self = .status(try values.decode(Status.self, forKey: .object))
            default:
                // A kind of event of a newer server: no reason to miss the others.
                self = .event(.bookmark(resourceVersion: ""))
            }
        }
    }

    /// `metav1.Status`.
    struct Status: Decodable {
        struct Details: Decodable {
            struct Cause: Decodable {
                var reason: String?
                var message: String?
                var field: String?
            }
            var causes: [Cause]?
            var retryAfterSeconds: Int?
        }
        var code: Int?
        var reason: String?
        var message: String?
        var details: Details?

        init() {}

        /// The body of an answer that is not 2xx; empty when it comes from something in between.
        init(body: UnsafeRawBufferPointer) {
            self = (try? JSONDecoder().decode(Status.self, from: Wire.data(body))) ?? Status()
        }
    }

    /// `metav1.APIGroup` and `metav1.APIResourceList`.
    struct Discovery: Decodable {
        struct Version: Decodable { var version: String }
        struct Resource: Decodable { var name: String }
        var versions: [Version]?
        var preferredVersion: Version?
        var resources: [Resource]?

        init(_ bytes: UnsafeRawBufferPointer) throws(KubernetesError) {
            do {
                self = try JSONDecoder().decode(Discovery.self, from: Wire.data(bytes))
            } catch {
                throw KubernetesError(.decoding, "discovery: \(Wire.describe(error))")
            }
        }
    }

    /// The key and what was expected of it.
    static func describe(_ error: any Error) -> String {
        guard let error = error as? DecodingError else { return "is not readable" }
        func path(_ context: DecodingError.Context, _ last: (any CodingKey)? = nil) -> String {
            let text = (context.codingPath + (last.map { [$0] } ?? [])).reduce(into: "") { text, key in
                if let index = key.intValue {
                    text += "[\(index)]"
                } else {
                    text += text.isEmpty ? key.stringValue : ".\(key.stringValue)"
                }
            }
            return text.isEmpty ? "" : "\(text): "
        }
        switch error {
        case .typeMismatch(let type, let context): return "\(path(context))expected \(type)"
        case .valueNotFound(let type, let context): return "\(path(context))is null; expected \(type)"
        case .keyNotFound(let key, let context): return "\(path(context, key))is missing"
        case .dataCorrupted(let context):
            return context.codingPath.isEmpty ? "is not valid JSON" : path(context) + context.debugDescription
        @unknown default: return "is not readable"
        }
    }
}

extension KubernetesError {
    /// What an answer other than 2xx means.
    init(_ status: Wire.Status, httpStatus: Int, retryAfter: Duration?) {
        let reason = status.reason ?? ""
        let code: Code
        switch httpStatus {
        case 400: code = .badRequest
        case 401: code = .unauthorized
        case 403: code = .forbidden
        case 404: code = .notFound
        case 409: code = reason == "AlreadyExists" ? .alreadyExists : .conflict
        case 410: code = .expired
        case 422: code = .invalid
        case 429: code = .tooManyRequests
        case 502, 503: code = .unavailable
        case 504:
            // The version is newer than this server knows: it was restored from a backup, or is behind.
            let isAhead = status.details?.causes?.contains { $0.reason == "ResourceVersionTooLarge" } ?? false
            code = isAhead ? .expired : .timeout
        case 500...: code = .server
        default: code = .other
        }
        let wait = retryAfter ?? status.details?.retryAfterSeconds.map { .seconds($0) }
        // Servers of custom resources say nothing but 404 where the kind is not there.
        let plain =
            code == .notFound
            ? "the server has no such kind (404)" : "the API server answered \(httpStatus)"
        self.init(
            code, status.message ?? plain, status: httpStatus, reason: reason,
            retryAfter: wait.map { max(.zero, min($0, .seconds(300))) })
    }
}
