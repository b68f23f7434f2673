internal import Kubernetes

/// A host as mesh resources name it, read from the point of view of a namespace.
enum HostName: Hashable {
    /// "*"
    case any
    /// "*.shop.svc.cluster.local": what follows the star, with the dot.
    case suffix(String)
    /// A name that may be a service of the cluster's.
    case service(ServiceName)
    /// Any other name.
    case other(String)

    /// Reads a host. A name without dots is a service of the namespace; `name.namespace.svc`, with or without the cluster's domain, one
    /// of that namespace. Case and a dot at the end do not matter.
    init(_ text: String, namespace: String, clusterDomain: String) {
        var name = text.lowercased()
        if name.hasSuffix(".") { name.removeLast() }
        if name == "*" {
            self = .any
            return
        }
        if name.hasPrefix("*.") {
            self = .suffix(String(name.dropFirst()))
            return
        }
        if !name.utf8.contains(UInt8(ascii: ".")) {
            self = .service(ServiceName(namespace: namespace, name: name))
            return
        }
        let domain = ".\(clusterDomain)"
        let inner = name.hasSuffix(domain) ? String(name.dropLast(domain.count)) : name
        let parts = inner.split(separator: ".", omittingEmptySubsequences: false)
        if parts.count == 3, parts[2] == "svc", !parts[0].isEmpty, !parts[1].isEmpty {
            self = .service(ServiceName(namespace: String(parts[1]), name: String(parts[0])))
        } else {
            self = .other(name)
        }
    }

    /// The whole name: services with namespace and domain.
    func full(_ clusterDomain: String) -> String {
        switch self {
        case .any: "*"
        case .suffix(let suffix): "*\(suffix)"
        case .service(let service): Self.full(service, clusterDomain)
        case .other(let name): name
        }
    }

    static func full(_ service: ServiceName, _ clusterDomain: String) -> String {
        "\(service.name).\(service.namespace ?? "").svc.\(clusterDomain)"
    }
}

/// Whether something in one namespace is seen from another: `exportTo` of mesh resources. Not there: by all.
func isExported(_ exportTo: [String], from owner: String, to namespace: String) -> Bool {
    guard !exportTo.isEmpty else { return true }
    return exportTo.contains { $0 == "*" || $0 == namespace || ($0 == "." && owner == namespace) }
}
