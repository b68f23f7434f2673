/// Rows and columns for a terminal: the first column to the left, the others to the right.
public struct Table: Sendable {
    private var rows: [[String]] = []

    /// A table with a head.
    public init(_ head: [String]) {
        rows = [head]
    }

    /// Adds a row. Cells that are missing stay empty.
    public mutating func add(_ row: [String]) {
        rows.append(row)
    }

    /// The table as lines, columns two spaces apart.
    public var lines: [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in
            rows.map { $0.count > column ? $0[column].count : 0 }.max() ?? 0
        }
        return rows.map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                let padding = String(repeating: " ", count: widths[column] - cell.count)
                line += (column == 0 ? "" : "  ") + (column == 0 ? cell + padding : padding + cell)
            }
            while line.hasSuffix(" ") { line.removeLast() }
            return line
        }
    }
}

/// A number with so many digits after the point and its thousands apart: 12,345.6.
public func number(_ value: Double, digits: Int = 0) -> String {
    guard value.isFinite, abs(value) < 1e15 else { return "\(value)" }
    var factor = 1.0
    for _ in 0..<digits { factor *= 10 }
    let scaled = Int64((abs(value) * factor).rounded())
    let whole = String(scaled / Int64(factor))
    var text = ""
    for (index, character) in whole.enumerated() {
        if index > 0 && (whole.count - index) % 3 == 0 { text += "," }
        text.append(character)
    }
    if digits > 0 {
        let rest = String(scaled % Int64(factor))
        text += "." + String(repeating: "0", count: digits - rest.count) + rest
    }
    return (value < 0 && scaled != 0 ? "-" : "") + text
}

extension Report {
    /// One workload's table: a row for each candidate.
    public func table(_ workload: Workload) -> [String] {
        var table = Table([workload.title] + workload.metrics.map(\.title))
        for candidate in candidates where candidate.absent == nil {
            let results = candidate.results[workload.name]
            table.add(
                ["  " + candidate.name]
                    + workload.metrics.map { metric in
                        guard let spread = results?[metric.rawValue], let median = spread.median else { return "-" }
                        let text = number(median, digits: metric.digits)
                        guard metric.showsSpread, spread.samples.count > 1, let low = spread.low, let high = spread.high
                        else { return text }
                        return
                            "\(text) (\(number(low, digits: metric.digits)) to \(number(high, digits: metric.digits)))"
                    })
        }
        return table.lines
    }

    /// Who takes part, and who does not and why.
    public var participants: [String] {
        candidates.map { candidate in
            candidate.absent.map { "\(candidate.name): absent: \($0)" } ?? "\(candidate.name): \(candidate.note)"
        }
    }

    /// A line for each target.
    public var verdicts: [String] { Self.verdicts(of: targets) }

    /// A line for each target, with what *plain* reaches where that says something.
    public static func verdicts(of targets: [Target]) -> [String] {
        let hasPlain = targets.contains { $0.plain != nil }
        var table = Table(["", "wanted", "measured", ""] + (hasPlain ? ["without encryption"] : []))
        for target in targets {
            table.add([
                target.what, "\(target.atLeast ? "≥" : "≤") \(number(target.wanted, digits: 2))",
                target.measured.map { number($0, digits: 2) } ?? "-",
                target.holds.map { $0 ? "holds" : "FAILS" } ?? "not measured",
                target.plain.map { number($0, digits: 2) } ?? "",
            ])
        }
        return table.lines
    }
}
