/// Where requests go: paths and queries, percent-encoded.
enum Paths {
    /// Of a kind's collection, or of one object in it.
    ///
    /// - Parameters:
    ///   - key: nil for the collection.
    ///   - namespace: of the collection; nil for all namespaces.
    static func path(
        _ resource: ResourceKind, version: String? = nil, namespace: String?, name: String? = nil,
        subresource: String? = nil
    ) throws(KubernetesError) -> String {
        let version = version ?? resource.version
        var path = resource.group.isEmpty ? "/api/\(encode(version))" : "/apis/\(resource.group)/\(encode(version))"
        if resource.isNamespaced {
            if let namespace {
                path += "/namespaces/\(try segment(namespace, "namespace"))"
            } else if name != nil {
                throw KubernetesError(.badRequest, "\(resource.kind) \(name ?? ""): the namespace is missing")
            }
        }
        path += "/\(resource.plural)"
        // Without this check, deleting an object without a name would delete all of them.
        if let name { path += "/\(try segment(name, "name of a \(resource.kind)"))" }
        if let subresource { path += "/\(try segment(subresource, "subresource"))" }
        return path
    }

    /// Names and values, in order.
    static func query(_ fields: [(String, String?)]) -> String {
        var text = ""
        for (name, value) in fields {
            guard let value else { continue }
            text += "\(text.isEmpty ? "?" : "&")\(name)=\(encode(value))"
        }
        return text
    }

    private static func segment(_ text: String, _ what: String) throws(KubernetesError) -> String {
        guard !text.isEmpty, text != ".", text != "..", !text.contains("/"), text.utf8.count <= 253 else {
            throw KubernetesError(.badRequest, "\"\(text.prefix(80))\" is no \(what)")
        }
        return encode(text)
    }

    private static func encode(_ text: String) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var bytes: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f, 0x7e: bytes.append(byte)
            default: bytes += [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
