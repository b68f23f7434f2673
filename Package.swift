// swift-tools-version: 6.3;(experimentalCGen)
import PackageDescription

let swiftSettings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]

/// Programs find what they call in libraries before they start: nothing is looked up, with registers saved on the stack, while they hold a
/// key, and the table of what was found is read-only from then on (full RELRO).
let linkerSettings: [LinkerSetting] = [.unsafeFlags(["-Xlinker", "-z", "-Xlinker", "now"])]

let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let cryptoExtras: Target.Dependency = .product(name: "CryptoExtras", package: "swift-crypto")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let lifecycle: Target.Dependency = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let signals: Target.Dependency = .product(name: "UnixSignals", package: "swift-service-lifecycle")
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let http: Target.Dependency = .product(name: "AsyncHTTPClient", package: "async-http-client")
let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
    .product(name: "NIOSSL", package: "swift-nio-ssl"),
]

let package = Package(
    name: "xdp-encryptor",
    products: [
        .executable(name: "ebpf-xdp-keymgr", targets: ["keymgr"]),
        .executable(name: "ebpf-xdp-operator", targets: ["operatorcli"]),
        .executable(name: "xdp-encryptor", targets: ["cli"]),
        // For the package in Benchmarks/.
        .library(name: "Lab", targets: ["Lab"]),
        .library(name: "BPF", targets: ["BPF"]),
        .library(name: "Datapath", targets: ["Datapath"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0", traits: []),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        // The kernel half: bpf/*.bpf.c, compiled by the plugin and embedded here.
        .target(name: "BPFObjects", plugins: ["BPFCompile"]),
        .plugin(name: "BPFCompile", capability: .buildTool()),

        // C that Swift cannot call directly, and Debian's libbpf.
        .target(name: "CSys"),
        .systemLibrary(name: "CLibBPF", pkgConfig: "libbpf", providers: [.apt(["libbpf-dev"])]),

        // Thin, safe Swift over libbpf, network namespaces and rtnetlink; then the datapath as typed values.
        .target(name: "BPF", dependencies: ["CLibBPF", "BPFObjects", "CSys"], swiftSettings: swiftSettings),
        .target(name: "Netlink", dependencies: ["CSys"], swiftSettings: swiftSettings),
        .target(
            name: "Datapath",
            dependencies: ["BPF", "BPFObjects", "CSys", "Netlink", "Keys", "Secrets", crypto, cryptoExtras],
            swiftSettings: swiftSettings),

        // Keys: pure derivation, secret memory, and who wraps them.
        .target(name: "Secrets", dependencies: ["CSys"], swiftSettings: swiftSettings),
        .target(name: "Keys", dependencies: ["Secrets", crypto, cryptoExtras], swiftSettings: swiftSettings),
        .target(
            name: "CloudIdentity", dependencies: ["Secrets", crypto, cryptoExtras, http, logging] + nio,
            swiftSettings: swiftSettings),
        .target(
            name: "KMS",
            dependencies: ["CSys", "Secrets", "CloudIdentity", "Keys", crypto, cryptoExtras, http, logging],
            swiftSettings: swiftSettings),

        // The Kubernetes API: list, watch, apply, lease. Kubeconfig files are read with Debian's libyaml.
        .systemLibrary(name: "CYAML", pkgConfig: "yaml-0.1", providers: [.apt(["libyaml-dev"])]),
        .target(
            name: "Kubernetes", dependencies: ["CYAML", "Secrets", http, logging] + nio,
            swiftSettings: swiftSettings),

        // What is desired, and the reconciler that makes it so on a node.
        .target(
            name: "Cluster", dependencies: ["CSys", "Keys", "Kubernetes", "Netlink", logging],
            swiftSettings: swiftSettings),
        .target(
            name: "Agent",
            dependencies: [
                "CloudIdentity", "Cluster", "CSys", "Datapath", "Keys", "KMS", "Kubernetes", "Secrets", "Netlink",
                logging,
                lifecycle,
            ],
            swiftSettings: swiftSettings),

        // Who is to be protected, in Kubernetes: from policies and mesh resources to what nodes are told.
        .target(
            name: "Operator",
            dependencies: ["CloudIdentity", "Cluster", "KMS", "Keys", "Kubernetes", "Netlink", "Telemetry", logging],
            swiftSettings: swiftSettings),
        // Logs, metrics, probes.
        .target(
            name: "Telemetry",
            dependencies: ["Cluster", logging, .product(name: "NIOPosix", package: "swift-nio")] + nio,
            swiftSettings: swiftSettings),

        // Two nodes with a pod each, in network namespaces: the demo and the end-to-end tests run on it.
        .target(name: "Lab", dependencies: ["BPF", "Netlink"], swiftSettings: swiftSettings),

        // What the programs have in common.
        .target(name: "Commands", dependencies: [arguments], swiftSettings: swiftSettings),
        .executableTarget(
            name: "keymgr",
            dependencies: [
                "Agent", "Cluster", "Commands", "CSys", "Datapath", "Keys", "KMS", "Kubernetes", "Secrets", "Telemetry",
                arguments, logging, lifecycle, signals,
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: swiftSettings, linkerSettings: linkerSettings),
        .executableTarget(
            name: "operatorcli",
            dependencies: [
                "CSys", "Cluster", "Commands", "KMS", "Kubernetes", "Operator", "Secrets", "Telemetry", arguments,
                logging, lifecycle, signals,
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: swiftSettings, linkerSettings: linkerSettings),
        .executableTarget(
            name: "cli",
            dependencies: [
                "Agent", "Cluster", "Commands", "Datapath", "Keys", "KMS", "Lab", "Netlink", "Secrets", arguments,
                logging,
            ],
            swiftSettings: swiftSettings, linkerSettings: linkerSettings),

        .testTarget(name: "BPFTests", dependencies: ["BPF"], swiftSettings: swiftSettings),
        .testTarget(name: "NetlinkTests", dependencies: ["Netlink", "BPF", "CSys"], swiftSettings: swiftSettings),
        .testTarget(name: "SecretsTests", dependencies: ["Secrets"], swiftSettings: swiftSettings),
        .testTarget(
            name: "KeysTests", dependencies: ["Keys", "Secrets"], exclude: ["make_vectors.py", "vectors.json"],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "KMSTests",
            dependencies: ["KMS", "CloudIdentity", "Secrets", crypto, .product(name: "NIOPosix", package: "swift-nio")]
                + nio, swiftSettings: swiftSettings),
        .testTarget(
            name: "DatapathTests",
            dependencies: ["Datapath", "BPF", "BPFObjects", "CLibBPF", "CSys", "Keys", "Netlink", "Secrets", crypto],
            exclude: ["vectors"], swiftSettings: swiftSettings),
        .testTarget(
            name: "KubernetesTests",
            dependencies: ["Kubernetes", "Lab", "Secrets", logging, .product(name: "NIOCore", package: "swift-nio")],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "OperatorTests",
            dependencies: [
                "Cluster", "KMS", "Keys", "Kubernetes", "Lab", "Netlink", "Operator", "Secrets", "Telemetry", logging,
            ],
            resources: [.copy("Fixtures")], swiftSettings: swiftSettings),
        .testTarget(
            name: "ClusterTests", dependencies: ["Cluster", "Keys", "Kubernetes", "Netlink"],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "AgentTests",
            dependencies: ["Agent", "Cluster", "Datapath", "Keys", "KMS", "Kubernetes", "Netlink", "Secrets"],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "EndToEndTests", dependencies: ["Lab", "Netlink", "Datapath", "Keys", "Secrets"],
            swiftSettings: swiftSettings),
    ]
)
