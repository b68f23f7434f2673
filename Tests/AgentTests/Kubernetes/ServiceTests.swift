import Cluster
import FoundationEssentials
import Kubernetes
import Logging
import Netlink
import Synchronization
import Testing

@testable import Agent
@testable import Datapath

/// From Services and EndpointSlices to who is behind an address.
@Suite struct ServiceTests {
    private func service(named name: String = "web", namespace: String = "shop", _ spec: String) throws -> ServiceObject
    {
        try decode(#"{"metadata": {"name": "\#(name)", "namespace": "\#(namespace)"}, "spec": {\#(spec)}}"#)
    }

    private func slice(
        named name: String = "web-1", of service: String = "web", namespace: String = "shop", type: String = "IPv4",
        ports: String = #"{"name": "http", "port": 8080, "protocol": "TCP"}"#, _ endpoints: String
    ) throws -> EndpointSliceObject {
        try decode(
            #"""
            {"metadata": {"name": "\#(name)", "namespace": "\#(namespace)",
                          "labels": {"kubernetes.io/service-name": "\#(service)", "x": "y"}},
             "addressType": "\#(type)", "ports": [\#(ports)], "endpoints": [\#(endpoints)]}
            """#)
    }

    private func decode<O: KubernetesObject>(_ json: String) throws -> O {
        var object = try JSONDecoder().decode(O.self, from: Data(json.utf8))
        object.trim()
        return object
    }

    /// "10.96.0.1:80/tcp" → ["10.1.0.1:8080"]; those without anybody left out.
    private func text(_ backends: [ServiceAddress: ServiceBackends]) -> [String: [String]] {
        backends.filter { !$0.value.backends.isEmpty }.reduce(into: [:]) { text, entry in
            let (place, value) = entry
            text["\(place.address):\(place.port)/\(place.transport)"] = value.backends.map {
                "\($0.address):\($0.port)"
            }
        }
    }

    private func backends(_ service: ServiceObject, _ slices: [EndpointSliceObject]) throws -> [String: [String]] {
        let facts = try #require(ServiceFacts(service))
        return text(facts.backends(slices.compactMap { SliceFacts($0, node: "node-1") }))
    }

    private let web =
        #""clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd96::1"], "ports": [{"name": "http", "port": 80}]"#

    @Test func familiesPortsAndSlicesAreJoined() throws {
        let both = try service(
            #"""
            "clusterIPs": ["10.96.0.1", "fd96::1"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
                      {"name": "dns-tcp", "port": 53}, {"name": "x", "port": 9, "protocol": "SCTP"}]
            """#)
        let ports =
            #"{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "all", "port": null}"#
        let slices = [
            try slice(ports: ports, #"{"addresses": ["10.1.0.2", "10.9.9.9"]}, {"addresses": ["10.1.0.1"]}"#),
            try slice(named: "web-2", ports: ports, #"{"addresses": ["10.1.0.1"]}, {"addresses": []}"#),
            try slice(named: "web-3", type: "IPv6", #"{"addresses": ["fd01::1"]}, {"addresses": ["nonsense"]}"#),
            try slice(named: "web-4", type: "FQDN", #"{"addresses": ["example.com"]}"#),
        ]
        #expect(
            try backends(both, slices) == [
                "10.96.0.1:80/tcp": ["10.1.0.1:8080", "10.1.0.2:8080"],
                "10.96.0.1:53/udp": ["10.1.0.1:5353", "10.1.0.2:5353"],
                "fd96::1:80/tcp": ["fd01::1:8080"],
            ])
    }

    @Test func whoIsReadyCountsAndElseWhoIsGoing() throws {
        let web = try service(web)
        let ready = #"{"addresses": ["10.1.0.1"], "conditions": {"ready": true}}"#
        let unready = #"{"addresses": ["10.1.0.2"], "conditions": {"ready": false, "serving": false}}"#
        let last = #"{"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}"#
        let gone =
            #"{"addresses": ["10.1.0.4"], "conditions": {"ready": false, "serving": false, "terminating": true}}"#
        #expect(
            try backends(web, [slice([ready, unready, last, gone].joined(separator: ","))])
                == ["10.96.0.1:80/tcp": ["10.1.0.1:8080"]])
        #expect(
            try backends(web, [slice([unready, last, gone].joined(separator: ","))])
                == ["10.96.0.1:80/tcp": ["10.1.0.3:8080"]])
        #expect(try backends(web, [slice([unready, gone].joined(separator: ","))]) == [:])
    }

    @Test func localTrafficStaysOnTheNode() throws {
        let local = try service(web + #", "internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP""#)
        let slices = [
            try slice(
                #"{"addresses": ["10.1.0.1"], "nodeName": "node-2"}, {"addresses": ["10.1.0.2"], "nodeName": "node-1"}"#
            )
        ]
        #expect(try backends(local, slices) == ["10.96.0.1:80/tcp": ["10.1.0.2:8080"]])
        #expect(try backends(service(web), slices).values.first?.count == 2)
        let facts = try #require(ServiceFacts(local))
        let values = facts.backends(slices.compactMap { SliceFacts($0, node: "node-1") }).values
        #expect(values.map(\.isSticky) == [true, true])
    }

    @Test(arguments: [
        #""clusterIP": "None", "ports": [{"port": 80}]"#, #""clusterIP": "", "ports": [{"port": 80}]"#,
        #""type": "ExternalName", "externalName": "x.example", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]"#,
    ])
    func servicesWithoutAnAddressToReplace(spec: String) throws {
        #expect(ServiceFacts(try service(spec)) == nil)
    }

    @Test func anotherProxysServicesAreLeftAlone() throws {
        let theirs: ServiceObject = try decode(
            #"{"metadata": {"name": "a", "labels": {"service.kubernetes.io/service-proxy-name": "x"}}, "spec": {\#(web)}}"#
        )
        #expect(ServiceFacts(theirs) == nil)
    }

    // MARK: following

    private final class Kernel: ServiceBalancing {
        struct State {
            var held: [ServiceAddress: ServiceBackends] = [:]
            var refused: Set<IPAddress> = []
            var protected: Set<String> = ["10.1.0.1", "10.1.0.2"]
            var isFull = false
        }
        private let state = Mutex(State())
        func with<R: Sendable>(_ body: (inout State) -> R) -> R { state.withLock { body(&$0) } }

        var held: [ServiceAddress: ServiceBackends] { with { $0.held } }
        var addresses: Set<ServiceAddress> { Set(held.keys) }
        func set(_ address: ServiceAddress, _ value: ServiceBackends?) throws(DatapathError) {
            let isFull = with { state in
                if !(state.isFull && value != nil) { state.held[address] = value }
                return state.isFull && value != nil
            }
            if isFull { throw DatapathError(.failed, "full") }
        }
        func refused() throws(DatapathError) -> Set<IPAddress> { with { $0.refused } }
        func refuse(_ address: IPAddress, _ isRefused: Bool) throws(DatapathError) {
            with { state in
                if isRefused { state.refused.insert(address) } else { state.refused.remove(address) }
            }
        }
        func isProtected(_ address: IPAddress) -> Bool { with { $0.protected.contains("\(address)") } }
    }

    private final class Time: Sendable {
        let now = Mutex(Duration.zero)
    }

    private func follower(_ kernel: Kernel, _ time: Time = Time()) -> (ServiceFollower, ServiceTable) {
        var clock = KubernetesClock.system
        clock.now = { time.now.withLock { $0 } }
        let follower = ServiceFollower(
            api: FakeAPI(), node: "node-1", excluded: ["kube-system"], kernel: kernel, clock: clock,
            changed: ChangeSignal(), logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        return (follower, follower.table)
    }

    @Test func nothingIsTouchedBeforeEverythingWasRead() throws {
        let kernel = Kernel()
        let stale = ServiceAddress(address: try IPAddress("10.96.9.9"), port: 1, transport: .tcp)
        try kernel.set(stale, ServiceBackends([ServiceBackend(address: try IPAddress("10.1.0.9"), port: 1)]))
        try kernel.refuse(stale.address, true)
        let (follower, table) = follower(kernel)
        table.handle(Reflector<ServiceObject>.Event.reset)
        table.handle(.listed(try service(web)))
        table.handle(Reflector<ServiceObject>.Event.synced)
        follower.apply()
        #expect(kernel.addresses == [stale] && !follower.isInForce)
        #expect(try kernel.refused() == [stale.address])
        table.handle(Reflector<EndpointSliceObject>.Event.reset)
        table.handle(.listed(try slice(#"{"addresses": ["10.1.0.1"]}"#)))
        follower.apply()
        #expect(kernel.addresses == [stale] && !follower.isInForce)
        table.handle(Reflector<EndpointSliceObject>.Event.synced)
        follower.apply()
        #expect(text(kernel.held) == ["10.96.0.1:80/tcp": ["10.1.0.1:8080"]])
        #expect(follower.isInForce)
        #expect(try kernel.refused() == [IPAddress("10.96.0.1"), IPAddress("fd96::1")])
    }

    @Test func changesFollow() throws {
        let kernel = Kernel()
        let (follower, table) = follower(kernel)
        for event in [Reflector<ServiceObject>.Event.reset, .listed(try service(web)), .synced] { table.handle(event) }
        for event in [Reflector<EndpointSliceObject>.Event.reset, .synced] { table.handle(event) }
        func held() -> [String: [String]] {
            follower.apply()
            return text(kernel.held)
        }
        #expect(held() == [:])
        table.handle(.applied(try slice(#"{"addresses": ["10.1.0.1"]}"#)))
        table.handle(.applied(try slice(named: "web-2", #"{"addresses": ["10.1.0.2"]}"#)))
        #expect(held() == ["10.96.0.1:80/tcp": ["10.1.0.1:8080", "10.1.0.2:8080"]])
        // A slice that becomes another service's.
        table.handle(.applied(try slice(named: "web-2", of: "other", #"{"addresses": ["10.1.0.2"]}"#)))
        #expect(held() == ["10.96.0.1:80/tcp": ["10.1.0.1:8080"]])
        // A service of a namespace that is left alone, and one that takes the address over.
        table.handle(.applied(try service(named: "dns", namespace: "kube-system", web)))
        table.handle(.applied(try service(named: "other", web)))
        table.handle(Reflector<ServiceObject>.Event.deleted(ObjectKey(namespace: "shop", name: "web"), uid: nil))
        #expect(held() == ["10.96.0.1:80/tcp": ["10.1.0.2:8080"]])
        // A new list without it; what cannot be read keeps its last version.
        let unreadable = UndecodableObject(
            key: ObjectKey(namespace: "shop", name: "web-2"), resourceVersion: "9", problem: "x")
        for event in [Reflector<EndpointSliceObject>.Event.reset, .undecodable(unreadable), .synced] {
            table.handle(event)
        }
        #expect(held() == ["10.96.0.1:80/tcp": ["10.1.0.2:8080"]])
        for event in [Reflector<EndpointSliceObject>.Event.reset, .synced] { table.handle(event) }
        #expect(held() == [:])
    }

    @Test(
        "Only services with a protected pod behind them are balanced, from when there is one to when there are others only"
    )
    func protectedPodsOnly() throws {
        let kernel = Kernel()
        let (follower, table) = follower(kernel)
        kernel.with { $0.protected = [] }
        for event in [Reflector<ServiceObject>.Event.reset, .listed(try service(web)), .synced] { table.handle(event) }
        let pods = try slice(#"{"addresses": ["10.1.0.1"]}, {"addresses": ["10.1.0.3"]}"#)
        for event in [Reflector<EndpointSliceObject>.Event.reset, .listed(pods), .synced] { table.handle(event) }
        func held(protected: String) throws -> [String: [String]] {
            let before = kernel.with { state in
                defer { state.protected = [protected] }
                return state.protected
            }
            for text in before.union([protected]) { follower.look(try IPAddress(text)) }
            #expect(follower.done < follower.asked)
            follower.apply()
            #expect(follower.done == follower.asked)
            return text(kernel.held)
        }
        let both = ["10.96.0.1:80/tcp": ["10.1.0.1:8080", "10.1.0.3:8080"]]
        let addresses: Set = [try IPAddress("10.96.0.1"), try IPAddress("fd96::1")]
        #expect(try held(protected: "10.1.0.8") == [:])
        #expect(try kernel.refused() == [] && follower.isInForce)
        #expect(try held(protected: "10.1.0.3") == both)
        #expect(try kernel.refused() == addresses)
        // Nobody behind the IPv6 address: connections to it are refused.
        #expect(kernel.held.count == 2)
        // Not ready: nobody is chosen, and nothing gets past. The same while there is no pod at all.
        for pods in [#"{"addresses": ["10.1.0.3"], "conditions": {"ready": false}}"#, ""] {
            table.handle(.applied(try slice(pods)))
            follower.apply()
            #expect(text(kernel.held) == [:] && kernel.held.count == 2)
            #expect(try kernel.refused() == addresses)
        }
        table.handle(.applied(pods))
        #expect(try held(protected: "10.1.0.1") == both)
        #expect(try held(protected: "10.1.0.9") == [:])
        #expect(try kernel.refused() == [] && kernel.held.isEmpty)
    }

    @Test("What cannot be set is told and tried again, and gets past nobody meanwhile; others are not held up")
    func failures() throws {
        let (kernel, time) = (Kernel(), Time())
        let (follower, table) = follower(kernel, time)
        // Without ports that sockets replace, such as SCTP's: refused all the same.
        let odd = try service(named: "odd", #""clusterIP": "10.96.0.3", "ports": [{"port": 9, "protocol": "SCTP"}]"#)
        let services: [Reflector<ServiceObject>.Event] = [.reset, .listed(try service(web)), .listed(odd), .synced]
        for event in services { table.handle(event) }
        let slices = [
            try slice(#"{"addresses": ["10.1.0.1"]}"#),
            try slice(named: "odd-1", of: "odd", #"{"addresses": ["10.1.0.2"]}"#),
        ]
        table.handle(Reflector<EndpointSliceObject>.Event.reset)
        for slice in slices { table.handle(.listed(slice)) }
        table.handle(Reflector<EndpointSliceObject>.Event.synced)
        kernel.with { $0.isFull = true }
        follower.apply()
        #expect(kernel.held.isEmpty && follower.isInForce)
        let addresses = try ["10.96.0.1", "fd96::1", "10.96.0.3"].map { try IPAddress($0) }
        #expect(try kernel.refused() == Set(addresses))
        #expect(
            follower.problems.map(\.description) == ["service shop/web: its address is not replaced at sockets: full"])
        kernel.with { $0.isFull = false }
        follower.apply()
        #expect(kernel.held.isEmpty)
        time.now.withLock { $0 = .seconds(6) }
        follower.apply()
        #expect(kernel.held.count == 2 && follower.problems.isEmpty)
        table.handle(Reflector<ServiceObject>.Event.failing(KubernetesError(.other, "away")))
        follower.apply()
        #expect(follower.problems.count == 1)
    }

    @Test("A service without pods that an earlier process has refused stays so")
    func restart() throws {
        let kernel = Kernel()
        try kernel.refuse(try IPAddress("10.96.0.1"), true)
        try kernel.refuse(try IPAddress("10.96.0.9"), true)
        let (follower, table) = follower(kernel)
        for event in [Reflector<ServiceObject>.Event.reset, .listed(try service(web)), .synced] { table.handle(event) }
        for event in [Reflector<EndpointSliceObject>.Event.reset, .synced] { table.handle(event) }
        follower.apply()
        #expect(try kernel.refused() == [IPAddress("10.96.0.1"), IPAddress("fd96::1")])
        #expect(kernel.held.count == 2 && kernel.held.values.allSatisfy(\.backends.isEmpty))
    }

    @Test("A service whose address is listed before the one that had it is gone gets it")
    func addressesThatAreUsedAgain() throws {
        let kernel = Kernel()
        let (follower, table) = follower(kernel)
        for event in [Reflector<ServiceObject>.Event.reset, .listed(try service(web)), .synced] { table.handle(event) }
        let slices = [
            try slice(#"{"addresses": ["10.1.0.1"]}"#),
            try slice(named: "new-1", of: "new", #"{"addresses": ["10.1.0.2"]}"#),
        ]
        table.handle(Reflector<EndpointSliceObject>.Event.reset)
        for slice in slices { table.handle(.listed(slice)) }
        table.handle(Reflector<EndpointSliceObject>.Event.synced)
        follower.apply()
        table.handle(Reflector<ServiceObject>.Event.reset)
        table.handle(.listed(try service(named: "new", web)))
        follower.apply()
        table.handle(.applied(try slice(#"{"addresses": ["10.1.0.1"]}, {"addresses": ["10.1.0.2"]}"#)))
        follower.apply()
        table.handle(Reflector<ServiceObject>.Event.synced)
        follower.apply()
        follower.apply()
        #expect(text(kernel.held) == ["10.96.0.1:80/tcp": ["10.1.0.2:8080"]])
        #expect(try kernel.refused().count == 2)
    }
}
