import ArgumentParser

@main
struct XDPBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "xdp-bench",
        abstract: "How fast it is, beside others and beside the floor.",
        subcommands: [
            CompareCommand.self, PacketCommand.self, ScaleCommand.self, ProfileCommand.self, KubeCommand.self,
            PaceCommand.self,
        ])
}
