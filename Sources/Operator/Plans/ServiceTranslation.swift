/// What is known of who translates addresses of services.
public struct ServiceProxies: Sendable, Hashable {
    /// kube-proxy.
    public var kubeProxy: Finding = .unknown
    /// Data of Cilium's ConfigMap; nil: there is none.
    public var cilium: [String: String]?
    /// Cilium's ConfigMap could be looked for.
    public var isCiliumKnown = false

    /// Whether something was found.
    public enum Finding: Sendable, Hashable {
        /// It could not be looked for.
        case unknown
        /// It is not there.
        case absent
        /// It is there, in such a mode, as far as that can be read.
        case present(mode: String?)
    }

    /// Nothing is known.
    public init() {}
}

/// Whether services work between protected pods.
///
/// Packets are encrypted at the pod's own interface, for the addresses that they carry there. Where the address of a service is
/// replaced later (kube-proxy's NAT on the node), the encrypted packet carries the service's address, and what the replacement
/// changes is authenticated: such packets cannot be decrypted. Where it is replaced at the socket, before there is a packet (keymgr's
/// socket load balancing, or Cilium's), all is well.
public struct ServiceTranslation: Sendable, Hashable {
    /// Whether it fits: nil when nobody can tell.
    public var works: Bool?
    /// One word in CamelCase.
    public var reason: String
    /// For people.
    public var message: String

    /// Judges. `socketLoadBalancing`: keymgr's.
    public static func judge(
        _ proxies: ServiceProxies, attachMode: OperatorConfiguration.AttachMode, socketLoadBalancing: Bool
    ) -> ServiceTranslation {
        if attachMode == .uplink {
            return .init(
                works: true, reason: "UplinkMode",
                message: "packets are encrypted at the node's uplink, after addresses of services were replaced")
        }
        let socket = ciliumSocketLoadBalancing(proxies.cilium)
        if socket == .everywhere {
            return .init(
                works: true, reason: "SocketLoadBalancing",
                message: "Cilium replaces addresses of services at the socket, before packets leave the pod")
        }
        if socketLoadBalancing {
            return .init(
                works: true, reason: "KeymgrSocketLoadBalancing",
                message:
                    "keymgr replaces addresses of ClusterIP services at the sockets of protected pods, before packets leave the pod"
            )
        }
        if case .present(let mode) = proxies.kubeProxy {
            let name = mode.map { "kube-proxy (\($0))" } ?? "kube-proxy"
            let cilium =
                socket == .hostOnly
                ? " Cilium's socket load balancing is limited to the host (bpf-lb-sock-hostns-only); pods do not have it."
                : ""
            return .init(
                works: false, reason: "KubeProxy",
                message:
                    "\(name) replaces addresses of services after packets were encrypted: connections of protected pods to ClusterIP services fail. Traffic between pods, and through headless services, works and is encrypted. Turn on socketLoadBalancing of keymgr and operator, or use Cilium with kube-proxy replacement, or headless services, or a mesh whose proxies choose pods themselves.\(cilium)"
            )
        }
        if socket == .hostOnly {
            return .init(
                works: false, reason: "HostOnlySocketLoadBalancing",
                message:
                    "Cilium's socket load balancing is limited to the host (bpf-lb-sock-hostns-only: true), so addresses of services are replaced after packets were encrypted: connections of protected pods to ClusterIP services fail. Traffic between pods, and through headless services, works and is encrypted. Turn bpf-lb-sock-hostns-only off, or socketLoadBalancing of keymgr and operator on."
            )
        }
        guard proxies.kubeProxy != .unknown, proxies.isCiliumKnown else {
            return .init(
                works: nil, reason: "CannotTell",
                message:
                    "it could not be found out who replaces addresses of services: the operator needs to read the ConfigMaps kube-proxy and cilium-config and the DaemonSet kube-proxy in kube-system"
            )
        }
        return .init(
            works: nil, reason: "NotDetected",
            message:
                "neither kube-proxy nor Cilium's kube-proxy replacement was found. If addresses of services are replaced on the node and not at the pod's socket, connections of protected pods to ClusterIP services fail; traffic between pods works and is encrypted"
        )
    }

    private enum Socket {
        case none, hostOnly, everywhere
    }

    /// kube-proxy replacement turns socket load balancing on, whatever `bpf-lb-sock` says; that one turns it on alone.
    private static func ciliumSocketLoadBalancing(_ cilium: [String: String]?) -> Socket {
        guard let cilium else { return .none }
        let replacement = cilium["kube-proxy-replacement"]
        guard replacement == "true" || replacement == "strict" || cilium["bpf-lb-sock"] == "true" else { return .none }
        return cilium["bpf-lb-sock-hostns-only"] == "true" ? .hostOnly : .everywhere
    }

    /// The mode in kube-proxy's configuration; "iptables" is what an empty one means on Linux.
    static func kubeProxyMode(_ configuration: String) -> String? {
        for line in configuration.split(whereSeparator: \.isNewline) {
            let line = line.drop { $0 == " " }
            guard line.hasPrefix("mode:") else { continue }
            let value = line.dropFirst(5).filter { $0 != " " && $0 != "\"" && $0 != "'" }
            return value.isEmpty ? "iptables" : String(value)
        }
        return nil
    }
}
