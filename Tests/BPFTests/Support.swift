import Glibc
import Testing

@testable import BPF

/// Loading programs needs root; the reason is shown for skipped tests.
let isRoot = geteuid() == 0
let needsRoot: Comment = "needs root: it loads BPF programs into the kernel"

/// Runs a command and waits; its output goes to the test's. Returns the exit status, 127 when it could not start.
@discardableResult
func command(_ words: String...) -> Int32 {
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
    arguments.append(nil)
    defer { for argument in arguments { free(argument) } }
    var child = pid_t()
    guard posix_spawnp(&child, words[0], nil, nil, arguments, environ) == 0 else { return 127 }
    var status: Int32 = 0
    while waitpid(child, &status, 0) < 0 { guard errno == EINTR else { return 127 } }
    return (status >> 8) & 0xff
}

/// A folder that goes when the value does.
final class TemporaryFolder {
    let path: String

    init(in parent: String = "/tmp") {
        var template = Array("\(parent)/xdp-encryptor-test-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { template in
            guard let start = template.baseAddress, let made = mkdtemp(start) else { return "/nonexistent" }
            return String(cString: made)
        }
    }

    deinit { command("rm", "-rf", path) }
}

/// Compiles BPF C with the compiler that builds the product.
func compile(_ source: String, in folder: TemporaryFolder, name: String = "test") throws -> String {
    let input = "\(folder.path)/\(name).bpf.c"
    let output = "\(folder.path)/\(name).bpf.o"
    let file = try #require(fopen(input, "w"))
    fputs(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n" + source
            + "\nchar LICENSE[] SEC(\"license\") = \"GPL\";\n", file)
    fclose(file)
    #if arch(x86_64)
        let headers = "/usr/include/x86_64-linux-gnu"
    #else
        let headers = "/usr/include/aarch64-linux-gnu"
    #endif
    let status = command("clang", "-target", "bpf", "-O2", "-g", "-idirafter", headers, "-c", input, "-o", output)
    try #require(status == 0, "clang could not compile the test program")
    return output
}

/// A named network namespace with a veth pair into a second one; both go when the value does.
final class VethPair {
    let near: String
    let far: String

    init() throws {
        let suffix = "\(getpid())-\(UInt32.random(in: 0..<1 << 24))"
        near = "base-a-\(suffix)"
        far = "base-b-\(suffix)"
        for name in [near, far] { try #require(command("ip", "netns", "add", name) == 0) }
        try #require(
            command("ip", "-n", near, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", far) == 0)
        for (name, device) in [(near, "v0"), (far, "v1")] { command("ip", "-n", name, "link", "set", device, "up") }
    }

    var nearPath: String { "/run/netns/\(near)" }
    var farPath: String { "/run/netns/\(far)" }

    deinit { for name in [near, far] { command("ip", "netns", "del", name) } }
}
