public import Cluster
internal import Kubernetes

/// The status of every policy: how many pods it selects, how many of them are protected, and what stands against it.
public struct PolicyStatusPlan: Sendable {
    private struct Count {
        var selected = 0
        var protected = 0
        var hostNetwork = 0
        var waiting = 0
        /// Pods that opted out and are let.
        var optedOut = 0
        /// Pods that opted out and are not let.
        var overruled = 0
        /// Pods that something stricter asks for too.
        var stricter = 0
        /// Who that is.
        var rivals: Set<String> = []
        /// Protected pods whose headers their node does not hide yet.
        var unhidden = 0
        /// Pods whose headers something else hides.
        var hiddenByOthers = 0
        /// Who that is.
        var hiders: Set<String> = []
        var addressProblem: String?
    }

    /// Statuses by policy.
    public static func plan(
        _ inventory: Inventory, translation: ServiceTranslation, now: Timestamp
    ) -> [String: EncryptionPolicy.Status] {
        let rules = inventory.rules.policies
        guard !rules.isEmpty else { return [:] }
        var counts = [Count](repeating: Count(), count: rules.count)
        let hides = rules.contains { $0.headers == .hidden }
        for (node, keys) in inventory.podsByNode {
            let ready = inventory.encryptionNodes[node]?.ready ?? []
            let hidden = hides ? inventory.encryptionNodes[node]?.hidden ?? [] : []
            for key in keys {
                guard let entry = inventory.pods[key], !entry.facts.isFinished else { continue }
                for index in inventory.policies(selecting: entry.facts) where index < rules.count {
                    count(key, entry, rules[index], ready, hidden, inventory, &counts[index])
                }
            }
        }
        return rules.enumerated().reduce(into: [:]) { statuses, pair in
            let (index, rule) = pair
            guard let policy = inventory.policies[rule.name] else { return }
            statuses[rule.name] = status(policy, rule, counts[index], translation, now)
        }
    }

    private static func count(
        _ key: ObjectKey, _ entry: PodEntry, _ rule: PolicyRule, _ ready: Set<String>, _ hidden: Set<String>,
        _ inventory: Inventory, _ count: inout Count
    ) {
        count.selected += 1
        switch entry.decision.why {
        case .hostNetwork: count.hostNetwork += 1
        case .optedOut: count.optedOut += 1
        case .notAsked, .finished: break
        case .asked, .enforced:
            if ready.contains(entry.facts.uid) { count.protected += 1 } else { count.waiting += 1 }
            if rule.headers == .hidden, entry.decision.headers == .hidden, ready.contains(entry.facts.uid),
                !hidden.contains(entry.facts.uid)
            {
                count.unhidden += 1
            }
            if entry.decision.why == .enforced {
                if rule.isEnforced { count.overruled += 1 } else { count.optedOut += 1 }
            }
            if rule.mode == .permissive, entry.decision.mode == .strict {
                count.stricter += 1
                if count.rivals.count < 4 {
                    count.rivals.formUnion(entry.decision.asks.filter { $0.mode == .strict }.map(\.source))
                }
            }
            if rule.headers == .visible, entry.decision.headers == .hidden {
                count.hiddenByOthers += 1
                if count.hiders.count < 4 {
                    count.hiders.formUnion(entry.decision.asks.filter { $0.headers == .hidden }.map(\.source))
                }
            }
            if count.addressProblem == nil {
                count.addressProblem = inventory.addressProblems(key, entry.facts).first.map { "pod \(key): \($0)" }
            }
        }
    }

    private static func status(
        _ policy: EncryptionPolicy, _ rule: PolicyRule, _ count: Count, _ translation: ServiceTranslation,
        _ now: Timestamp
    ) -> EncryptionPolicy.Status {
        let conditions = [
            accepted(rule, now), enforcing(rule, count, translation, now),
            Condition(
                "ServiceTranslation", translation.works.map { $0 ? .isTrue : .isFalse } ?? .unknown,
                reason: translation.reason, message: translation.message, at: now),
            conflict(count, now),
        ].map { condition in
            var condition = condition
            condition.observedGeneration = policy.metadata.generation
            return condition
        }
        return EncryptionPolicy.Status(
            observedGeneration: policy.metadata.generation, selectedPods: count.selected,
            protectedPods: count.protected,
            conditions: conditions.keepingTransitions(of: policy.status?.conditions ?? []))
    }

    private static func accepted(_ rule: PolicyRule, _ now: Timestamp) -> Condition {
        if !rule.problems.isEmpty {
            let inForce =
                rule.isEarlier
                ? "the spec before it stays in force"
                : "what can be understood is in force, in its stricter meaning, and nothing is lifted until this is right"
            return Condition(
                "Accepted", .isFalse, reason: "Invalid",
                message: "\(rule.problems.joined(separator: "; ")); \(inForce)",
                at: now)
        }
        return Condition("Accepted", .isTrue, reason: "Accepted", message: "the policy is in force", at: now)
    }

    private static func enforcing(
        _ rule: PolicyRule, _ count: Count, _ translation: ServiceTranslation, _ now: Timestamp
    ) -> Condition {
        func condition(_ status: Condition.Status, _ reason: String, _ message: String) -> Condition {
            Condition("Enforcing", status, reason: reason, message: message, at: now)
        }
        let candidates = count.selected - count.hostNetwork - count.optedOut
        var remarks: [String] = []
        if count.hostNetwork > 0 {
            remarks.append("\(count.hostNetwork) share their node's network and cannot be protected")
        }
        if count.optedOut > 0 { remarks.append("\(count.optedOut) have opted out by annotation") }
        let rest = remarks.isEmpty ? "" : "; of \(count.selected) selected pods \(remarks.joined(separator: ", "))"
        if count.selected == 0 { return condition(.isFalse, "NoPods", "no running pod is selected") }
        if candidates == 0 { return condition(.isFalse, "NoPodToProtect", "no selected pod can be protected\(rest)") }
        if let problem = count.addressProblem { return condition(.isFalse, "AddressConflict", problem) }
        if count.protected < candidates {
            return condition(
                .isFalse, "Pending",
                "\(count.protected) of \(candidates) pods are protected; the others wait for an address, for their node, or for the keymgr there\(rest)"
            )
        }
        if count.unhidden > 0 {
            return condition(
                .isFalse, "Pending",
                "\(count.protected) of \(candidates) pods are protected, but the headers of \(count.unhidden) are still visible: the keymgr of their node has not said yet that it hides them, or is too old to\(rest)"
            )
        }
        if translation.works == false {
            return condition(
                .isFalse, "ServiceTranslation",
                "traffic between the \(count.protected) pods is encrypted, but connections through ClusterIP services do not work: \(translation.message)\(rest)"
            )
        }
        let mode = rule.mode == .strict ? "clear text is dropped" : "clear text is passed and counted"
        var headers = rule.headers == .hidden ? ", headers are hidden" : ""
        if count.hiddenByOthers > 0 {
            // No conflict: visible is what a policy says that does not care.
            let hiders = count.hiders.sorted().prefix(4).joined(separator: ", ")
            headers = ", headers of \(count.hiddenByOthers) are hidden, because that is asked for by \(hiders)"
        }
        return condition(.isTrue, "AllProtected", "all \(count.protected) pods are protected; \(mode)\(headers)\(rest)")
    }

    private static func conflict(_ count: Count, _ now: Timestamp) -> Condition {
        if count.stricter > 0 {
            let rivals = count.rivals.sorted().prefix(4).joined(separator: ", ")
            return Condition(
                "Conflict", .isTrue, reason: "StricterWins",
                message: "\(count.stricter) pods are held strictly, because that is asked for by \(rivals)", at: now)
        }
        if count.overruled > 0 {
            return Condition(
                "Conflict", .isTrue, reason: "OptOutOverruled",
                message:
                    "\(count.overruled) pods have \(PodAnnotation.encrypt) \"false\"; the policy is enforced, so they are protected all the same",
                at: now)
        }
        return Condition("Conflict", .isFalse, reason: "None", message: "nothing contradicts the policy", at: now)
    }
}
