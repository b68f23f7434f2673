import Glibc
import Lab

/// WireGuard between the pods, in user space or in the kernel.
struct WireGuard: Candidate {
    enum Place: Sendable {
        case userSpace, kernel
    }
    let place: Place

    var name: String { place == .userSpace ? "wireguard-go" : "WireGuard (kernel)" }
    var note: String {
        switch place {
        case .userSpace: "a tunnel from pod to pod, ChaCha20-Poly1305 in user space"
        case .kernel: "a tunnel from pod to pod, ChaCha20-Poly1305 in the kernel"
        }
    }

    func reasonForAbsence() -> String? {
        if find("wg") == nil { return "Debian's wireguard-tools is not installed (make bench-setup)" }
        switch place {
        case .userSpace:
            if find("wireguard-go") == nil { return "Debian's wireguard-go is not installed (make bench-setup)" }
            return access("/dev/net/tun", R_OK | W_OK) == 0 ? nil : "/dev/net/tun cannot be opened"
        case .kernel:
            return kernelHasIt ? nil : "this kernel is built without WireGuard"
        }
    }

    /// Asks the kernel, in a namespace of its own that goes with the command.
    private var kernelHasIt: Bool {
        let log = "/tmp/xe-bench-\(getpid())"
        defer {
            unlink(log + ".out")
            unlink(log + ".err")
        }
        let command = ["unshare", "--net", "ip", "link", "add", "type", "wireguard"]
        return (try? ChildProcess(command, log: log).wait(until: .seconds(10)))?.succeeded ?? false
    }

    func start(on lab: Lab) throws -> Running {
        var running = Running.direct("10.210.0.2")
        var keys: [(secret: String, open: String)] = []
        for number in 1...2 {
            let secret = try lab.write("wg\(number).key", try lab.require(["wg", "genkey"]))
            let open = try lab.require(["wg", "pubkey"], input: secret)
            keys.append((secret, String(open.prefix { !$0.isNewline })))
        }
        for (index, pod) in [lab.client, lab.server].enumerated() {
            let other = index == 0 ? lab.server : lab.client
            let device = "wg\(index)"
            var configure = ["wg"]
            switch place {
            case .kernel:
                try lab.require(["ip", "link", "add", device, "type", "wireguard"], in: pod.namespace)
            case .userSpace:
                // Its control socket lies in a folder of the machine, under the device's name: so it gets a folder of its own.
                let script =
                    "mkdir -p /run/wireguard; mount -t tmpfs none /run/wireguard; exec wireguard-go -f \(device)"
                let daemon = try lab.start(["unshare", "--mount", "sh", "-euc", script], in: pod.namespace)
                running.processes[index + 1] = [daemon]
                try wait(for: "wireguard-go: \(daemon.errors)", until: .seconds(10)) {
                    access("/proc/\(daemon.pid)/root/run/wireguard/\(device).sock", F_OK) == 0
                }
                configure = ["nsenter", "--mount=/proc/\(daemon.pid)/ns/mnt", "wg"]
            }
            try lab.require(
                configure + [
                    "set", device, "listen-port", "51820", "private-key", keys[index].secret, "peer",
                    keys[1 - index].open, "endpoint", "\(other.address):51820", "allowed-ips",
                    "10.210.0.\(2 - index)/32",
                ], in: pod.namespace)
            try lab.require(["ip", "addr", "add", "10.210.0.\(index + 1)/24", "dev", device], in: pod.namespace)
            try lab.require(
                ["ip", "link", "set", device, "mtu", "\(lab.plan.mtu - 80)", "up"], in: pod.namespace)
        }
        return running
    }
}
