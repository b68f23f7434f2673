internal import Glibc

/// The programs of Tests/peers, which share no code with the product.
public enum Python {
    /// Python of `make setup` in the repository, or the system's.
    public static var interpreter: String {
        if let root = repository, access(root + "/.venv/bin/python", X_OK) == 0 { return root + "/.venv/bin/python" }
        return "python3"
    }

    /// The path of a script. Throws when the repository is not where this program was built.
    public static func script(_ name: String) throws -> String {
        guard let root = repository else {
            throw LabError(
                "cannot find Tests/peers, which holds the independent decoder: run this in the repository, or set XDP_ENCRYPTOR_ROOT to it"
            )
        }
        return "\(root)/Tests/peers/\(name)"
    }

    /// The repository: named by XDP_ENCRYPTOR_ROOT, or around the current folder, or around this program's file.
    public static var repository: String? {
        var buffer = [CChar](repeating: 0, count: 4096)
        var starts: [String] = []
        if let named = getenv("XDP_ENCRYPTOR_ROOT") { starts.append(String(cString: named)) }
        if getcwd(&buffer, buffer.count) != nil { starts.append(text(buffer)) }
        let length = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        if length > 0 {
            buffer[length] = 0
            starts.append(text(buffer))
        }
        for start in starts {
            var folder = start[...]
            while !folder.isEmpty {
                if access(folder + "/Tests/peers/decode.py", R_OK) == 0 { return String(folder) }
                folder = folder[..<(folder.lastIndex(of: "/") ?? folder.startIndex)]
            }
        }
        return nil
    }

    private static func text(_ buffer: [CChar]) -> String {
        String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
