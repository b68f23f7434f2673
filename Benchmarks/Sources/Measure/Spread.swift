/// What several runs of the same measurement gave.
public struct Spread: Codable, Sendable, Hashable {
    /// In the order of the rounds.
    public var samples: [Double]

    /// Makes a spread of samples.
    public init(_ samples: [Double] = []) {
        self.samples = samples
    }

    /// The middle one, or the mean of the two in the middle; nil without samples.
    public var median: Double? {
        guard !samples.isEmpty else { return nil }
        let sorted = samples.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }

    /// The lowest sample.
    public var low: Double? { samples.min() }
    /// The highest sample.
    public var high: Double? { samples.max() }

    private enum CodingKeys: String, CodingKey {
        case samples, median, low, high
    }

    /// Reads the samples; what follows from them is computed again.
    public init(from decoder: any Decoder) throws {
        samples = try decoder.container(keyedBy: CodingKeys.self).decode([Double].self, forKey: .samples)
    }

    /// Writes the samples and, for readers without a calculator, what follows from them.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(samples, forKey: .samples)
        try container.encode(median, forKey: .median)
        try container.encode(low, forKey: .low)
        try container.encode(high, forKey: .high)
    }
}

/// The value below which a share of the sorted values lies (nearest rank); nil without values.
public func percentile<Value: Comparable>(_ share: Double, ofSorted values: [Value]) -> Value? {
    guard !values.isEmpty else { return nil }
    let rank = Int((share * Double(values.count)).rounded(.up))
    return values[min(max(rank, 1), values.count) - 1]
}
