internal import Kubernetes

/// The names that our own kinds of objects have in common. All of them are cluster-scoped.
public enum EncryptionAPI {
    /// The API group.
    public static let group = "encryption.ebpf.xdp"
    /// The version that is served and stored.
    public static let version = "v1alpha1"

    static func kind(_ kind: String, _ plural: String) -> ResourceKind {
        ResourceKind(group: group, version: version, kind: kind, plural: plural, isNamespaced: false)
    }
}

/// What pods say, and what is said of them: the annotations under `ebpf.xdp/`.
public enum PodAnnotation {
    /// "true": protect this pod. "false", set by a person: not for a mesh resource's sake, nor for a policy's that is not enforced.
    public static let encrypt = "ebpf.xdp/encrypt"
    /// The mode, and after a semicolon who asks for it: `strict;EncryptionPolicy/payments,VirtualService/shop/reviews`.
    public static let policy = "ebpf.xdp/policy"
    /// Who set the other two. The operator changes and removes them only where this is `operatorName`.
    public static let managedBy = "ebpf.xdp/managed-by"
    /// The operator's mark in `managedBy`.
    public static let operatorName = "ebpf-xdp-operator"

    /// What stands before the first semicolon of `policy`, if it is a mode.
    public static func mode(ofPolicy value: String) -> Mode? {
        Mode(rawValue: String(value.prefix { $0 != ";" }))
    }
}
