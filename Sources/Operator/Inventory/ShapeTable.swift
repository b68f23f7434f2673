/// What selectors see of a pod. Pods of one ReplicaSet share it.
struct PodShape: Hashable, Sendable {
    var namespace: String
    var labels: [String: String]
}

/// What the rules say to a shape.
struct ShapeSelection: Sendable {
    /// Indices of the policies that select it.
    var policies: [Int]
    /// Services with asks whose selector fits it.
    var services: [ServiceName]
    /// Who asks for its protection, sorted.
    var asks: [Ask]
}

/// Shapes by number, counted, so that what the rules say is worked out once for all pods that look alike.
struct ShapeTable: Sendable {
    private struct Slot {
        var shape: PodShape
        var count: Int
        var selection: ShapeSelection?
    }
    private var numbers: [PodShape: Int32] = [:]
    private var slots: [Slot?] = []
    private var free: [Int32] = []

    /// Counts one more user of a shape.
    mutating func acquire(_ shape: PodShape) -> Int32 {
        if let number = numbers[shape] {
            slots[Int(number)]?.count += 1
            return number
        }
        let slot = Slot(shape: shape, count: 1)
        let number: Int32
        if let reused = free.popLast() {
            number = reused
            slots[Int(reused)] = slot
        } else {
            number = Int32(slots.count)
            slots.append(slot)
        }
        numbers[shape] = number
        return number
    }

    /// Counts one user less.
    mutating func release(_ number: Int32) {
        guard let slot = slots[Int(number)] else { return }
        if slot.count > 1 {
            slots[Int(number)]?.count = slot.count - 1
        } else {
            numbers[slot.shape] = nil
            slots[Int(number)] = nil
            free.append(number)
        }
    }

    /// The shape of a number that is in use.
    subscript(_ number: Int32) -> PodShape { slots[Int(number)]?.shape ?? PodShape(namespace: "", labels: [:]) }

    /// What the rules say to a shape, worked out when it is first asked for.
    mutating func selection(_ number: Int32, _ evaluate: (PodShape) -> ShapeSelection) -> ShapeSelection {
        if let known = slots[Int(number)]?.selection { return known }
        let selection = evaluate(self[number])
        slots[Int(number)]?.selection = selection
        return selection
    }

    /// What is known of what the rules say to a shape.
    func knownSelection(_ number: Int32) -> ShapeSelection? { slots[Int(number)]?.selection }

    /// The rules have changed.
    mutating func forgetSelections() {
        for index in slots.indices { slots[index]?.selection = nil }
    }

    /// How many different shapes there are.
    var count: Int { numbers.count }
}
