public import Keys

/// The `kms` section of the configuration. docs/kms.md shows one for every provider.
///
/// Only the chosen provider's section is needed. Endpoints can be overridden here and nowhere else: no environment variable
/// sends credentials to another host.
public struct KMSConfiguration: Sendable, Hashable, Codable {
    /// Which provider. `KMS_PROVIDER` in the environment, if it is there, must say the same or this must be absent.
    public var provider: KMSProvider?
    /// PEM file of certificates to trust beside the system's.
    public var caFile: String?
    /// For one call, in seconds: 1 to 60; 5 if absent.
    public var timeoutSeconds: Int?
    /// How long a node may use a DEK without having been let unwrap it again, in seconds: 10 to 2,592,000; 24 hours if absent.
    public var leaseSeconds: Int?

    /// Provider `local`.
    public var local: Local?
    /// Provider `aws`.
    public var aws: AWS?
    /// Provider `gcp`.
    public var gcp: Google?
    /// Provider `azure`.
    public var azure: Azure?
    /// Provider `openbao`.
    public var openbao: OpenBao?

    /// A KEK in a file.
    public struct Local: Sendable, Hashable, Codable {
        /// One KEK a line, 64 hexadecimal digits each; mode 0600.
        public var kekFile: String
    }

    /// AWS KMS.
    public struct AWS: Sendable, Hashable, Codable {
        /// The key's ARN.
        public var key: String
        /// Instead of the region's.
        public var endpoint: String?
        /// Where credentials come from; absent: the first that the environment offers, of web-identity, container,
        /// environment, then the instance.
        public var identity: Identity?

        /// Where credentials come from.
        public struct Identity: Sendable, Hashable, Codable {
            /// The kinds of sources.
            public enum Source: String, Sendable, Hashable, Choice {
                /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
                case environment
                /// IRSA.
                case webIdentity = "web-identity"
                /// EKS Pod Identity and ECS.
                case container
                /// IMDSv2.
                case instance
            }
            /// Which.
            public var source: Source
            /// web-identity; absent: `AWS_ROLE_ARN`.
            public var roleARN: String?
            /// web-identity: the projected token, absent: `AWS_WEB_IDENTITY_TOKEN_FILE`; container: what to show the agent, absent:
            /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`.
            public var tokenFile: String?
            /// Instead of STS of the region, the container agent, or the metadata service.
            public var endpoint: String?
        }
    }

    /// Google Cloud KMS.
    public struct Google: Sendable, Hashable, Codable {
        /// `projects/P/locations/L/keyRings/R/cryptoKeys/K`.
        public var key: String
        /// Instead of cloudkms.googleapis.com.
        public var endpoint: String?
        /// Where tokens come from; absent: the metadata server.
        public var identity: Identity?

        /// Where tokens come from.
        public struct Identity: Sendable, Hashable, Codable {
            /// The kinds of sources.
            public enum Source: String, Sendable, Hashable, Choice {
                /// The metadata server of the instance, or of GKE.
                case metadata
                /// Workload identity federation.
                case federation
            }
            /// Which.
            public var source: Source
            /// metadata: instead of metadata.google.internal.
            public var metadataEndpoint: String?
            /// federation: the pool's provider, `//iam.googleapis.com/projects/...`.
            public var audience: String?
            /// federation: the projected token.
            public var tokenFile: String?
            /// federation: a service account to impersonate; absent: none.
            public var serviceAccount: String?
            /// federation: instead of sts.googleapis.com.
            public var stsEndpoint: String?
            /// federation: instead of iamcredentials.googleapis.com.
            public var iamEndpoint: String?
        }
    }

    /// Azure Key Vault and Managed HSM.
    public struct Azure: Sendable, Hashable, Codable {
        /// `https://NAME.vault.azure.net`.
        public var vault: String
        /// The key's name.
        public var key: String
        /// RSA-OAEP-256 if absent; A256KW for AES keys of a Managed HSM.
        public var algorithm: AzureKeyVault.Algorithm?
        /// The resource that tokens are for, where the vault has a name outside of it.
        public var resource: String?
        /// Where tokens come from; absent: workload identity where the environment has it, else the managed identity.
        public var identity: Identity?

        /// Where tokens come from.
        public struct Identity: Sendable, Hashable, Codable {
            /// The kinds of sources.
            public enum Source: String, Sendable, Hashable, Choice {
                /// IMDS.
                case managedIdentity = "managed-identity"
                /// A federated credential.
                case workloadIdentity = "workload-identity"
            }
            /// Which.
            public var source: Source
            /// workload-identity, absent: `AZURE_CLIENT_ID`; managed-identity: which of several.
            public var clientID: String?
            /// workload-identity; absent: `AZURE_TENANT_ID`.
            public var tenantID: String?
            /// workload-identity: the projected token; absent: `AZURE_FEDERATED_TOKEN_FILE`.
            public var tokenFile: String?
            /// Instead of login.microsoftonline.com, or of IMDS.
            public var endpoint: String?
        }
    }

    /// OpenBao and Vault.
    public struct OpenBao: Sendable, Hashable, Codable {
        /// The server.
        public var address: String
        /// Absent: none.
        public var namespace: String?
        /// Where Transit is mounted; absent: "transit".
        public var mount: String?
        /// The key's name.
        public var key: String
        /// Where tokens come from.
        public var identity: Identity

        /// Where tokens come from.
        public struct Identity: Sendable, Hashable, Codable {
            /// The kinds of sources.
            public enum Source: String, Sendable, Hashable, Choice {
                /// A file that something else keeps fresh.
                case token
                /// Kubernetes authentication with the projected token.
                case kubernetes
                /// JWT authentication with the projected token.
                case jwt
            }
            /// Which.
            public var source: Source
            /// The token, or the projected service-account token.
            public var tokenFile: String
            /// kubernetes and jwt: the role to log in to.
            public var role: String?
            /// kubernetes and jwt: where the method is mounted; absent: "kubernetes" or "jwt".
            public var mount: String?
        }
    }

    /// Starts empty; for programs that build a configuration by hand.
    public init(provider: KMSProvider? = nil) {
        self.provider = provider
    }

    /// The configuration of provider `local`.
    public static func local(kekFile: String) -> KMSConfiguration {
        var configuration = KMSConfiguration(provider: .local)
        configuration.local = Local(kekFile: kekFile)
        return configuration
    }
}
