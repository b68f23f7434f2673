internal import Cluster
internal import FoundationEssentials
internal import Netlink
internal import Keys

/// Writes JSON straight into bytes. For the two objects that are written all the time and are large: lists of endpoints.
struct JSONWriter {
    private(set) var bytes: [UInt8] = []
    private var needsComma = false

    mutating func object(_ body: (inout JSONWriter) -> Void) {
        open("{")
        body(&self)
        close("}")
    }

    mutating func array<Element>(_ elements: some Sequence<Element>, _ body: (inout JSONWriter, Element) -> Void) {
        open("[")
        for element in elements { body(&self, element) }
        close("]")
    }

    mutating func key(_ key: StaticString) {
        comma()
        key.withUTF8Buffer {
            bytes.append(UInt8(ascii: "\""))
            bytes.append(contentsOf: $0)
            bytes.append(UInt8(ascii: "\""))
            bytes.append(UInt8(ascii: ":"))
        }
        needsComma = false
    }

    mutating func string(_ text: String) {
        comma()
        bytes.append(UInt8(ascii: "\""))
        let isPlain = text.utf8.allSatisfy { $0 >= 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
        if isPlain { bytes.append(contentsOf: text.utf8) }
        for byte in isPlain ? "".utf8 : text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                bytes.append(UInt8(ascii: "\\"))
                bytes.append(byte)
            case 0..<0x20:
                let digits = Array("0123456789abcdef".utf8)
                bytes.append(contentsOf: Array("\\u00".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)]])
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    mutating func number(_ number: some BinaryInteger) {
        comma()
        bytes.append(contentsOf: String(number).utf8)
    }

    mutating func bool(_ value: Bool) {
        comma()
        bytes.append(contentsOf: (value ? "true" : "false").utf8)
    }

    private mutating func comma() {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        needsComma = true
    }

    private mutating func open(_ bracket: Unicode.Scalar) {
        comma()
        bytes.append(UInt8(ascii: bracket))
        needsComma = false
    }

    private mutating func close(_ bracket: Unicode.Scalar) {
        bytes.append(UInt8(ascii: bracket))
        needsComma = true
    }
}

extension JSONWriter {
    /// A merge patch that holds for one version of one object only.
    static func patch(
        resourceVersion: String?, uid: String? = nil, _ body: (inout JSONWriter) -> Void
    ) -> [UInt8] {
        var writer = JSONWriter()
        writer.object { writer in
            writer.key("metadata")
            writer.object { writer in
                if let resourceVersion {
                    writer.key("resourceVersion")
                    writer.string(resourceVersion)
                }
                if let uid {
                    writer.key("uid")
                    writer.string(uid)
                }
            }
            body(&writer)
        }
        return writer.bytes
    }

    /// `{"endpoints": [...]}` as a node's spec.
    mutating func spec(_ endpoints: [EncryptionNodeObject.Endpoint]) {
        object { writer in
            writer.key("endpoints")
            writer.array(endpoints) { writer, endpoint in
                writer.object { writer in
                    writer.key("name")
                    writer.string(endpoint.name)
                    writer.key("pod")
                    writer.object { writer in
                        writer.key("namespace")
                        writer.string(endpoint.pod.namespace)
                        writer.key("name")
                        writer.string(endpoint.pod.name)
                        writer.key("uid")
                        writer.string(endpoint.pod.uid)
                    }
                    writer.key("addresses")
                    writer.array(endpoint.addresses) { $0.string($1.description) }
                    writer.key("mode")
                    writer.string(endpoint.mode.rawValue)
                    writer.headers(endpoint.headers)
                    writer.key("policies")
                    writer.array(endpoint.policies) { $0.string($1) }
                }
            }
        }
    }

    /// A slice's spec.
    mutating func spec(_ slice: EncryptedEndpointSlice.Spec) {
        object { writer in
            writer.key("sequence")
            writer.number(slice.sequence)
            // For the columns that people see: those cannot count.
            writer.key("nodeCount")
            writer.number(slice.nodeCount)
            writer.key("addressCount")
            writer.number(slice.addressCount)
            if let changes = slice.changes {
                writer.key("changes")
                writer.array(changes) { $0.change($1) }
            } else {
                writer.key("nodes")
                writer.array(slice.nodes) { $0.entry($1) }
            }
        }
    }

    /// Nothing that has not changed, and nothing that goes without saying.
    private mutating func change(_ change: NodeChange) {
        object { writer in
            writer.key("name")
            writer.string(change.name)
            writer.key("after")
            writer.number(change.after)
            if let revision = change.revision {
                writer.key("revision")
                writer.number(revision)
            }
            if change.isWholeList {
                writer.key("all")
                writer.bool(true)
            }
            if !change.removed.isEmpty {
                writer.key("removed")
                writer.array(change.removed) { $0.string($1) }
            }
            if !change.endpoints.isEmpty {
                writer.key("endpoints")
                writer.array(change.endpoints) { $0.endpoint($1, in: change) }
            }
            if let epochs = change.epochs {
                writer.key("epochs")
                writer.array(epochs) { $0.number($1) }
            }
            if let sending = change.sending {
                writer.key("sending")
                writer.object { writer in
                    writer.key("epoch")
                    writer.number(sending.epoch)
                    if let since = sending.since {
                        writer.key("since")
                        writer.string(since.description)
                    }
                }
            }
            if let appliedThrough = change.appliedThrough {
                writer.key("appliedThrough")
                writer.number(appliedThrough)
            }
            if let notApplied = change.notApplied {
                writer.key("notApplied")
                writer.array(notApplied) { $0.string($1) }
            }
        }
    }

    private mutating func endpoint(_ endpoint: EncryptionNode.PublishedEndpoint, in change: NodeChange) {
        object { writer in
            writer.key("name")
            writer.string(endpoint.name)
            writer.key("addresses")
            writer.array(endpoint.addresses) { $0.string($1.description) }
            if endpoint.mode != .strict {
                writer.key("mode")
                writer.string(endpoint.mode.rawValue)
            }
            writer.headers(endpoint.headers)
            if endpoint.state != .ready {
                writer.key("state")
                writer.string(endpoint.state.rawValue)
            }
            if endpoint.since != change.revision {
                writer.key("since")
                writer.number(endpoint.since)
            }
            if endpoint.until != 0 {
                writer.key("until")
                writer.number(endpoint.until)
            }
            if let withdrawnAt = endpoint.withdrawnAt {
                writer.key("withdrawnAt")
                writer.string(withdrawnAt.description)
            }
        }
    }

    /// A member of an endpoint. Visible headers go without saying everywhere: nodes of before there were others know them only.
    private mutating func headers(_ headers: Headers) {
        guard headers != .visible else { return }
        key("headers")
        string(headers.rawValue)
    }

    private mutating func entry(_ entry: NodeEntry) {
        object { writer in
            let report = entry.report
            writer.key("name")
            writer.string(entry.name)
            writer.key("id")
            writer.number(report.id)
            writer.key("incarnation")
            writer.string(report.incarnation.description)
            if let lanes = report.lanes {
                writer.key("lanes")
                writer.number(lanes)
            }
            writer.key("revision")
            writer.number(report.revision)
            writer.key("endpoints")
            writer.array(report.endpoints) { $0.endpoint($1) }
            writer.key("epochs")
            writer.array(report.epochs) { $0.number($1) }
            writer.key("sending")
            writer.number(report.sending)
            if let since = report.sendingSince {
                writer.key("sendingSince")
                writer.string(since.description)
            }
            writer.key("appliedThrough")
            writer.number(report.appliedThrough)
            writer.key("notApplied")
            writer.array(report.notApplied) { $0.string($1) }
            writer.key("incarnationAt")
            writer.number(entry.incarnationAt)
            writer.key("history")
            writer.array(entry.history) { writer, publication in
                writer.object { writer in
                    writer.key("revision")
                    writer.number(publication.revision)
                    writer.key("at")
                    writer.number(publication.at)
                }
            }
        }
    }

    private mutating func endpoint(_ endpoint: EncryptionNode.PublishedEndpoint) {
        object { writer in
            writer.key("name")
            writer.string(endpoint.name)
            writer.key("addresses")
            writer.array(endpoint.addresses) { $0.string($1.description) }
            writer.key("mode")
            writer.string(endpoint.mode.rawValue)
            writer.headers(endpoint.headers)
            writer.key("state")
            writer.string(endpoint.state.rawValue)
            writer.key("since")
            writer.number(endpoint.since)
            writer.key("until")
            writer.number(endpoint.until)
            if let withdrawnAt = endpoint.withdrawnAt {
                writer.key("withdrawnAt")
                writer.string(withdrawnAt.description)
            }
        }
    }
}

/// JSON of small objects.
func json(_ value: some Encodable) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // What we encode holds numbers, text and lists only: nothing that can fail.
    return (try? encoder.encode(value)).map { Array($0) } ?? []
}
