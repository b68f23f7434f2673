import ArgumentParser
import Datapath
import Glibc

/// `xdp-encryptor gcm`: the cipher as the kernel runs it, on vectors of the caller's.
struct GCMCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gcm",
        abstract: "Seals and opens texts with the kernel's own AES-GCM.",
        discussion: """
            Reads JSON lines from standard input, runs each through the program that encrypts packets, loaded into the kernel for \
            the time of the command, and answers each with one line, in order. Values are hexadecimal digits. Needs root.

              {"op":"seal","key":K,"nonce":N,"aad":A,"plaintext":P}
                answers {"ciphertext":C,"tag":T}
              {"op":"open","key":K,"nonce":N,"aad":A,"ciphertext":C,"tag":T}
                answers {"plaintext":P} or {"error":"authentication failed"}

            Keys have 16 or 32 bytes, nonces 12, AAD 0 to 256, texts 0 to 3000, tags 16. A line that is wrong is answered with \
            {"error":"..."}, and the next one is read.

            EXAMPLE
              echo '{"op":"seal","key":"00000000000000000000000000000000", \\
                "nonce":"000000000000000000000000","aad":"","plaintext":""}' \\
                | xdp-encryptor gcm
              {"ciphertext":"","tag":"58e2fccefa7e3061367f1d57a4e7455a"}

            EXIT STATUS
              0 all lines were answered (errors on their lines included), 1 the kernel cannot run the program
            """)

    /// Longer than any line that can be answered: texts and AAD as digits, and room for blanks.
    private static let lineLimit = 1 << 16

    func run() throws {
        let cipher: KernelCipher
        do {
            cipher = try KernelCipher()
        } catch {
            throw Failure.exit("gcm: \(error.message)")
        }
        var splitter = LineSplitter(limit: Self.lineLimit)
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(STDIN_FILENO, &buffer, buffer.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw Failure.exit("cannot read standard input (errno \(errno))")
            }
            if count == 0 { break }
            // Answers go out before more input is waited for, so that a program can ask and wait.
            try answer(splitter.take(buffer[..<count]), cipher)
        }
        if let last = splitter.finish() { try answer([last], cipher) }
    }

    private func answer(_ lines: [LineSplitter.Line], _ cipher: KernelCipher) throws {
        var output: [UInt8] = []
        for line in lines {
            switch line {
            case .text(let bytes): output += KnownAnswer.answer(line: bytes, cipher).utf8
            case .tooLong:
                output += KnownAnswer.text(error: "the line is longer than \(Self.lineLimit) bytes").utf8
            }
            output.append(UInt8(ascii: "\n"))
        }
        try writeAll(output)
    }
}

/// Writes everything to standard output.
func writeAll(_ bytes: [UInt8]) throws {
    var written = 0
    while written < bytes.count {
        let count = bytes[written...].withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress, $0.count) }
        if count < 0 {
            if errno == EINTR { continue }
            throw Failure.exit("cannot write standard output (errno \(errno))")
        }
        written += count
    }
}
