/// Bars, as SVG: readable on light and on dark ground.
public struct Plot: Sendable {
    /// Bars that are compared with each other.
    public struct Panel: Sendable {
        /// What the bars show, with its unit.
        public var title: String
        /// Name, value, and how far samples reached; nil: no value, only the name.
        public var bars: [(name: String, spread: Spread?)]
        /// Digits after the point.
        public var digits: Int

        /// A panel of bars.
        public init(title: String, bars: [(name: String, spread: Spread?)], digits: Int) {
            self.title = title
            self.bars = bars
            self.digits = digits
        }
    }

    private let title: String
    private let foot: [String]
    private let panels: [Panel]

    /// A plot of panels, one below the other.
    public init(title: String, foot: [String], panels: [Panel]) {
        self.title = title
        self.foot = foot
        self.panels = panels
    }

    /// The document.
    public var svg: String {
        let width = 760.0
        let left = 190.0
        let right = 150.0
        let bar = 18.0
        var y = 40.0
        var body = text(20, 26, title, "font-weight='bold' font-size='16'")
        for panel in panels {
            y += 28
            body += text(20, y, panel.title, "font-weight='bold'")
            y += 10
            let most = panel.bars.compactMap { $0.spread?.high }.max() ?? 1
            let scale = (width - left - right) / max(most, .leastNormalMagnitude)
            for (name, spread) in panel.bars {
                body += text(left - 8, y + 14, name, "text-anchor='end'")
                if let spread, let median = spread.median, let low = spread.low, let high = spread.high {
                    let ours = name.hasPrefix("ours")
                    body +=
                        "<rect x='\(left)' y='\(y + 2)' width='\(round(median * scale))' height='\(bar - 4)' fill='\(ours ? "#d9480f" : "#74879b")'/>\n"
                    let middle = y + bar / 2
                    body +=
                        "<path d='M\(left + round(low * scale)) \(middle)H\(left + round(high * scale))' stroke='#222' stroke-width='1.5' stroke-opacity='0.7'/>\n"
                    body += text(left + round(high * scale) + 6, y + 14, number(median, digits: panel.digits), "")
                } else {
                    body += text(left + 4, y + 14, "absent", "fill-opacity='0.6'")
                }
                y += bar
            }
        }
        y += 24
        for line in foot {
            body += text(20, y, line, "font-size='11' fill-opacity='0.8'")
            y += 15
        }
        return """
            <svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 \(width) \(y)' width='\(width)' height='\(y)' \
            font-family='system-ui, sans-serif' font-size='13' fill='#222'>
            <rect width='\(width)' height='\(y)' fill='#fff'/>
            \(body)</svg>

            """
    }

    private func round(_ value: Double) -> Double { (value * 10).rounded() / 10 }

    private func text(_ x: Double, _ y: Double, _ text: String, _ attributes: String) -> String {
        var escaped = ""
        for character in text {
            switch character {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            default: escaped.append(character)
            }
        }
        return "<text x='\(x)' y='\(y)' \(attributes)>\(escaped)</text>\n"
    }
}
