internal import BPF
internal import CSys
internal import Glibc

/// What the running kernel must have, and sentences that say what it lacks.
enum KernelRequirements {
    /// The oldest kernel that has everything in the shape that we use it.
    static let oldest = KernelVersion(major: 6, minor: 12)

    /// Throws when something is missing that can be told before loading: cheap, so done at every start.
    static func check() throws(DatapathError) {
        if let version = KernelVersion.running, version < oldest {
            throw DatapathError(
                .unsupportedKernel,
                "this kernel is Linux \(version); encryption needs \(oldest) or newer (bpf_crypto and tcx). Update the node's kernel"
            )
        }
        let missing = Capability.needed.filter { !$0.isHeld }.map(\.name)
        if !missing.isEmpty {
            throw DatapathError(
                .unsupportedKernel,
                "this process lacks \(missing.joined(separator: ", ")): run it as root, or give it these capabilities")
        }
        // The file exists in the first network namespace only; elsewhere loading tells.
        if read("/proc/sys/net/core/bpf_jit_enable") == "0" {
            throw DatapathError(
                .unsupportedKernel,
                "the kernel's BPF JIT compiler is off, and the cipher cannot be called without it: run 'sysctl net.core.bpf_jit_enable=1'"
            )
        }
    }

    /// Throws unless `path` is on a BPF file system.
    static func checkFileSystem(_ path: String) throws(DatapathError) {
        if BPFFileSystem.contains(path) { return }
        throw DatapathError(
            .unsupportedKernel,
            "no BPF file system is mounted at or above \(path), so nothing could be pinned there: run 'mount -t bpf bpf \(BPFFileSystem.standardPath)' on the node; a container needs the node's own, mounted from there"
        )
    }

    /// The kernel functions that the programs call (kernel/bpf/crypto.c, since 6.10).
    static let functions = ["bpf_crypto_ctx_create", "bpf_crypto_encrypt"]

    /// Says why loading failed: what the kernel lacks, when that is the reason, otherwise its own words.
    static func explain(_ error: BPFError) -> DatapathError {
        let isLoading = error.operation.hasPrefix("load BPF object")
        guard isLoading else { return DatapathError(.failed, error.description) }
        guard let types = try? KernelTypes() else {
            return DatapathError(
                .unsupportedKernel,
                "this kernel does not describe its types (/sys/kernel/btf/vmlinux is missing): it needs CONFIG_DEBUG_INFO_BTF"
            )
        }
        let missing = functions.filter { !types.hasFunction($0) }
        if !missing.isEmpty {
            return DatapathError(
                .unsupportedKernel,
                "this kernel has no \(missing.joined(separator: " and no ")): it needs CONFIG_CRYPTO and CONFIG_BPF_SYSCALL of Linux \(oldest) or newer"
            )
        }
        if error.errno == EPERM, let mode = read("/sys/kernel/security/lockdown"), mode.contains("[confidentiality]") {
            return DatapathError(
                .unsupportedKernel,
                "the kernel is locked down for confidentiality, which refuses BPF programs: \(error.description)")
        }
        return DatapathError(.unsupportedKernel, "the kernel refused the programs: \(error.description)")
    }

    private static func read(_ path: String) -> String? {
        guard let file = fopen(path, "re") else { return nil }
        defer { fclose(file) }
        var buffer = [UInt8](repeating: 0, count: 256)
        let count = fread(&buffer, 1, buffer.count, file)
        return String(decoding: buffer[..<count].filter { $0 != 10 }, as: UTF8.self)
    }
}

/// A kernel's version, such as 6.12.
struct KernelVersion: Comparable, CustomStringConvertible {
    let major: Int
    let minor: Int

    init(major: Int, minor: Int) {
        self.major = major
        self.minor = minor
    }

    /// Reads uname's release, such as "6.12.9-amd64".
    init?(release: String) {
        let parts = release.split(separator: ".", maxSplits: 2)
        guard parts.count >= 2, let major = Int(parts[0]), let minor = Int(parts[1].prefix { $0.isNumber }) else {
            return nil
        }
        self.init(major: major, minor: minor)
    }

    static var running: KernelVersion? {
        var name = utsname()
        guard uname(&name) == 0 else { return nil }
        return KernelVersion(
            release: withUnsafeBytes(of: name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
    }

    static func < (left: KernelVersion, right: KernelVersion) -> Bool {
        (left.major, left.minor) < (right.major, right.minor)
    }

    var description: String { "\(major).\(minor)" }
}

/// A capability of capabilities(7), as asked for in /proc/self/status.
private struct Capability {
    let name: String
    let bit: Int

    /// SYS_ADMIN is for entering pods' namespaces, PERFMON for what the verifier lets BPF do.
    static let needed = [
        Capability(name: "CAP_NET_ADMIN", bit: 12), Capability(name: "CAP_SYS_ADMIN", bit: 21),
        Capability(name: "CAP_PERFMON", bit: 38), Capability(name: "CAP_BPF", bit: 39),
    ]

    var isHeld: Bool { Self.effective >> UInt64(bit) & 1 == 1 }

    private static let effective: UInt64 = {
        guard let file = fopen("/proc/self/status", "re") else { return .max }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, Int32(line.count), file) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if text.hasPrefix("CapEff:") { return UInt64(text.dropFirst(7).filter(\.isHexDigit), radix: 16) ?? .max }
        }
        return .max
    }()
}
