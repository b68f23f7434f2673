import Cluster
import Foundation
import Keys
import Kubernetes
import Netlink
import Testing

@testable import Operator

/// Smaller plans: numbers of nodes, the cluster's object, epochs, who translates addresses of services, JSON.
@Suite struct PlanTests {
    @Test func numbersAreGivenOnce() throws {
        var result = try #require(NodeNumbers.allocate(mark: nil, used: [], count: 3))
        #expect(result == (1, 4))
        result = try #require(NodeNumbers.allocate(mark: "4", used: [1, 2, 3], count: 1))
        #expect(result == (4, 5))
        // The mark was lost, or makes no sense.
        result = try #require(NodeNumbers.allocate(mark: nil, used: [7, 2], count: 1))
        #expect(result == (8, 9))
        result = try #require(NodeNumbers.allocate(mark: "many", used: [7], count: 1))
        #expect(result == (8, 9))
        // A node that is gone has had its number.
        result = try #require(NodeNumbers.allocate(mark: "100", used: [7], count: 1))
        #expect(result == (100, 101))
        result = try #require(NodeNumbers.allocate(mark: "0", used: [], count: 1))
        #expect(result == (1, 2))
        #expect(NodeNumbers.allocate(mark: "16777215", used: [], count: 1) != nil)
        #expect(NodeNumbers.allocate(mark: "16777215", used: [], count: 2) == nil)
        #expect(NodeNumbers.allocate(mark: "16777216", used: [], count: 1) == nil)
    }

    @Test func strictPrefixesAreAllOfThem() throws {
        var inventory = Inventory()
        inventory.put(policy("a", .init(strictCIDRs: ["10.1.0.0/16", "10.244.0.0/16"])))
        inventory.put(policy("b", .init(strictCIDRs: ["fd00::/8", "nonsense"])))
        _ = inventory.settle()
        let configured = try [IPPrefix("10.244.0.0/16")]
        func list(_ present: [IPPrefix], _ mayLift: Bool) -> [String] {
            ClusterPlan.strictCIDRs(
                configured: configured, policies: inventory.rules.policies, present: present, mayLift: mayLift
            ).map(\.description)
        }
        #expect(list([], true) == ["10.1.0.0/16", "10.244.0.0/16", "fd00::/8"])
        let present = try [IPPrefix("10.9.0.0/16")]
        #expect(list(present, true).count == 3)
        #expect(list(present, false).contains("10.9.0.0/16"))
    }

    @Test func aLostClusterIsRemembered() {
        func epoch(_ number: Epoch, _ id: String?) -> EncryptionEpochObject {
            var object = EncryptionEpochObject(self.epoch(number, from: 0, to: 10))
            object.metadata.annotations = id.map { [EncryptionEpochObject.clusterIDAnnotation: $0] }
            return object
        }
        let id = ClusterID.random()
        #expect(ClusterPlan.rememberedID([epoch(1, "\(id)"), epoch(2, "\(id)"), epoch(3, nil)]) == id)
        #expect(ClusterPlan.rememberedID([epoch(1, "\(id)"), epoch(2, "\(ClusterID.random())")]) == nil)
        #expect(ClusterPlan.rememberedID([epoch(1, "nonsense")]) == nil)
    }

    private let start = Timestamp(milliseconds: 1_800_000_000_000)

    private func epoch(_ number: Epoch, from: Int64, to: Int64) -> EncryptionEpoch {
        EncryptionEpoch(
            number: number, wrappedDEK: Base64([1, 2, 3]), provider: "local", kekID: "k", kekVersion: "1",
            notBefore: start.adding(seconds: from), notAfter: start.adding(seconds: to),
            acknowledgeBy: start.adding(seconds: from + 60))
    }

    private func node(_ id: NodeID, epochs: [Epoch], sending: Epoch) -> NodeReport {
        var node = EncryptionNode(id: id, incarnation: .random())
        node.epochs = epochs
        node.sending = sending
        node.sendingSince = start
        return NodeReport(node)
    }

    @Test func epochsSayWhoIsMissing() {
        let cluster = Cluster(id: .random())
        let epochs = [1: epoch(1, from: 0, to: 86_400), 2: epoch(2, from: 100, to: 86_500)] as [Epoch: EncryptionEpoch]
        let nodes = [
            "a": node(1, epochs: [1, 2], sending: 1), "b": node(2, epochs: [1], sending: 1),
        ]
        let plan = EpochPlan.plan(cluster: cluster, epochs: epochs, nodes: nodes, now: start.adding(seconds: 110))
        #expect(plan.statuses[1]?.phase == .active)
        #expect(plan.statuses[2]?.phase == .prepared)
        #expect(plan.statuses[2]?.acknowledged == 1)
        #expect(plan.statuses[2]?.nodes == 2)
        #expect(plan.statuses[2]?.missing == ["b"])
        #expect(plan.obsolete.isEmpty)
        // Past the deadline, senders go on without b.
        let late = EpochPlan.plan(cluster: cluster, epochs: epochs, nodes: nodes, now: start.adding(seconds: 170))
        #expect(late.statuses[2]?.phase == .active)
    }

    @Test func oldEpochsGo() {
        let cluster = Cluster(id: .random())
        let epochs = (1...6).reduce(into: [Epoch: EncryptionEpoch]()) {
            $0[Epoch($1)] = epoch(Epoch($1), from: Int64($1 - 1) * 100, to: Int64($1) * 100 + 50)
        }
        let nodes = ["a": node(1, epochs: [6], sending: 6)]
        let now = start.adding(seconds: 590)
        #expect(EpochPlan.plan(cluster: cluster, epochs: epochs, nodes: nodes, now: now).obsolete == [1, 2, 3])
        // Not while somebody holds its keys.
        let slow = ["a": node(1, epochs: [2, 6], sending: 6)]
        #expect(EpochPlan.plan(cluster: cluster, epochs: epochs, nodes: slow, now: now).obsolete == [1, 3])
        // Never the newest, even when all have expired.
        let end = EpochPlan.plan(cluster: cluster, epochs: epochs, nodes: [:], now: start.adding(seconds: 9999))
        #expect(end.obsolete == [1, 2, 3, 4])
    }

    @Test func numbersOfEpochsNeverGoBack() {
        #expect(EpochPlan.next(epochs: [], nodes: []) == 1)
        #expect(EpochPlan.next(epochs: [3, 4], nodes: []) == 5)
        // All objects were deleted, but nodes remember.
        #expect(EpochPlan.next(epochs: [], nodes: [node(1, epochs: [8, 9], sending: 8)]) == 10)
        #expect(EpochPlan.next(epochs: [.max], nodes: []) == nil)
        // What one node says does not use up the numbers, and the next one can begin beside the newest.
        #expect(EpochPlan.next(epochs: [4], nodes: [node(1, epochs: [4, .max], sending: .max)]) == 5)
        #expect(EpochPlan.next(epochs: [4], nodes: [node(1, epochs: [4, 5], sending: 5)]) == 7)
        #expect(EpochPlan.next(epochs: [4], nodes: [node(1, epochs: [4, 6], sending: 4)]) == 7)
        #expect(EpochPlan.next(epochs: [.max - 1], nodes: [node(1, epochs: [.max], sending: 0)]) == nil)
    }

    @Test func whoTranslatesServices() {
        func judge(keymgr: Bool = false, _ change: (inout ServiceProxies) -> Void) -> ServiceTranslation {
            var proxies = ServiceProxies()
            change(&proxies)
            return .judge(proxies, attachMode: .pod, socketLoadBalancing: keymgr)
        }
        #expect(judge { _ in }.works == nil)
        #expect(judge { _ in }.reason == "CannotTell")
        let absent = judge {
            $0.kubeProxy = .absent
            $0.isCiliumKnown = true
        }
        #expect(absent.works == nil)
        #expect(absent.reason == "NotDetected")
        let proxy = judge { $0.kubeProxy = .present(mode: "ipvs") }
        #expect(proxy.works == false)
        #expect(proxy.message.contains("kube-proxy (ipvs)"))
        #expect(proxy.message.contains("Turn on socketLoadBalancing"))
        // Replacement turns socket load balancing on, whatever bpf-lb-sock says.
        for replacement in ["true", "strict"] {
            let cilium = judge {
                $0.cilium = ["kube-proxy-replacement": replacement, "bpf-lb-sock": "false"]
                $0.kubeProxy = .absent
            }
            #expect(cilium.works == true)
        }
        #expect(judge { $0.cilium = ["kube-proxy-replacement": "false", "bpf-lb-sock": "true"] }.works == true)
        // Both: sockets come first.
        #expect(
            judge {
                $0.cilium = ["kube-proxy-replacement": "true"]
                $0.kubeProxy = .present(mode: nil)
            }.works == true)
        let host = judge { $0.cilium = ["kube-proxy-replacement": "true", "bpf-lb-sock-hostns-only": "true"] }
        #expect(host.works == false)
        #expect(host.reason == "HostOnlySocketLoadBalancing")
        #expect(
            judge {
                $0.cilium = ["kube-proxy-replacement": "partial"]
                $0.kubeProxy = .present(mode: nil)
            }.works == false)
        for mode in [false, true] {
            let uplink = ServiceTranslation.judge(ServiceProxies(), attachMode: .uplink, socketLoadBalancing: mode)
            #expect(uplink.works == true)
            #expect(uplink.reason == "UplinkMode")
        }

        // keymgr replaces them, whatever else is there or cannot be found out.
        for change: (inout ServiceProxies) -> Void in [
            { _ in },
            { $0.kubeProxy = .present(mode: "iptables") },
            { $0.cilium = ["kube-proxy-replacement": "false"] },
            { $0.cilium = ["kube-proxy-replacement": "true", "bpf-lb-sock-hostns-only": "true"] },
        ] {
            let keymgr = judge(keymgr: true, change)
            #expect(keymgr.works == true)
            #expect(keymgr.reason == "KeymgrSocketLoadBalancing")
        }
        // Cilium's socket load balancing does the same, for all pods.
        let both = judge(keymgr: true) { $0.cilium = ["kube-proxy-replacement": "true"] }
        #expect(both.works == true)
        #expect(both.reason == "SocketLoadBalancing")
    }

    @Test func modesOfKubeProxy() {
        #expect(ServiceTranslation.kubeProxyMode("apiVersion: x\nmode: ipvs\nmetrics: y\n") == "ipvs")
        #expect(ServiceTranslation.kubeProxyMode("mode: \"\"\n") == "iptables")
        #expect(ServiceTranslation.kubeProxyMode("mode: \"nftables\"\r\n") == "nftables")
        #expect(ServiceTranslation.kubeProxyMode("clusterCIDR: 10.0.0.0/8") == nil)
    }

    @Test func jsonIsWhatTheCodersWrite() throws {
        func keys(_ json: some Sequence<UInt8>, _ key: String) -> Int {
            String(decoding: Array(json), as: UTF8.self).components(separatedBy: "\"\(key)\"").count - 1
        }
        var published = EncryptionNode(id: 7, incarnation: .random())
        published.lanes = 4
        published.revision = 3
        published.sending = 2
        published.sendingSince = start
        published.epochs = [1, 2]
        published.endpoints = [
            .init(
                name: "a\"\\\n\u{1}ü", addresses: [try IPAddress("10.0.0.1"), try IPAddress("fd00::1")],
                mode: .permissive,
                state: .withdrawing, since: 1, until: 3, withdrawnAt: start),
            .init(
                name: "b", addresses: [try IPAddress("10.0.0.2")], mode: .strict, headers: .hidden, state: .ready,
                since: 1),
        ]
        let spec = EncryptedEndpointSlice.Spec(
            sequence: 12,
            nodes: [
                NodeEntry(
                    name: "n", report: NodeReport(published, appliedThrough: 11, notApplied: ["x", "y"]),
                    incarnationAt: 3, history: [.init(revision: 2, at: 4), .init(revision: 3, at: 9)])
            ])
        var writer = JSONWriter()
        writer.spec(spec)
        #expect(try JSONDecoder().decode(EncryptedEndpointSlice.Spec.self, from: Data(writer.bytes)) == spec)
        #expect(try keys(writer.bytes, "headers") == keys(JSONEncoder().encode(spec), "headers"))

        var change = NodeChange(name: "n", after: 12)
        change.revision = 3
        change.isWholeList = true
        change.endpoints = published.endpoints
        let changes = EncryptedEndpointSlice.Spec(sequence: 13, changes: [change])
        writer = JSONWriter()
        writer.spec(changes)
        #expect(try JSONDecoder().decode(EncryptedEndpointSlice.Spec.self, from: Data(writer.bytes)) == changes)
        #expect(keys(writer.bytes, "headers") == 1)

        let endpoints = [
            EncryptionNodeObject.Endpoint(
                name: "u", pod: .init(namespace: "n", name: "p", uid: "u"), addresses: [try IPAddress("10.0.0.1")],
                mode: .strict, policies: ["EncryptionPolicy/x"]),
            EncryptionNodeObject.Endpoint(
                name: "v", pod: .init(namespace: "n", name: "q", uid: "v"), addresses: [try IPAddress("10.0.0.2")],
                mode: .strict, headers: .hidden, policies: []),
        ]
        let body = JSONWriter.patch(resourceVersion: "5", uid: "z") { writer in
            writer.key("spec")
            writer.spec(endpoints)
        }
        let object = try #require(try JSONSerialization.jsonObject(with: Data(body)) as? [String: Any])
        #expect((object["metadata"] as? [String: String]) == ["resourceVersion": "5", "uid": "z"])
        struct Patch: Decodable {
            struct Spec: Decodable { var endpoints: [EncryptionNodeObject.Endpoint] }
            var spec: Spec
        }
        #expect(try JSONDecoder().decode(Patch.self, from: Data(body)).spec.endpoints == endpoints)
    }

    @Test func configurationSaysWhatIsWrong() throws {
        func problem(_ text: String) -> String? {
            do {
                _ = try ObjectCoding.decode(OperatorConfiguration.self, from: Array(text.utf8))
                return nil
            } catch {
                return "\(error)"
            }
        }
        let kms = #""kms": {"provider": "local", "local": {"kekFile": "/k"}}"#
        #expect(problem("{\(kms)}") == nil)
        #expect(problem("{\(kms), \"socketLoadBalancing\": true}") == nil)
        #expect(problem("{\(kms), \"socketLoadBalancing\": \"on\"}")?.contains("socketLoadBalancing") == true)
        #expect(problem("{\(kms), \"attachMode\": \"uplink\"}")?.contains("not built yet") == true)
        #expect(problem("{\(kms), \"strictCIDRs\": [\"10.0.0.1/8\"]}")?.contains("strictCIDRs") == true)
        #expect(problem("{\(kms), \"epochs\": {\"lifetimeSeconds\": 5}}")?.contains("epochs.lifetimeSeconds") == true)
        #expect(problem("{\(kms), \"clusterDomain\": \".local\"}")?.contains("clusterDomain") == true)
        #expect(problem("{\(kms), \"attachMode\": \"x\"}")?.contains("expected one of pod, uplink") == true)
        #expect(problem("{\(kms), \"listen\": \"x\"}")?.contains("listen: \"x\" is no address") == true)
        // Each may stand for itself, and still not fit the defaults of the others.
        for (key, value) in [
            ("leaseDurationSeconds", 10), ("renewDeadlineSeconds", 15), ("renewDeadlineSeconds", 3),
            ("retryPeriodSeconds", 6),
        ] {
            #expect(
                problem("{\(kms), \"leaderElection\": {\"\(key)\": \(value)}}")?.hasPrefix("leaderElection.") == true)
        }
        #expect(problem("{\(kms), \"leaderElection\": {\"retryPeriodSeconds\": 5}}") == nil)
        #expect(problem("{}")?.contains("kms") == true)
    }

    @Test func objectsThatMakeNoSenseAreReportedAndHarmLess() throws {
        func decode<O: KubernetesObject>(_ type: O.Type, _ text: String) throws -> O {
            try JSONDecoder().decode(type, from: Data(text.utf8))
        }
        // A status by a program that is not ours.
        let node = try decode(
            EncryptionNodeObject.self,
            #"{"metadata": {"name": "a", "extra": 1}, "spec": {"nodeID": 3}, "status": {"incarnation": "zz", "id": 3}}"#
        )
        #expect(node.spec?.nodeID == 3)
        #expect(node.status == nil)
        #expect(node.unreadable?.contains("incarnation") == true)
        // Nothing was said yet.
        #expect(
            try decode(EncryptionNodeObject.self, #"{"metadata": {"name": "a"}, "spec": {"nodeID": 3}}"#).unreadable
                == nil)
        // An epoch under another's name.
        let epoch = try decode(
            EncryptionEpochObject.self,
            #"{"metadata": {"name": "epoch-2"}, "spec": {"number": 3, "wrappedDEK": "AAAA", "provider": "local", "kekID": "", "kekVersion": "", "notBefore": "2026-05-04T12:00:00Z", "notAfter": "2026-05-05T12:00:00Z", "acknowledgeBy": "2026-05-04T12:01:00Z"}}"#
        )
        #expect(epoch.spec == nil)
        #expect(epoch.unreadable?.contains("epoch-2") == true)
        #expect(EncryptionEpochObject.number("epoch-07") == nil)
        #expect(EncryptionEpochObject.number("epoch-7") == 7)
        // A node that goes silent, or whose words cannot be read, stays what it was.
        var known = node
        known.unreadable = nil
        known.metadata.uid = "u"
        known.status = .init(report: NodeReport(EncryptionNode(id: 3, incarnation: .random())))
        var inventory = Inventory()
        inventory.put(known)
        _ = inventory.settle()
        known.status = nil
        inventory.put(known)
        #expect(inventory.encryptionNodes["a"]?.report != nil)
        #expect(inventory.settle().reports.isEmpty)
    }
}
