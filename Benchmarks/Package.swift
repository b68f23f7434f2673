// swift-tools-version: 6.3
import PackageDescription

// A package of its own, so that nothing of it gets into the product.
let swiftSettings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]

let package = Package(
    name: "benchmarks",
    products: [.executable(name: "xdp-bench", targets: ["xdp-bench"])],
    dependencies: [
        .package(name: "xdp-encryptor", path: ".."),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    ],
    targets: [
        // Numbers: samples, what tools print, tables, plots. No I/O but reading /proc.
        .target(name: "Measure", swiftSettings: swiftSettings),
        .target(name: "CBench"),
        // A cluster in memory, with an API server in front of it.
        .target(name: "KubeSim", swiftSettings: swiftSettings),
        .executableTarget(
            name: "xdp-bench",
            dependencies: [
                "CBench", "KubeSim", "Measure", .product(name: "Lab", package: "xdp-encryptor"),
                .product(name: "BPF", package: "xdp-encryptor"),
                .product(name: "Datapath", package: "xdp-encryptor"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], swiftSettings: swiftSettings),
        .testTarget(name: "MeasureTests", dependencies: ["Measure"], swiftSettings: swiftSettings),
        .testTarget(name: "KubeSimTests", dependencies: ["KubeSim"], swiftSettings: swiftSettings),
    ]
)
