import Lab
import Testing

@testable import Kubernetes

@Suite(.serialized) struct ClientTests {
    private let key = ObjectKey(namespace: "default", name: "a")

    @Test func createsReplacesPatchesAndDeletes() async throws {
        try await ServerFixture.run { fixture in
            let client = fixture.client
            #expect(
                await code { () throws(KubernetesError) in _ = try await client.get(Widget.self, key) } == .notFound)
            let created = try await client.create(Widget("a", color: "red"))
            #expect(created.spec?.size == 1, "the schema's default")
            #expect(created.metadata.generation == 1)
            #expect(
                await code { () throws(KubernetesError) in _ = try await client.create(Widget("a")) } == .alreadyExists)
            #expect(
                await code { () throws(KubernetesError) in _ = try await client.create(Widget("b", color: "pink")) }
                    == .invalid)
            #expect(
                await code { () throws(KubernetesError) in
                    _ = try await client.create(Widget("b", namespace: "nowhere"))
                } == .notFound)

            var changed = created
            changed.spec?.size = 2
            let replaced = try await client.replace(changed)
            #expect(replaced.metadata.generation == 2)
            #expect(replaced.metadata.resourceVersion != created.metadata.resourceVersion)
            // Somebody was faster.
            #expect(await code { () throws(KubernetesError) in _ = try await client.replace(changed) } == .conflict)
            // Nothing to change: no new version.
            #expect(try await client.replace(replaced).metadata.resourceVersion == replaced.metadata.resourceVersion)

            let patched = try await client.mergePatch(
                Widget.self, key, subresource: nil,
                body: Array(#"{"metadata":{"annotations":{"x":"y"}},"spec":{"color":null}}"#.utf8))
            #expect(patched.metadata.annotations == ["x": "y"] && patched.spec?.color == nil && patched.spec?.size == 2)

            #expect(
                await code { () throws(KubernetesError) in
                    try await client.delete(Widget.self, key, preconditionUID: "another")
                } == .conflict)
            try await client.delete(Widget.self, key, preconditionUID: created.metadata.uid)
            #expect(await code { () throws(KubernetesError) in try await client.delete(Widget.self, key) } == .notFound)
        }
    }

    @Test func statusAndSpecificationAreApart() async throws {
        try await ServerFixture.run { fixture in
            let client = fixture.client
            var widget = Widget("a", size: 1)
            widget.status = .init(ready: true)
            widget = try await client.create(widget)
            #expect(widget.status == nil)
            widget.status = .init(ready: true, observedGeneration: 1)
            widget.spec?.size = 99
            widget = try await client.replaceStatus(widget)
            #expect(widget.status?.ready == true && widget.spec?.size == 1 && widget.metadata.generation == 1)
            widget.status?.ready = false
            widget.spec?.size = 5
            widget = try await client.replace(widget)
            #expect(widget.status?.ready == true && widget.spec?.size == 5 && widget.metadata.generation == 2)
            widget = try await client.mergePatch(
                Widget.self, key, subresource: "status",
                body: Array(#"{"status":{"ready":false},"spec":{"size":7}}"#.utf8))
            #expect(widget.status?.ready == false && widget.spec?.size == 5 && widget.metadata.generation == 2)
        }
    }

    @Test func serverSideApplyKnowsWhoOwnsWhat() async throws {
        try await ServerFixture.run { fixture in
            let client = fixture.client
            let mine = try await client.apply(
                Widget("a", size: 1, color: "red"), subresource: nil, fieldManager: "one", force: false)
            #expect(mine.metadata.uid != nil)
            // The same value is shared; another is a conflict that names the manager.
            _ = try await client.apply(Widget("a", color: "red"), subresource: nil, fieldManager: "two", force: false)
            do throws(KubernetesError) {
                _ = try await client.apply(
                    Widget("a", color: "blue"), subresource: nil, fieldManager: "two", force: false)
                Issue.record("no conflict")
            } catch {
                #expect(error.code == .conflict)
                #expect(error.message.contains("\"one\"") && error.message.contains(".spec.color"))
            }
            let forced = try await client.apply(Widget("a", color: "blue"), fieldManager: "two")
            #expect(forced.spec?.color == "blue" && forced.spec?.size == 1)
            // What a manager no longer sets and nobody else owns, goes.
            var labelled = Widget("a", size: 1)
            labelled.metadata.labels = ["x": "1"]
            labelled = try await client.apply(labelled, fieldManager: "one")
            #expect(labelled.metadata.labels == ["x": "1"] && labelled.spec?.color == "blue")
            let without = try await client.apply(Widget("a", size: 1), fieldManager: "one")
            #expect(without.metadata.labels == nil)
            // Applying the same again changes nothing.
            let again = try await client.apply(Widget("a", size: 1), fieldManager: "one")
            #expect(again.metadata.resourceVersion == without.metadata.resourceVersion)
            // An ordinary write owns its fields, too.
            _ = try await client.mergePatch(
                Widget.self, key, subresource: nil, body: Array(#"{"spec":{"size":8}}"#.utf8))
            #expect(
                await code { () throws(KubernetesError) in
                    _ = try await client.apply(
                        Widget("a", size: 1), subresource: nil, fieldManager: "one", force: false)
                } == .conflict)
            var status = Widget("a")
            status.spec = nil
            status.status = .init(ready: true)
            let applied = try await client.apply(status, subresource: "status", fieldManager: "one", force: true)
            #expect(applied.status?.ready == true && applied.spec?.size == 8)
        }
    }

    @Test func finalizersHoldADeletionBack() async throws {
        try await ServerFixture.run { fixture in
            let client = fixture.client
            var widget = Widget("a")
            widget.metadata.finalizers = ["tests.example/hold"]
            _ = try await client.create(widget)
            try await client.delete(Widget.self, key)
            widget = try await client.get(Widget.self, key)
            #expect(widget.metadata.deletionTimestamp != nil)
            widget.metadata.finalizers = nil
            _ = try await client.replace(widget)
            #expect(
                await code { () throws(KubernetesError) in _ = try await client.get(Widget.self, key) } == .notFound)
        }
    }

    @Test func findsServedVersions() async throws {
        try await ServerFixture.run { fixture in
            let client = fixture.client
            #expect(try await client.servedVersions(group: "tests.example", plural: "widgets") == ["v1", "v1beta1"])
            #expect(try await client.servedVersions(group: "tests.example", plural: "gadgets") == [])
            #expect(try await client.servedVersions(group: "networking.istio.io", plural: "virtualservices") == [])
            #expect(try await client.servedVersions(group: "", plural: "pods") == ["v1"])
            _ = try await client.create(Widget("a"))
            let list = try await client.list(Widget.self, namespace: nil, options: ListOptions(version: "v1beta1"))
            #expect(list.items.count == 1)
            // "Cannot be asked" is not "is not there".
            try fixture.server.control(#"{"fail": {"status": 500, "path": "^/apis"}}"#)
            #expect(
                await code { () throws(KubernetesError) in
                    _ = try await client.servedVersions(group: "tests.example", plural: "widgets")
                } == .server)
        }
    }

    @Test func listsSelectAndPageConsistently() async throws {
        try await ServerFixture.run { fixture in
            let (client, server) = (fixture.client, fixture.server)
            try server.load(
                (0..<25).map { number in
                    #"{"apiVersion":"tests.example/v1","kind":"Widget","metadata":{"name":"w\#(number)","namespace":"\#(number % 2 == 0 ? "even" : "odd")","labels":{"n":"\#(number % 5)"}},"spec":{}}"#
                })
            #expect(try await client.listAll(Widget.self, options: ListOptions(limit: 7)).items.count == 25)
            #expect(try await client.listAll(Widget.self, namespace: "odd").items.count == 12)
            #expect(
                try await client.listAll(Widget.self, options: ListOptions(labelSelector: "n in (1,2),n!=2")).items
                    .count == 5)
            #expect(
                try await client.listAll(Widget.self, options: ListOptions(fieldSelector: "metadata.name=w3")).items
                    .count == 1)
            // Pages show the state of the first one.
            let first = try await client.list(Widget.self, namespace: nil, options: ListOptions(limit: 20))
            try await client.delete(Widget.self, ObjectKey(namespace: "odd", name: "w9"))
            let second = try await client.list(
                Widget.self, namespace: nil, options: ListOptions(limit: 20, continueToken: first.continueToken))
            #expect(first.items.count + second.items.count == 25)
            #expect(second.resourceVersion == first.resourceVersion && second.continueToken == nil)
            try server.control(#"{"compact": true}"#)
            #expect(
                await code { () throws(KubernetesError) in
                    _ = try await client.list(
                        Widget.self, namespace: nil, options: ListOptions(limit: 20, continueToken: first.continueToken)
                    )
                } == .expired)
        }
    }

    @Test func reportsWhatTheServerSays() async throws {
        try await ServerFixture.run(configure: { configuration, _ in
            configuration.timeouts.request = .milliseconds(700)
        }) { fixture in
            let (client, server, key) = (fixture.client, fixture.server, key)
            func get() async throws(KubernetesError) { _ = try await client.get(Widget.self, key) }
            for (fault, expected) in [
                (
                    #"{"kind": "status", "status": 429, "reason": "TooManyRequests", "retryAfter": 3}"#,
                    KubernetesError.Code.tooManyRequests
                ),
                (#"{"kind": "status", "status": 500}"#, .server), (#"{"kind": "status", "status": 503}"#, .unavailable),
                (#"{"kind": "garbage"}"#, .decoding), (#"{"kind": "close"}"#, .network),
                (#"{"kind": "stall"}"#, .timeout),
            ] as [(String, KubernetesError.Code)] {
                try server.control(#"{"fail": \#(fault.dropLast()), "times": 1}}"#)
                do throws(KubernetesError) {
                    try await get()
                    Issue.record("no error for \(fault)")
                } catch {
                    #expect(error.code == expected, "\(fault): \(error)")
                    #expect(error.isTransient)
                    if expected == .tooManyRequests { #expect(error.retryAfter == .seconds(3)) }
                }
            }
            try server.control(#"{"delay": 2}"#)
            #expect(await code(get) == .timeout)
            try server.control(#"{"clear": true, "down": true}"#)
            #expect(await code(get) == .network)
            try server.control(#"{"down": false}"#)
            #expect(await code(get) == .notFound)
        }
    }

    @Test func aServerThatVanishesIsNoticedByTheKernel() async throws {
        try await ServerFixture.run { fixture in
            try await fixture.following { store in
                try await eventually("the first list") { store.isSynced }
                // Keep-alive on the connection of the watch: without it, a machine that died would look like a quiet server.
                let port = fixture.server.port
                let table = try command(["ss", "-tnoH", "dport", "=", ":\(port)"])
                #expect(table.contains("keepalive"), "\(table)")
            }
        }
    }

    @Test func aClientMayBeForgotten() async throws {
        let server = try KubernetesServer()
        try server.load([Widget.definition])
        do {
            let client = try KubernetesClient(ClientConfiguration(server: server.url), logger: quietLogger)
            _ = try await client.create(Widget("a"))
        }
        try await Task.sleep(for: .milliseconds(100))
    }

    @Test func cancellationEndsAWatchAtOnce() async throws {
        try await ServerFixture.run { fixture in
            let client = fixture.client
            let task = Task { () -> KubernetesError.Code? in
                await code { () throws(KubernetesError) in
                    try await client.watch(Widget.self, namespace: nil, options: WatchOptions(resourceVersion: "0")) {
                        (_: WatchEvent<Widget>) in
                    }
                }
            }
            try await eventually("a watch") { try fixture.server.control("{}").contains(#""watches":1"#) }
            task.cancel()
            #expect(await task.value == .cancelled)
            try await eventually("the watch's end") { try fixture.server.control("{}").contains(#""watches":0"#) }
        }
    }

    @Test func aHandlerThatThrowsEndsTheWatch() async throws {
        struct Enough: Error {}
        try await ServerFixture.run { fixture in
            _ = try await fixture.client.create(Widget("a"))
            let result = await code { () throws(KubernetesError) in
                try await fixture.client.watch(Widget.self, namespace: nil, options: WatchOptions(resourceVersion: "0"))
                { (event: WatchEvent<Widget>) in
                    if case .added = event { throw Enough() }
                }
            }
            #expect(result == .handler)
        }
    }
}

@Suite(.serialized) struct IdentityTests {
    private let key = ObjectKey(namespace: "default", name: "a")

    @Test func tokensAreReadAgainWhenTheyAreRefused() async throws {
        let folder = Folder()
        let path = folder.write("token", "old\n")
        try await ServerFixture.run(
            ["--token", "old=admin,system:masters"],
            configure: { configuration, _ in
                configuration.credentials = .tokenFile(path: path)
            }
        ) { fixture in
            _ = try await fixture.client.create(Widget("a"))
            // Rotated: the old one is void at once.
            try fixture.server.control(
                #"{"tokens": {"old": null, "new": {"user": "admin", "groups": ["system:masters"]}}}"#)
            folder.write("token", "new")
            _ = try await fixture.client.get(Widget.self, key)
            try fixture.server.control(#"{"tokens": {"new": null, "other": {"user": "x"}}}"#)
            let result = await code { () throws(KubernetesError) in _ = try await fixture.client.get(Widget.self, key) }
            #expect(result == .unauthorized)
        }
    }

    @Test func rolesGiveWhatTheySayAndNoMore() async throws {
        try await ServerFixture.run(
            ["--token", "t=system:serviceaccount:default:agent"],
            configure: { configuration, server in
                configuration = try ClientConfiguration.kubeconfig(try server.kubeconfig(token: "t"))
            }
        ) { fixture in
            let (client, server, key) = (fixture.client, fixture.server, key)
            func denied(_ body: () async throws(KubernetesError) -> Void) async -> Bool {
                await code(body) == .forbidden
            }
            #expect(
                await denied { () throws(KubernetesError) in
                    _ = try await client.list(Widget.self, namespace: nil, options: ListOptions())
                })
            try server.load([
                #"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"reader"},"rules":[{"apiGroups":["tests.example"],"resources":["widgets"],"verbs":["get","list","watch"]}]}"#,
                #"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"reader"},"roleRef":{"kind":"ClusterRole","name":"reader"},"subjects":[{"kind":"ServiceAccount","namespace":"default","name":"agent"}]}"#,
                #"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"writer","namespace":"default"},"rules":[{"apiGroups":["tests.example"],"resources":["widgets/status"],"resourceNames":["a"],"verbs":["patch"]}]}"#,
                #"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":"writer","namespace":"default"},"roleRef":{"kind":"Role","name":"writer"},"subjects":[{"kind":"ServiceAccount","name":"agent"}]}"#,
                Widget.json("a", version: 1), Widget.json("b", version: 1),
                Widget.json("a", version: 1, namespace: "other"),
            ])
            #expect(try await client.listAll(Widget.self).items.count == 3)
            let body = Array(#"{"status":{"ready":true}}"#.utf8)
            _ = try await client.mergePatch(Widget.self, key, subresource: "status", body: body)
            #expect(
                await denied { () throws(KubernetesError) in
                    _ = try await client.mergePatch(Widget.self, key, subresource: nil, body: body)
                })
            #expect(
                await denied { () throws(KubernetesError) in
                    _ = try await client.mergePatch(
                        Widget.self, ObjectKey(namespace: "default", name: "b"), subresource: "status", body: body)
                })
            #expect(
                await denied { () throws(KubernetesError) in
                    _ = try await client.mergePatch(
                        Widget.self, ObjectKey(namespace: "other", name: "a"), subresource: "status", body: body)
                })
            #expect(await denied { () throws(KubernetesError) in try await client.delete(Widget.self, key) })
            #expect(await denied { () throws(KubernetesError) in _ = try await client.create(Widget("c")) })
        }
    }

    @Test func tlsIsVerifiedAndClientCertificatesCount() async throws {
        try await ServerFixture.run(
            ["--token", "t=nobody"], tls: true,
            configure: { configuration, server in
                configuration = try ClientConfiguration.kubeconfig(try server.kubeconfig())
            }
        ) { fixture in
            let url = fixture.server.url
            _ = try await fixture.client.create(Widget("a"))
            func attempt(_ change: (inout ClientConfiguration) -> Void) async throws -> KubernetesError.Code? {
                var configuration = ClientConfiguration(server: url)
                change(&configuration)
                let client = try KubernetesClient(configuration, logger: quietLogger)
                let result = await code { () throws(KubernetesError) in _ = try await client.get(Widget.self, key) }
                await client.shutdown()
                return result
            }
            let ca = try FileReading.read(fixture.server.certificates!.ca, what: "CA")
            #expect(try await attempt { _ in } == .untrusted, "the system does not know this CA")
            #expect(try await attempt { $0.certificateAuthority = ca } == .unauthorized)
            #expect(try await attempt { $0.insecureSkipTLSVerify = true } == .unauthorized)
            // At an address that is not in the certificate, only a name that is there helps.
            try fixture.server.control(#"{"listen": {"addresses": ["127.0.0.2"]}}"#)
            let elsewhere = "https://127.0.0.2:\(fixture.server.port)"
            for (name, expected) in [
                (nil, .untrusted), ("kubernetes.example", .untrusted), ("kubernetes.default.svc", .unauthorized),
            ] as [(String?, KubernetesError.Code)] {
                let result = try await attempt {
                    $0.server = elsewhere
                    $0.certificateAuthority = ca
                    $0.tlsServerName = name
                }
                #expect(result == expected, "\(name ?? "no name")")
            }
            #expect(throws: KubernetesError.self) {
                var configuration = ClientConfiguration(server: url)
                configuration.certificateAuthority = Array("nonsense".utf8)
                _ = try KubernetesClient(configuration, logger: quietLogger)
            }
        }
    }
}
