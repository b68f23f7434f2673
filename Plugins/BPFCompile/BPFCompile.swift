import Foundation
import PackagePlugin

/// Compiles every `bpf/*.bpf.c` of the package with `clang -target bpf` and generates one C file an object that embeds it with
/// `#embed`.
@main
struct BPFCompile: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
        let clang = try context.tool(named: "clang").url
        let objcopy = try context.tool(named: "llvm-objcopy").url
        let folder = context.package.directoryURL.appending(path: "bpf")
        let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .sorted { $0.path < $1.path }
        let headers = files.filter { $0.pathExtension == "h" }
        let out = context.pluginWorkDirectoryURL
        #if arch(x86_64)
            let triple = "x86_64-linux-gnu"
        #else
            let triple = "aarch64-linux-gnu"
        #endif
        return files.filter { $0.lastPathComponent.hasSuffix(".bpf.c") }.map { source in
            let stem = String(source.lastPathComponent.dropLast(".bpf.c".count))
            let object = out.appending(path: "\(stem).bpf.elf")
            let embedding = out.appending(path: "\(stem).embed.c")
            // One shell step: compile, drop DWARF (this keeps .BTF), write the C file that embeds the object.
            let script = """
                set -e
                "$1" -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -idirafter /usr/include/\(triple) -c "$3" -o "$4"
                "$2" --strip-debug "$4"
                cat > "$5" <<END
                #include "BPFObjects.h"
                #pragma clang diagnostic ignored "-Wc23-extensions"
                static const unsigned char object[] __attribute__((aligned(8))) = {
                #embed "$4"
                };
                const struct bpf_embedded_object bpf_embedded_\(stem) = {"\(stem)", object, sizeof(object)};
                END
                """
            return .buildCommand(
                displayName: "Compiling BPF \(source.lastPathComponent)",
                executable: URL(filePath: "/bin/sh"),
                arguments: ["-c", script, "sh", clang.path, objcopy.path, source.path, object.path, embedding.path],
                inputFiles: [source] + headers,
                outputFiles: [embedding])
        }
    }
}
