/// A pod as scheduler and kubelet know it.
struct PodRecord: Sendable {
    var number: Int
    var namespace: Int
    var app: Int
    var node: Int
    /// 0: none yet.
    var address: UInt32 = 0
    var assignedAt = 0.0

    var name: String { "app-\(app)-7d9f8b6c5-\(padded(number, 7))" }
    var key: String { "\(Kinds.namespace(namespace))/\(name)" }
    var uid: String { "5d0d8a2e-6b0f-4c5e-9d2b-\(padded(number, 12))" }
    var addressText: String { "\(address >> 24).\(address >> 16 & 255).\(address >> 8 & 255).\(address & 255)" }
    /// A policy or a VirtualService asks for it.
    var isProtected: Bool { app < Kinds.protectedApps }
}

/// All pods of the simulated cluster.
struct Population: Sendable {
    private(set) var pods: [PodRecord] = []
    private var running: [Int] = []
    private var waiting: [Int] = []
    private var head = 0
    private var nextAddress: UInt32 = 10 << 24 | 256
    private var random: UInt64 = 0x9e37_79b9_7f4a_7c15
    private let nodes: Int
    /// Protected addresses that there should be.
    var expected = 0
    /// Pods that ask for protection.
    var expectedPods = 0

    init(nodes: Int) { self.nodes = nodes }

    private mutating func draw(_ bound: Int) -> Int {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return Int(random % UInt64(bound))
    }

    /// A pod is created and scheduled, on any node but that of the real agent.
    mutating func add(at time: Double) -> Int {
        let number = pods.count
        pods.append(
            PodRecord(
                number: number, namespace: draw(Kinds.namespaces), app: draw(Kinds.apps), node: 1 + draw(nodes - 1),
                assignedAt: time))
        waiting.append(number)
        return number
    }

    /// The pod gets an address and runs.
    mutating func assign(_ number: Int, at time: Double) {
        nextAddress += 1
        pods[number].address = nextAddress
        pods[number].assignedAt = time
        running.append(number)
        if pods[number].isProtected {
            expected += 1
            expectedPods += 1
        }
        if head < waiting.count, waiting[head] == number { head += 1 }
    }

    /// The pod that has waited longest gets its address, after half a second at least.
    mutating func assignNext(_ now: Double) -> PodRecord? {
        guard head < waiting.count, now - pods[waiting[head]].assignedAt >= 0.5 else { return nil }
        let number = waiting[head]
        assign(number, at: now)
        return pods[number]
    }

    /// Any pod that runs, and a random number.
    mutating func any() -> (PodRecord, Int) { (pods[running[draw(running.count)]], draw(1 << 20)) }

    /// A pod is deleted: one that has run for a while, so that its address is everywhere.
    mutating func removeAny(_ now: Double) -> PodRecord? {
        for _ in 0..<100 {
            let index = draw(running.count)
            let pod = pods[running[index]]
            guard now - pod.assignedAt >= 15 else { continue }
            running.swapAt(index, running.count - 1)
            running.removeLast()
            if pod.isProtected { expected -= 1 }
            return pod
        }
        return nil
    }
}
