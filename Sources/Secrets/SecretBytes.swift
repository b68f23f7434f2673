/// Secret bytes: read through a closure only, zeroed on release, never printed.
public final class SecretBytes: Sendable {
    /// How many bytes there are.
    public let count: Int

    init(count: Int) {
        self.count = count
    }
}
