import Cluster
import Keys
import Testing

@testable import Agent

@Suite struct EpochDecisionTests {
    let start = Timestamp(milliseconds: 1_800_000_000_000)
    var cluster: Cluster {
        var cluster = Cluster(id: .random())
        cluster.drainSeconds = 2
        return cluster
    }

    func epoch(_ number: Epoch, from: Int64 = 0, lasts: Int64 = 1000, acknowledgeBy: Int64 = 60) -> EncryptionEpoch {
        EncryptionEpoch(
            number: number, wrappedDEK: Base64([1]), provider: "local", kekID: "file", kekVersion: "1",
            notBefore: start.adding(seconds: from), notAfter: start.adding(seconds: from + lasts),
            acknowledgeBy: start.adding(seconds: from + acknowledgeBy))
    }

    func node(_ epochs: [Epoch], sending: Epoch, since: Int64? = 0) -> EncryptionNode {
        var node = EncryptionNode(id: 1, incarnation: .random())
        node.epochs = epochs
        node.sending = sending
        node.sendingSince = since.map { start.adding(seconds: $0) }
        return node
    }

    func decide(_ epochs: [EncryptionEpoch], _ nodes: [EncryptionNode], at seconds: Int64) -> EpochDecision {
        .decide(
            cluster: cluster, epochs: epochs.reduce(into: [:]) { $0[$1.number] = $1 }, nodes: nodes,
            now: start.adding(seconds: seconds))
    }

    @Test func noEpochIsAnError() {
        let decision = decide([], [node([], sending: 0)], at: 0)
        #expect(decision.live.isEmpty && decision.sending == 0)
        #expect(decision.problems.first?.message.contains("there is none") == true)
    }

    @Test func theFirstEpochWaitsForEveryNode() {
        let one = [epoch(1)]
        #expect(decide(one, [node([1], sending: 0), node([], sending: 0)], at: 1).sending == 0)
        #expect(decide(one, [node([1], sending: 0), node([], sending: 0)], at: 1).states == [1: .prepared])
        #expect(decide(one, [node([1], sending: 0), node([1], sending: 0)], at: 1).sending == 1)
        #expect(decide(one, [], at: 1).sending == 0)
    }

    @Test func theDeadlineLeavesNodesBehind() {
        let two = [epoch(1), epoch(2)]
        let nodes = [node([1, 2], sending: 1), node([1], sending: 1)]
        let before = decide(two, nodes, at: 59)
        #expect(before.sending == 1 && before.live == [1, 2])
        #expect(before.nextChange == start.adding(seconds: 60))
        let after = decide(two, nodes, at: 60)
        #expect(after.sending == 2 && after.live == [1, 2] && after.states == [1: .retiring, 2: .active])
    }

    @Test func whatOneNodeBeganAllFollow() {
        let nodes = [node([1, 2], sending: 2), node([1, 2], sending: 1), node([], sending: 0)]
        #expect(decide([epoch(1), epoch(2)], nodes, at: 1).sending == 2)
    }

    @Test func anEpochRetiresWhenItsLastSenderHasLeftItAndPacketsHaveArrived() {
        let two = [epoch(1), epoch(2)]
        let nodes = [node([1, 2], sending: 2, since: 5), node([1, 2], sending: 2, since: 7)]
        #expect(decide(two, nodes, at: 8).live == [1, 2])
        #expect(decide(two, nodes, at: 8).nextChange == start.adding(seconds: 9))
        #expect(decide(two, nodes, at: 9).live == [2])
        #expect(decide(two, nodes, at: 9).states == [1: .ended, 2: .active])
    }

    @Test func whatHasEndedStaysEndedWhenSendersMoveOn() {
        let three = [epoch(1), epoch(2), epoch(3)]
        // Just switched to 3: that is no news about 1.
        let decision = decide(
            three, [node([2, 3], sending: 3, since: 20), node([2, 3], sending: 2, since: 5)], at: 21)
        #expect(decision.live == [2, 3] && decision.states[1] == .ended)
    }

    @Test func whatHasEndedHereDoesNotComeBack() {
        let decision = EpochDecision.decide(
            cluster: cluster, epochs: [1: epoch(1), 2: epoch(2)], nodes: [node([1, 2], sending: 1)], floor: 2,
            now: start.adding(seconds: 1))
        #expect(decision.live == [2] && decision.states[1] == .ended)
    }

    @Test(arguments: [0, 1] as [Epoch]) func aNodeThatDoesNotFollowIsWaitedForUntilLater(_ sending: Epoch) {
        let two = [epoch(1), epoch(2)]
        let nodes = [node([1, 2], sending: 2, since: 5), node([1, 2], sending: sending)]
        #expect(decide(two, nodes, at: 89).live == [1, 2])
        #expect(decide(two, nodes, at: 90).live == [2])
    }

    @Test func aClockFarAheadCannotKeepAnEpochAlive() {
        let nodes = [node([1, 2], sending: 2, since: 100_000)]
        #expect(decide([epoch(1), epoch(2)], nodes, at: 89).live == [1, 2])
        #expect(decide([epoch(1), epoch(2)], nodes, at: 90).live == [2])
    }

    @Test func aThirdEpochWaits() {
        let three = [epoch(1), epoch(2), epoch(3)]
        let nodes = [node([1, 2], sending: 1)]
        let decision = decide(three, nodes, at: 1)
        #expect(decision.live == [1, 2] && decision.states[3] == .waiting)
        let later = decide(three, [node([1, 2], sending: 2, since: 0)], at: 10)
        #expect(later.live == [2, 3] && later.states == [1: .ended, 2: .active, 3: .prepared])
    }

    @Test func twoOfOneParityAreNeverLiveTogether() {
        let decision = decide([epoch(1), epoch(3)], [node([1, 3], sending: 1)], at: 1)
        #expect(decision.live == [1])
        #expect(decision.problems.contains { $0.object == "epochs/3.json" && $0.message.contains("open epoch 2") })
        #expect(decide([epoch(1), epoch(3, lasts: 2000)], [node([1], sending: 1)], at: 1000).live == [3])
    }

    @Test func expiryIsHardAndAnnounced() {
        let nodes = [node([1], sending: 1)]
        #expect(decide([epoch(1)], nodes, at: 749).problems.isEmpty)
        #expect(decide([epoch(1)], nodes, at: 749).nextChange == start.adding(seconds: 750))
        #expect(decide([epoch(1)], nodes, at: 750).problems.map(\.severity) == [.warning])
        #expect(decide([epoch(1)], nodes, at: 900).problems.map(\.severity) == [.error])
        let end = decide([epoch(1)], nodes, at: 1000)
        #expect(end.live.isEmpty && end.sending == 0 && end.states == [1: .expired])
        #expect(end.problems.first?.message.contains("epoch 1 ended at") == true)
    }

    @Test func anEpochBeginsAtItsTime() {
        let epochs = [epoch(1), epoch(2, from: 100)]
        let nodes = [node([1], sending: 1)]
        #expect(decide(epochs, nodes, at: 99).live == [1])
        #expect(decide(epochs, nodes, at: 100).live == [1, 2])
    }
}
