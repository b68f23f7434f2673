public import Keys
public import Secrets
internal import Synchronization

/// The DEKs of the live epochs, in secret memory, and what is derived from them.
public final class Keyring: Sendable {
    private struct State {
        var deks: [Epoch: SecretBytes] = [:]
        // Fingerprints are asked for on every pass; a derivation costs microseconds, a cluster has thousands of them.
        var fingerprints: [TrafficContext: KeyID] = [:]
    }
    private let state = Mutex(State())

    /// Makes an empty one.
    public init() {}

    /// Takes the DEK of an epoch. The first one stays: a DEK belongs to one epoch for good.
    public func add(_ dek: SecretBytes, epoch: Epoch) {
        state.withLock { if $0.deks[epoch] == nil { $0.deks[epoch] = dek } }
    }

    /// Forgets all DEKs but these.
    public func keep(only epochs: some Sequence<Epoch>) {
        let kept = Set(epochs)
        state.withLock { state in
            // Fingerprints are of epochs whose DEK is here.
            guard state.deks.keys.contains(where: { !kept.contains($0) }) else { return }
            state.deks = state.deks.filter { kept.contains($0.key) }
            state.fingerprints = state.fingerprints.filter { kept.contains($0.key.epoch) }
        }
    }

    /// The DEK of an epoch, if it was added.
    public func dek(_ epoch: Epoch) -> SecretBytes? { state.withLock { $0.deks[epoch] } }

    /// The epochs whose DEK is here.
    public var epochs: Set<Epoch> { state.withLock { Set($0.deks.keys) } }

    /// The fingerprint of a traffic key; nil without its DEK.
    public func fingerprint(_ context: TrafficContext) -> KeyID? {
        state.withLock { state in
            if let known = state.fingerprints[context] { return known }
            guard let dek = state.deks[context.epoch],
                let made = try? TrafficKey.fingerprint(dek: dek, context: context)
            else { return nil }
            // Contexts of incarnations that are gone would pile up.
            if state.fingerprints.count > 100_000 { state.fingerprints.removeAll() }
            state.fingerprints[context] = made
            return made
        }
    }

    /// A traffic key; nil without its DEK.
    public func key(_ context: TrafficContext) throws(KeyError) -> TrafficKey? {
        guard let dek = dek(context.epoch) else { return nil }
        return try TrafficKey.derive(dek: dek, context: context)
    }
}
