internal import Cluster
internal import Kubernetes
internal import Logging

extension LeaderSession {
    /// Tells people: statuses of policies, and Events about policies, mesh resources and nodes.
    func runStatuses() async {
        var told: [MeshReference: MeshOutcome] = [:]
        var nodes: [String: NodeCondition]?
        let alarm = Alarm(signal: statusesChanged, clock: clock)
        while !Task.isCancelled {
            let begin = clock.now()
            let isGood = await writePolicyStatuses()
            told = await tellOfMesh(told)
            nodes = await tellOfNodes(nodes)
            alarm.set(isGood ? nil : clock.now() + .seconds(5))
            // Every pod is looked at, and everything else waits meanwhile: a small part of the time.
            await pause(max(pace.statuses, (clock.now() - begin) * 40))
            await statusesChanged.wait()
        }
        alarm.set(nil)
    }

    private func writePolicyStatuses() async -> Bool {
        var isGood = true
        for (name, uid, before, status) in await hub.policyStatuses(board.status.translation, now: .now()) {
            guard mayWrite else { return true }
            let witness = await hub.witness(.policies, ObjectKey(name: name))
            do throws(KubernetesError) {
                let policy = try await api.mergePatch(
                    EncryptionPolicy.self, ObjectKey(name: name), subresource: "status",
                    body: json(["status": status]))
                await hub.put(policy, since: witness)
                board.count(.policies, isSuccess: true)
            } catch {
                if error.code == .notFound { continue }
                isGood = false
                board.count(.policies, isSuccess: false)
                logger.warning("cannot write a status", metadata: ["policy": "\(name)", "error": "\(error.message)"])
                continue
            }
            tell(name, uid, before, status)
        }
        return isGood
    }

    /// An Event for every condition that has changed, a warning where it is bad news.
    private func tell(
        _ name: String, _ uid: String?, _ before: EncryptionPolicy.Status?, _ after: EncryptionPolicy.Status
    ) {
        var reference = ObjectReference(EncryptionPolicy(name: name, spec: .init()))
        reference.uid = uid
        for condition in after.conditions ?? [] {
            let old = before?.conditions?.first { $0.type == condition.type }
            guard old?.status != condition.status || old?.reason != condition.reason else { continue }
            let isBad =
                condition.type == "Conflict"
                ? condition.status == .isTrue
                : condition.status == .isFalse && condition.reason != "Pending" && condition.reason != "NoPods"
            // A new policy's first good news is that it is enforced; the rest goes without saying.
            if old == nil, !isBad, condition.type != "Enforcing" || condition.status != .isTrue { continue }
            recorder.record(
                isBad ? .warning : .normal, regarding: reference, reason: condition.reason, action: "Evaluate",
                note: "\(condition.type): \(condition.message)")
        }
    }

    /// An Event for every mesh resource that comes to something else than before, if there is something to say.
    private func tellOfMesh(_ before: [MeshReference: MeshOutcome]) async -> [MeshReference: MeshOutcome] {
        let outcomes = await hub.meshOutcomes
        for (reference, (outcome, uid)) in outcomes where before[reference] != outcome {
            let object = ObjectReference(
                apiVersion: VirtualService.resource.apiVersion, kind: reference.kind,
                namespace: reference.key.namespace, name: reference.key.name, uid: uid)
            let known = Set(before[reference]?.notes ?? [])
            for note in outcome.notes where !known.contains(note) {
                recorder.record(
                    note.isWarning ? .warning : .normal, regarding: object, reason: note.reason, action: "Resolve",
                    note: note.message)
                logger.log(
                    level: note.isWarning ? .warning : .info, "mesh",
                    metadata: ["object": "\(reference)", "reason": "\(note.reason)", "what": "\(note.message)"])
            }
            if outcome.services != before[reference]?.services ?? [], !outcome.services.isEmpty {
                let list = outcome.services.prefix(10).map(\.description).joined(separator: ", ")
                recorder.record(
                    .normal, regarding: object, reason: "PodsProtected", action: "Resolve",
                    note: "pods of these services are protected: \(list)\(outcome.services.count > 10 ? ", ..." : "")")
            }
        }
        return outcomes.mapValues(\.outcome)
    }

    /// An Event at every Node whose keymgr has got ready, or says of an error.
    ///
    /// - Parameter before: nil for the first look of a leader: the one before it has told of those that are ready already.
    private func tellOfNodes(_ before: [String: NodeCondition]?) async -> [String: NodeCondition] {
        let conditions = await hub.nodeConditions
        for (name, condition) in conditions where before?[name] != condition {
            // As kubelet refers to its node: kubectl describe looks for that.
            let node = ObjectReference(apiVersion: "v1", kind: Node.resource.kind, name: name, uid: name)
            switch condition {
            case .problem(let text):
                recorder.record(
                    .warning, regarding: node, reason: "EncryptionProblem", action: "Protect",
                    note: "ebpf-xdp-keymgr: \(text)")
            case .ready where before != nil:
                recorder.record(
                    .normal, regarding: node, reason: "EncryptionReady", action: "Protect",
                    note: "ebpf-xdp-keymgr has its keys and protects the pods that it is asked to")
            case .ready, .waiting, .silent: break
            }
        }
        return conditions
    }
}
