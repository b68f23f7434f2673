public import Kubernetes

/// The kinds of objects that the operator watches.
public enum WatchedKind: String, Sendable, Hashable, CaseIterable {
    /// v1
    case pods, services, nodes, namespaces
    /// discovery.k8s.io
    case endpointSlices = "endpointslices"
    /// networking.istio.io
    case serviceEntries = "serviceentries"
    /// networking.istio.io
    case workloadEntries = "workloadentries"
    /// networking.istio.io
    case virtualServices = "virtualservices"
    /// networking.istio.io
    case destinationRules = "destinationrules"
    /// cilium.io
    case ciliumEndpoints = "ciliumendpoints"
    /// cilium.io
    case ciliumNodes = "ciliumnodes"
    /// Ours.
    case policies = "encryptionpolicies"
    /// Ours.
    case encryptionNodes = "encryptionnodes"
    /// Ours.
    case epochs = "encryptionepochs"
    /// Ours.
    case slices = "encryptedendpointslices"

    /// Whether clusters without it are in order: it comes with a mesh or a CNI.
    public var isOptional: Bool {
        switch self {
        case .serviceEntries, .workloadEntries, .virtualServices, .destinationRules, .ciliumEndpoints, .ciliumNodes:
            true
        default: false
        }
    }

    /// Whether objects of the kind can ask for protection of a pod, or can be needed to find out that something asks for it. As long as
    /// one of these is not surely known, nothing is lifted.
    public var canAsk: Bool {
        switch self {
        case .encryptionNodes, .epochs, .slices, .ciliumNodes, .nodes: false
        default: true
        }
    }
}

/// How well a kind is known.
public struct KindState: Sendable {
    /// One whole list has arrived.
    public var isSynced = false
    /// It cannot be followed just now: what is known may be old. Why, for people.
    public var failure: String?
    /// The server has no such kind, and that is believed.
    public var isAbsent = false
    /// It is not known whether the server has the kind. Why, for people.
    public var undiscovered: String?
    /// Objects whose newest version cannot be read.
    public var unreadable: [ObjectKey: String] = [:]
    /// Keys of a list in progress.
    var listed: Set<ObjectKey>?

    /// Whether everything is known, or that it cannot be known now: then what is known is worked with, and nothing is lifted.
    public func isSettled(_ kind: WatchedKind) -> Bool {
        isSynced || isAbsent || (kind.isOptional && (failure != nil || undiscovered != nil))
    }

    /// What is known is all that there is, and is new.
    public var isCurrent: Bool { (isSynced || isAbsent) && failure == nil && undiscovered == nil && unreadable.isEmpty }
}
