internal import BPF
internal import BPFObjects
internal import Glibc
internal import Netlink
internal import Synchronization

/// Replaces the addresses of services at the sockets of protected pods, in the kernel: bpf/socketlb.bpf.c.
///
/// Everything is pinned under `socketlb` beside the datapath: what was set stays in force without this process.
///
///     socketlb/maps/NAME
///     socketlb/links/HOOK
public final class SocketLoadBalancer: Sendable {
    private let services: BPFMap
    private let backends: BPFMap
    private let pods: BPFMap
    private let state: Mutex<State>

    private struct State {
        var held: [ServiceAddress: Held] = [:]
        /// Numbers of sets.
        var used: Set<UInt32> = []
        /// Cookies of network namespaces, by the name of their pod.
        var pods: [String: UInt64] = [:]
    }

    /// What the kernel holds of a service's address.
    private struct Held {
        /// Under which number.
        var set: UInt32
        var value: ServiceBackends
        /// In the kernel's order: one that stays keeps its place, so that sockets that have it keep it.
        var order: [ServiceBackend]
    }

    /// Names of the maps that outlive a build.
    private static let shared = ["pods", "services", "backends", "counts", "translations"]

    private static func folder(_ pinPath: String) -> String { "\(pinPath)/socketlb" }

    /// Loads the programs, on the maps of an earlier process where they fit, and attaches them: in place of that process's, without a
    /// moment in between.
    init(pinPath: String, cgroup path: String?) throws(DatapathError) {
        let root = try CgroupRoot(path: path)
        let folder = Self.folder(pinPath)
        do {
            let object = try BPFObject(.socketLB)
            try Files.makeFolder("\(folder)/maps")
            try Files.makeFolder("\(folder)/links")
            for name in Self.shared where Files.exists("\(folder)/maps/\(name)") {
                do {
                    try object.reuse(BPFMap(pinned: "\(folder)/maps/\(name)"), as: name)
                } catch {
                    // Of another layout. What it held is read from the API server again.
                    try Files.remove("\(folder)/maps/\(name)")
                }
            }
            try object.load()
            for name in Self.shared where !Files.exists("\(folder)/maps/\(name)") {
                try object.map(name).pin(at: "\(folder)/maps/\(name)")
            }
            for hook in BPFLink.CgroupHook.allCases {
                let program = try object.program("xe_\(hook.rawValue)")
                try Self.attach(program, root, hook, at: "\(folder)/links/\(hook.rawValue)")
            }
            let services = try object.map("services")
            let backends = try object.map("backends")
            let pods = try object.map("pods")
            let held = try Self.read(services, backends)
            state = Mutex(State(held: held, used: Set(held.values.map(\.set))))
            self.services = services
            self.backends = backends
            self.pods = pods
        } catch let error as DatapathError {
            throw error
        } catch {
            throw DatapathError(.failed, "socket load balancing: \(error)")
        }
    }

    private static func attach(
        _ program: borrowing BPFProgram, _ root: borrowing CgroupRoot, _ hook: BPFLink.CgroupHook, at path: String
    ) throws {
        if Files.exists(path) {
            let link = try BPFLink(pinned: path)
            do {
                try link.update(to: program)
                return
            } catch {
                // Its cgroup has gone (ENOLINK), with the hierarchy that it belonged to.
                try Files.remove(path)
            }
        }
        do throws(BPFError) {
            try BPFLink.attachCgroup(program, cgroup: root.fd, hook: hook).pin(at: path)
        } catch {
            let hint =
                error.errno == EPERM
                ? " (a program that wants to be the only one may be attached there: 'bpftool cgroup show \(root.path)')"
                : ""
            throw DatapathError(.failed, "socket load balancing: \(error)\(hint)")
        }
    }

    /// Throws what is wrong with the place where programs would be attached; nil: where the hierarchy is mounted. Changes nothing.
    public static func check(cgroup path: String?) throws(DatapathError) { _ = try CgroupRoot(path: path) }

    /// Takes everything away; nothing happens when nothing is there.
    static func remove(pinPath: String) throws(DatapathError) {
        // Links first: without their maps programs would do nothing, but with them they do what nobody keeps up to date.
        try Files.removeFolder("\(folder(pinPath))/links")
        try Files.removeFolder(folder(pinPath))
    }

    /// What an earlier process has set. Sets that no service has, because it was killed on the way, are removed.
    private static func read(
        _ services: borrowing BPFMap, _ backends: borrowing BPFMap
    ) throws(BPFError) -> [ServiceAddress: Held] {
        let held = try decode(services, backends)
        for key in try services.keys(as: xe_service_address.self) where key.value.map({ held[$0] == nil }) ?? true {
            try services.delete(key)
        }
        let used = Set(held.values.map(\.set))
        for key in try backends.keys(as: xe_backend_key.self) where !used.contains(key.set) {
            try backends.delete(key)
        }
        return held
    }

    /// What the maps hold; services whose set is not all there are left out.
    private static func decode(
        _ services: borrowing BPFMap, _ backends: borrowing BPFMap
    ) throws(BPFError) -> [ServiceAddress: Held] {
        var members: [UInt32: [UInt32: ServiceBackend]] = [:]
        for (key, backend) in try backends.entries(keys: xe_backend_key.self, values: xe_backend.self) {
            members[key.set, default: [:]][key.index] = backend.value
        }
        var held: [ServiceAddress: Held] = [:]
        for (key, service) in try services.entries(keys: xe_service_address.self, values: xe_service.self) {
            let present = members[service.set] ?? [:]
            let order = (0..<service.backends).compactMap { present[$0] }
            guard let address = key.value, order.count == Int(service.backends) else { continue }
            let isSticky = service.flags & UInt32(XE_SERVICE_STICKY.rawValue) != 0
            held[address] = Held(set: service.set, value: ServiceBackends(order, isSticky: isSticky), order: order)
        }
        return held
    }
}

// MARK: - Services

extension SocketLoadBalancer {
    /// Services that the kernel holds.
    public var addresses: Set<ServiceAddress> { state.withLock { Set($0.held.keys) } }

    /// Sets who is behind a service; nil: nobody, and its address is not replaced. A socket sees the present backends or the new ones.
    public func set(_ address: ServiceAddress, _ value: ServiceBackends?) throws(DatapathError) {
        let outcome = state.withLock { state -> Result<Void, DatapathError> in
            do throws(BPFError) {
                return .success(try set(address, value, &state))
            } catch {
                return .failure(
                    DatapathError(
                        .failed,
                        error.errno == E2BIG
                            ? "the kernel's table of services is full (\(XE_SERVICES_DEFAULT) addresses, \(XE_BACKENDS_DEFAULT) backends)"
                            : error.description))
            }
        }
        try outcome.get()
    }

    private func set(
        _ address: ServiceAddress, _ value: ServiceBackends?, _ state: inout State
    ) throws(BPFError) {
        let present = state.held[address]
        if present?.value == value { return }
        let key = xe_service_address(address)
        if let value {
            // Sockets remember numbers of sets, so one that was in use is not drawn again: of four billion, none soon.
            var set = UInt32.random(in: 1 ... .max)
            while !state.used.insert(set).inserted { set = .random(in: 1 ... .max) }
            let order = Self.order(value.backends, after: present?.order ?? [])
            do throws(BPFError) {
                for (index, backend) in order.enumerated() {
                    try backends.update(xe_backend_key(set: set, index: UInt32(index)), xe_backend(backend))
                }
                var service = xe_service(set: set, backends: UInt32(order.count), flags: 0, reserved: 0)
                if value.isSticky { service.flags |= UInt32(XE_SERVICE_STICKY.rawValue) }
                try services.update(key, service)
            } catch {
                for index in order.indices {
                    _ = try? backends.delete(xe_backend_key(set: set, index: UInt32(index)))
                }
                state.used.remove(set)
                throw error
            }
            state.held[address] = Held(set: set, value: value, order: order)
        } else {
            try services.delete(key)
            state.held[address] = nil
        }
        guard let present else { return }
        for index in present.order.indices {
            try backends.delete(xe_backend_key(set: present.set, index: UInt32(index)))
        }
        state.used.remove(present.set)
    }

    /// Each in the place that it had, if that is still there; others fill what is left.
    static func order(_ backends: [ServiceBackend], after present: [ServiceBackend]) -> [ServiceBackend] {
        var left = Set(backends)
        var order = present.prefix(backends.count).map { left.remove($0) }
        order += Array(repeating: nil, count: backends.count - order.count)
        var rest = left.sorted()[...]
        return order.map { $0 ?? rest.removeFirst() }
    }
}

// MARK: - Looking

extension SocketLoadBalancer {
    /// What a node's kernel holds and has done.
    public struct View: Sendable, Hashable, Encodable {
        /// Addresses and ports of services.
        public var services = 0
        /// Of all of them together.
        public var backends = 0
        /// Pods whose sockets are balanced.
        public var pods = 0
        /// Connections, and connected UDP sockets, that were sent to a backend, since the maps were made.
        public var connections: UInt64 = 0
        /// Datagrams of sockets without a connection.
        public var datagrams: UInt64 = 0
        /// Answers that were given the service's address again.
        public var answers: UInt64 = 0
        /// Connections and datagrams that were refused, because there is no backend.
        public var refused: UInt64 = 0
        /// The address of a service stayed as it was: no memory, or a backend was not where it should be.
        public var failed: UInt64 = 0
    }

    /// Who is behind each service, by the pins alone; empty when sockets are not balanced.
    static func services(pinPath: String) throws(DatapathError) -> [ServiceAddress: ServiceBackends] {
        let maps = "\(folder(pinPath))/maps"
        guard Files.exists("\(folder(pinPath))/links/connect4") else { return [:] }
        do throws(BPFError) {
            let services = try BPFMap(pinned: "\(maps)/services")
            let backends = try BPFMap(pinned: "\(maps)/backends")
            return try decode(services, backends).mapValues(\.value)
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }

    /// Reads the pins alone: works without the daemon. nil when sockets are not balanced.
    public static func view(pinPath: String) throws(DatapathError) -> View? {
        let maps = "\(folder(pinPath))/maps"
        guard Files.exists("\(folder(pinPath))/links/connect4") else { return nil }
        do throws(BPFError) {
            let counts = try BPFMap(pinned: "\(maps)/counts")
            func sum(_ what: xe_socketlb_count) throws(BPFError) -> UInt64 {
                try (counts.lookupPerCPU(what.rawValue, as: UInt64.self) ?? []).reduce(0, &+)
            }
            var view = View()
            try BPFMap(pinned: "\(maps)/services").forEach(keys: xe_service_address.self, values: xe_service.self) {
                view.services += 1
                view.backends += Int($1.backends)
            }
            view.pods = try BPFMap(pinned: "\(maps)/pods").keys(as: UInt64.self).count
            view.connections = try sum(XE_SOCKETLB_CONNECTS)
            view.datagrams = try sum(XE_SOCKETLB_DATAGRAMS)
            view.answers = try sum(XE_SOCKETLB_ANSWERS)
            view.refused = try sum(XE_SOCKETLB_REFUSED)
            view.failed = try sum(XE_SOCKETLB_FAILED)
            return view
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }
}

// MARK: - Pods

extension SocketLoadBalancer {
    /// Balances the sockets of these pods and no others.
    func setPods(_ present: [PodInterface]) throws(DatapathError) {
        // One whose namespace is just going is not there any more: it is looked for again when it is attached.
        for pod in present { try? addPod(pod.name, namespace: pod.networkNamespace) }
        let known = Set(state.withLock { $0.pods.values })
        do throws(BPFError) {
            for cookie in try pods.keys(as: UInt64.self) where !known.contains(cookie) { try pods.delete(cookie) }
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }

    /// Whether this pod's sockets are balanced.
    func hasPod(_ name: String) -> Bool { state.withLock { $0.pods[name] != nil } }

    /// From now on the sockets of this pod are balanced. `namespace` is the path of its network namespace.
    func addPod(_ name: String, namespace: String) throws(DatapathError) {
        do throws(BPFError) {
            let cookie = try NetworkNamespace(path: namespace).cookie()
            try pods.update(cookie, UInt32(1))
            try forget(state.withLock { $0.pods.updateValue(cookie, forKey: name) })
        } catch {
            throw DatapathError(.failed, "pod \(name): its sockets cannot be balanced: \(error)")
        }
    }

    /// The sockets of this pod are its own again. Nothing happens when they were.
    func removePod(_ name: String) throws(DatapathError) {
        do throws(BPFError) {
            try forget(state.withLock { $0.pods.removeValue(forKey: name) })
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }

    /// A namespace that no pod has any more.
    private func forget(_ cookie: UInt64?) throws(BPFError) {
        guard let cookie, !state.withLock({ $0.pods.values.contains(cookie) }) else { return }
        try pods.delete(cookie)
    }
}
