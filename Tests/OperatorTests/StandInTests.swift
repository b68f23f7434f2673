import Cluster
import Foundation
import Glibc
import Lab
import Testing

@testable import Kubernetes
@testable import Operator

/// The program itself against the stand-in for the API server: over HTTP, with the CRDs and, as far as the stand-in knows them, the rights
/// of deploy/.
@Suite(.timeLimit(.minutes(3)), .serialized) struct StandInTests {
    /// A stand-in with the CRDs, two nodes and the fixture's pods; and programs beside it.
    final class World {
        let server: KubernetesServer
        let client: KubernetesClient
        private(set) var programs: [ChildProcess] = []
        let root: String

        init() throws {
            server = try KubernetesServer()
            client = try KubernetesClient(ClientConfiguration(server: server.url), logger: quiet)
            root = try #require(Python.repository)
            var objects = try ["encryptionpolicies", "encryptionnodes", "encryptionepochs", "encryptedendpointslices"]
                .map { try Fixture.json(ofYAML: "\(root)/deploy/crds/\($0).yaml") }
            for (group, plural, kind) in [
                ("networking.istio.io", "virtualservices", "VirtualService"),
                ("networking.istio.io", "serviceentries", "ServiceEntry"),
                ("networking.istio.io", "destinationrules", "DestinationRule"),
            ] {
                objects.append(Self.definition(group, plural, kind))
            }
            objects.append(#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "xdp-encryptor"}}"#)
            objects += try Fixture("mesh").json()
            try server.load(objects)
            try Data("\(String(repeating: "ab", count: 32))\n".utf8).write(
                to: URL(fileURLWithPath: server.folder + "/kek"))
            chmod(server.folder + "/kek", 0o600)
            let configuration = """
                {"namespace": "xdp-encryptor", "strictCIDRs": ["10.244.0.0/16"], "listen": "127.0.0.1:0",
                 "kms": {"provider": "local", "local": {"kekFile": "\(server.folder)/kek"}},
                 "leaderElection": {"leaseDurationSeconds": 4, "renewDeadlineSeconds": 3, "retryPeriodSeconds": 1}}
                """
            try Data(configuration.utf8).write(to: URL(fileURLWithPath: server.folder + "/operator.json"))
        }

        deinit {
            for program in programs { program.stop() }
        }

        private static func definition(_ group: String, _ plural: String, _ kind: String) -> String {
            // An older Istio: v1 is not served.
            """
            {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
             "metadata": {"name": "\(plural).\(group)"},
             "spec": {"group": "\(group)", "scope": "Namespaced",
              "names": {"kind": "\(kind)", "plural": "\(plural)", "singular": "\(kind.lowercased())"},
              "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}
            """
        }

        /// Starts the operator.
        func start(_ name: String = "operator") throws -> ChildProcess {
            let program = try ChildProcess(
                [
                    root + "/.build/debug/ebpf-xdp-operator", "run", "--config", server.folder + "/operator.json",
                    "--kubeconfig", try server.kubeconfig(),
                ],
                environment: ["POD_NAME": name, "PATH": "/usr/bin:/bin"], log: server.folder + "/" + name)
            programs.append(program)
            return program
        }

        func all<O: KubernetesObject>(_ type: O.Type) async throws -> [O] { try await client.listAll(type).items }
        func wanted() async throws -> [String] {
            try await all(EncryptionNodeObject.self).flatMap { $0.spec?.endpoints ?? [] }
                .map { "\($0.pod.namespace)/\($0.pod.name)" }.sorted()
        }
        func annotated() async throws -> [String] {
            try await all(Pod.self).filter { $0.metadata.annotations?["ebpf.xdp/encrypt"] == "true" }.map {
                "\($0.key)"
            }
            .sorted()
        }

        func eventually(
            _ what: String, within: Duration = .seconds(30), _ condition: () async throws -> Bool,
            sourceLocation: SourceLocation = #_sourceLocation
        ) async throws {
            let end = ContinuousClock.now + within
            while ContinuousClock.now < end {
                if (try? await condition()) == true { return }
                try await Task.sleep(for: .milliseconds(30))
            }
            let logs = programs.map(\.errors).joined(separator: "\n---\n").suffix(6000)
            Issue.record("not within \(within): \(what)\n\(logs)", sourceLocation: sourceLocation)
            throw CancellationError()
        }
    }

    @Test func fromAVirtualServiceToEndpointsAndBack() async throws {
        let world = try World()
        let program = try world.start()
        try await world.eventually("nodes have numbers") { try await world.all(EncryptionNodeObject.self).count == 2 }
        try await world.eventually("an epoch") { try await world.all(EncryptionEpochObject.self).count == 1 }
        #expect(try await world.annotated() == [])

        let routes = """
            {"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
             "metadata": {"name": "cart", "namespace": "shop"},
             "spec": {"hosts": ["cart"], "http": [{"route": [
               {"destination": {"host": "cart", "subset": "v2"}, "weight": 10},
               {"destination": {"host": "cart", "subset": "v1"}, "weight": 90}], "timeout": "5s"}]}}
            """
        let path = "/apis/networking.istio.io/v1beta1/namespaces/shop/virtualservices"
        #expect(try world.server.request("POST", path, body: routes).status == 201)
        try await world.eventually("annotations") { try await world.annotated() == ["shop/cart-v1", "shop/cart-v2"] }
        try await world.eventually("endpoints") { try await world.wanted() == ["shop/cart-v1", "shop/cart-v2"] }
        try await world.eventually("events") {
            try await world.all(Event.self).contains {
                $0.regarding?.name == "cart-v1" && $0.reason == "EncryptionRequested"
            }
        }
        #expect(try await world.all(Event.self).contains { $0.reason == "SubsetNotFound" && $0.type == "Warning" })

        // The API server is gone for a while, then it is throttling and forgets its history: nothing changes.
        try world.server.control(#"{"down": true}"#)
        try await Task.sleep(for: .seconds(2))
        try world.server.control(
            #"{"down": false, "compact": true, "fail": {"kind": "status", "status": 429, "retryAfter": 1, "times": 20}}"#
        )
        #expect(try await world.eventuallyWanted() == ["shop/cart-v1", "shop/cart-v2"])
        try world.server.control(#"{"clear": true}"#)

        // A policy that asks for one of them too; the mesh resource goes.
        let ask =
            #"{"apiVersion": "encryption.ebpf.xdp/v1alpha1", "kind": "EncryptionPolicy", "metadata": {"name": "v1"}, "spec": {"podSelector": {"matchLabels": {"version": "v1"}}}}"#
        #expect(
            try world.server.request("POST", "/apis/encryption.ebpf.xdp/v1alpha1/encryptionpolicies", body: ask).status
                == 201)
        try await world.eventually("both ask") {
            try await world.client.get(Pod.self, key("shop/cart-v1")).metadata.annotations?["ebpf.xdp/policy"]
                == "strict;EncryptionPolicy/v1,VirtualService/shop/cart"
        }
        #expect(try world.server.request("DELETE", path + "/cart").status == 200)
        try await world.eventually("the rest") { try await world.wanted() == ["shop/cart-v1"] }
        try await world.eventually("the rest of annotations") { try await world.annotated() == ["shop/cart-v1"] }
        try await world.eventually("status") {
            let status = try await world.client.get(EncryptionPolicy.self, key("v1")).status
            return status?.selectedPods == 1 && status?.conditions?.count == 4
        }

        // Stopped by a signal, it gives its lease back.
        program.signal(SIGTERM)
        let outcome = try program.wait(until: .seconds(15))
        #expect(outcome.status == 0, "\(outcome.errors.suffix(2000))")
        let lease = try await world.client.get(Lease.self, key("xdp-encryptor/ebpf-xdp-operator"))
        #expect(lease.spec?.holderIdentity ?? "" == "")
        #expect(try await world.wanted() == ["shop/cart-v1"])
        #expect(world.server.complaints == "")
        await world.client.shutdown()
    }

    @Test func aReplicaTakesOverFromOneThatWasKilled() async throws {
        let world = try World()
        let first = try world.start("one")
        try await world.eventually("nodes have numbers") { try await world.all(EncryptionNodeObject.self).count == 2 }
        let second = try world.start("two")
        try await world.eventually("the second waits") { second.errors.contains("another replica leads") }
        first.stop(SIGKILL)
        let ask =
            #"{"apiVersion": "encryption.ebpf.xdp/v1alpha1", "kind": "EncryptionPolicy", "metadata": {"name": "all"}, "spec": {}}"#
        #expect(
            try world.server.request("POST", "/apis/encryption.ebpf.xdp/v1alpha1/encryptionpolicies", body: ask).status
                == 201)
        try await world.eventually("the second works") { try await world.wanted().count == 7 }
        #expect(try await world.all(EncryptionEpochObject.self).count == 1)
        second.stop()
        #expect(world.server.complaints == "")
        await world.client.shutdown()
    }

    @Test func configurationsThatCannotWork() throws {
        let root = try #require(Python.repository)
        let folder = FileManager.default.temporaryDirectory.path + "/xdp-encryptor-operator-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        func run(_ text: String, _ arguments: [String] = []) throws -> Outcome {
            try Data(text.utf8).write(to: URL(fileURLWithPath: folder + "/c.json"))
            return try ChildProcess(
                [root + "/.build/debug/ebpf-xdp-operator", "run", "--config", folder + "/c.json"] + arguments,
                environment: ["PATH": "/usr/bin"], log: folder + "/log"
            ).wait(until: .seconds(30))
        }
        let kms = #""kms": {"provider": "local", "local": {"kekFile": "/nowhere"}}"#
        var outcome = try run("{")
        #expect(outcome.status == 78)
        #expect(outcome.errors.contains("c.json"))
        outcome = try run(#"{"kms": {}}"#)
        #expect(outcome.status == 78)
        #expect(outcome.errors.contains("kms.provider"))
        // No pod, and no kubeconfig.
        outcome = try run("{\(kms)}")
        #expect(outcome.status == 78)
        #expect(outcome.errors.contains("KUBERNETES_SERVICE_HOST"))
        outcome = try run("{\(kms)}", ["--kubeconfig", folder + "/nothing"])
        #expect(outcome.status == 78)
    }

    /// Ours that are missing are named, with what to do.
    @Test func missingCRDsAreSaid() async throws {
        let world = try World()
        _ = try world.server.request(
            "DELETE",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/encryptionpolicies.encryption.ebpf.xdp")
        let program = try world.start()
        try await world.eventually("it is said") { program.errors.contains("apply deploy/crds") }
        #expect(try await world.all(EncryptionNodeObject.self).isEmpty)
        try world.server.load([
            try Fixture.json(ofYAML: world.root + "/deploy/crds/encryptionpolicies.yaml")
        ])
        try await world.eventually("goes on", within: .seconds(60)) {
            try await world.all(EncryptionNodeObject.self).count == 2
        }
        program.stop()
        await world.client.shutdown()
    }
}

extension StandInTests.World {
    /// What is wanted, as soon as the server answers.
    func eventuallyWanted() async throws -> [String] {
        var result: [String] = []
        try await eventually("the server answers") {
            result = try await wanted()
            return true
        }
        return result
    }
}
