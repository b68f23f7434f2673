public import CloudIdentity
internal import Cluster
internal import Glibc
public import KMS
internal import Keys

/// The one who makes epochs of a cluster directory: the first, one when the newest gets old, and one when the KEK has been rotated.
///
/// Run one for a cluster. A second one does no harm (an epoch's file is made once only), but asks the KMS as often again. Nodes do not
/// depend on it: without it, the newest epoch lasts until its end.
public struct EpochWriter: Sendable {
    private let directory: String
    private let kms: any KeyManagementService
    private let pollInterval: Duration
    private let time: TimeSource
    private let log: @Sendable (String) -> Void

    /// - Parameters:
    ///   - pollInterval: How often the KEK's version is asked for, give or take a fifth.
    ///   - log: Gets a line for everything that people should know.
    public init(
        directory: String, kms: any KeyManagementService, pollInterval: Duration, time: TimeSource = .system,
        log: @escaping @Sendable (String) -> Void
    ) {
        self.directory = directory
        self.kms = kms
        self.pollInterval = pollInterval
        self.time = time
        self.log = log
    }

    /// Works until the task is cancelled. Only a configuration that cannot work from the start makes it give up: later, such as while
    /// somebody writes the KEK file, it waits for a better one.
    public func run() async throws(KMSError) {
        var reader = DirectoryReader(path: directory)
        var schedule: EpochSchedule?
        var newest: Epoch = 0
        var hasWorked = false
        var said = ""
        func say(_ text: String) {
            if text != said { log(text) }
            said = text
        }
        while !Task.isCancelled {
            let snapshot = reader.scan()
            guard let cluster = snapshot.cluster, snapshot.isComplete(.epochs) else {
                say(
                    "waiting: \(directory) cannot be read: \(snapshot.problems.sorted().map { "\($0)" }.joined(separator: "; "))"
                )
                await pause(.seconds(5))
                continue
            }
            let last = snapshot.epochs.values.max { $0.number < $1.number }
            if schedule == nil || last?.number ?? 0 > newest {
                newest = last?.number ?? 0
                schedule = makeSchedule(cluster, last, isFirst: schedule == nil)
            }
            guard var current = schedule else { continue }
            let wait = try await step(&current, &hasWorked, snapshot, say)
            schedule = current
            await pause(wait)
        }
    }

    private func makeSchedule(_ cluster: Cluster, _ last: EncryptionEpoch?, isFirst: Bool) -> EpochSchedule {
        let now = time.monotonic()
        let policy = EpochSchedule.Policy(ttl: .seconds(cluster.epochLifetime), pollInterval: pollInterval)
        let age = last.map { Duration.milliseconds(max(0, Timestamp.now().milliseconds(since: $0.notBefore))) }
        return EpochSchedule(policy: policy, now: now, age: age, kekVersion: last.map(version))
    }

    /// What wrapped an epoch, if that was our KEK; something that no version equals, if it was another: moving to another KEK or
    /// provider asks for a new epoch as a rotation does.
    private func version(_ epoch: EncryptionEpoch) -> String {
        guard let blob = try? WrappedDEK(decoding: epoch.wrappedDEK.bytes, expected: kms.provider),
            blob.provider == kms.provider, blob.kekID == kms.kekID
        else { return "another KEK" }
        return blob.kekVersion
    }

    /// Does what is due and says how long to wait.
    private func step(
        _ schedule: inout EpochSchedule, _ hasWorked: inout Bool, _ snapshot: Snapshot, _ say: (String) -> Void
    ) async throws(KMSError) -> Duration {
        switch schedule.next(now: time.monotonic()) {
        case .wait(let until):
            // Somebody else may open an epoch meanwhile.
            return min(max(until - time.monotonic(), .milliseconds(10)), .seconds(2))
        case .poll:
            do {
                let version = try await kms.currentKEKVersion()
                schedule.polled(version, now: time.monotonic())
                hasWorked = true
                say("the KEK's version is \(version)")
            } catch {
                try report(error, &schedule, hasWorked, say)
            }
            return .zero
        case .open(let reason):
            do {
                let epoch = try await EpochOpening(directory: directory, kms: kms).open(snapshot)
                schedule.opened(kekVersion: epoch.kekVersion, now: time.monotonic())
                hasWorked = true
                say("opened epoch \(epoch.number), wrapped by version \(epoch.kekVersion): \(text(reason))")
                return .zero
            } catch let error as KMSError {
                try report(error, &schedule, hasWorked, say)
                return .zero
            } catch let error as EpochOpening.Refusal {
                schedule.notOpened()
                say("no new epoch yet (\(text(reason))): \(error)")
                return .milliseconds(500)
            } catch {
                schedule.notWritten(now: time.monotonic())
                say("no new epoch yet (\(text(reason))): \(error)")
                return .milliseconds(500)
            }
        }
    }

    private func report(
        _ error: KMSError, _ schedule: inout EpochSchedule, _ hasWorked: Bool, _ say: (String) -> Void
    ) throws(KMSError) {
        if error.exitCode != nil, !hasWorked { throw error }
        schedule.failed(error, now: time.monotonic())
        say("the KMS does not help: \(error)")
    }

    private func text(_ reason: EpochSchedule.Reason) -> String {
        switch reason {
        case .first: "the cluster had none"
        case .age: "the last one has reached half of its time"
        case .kekRotated(let from, let to): "the KEK was rotated from \(from) to \(to)"
        }
    }

    private func pause(_ duration: Duration) async {
        if duration > .zero { try? await Task.sleep(for: duration) }
    }
}
