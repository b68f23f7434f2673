internal import FoundationEssentials
internal import Secrets

/// A kubeconfig file (client.config.k8s.io/v1): servers, users, and contexts that combine them.
struct Kubeconfig {
    private let root: YAML
    private let path: String
    private let folder: String

    init(_ bytes: [UInt8], path: String) throws(KubernetesError) {
        self.path = path
        folder = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        do throws(YAML.Problem) {
            root = try YAML(bytes)
        } catch {
            throw KubernetesError(.configuration, "kubeconfig \(path) is not valid YAML: \(error.message)")
        }
    }

    /// What a context says; the current one when nil.
    func configuration(context: String?) throws(KubernetesError) -> ClientConfiguration {
        guard let contextName = context ?? root["current-context"]?.text else {
            throw problem("has no current-context; choose a context: \(names(of: "contexts"))")
        }
        let context = try entry("contexts", "context", contextName)
        guard let clusterName = context["cluster"]?.text else {
            throw problem("context \(contextName) names no cluster")
        }
        let cluster = try entry("clusters", "cluster", clusterName)
        guard let server = cluster["server"]?.text else { throw problem("cluster \(clusterName) names no server") }
        if cluster["proxy-url"] != nil {
            throw problem("cluster \(clusterName) has a proxy-url; proxies are not supported: connect directly")
        }
        var configuration = ClientConfiguration(server: server)
        configuration.certificateAuthority = try content("certificate-authority", in: cluster)
        configuration.tlsServerName = cluster["tls-server-name"]?.text
        configuration.insecureSkipTLSVerify = cluster["insecure-skip-tls-verify"]?.text == "true"
        if let namespace = context["namespace"]?.text { configuration.namespace = namespace }
        if let userName = context["user"]?.text {
            try addUser(try entry("users", "user", userName), userName, to: &configuration)
        }
        return configuration
    }

    private func addUser(
        _ user: YAML, _ name: String, to configuration: inout ClientConfiguration
    ) throws(KubernetesError) {
        let instead =
            "make a service account and use its token (kubectl create token), or a client certificate, in a kubeconfig of its own"
        if let plugin = user["exec"] {
            throw problem(
                "user \(name) gets credentials from the program \"\(plugin["command"]?.text ?? "?")\" (exec); programs are not run: \(instead)"
            )
        }
        if let plugin = user["auth-provider"] {
            throw problem(
                "user \(name) gets credentials from auth-provider \"\(plugin["name"]?.text ?? "?")\", which Kubernetes has removed: \(instead)"
            )
        }
        if user["username"] != nil || user["password"] != nil {
            throw problem("user \(name) has a password, which Kubernetes no longer accepts: \(instead)")
        }
        for key in ["as", "as-uid", "as-groups", "as-user-extra"] where user[key] != nil {
            throw problem("user \(name) impersonates another (\(key)), which is not supported: \(instead)")
        }
        if let file = user["tokenFile"]?.text {
            configuration.credentials = .tokenFile(path: absolute(file))
        } else if let token = user["token"]?.text {
            var bytes = Array(token.utf8)
            defer { wipe(&bytes) }
            configuration.credentials = .token(
                try TokenSource.check(&bytes, "kubeconfig \(path): the token of user \(name)"))
        }
        switch (try content("client-certificate", in: user), try content("client-key", in: user)) {
        case (let chain?, var key?):
            configuration.clientCertificate = .init(chain: chain, key: SecretBytes(zeroing: &key))
        case (nil, nil): break
        default: throw problem("user \(name) has a client certificate without its key, or a key without certificate")
        }
    }

    /// The bytes of `KEY-data` (base64), or of the file that `KEY` names.
    private func content(_ key: String, in map: YAML) throws(KubernetesError) -> [UInt8]? {
        if let text = map[key + "-data"]?.text {
            guard let data = Data(base64Encoded: text, options: .ignoreUnknownCharacters), !data.isEmpty else {
                throw problem("\(key)-data is not base64")
            }
            return Array(data)
        }
        guard let file = map[key]?.text else { return nil }
        return try FileReading.read(absolute(file), what: "kubeconfig \(path): \(key)")
    }

    private func entry(_ list: String, _ kind: String, _ name: String) throws(KubernetesError) -> YAML {
        guard let entry = root[list]?.items.first(where: { $0["name"]?.text == name }) else {
            throw problem("has no \(kind) \"\(name)\"; it has: \(names(of: list))")
        }
        return entry[kind] ?? .map([])
    }

    private func names(of list: String) -> String {
        let names = root[list]?.items.compactMap { $0["name"]?.text } ?? []
        return names.isEmpty ? "none" : names.joined(separator: ", ")
    }

    private func absolute(_ file: String) -> String { file.hasPrefix("/") ? file : "\(folder)/\(file)" }

    private func problem(_ text: String) -> KubernetesError {
        KubernetesError(.configuration, "kubeconfig \(path): \(text)")
    }
}
