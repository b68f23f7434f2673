internal import Synchronization

/// Versions of objects that turned out to be old when something was to be written over them.
final class Conflicts<Key: Hashable & Sendable>: Sendable {
    private let versions = Mutex<[Key: String]>([:])

    /// Notes a conflict. False when this version was the reason already: then nothing newer has arrived since.
    func isNew(_ key: Key, _ version: String?) -> Bool {
        versions.withLock { versions in versions.updateValue(version ?? "", forKey: key) != version ?? "" }
    }

    /// It was written, or is not to be written any more.
    func forget(_ key: Key) {
        versions.withLock { versions in versions[key] = nil }
    }
}
