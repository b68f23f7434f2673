internal import Cluster
internal import Datapath
internal import Kubernetes
internal import Logging
internal import Netlink
internal import Synchronization

/// Where services are put in force. `ServiceKernel` is the real one.
protocol ServiceBalancing: Sendable {
    /// Services that are in force.
    var addresses: Set<ServiceAddress> { get }
    /// Sets who is behind a service; nil: its address is left alone.
    func set(_ address: ServiceAddress, _ value: ServiceBackends?) throws(DatapathError)
    /// Addresses that strict pods' packets are dropped to.
    func refused() throws(DatapathError) -> Set<IPAddress>
    /// Whether strict pods' packets to an address are dropped: what has got past the sockets.
    func refuse(_ address: IPAddress, _ isRefused: Bool) throws(DatapathError)
    /// Whether an address is a protected pod's, on any node.
    func isProtected(_ address: IPAddress) -> Bool
}

/// The node's kernel.
struct ServiceKernel: ServiceBalancing {
    let datapath: Datapath
    let balancer: SocketLoadBalancer

    var addresses: Set<ServiceAddress> { balancer.addresses }
    func set(_ address: ServiceAddress, _ value: ServiceBackends?) throws(DatapathError) {
        try balancer.set(address, value)
    }
    func refused() throws(DatapathError) -> Set<IPAddress> { try datapath.serviceAddresses() }
    func refuse(_ address: IPAddress, _ isRefused: Bool) throws(DatapathError) {
        try datapath.setServiceAddress(address, refused: isRefused)
    }
    func isProtected(_ address: IPAddress) -> Bool { (try? datapath.hasEndpoint(address)) == true }
}

/// Keeps the kernel's table of services what the API server says: of those services that have a protected pod behind them. All others are
/// left to whoever serves them now (the cluster's DNS, mostly).
///
/// A service is balanced from its first protected pod on, for as long as it has a protected pod, ready or not, or no pods at all: while
/// the only pod of a service starts anew, nothing that strict pods send to it may find its way to that pod in clear.
///
/// Nothing is touched before services and slices have been read as a whole: until then what an earlier process has set is in force.
final class ServiceFollower: Sendable {
    private let api: any KubernetesAPI
    let table: ServiceTable
    private let kernel: any ServiceBalancing
    private let clock: KubernetesClock
    private let logger: Logger
    private let signal: ChangeSignal
    /// Set when `isInForce`, `progress` or `problems` have changed.
    private let changed: ChangeSignal
    private let state = Mutex(State())

    private struct State {
        var isInForce = false
        /// Protected addresses that have come or gone.
        var touched: Set<IPAddress> = []
        /// How often addresses have come or gone, and how many of these times have been followed.
        var asked = 0
        var done = 0
        /// When what could not be set is tried again.
        var retryAt: Duration?
        /// Services that are balanced, and their addresses.
        var balanced: [ObjectKey: [IPAddress]] = [:]
        /// Whose an address and port is.
        var owners: [ServiceAddress: ObjectKey] = [:]
        var addresses: [ObjectKey: Set<ServiceAddress>] = [:]
        /// Addresses that are refused; nil: not read yet.
        var refused: Set<IPAddress>?
        /// What could not be set, by service.
        var failures: [ObjectKey: String] = [:]
        /// Why addresses could not be refused.
        var refusal: String?
        /// What others were told last.
        var told: (isInForce: Bool, done: Int, problems: Set<Problem>) = (false, 0, [])
    }

    /// - Parameters:
    ///   - excluded: Namespaces whose services are left alone.
    ///   - changed: Set when something has changed for others.
    init(
        api: any KubernetesAPI, node: String, excluded: Set<String>, kernel: any ServiceBalancing,
        clock: KubernetesClock = .system, changed: ChangeSignal, logger: Logger
    ) {
        self.api = api
        self.kernel = kernel
        self.clock = clock
        self.changed = changed
        self.logger = logger
        signal = ChangeSignal()
        table = ServiceTable(node: node, excluded: excluded, signal: signal)
    }

    /// All services that there were at the start are in force.
    var isInForce: Bool { state.withLock { $0.isInForce } }

    /// A protected address has come or gone.
    func look(_ address: IPAddress) {
        state.withLock { state in
            state.touched.insert(address)
            state.asked += 1
        }
        signal.set()
    }

    /// How often `look` was called.
    var asked: Int { state.withLock { $0.asked } }
    /// As many calls of `look` have been followed.
    var done: Int { state.withLock { $0.done } }

    /// What a person should know.
    var problems: Set<Problem> {
        var problems: Set<Problem> = []
        for (kind, failure) in table.failures {
            problems.insert(
                Problem(.warning, "api-server", "\(kind) cannot be followed: \(failure); what is known stays in force"))
        }
        let (failures, refusal) = state.withLock { ($0.failures, $0.refusal) }
        if let refusal {
            problems.insert(
                Problem(
                    .error, "services",
                    "what strict pods send to their addresses past the sockets may leave in clear: \(refusal)"))
        }
        for (key, failure) in failures.sorted(by: { $0.key < $1.key }).prefix(5) {
            problems.insert(
                Problem(.error, "service \(key)", "its address is not replaced at sockets: \(failure)"))
        }
        return problems
    }

    /// Follows the API server until the task is cancelled.
    func run() async {
        // As kube-proxy asks: no headless services, and none that is another proxy's.
        let labels = "!service.kubernetes.io/headless,!\(ServiceObject.proxyLabel)"
        await withTaskGroup(of: Void.self) { group in
            group.addTask { [api, table, logger] in
                await Reflector<ServiceObject>(api: api, labelSelector: labels, pageSize: 100, logger: logger)
                    .run { table.handle($0) }
            }
            group.addTask { [api, table, logger] in
                // Of a thousand pods each, at the most: a page is read as a whole.
                await Reflector<EndpointSliceObject>(api: api, labelSelector: labels, pageSize: 25, logger: logger)
                    .run { table.handle($0) }
            }
            group.addTask { await self.work() }
            await group.waitForAll()
        }
    }

    private func work() async {
        var alarm: Duration?
        while !Task.isCancelled {
            await signal.wait()
            let begin = clock.now()
            apply()
            // A rollout changes slices many times a second. A tenth of the time at most goes into this.
            await clock.sleep(max(.milliseconds(20), (clock.now() - begin) * 10))
            let retry = state.withLock { $0.retryAt }
            if let retry, retry != alarm {
                Task { [clock, signal] in
                    await clock.sleep(max(.zero, retry - clock.now()))
                    signal.set()
                }
            }
            alarm = retry
        }
    }

    /// Puts in force what has changed.
    func apply() {
        if table.isSynced { applyChanges() }
        let problems = problems
        let isNews = state.withLock { state in
            let news = (isInForce: state.isInForce, done: state.done, problems: problems)
            defer { state.told = news }
            return state.told != news
        }
        if isNews { changed.set() }
    }

    private func applyChanges() {
        let now = clock.now()
        // No `touched`: all have to be looked at, the first time.
        let (touched, asked, retried) = state.withLock { state -> (Set<IPAddress>?, Int, [ObjectKey]) in
            defer { state.touched = [] }
            let isDue = state.retryAt.map { $0 <= now } ?? false
            if isDue { state.retryAt = nil }
            let all = isDue && state.refusal != nil ? Array(state.balanced.keys) : Array(state.failures.keys)
            return (state.isInForce ? state.touched : nil, state.asked, isDue ? all : [])
        }
        var changes = table.takeChanges().union(retried)
        if touched?.isEmpty != true {
            for key in table.services where !changes.contains(key) {
                guard let touched, let service = table.service(key) else {
                    changes.insert(key)
                    continue
                }
                if service.slices.contains(where: { $0.endpoints.contains { touched.contains($0.address) } }) {
                    changes.insert(key)
                }
            }
        }
        for key in changes.sorted() { review(key) }
        state.withLock { state in
            let wasInForce = state.isInForce
            state.isInForce = true
            state.done = asked
            release(&state)
            let isFailing = !state.failures.isEmpty || state.refusal != nil
            if isFailing, state.retryAt == nil { state.retryAt = now + .seconds(5) }
            if wasInForce { return }
            // What an earlier process has left, and nobody has any more.
            let failed = Set(state.failures.keys.flatMap { state.balanced[$0] ?? [] })
            for address in kernel.addresses where state.owners[address] == nil && !failed.contains(address.address) {
                try? kernel.set(address, nil)
            }
            logger.notice(
                "services are replaced at the sockets of protected pods",
                metadata: ["services": "\(state.balanced.count)", "addresses": "\(state.owners.count)"])
        }
    }

    /// Puts one service in force as it is now.
    private func review(_ key: ObjectKey) {
        let service = table.service(key)
        let pods = service?.slices.lazy.flatMap(\.endpoints).map(\.address)
        let isProtected = pods?.contains { kernel.isProtected($0) } ?? false
        let isDeserted = service != nil && pods?.isEmpty ?? true
        let others = state.withLock { state -> Set<ObjectKey> in
            refuse([], &state)  // now it is known what an earlier process has refused
            let addresses = service?.facts.addresses ?? []
            let wasBalanced =
                state.balanced[key] != nil
                || !state.isInForce && addresses.contains { state.refused?.contains($0) == true }
            let isBalanced = isProtected || (isDeserted && wasBalanced)
            state.balanced[key] = isBalanced ? addresses : nil
            // Before sockets are told: in between nothing gets out, and not the other way round.
            if isBalanced { refuse(addresses, &state) }
            let wanted = isBalanced ? service?.facts.backends(service?.slices ?? []) ?? [:] : [:]
            var problem: String?
            let freed = set(key, wanted, &state, &problem)
            if let problem {
                if state.failures.updateValue(problem, forKey: key) == nil {
                    logger.error("service", metadata: ["name": "\(key)", "what": "\(problem)"])
                }
            } else {
                state.failures[key] = nil
            }
            // Those that have an address which was this one's.
            return freed.isEmpty
                ? [] : Set(state.balanced.filter { $0.key != key && !freed.isDisjoint(with: $0.value) }.keys)
        }
        if !others.isEmpty {
            table.putBack(others)
            signal.set()
        }
    }

    /// Sets the addresses of a service, as far as that can be done, and returns those that are not its any more.
    private func set(
        _ key: ObjectKey, _ wanted: [ServiceAddress: ServiceBackends], _ state: inout State, _ problem: inout String?
    ) -> Set<IPAddress> {
        var freed: Set<IPAddress> = []
        // What makes room first.
        for address in state.addresses[key] ?? [] where wanted[address] == nil {
            if state.owners[address] == key {
                do throws(DatapathError) {
                    try kernel.set(address, nil)
                } catch {
                    problem = error.message
                    continue
                }
                state.owners[address] = nil
                freed.insert(address.address)
            }
            state.addresses[key]?.remove(address)
        }
        for (address, backends) in wanted {
            do throws(DatapathError) {
                try kernel.set(address, backends)
                state.owners[address] = key
                state.addresses[key, default: []].insert(address)
            } catch {
                problem = error.message
            }
        }
        if state.addresses[key]?.isEmpty == true { state.addresses[key] = nil }
        return freed
    }

    /// Refuses these addresses.
    private func refuse(_ addresses: [IPAddress], _ state: inout State) {
        do throws(DatapathError) {
            var refused = if let refused = state.refused { refused } else { try kernel.refused() }
            state.refused = nil
            defer { state.refused = refused }
            for address in addresses where !refused.contains(address) {
                try kernel.refuse(address, true)
                refused.insert(address)
            }
        } catch {
            state.refusal = error.message
        }
    }

    /// Takes back what is refused and is no balanced service's address.
    private func release(_ state: inout State) {
        guard let refused = state.refused else { return }
        let wanted = Set(state.balanced.values.joined())
        do throws(DatapathError) {
            for address in refused.subtracting(wanted) {
                try kernel.refuse(address, false)
                state.refused?.remove(address)
            }
            if wanted.isSubset(of: refused) { state.refusal = nil }
        } catch {
            state.refusal = error.message
        }
    }
}
