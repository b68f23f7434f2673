internal import FoundationEssentials
internal import Glibc

/// Where it was measured.
public struct Machine: Codable, Sendable {
    /// Release and version of the kernel.
    public var kernel: String
    /// The processor's name.
    public var processor: String
    /// How many are online.
    public var processors: Int
    /// Main memory, GiB.
    public var memory: Double
    /// What the distribution calls itself.
    public var system: String
    /// What the kernel has for the algorithms that matter here: name to driver and priority, the highest first.
    public var ciphers: [String: [String]]

    /// This machine.
    public static func current() -> Machine {
        var names = utsname()
        uname(&names)
        let kernel = [text(of: names.release), text(of: names.version), text(of: names.machine)]
        let cpu = lines(of: "/proc/cpuinfo").first { $0.hasPrefix("model name") }?.split(separator: ":").last
        let memory = lines(of: "/proc/meminfo").first { $0.hasPrefix("MemTotal") }?
            .split(separator: " ").compactMap { Double($0) }.first
        let system = lines(of: "/etc/os-release").first { $0.hasPrefix("PRETTY_NAME=") }?.split(separator: "\"").last
        return Machine(
            kernel: kernel.joined(separator: " "), processor: cpu.map { String($0.drop { $0 == " " }) } ?? "unknown",
            processors: sysconf(Int32(_SC_NPROCESSORS_ONLN)), memory: ((memory ?? 0) / 1024 / 1024),
            system: system.map { String($0) } ?? "unknown", ciphers: drivers(lines(of: "/proc/crypto")))
    }

    /// Reads what /proc/crypto says of AES.
    static func drivers(_ lines: [String]) -> [String: [String]] {
        let wanted = ["aes", "ecb(aes)", "ctr(aes)", "gcm(aes)"]
        var found: [String: [(driver: String, priority: Int)]] = [:]
        var name = ""
        var driver = ""
        for line in lines {
            let parts = line.split(separator: ":", maxSplits: 1).map { part in
                String(part.drop { $0 == " " }.prefix { $0 != " " })
            }
            guard parts.count == 2 else { continue }
            switch parts[0] {
            case "name": name = parts[1]
            case "driver": driver = parts[1]
            case "priority": if wanted.contains(name) { found[name, default: []].append((driver, Int(parts[1]) ?? 0)) }
            default: break
            }
        }
        return found.mapValues { drivers in
            drivers.sorted { $0.priority > $1.priority }.map { "\($0.driver) (\($0.priority))" }
        }
    }

    /// For the head of a table.
    public var summary: [String] {
        let drivers = ciphers.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value.joined(separator: ", "))" }
        return [
            "kernel   \(kernel)", "CPU      \(processors) × \(processor), \(Int(memory.rounded())) GiB, \(system)",
            "ciphers  \(drivers.joined(separator: "; "))",
        ]
    }

    private static func text<Tuple>(of tuple: Tuple) -> String {
        withUnsafeBytes(of: tuple) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}

/// The lines of a text file; none when it cannot be read.
func lines(of path: String) -> [String] {
    // Files of /proc have no length, so they are read to their end.
    guard let file = fopen(path, "r") else { return [] }
    defer { fclose(file) }
    var text = ""
    var buffer = [CChar](repeating: 0, count: 65536)
    while fgets(&buffer, Int32(buffer.count), file) != nil {
        text += String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    return text.split(separator: "\n").map { String($0) }
}
