internal import CloudIdentity
internal import Cluster
internal import KMS
internal import Keys
internal import Kubernetes
internal import Logging

extension LeaderSession {
    /// Makes epochs: the first, one when the newest gets old, and one when the KEK was rotated. Says where each stands, and removes
    /// those that ended long ago. Nodes go on without it until the newest epoch ends.
    func runEpochs() async {
        var keeper = EpochKeeper()
        let alarm = Alarm(signal: epochsChanged, clock: clock)
        while !Task.isCancelled {
            let wait = await stepEpochs(&keeper)
            alarm.set(clock.now() + wait)
            await pause(min(wait, pace.epochs))
            await epochsChanged.wait()
        }
        alarm.set(nil)
    }

    private struct EpochKeeper {
        var schedule: EpochSchedule?
        var newest: Epoch = 0
        var said = ""
        var isFresh = false
        var written: [Epoch: EncryptionEpochObject.Status] = [:]
        var statusesAt = Duration.zero
        /// Why the last status could not be written.
        var statusError: String?
    }

    private func stepEpochs(_ keeper: inout EpochKeeper) async -> Duration {
        guard mayWrite else { return .seconds(1) }
        guard let cluster = board.status.cluster else { return .milliseconds(200) }
        if !keeper.isFresh {
            // What a watch has may be old: the number of the next epoch depends on all that there are.
            let witness = await hub.witness(.epochs)
            guard let list = try? await api.listAll(EncryptionEpochObject.self) else { return .seconds(1) }
            for object in list.items { await hub.put(object, since: witness) }
            keeper.isFresh = true
        }
        guard await hub.areEpochsKnown else {
            let problems = await hub.epochProblems.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
            say("waiting: epochs cannot be read: \(problems.joined(separator: "; "))", &keeper, level: .error)
            return .seconds(1)
        }
        let objects = await hub.epochs
        let epochs = objects.compactMapValues(\.spec)
        let nodes = await hub.reports
        let now = Timestamp.now()
        let plan = EpochPlan.plan(cluster: cluster, epochs: epochs, nodes: nodes, now: now)
        board.update { status in
            status.epochs = plan.decision.states
            status.problems = plan.decision.problems
        }
        await write(plan, objects, &keeper)

        let last = epochs.values.max { $0.number < $1.number }
        if keeper.schedule == nil || last?.number ?? 0 > keeper.newest {
            keeper.newest = last?.number ?? 0
            keeper.schedule = makeSchedule(cluster, last)
        }
        guard var schedule = keeper.schedule else { return .seconds(1) }
        let wait = await step(&schedule, cluster, plan, epochs, nodes, &keeper)
        keeper.schedule = schedule
        if let next = plan.decision.nextChange {
            return min(wait, .milliseconds(max(1, next.milliseconds(since: now) + 1)))
        }
        return wait
    }

    private func makeSchedule(_ cluster: Cluster, _ last: EncryptionEpoch?) -> EpochSchedule {
        let policy = EpochSchedule.Policy(
            ttl: .seconds(cluster.epochLifetime), pollInterval: .seconds(configuration.epochs?.pollSeconds ?? 300))
        let age = last.map { Duration.milliseconds(max(0, Timestamp.now().milliseconds(since: $0.notBefore))) }
        return EpochSchedule(policy: policy, now: clock.now(), age: age, kekVersion: last.map(version))
    }

    /// What wrapped an epoch, if that was our KEK; something that no version equals, if it was another.
    private func version(_ epoch: EncryptionEpoch) -> String {
        guard let blob = try? WrappedDEK(decoding: epoch.wrappedDEK.bytes, expected: kms.provider),
            blob.provider == kms.provider, blob.kekID == kms.kekID
        else { return "another KEK" }
        return blob.kekVersion
    }

    private func step(
        _ schedule: inout EpochSchedule, _ cluster: Cluster, _ plan: EpochPlan, _ epochs: [Epoch: EncryptionEpoch],
        _ nodes: [String: NodeReport], _ keeper: inout EpochKeeper
    ) async -> Duration {
        switch schedule.next(now: clock.now()) {
        case .wait(let until):
            return min(max(until - clock.now(), .milliseconds(10)), .seconds(2))
        case .poll:
            do throws(KMSError) {
                let version = try await kms.currentKEKVersion()
                schedule.polled(version, now: clock.now())
                board.update { $0.kmsError = nil }
                say("the KEK's version is \(version)", &keeper, level: .info)
            } catch {
                report(error, &schedule, &keeper)
            }
            return .milliseconds(10)
        case .open(let reason):
            guard plan.decision.live.count < 2 else {
                schedule.notOpened()
                say(
                    "no new epoch yet (\(text(reason))): epochs \(plan.decision.live[0]) and \(plan.decision.live[1]) are both live",
                    &keeper, level: .info)
                return .milliseconds(500)
            }
            guard let number = EpochPlan.next(epochs: epochs.keys, nodes: nodes.values),
                let context = KeyContext(clusterID: cluster.id.bytes, epoch: number)
            else {
                schedule.notOpened()
                say("no new epoch: epoch \(Epoch.max) was the last that there can be", &keeper, level: .error)
                return .seconds(60)
            }
            return await open(number, context, reason, cluster, &schedule, &keeper)
        }
    }

    private func open(
        _ number: Epoch, _ context: KeyContext, _ reason: EpochSchedule.Reason, _ cluster: Cluster,
        _ schedule: inout EpochSchedule, _ keeper: inout EpochKeeper
    ) async -> Duration {
        let blob: WrappedDEK
        do throws(KMSError) {
            blob = try await kms.generateDEK(for: context)
        } catch {
            report(error, &schedule, &keeper)
            return .milliseconds(10)
        }
        // The KMS may have taken its time.
        guard mayWrite else {
            schedule.notOpened()
            return .seconds(1)
        }
        let now = Timestamp.now()
        var object = EncryptionEpochObject(
            EncryptionEpoch(
                number: number, wrappedDEK: Base64(blob.encoded), provider: blob.provider.rawValue, kekID: blob.kekID,
                kekVersion: blob.kekVersion, notBefore: now, notAfter: now.adding(seconds: cluster.epochLifetime),
                acknowledgeBy: now.adding(seconds: cluster.acknowledgeWithin)))
        object.metadata.annotations = [EncryptionEpochObject.clusterIDAnnotation: cluster.id.description]
        let witness = await hub.witness(.epochs, object.key)
        do throws(KubernetesError) {
            let created = try await api.create(object)
            await hub.put(created, since: witness)
            // People see at once where it stands.
            keeper.statusesAt = .zero
            schedule.opened(kekVersion: blob.kekVersion, now: clock.now())
            keeper.newest = number
            board.count(.epochs, isSuccess: true)
            board.update { $0.kmsError = nil }
            say(
                "opened epoch \(number), wrapped by version \(blob.kekVersion): \(text(reason))", &keeper,
                level: .notice)
            recorder.record(
                .normal, regarding: ObjectReference(created), reason: "EpochOpened", action: "Open",
                note: "epoch \(number), wrapped by version \(blob.kekVersion) of the KEK: \(text(reason))")
            return .milliseconds(10)
        } catch {
            schedule.notWritten(now: clock.now())
            board.count(.epochs, isSuccess: false)
            if error.code == .alreadyExists { keeper.isFresh = false }
            say("cannot write epoch \(number): \(error.message)", &keeper, level: .warning)
            return error.retryAfter ?? .seconds(1)
        }
    }

    /// Statuses at most once a second, and objects that go.
    private func write(
        _ plan: EpochPlan, _ objects: [Epoch: EncryptionEpochObject], _ keeper: inout EpochKeeper
    ) async {
        for number in plan.obsolete {
            guard mayWrite, let object = objects[number] else { continue }
            do throws(KubernetesError) {
                try await api.delete(
                    EncryptionEpochObject.self, ObjectKey(name: object.metadata.name),
                    preconditionUID: object.metadata.uid)
                logger.info("removed an epoch that ended long ago", metadata: ["epoch": "\(number)"])
            } catch {
                logger.debug("cannot remove", metadata: ["epoch": "\(number)", "error": "\(error.message)"])
            }
        }
        guard clock.now() >= keeper.statusesAt else { return }
        keeper.statusesAt = clock.now() + .seconds(1)
        keeper.written = keeper.written.filter { objects[$0.key] != nil }
        for (number, status) in plan.statuses where !plan.obsolete.contains(number) {
            guard let object = objects[number], mayWrite else { continue }
            var status = status
            let before = keeper.written[number] ?? object.status
            status.conditions = status.conditions?.keepingTransitions(of: before?.conditions ?? [])
            guard status != before else { continue }
            do throws(KubernetesError) {
                _ = try await api.mergePatch(
                    EncryptionEpochObject.self, ObjectKey(name: object.metadata.name), subresource: "status",
                    body: json(["status": status]))
                keeper.written[number] = status
                keeper.statusError = nil
            } catch {
                logger.log(
                    level: error.message == keeper.statusError ? .debug : .warning, "cannot write a status",
                    metadata: ["epoch": "\(number)", "error": "\(error.message)"])
                keeper.statusError = error.message
            }
        }
    }

    private func report(_ error: KMSError, _ schedule: inout EpochSchedule, _ keeper: inout EpochKeeper) {
        schedule.failed(error, now: clock.now())
        board.update { $0.kmsError = error }
        board.count(.epochs, isSuccess: false)
        say("the KMS does not help: \(error)", &keeper, level: .error)
    }

    private func text(_ reason: EpochSchedule.Reason) -> String {
        switch reason {
        case .first: "the cluster had none"
        case .age: "the last one has reached half of its time"
        case .kekRotated(let from, let to): "the KEK was rotated from \(from) to \(to)"
        }
    }

    private func say(_ text: String, _ keeper: inout EpochKeeper, level: Logger.Level) {
        guard text != keeper.said else { return }
        keeper.said = text
        logger.log(level: level, "epochs", metadata: ["what": "\(text)"])
    }
}
