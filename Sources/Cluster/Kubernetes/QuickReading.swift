internal import Keys
public import Kubernetes
internal import Netlink

// Nodes and slices without Codable: both are written all the time, and are large in a large cluster. What any of this gives up on is
// decoded as usual, which says what is wrong.

extension EncryptionNodeObject {
    /// Reads an object that is as it should be.
    public static func read(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> EncryptionNodeObject? {
        var metadata: ObjectMeta?
        var spec: Spec?
        var status: Status?
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            switch key {
            case "metadata": metadata = try ObjectMeta(json: &json, annotations: "ebpf.xdp/")
            case "spec": spec = try checked(try Self.spec(&json))
            case "status": status = try checked(try Self.status(&json))
            default: try json.skip()
            }
        }
        guard let metadata, let spec else { throw JSONReader.Unexpected() }
        var object = EncryptionNodeObject(name: metadata.name, spec: spec)
        object.metadata = metadata
        object.status = status
        return object
    }

    private static func spec(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> Spec {
        var spec = Spec(nodeID: 0)
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            switch key {
            case "nodeID": spec.nodeID = try json.integer()
            case "endpoints":
                try json.array { (json) throws(JSONReader.Unexpected) in
                    spec.endpoints.append(try endpoint(&json))
                }
            default: try json.skip()
            }
        }
        return spec
    }

    private static func endpoint(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> Endpoint {
        var name: String?
        var pod: Pod?
        var addresses: [IPAddress]?
        var mode: Mode?
        var headers: Headers? = .visible
        var policies: [String]?
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            switch key {
            case "name": name = try json.text().string
            case "pod":
                var (namespace, name, uid) = (String?.none, String?.none, String?.none)
                try json.object { (json, key) throws(JSONReader.Unexpected) in
                    switch key {
                    case "namespace": namespace = try json.text().string
                    case "name": name = try json.text().string
                    case "uid": uid = try json.text().string
                    default: try json.skip()
                    }
                }
                guard let namespace, let name, let uid else { throw JSONReader.Unexpected() }
                pod = Pod(namespace: namespace, name: name, uid: uid)
            case "addresses": addresses = try json.addresses()
            case "mode": mode = Mode(rawValue: try json.text().string)
            case "headers": headers = try json.headers()
            case "policies": policies = try json.strings()
            default: try json.skip()
            }
        }
        guard let name, let pod, let addresses, let mode, let headers, let policies else {
            throw JSONReader.Unexpected()
        }
        return Endpoint(
            name: name, pod: pod, addresses: addresses, mode: mode, headers: headers, policies: policies)
    }

    private static func status(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> Status {
        var status = Status(report: nil)
        var report = PartialReport()
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            if try report.take(key, &json) { return }
            switch key {
            case "engine": status.engine = try json.string()
            case "version": status.version = try json.string()
            case "heartbeat": status.heartbeat = try json.timestamp()
            case "problems":
                try json.array { (json) throws(JSONReader.Unexpected) in
                    status.problems.append(try problem(&json))
                }
            case "conditions":
                try json.array { (json) throws(JSONReader.Unexpected) in
                    status.conditions.append(try condition(&json))
                }
            default: try json.skip()
            }
        }
        status.report = report.incarnation == nil ? nil : try report.report()
        return status
    }

    private static func problem(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> Problem {
        var severity: Problem.Severity?
        var (object, message) = (String?.none, String?.none)
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            switch key {
            case "severity": severity = Problem.Severity(rawValue: try json.text().string)
            case "object": object = try json.text().string
            case "message": message = try json.text().string
            default: try json.skip()
            }
        }
        guard let severity, let object, let message else { throw JSONReader.Unexpected() }
        return Problem(severity, object, message)
    }

    private static func condition(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> Condition {
        var (type, reason, message) = (String?.none, String?.none, String?.none)
        var status: Condition.Status?
        var time: Timestamp?
        var generation: Int64?
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            switch key {
            case "type": type = try json.text().string
            case "status": status = Condition.Status(rawValue: try json.text().string)
            case "reason": reason = try json.text().string
            case "message": message = try json.text().string
            case "lastTransitionTime": time = try json.timestamp()
            case "observedGeneration": generation = try json.null() ? nil : try json.integer()
            default: try json.skip()
            }
        }
        guard let type, let status, let reason, let message, let time else { throw JSONReader.Unexpected() }
        return Condition(type, status, reason: reason, message: message, at: time, observedGeneration: generation)
    }
}

extension EncryptedEndpointSlice {
    /// Reads an object that is as it should be.
    public static func read(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> EncryptedEndpointSlice? {
        var metadata: ObjectMeta?
        var spec: Spec?
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            switch key {
            case "metadata": metadata = try ObjectMeta(json: &json, annotations: "ebpf.xdp/")
            case "spec":
                var sequence: Int64?
                var nodes: [NodeEntry]?
                var changes: [NodeChange]?
                try json.object { (json, key) throws(JSONReader.Unexpected) in
                    switch key {
                    case "sequence": sequence = try json.integer()
                    case "nodes":
                        var read: [NodeEntry] = []
                        try json.array { (json) throws(JSONReader.Unexpected) in read.append(try NodeEntry(json: &json))
                        }
                        nodes = read
                    case "changes":
                        var read: [NodeChange] = []
                        try json.array { (json) throws(JSONReader.Unexpected) in
                            read.append(try NodeChange(json: &json))
                        }
                        changes = read
                    default: try json.skip()
                    }
                }
                guard let sequence else { throw JSONReader.Unexpected() }
                if let changes {
                    spec = try checked(Spec(sequence: sequence, changes: changes))
                } else {
                    guard let nodes else { throw JSONReader.Unexpected() }
                    spec = try checked(Spec(sequence: sequence, nodes: nodes))
                }
            default: try json.skip()
            }
        }
        guard let metadata, let spec else { throw JSONReader.Unexpected() }
        var slice = EncryptedEndpointSlice(name: metadata.name, spec: spec)
        slice.metadata = metadata
        return slice
    }
}

extension NodeChange {
    fileprivate init(json: inout JSONReader) throws(JSONReader.Unexpected) {
        var name: String?
        var after: Int64?
        var change = NodeChange(name: "", after: 0)
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            switch key {
            case "name": name = try json.text().string
            case "after": after = try json.integer()
            case "revision": change.revision = try json.integer()
            case "all": change.isWholeList = try json.bool()
            case "removed": change.removed = try json.strings()
            case "endpoints":
                try json.array { (json) throws(JSONReader.Unexpected) in
                    change.endpoints.append(try publishedEndpoint(&json, isChange: true))
                }
            case "epochs":
                var read: [Epoch] = []
                try json.array { (json) throws(JSONReader.Unexpected) in read.append(try json.integer()) }
                change.epochs = read
            case "sending":
                var epoch: Epoch?
                var since: Timestamp?
                try json.object { (json, key) throws(JSONReader.Unexpected) in
                    switch key {
                    case "epoch": epoch = try json.integer()
                    case "since": since = try json.timestamp()
                    default: try json.skip()
                    }
                }
                guard let epoch else { throw JSONReader.Unexpected() }
                change.sending = Sending(epoch: epoch, since: since)
            case "appliedThrough": change.appliedThrough = try json.integer()
            case "notApplied": change.notApplied = try json.strings()
            default: try json.skip()
            }
        }
        guard let name, let after else { throw JSONReader.Unexpected() }
        (change.name, change.after) = (name, after)
        for index in change.endpoints.indices where change.endpoints[index].since == 0 {
            change.endpoints[index].since = change.revision ?? 0
        }
        self = change
    }
}

/// An endpoint. With `isChange` it is one of a change, where what goes without saying is left out: `since` is 0 where it is the change's
/// revision.
private func publishedEndpoint(
    _ json: inout JSONReader, isChange: Bool = false
) throws(JSONReader.Unexpected) -> EncryptionNode.PublishedEndpoint {
    var name: EndpointName?
    var addresses: [IPAddress]?
    var mode: Mode? = isChange ? .strict : nil
    var headers: Headers? = .visible
    var state: EncryptionNode.State? = isChange ? .ready : nil
    var (since, until): (UInt32?, UInt32?) = isChange ? (0, 0) : (nil, nil)
    var withdrawnAt: Timestamp?
    try json.object { (json, key) throws(JSONReader.Unexpected) in
        switch key {
        case "name": name = EndpointName(utf8: try json.text().bytes)
        case "addresses": addresses = try json.addresses()
        case "mode": mode = try json.mode()
        case "headers": headers = try json.headers()
        case "state": state = try json.state()
        case "since": since = try json.integer()
        case "until": until = try json.integer()
        case "withdrawnAt": withdrawnAt = try json.timestamp()
        default: try json.skip()
        }
    }
    guard let name, let addresses, let mode, let headers, let state, let since, let until else {
        throw JSONReader.Unexpected()
    }
    return EncryptionNode.PublishedEndpoint(
        key: name, addresses: addresses, mode: mode, headers: headers, state: state, since: since, until: until,
        withdrawnAt: withdrawnAt)
}

extension NodeEntry {
    fileprivate init(json: inout JSONReader) throws(JSONReader.Unexpected) {
        var report = PartialReport()
        var name: String?
        var incarnationAt: Int64?
        var history: [Publication] = []
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            if try report.take(key, &json) { return }
            switch key {
            case "name": name = try json.text().string
            case "incarnationAt": incarnationAt = try json.integer()
            case "history":
                try json.array { (json) throws(JSONReader.Unexpected) in
                    var (revision, at) = (UInt32?.none, Int64?.none)
                    try json.object { (json, key) throws(JSONReader.Unexpected) in
                        switch key {
                        case "revision": revision = try json.integer()
                        case "at": at = try json.integer()
                        default: try json.skip()
                        }
                    }
                    guard let revision, let at else { throw JSONReader.Unexpected() }
                    history.append(Publication(revision: revision, at: at))
                }
            default: try json.skip()
            }
        }
        guard let name, let incarnationAt else { throw JSONReader.Unexpected() }
        self.init(name: name, report: try report.report(), incarnationAt: incarnationAt, history: history)
    }
}

/// The members of a report, which stand among others.
private struct PartialReport {
    var id: NodeID?
    var incarnation: Incarnation?
    var lanes: UInt32?
    var revision: UInt32 = 0
    var endpoints: [EncryptionNode.PublishedEndpoint] = []
    var epochs: [Epoch] = []
    var sending: Epoch = 0
    var sendingSince: Timestamp?
    var appliedThrough: Int64 = 0
    var notApplied: [String] = []

    /// Takes a member if it is one of a report.
    mutating func take(_ key: JSONReader.Text, _ json: inout JSONReader) throws(JSONReader.Unexpected) -> Bool {
        switch key {
        case "id": id = try json.integer()
        case "incarnation":
            guard let read = Incarnation(hex: try json.text().string) else { throw JSONReader.Unexpected() }
            incarnation = read
        case "lanes": lanes = try json.null() ? nil : try json.integer()
        case "revision": revision = try json.null() ? 0 : try json.integer()
        case "endpoints":
            var read: [EncryptionNode.PublishedEndpoint] = []
            try json.array { (json) throws(JSONReader.Unexpected) in read.append(try publishedEndpoint(&json)) }
            // As large as it has to be: an array that has grown has room for twice as many.
            endpoints = read.map(\.self)
        case "epochs":
            var read: [Epoch] = []
            try json.array { (json) throws(JSONReader.Unexpected) in read.append(try json.integer()) }
            epochs = read
        case "sending": sending = try json.null() ? 0 : try json.integer()
        case "sendingSince": sendingSince = try json.timestamp()
        case "appliedThrough": appliedThrough = try json.null() ? 0 : try json.integer()
        case "notApplied": notApplied = try json.strings()
        default: return false
        }
        return true
    }

    func report() throws(JSONReader.Unexpected) -> NodeReport {
        guard let id, let incarnation else { throw JSONReader.Unexpected() }
        var node = EncryptionNode(id: id, incarnation: incarnation)
        node.lanes = lanes
        node.revision = revision
        node.endpoints = endpoints
        node.epochs = epochs
        node.sending = sending
        node.sendingSince = sendingSince
        return NodeReport(node, appliedThrough: appliedThrough, notApplied: notApplied)
    }
}

private func checked<Value: Checked>(_ value: Value) throws(JSONReader.Unexpected) -> Value {
    do throws(InvalidValue) {
        try value.check()
    } catch {
        throw JSONReader.Unexpected()
    }
    return value
}

extension JSONReader {
    fileprivate mutating func strings() throws(JSONReader.Unexpected) -> [String] {
        var strings: [String] = []
        try array { (json) throws(JSONReader.Unexpected) in strings.append(try json.text().string) }
        return strings
    }

    fileprivate mutating func mode() throws(JSONReader.Unexpected) -> Mode? {
        switch try text() {
        case "strict": .strict
        case "permissive": .permissive
        default: nil
        }
    }

    fileprivate mutating func headers() throws(JSONReader.Unexpected) -> Headers? {
        switch try text() {
        case "visible": .visible
        case "hidden": .hidden
        default: nil
        }
    }

    fileprivate mutating func state() throws(JSONReader.Unexpected) -> EncryptionNode.State? {
        switch try text() {
        case "ready": .ready
        case "withdrawing": .withdrawing
        default: nil
        }
    }

    fileprivate mutating func timestamp() throws(JSONReader.Unexpected) -> Timestamp? {
        guard let text = try string() else { return nil }
        guard let time = Timestamp(text) else { throw JSONReader.Unexpected() }
        return time
    }

    fileprivate mutating func addresses() throws(JSONReader.Unexpected) -> [IPAddress] {
        var addresses: [IPAddress] = []
        try array { (json) throws(JSONReader.Unexpected) in
            guard let address = IPAddress(ascii: try json.text().bytes) else { throw JSONReader.Unexpected() }
            addresses.append(address)
        }
        return addresses
    }
}
