import Cluster
import FoundationEssentials
import Testing

@testable import Agent

/// What a configuration may say.
@Suite struct ConfigurationTests {
    /// Wrong values are found before anything is done, and the message names the key and what was expected.
    @Test(arguments: [
        (#""listen": "9401""#, #"listen: "9401" is no address; expected one like 0.0.0.0:9402 or [::]:9402"#),
        (
            #""listen": "0.0.0.0:99999""#,
            #"listen: "0.0.0.0:99999" is no address; expected one like 0.0.0.0:9402 or [::]:9402"#
        ),
        (
            #""kms": {"provider": "Local"}"#,
            #"kms.provider: "Local" is not known; expected one of local, aws, gcp, azure, openbao"#
        ),
        (
            #""kms": {"provider": "aws", "aws": {"key": "k", "identity": {"source": "x"}}}"#,
            #"kms.aws.identity.source: "x" is not known; expected one of environment, web-identity, container, instance"#
        ),
    ])
    func wrongValues(member: String, message: String) {
        let kms = member.contains("kms") ? "" : #", "kms": {"provider": "local"}"#
        let text = #"{"node": "a", "nodeID": 1, "clusterDirectory": "/srv/cluster"\#(kms), \#(member)}"#
        let error = #expect(throws: ObjectCoding.Problem.self) {
            try ObjectCoding.decode(AgentConfiguration.self, from: Array(text.utf8))
        }
        #expect(error?.description == message)
    }

    /// In a cluster directory a node's name is a file's, in Kubernetes it is as long as Kubernetes allows.
    @Test(arguments: [(100, true, true), (101, false, true), (253, false, true), (254, false, false)])
    func namesOfNodes(length: Int, inDirectory: Bool, inKubernetes: Bool) throws {
        let name = String(repeating: "n", count: length)
        let kms = #""kms": {"provider": "local", "local": {"kekFile": "/etc/kek"}}"#
        for (cluster, isGood) in [
            (#""clusterDirectory": "/srv/cluster", "nodeID": 1"#, inDirectory),
            (#""cluster": {"source": "kubernetes"}"#, inKubernetes),
        ] {
            func read(_ node: String) throws -> AgentConfiguration {
                try ObjectCoding.decode(AgentConfiguration.self, from: Array("{\(node) \(cluster), \(kms)}".utf8))
                    .object
            }
            let written = Result { try read("\"node\": \"\(name)\",") }
            #expect(((try? written.get()) != nil) == isGood, "\(length) \(cluster): \(written)")
            let given = Result { try read("").nodeName(environment: ["NODE_NAME": name]) }
            #expect((try? given.get()) == (isGood ? name : nil), "\(length) \(cluster): \(given)")
        }
    }
}
