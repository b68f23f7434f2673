internal import CSys
internal import Glibc

/// What a process that holds secrets does about its own memory before it reads the first one.
public struct ProcessHardening: Sendable, Equatable {
    /// Core files have size 0.
    public var coreLimitIsZero: Bool
    /// Neither a core dump nor ptrace by an unprivileged process of the same user.
    public var notDumpable: Bool
    /// Devices and files that the kernel swaps to.
    public var swap: [String]
    /// The kind of memory that a secret gets here.
    public var storage: SecretStorage

    /// Sets `RLIMIT_CORE` to 0 and clears the dumpable flag, for this process and its children, and looks at what the machine
    /// offers. Never fails: what could not be had is in the value and in `warnings`.
    public static func apply() -> ProcessHardening {
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        // The constant's type differs between C libraries; Glibc's takes its own enum.
        let limited = setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none) == 0
        let hidden = csys_set_not_dumpable() == 0
        return ProcessHardening(
            coreLimitIsZero: limited, notDumpable: hidden, swap: swapDevices(in: readAll("/proc/swaps")),
            storage: SecretBytes(random: 32).storage)
    }

    /// A sentence for everything that is weaker than it could be, with what to do about it. Empty on a good machine.
    public var warnings: [String] {
        var warnings: [String] = []
        if !coreLimitIsZero || !notDumpable {
            warnings.append(
                "core dumps could not be turned off for this process; check the unit's LimitCORE and seccomp filter")
        }
        switch storage {
        case .memfdSecret: break
        case .lockedMemory:
            warnings.append(
                "this kernel has no memfd_secret (5.14 or newer, CONFIG_SECRETMEM; on kernels before 6.5 secretmem.enable=1); keys are kept in locked memory instead"
            )
        case .unlockedMemory:
            warnings.append(
                "keys could not be locked into memory; raise LimitMEMLOCK to 8M or more\(swap.isEmpty ? "" : ", because they can reach swap")"
            )
        }
        if !swap.isEmpty {
            warnings.append(
                "swap is on (\(swap.joined(separator: ", "))): keys in secret memory never reach it, but copies that a library makes for a moment may; turn swap off or encrypt it"
            )
        }
        return warnings
    }

    /// The first column of /proc/swaps without its heading.
    static func swapDevices(in text: String) -> [String] {
        text.split(separator: "\n").dropFirst().compactMap {
            $0.split(whereSeparator: { $0 == " " || $0 == "\t" }).first.map(String.init)
        }
    }
}

/// The text of a small file of /proc; empty when it cannot be read.
private func readAll(_ path: String) -> String {
    let fd = open(path, O_RDONLY | O_CLOEXEC)
    guard fd >= 0 else { return "" }
    defer { close(fd) }
    var text: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
        let got = read(fd, &buffer, buffer.count)
        guard got > 0 else { break }
        text += buffer[..<got]
    }
    return String(decoding: text, as: UTF8.self)
}
