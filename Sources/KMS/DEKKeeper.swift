public import CloudIdentity
public import Secrets

/// Drives `DEKLifecycle`: asks the KMS when it says so, and holds the DEKs of usable epochs.
///
/// The reconciler's side of it:
///
///     let keeper = DEKKeeper(kms: service, policy: policy, adopted: epochsInTheKernel)
///     group.addTask { await keeper.run() }               // until it is cancelled
///     await keeper.want([context of epoch: wrapped DEK])  // at every change of the cluster's epochs
///     for await _ in keeper.changes { reconcile() }        // a DEK came, or a lease has ended
///     await keeper.dek(epoch)                              // nil: not yet, or no more
///     await keeper.isUsable(epoch)                         // false: remove the epoch's keys
///     await keeper.leases                                  // write down for the next start, with the boot's id
public actor DEKKeeper {
    /// An epoch's wrapped DEK, and what it must have been bound to.
    public struct Epoch: Sendable, Hashable {
        /// Cluster, epoch, purpose.
        public var context: KeyContext
        /// As read from the cluster's objects.
        public var blob: WrappedDEK

        /// Names an epoch.
        public init(context: KeyContext, blob: WrappedDEK) {
            self.context = context
            self.blob = blob
        }
    }

    /// Something that the reconciler has to look at: a DEK came, a lease has ended, or the status is another one.
    public nonisolated let changes: AsyncStream<Void>

    private let kms: any KeyManagementService
    private let time: TimeSource
    private let changed: AsyncStream<Void>.Continuation
    private let wakeUps: AsyncStream<Void>
    private let wakeUp: AsyncStream<Void>.Continuation
    private var lifecycle: DEKLifecycle
    private var epochs: [UInt32: Epoch] = [:]
    private var deks: [UInt32: SecretBytes] = [:]

    /// - Parameter adopted: See `DEKLifecycle.init`.
    public init(
        kms: any KeyManagementService, policy: DEKLifecycle.Policy = DEKLifecycle.Policy(),
        adopted: [UInt32: Duration?] = [:],
        time: TimeSource = .system
    ) {
        self.kms = kms
        self.time = time
        lifecycle = DEKLifecycle(policy: policy, now: time.monotonic(), adopted: adopted)
        (changes, changed) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        (wakeUps, wakeUp) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// The epochs that there are now, and how many nodes ask for them. Of epochs that are `held` beside them, whose blobs are not there
    /// just now, the leases go on.
    public func want(_ wanted: [Epoch], held: Set<UInt32> = [], nodes: Int = 1) {
        let now = time.monotonic()
        let old = epochs
        epochs = Dictionary(wanted.map { ($0.context.epoch, $0) }, uniquingKeysWith: { $1 })
        lifecycle.want(Set(epochs.keys), held: held, nodes: nodes, now: now)
        for (epoch, new) in epochs {
            if let before = old[epoch], before != new { lifecycle.blobChanged(epoch, now: now) }
        }
        for epoch in deks.keys where epochs[epoch] == nil { deks[epoch] = nil }
        wakeUp.yield()
    }

    /// The DEK, while its lease lasts.
    public func dek(_ epoch: UInt32) -> SecretBytes? {
        lifecycle.isUsable(epoch, now: time.monotonic()) ? deks[epoch] : nil
    }

    /// Whether keys of this epoch may be in use. Adopted epochs are usable before their DEK is there.
    public func isUsable(_ epoch: UInt32) -> Bool { lifecycle.isUsable(epoch, now: time.monotonic()) }

    /// The state of the KMS for status, metrics and readiness.
    public var status: KMSStatus { lifecycle.status(now: time.monotonic()) }

    /// The records for a restart.
    public var leases: [DEKLifecycle.Lease] { lifecycle.leases }

    /// Works until the task is cancelled.
    public func run() async {
        await withDiscardingTaskGroup { group in
            var iterator = wakeUps.makeAsyncIterator()
            while !Task.isCancelled {
                let wakeAt = work(&group)
                // At least every minute: the injected clock may be another one than the sleeping one.
                let pause =
                    wakeAt.map { max(.milliseconds(1), min($0 - time.monotonic(), .seconds(60))) } ?? .seconds(60)
                let alarm = Task { [wakeUp] in
                    try? await Task.sleep(for: pause, clock: .continuous)
                    if !Task.isCancelled { wakeUp.yield() }
                }
                _ = await iterator.next(isolation: self)
                alarm.cancel()
            }
            group.cancelAll()
        }
        deks = [:]
    }

    private func work(_ group: inout DiscardingTaskGroup) -> Duration? {
        let step = lifecycle.step(now: time.monotonic())
        for epoch in step.expired { deks[epoch] = nil }
        if !step.expired.isEmpty { changed.yield() }
        for epoch in step.unwrap {
            guard let wanted = epochs[epoch] else {
                // Adopted, and its object is not there yet.
                lifecycle.postpone(epoch, until: time.monotonic() + .seconds(1))
                continue
            }
            group.addTask { await self.unwrap(wanted) }
        }
        return step.wakeAt
    }

    private func unwrap(_ epoch: Epoch) async {
        let askedAt = time.monotonic()
        let number = epoch.context.epoch
        do {
            let dek = try await kms.unwrap(epoch.blob, for: epoch.context)
            // Meanwhile the epoch may have gone, or have got another blob.
            guard epochs[number] == epoch else {
                lifecycle.answered(number, now: time.monotonic())
                wakeUp.yield()
                return
            }
            lifecycle.unwrapped(number, askedAt: askedAt, now: time.monotonic())
            deks[number] = dek
        } catch {
            let now = time.monotonic()
            lifecycle.failed(number, error, now: now)
            // It was about a blob that has been replaced meanwhile.
            if error.category == .badBlob, epochs[number] != epoch { lifecycle.blobChanged(number, now: now) }
        }
        changed.yield()
        wakeUp.yield()
    }
}
