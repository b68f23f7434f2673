import Glibc
import Secrets
import Testing

@testable import Kubernetes

/// A folder for the time of a test.
final class Folder {
    let path: String

    init() {
        var template = Array("/tmp/xdp-encryptor-kubernetes-XXXXXX".utf8CString)
        mkdtemp(&template)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        // Flat, with a link at most.
        if let folder = opendir(path) {
            while let entry = readdir(folder) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                unlink("\(path)/\(name)")
            }
            closedir(folder)
        }
        rmdir(path)
    }

    @discardableResult
    func write(_ name: String, _ text: String) -> String {
        guard let file = fopen("\(path)/\(name)", "w") else { fatalError("cannot write to \(path)") }
        fputs(text, file)
        fclose(file)
        return "\(path)/\(name)"
    }
}

@Suite struct ConfigurationTests {
    private let folder = Folder()

    private func kubeconfig(_ user: String, cluster: String = "server: https://api.example:6443", more: String = "")
        -> String
    {
        folder.write(
            "kubeconfig",
            """
            apiVersion: v1
            kind: Config
            current-context: main
            contexts:
            - {name: main, context: {cluster: c, user: u, namespace: team}}
            - name: other
              context:
                cluster: c
            clusters:
            - name: c
              cluster:
                \(cluster)
            users:
            - name: u
              user:
                \(user)
            \(more)
            """)
    }

    private func token(_ configuration: ClientConfiguration) -> String? {
        guard case .token(let secret) = configuration.credentials else { return nil }
        return secret.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
    }

    @Test func readsContextsClustersAndUsers() throws {
        let path = kubeconfig(
            "token: abc",
            cluster:
                "server: https://api.example:6443/prefix/\n    certificate-authority-data: SGVsbG8=\n    tls-server-name: kubernetes"
        )
        let configuration = try ClientConfiguration.kubeconfig(path)
        #expect(configuration.server == "https://api.example:6443/prefix/")
        #expect(configuration.certificateAuthority == Array("Hello".utf8))
        #expect(configuration.tlsServerName == "kubernetes")
        #expect(configuration.namespace == "team")
        #expect(token(configuration) == "abc")
        #expect(!configuration.insecureSkipTLSVerify)
        let other = try ClientConfiguration.kubeconfig(path, context: "other")
        #expect(other.namespace == "default")
        #expect(token(other) == nil)
    }

    @Test func filesAreRelativeToTheKubeconfig() throws {
        folder.write("ca.crt", "CA")
        folder.write("c.crt", "CERT")
        folder.write("c.key", "KEY")
        let path = kubeconfig(
            "client-certificate: c.crt\n    client-key: c.key\n    tokenFile: tok",
            cluster: "server: https://api.example\n    certificate-authority: ca.crt")
        let configuration = try ClientConfiguration.kubeconfig(path)
        #expect(configuration.certificateAuthority == Array("CA".utf8))
        #expect(configuration.clientCertificate?.chain == Array("CERT".utf8))
        guard case .tokenFile(let file) = configuration.credentials else { throw KubernetesError(.other, "no file") }
        #expect(file == folder.path + "/tok")
    }

    @Test func jsonIsYAML() throws {
        let path = folder.write(
            "config.json",
            """
            {"current-context": "m", "contexts": [{"name": "m", "context": {"cluster": "c"}}],
             "clusters": [{"name": "c", "cluster": {"server": "https://h", "insecure-skip-tls-verify": true}}]}
            """)
        let configuration = try ClientConfiguration.kubeconfig(path)
        #expect(configuration.server == "https://h")
        #expect(configuration.insecureSkipTLSVerify)
    }

    @Test(arguments: [
        ("exec: {command: aws, args: [eks]}", "programs are not run"),
        ("auth-provider: {name: gcp}", "auth-provider \"gcp\""),
        ("username: admin", "password"), ("as: root", "impersonates"),
        ("client-certificate-data: SGVsbG8=", "without its key"),
        ("token: \"a b\"", "something else"), ("client-certificate: nowhere.crt", "does not exist"),
        ("client-key-data: '*'", "not base64"),
    ])
    func refusesUsersItCannotBe(_ user: String, _ why: String) {
        let path = kubeconfig(user)
        let error = #expect(throws: KubernetesError.self) { try ClientConfiguration.kubeconfig(path) }
        #expect(error?.code == .configuration)
        #expect(error?.message.contains(why) == true, "\(error?.message ?? "")")
        #expect(error?.message.contains(path) == true)
    }

    @Test(arguments: [
        ("", "empty"), ("{", "line"), ("a: [1, 2", "line"), ("x: 1", "no current-context"),
        ("current-context: a\ncontexts: []", "no context \"a\""), ("a: &a [*a]", "refers to itself"),
        ("? [a, b]\n: c", "key is not text"),
    ])
    func explainsBadFiles(_ text: String, _ why: String) {
        let path = folder.write("bad", text)
        let error = #expect(throws: KubernetesError.self) { try ClientConfiguration.kubeconfig(path) }
        #expect(error?.message.contains(why) == true, "\(error?.message ?? "")")
    }

    @Test func refusesProxiesAndMissingFiles() {
        let path = kubeconfig("token: a", cluster: "server: https://h\n    proxy-url: socks5://p")
        #expect(throws: KubernetesError.self) { try ClientConfiguration.kubeconfig(path) }
        #expect(throws: KubernetesError.self) { try ClientConfiguration.kubeconfig(folder.path + "/none") }
        #expect(throws: KubernetesError.self) { try ClientConfiguration.kubeconfig(path, context: "none") }
    }

    @Test func readsTheServiceAccount() throws {
        folder.write("ca.crt", "CA")
        folder.write("token", "tok\n")
        folder.write("namespace", "kube-system\n")
        let variables = ["KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"]
        let configuration = try ClientConfiguration.inCluster(folder: folder.path, environment: variables)
        #expect(configuration.server == "https://[fd00::1]:443")
        #expect(configuration.namespace == "kube-system")
        #expect(throws: KubernetesError.self) {
            try ClientConfiguration.inCluster(folder: folder.path, environment: [:])
        }
        unlink(folder.path + "/token")
        let error = #expect(throws: KubernetesError.self) {
            try ClientConfiguration.inCluster(folder: folder.path, environment: variables)
        }
        #expect(error?.message.contains("token file") == true)
    }

    @Test func tokensAreReadAgainEveryMinuteAndSurviveAMissingFile() throws {
        let clock = ManualClock()
        let path = folder.write("token", "one")
        let source = TokenSource(path: path, clock: clock.clock())
        func current(fresh: Bool = false) throws -> String {
            try source.token(fresh: fresh).withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
        }
        #expect(try current() == "one")
        folder.write("token", "two")
        #expect(try current() == "one")
        clock.freeze(for: .seconds(61))
        #expect(try current() == "two")
        folder.write("token", "three")
        #expect(try current(fresh: true) == "three")
        unlink(path)
        clock.freeze(for: .seconds(61))
        #expect(try current() == "three")
    }

    @Test(arguments: [
        "http://10.0.0.1", "https://", "ftp://h", "h", "https://h:0", "https://h:x", "https://u@h", "https://h/a b",
        "https://h/../x",
        "https://[::1", "https://h?x=1", "http://127.0.0.256",
    ])
    func refusesServers(_ text: String) {
        #expect(throws: KubernetesError.self) { try ServerURL(text) }
    }

    @Test(arguments: [
        ("https://h", "https://h:443"), ("https://H:6443/", "https://h:6443"),
        ("http://127.0.0.1:80", "http://127.0.0.1:80"),
        ("https://[::1]:1/k8s/clusters/c-x:y", "https://[::1]:1/k8s/clusters/c-x:y"),
        ("http://localhost:8001", "http://localhost:8001"),
    ])
    func acceptsServers(_ text: String, _ base: String) throws {
        #expect(try ServerURL(text).base() == base)
    }

    @Test func pathsAreCheckedAndEncoded() throws {
        #expect(
            try Paths.path(Widget.resource, namespace: "n", name: "a", subresource: "status")
                == "/apis/tests.example/v1/namespaces/n/widgets/a/status")
        #expect(
            try Paths.path(Widget.resource, version: "v1beta1", namespace: nil) == "/apis/tests.example/v1beta1/widgets"
        )
        #expect(try Paths.path(Node.resource, namespace: nil, name: "a:b") == "/api/v1/nodes/a%3Ab")
        // Without its name, a deletion would be of everything.
        for name in ["", ".", "..", "a/b"] {
            #expect(throws: KubernetesError.self) { try Paths.path(Widget.resource, namespace: "n", name: name) }
        }
        #expect(throws: KubernetesError.self) { try Paths.path(Widget.resource, namespace: nil, name: "a") }
        #expect(throws: KubernetesError.self) { try Paths.path(Widget.resource, namespace: "", name: "a") }
        #expect(Paths.query([("a", "x=y,z"), ("b", nil), ("c", "1")]) == "?a=x%3Dy%2Cz&c=1")
    }
}
