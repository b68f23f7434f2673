internal import Cluster
internal import Kubernetes
internal import Logging

extension LeaderSession {
    /// Tells people: statuses of policies, and Events about policies and mesh resources.
    func runStatuses() async {
        var told: [MeshReference: MeshOutcome] = [:]
        let alarm = Alarm(signal: statusesChanged, clock: clock)
        while !Task.isCancelled {
            let begin = clock.now()
            let isGood = await writePolicyStatuses()
            told = await tellOfMesh(told)
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
            do throws(KubernetesError) {
                let policy = try await api.mergePatch(
                    EncryptionPolicy.self, ObjectKey(name: name), subresource: "status",
                    body: json(["status": status]))
                await hub.put(policy)
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
            if old == nil, !isBad { continue }
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
}
