import Cluster
import FoundationEssentials
import Testing

@testable import Agent

/// What a configuration may say.
@Suite struct ConfigurationTests {
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
