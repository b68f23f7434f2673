import FoundationEssentials
import Glibc
import Lab

/// The repository, found by the lab's rules.
func repository() throws -> String {
    guard let root = Python.repository else {
        throw LabError("cannot find the repository: run this in it, or set XDP_ENCRYPTOR_ROOT to it")
    }
    return root
}

/// The whole of a file.
func bytes(of path: String) throws -> [UInt8] {
    do {
        return [UInt8](try Data(contentsOf: URL(filePath: path)))
    } catch {
        throw LabError("cannot read \(path): \(error)")
    }
}

/// A file of Benchmarks/peers with its @NAMES@ filled in, written to the lab's directory. Returns its path.
func fill(_ name: String, _ values: [String: String], in lab: Lab, as target: String? = nil) throws -> String {
    var text = String(decoding: try bytes(of: try repository() + "/Benchmarks/peers/" + name), as: UTF8.self)
    for (key, value) in values { text.replace("@\(key)@", with: value) }
    return try lab.write(target ?? name, text)
}

/// Finds a program in PATH and where Debian puts those for root; nil when it is not there.
func find(_ program: String) -> String? {
    let path = getenv("PATH").map { String(cString: $0) } ?? ""
    let folders = path.split(separator: ":").map { String($0) } + ["/usr/sbin", "/sbin"]
    return folders.map { "\($0)/\(program)" }.first { access($0, X_OK) == 0 }
}

/// What is running, for starting ourselves again.
let ownProgram: String = {
    var buffer = [CChar](repeating: 0, count: 4096)
    let length = readlink("/proc/self/exe", &buffer, buffer.count - 1)
    return String(decoding: buffer[..<max(0, length)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
}()

/// A line for people, on standard error: standard output is for the table.
func say(_ line: String) {
    let text = Array((line + "\n").utf8)
    _ = Glibc.write(2, text, text.count)
}
