/// The number of a data key's period of use. 0 means "none".
public typealias Epoch = UInt32

/// A node's number in the cluster, 1 to 2^24 - 1.
public typealias NodeID = UInt32

/// The numbers that a node may have: they must fit into the low 24 bits of an SPI, and 0 means "none".
public let nodeIDs: ClosedRange<NodeID> = 1...0xff_ffff
