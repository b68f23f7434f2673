internal import Glibc

/// What computes AES for the programs. The kernel chooses it when a key is installed: the driver of the highest priority.
public struct CipherDriver: Sendable, Hashable {
    /// As /proc/crypto names it, such as `ecb(aes-aesni)`.
    public var name: String
    /// It is plain C, and the processor has instructions for AES.
    public var leavesInstructionsUnused: Bool

    /// What a key that is installed now gets; nil when the kernel does not say.
    public static func current() -> CipherDriver? {
        func text(_ path: String) -> String {
            String(decoding: ((try? Files.read(path)) ?? nil) ?? [], as: UTF8.self)
        }
        return CipherDriver(crypto: text("/proc/crypto"), cpu: text("/proc/cpuinfo"))
    }

    /// From the texts of /proc/crypto and, for C code only, /proc/cpuinfo, which is long where there are many processors.
    ///
    /// The kfuncs take ciphers of the type `lskcipher`. Before the first key there may be none: the kernel makes `ecb` around its best `aes` then.
    init?(crypto: String, cpu: @autoclosure () -> String) {
        let modes = Self.drivers(of: "ecb(aes)", type: "lskcipher", in: crypto)
        let ciphers = Self.drivers(of: "aes", type: "cipher", in: crypto).map {
            (name: "ecb(\($0.name))", priority: $0.priority)
        }
        guard let best = (modes.isEmpty ? ciphers : modes).max(by: { $0.priority < $1.priority }) else { return nil }
        name = best.name
        let isC = ["ecb(aes-generic)", "ecb(aes-fixed-time)"].contains(best.name)
        leavesInstructionsUnused = isC && Self.hasInstructions(cpu())
    }

    /// What to do about it, in a sentence; nil when there is nothing to be done.
    public var warning: String? {
        guard leavesInstructionsUnused else { return nil }
        return
            "the kernel computes AES in C (\(name)) although the processor has instructions for it, so encryption takes more CPU time than it has to: load the module aesni_intel (aes_ce_cipher on Arm), or use a kernel that has it; keys that are installed from then on use it"
    }

    /// The drivers of an algorithm. Entries are separated by empty lines, fields by lines (crypto/proc.c).
    private static func drivers(of name: String, type: String, in crypto: String) -> [(name: String, priority: Int)] {
        var found: [(name: String, priority: Int)] = []
        var entry: [Substring: Substring] = [:]
        let lines: [Substring] = crypto.split(separator: "\n", omittingEmptySubsequences: false) + [""]
        for line in lines {
            guard line.isEmpty else {
                let parts = line.split(separator: ":", maxSplits: 1)
                if parts.count == 2 { entry[trimmed(parts[0])] = trimmed(parts[1]) }
                continue
            }
            if let driver = entry["driver"], entry["name"] == name[...], entry["type"] == type[...] {
                found.append((String(driver), entry["priority"].flatMap { Int($0) } ?? 0))
            }
            entry = [:]
        }
        return found
    }

    /// `flags` on x86, `Features` on Arm.
    private static func hasInstructions(_ cpu: String) -> Bool {
        let features = cpu.split(separator: "\n").first { $0.hasPrefix("flags") || $0.hasPrefix("Features") }
        return features?.split { $0 == " " || $0 == "\t" || $0 == ":" }.contains("aes") ?? false
    }

    private static func trimmed(_ text: Substring) -> Substring {
        let start = text.drop { $0 == " " || $0 == "\t" }
        return start.lastIndex { $0 != " " && $0 != "\t" }.map { start[...$0] } ?? ""
    }
}
