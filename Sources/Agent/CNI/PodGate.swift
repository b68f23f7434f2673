internal import Cluster
internal import Datapath
internal import Kubernetes
internal import Logging
internal import Netlink

/// keymgr's side of the CNI plugin: decides whether a pod that is about to start shall be protected, and answers only when its programs
/// are attached. Until its endpoint is published and acknowledged, the kernel drops what a strict pod sends to other pods.
struct PodGate: Sendable {
    let sandboxes: SandboxStore
    let api: any KubernetesAPI
    let clock: KubernetesClock
    let decision: Duration
    let logger: Logger
    /// The mode in which the operator wants a pod, by its UID or by namespace and name.
    let wanted: @Sendable (_ uid: String?, _ namespace: String, _ name: String) -> Mode?
    /// Why pods cannot be protected now; nil when they can.
    let notReady: @Sendable () -> String?
    /// Something has changed here: look.
    let changed: @Sendable () -> Void
    /// Whether a pod's programs are attached and its addresses are in force; and if not, what is in the way.
    let isInForce: @Sendable (Sandbox) -> (Bool, String?)
    /// What else a pod that starts has to wait for; nil: nothing.
    var isAwaited: @Sendable () -> String? = { nil }

    func handle(_ request: CNIRequest) async -> CNIReply {
        switch request.command {
        case .add: return await add(request)
        case .check: return check(request)
        case .delete:
            if sandboxes.remove(containerID: request.containerID, interface: request.interface) { changed() }
            return CNIReply(.done)
        case .collect:
            sandboxes.keep(only: Set(request.valid ?? []))
            changed()
            return CNIReply(.done)
        case .status:
            return notReady().map { CNIReply(.later, $0) } ?? CNIReply(.done)
        }
    }

    private func check(_ request: CNIRequest) -> CNIReply {
        guard let sandbox = sandboxes.sandbox(containerID: request.containerID, interface: request.interface) else {
            return CNIReply(.done)  // made before the plugin was there
        }
        let isWanted = wanted(sandbox.uid, sandbox.podNamespace, sandbox.podName) != nil || sandbox.protection != nil
        guard isWanted else { return CNIReply(.done) }
        let (isThere, obstacle) = isInForce(sandbox)
        return isThere
            ? CNIReply(.done, isProtected: true)
            : CNIReply(
                .refused, isProtected: true,
                "the programs of pod \(sandbox.label) are not attached\(obstacle.map { ": \($0)" } ?? "")")
    }

    private func add(_ request: CNIRequest) async -> CNIReply {
        let end = clock.now() + .milliseconds(request.patience)
        guard let namespace = request.podNamespace, let name = request.podName else {
            // No pod of Kubernetes.
            return CNIReply(.done)
        }
        let label = "\(namespace)/\(name)"
        let (admission, uid) = await decide(request, namespace, name, end)
        let mode: Mode
        switch admission {
        case .protect(let wanted): mode = wanted
        case .leave, .ask: return remember(request, uid: uid, label, protection: nil)
        case .unknown(let why):
            guard request.unknownPods == .refuse else {
                logger.warning(
                    "a pod starts without anybody knowing whether it should be protected",
                    metadata: ["pod": "\(label)", "what": "\(why)"])
                return remember(request, uid: uid, label, protection: nil)
            }
            return CNIReply(.later, "whether pod \(label) is to be protected cannot be told: \(why)")
        }
        if let obstacle = notReady() {
            return CNIReply(.later, isProtected: true, "pod \(label) is to be protected, and \(obstacle)")
        }
        guard let uid else {
            return CNIReply(.later, isProtected: true, "pod \(label) is to be protected, and its UID is not known")
        }
        let reply = remember(request, uid: uid, label, protection: mode)
        guard reply.outcome == .done,
            let sandbox = sandboxes.sandbox(containerID: request.containerID, interface: request.interface)
        else { return reply }
        return await attached(sandbox, end)
    }

    /// Asks as long as nobody could have decided yet.
    private func decide(
        _ request: CNIRequest, _ namespace: String, _ name: String, _ end: Duration
    ) async -> (Admission, uid: String?) {
        let begin = clock.now()
        var facts = Admission.Facts(annotations: request.annotations, decision: decision)
        var uid = request.uid
        while true {
            facts.wanted = wanted(uid, namespace, name)
            // What the runtime says is enough for a yes; a no may be older than the operator's word.
            if case .protect(let mode) = Admission.decide(facts), uid != nil { return (.protect(mode), uid) }
            do throws(KubernetesError) {
                let pod = try await api.get(PodRecord.self, ObjectKey(namespace: namespace, name: name))
                if pod.isCalled(request.uid) {
                    facts.pod = pod
                    uid = pod.metadata.uid ?? uid
                    facts.wanted = wanted(uid, namespace, name)
                    if facts.age == nil, let created = pod.metadata.creationTimestamp.flatMap({ Timestamp($0) }) {
                        facts.age = .milliseconds(Timestamp.now().milliseconds(since: created))
                    }
                } else {
                    facts.failure = KubernetesError(.notFound, "pod \(namespace)/\(name) is another one now")
                }
            } catch {
                facts.failure = error
            }
            let elapsed = clock.now() - begin
            var now = facts
            now.age = facts.age.map { max(.zero, $0) + elapsed }
            let admission = Admission.decide(now)
            guard case .ask(let left) = admission, clock.now() + .milliseconds(200) < end else {
                return (admission, uid)
            }
            await clock.sleep(min(left, .milliseconds(200)))
        }
    }

    private func remember(_ request: CNIRequest, uid: String?, _ label: String, protection: Mode?) -> CNIReply {
        let isProtected = protection != nil
        guard let uid, let path = request.networkNamespace, let identity = request.identity,
            !request.addresses.isEmpty
        else {
            return isProtected
                ? CNIReply(
                    .refused, isProtected: true,
                    "pod \(label) is to be protected, and the plugins before have given it no address")
                : CNIReply(.done)
        }
        let sandbox = Sandbox(
            containerID: request.containerID, interface: request.interface, uid: uid,
            podNamespace: request.podNamespace ?? "", podName: request.podName ?? "", networkNamespace: path,
            identity: identity, addresses: request.addresses, protection: protection, added: .now())
        do {
            try sandbox.check()
            try sandboxes.add(sandbox)
        } catch {
            // An unprotected pod is found by its addresses, should it be protected later.
            return isProtected
                ? CNIReply(.later, isProtected: true, "pod \(label) cannot be remembered: \(error)")
                : CNIReply(.done)
        }
        if isProtected { changed() }
        return CNIReply(.done, isProtected: isProtected)
    }

    /// Waits until the pod's programs are attached and the kernel knows its addresses.
    private func attached(_ sandbox: Sandbox, _ end: Duration) async -> CNIReply {
        var obstacle: String?
        while clock.now() < end {
            let (isThere, why) = isInForce(sandbox)
            let awaited = isThere ? isAwaited() : nil
            if isThere, awaited == nil {
                logger.info(
                    "protected before it starts", metadata: ["pod": "\(sandbox.label)", "uid": "\(sandbox.uid)"])
                return CNIReply(.done, isProtected: true)
            }
            obstacle = why ?? awaited ?? obstacle
            await clock.sleep(.milliseconds(5))
        }
        // It does not start, so nothing is left of it to protect.
        sandboxes.remove(containerID: sandbox.containerID, interface: sandbox.interface)
        changed()
        return CNIReply(
            .later, isProtected: true,
            "the programs of pod \(sandbox.label) could not be attached in time\(obstacle.map { ": \($0)" } ?? "")")
    }
}
