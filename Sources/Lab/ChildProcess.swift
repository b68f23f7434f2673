public import Glibc

/// What a command that has ended left behind.
public struct Outcome: Sendable {
    /// The exit status, or 128 + the signal that ended it.
    public let status: Int32
    /// Everything that it wrote to standard output.
    public let output: String
    /// Everything that it wrote to standard error.
    public let errors: String

    /// It exited with 0.
    public var succeeded: Bool { status == 0 }
}

/// A program that runs beside us, its output going to two files. Blocks its caller where it waits: the lab is a test bench,
/// with a thread to spare.
public final class ChildProcess: Sendable {
    /// Its process id. It stays ours until `wait` has returned.
    public let pid: Int32
    /// How it was called, for messages.
    public let command: [String]
    private let outputPath: String
    private let errorPath: String

    /// Starts a program, found in PATH, in a session of its own: a Ctrl-C in the terminal reaches us, and we stop it. Output goes to
    /// `log`.out and `log`.err.
    ///
    /// - Parameter input: a file for standard input; /dev/null when nil.
    public init(_ command: [String], environment: [String: String] = [:], input: String? = nil, log: String) throws {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        outputPath = log + ".out"
        errorPath = log + ".err"
        posix_spawn_file_actions_addopen(&actions, 0, input ?? "/dev/null", O_RDONLY, 0)
        let flags = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND
        posix_spawn_file_actions_addopen(&actions, 1, outputPath, flags, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, errorPath, flags, 0o600)

        // Signals that we ignore or handle must reach the program as usual.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        for signal in [SIGINT, SIGTERM, SIGPIPE, SIGCHLD] { sigaddset(&signals, signal) }
        posix_spawnattr_setsigdefault(&attributes, &signals)
        let setSession: Int32 = 0x80  // POSIX_SPAWN_SETSID; the macro needs _GNU_SOURCE
        posix_spawnattr_setflags(
            &attributes, Int16(Int32(POSIX_SPAWN_SETSIGDEF) | Int32(POSIX_SPAWN_SETSIGMASK) | setSession))

        var variables: [String] = []
        var next = environ
        while let entry = next.pointee {
            let variable = String(cString: entry)
            if !environment.keys.contains(where: { variable.hasPrefix($0 + "=") }) { variables.append(variable) }
            next += 1
        }
        variables += environment.map { "\($0)=\($1)" }

        let arguments = command.map { strdup($0) } + [nil]
        let environmentPointers = variables.map { strdup($0) } + [nil]
        defer { (arguments + environmentPointers).forEach { free($0) } }
        var pid: pid_t = 0
        let error = posix_spawnp(&pid, command[0], &actions, &attributes, arguments, environmentPointers)
        guard error == 0 else {
            throw LabError("cannot start \(command.joined(separator: " ")): \(String(cString: strerror(error)))")
        }
        self.pid = pid
        self.command = command
    }

    /// What it wrote to standard output up to now.
    public var output: String { (try? readFile(outputPath)) ?? "" }
    /// What it wrote to standard error up to now.
    public var errors: String { (try? readFile(errorPath)) ?? "" }

    /// Sends a signal. The process id cannot be another's: it is not reaped before `wait`.
    public func signal(_ number: Int32) {
        kill(pid, number)
    }

    /// It has not ended yet.
    public var isRunning: Bool {
        var info = siginfo_t()
        info.si_signo = 0
        return waitid(P_PID, id_t(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_signo == 0
    }

    /// Blocks until it has ended. Kills it and throws when the deadline passes first. Call it once.
    public func wait(until deadline: Deadline) throws -> Outcome {
        while isRunning {
            if deadline.hasPassed {
                kill(pid, SIGKILL)
                _ = reap()
                throw LabError("\(command.joined(separator: " ")) did not end in time; it said: \(output)\(errors)")
            }
            usleep(2000)
        }
        return Outcome(status: reap(), output: output, errors: errors)
    }

    /// Asks it to end with `signal`, then forces it. Returns what it left.
    @discardableResult
    public func stop(_ signal: Int32 = SIGTERM, patience: Double = 5) -> Outcome {
        kill(pid, signal)
        let deadline = Deadline.seconds(patience)
        while isRunning && !deadline.hasPassed { usleep(2000) }
        if isRunning { kill(pid, SIGKILL) }
        return Outcome(status: reap(), output: output, errors: errors)
    }

    private func reap() -> Int32 {
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        return status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
    }
}

/// The whole of a file, as text.
func readFile(_ path: String) throws -> String {
    String(decoding: try readBytes(path), as: UTF8.self)
}

/// The whole of a file, or what follows an offset.
func readBytes(_ path: String, from offset: Int = 0) throws -> [UInt8] {
    let fd = open(path, O_RDONLY | O_CLOEXEC)
    guard fd >= 0 else { throw LabError("cannot open \(path): \(String(cString: strerror(errno)))") }
    defer { close(fd) }
    if offset > 0 { lseek(fd, off_t(offset), SEEK_SET) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = read(fd, &buffer, buffer.count)
        guard count >= 0 else { throw LabError("cannot read \(path): \(String(cString: strerror(errno)))") }
        if count == 0 { return bytes }
        bytes += buffer[..<count]
    }
}

/// Writes a file, private to its owner.
func writeFile(_ path: String, _ text: String) throws {
    let fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    guard fd >= 0 else { throw LabError("cannot write \(path): \(String(cString: strerror(errno)))") }
    defer { close(fd) }
    var text = text
    let written = text.withUTF8 { write(fd, $0.baseAddress, $0.count) }
    guard written == text.utf8.count else {
        throw LabError("cannot write \(path): \(String(cString: strerror(errno)))")
    }
}

/// How many bytes a file has; 0 when it is not there.
func fileSize(_ path: String) -> Int {
    var status = stat()
    return stat(path, &status) == 0 ? Int(status.st_size) : 0
}
