internal import CLibBPF
internal import CSys
internal import Glibc
internal import Synchronization

/// Collects what libbpf prints, by thread, so that an error can carry the verifier's words and nothing lands on standard error.
enum LibbpfLog {
    /// Messages of the threads that are collecting now.
    private static let collecting = Mutex<[pthread_t: String]>([:])

    /// libbpf has one print function for the process. Lazy, so that it is set exactly once.
    private static let isInstalled: Bool = {
        libbpf_set_print { level, format, arguments in
            guard level.rawValue <= LIBBPF_INFO.rawValue, let format, let arguments else { return 0 }
            return LibbpfLog.append(format, arguments)
        }
        return true
    }()

    /// Runs `body`, which calls libbpf, and returns its result with what libbpf printed meanwhile on this thread.
    static func collect<R>(_ body: () -> R) -> (R, String) {
        let thread = prepare()
        let result = body()
        let log = collecting.withLock { $0.removeValue(forKey: thread) ?? "" }
        return (result, log)
    }

    private static func prepare() -> pthread_t {
        _ = isInstalled
        let thread = pthread_self()
        collecting.withLock { $0[thread] = "" }
        return thread
    }

    private static func append(_ format: UnsafePointer<CChar>, _ arguments: CVaListPointer) -> Int32 {
        guard let text = csys_format(format, arguments) else { return 0 }
        defer { free(text) }
        let message = String(cString: text)
        let thread = pthread_self()
        collecting.withLock { logs in
            if logs[thread] != nil { logs[thread]? += message }
        }
        return 0
    }
}
