internal import Cluster
internal import Kubernetes
internal import Logging

/// Follows every kind of objects that the operator reads, and puts what it sees into the hub. Both replicas do: whoever becomes the
/// leader knows the cluster already.
struct Watchers: Sendable {
    let api: any KubernetesAPI
    let hub: Hub
    let clock: KubernetesClock
    let logger: Logger
    /// How long the server must have said that there is no such kind before that is believed, at the start and later.
    var absence = (start: Duration.seconds(5), later: Duration.seconds(120))
    /// How often it is asked which kinds there are.
    var discoveryInterval = Duration.seconds(30)

    /// Runs until the task is cancelled.
    func run() async {
        await withDiscardingTaskGroup { group in
            follow(Pod.self, &group)
            follow(Service.self, &group)
            follow(Node.self, &group)
            follow(Namespace.self, &group)
            follow(EncryptionPolicy.self, &group)
            follow(EncryptionNodeObject.self, &group)
            follow(EncryptionEpochObject.self, &group)
            group.addTask {
                var missing = MissingDefinition(logger)
                await Reflector<SliceHeader>(api: api, clock: clock, logger: logger).run { event in
                    missing.notice(event)
                    await hub.handle(slice: event)
                }
            }
            group.addTask { await followWhenServed(EndpointSlice.self) }
            group.addTask { await followWhenServed(ServiceEntry.self) }
            group.addTask { await followWhenServed(WorkloadEntry.self) }
            group.addTask { await followWhenServed(VirtualService.self) }
            group.addTask { await followWhenServed(DestinationRule.self) }
            group.addTask { await followWhenServed(CiliumEndpoint.self) }
            group.addTask { await followWhenServed(CiliumNode.self) }
        }
    }

    private func follow<O: Inventoried>(_ type: O.Type, _ group: inout DiscardingTaskGroup) {
        group.addTask {
            var missing = MissingDefinition(logger)
            await Reflector<O>(api: api, clock: clock, logger: logger).run { event in
                missing.notice(event)
                await hub.handle(event)
            }
        }
    }

    /// Kinds of a mesh or a CNI, which may come and go with it, and those that an older server has in another version or not at all.
    private func followWhenServed<O: Inventoried>(_ type: O.Type) async {
        let kind = O.place.kind
        var missingSince: Duration?
        var following: (version: String, task: Task<Void, Never>)?
        var hasSeen = false
        var hasMissed = false
        defer { following?.task.cancel() }
        while !Task.isCancelled {
            var pause = discoveryInterval
            do throws(KubernetesError) {
                let served = try await api.servedVersions(group: O.resource.group, plural: O.resource.plural)
                if let version = Self.choose(served, preferred: O.resource.version) {
                    missingSince = nil
                    hasSeen = true
                    await hub.setServed(kind)
                    if following?.version != version {
                        following?.task.cancel()
                        logger.info(
                            "following", metadata: ["resource": "\(O.resource.plural)", "version": "\(version)"])
                        let reflector = Reflector<O>(api: api, version: version, clock: clock, logger: logger)
                        following = (version, Task { await reflector.run { await hub.handle($0) } })
                    }
                } else {
                    let since = missingSince ?? clock.now()
                    missingSince = since
                    let grace = hasSeen ? absence.later : absence.start
                    if clock.now() - since >= grace {
                        if following != nil {
                            logger.notice(
                                "the server has no such kind any more", metadata: ["resource": "\(O.resource.plural)"])
                        } else if !kind.isOptional, !hasMissed {
                            hasMissed = true
                            logger.error(
                                "the server has no such kind: it is older than Kubernetes 1.30; going on without, services lead to no pod, and mesh resources protect nothing",
                                metadata: ["resource": "\(O.resource.plural).\(O.resource.group)"])
                        }
                        following?.task.cancel()
                        following = nil
                        hasSeen = false
                        await hub.setAbsent(kind)
                    } else {
                        await hub.setUndiscovered(kind, "the server does not have the kind at present")
                        pause = min(pause, grace)
                    }
                }
            } catch {
                // Not being able to ask says nothing: what is known stays.
                if following == nil {
                    await hub.setUndiscovered(
                        kind, "it cannot be found out whether the server has the kind: \(error.message)")
                }
                pause = min(pause, .seconds(5))
            }
            await clock.sleep(pause)
        }
    }

    /// The version to read: ours if it is served, else the newest of those that have the same shape.
    static func choose(_ served: [String], preferred: String) -> String? {
        ([preferred, "v1", "v1beta1", "v1alpha3"] + served).first { served.contains($0) }
    }
}

/// Says once that a kind of ours is not there.
private struct MissingDefinition {
    private let logger: Logger
    private var hasComplained = false

    init(_ logger: Logger) {
        self.logger = logger
    }

    mutating func notice<O: KubernetesObject>(_ event: Reflector<O>.Event) {
        guard case .failing(let error) = event, error.code == .notFound, O.resource.group == EncryptionAPI.group,
            !hasComplained
        else { return }
        hasComplained = true
        logger.error(
            "a CRD of ours is missing: apply deploy/crds; nothing is done until it is there",
            metadata: ["resource": "\(O.resource.plural).\(O.resource.group)"])
    }
}
