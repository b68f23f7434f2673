import Keys
import Netlink
import Testing

@testable import Datapath

/// What is foretold is what the programs do: every combination of what the maps can say about two addresses, through the kernel.
@Suite(.serialized, .enabled(if: isRoot, needsRoot))
struct ForecastTests {
    private static let family = Frames.Family.ipv4
    private static let here = family.pod(1)
    private static let other = family.pod(2)
    private static let prefix = try? IPPrefix("10.9.0.0/16")

    /// What can stand about an address, absence included.
    private static let entries: [EndpointEntry?] =
        [nil]
        + [true, false].flatMap { strict in
            [true, false].flatMap { withdrawing in
                [
                    EndpointEntry.Place.remote(slot: 1), .remote(slot: 3), .local(since: 0, until: 0),
                    .local(since: 3, until: 0), .local(since: .max, until: 0), .local(since: 1, until: 2),
                    .local(since: 1, until: 9),
                ].map { EndpointEntry(place: $0, strict: strict, withdrawing: withdrawing) }
            }
        }

    private func set(_ instance: KernelInstance, _ address: IPAddress, _ entry: EndpointEntry?) throws {
        if let entry {
            try instance.setEndpoint(address, entry)
        } else {
            try instance.removeEndpoint(address)
        }
    }

    @Test func leaving() throws {
        let nodes = try Nodes()
        let sender = nodes.sender
        // A peer that has come this far, and none in slot 3.
        try sender.setPeer(slot: 1, PeerEntry(nodeID: 2, acknowledged: 2))
        let frame = Frames.plain(.tcp, Self.family, payload: Frames.payload(100), from: Self.here, to: Self.other)
        var causes: Set<Forecast.Cause> = []
        for epoch in [Nodes.epoch, 0, Nodes.epoch + 1] {
            try sender.setSending(epoch: epoch)
            for (isStrictCIDR, isService) in [(true, false), (false, true), (true, true), (false, false)] {
                try sender.setStrictCIDRs(Set((isStrictCIDR ? Self.prefix : nil).map { [$0] } ?? []))
                try sender.setServiceAddress(Self.other, refused: isService)
                for source in Self.entries {
                    try set(sender, Self.here, source)
                    for destination in Self.entries {
                        try set(sender, Self.other, destination)
                        let forecast = try sender.state().leaving(from: Self.here, to: Self.other)
                        let verdict = try sender.judge(frame, with: .encrypt).verdict
                        #expect(
                            forecast.verdict == verdict,
                            "epoch \(epoch), CIDR \(isStrictCIDR), service \(isService), \(String(describing: source)) to \(String(describing: destination))"
                        )
                        causes.insert(forecast.cause)
                    }
                }
            }
        }
        // Nothing is left out.
        #expect(causes == Set(Forecast.Cause.allCases).subtracting([.cleartext, .destinationNotHere]))
    }

    @Test func entering() throws {
        let nodes = try Nodes()
        let receiver = nodes.receiver
        let frame = Frames.plain(.tcp, Self.family, payload: Frames.payload(100), from: Self.here, to: Self.other)
        var counter: UInt64 = 0
        var causes: Set<Forecast.Cause> = []
        for isStrictCIDR in [true, false] {
            try receiver.setStrictCIDRs(Set((isStrictCIDR ? Self.prefix : nil).map { [$0] } ?? []))
            for source in Self.entries {
                try set(receiver, Self.here, source)
                for destination in Self.entries {
                    try set(receiver, Self.other, destination)
                    let state = try receiver.state()
                    let clear = state.enteringInClear(from: Self.here, to: Self.other)
                    #expect(
                        try clear.verdict == receiver.judge(frame, with: .decrypt).verdict,
                        "CIDR \(isStrictCIDR), \(String(describing: source)) to \(String(describing: destination))")
                    causes.insert(clear.cause)
                    let good = state.entering(from: Self.here, to: Self.other)
                    if source?.slot == 1 {
                        counter += 1
                        let sealed = nodes.wire(.tcp, Self.family, 100, counter: counter)
                        #expect(try good.verdict == receiver.judge(sealed, with: .decrypt).verdict)
                        #expect(good.verdict == .decrypted && good.epoch == Nodes.epoch && good.slot == 1)
                    } else {
                        #expect(good == clear)
                    }
                }
            }
        }
        #expect(
            causes == [
                .sameNode, .otherUnprotected, .otherUnknown, .withdrawing, .cleartext, .destinationNotHere,
            ])
        #expect(try receiver.state().receiving(slot: 1) == [Nodes.epoch])
    }
}
