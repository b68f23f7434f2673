internal import Cluster
internal import Datapath
internal import Kubernetes
internal import Logging
internal import Netlink
internal import Synchronization

/// Where services are put in force. `SocketLoadBalancer` is the real one.
protocol ServiceBalancing: Sendable {
    /// Services that are in force.
    var addresses: Set<ServiceAddress> { get }
    /// Sets who is behind a service; nil: its address is left alone.
    func set(_ address: ServiceAddress, _ value: ServiceBackends?) throws(DatapathError)
}

extension SocketLoadBalancer: ServiceBalancing {}

/// Keeps the kernel's table of services what the API server says: of those services that have a protected pod behind them. All others are
/// left to whoever serves them now (the cluster's DNS, mostly).
///
/// Nothing is touched before services and slices have been read as a whole: until then what an earlier process has set is in force.
final class ServiceFollower: Sendable {
    private let api: any KubernetesAPI
    let table: ServiceTable
    private let balancer: any ServiceBalancing
    private let isProtected: @Sendable (IPAddress) -> Bool
    private let clock: KubernetesClock
    private let logger: Logger
    private let signal: ChangeSignal
    /// Set when `isInForce`, `strictAddresses` or `problems` have changed.
    private let changed: ChangeSignal
    private let state = Mutex(State())

    private struct State {
        var isInForce = false
        /// A protected address has come or gone.
        var mustLook = false
        /// Services that have a protected pod behind them.
        var balanced: Set<ObjectKey> = []
        /// Whose an address is.
        var owners: [ServiceAddress: ObjectKey] = [:]
        var addresses: [ObjectKey: Set<ServiceAddress>] = [:]
        /// What could not be set, by service.
        var failures: [ObjectKey: String] = [:]
        var told = News()
    }

    /// What others want to know.
    private struct News: Equatable {
        var isInForce = false
        var strict: Set<IPAddress> = []
        var problems: Set<Problem> = []
    }

    /// - Parameters:
    ///   - excluded: Namespaces whose services are left alone.
    ///   - isProtected: Whether an address is a protected pod's, on any node.
    ///   - changed: Set when something has changed for others.
    init(
        api: any KubernetesAPI, node: String, excluded: Set<String>, balancer: any ServiceBalancing,
        isProtected: @escaping @Sendable (IPAddress) -> Bool, clock: KubernetesClock = .system, changed: ChangeSignal,
        logger: Logger
    ) {
        self.api = api
        self.balancer = balancer
        self.isProtected = isProtected
        self.clock = clock
        self.changed = changed
        self.logger = logger
        signal = ChangeSignal()
        table = ServiceTable(node: node, excluded: excluded, signal: signal)
    }

    /// All services that there were at the start are in force.
    var isInForce: Bool { state.withLock { $0.isInForce } }

    /// Addresses of services that are balanced: nothing should leave a pod for one of them.
    var strictAddresses: Set<IPAddress> {
        Set((isInForce ? state.withLock { Set($0.owners.keys) } : balancer.addresses).map(\.address))
    }

    /// A protected address has come or gone.
    func look() {
        state.withLock { $0.mustLook = true }
        signal.set()
    }

    /// What a person should know.
    var problems: Set<Problem> {
        var problems: Set<Problem> = []
        for (kind, failure) in table.failures {
            problems.insert(
                Problem(.warning, "api-server", "\(kind) cannot be followed: \(failure); what is known stays in force"))
        }
        for (key, failure) in state.withLock({ $0.failures }).sorted(by: { $0.key < $1.key }).prefix(5) {
            problems.insert(
                Problem(.error, "service \(key)", "its address is not replaced at sockets: \(failure)"))
        }
        return problems
    }

    /// Follows the API server until the task is cancelled.
    func run() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { [api, table, logger] in
                await Reflector<ServiceObject>(api: api, logger: logger).run { table.handle($0) }
            }
            group.addTask { [api, table, logger] in
                await Reflector<EndpointSliceObject>(api: api, logger: logger).run { table.handle($0) }
            }
            group.addTask { await self.work() }
            await group.waitForAll()
        }
    }

    private func work() async {
        while !Task.isCancelled {
            await signal.wait()
            let begin = clock.now()
            apply()
            if state.withLock({ !$0.failures.isEmpty }) {
                await clock.sleep(.seconds(5))
                retry()
            } else {
                // A rollout changes slices many times a second; and a tenth of the time at most goes into this.
                await clock.sleep(max(.milliseconds(20), (clock.now() - begin) * 10))
            }
        }
    }

    /// What could not be set is looked at again.
    func retry() {
        table.putBack(state.withLock { Array($0.failures.keys) })
        signal.set()
    }

    /// Puts in force what has changed.
    func apply() {
        if table.isSynced { applyChanges() }
        let news = News(isInForce: isInForce, strict: strictAddresses, problems: problems)
        let isNews = state.withLock { state in
            defer { state.told = news }
            return state.told != news
        }
        if isNews { changed.set() }
    }

    private func applyChanges() {
        let (mustLook, balanced) = state.withLock { state in
            defer { state.mustLook = false }
            return (state.mustLook, state.balanced)
        }
        var changes = table.takeChanges()
        // Those that are balanced and should not be, and the other way round.
        for key in mustLook ? table.services : [] where !changes.contains(key) {
            if table.hasEndpoint(key, where: isProtected) != balanced.contains(key) { changes.insert(key) }
        }
        for key in changes.sorted() {
            let isBalanced = table.hasEndpoint(key, where: isProtected)
            let wanted = isBalanced ? table.backends(key) : [:]
            state.withLock { state in
                if isBalanced { state.balanced.insert(key) } else { state.balanced.remove(key) }
                do throws(DatapathError) {
                    try set(key, wanted, &state)
                    state.failures[key] = nil
                } catch {
                    if state.failures.updateValue(error.message, forKey: key) == nil {
                        logger.error("service", metadata: ["name": "\(key)", "what": "\(error.message)"])
                    }
                }
            }
        }
        state.withLock { state in
            guard !state.isInForce else { return }
            // What an earlier process has left, and nobody has any more.
            for address in balancer.addresses where state.owners[address] == nil { try? balancer.set(address, nil) }
            state.isInForce = true
            logger.notice(
                "services are replaced at the sockets of protected pods",
                metadata: ["services": "\(state.addresses.count)", "addresses": "\(state.owners.count)"])
        }
    }

    private func set(
        _ key: ObjectKey, _ wanted: [ServiceAddress: ServiceBackends], _ state: inout State
    ) throws(DatapathError) {
        for (address, backends) in wanted {
            try balancer.set(address, backends)
            state.owners[address] = key
            state.addresses[key, default: []].insert(address)
        }
        for address in state.addresses[key] ?? [] where wanted[address] == nil {
            // An address may have gone from one service to the next.
            if state.owners[address] == key {
                try balancer.set(address, nil)
                state.owners[address] = nil
            }
            state.addresses[key]?.remove(address)
        }
        if wanted.isEmpty { state.addresses[key] = nil }
    }
}
