import FoundationEssentials
import Lab
import Testing

/// The stand-in itself: what tests rely on, and what cannot be seen through the client.
@Suite(.serialized) struct StandInTests {
    private struct Reply: Decodable {
        struct Metadata: Decodable {
            var resourceVersion: String?
            var generation: Int?
            var managedFields: [Manager]?
        }
        struct Manager: Decodable {
            var manager: String
            var operation: String
            var subresource: String?
        }
        struct Status: Decodable {
            struct Condition: Decodable {
                var type: String
                var status: String?
            }
            var conditions: [Condition]?
        }
        struct Spec: Decodable {
            var tags: [String]?
            var size: Int?
        }
        var metadata: Metadata
        var spec: Spec?
    }
    private struct WithStatus: Decodable { var status: Reply.Status? }

    private let path = "/apis/tests.example/v1/namespaces/default/widgets"

    private func reply(_ answer: KubernetesServer.Answer) throws -> Reply {
        try JSONDecoder().decode(Reply.self, from: Data(answer.body.utf8))
    }

    private func apply(
        _ server: KubernetesServer, _ body: String, manager: String, status: Bool = false, force: Bool = false
    ) throws -> KubernetesServer.Answer {
        try server.request(
            "PATCH", "\(path)/a\(status ? "/status" : "")?fieldManager=\(manager)&force=\(force)",
            body: #"{"apiVersion":"tests.example/v1","kind":"Widget","metadata":{"name":"a"},\#(body)}"#,
            contentType: "application/apply-patch+yaml")
    }

    @Test func conditionsAndSetsMergeByTheirKeys() throws {
        let server = try KubernetesServer()
        try server.load([Widget.definition])
        #expect(try apply(server, #""spec":{"tags":["x","y"]}"#, manager: "one").status == 201)
        #expect(try apply(server, #""spec":{"tags":["z"]}"#, manager: "two").status == 200)
        #expect(try reply(server.request("GET", path + "/a")).spec?.tags == ["x", "y", "z"])
        #expect(try reply(apply(server, #""spec":{"tags":["y"]}"#, manager: "one")).spec?.tags == ["y", "z"])

        _ = try apply(server, #""status":{"conditions":[{"type":"A","status":"True"}]}"#, manager: "one", status: true)
        _ = try apply(server, #""status":{"conditions":[{"type":"B","status":"False"}]}"#, manager: "two", status: true)
        func conditions() throws -> [String] {
            let answer = try server.request("GET", path + "/a")
            return try JSONDecoder().decode(WithStatus.self, from: Data(answer.body.utf8)).status?.conditions?.map {
                "\($0.type)=\($0.status ?? "")"
            } ?? []
        }
        #expect(try conditions() == ["A=True", "B=False"])
        let clash = try apply(
            server, #""status":{"conditions":[{"type":"A","status":"False"}]}"#, manager: "two", status: true)
        #expect(clash.status == 409 && clash.body.contains(#".status.conditions[type=\"A\"].status"#), "\(clash.body)")
        _ = try apply(
            server, #""status":{"conditions":[{"type":"A","status":"False"}]}"#, manager: "two", status: true,
            force: true)
        #expect(try conditions() == ["A=False"])
        // A status does not count as a change of the specification.
        let last = try reply(server.request("GET", path + "/a"))
        #expect(last.metadata.generation == 3)
        #expect(
            last.metadata.managedFields?.contains {
                $0.manager == "two" && $0.operation == "Apply" && $0.subresource == "status"
            } == true)
        #expect(server.complaints == "")
    }

    @Test func schemasPruneDefaultAndRefuse() throws {
        let server = try KubernetesServer()
        try server.load([Widget.definition])
        let made = try server.request("POST", path, body: #"{"metadata":{"name":"a"},"spec":{"novelty":1},"extra":{}}"#)
        #expect(made.status == 201 && !made.body.contains("novelty") && !made.body.contains("extra"))
        #expect(try reply(made).spec?.size == 1)
        for (body, why) in [
            (#"{"metadata":{"name":"b"}}"#, "spec: Required value"),
            (#"{"metadata":{"name":"b"},"spec":{"size":-1}}"#, "greater than or equal to 0"),
            (#"{"metadata":{"name":"b"},"spec":{"size":"x"}}"#, "must be of type integer"),
            (#"{"metadata":{"name":"b"},"spec":{"tags":["t","t"]}}"#, "Duplicate value"),
            (#"{"metadata":{"name":"B"},"spec":{}}"#, "RFC 1123"),
        ] {
            let answer = try server.request("POST", path, body: body)
            #expect(answer.status == 422 && answer.body.contains(why), "\(answer.body)")
        }
        // Without a version, a replacement of a custom object might undo what it has not seen.
        #expect(try server.request("PUT", path + "/a", body: #"{"metadata":{"name":"a"},"spec":{}}"#).status == 422)
        #expect(
            try server.request("POST", path, body: #"{"kind":"Gadget","metadata":{"name":"b"},"spec":{}}"#).status
                == 400)
        #expect(
            try server.request(
                "DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.tests.example"
            ).status == 200)
        #expect(try server.request("GET", path).status == 404)
        #expect(server.complaints == "")
    }

    @Test func rulesOfImmutability() throws {
        let server = try KubernetesServer()
        try server.load([
            #"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.tests.example"},"spec":{"group":"tests.example","scope":"Cluster","names":{"kind":"Thing","plural":"things"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"n":{"type":"integer"}},"x-kubernetes-validations":[{"rule":"self == oldSelf","message":"things never change"}]}}}}}]}}"#
        ])
        let things = "/apis/tests.example/v1/things"
        #expect(try server.request("POST", things, body: #"{"metadata":{"name":"t"},"spec":{"n":1}}"#).status == 201)
        func patch(_ body: String) throws -> KubernetesServer.Answer {
            try server.request("PATCH", things + "/t", body: body, contentType: "application/merge-patch+json")
        }
        let refused = try patch(#"{"spec":{"n":2}}"#)
        #expect(refused.status == 422 && refused.body.contains("things never change"))
        #expect(try patch(#"{"metadata":{"labels":{"a":"b"}}}"#).status == 200)
        #expect(server.complaints == "")
    }
}
