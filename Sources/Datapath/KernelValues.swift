internal import BPFObjects
internal import Keys
internal import Netlink

// Between the C structs of bpf/wire.h and the values that the rest of the product uses.

/// Copies the bytes of a C array, which Swift sees as a tuple.
func bytes<T: BitwiseCopyable>(of tuple: T) -> [UInt8] {
    withUnsafeBytes(of: tuple) { Array($0) }
}

/// Fills a C array, which Swift sees as a tuple, from bytes. Both must have the same size.
func fill<T: BitwiseCopyable>(_ tuple: inout T, from bytes: some Collection<UInt8>) {
    withUnsafeMutableBytes(of: &tuple) { target in
        precondition(target.count == bytes.count, "the C array has another size")
        target.copyBytes(from: bytes)
    }
}

extension xe_address {
    init(_ address: IPAddress) {
        self.init()
        withUnsafeMutableBytes(of: &word) { target in
            target.storeBytes(of: address.high.bigEndian, as: UInt64.self)
            target.storeBytes(of: address.low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
    }

    /// Sixteen bytes are always an address. Without an array on the way: maps have a hundred thousand of them.
    var address: IPAddress? {
        withUnsafeBytes(of: word) { bytes in
            IPAddress(
                high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
                low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        }
    }
}

extension xe_cidr {
    init(_ prefix: IPPrefix) {
        self.init(prefix_len: UInt32(prefix.length), address: xe_address(prefix.address))
    }

    var prefix: IPPrefix? {
        guard let address = address.address, let length = UInt8(exactly: prefix_len) else { return nil }
        return IPPrefix(address: address, length: length)
    }
}

extension xe_endpoint {
    init(_ entry: EndpointEntry) {
        self.init()
        if entry.strict { flags |= UInt32(XE_ENDPOINT_STRICT.rawValue) }
        if entry.withdrawing { flags |= UInt32(XE_ENDPOINT_WITHDRAWING.rawValue) }
        if entry.hidden { flags |= UInt32(XE_ENDPOINT_HIDDEN.rawValue) }
        switch entry.place {
        case .local(let since, let until):
            flags |= UInt32(XE_ENDPOINT_LOCAL.rawValue)
            self.since = since
            self.until = until
        case .remote(let slot):
            self.slot = slot
        }
    }

    var entry: EndpointEntry {
        func has(_ flag: xe_endpoint_flag) -> Bool { flags & UInt32(flag.rawValue) != 0 }
        return EndpointEntry(
            place: has(XE_ENDPOINT_LOCAL) ? .local(since: since, until: until) : .remote(slot: slot),
            strict: has(XE_ENDPOINT_STRICT), withdrawing: has(XE_ENDPOINT_WITHDRAWING),
            hidden: has(XE_ENDPOINT_HIDDEN))
    }
}

extension xe_association {
    /// What can be known of the key; nil when there is none.
    var info: AssociationInfo? {
        guard epoch != 0, let keyID = KeyID(bytes: bytes(of: key_id)) else { return nil }
        return AssociationInfo(
            epoch: epoch, peerNodeID: peer_node, spi: UInt32(bigEndian: spi), keyID: keyID,
            engine: AssociationInfo.Engine(rawValue: engine) ?? .ecb)
    }
}

extension AssociationID {
    /// XE_ASSOCIATION of bpf/wire.h.
    var index: UInt32 { slot * 4 + direction.rawValue * 2 + parity }

    init(index: UInt32) {
        self.init(slot: index / 4, direction: index & 2 == 0 ? .send : .receive, epoch: index & 1)
    }
}
