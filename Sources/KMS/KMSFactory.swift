public import CloudIdentity
internal import Secrets

extension KMSConfiguration {
    /// Makes the service that this configuration describes. Nothing is connected to yet.
    ///
    /// - Parameters:
    ///   - environment: The process's; `KMS_PROVIDER` and the platforms' own variables for identities are looked up in it.
    ///   - http: For tests; nil for AsyncHTTPClient.
    /// - Throws: `misconfigured`, with the key of the configuration and what was expected.
    public func makeService(
        environment: [String: String], http: (any HTTPService)? = nil, time: TimeSource = .system
    ) throws(KMSError) -> any KeyManagementService {
        let provider = try chosenProvider(environment)
        let timeout = try checkedTimeout(provider)
        if let leaseSeconds, !(10...2_592_000).contains(leaseSeconds) {
            throw KMSError(.misconfigured, provider, "kms.leaseSeconds is \(leaseSeconds); expected 10 to 2592000")
        }
        switch provider {
        case .local:
            return LocalKMS(kekFile: try section(local, provider).kekFile)
        case .aws:
            return try makeAWS(section(aws, provider), environment, httpService(http, provider), time, timeout)
        case .gcp:
            return try makeGoogle(section(gcp, provider), httpService(http, provider), time, timeout)
        case .azure:
            return try makeAzure(section(azure, provider), environment, httpService(http, provider), time, timeout)
        case .openbao:
            return try makeOpenBao(section(openbao, provider), httpService(http, provider), time, timeout)
        }
    }

    /// How leases last and are renewed.
    public var lifecycle: DEKLifecycle.Policy {
        leaseSeconds.map { DEKLifecycle.Policy(ttl: .seconds($0)) } ?? DEKLifecycle.Policy()
    }

    /// `provider` and `KMS_PROVIDER`: one of them, or both if they agree.
    public func chosenProvider(_ environment: [String: String]) throws(KMSError) -> KMSProvider {
        let names = KMSProvider.allCases.map(\.rawValue).joined(separator: ", ")
        if let name = environment["KMS_PROVIDER"], !name.isEmpty {
            guard let fromEnvironment = KMSProvider(rawValue: name) else {
                throw KMSError(
                    .misconfigured, provider ?? .local,
                    "KMS_PROVIDER is \"\(printable(name))\"; expected one of \(names)")
            }
            guard provider == nil || provider == fromEnvironment else {
                throw KMSError(
                    .misconfigured, fromEnvironment,
                    "KMS_PROVIDER is \"\(name)\", and kms.provider is \"\(provider?.rawValue ?? "")\"; make them agree")
            }
            return fromEnvironment
        }
        guard let provider else {
            throw KMSError(
                .misconfigured, .local, "kms.provider is absent, and so is KMS_PROVIDER; expected one of \(names)")
        }
        return provider
    }

    private func section<Section>(_ section: Section?, _ provider: KMSProvider) throws(KMSError) -> Section {
        guard let section else {
            throw KMSError(
                .misconfigured, provider, "kms.\(provider.rawValue) is absent; expected the provider's settings there")
        }
        return section
    }

    private func checkedTimeout(_ provider: KMSProvider) throws(KMSError) -> Duration {
        let seconds = timeoutSeconds ?? 5
        guard (1...60).contains(seconds) else {
            throw KMSError(.misconfigured, provider, "kms.timeoutSeconds is \(seconds); expected 1 to 60")
        }
        return .seconds(seconds)
    }

    private func httpService(_ given: (any HTTPService)?, _ provider: KMSProvider) throws(KMSError) -> any HTTPService {
        if let given { return given }
        do {
            return try AsyncHTTPService(caFile: caFile)
        } catch {
            throw KMSError(.misconfigured, provider, "kms.caFile: \(error.message)")
        }
    }

    // MARK: One provider each

    private func makeAWS(
        _ settings: AWS, _ environment: [String: String], _ http: any HTTPService, _ time: TimeSource,
        _ timeout: Duration
    ) throws(KMSError) -> AWSKMS {
        let arn = try AWSKeyARN(settings.key)
        let endpoint = try override(settings.endpoint, "kms.aws.endpoint", .aws)
        let credentials: any CredentialSource<AWSCredentials>
        let identity = settings.identity
        let override = try override(identity?.endpoint, "kms.aws.identity.endpoint", .aws)
        switch identity?.source ?? Self.awsSource(environment) {
        case .environment: credentials = AWSEnvironmentCredentials(environment: environment)
        case .webIdentity:
            let role = try required(
                identity?.roleARN ?? environment["AWS_ROLE_ARN"], "kms.aws.identity.roleARN", "AWS_ROLE_ARN", .aws)
            let file = try required(
                identity?.tokenFile ?? environment["AWS_WEB_IDENTITY_TOKEN_FILE"], "kms.aws.identity.tokenFile",
                "AWS_WEB_IDENTITY_TOKEN_FILE", .aws)
            credentials = AWSWebIdentityCredentials(
                http: http, time: time,
                endpoint: try override.orElse { () throws(KMSError) in try arn.endpoint(service: "sts") },
                roleARN: role, tokenFile: TokenFile(file), sessionName: "ebpf-xdp-keymgr")
        case .container: credentials = try makeContainerCredentials(identity, override, environment, http, time)
        case .instance: credentials = AWSInstanceCredentials(http: http, time: time, endpoint: override)
        }
        return try AWSKMS(
            keyARN: settings.key, endpoint: endpoint, credentials: credentials, http: http, time: time, timeout: timeout
        )
    }

    /// The order in which the platforms' own SDKs look, without their files in home directories.
    private static func awsSource(_ environment: [String: String]) -> AWS.Identity.Source {
        if environment["AWS_ACCESS_KEY_ID"] != nil { return .environment }
        if environment["AWS_WEB_IDENTITY_TOKEN_FILE"] != nil { return .webIdentity }
        if environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] != nil
            || environment["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] != nil
        {
            return .container
        }
        return .instance
    }

    private func makeContainerCredentials(
        _ identity: AWS.Identity?, _ override: HTTPEndpoint?, _ environment: [String: String], _ http: any HTTPService,
        _ time: TimeSource
    ) throws(KMSError) -> AWSContainerCredentials {
        let file = identity?.tokenFile ?? environment["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
        let endpoint: HTTPEndpoint
        if let override {
            endpoint = override
        } else if let uri = environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
            guard let parsed = try self.override(uri, "AWS_CONTAINER_CREDENTIALS_FULL_URI", .aws) else {
                throw KMSError(.misconfigured, .aws, "AWS_CONTAINER_CREDENTIALS_FULL_URI is empty")
            }
            endpoint = parsed
        } else {
            let path = try required(
                environment["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"], "kms.aws.identity.endpoint",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI or AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", .aws)
            guard
                let parsed = try self.override(
                    "http://169.254.170.2" + path, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", .aws)
            else {
                throw KMSError(.misconfigured, .aws, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is empty")
            }
            endpoint = parsed
        }
        do {
            return try AWSContainerCredentials(
                http: http, time: time, endpoint: endpoint, target: "", authorization: file.map { TokenFile($0) })
        } catch {
            throw KMSError(.misconfigured, .aws, error.message)
        }
    }

    private func makeGoogle(
        _ settings: Google, _ http: any HTTPService, _ time: TimeSource, _ timeout: Duration
    ) throws(KMSError) -> GoogleKMS {
        let tokens: any CredentialSource<BearerToken>
        let identity = settings.identity
        switch identity?.source ?? .metadata {
        case .metadata:
            tokens = GoogleMetadataToken(
                http: http,
                endpoint: try override(identity?.metadataEndpoint, "kms.gcp.identity.metadataEndpoint", .gcp))
        case .federation:
            tokens = GoogleFederatedToken(
                http: http, time: time,
                tokenFile: TokenFile(try required(identity?.tokenFile, "kms.gcp.identity.tokenFile", nil, .gcp)),
                audience: try required(identity?.audience, "kms.gcp.identity.audience", nil, .gcp),
                impersonated: try checkedAccount(identity?.serviceAccount),
                sts: try override(identity?.stsEndpoint, "kms.gcp.identity.stsEndpoint", .gcp),
                iam: try override(identity?.iamEndpoint, "kms.gcp.identity.iamEndpoint", .gcp))
        }
        return try GoogleKMS(
            key: settings.key, endpoint: override(settings.endpoint, "kms.gcp.endpoint", .gcp), tokens: tokens,
            http: http, time: time,
            timeout: timeout)
    }

    /// It becomes part of a path.
    private func checkedAccount(_ account: String?) throws(KMSError) -> String? {
        guard let account else { return nil }
        let isGood =
            account.contains("@")
            && account.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x61...0x7a).contains($0 | 0x20) || $0 == 0x2d || $0 == 0x2e
                    || $0 == 0x5f || $0 == 0x40
            }
        guard isGood else {
            throw KMSError(
                .misconfigured, .gcp,
                "kms.gcp.identity.serviceAccount is \"\(printable(account))\"; expected an e-mail address")
        }
        return account
    }

    private func makeAzure(
        _ settings: Azure, _ environment: [String: String], _ http: any HTTPService, _ time: TimeSource,
        _ timeout: Duration
    ) throws(KMSError) -> AzureKeyVault {
        guard let vault = try override(settings.vault, "kms.azure.vault", .azure) else {
            throw KMSError(.misconfigured, .azure, "kms.azure.vault is empty; expected https://NAME.vault.azure.net")
        }
        let identity = settings.identity
        let endpoint = try override(identity?.endpoint, "kms.azure.identity.endpoint", .azure)
        let source =
            identity?.source
            ?? (environment["AZURE_FEDERATED_TOKEN_FILE"] != nil ? .workloadIdentity : .managedIdentity)
        let makeSource: AzureKeyVault.TokenSourceFactory
        switch source {
        case .managedIdentity:
            let client = identity?.clientID
            makeSource = { (resource) throws(IdentityError) in
                AzureManagedIdentityToken(http: http, clientID: client, resource: resource, endpoint: endpoint)
            }
        case .workloadIdentity:
            let tenant = try required(
                identity?.tenantID ?? environment["AZURE_TENANT_ID"], "kms.azure.identity.tenantID", "AZURE_TENANT_ID",
                .azure)
            let client = try required(
                identity?.clientID ?? environment["AZURE_CLIENT_ID"], "kms.azure.identity.clientID", "AZURE_CLIENT_ID",
                .azure)
            let file = try required(
                identity?.tokenFile ?? environment["AZURE_FEDERATED_TOKEN_FILE"], "kms.azure.identity.tokenFile",
                "AZURE_FEDERATED_TOKEN_FILE", .azure)
            makeSource = { (resource) throws(IdentityError) in
                try AzureWorkloadIdentityToken(
                    http: http, authority: endpoint, tenantID: tenant, clientID: client, tokenFile: TokenFile(file),
                    resource: resource)
            }
        }
        return try AzureKeyVault(
            vault: vault, keyName: settings.key, algorithm: settings.algorithm ?? .rsaOAEP256,
            allowedResource: settings.resource,
            http: http, time: time, timeout: timeout, makeSource: makeSource)
    }

    private func makeOpenBao(
        _ settings: OpenBao, _ http: any HTTPService, _ time: TimeSource, _ timeout: Duration
    ) throws(KMSError) -> TransitKMS {
        guard let endpoint = try override(settings.address, "kms.openbao.address", .openbao) else {
            throw KMSError(.misconfigured, .openbao, "kms.openbao.address is empty; expected https://HOST:8200")
        }
        let file = TokenFile(settings.identity.tokenFile)
        let tokens: any CredentialSource<BearerToken>
        switch settings.identity.source {
        case .token: tokens = VaultTokenFile(file)
        case .kubernetes, .jwt:
            let method = settings.identity.source.rawValue
            tokens = VaultLogin(
                http: http, endpoint: endpoint, namespace: settings.namespace, mount: settings.identity.mount ?? method,
                role: try required(settings.identity.role, "kms.openbao.identity.role", nil, .openbao), tokenFile: file)
        }
        return try TransitKMS(
            endpoint: endpoint, namespace: settings.namespace, mount: settings.mount ?? "transit", key: settings.key,
            tokens: tokens,
            http: http, time: time, timeout: timeout)
    }

    // MARK: Values

    private func override(_ text: String?, _ key: String, _ provider: KMSProvider) throws(KMSError) -> HTTPEndpoint? {
        guard let text, !text.isEmpty else { return nil }
        do {
            return try HTTPEndpoint(text)
        } catch {
            throw KMSError(.misconfigured, provider, "\(key): \(error.message)")
        }
    }

    private func required(
        _ value: String?, _ key: String, _ variable: String?, _ provider: KMSProvider
    ) throws(KMSError) -> String {
        guard let value, !value.isEmpty else {
            throw KMSError(
                .misconfigured, provider,
                "\(key) is absent\(variable.map { ", and \($0) is not in the environment" } ?? "")")
        }
        return value
    }
}

extension Optional {
    /// `??` with a typed error.
    fileprivate func orElse<Failure: Error>(_ other: () throws(Failure) -> Wrapped) throws(Failure) -> Wrapped {
        if let self { return self }
        return try other()
    }
}
