import Cluster
import Keys
import Kubernetes
import Netlink
import Testing

@testable import Operator

/// Policies, annotations, and what happens where they contradict each other.
@Suite struct PolicyTests {
    private func inventory(_ policies: [EncryptionPolicy], _ pods: [Pod] = []) throws -> Inventory {
        var inventory = try Fixture("mesh").inventory()
        for policy in policies { inventory.put(policy) }
        for pod in pods { inventory.put(pod) }
        _ = inventory.settle()
        return inventory
    }

    private func statuses(
        _ inventory: Inventory, _ proxies: ServiceProxies = ServiceProxies()
    ) -> [String: [String: Condition]] {
        let translation = ServiceTranslation.judge(proxies, attachMode: .pod, socketLoadBalancing: false)
        return PolicyStatusPlan.plan(inventory, translation: translation, now: .now()).mapValues {
            ($0.conditions ?? []).reduce(into: [:]) { $0[$1.type] = $1 }
        }
    }

    private let pay = EncryptionPolicy.Spec(namespaceSelector: .init(matchLabels: ["team": "pay"]))

    @Test func selectors() throws {
        func selected(_ namespaces: LabelSelector?, _ pods: LabelSelector?) throws -> Set<String> {
            var inventory = try inventory([policy("p", .init(namespaceSelector: namespaces, podSelector: pods))])
            return Set(inventory.protected().keys)
        }
        #expect(try selected(nil, nil).count == 7)
        #expect(try selected(.init(), .init()).count == 7)
        #expect(try selected(.init(matchLabels: ["team": "pay"]), nil) == ["pay/ledger-0", "pay/vault-0"])
        #expect(
            try selected(.init(matchExpressions: [.init(key: "team", operator: "DoesNotExist")]), nil)
                == ["ops/legacy-0", "ops/legacy-1"])
        #expect(
            try selected(nil, .init(matchExpressions: [.init(key: "app", operator: "In", values: ["cart", "vault"])]))
                == ["shop/cart-v1", "shop/cart-v2", "pay/vault-0"])
        #expect(
            try selected(
                .init(matchExpressions: [.init(key: "team", operator: "Exists")]),
                .init(
                    matchLabels: ["app": "cart"],
                    matchExpressions: [.init(key: "version", operator: "NotIn", values: ["v1"])]))
                == ["shop/cart-v2"])
        // The label that names the namespace.
        #expect(
            try selected(.init(matchLabels: ["kubernetes.io/metadata.name": "ops"]), nil)
                == ["ops/legacy-0", "ops/legacy-1"])
    }

    @Test func theStricterRuleWins() throws {
        var inventory = try inventory([
            policy("soft", .init(mode: "permissive")),
            policy("hard", .init(podSelector: .init(matchLabels: ["app": "cart"]))),
        ])
        #expect(inventory.protected()["shop/cart-v1"] == .strict)
        #expect(inventory.protected()["shop/catalog-1"] == .permissive)
        let conditions = statuses(inventory)
        #expect(conditions["soft"]?["Conflict"]?.status == .isTrue)
        #expect(conditions["soft"]?["Conflict"]?.message.contains("EncryptionPolicy/hard") == true)
        #expect(conditions["hard"]?["Conflict"]?.status == .isFalse)
        inventory.remove(.policies, key("hard"))
        #expect(inventory.protected()["shop/cart-v1"] == .permissive)
    }

    @Test func meshResourcesAreStrict() throws {
        var inventory = try inventory([policy("soft", .init(mode: "permissive"))])
        inventory.put(ServiceEntry(metadata: meta("shop/x"), spec: .init(hosts: ["cart"])))
        #expect(inventory.protected()["shop/cart-v1"] == .strict)
        #expect(
            inventory.plan("shop/cart-v1")?.changes["ebpf.xdp/policy"]
                == "strict;EncryptionPolicy/soft,ServiceEntry/shop/x")
    }

    @Test func aPersonCanOptOutUnlessItIsEnforced() throws {
        let out = pod("pay/out", ips: ["10.244.1.9"], annotations: ["ebpf.xdp/encrypt": "false"])
        var inventory = try inventory([policy("p", pay)], [out])
        #expect(inventory.protected()["pay/out"] == nil)
        #expect(inventory.decision("pay/out")?.why == .optedOut)
        #expect(inventory.plan("pay/out") == nil)

        var spec = pay
        spec.enforced = true
        spec.mode = "permissive"
        inventory.put(policy("p", spec))
        #expect(inventory.protected()["pay/out"] == .permissive)
        #expect(inventory.decision("pay/out")?.why == .enforced)
        let plan = try #require(inventory.plan("pay/out"))
        // The person's word stays where it is.
        #expect(plan.changes["ebpf.xdp/encrypt"] == nil)
        #expect(plan.changes["ebpf.xdp/policy"] == "permissive;EncryptionPolicy/p")
        #expect(plan.event.reason == "OptOutOverruled")
        #expect(statuses(inventory)["p"]?["Conflict"]?.reason == "OptOutOverruled")
    }

    @Test func annotationsAreSetOnceAndTakenBack() throws {
        var inventory = try inventory([policy("p", pay)])
        let plan = try #require(inventory.plan("pay/ledger-0"))
        #expect(
            plan.changes == [
                "ebpf.xdp/encrypt": "true", "ebpf.xdp/policy": "strict;EncryptionPolicy/p",
                "ebpf.xdp/managed-by": "ebpf-xdp-operator",
            ])
        let annotations = plan.changes.compactMapValues(\.self)
        let marked = pod(
            "pay/ledger-0", node: "node-b", ips: ["10.244.2.2"], labels: ["app": "ledger"], annotations: annotations,
            uid: "uid-ledger-0")
        inventory.put(marked)
        _ = inventory.settle()
        #expect(inventory.plan("pay/ledger-0") == nil)

        inventory.remove(.policies, key("p"))
        _ = inventory.settle()
        let back = try #require(inventory.plan("pay/ledger-0"))
        #expect(Set(back.changes.keys) == Set(annotations.keys))
        #expect(back.changes.values.allSatisfy { $0 == nil })
        #expect(String(decoding: back.body(inventory.pods[key("pay/ledger-0")]!), as: UTF8.self).contains("null"))
        // As long as not everything is known, nothing is taken back.
        #expect(inventory.plan("pay/ledger-0", mayLift: false) == nil)
    }

    @Test func manualRequestsStayManual() throws {
        let manual = pod("shop/m", ips: ["10.244.1.9"], annotations: ["ebpf.xdp/encrypt": "true"])
        let soft = pod(
            "shop/s", ips: ["10.244.1.10"],
            annotations: ["ebpf.xdp/encrypt": "true", "ebpf.xdp/policy": "permissive"])
        var inventory = try inventory([policy("p", .init(mode: "permissive"))], [manual, soft])
        #expect(inventory.protected()["shop/m"] == .strict)
        #expect(inventory.protected()["shop/s"] == .permissive)
        #expect(inventory.plan("shop/m") == nil)
        inventory.remove(.policies, key("p"))
        #expect(inventory.protected() == ["shop/m": .strict, "shop/s": .permissive])
        #expect(inventory.plan("shop/m") == nil)
        #expect(inventory.wantedEndpoints("node-a").first?.policies == ["annotation"])
    }

    @Test func othersMarksAreNotOurs() throws {
        // Somebody has overwritten the operator's "true": that is a person's word.
        let pod = pod(
            "pay/x", ips: ["10.244.1.9"],
            annotations: [
                "ebpf.xdp/encrypt": "false", "ebpf.xdp/policy": "strict;EncryptionPolicy/p",
                "ebpf.xdp/managed-by": "ebpf-xdp-operator",
            ])
        let inventory = try inventory([policy("p", pay)], [pod])
        let plan = try #require(inventory.plan("pay/x"))
        #expect(plan.changes.keys.sorted() == ["ebpf.xdp/managed-by", "ebpf.xdp/policy"])
        #expect(plan.changes.values.allSatisfy { $0 == nil })
    }

    @Test func aTypingErrorDoesNotLift() throws {
        var inventory = try inventory([policy("p", pay)])
        #expect(inventory.protected().count == 2)
        var wrong = pay
        wrong.namespaceSelector = .init(matchExpressions: [.init(key: "team", operator: "Inn", values: ["pay"])])
        wrong.mode = "permissive"
        inventory.put(policy("p", wrong, generation: 2))
        // The spec before stays in force.
        #expect(inventory.protected() == ["pay/ledger-0": .strict, "pay/vault-0": .strict])
        #expect(inventory.holds.isEmpty)
        let accepted = statuses(inventory)["p"]?["Accepted"]
        #expect(accepted?.status == .isFalse)
        #expect(accepted?.reason == "Invalid")
        #expect(accepted?.message.contains("Inn") == true)

        // Without a spec before (a restart), nobody knows what it asked for: nothing is lifted.
        var fresh = try Fixture("mesh").inventory()
        fresh.put(policy("p", wrong))
        #expect(fresh.protected().isEmpty)
        #expect(fresh.holds.contains { $0.contains("encryptionpolicies p") })
        fresh.put(policy("p", pay))
        #expect(fresh.holds.isEmpty)
        #expect(fresh.protected().count == 2)
    }

    @Test func wordsThatAreNotKnownAreStrict() throws {
        var inventory = try inventory([policy("p", .init(mode: "lenient", strictCIDRs: ["10.0.0.0/8", "10.0.0.1/8"]))])
        #expect(inventory.protected()["shop/cart-v1"] == .strict)
        #expect(inventory.rule("p")?.strictCIDRs.map(\.description) == ["10.0.0.0/8"])
        #expect(inventory.rule("p")?.problems.count == 2)
    }

    @Test func hiddenHeadersWin() throws {
        var inventory = try inventory([
            policy("all", .init(mode: "permissive", headers: "visible")),
            policy(
                "secret", .init(podSelector: .init(matchLabels: ["app": "cart"]), mode: "permissive", headers: "hidden")
            ),
            policy("hard", .init(podSelector: .init(matchLabels: ["version": "v1"]))),
        ])
        func headers(_ pod: String) -> Headers? { inventory.decision(pod)?.headers }
        // Each of both is asked for by another: neither takes the other back.
        #expect(inventory.protected()["shop/cart-v1"] == .strict)
        #expect(headers("shop/cart-v1") == .hidden && headers("shop/cart-v2") == .hidden)
        #expect(headers("shop/catalog-1") == .visible)
        let wanted = inventory.nodes.keys.flatMap { inventory.wantedEndpoints($0) }
        #expect(Set(wanted.filter { $0.headers == .hidden }.map(\.pod.name)) == ["cart-v1", "cart-v2"])
        // The annotation has the mode and who asks, as before.
        #expect(
            inventory.plan("shop/cart-v2")?.changes["ebpf.xdp/policy"]
                == "permissive;EncryptionPolicy/all,EncryptionPolicy/secret")
        inventory.remove(.policies, key("secret"))
        #expect(inventory.protected()["shop/cart-v1"] == .strict)
        #expect(headers("shop/cart-v1") == .visible)
    }

    @Test func headersAloneChangeWhatIsWantedOfANode() throws {
        var inventory = try inventory([policy("p", pay)])
        let wanted = inventory.wantedEndpoints("node-b")
        #expect(!wanted.isEmpty)
        var object = EncryptionNodeObject(name: "node-b", spec: .init(nodeID: 1, endpoints: wanted))
        object.metadata.uid = "uid-node-b"
        inventory.put(object)
        _ = inventory.settle()
        #expect(inventory.nodePlan("node-b") == .none)
        var spec = pay
        spec.headers = "hidden"
        inventory.put(policy("p", spec, generation: 2))
        #expect(inventory.settle().nodes.contains("node-b"))
        #expect(inventory.nodePlan("node-b") == .write)
        #expect(inventory.wantedEndpoints("node-b").map(\.headers) == wanted.map { _ in .hidden })
        // Nothing else is new.
        #expect(inventory.wantedEndpoints("node-b").map(\.mode) == wanted.map(\.mode))
    }

    @Test func nobodysAnnotationMakesHeadersVisible() throws {
        let manual = pod(
            "pay/m", ips: ["10.244.1.8"], annotations: ["ebpf.xdp/encrypt": "true", "ebpf.xdp/policy": "permissive"])
        let out = pod("pay/out", ips: ["10.244.1.9"], annotations: ["ebpf.xdp/encrypt": "false"])
        var spec = pay
        spec.headers = "hidden"
        var inventory = try inventory([policy("p", spec)], [manual, out])
        #expect(inventory.protected()["pay/m"] == .strict)
        #expect(inventory.decision("pay/m")?.headers == .hidden)
        // Who may opt out is not protected at all; who may not is hidden, too.
        #expect(inventory.protected()["pay/out"] == nil)
        #expect(inventory.decision("pay/out")?.headers == .visible)
        spec.enforced = true
        inventory.put(policy("p", spec))
        #expect(inventory.protected()["pay/out"] == .strict)
        #expect(inventory.decision("pay/out")?.headers == .hidden)
        // What is not enforced does not count for a pod that has opted out.
        spec.headers = "visible"
        inventory.put(policy("p", spec))
        inventory.put(policy("q", .init(namespaceSelector: pay.namespaceSelector, headers: "hidden")))
        #expect(inventory.protected()["pay/out"] == .strict)
        #expect(inventory.decision("pay/out")?.headers == .visible)
        #expect(inventory.decision("pay/m")?.headers == .hidden)
    }

    @Test func headersThatAreNotKnown() throws {
        // With a good spec before, that stays in force.
        var inventory = try inventory([policy("p", .init(headers: "visible"))])
        inventory.put(policy("p", .init(headers: "odd"), generation: 2))
        #expect(inventory.protected()["shop/cart-v1"] == .strict)
        #expect(inventory.decision("shop/cart-v1")?.headers == .visible)
        let accepted = statuses(inventory)["p"]?["Accepted"]
        #expect(accepted?.reason == "Invalid")
        #expect(accepted?.message.contains("spec.headers is \"odd\"; expected visible or hidden") == true)
        // Without, the stricter meaning.
        var fresh = try self.inventory([policy("p", .init(headers: "odd"))])
        #expect(fresh.protected()["shop/cart-v1"] == .strict)
        #expect(fresh.decision("shop/cart-v1")?.headers == .hidden)
        #expect(statuses(fresh)["p"]?["Accepted"]?.status == .isFalse)
    }

    @Test func headersAreHiddenWhenTheirNodeSaysSo() throws {
        var inventory = try inventory([
            policy("p", .init(headers: "hidden")), policy("q", .init(namespaceSelector: pay.namespaceSelector)),
        ])
        var proxies = ServiceProxies()
        proxies.isCiliumKnown = true
        proxies.kubeProxy = .absent
        proxies.cilium = ["kube-proxy-replacement": "true"]
        func enforcing(_ policy: String) -> Condition? { statuses(inventory, proxies)[policy]?["Enforcing"] }
        // A keymgr of before there were other headers than visible ones.
        for name in ["node-a", "node-b"] {
            inventory.put(reporting(name, inventory.wantedEndpoints(name).map(\.name)))
        }
        #expect(statuses(inventory, proxies)["p"]?["Accepted"]?.status == .isTrue)
        #expect(enforcing("p")?.status == .isFalse && enforcing("p")?.reason == "Pending")
        #expect(enforcing("p")?.message.contains("the headers of 7 are still visible") == true)
        for name in ["node-a", "node-b"] {
            inventory.put(reporting(name, inventory.wantedEndpoints(name).map(\.name), headers: .hidden))
        }
        #expect(enforcing("p")?.reason == "AllProtected")
        #expect(enforcing("p")?.message.contains("headers are hidden") == true)
        // A policy that does not ask for it says what became of its pods.
        #expect(enforcing("q")?.reason == "AllProtected")
        #expect(
            enforcing("q")?.message.contains("headers of 2 are hidden, because that is asked for by EncryptionPolicy/p")
                == true)
        #expect(statuses(inventory, proxies)["q"]?["Conflict"]?.status == .isFalse)
    }

    @Test func statusCountsWhatNodesSay() throws {
        var inventory = try inventory([policy("p", .init())])
        func status(_ proxies: ServiceProxies) -> EncryptionPolicy.Status? {
            let translation = ServiceTranslation.judge(proxies, attachMode: .pod, socketLoadBalancing: false)
            return PolicyStatusPlan.plan(inventory, translation: translation, now: .now())["p"]
        }
        let before = status(ServiceProxies())
        #expect(before?.selectedPods == 8)
        #expect(before?.protectedPods == 0)
        #expect(statuses(inventory)["p"]?["Enforcing"]?.reason == "Pending")

        for name in ["node-a", "node-b"] {
            inventory.put(reporting(name, inventory.wantedEndpoints(name).map(\.name)))
        }
        var proxies = ServiceProxies()
        proxies.isCiliumKnown = true
        proxies.kubeProxy = .absent
        proxies.cilium = ["kube-proxy-replacement": "true"]
        #expect(status(proxies)?.protectedPods == 7)
        let conditions = statuses(inventory, proxies)["p"]
        #expect(conditions?["Enforcing"]?.status == .isTrue)
        #expect(conditions?["Enforcing"]?.message.contains("1 share their node's network") == true)

        // Behind kube-proxy it is not claimed.
        proxies.cilium = nil
        proxies.kubeProxy = .present(mode: "iptables")
        let behind = statuses(inventory, proxies)["p"]
        #expect(behind?["ServiceTranslation"]?.status == .isFalse)
        #expect(behind?["Enforcing"]?.status == .isFalse)
        #expect(behind?["Enforcing"]?.reason == "ServiceTranslation")
    }

    private func reporting(
        _ name: String, _ endpoints: [String], headers: Headers = .visible
    ) -> EncryptionNodeObject {
        var node = EncryptionNode(id: 1, incarnation: .random())
        node.revision = 1
        node.endpoints = endpoints.map {
            .init(name: $0, addresses: [], mode: .strict, headers: headers, state: .ready, since: 1)
        }
        var object = EncryptionNodeObject(name: name, spec: .init(nodeID: 1))
        object.status = .init(report: NodeReport(node))
        return object
    }
}
