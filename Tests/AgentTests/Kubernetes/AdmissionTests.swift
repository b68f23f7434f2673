import Cluster
import Kubernetes
import Testing

@testable import Agent

/// Whether a pod that is about to start shall be protected.
@Suite struct AdmissionTests {
    private let marked = ["ebpf.xdp/encrypt": "true", "ebpf.xdp/policy": "permissive;EncryptionPolicy/x"]

    private func pod(_ annotations: [String: String]) -> PodRecord {
        var metadata = ObjectMeta(name: "web", namespace: "shop")
        metadata.annotations = annotations
        return PodRecord(metadata: metadata)
    }
    private func facts() -> Admission.Facts { Admission.Facts(decision: .seconds(2)) }

    @Test func annotations() {
        #expect(PodRequest(marked) == .protect(.permissive))
        #expect(PodRequest(["ebpf.xdp/encrypt": "true"]) == .protect(.strict))
        #expect(PodRequest(["ebpf.xdp/encrypt": "true", "ebpf.xdp/policy": "odd"]) == .protect(.strict))
        #expect(PodRequest(["ebpf.xdp/encrypt": "True"]) == .none)
        #expect(PodRequest(["ebpf.xdp/encrypt": "false"]) == .none)
        var overruled = [
            "ebpf.xdp/encrypt": "false", "ebpf.xdp/policy": "permissive;EncryptionPolicy/all",
            "ebpf.xdp/managed-by": "ebpf-xdp-operator",
        ]
        #expect(PodRequest(overruled) == .protect(.permissive))
        overruled["ebpf.xdp/managed-by"] = nil
        #expect(PodRequest(overruled) == .none)
    }

    @Test("Anybody's yes counts, the strictest mode too")
    func yes() {
        var facts = facts()
        facts.annotations = marked
        #expect(Admission.decide(facts) == .protect(.permissive))
        facts.wanted = .strict
        #expect(Admission.decide(facts) == .protect(.strict))
        facts = self.facts()
        facts.annotations = [:]
        facts.pod = pod(marked)
        facts.age = .seconds(60)
        #expect(Admission.decide(facts) == .protect(.permissive))
        facts = self.facts()
        facts.wanted = .permissive
        facts.failure = KubernetesError(.network, "gone")
        #expect(Admission.decide(facts) == .protect(.permissive))
    }

    @Test("A young pod waits for the operator, an old one does not")
    func age() {
        var facts = facts()
        facts.pod = pod([:])
        facts.age = .milliseconds(500)
        #expect(Admission.decide(facts) == .ask(after: .milliseconds(1500)))
        // A clock that is behind makes it wait no longer than the time itself.
        facts.age = .seconds(-100)
        #expect(Admission.decide(facts) == .ask(after: .seconds(2)))
        facts.age = .seconds(3)
        #expect(Admission.decide(facts) == .leave)
        facts.pod = pod(["ebpf.xdp/encrypt": "false"])
        facts.age = .zero
        #expect(Admission.decide(facts) == .ask(after: .seconds(2)))
    }

    @Test("Without an answer of the API server nobody can tell, unless the runtime's copy says yes")
    func unknown() {
        var facts = facts()
        facts.annotations = [:]
        facts.failure = KubernetesError(.unavailable, "down")
        guard case .unknown = Admission.decide(facts) else {
            Issue.record("decided without knowing")
            return
        }
        facts.failure = KubernetesError(.notFound, "gone")
        #expect(Admission.decide(facts) == .leave)
    }
}
