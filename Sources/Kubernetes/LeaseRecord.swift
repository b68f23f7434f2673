/// The lease as we last saw it, and since when it has not changed.
struct LeaseRecord: Sendable {
    let key: ObjectKey
    private let configuration: LeaderElector.Configuration
    private let clock: KubernetesClock
    private var lease: Lease?
    /// On our monotonic clock.
    private var unchangedSince: Duration = .zero
    private var lastRenewal: Int64 = .min

    init(_ configuration: LeaderElector.Configuration, clock: KubernetesClock) {
        self.configuration = configuration
        self.clock = clock
        key = ObjectKey(namespace: configuration.namespace, name: configuration.name)
    }

    /// Who holds it, as far as we know.
    var holder: String? { lease?.spec?.holderIdentity.flatMap { $0.isEmpty ? nil : $0 } }
    /// How often the holder has changed.
    var term: Int { lease?.spec?.leaseTransitions ?? 0 }

    /// Takes the lease when it is free or has run out, renews it when it is ours. Returns whether we hold it now.
    mutating func takeOrRenew(_ api: any KubernetesAPI) async throws(KubernetesError) -> Bool {
        // Ours, as far as we know: one request is enough. If that is wrong, the version is, too, and the server refuses.
        if holder == configuration.identity, let lease {
            do throws(KubernetesError) {
                observe(try await api.replace(renewed(lease)))
                return true
            } catch {
                guard error.code == .conflict || error.code == .notFound else { throw error }
            }
        }
        let current: Lease
        do throws(KubernetesError) {
            current = try await api.get(Lease.self, key)
        } catch {
            guard error.code == .notFound else { throw error }
            do throws(KubernetesError) {
                var lease = renewed(Lease(metadata: ObjectMeta(name: key.name, namespace: key.namespace)))
                lease.spec?.leaseTransitions = 0
                observe(try await api.create(lease))
                return true
            } catch {
                if error.code == .alreadyExists { return false }
                throw error
            }
        }
        observe(current)
        if let holder, holder != configuration.identity, clock.now() < unchangedSince + duration(of: current) {
            return false
        }
        do throws(KubernetesError) {
            observe(try await api.replace(renewed(current)))
            return true
        } catch {
            if error.code == .conflict || error.code == .notFound { return false }
            throw error
        }
    }

    /// Gives the lease back if it is still ours.
    mutating func release(_ api: any KubernetesAPI) async throws(KubernetesError) {
        let current = try await api.get(Lease.self, key)
        guard current.spec?.holderIdentity == configuration.identity else { return }
        var free = renewed(current)
        free.spec?.holderIdentity = ""
        free.spec?.leaseDurationSeconds = 1
        observe(try await api.replace(free))
    }

    /// What others wrote counts by having changed, not by what it says about times.
    private mutating func observe(_ lease: Lease) {
        if self.lease?.spec != lease.spec || self.lease?.metadata.uid != lease.metadata.uid {
            unchangedSince = clock.now()
        }
        self.lease = lease
    }

    /// What the holder has promised to stop before; ours where it says nothing sensible.
    private func duration(of lease: Lease) -> Duration {
        guard let seconds = lease.spec?.leaseDurationSeconds, (1...3600).contains(seconds) else {
            return configuration.leaseDuration
        }
        return .seconds(seconds)
    }

    private mutating func renewed(_ lease: Lease) -> Lease {
        // The record has to differ each time, also while the wall clock stands still or goes back: others judge by that.
        lastRenewal = max(clock.wallMicroseconds(), lastRenewal == .min ? .min : lastRenewal + 1)
        let now = MicroTime.text(lastRenewal)
        var lease = lease
        var spec = lease.spec ?? Lease.Spec()
        if spec.holderIdentity != configuration.identity {
            spec.acquireTime = now
            spec.leaseTransitions = (spec.leaseTransitions ?? 0) + 1
        }
        spec.holderIdentity = configuration.identity
        spec.renewTime = now
        spec.leaseDurationSeconds = Int(configuration.leaseDuration.components.seconds)
        lease.spec = spec
        return lease
    }
}
