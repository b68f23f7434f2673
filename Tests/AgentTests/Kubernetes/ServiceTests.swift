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

    /// "10.96.0.1:80/tcp" → ["10.1.0.1:8080"].
    private func text(_ backends: [ServiceAddress: ServiceBackends]) -> [String: [String]] {
        backends.reduce(into: [:]) { text, entry in
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
        #expect(values.map(\.isSticky) == [true])
    }

    @Test(arguments: [
        #""clusterIP": "None", "ports": [{"port": 80}]"#, #""clusterIP": "", "ports": [{"port": 80}]"#,
        #""type": "ExternalName", "externalName": "x.example", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]"#,
        #""clusterIP": "10.96.0.1""#, #""clusterIP": "10.96.0.1", "ports": [{"port": 80, "protocol": "SCTP"}]"#,
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
        private let state = Mutex<(held: [ServiceAddress: ServiceBackends], isFull: Bool)>(([:], false))
        var held: [ServiceAddress: ServiceBackends] { state.withLock { $0.held } }
        var addresses: Set<ServiceAddress> { Set(held.keys) }
        func fill(_ isFull: Bool) { state.withLock { $0.isFull = isFull } }
        func set(_ address: ServiceAddress, _ value: ServiceBackends?) throws(DatapathError) {
            let isFull = state.withLock { state in
                if !(state.isFull && value != nil) { state.held[address] = value }
                return state.isFull && value != nil
            }
            if isFull { throw DatapathError(.failed, "full") }
        }
    }

    /// Protected addresses.
    private final class Protected: Sendable {
        let addresses = Mutex<Set<String>>(["10.1.0.1", "10.1.0.2"])
    }

    private func follower(_ kernel: Kernel, _ protected: Protected = Protected()) -> (ServiceFollower, ServiceTable) {
        let follower = ServiceFollower(
            api: FakeAPI(), node: "node-1", excluded: ["kube-system"], balancer: kernel,
            isProtected: { address in protected.addresses.withLock { $0.contains("\(address)") } },
            changed: ChangeSignal(), logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        return (follower, follower.table)
    }

    @Test func nothingIsTouchedBeforeEverythingWasRead() throws {
        let kernel = Kernel()
        let stale = ServiceAddress(address: try IPAddress("10.96.9.9"), port: 1, transport: .tcp)
        try kernel.set(stale, ServiceBackends([ServiceBackend(address: try IPAddress("10.1.0.9"), port: 1)]))
        let (follower, table) = follower(kernel)
        table.handle(Reflector<ServiceObject>.Event.reset)
        table.handle(.listed(try service(web)))
        table.handle(Reflector<ServiceObject>.Event.synced)
        follower.apply()
        #expect(kernel.addresses == [stale] && !follower.isInForce)
        #expect(follower.strictAddresses == [stale.address])
        table.handle(Reflector<EndpointSliceObject>.Event.reset)
        table.handle(.listed(try slice(#"{"addresses": ["10.1.0.1"]}"#)))
        follower.apply()
        #expect(kernel.addresses == [stale] && !follower.isInForce)
        table.handle(Reflector<EndpointSliceObject>.Event.synced)
        follower.apply()
        #expect(text(kernel.held) == ["10.96.0.1:80/tcp": ["10.1.0.1:8080"]])
        #expect(follower.isInForce)
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

    @Test("Only services with a protected pod behind them are balanced, from when there is one to when there is none")
    func protectedPodsOnly() throws {
        let (kernel, protected) = (Kernel(), Protected())
        protected.addresses.withLock { $0 = [] }
        let (follower, table) = follower(kernel, protected)
        for event in [Reflector<ServiceObject>.Event.reset, .listed(try service(web)), .synced] { table.handle(event) }
        let pods = try slice(#"{"addresses": ["10.1.0.1"]}, {"addresses": ["10.1.0.3"]}"#)
        for event in [Reflector<EndpointSliceObject>.Event.reset, .listed(pods), .synced] { table.handle(event) }
        func held() -> [String: [String]] {
            follower.look()
            follower.apply()
            return text(kernel.held)
        }
        #expect(held() == [:] && follower.isInForce && follower.strictAddresses == [])
        protected.addresses.withLock { $0 = ["10.1.0.3"] }
        #expect(held() == ["10.96.0.1:80/tcp": ["10.1.0.1:8080", "10.1.0.3:8080"]])
        #expect(follower.strictAddresses == [try IPAddress("10.96.0.1")])
        protected.addresses.withLock { $0 = ["10.1.0.9"] }
        #expect(held() == [:] && follower.strictAddresses == [])
    }

    @Test func whatTheKernelRefusesIsToldAndTriedAgain() throws {
        let kernel = Kernel()
        let (follower, table) = follower(kernel)
        for event in [Reflector<ServiceObject>.Event.reset, .listed(try service(web)), .synced] { table.handle(event) }
        let one = try slice(#"{"addresses": ["10.1.0.1"]}"#)
        for event in [Reflector<EndpointSliceObject>.Event.reset, .listed(one), .synced] { table.handle(event) }
        kernel.fill(true)
        follower.apply()
        #expect(kernel.held.isEmpty)
        #expect(
            follower.problems.map(\.description) == ["service shop/web: its address is not replaced at sockets: full"])
        kernel.fill(false)
        follower.retry()
        follower.apply()
        #expect(kernel.held.count == 1 && follower.problems.isEmpty)
        table.handle(Reflector<ServiceObject>.Event.failing(KubernetesError(.other, "away")))
        follower.apply()
        #expect(follower.problems.count == 1)
    }
}
