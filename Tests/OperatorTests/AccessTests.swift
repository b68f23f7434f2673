import Kubernetes
import Testing

@testable import Operator

/// What `ebpf-xdp-operator check` says of the API server.
@Suite struct AccessTests {
    @Test func whatCannotBeReadIsSaidWithWhatToDo() async {
        let api = FakeAPI()
        #expect(await Operator.problems(reading: api) == [])
        api.setAbsent(["encryptionpolicies"])
        api.setFault { request in
            switch request.plural {
            case "pods": KubernetesError(.forbidden, "no right", status: 403)
            case "nodes": KubernetesError(.timeout, "no answer")
            default: nil
            }
        }
        #expect(
            await Operator.problems(reading: api) == [
                "pods: no right (apply the ClusterRole of deploy/)", "nodes: no answer",
                "encryptionpolicies: the server has no encryptionpolicies (apply deploy/crds)",
            ])
    }
}
