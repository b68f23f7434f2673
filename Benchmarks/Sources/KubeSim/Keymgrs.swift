internal import Glibc
internal import Synchronization

/// The keymgrs of all nodes but the first, as the API server sees them: each publishes a moment later what the operator wants of it, holds
/// the keys of an epoch once that is there, and acknowledges slices as often as a real one of so many does.
final class Keymgrs: Sendable {
    typealias Bytes = [UInt8]

    private struct Endpoint: Sendable {
        var name: Bytes
        /// `"name":...,"addresses":...,"mode":...`
        var text: Bytes
        var since: Int
    }
    private struct Node: Sendable {
        var revision = 0
        var endpoints: [Endpoint] = []
    }
    private struct State {
        var nodes: [Node]
        var isWaiting: [Bool]
        var queue: [(node: Int, due: Double)] = []
        var head = 0
        /// The newest sequence in any slice.
        var sequence = 0
        var epochs: [Int] = []
        var sending = 0
        var since = ""
        var nextAcknowledgement = 1
        var writes = 0
    }
    private let state: Mutex<State>
    private let store: Store
    private let count: Int

    /// How long a node takes to find and attach a pod.
    private static let delay = 0.02
    /// Acknowledgements of all nodes together, a second: as the real ones are paced.
    private static let acknowledgements = 200.0

    init(_ store: Store, nodes: Int) {
        self.store = store
        count = nodes
        state = Mutex(
            State(nodes: Array(repeating: Node(), count: nodes), isWaiting: Array(repeating: false, count: nodes)))
    }

    var writes: Int { state.withLock { $0.writes } }

    func specChanged(_ name: String) {
        guard let number = Int(name.dropFirst(5)), number > 0, number < count else { return }
        enqueue([number])
    }

    private func enqueue(_ numbers: some Sequence<Int>) {
        let due = monotonic() + Self.delay
        state.withLock { state in
            for number in numbers where !state.isWaiting[number] {
                state.isWaiting[number] = true
                state.queue.append((number, due))
            }
        }
    }

    func epochChanged(_ name: String) {
        guard let number = Int(name.dropFirst(6)) else { return }
        let isNew = state.withLock { state in
            if state.epochs.contains(number) { return false }
            state.epochs.append(number)
            return true
        }
        if isNew { enqueue(1..<count) }
    }

    func sliceChanged(_ name: String) {
        guard let object = store.get(Kinds.slice, name) else { return }
        let mark = Array("\"sequence\":".utf8)
        guard let found = find(mark, in: object.inner[...]) else { return }
        var sequence = 0
        for byte in object.inner[(found + mark.count)...] {
            guard byte >= 0x30, byte <= 0x39 else { break }
            sequence = sequence * 10 + Int(byte - 0x30)
        }
        let newest = sequence
        state.withLock { $0.sequence = max($0.sequence, newest) }
    }

    func start() {
        startThread { [self] in
            var acknowledged = monotonic()
            var looked = 0.0
            while true {
                let now = monotonic()
                var due = state.withLock { state -> [Int] in
                    var due: [Int] = []
                    while state.head < state.queue.count, state.queue[state.head].due <= now, due.count < 500 {
                        let node = state.queue[state.head].node
                        state.isWaiting[node] = false
                        due.append(node)
                        state.head += 1
                    }
                    if state.head > 10_000 {
                        state.queue.removeFirst(state.head)
                        state.head = 0
                    }
                    return due
                }
                let more = Int((now - acknowledged) * Self.acknowledgements)
                if more > 0 {
                    acknowledged += Double(more) / Self.acknowledgements
                    due += state.withLock { state in
                        guard state.sequence > 0 else { return [] }
                        return (0..<more).map { _ in
                            state.nextAcknowledgement = state.nextAcknowledgement % (count - 1) + 1
                            return state.nextAcknowledgement
                        }
                    }
                }
                for node in due { publish(node) }
                if now - looked > 1 {
                    looked = now
                    follow()
                }
                pause(0.003)
            }
        }
    }

    /// When all others send with an epoch is decided alike on all nodes: here the real one is followed.
    private func follow() {
        guard let own = store.get(Kinds.encryptionNode, Kinds.node(0)),
            let text = RawJSON.value(own.json, "status", "sending"),
            let sending = Int(String(decoding: text, as: UTF8.self))
        else { return }
        let isNew = state.withLock { state in
            if state.sending == sending { return false }
            state.sending = sending
            state.since = rfc3339()
            return true
        }
        if isNew { enqueue(1..<count) }
    }

    private func publish(_ number: Int) {
        _ = try? store.change(Kinds.encryptionNode, Kinds.node(number)) { (before, version) throws(Store.Refusal) in
            guard let before else { return nil }
            let wanted = RawJSON.value(before.json, "spec", "endpoints").map { RawJSON.elements($0) } ?? []
            return state.withLock { state in
                update(&state.nodes[number], wanted)
                let node = state.nodes[number]
                let epochs = state.epochs.map { "\($0)" }.joined(separator: ",")
                state.writes += 1
                let status = Self.status(
                    number, revision: node.revision,
                    endpoints: node.endpoints.map { endpoint in
                        String(decoding: endpoint.text, as: UTF8.self) + "\(endpoint.since),\"until\":0}"
                    }, epochs: epochs, sending: state.sending, since: state.since, through: state.sequence)
                // The status is replaced as a whole; merged with the one before it would be the same.
                let patch = "{\"metadata\":{\"resourceVersion\":\"\(version)\"},\"status\":\(status)}"
                return Array(RawJSON.merge(before.json, Array(patch.utf8)[...]).dropFirst())
            }
        }
    }

    private func update(_ node: inout Node, _ wanted: [ArraySlice<UInt8>]) {
        var known = node.endpoints.reduce(into: [:]) { $0[$1.name] = $1 }
        var endpoints: [Endpoint] = []
        var isNew = wanted.count != node.endpoints.count
        for element in wanted {
            var name: Bytes = []
            var text: Bytes = [UInt8(ascii: "{")]
            for member in RawJSON.members(element) {
                let isName = RawJSON.isKey(member.key, "name")
                guard isName || RawJSON.isKey(member.key, "addresses") || RawJSON.isKey(member.key, "mode") else {
                    continue
                }
                if isName { name = Bytes(member.value) }
                text.append(UInt8(ascii: "\""))
                text.append(contentsOf: member.key)
                text.append(contentsOf: "\":".utf8)
                text.append(contentsOf: member.value)
                text.append(UInt8(ascii: ","))
            }
            text.append(contentsOf: "\"state\":\"ready\",\"since\":".utf8)
            if let before = known.removeValue(forKey: name), before.text == text {
                endpoints.append(before)
            } else {
                endpoints.append(Endpoint(name: name, text: text, since: node.revision + 1))
                isNew = true
            }
        }
        guard isNew else { return }
        node.revision += 1
        node.endpoints = endpoints
    }

    static func status(
        _ number: Int, revision: Int, endpoints: [String], epochs: String, sending: Int, since: String, through: Int
    ) -> String {
        let sendingSince = since.isEmpty || sending == 0 ? "" : ",\"sendingSince\":\"\(since)\""
        return
            "{\"id\":\(number + 1),\"incarnation\":\"\(Template.incarnation(number))\",\"lanes\":8,\"revision\":\(revision),\"endpointCount\":\(endpoints.count),\"endpoints\":[\(endpoints.joined(separator: ","))],\"epochs\":[\(epochs)],\"sending\":\(sending)\(sendingSince),\"appliedThrough\":\(through),\"notApplied\":[],\"engine\":\"ecb\",\"problems\":[],\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\",\"reason\":\"Working\",\"message\":\"sends with epoch \(sending)\",\"lastTransitionTime\":\"2026-01-02T03:04:05Z\"}],\"heartbeat\":\"2026-01-02T03:04:05Z\",\"version\":\"0.1.0\"}"
    }
}
