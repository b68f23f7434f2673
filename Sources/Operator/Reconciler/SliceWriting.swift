internal import Cluster
internal import Kubernetes
internal import Logging

extension LeaderSession {
    /// Keeps slices as nodes say. One write after the other: that is what makes their numbers mean something.
    func runSlices() async {
        guard var book = await takeOver() else { return }
        var acknowledgementsAt = clock.now()
        let alarm = Alarm(signal: slicesChanged, clock: clock)
        var failures = 0
        // When each slice was written last. Every node reads every write: one that changes all the time is not written all the time.
        var writtenAt: [String: Duration] = [:]
        var complaint: KubernetesError.Code?
        while !Task.isCancelled {
            let (reports, events) = await hub.takeReports()
            for (node, report) in reports { book.update(node, report) }
            var isGood = true
            for (name, event) in events where !(await look(at: name, event, &book)) {
                isGood = false
                await hub.putBack(name, event)
            }

            let begin = clock.now()
            let isTime = begin >= acknowledgementsAt
            // What somebody waits for goes first, and small before large.
            if isGood { isGood = await writeChanges(withAcknowledgements: isTime, &book) }
            var isCut = false
            let interval = pace.slice * min(book.count, 100)
            for name in isGood ? due(book, isTime, writtenAt) : [] {
                if let last = writtenAt[name], begin - last < interval { continue }
                guard mayWrite else { break }
                // What nodes say meanwhile does not wait for all slices to be written.
                isCut = clock.now() - begin >= .milliseconds(100)
                if isCut { break }
                isGood = await write(name, &book)
                // Also when it failed: the others have their turn before it has another.
                writtenAt[name] = clock.now()
                guard isGood else { break }
            }
            if isTime, isGood, !isCut {
                acknowledgementsAt = clock.now() + max(pace.acknowledgements, .milliseconds(await hub.reporting))
            }
            var tidyAt: Duration?
            if isGood, !isCut { tidyAt = await tidy(&book, &writtenAt, &complaint) }
            board.update { status in
                status.slices = book.count
                status.sequence = book.highest
            }
            if !isGood {
                failures = min(failures + 1, 8)
                await pause(.milliseconds(50) * (1 << failures) * (0.5 + 0.5 * clock.random()))
                slicesChanged.set()
            } else if isCut {
                slicesChanged.set()
            } else {
                failures = 0
                // Changes that come close together go together.
                let rest = book.count > 1 ? max(pace.settle, pace.changes - (clock.now() - begin)) : pace.settle
                await pause(rest)
            }
            writtenAt = writtenAt.filter { book.sequence($0.key) != nil }
            alarm.set(wakeUp(book, writtenAt, interval, acknowledgementsAt, tidyAt))
            await slicesChanged.wait()
        }
        alarm.set(nil)
    }

    /// When there is something to do without anybody's saying anything new.
    private func wakeUp(
        _ book: SliceBook, _ writtenAt: [String: Duration], _ interval: Duration, _ acknowledgementsAt: Duration,
        _ tidyAt: Duration?
    ) -> Duration? {
        if book.hasChanges(withAcknowledgements: false) { return .zero }
        let waiting = book.due(withAcknowledgements: !book.isUrgent)
        let rested = waiting.map { name in writtenAt[name].map { $0 + interval } ?? .zero }.min() ?? .zero
        let work = book.isUrgent ? rested : book.hasWork ? max(rested, acknowledgementsAt) : nil
        return [work, tidyAt].compactMap(\.self).min()
    }

    /// Writes what is new of nodes in large slices.
    private func writeChanges(withAcknowledgements: Bool, _ book: inout SliceBook) async -> Bool {
        while book.hasChanges(withAcknowledgements: withAcknowledgements), mayWrite {
            guard let spec = book.draftChanges(withAcknowledgements: withAcknowledgements) else { return true }
            let name = EncryptedEndpointSlice.changesName(spec.sequence)
            do throws(KubernetesError) {
                let object = try await api.create(EncryptedEndpointSlice(name: name, spec: spec))
                book.written(changes: name, spec, uid: object.metadata.uid)
                board.count(.slices, isSuccess: true)
            } catch {
                board.count(.slices, isSuccess: false)
                logger.warning("cannot write changes", metadata: ["object": "\(name)", "error": "\(error.message)"])
                if error.code == .invalid {
                    // The server's custom resource has no changes, or the object is not what it asks for.
                    logger.error(
                        "slices are written as a whole from now on: apply deploy/crds, then restart the operator")
                    book.changesAbove = nil
                }
                book.doubt(spec)
                await load(name, &book)
                if let retryAfter = error.retryAfter { await pause(retryAfter) }
                return false
            }
        }
        return true
    }

    /// Writes the slice that has waited longest, if it is time, and takes away what nobody needs any more. Returns when it is to be done again.
    private func tidy(
        _ book: inout SliceBook, _ writtenAt: inout [String: Duration], _ complaint: inout KubernetesError.Code?
    ) async -> Duration? {
        let begin = clock.now()
        let dirty = book.dirty.map { (name: $0, at: writtenAt[$0].map { $0 + pace.compaction } ?? .zero) }
            .sorted { ($0.at, $0.name) < ($1.at, $1.name) }
        if let first = dirty.first, first.at <= begin, mayWrite, await write(first.name, &book) {
            writtenAt[first.name] = clock.now()
        }
        for (name, uid) in book.obsolete.prefix(20) {
            guard mayWrite else { break }
            do throws(KubernetesError) {
                try await api.delete(EncryptedEndpointSlice.self, ObjectKey(name: name), preconditionUID: uid)
            } catch {
                // Another one of this name is not ours to delete: it is seen, and read.
                guard error.code == .notFound || error.code == .conflict else {
                    // Once for each reason: they pile up as long as it stays.
                    board.count(.slices, isSuccess: false)
                    logger.log(
                        level: complaint == error.code ? .debug : .warning, "cannot remove changes",
                        metadata: ["object": "\(name)", "error": "\(error.message)"])
                    complaint = error.code
                    return clock.now() + (error.retryAfter ?? .seconds(1))
                }
            }
            book.deleted(changes: name)
            complaint = nil
        }
        if !book.obsolete.isEmpty { return clock.now() + pace.changes }
        let next = book.dirty.map { writtenAt[$0].map { $0 + pace.compaction } ?? .zero }.min()
        return next.map { max($0, clock.now() + pace.changes) }
    }

    /// Slices that somebody waits for, then, if it is time, the others: each in the order in which they were written last, so that all get
    /// their turn however long a round is.
    private func due(_ book: SliceBook, _ isTime: Bool, _ writtenAt: [String: Duration]) -> [String] {
        let urgent = book.due(withAcknowledgements: false)
        let lazy = isTime ? book.due(withAcknowledgements: true).dropFirst(urgent.count) : []
        return [urgent[...], lazy].flatMap { names in
            names.map { (name: $0, last: writtenAt[$0] ?? .zero) }.enumerated().sorted {
                ($0.element.last, $0.offset) < ($1.element.last, $1.offset)
            }.map(\.element.name)
        }
    }

    /// The book as the API server has it at this moment, not as a watch has it that may be behind: numbers go on above the highest, and no
    /// node that is there is taken for gone.
    private func takeOver() async -> SliceBook? {
        while mayWrite {
            do throws(KubernetesError) {
                let slices = try await api.listAll(EncryptedEndpointSlice.self, options: ListOptions(limit: 50))
                var book = SliceBook(slices.items, changesAbove: pace.changesAbove)
                for object in slices.items where object.unreadable != nil {
                    logger.error(
                        "a slice cannot be read; it is written anew from what nodes say",
                        metadata: ["slice": "\(object.metadata.name)", "why": "\(object.unreadable ?? "")"])
                }
                var names: Set<String> = []
                let witness = await hub.witness(.encryptionNodes)
                var options = ListOptions(limit: 200)
                repeat {
                    let page = try await api.list(EncryptionNodeObject.self, namespace: nil, options: options)
                    for node in page.items {
                        names.insert(node.metadata.name)
                        await hub.put(node, since: witness)
                    }
                    for node in page.undecodable { names.insert(node.key.name) }
                    options.continueToken = page.continueToken
                } while options.continueToken != nil
                for (node, report) in await hub.reports { book.update(node, report) }
                book.retain(only: names.union(await hub.encryptionNodeNames))
                return book
            } catch {
                logger.warning("cannot read slices", metadata: ["error": "\(error.message)"])
                await pause(error.retryAfter ?? .seconds(1))
            }
        }
        return nil
    }

    /// Somebody else has written or deleted a slice? Our own writes come back too, late ones among them. False when the server could not be
    /// asked: nothing else would tell of it again.
    private func look(at name: String, _ event: Hub.SliceEvent, _ book: inout SliceBook) async -> Bool {
        if EncryptedEndpointSlice.isOfChanges(name) {
            if case .deleted = event {
                book.lost(changes: name)
                return true
            }
            guard !book.knowsChanges(name) else { return true }
            logger.warning(
                "somebody else has written changes; slices tell all of it again", metadata: ["object": "\(name)"])
            return await load(name, &book)
        }
        switch event {
        case .deleted:
            guard book.resourceVersion(name) != nil else { return true }
            return await load(name, &book)
        case .seen(let resourceVersion, let sequence):
            guard resourceVersion != book.resourceVersion(name), sequence >= book.sequence(name) ?? 0 else {
                return true
            }
            logger.warning(
                "somebody else has written a slice; it is written again", metadata: ["slice": "\(name)"])
            return await load(name, &book)
        }
    }

    @discardableResult private func load(_ name: String, _ book: inout SliceBook) async -> Bool {
        do throws(KubernetesError) {
            book.load(try await api.get(EncryptedEndpointSlice.self, ObjectKey(name: name)))
        } catch {
            guard error.code == .notFound else { return false }
            book.lost(name)
        }
        return true
    }

    private func write(_ name: String, _ book: inout SliceBook) async -> Bool {
        let spec = book.draft(name)
        do throws(KubernetesError) {
            let version: String?
            if let resourceVersion = book.resourceVersion(name) {
                let body = JSONWriter.patch(resourceVersion: resourceVersion) { writer in
                    writer.key("spec")
                    writer.spec(spec)
                }
                let header = try await api.mergePatch(
                    SliceHeader.self, ObjectKey(name: name), subresource: nil, body: body)
                version = header.metadata.resourceVersion
            } else {
                version = try await api.create(EncryptedEndpointSlice(name: name, spec: spec)).metadata.resourceVersion
            }
            book.written(name, spec, resourceVersion: version)
            board.count(.slices, isSuccess: true)
            return true
        } catch {
            board.count(.slices, isSuccess: false)
            logger.warning(
                "cannot write a slice", metadata: ["slice": "\(name)", "error": "\(error.message)"])
            // It may have been taken all the same: what the server has counts.
            await load(name, &book)
            if let retryAfter = error.retryAfter { await pause(retryAfter) }
            return false
        }
    }
}
