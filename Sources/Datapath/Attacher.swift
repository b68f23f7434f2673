internal import BPF
internal import Glibc
internal import Netlink

/// Attaches programs to pods and lets go of them: the links, and the records of what was changed beside. Knows pins and files only,
/// so that detaching works whatever has become of maps and programs.
struct Attacher: Sendable {
    let pins: Pins
    let records: RecordFolder
    var hostEnds: HostEnds { HostEnds(pins: pins) }

    init(options: Datapath.Options) {
        pins = Pins(root: options.pinPath)
        records = RecordFolder(path: options.stateDirectory + "/attachments")
    }

    /// The programs to attach.
    struct Programs: ~Copyable, Sendable {
        let encrypt: BPFProgram
        let decrypt: BPFProgram
        let `guard`: BPFProgram
        /// nil: an earlier build, which has none.
        let local: BPFProgram?

        init(
            encrypt: consuming BPFProgram, decrypt: consuming BPFProgram, `guard` guardian: consuming BPFProgram,
            local: consuming BPFProgram?
        ) {
            self.encrypt = encrypt
            self.decrypt = decrypt
            self.guard = guardian
            self.local = local
        }

        /// The kernel's number of a program; nil when there is none for this hook.
        borrowing func id(_ hook: PodHook) throws(BPFError) -> UInt32? {
            switch hook {
            case .local: try local?.info().id
            case .guard: try self.guard.info().id
            case .decrypt: try decrypt.info().id
            case .encrypt: try encrypt.info().id
            }
        }

        borrowing func swap(into link: borrowing BPFLink, at hook: PodHook) throws(BPFError) {
            switch hook {
            case .local:
                switch local {
                case .some(let program): try link.update(to: program)
                case .none: break
                }
            case .guard: try link.update(to: self.guard)
            case .decrypt: try link.update(to: decrypt)
            case .encrypt: try link.update(to: encrypt)
            }
        }
    }
}

// MARK: - Attaching

extension Attacher {
    /// Attaches all programs, or repairs what is missing. When it fails and the pod was not attached before, nothing is left behind.
    func attach(_ pod: PodInterface, _ programs: borrowing Programs) throws(DatapathError) -> Attachment {
        try Self.check(name: pod.name)
        // By an earlier build perhaps, which had no program at the hook `local`.
        let wasLinked = PodHook.allCases.allSatisfy { $0 == .local || Files.exists(pins.link($0, pod: pod.name)) }
        let device = try PodDevice(pod)
        if var record = try records.read(pod.name) {
            if record.namespace != device.namespace.identity || record.podIndex != device.podIndex
                || record.hostIndex != device.hostIndex
            {
                // Another pod had this name.
                try detach(name: pod.name)
            } else if record.pod != pod {
                // The same interface by another path: the programs stay, so that not a packet passes without them.
                record.pod = pod
                try records.write(record)
            }
        }
        do throws(DatapathError) {
            try prepare(device)
            try hostEnds.refresh(arriving: [device.hostIndex])
            for hook in PodHook.allCases { try ensure(hook, device, programs) }
        } catch {
            if !wasLinked { try? detach(name: pod.name) }
            throw error
        }
        return Attachment(pod: pod, podIndex: device.podIndex, hostIndex: device.hostIndex, isWhole: true)
    }

    /// Offloads and route MTUs, each recorded before it is changed.
    private func prepare(_ device: borrowing PodDevice) throws(DatapathError) {
        let pod = device.pod
        var record =
            try records.read(pod.name)
            ?? AttachmentRecord(
                pod: pod, namespace: device.namespace.identity, podIndex: device.podIndex, hostIndex: device.hostIndex)
        try records.write(record)
        try device.turnOffloadsOff { (features) throws(DatapathError) in
            record.features = Set(record.features).union(features).sorted()
            try records.write(record)
        }
        try device.lowerRouteMTUs { (routes) throws(DatapathError) in
            let changed = Set(routes.map(\.route))
            record.routes = record.routes.filter { !changed.contains($0.route) } + routes
            try records.write(record)
        }
    }

    /// Makes sure that a link of ours holds this program on this device.
    private func ensure(
        _ hook: PodHook, _ device: borrowing PodDevice, _ programs: borrowing Programs
    ) throws(DatapathError) {
        let pod = device.pod.name
        let path = pins.link(hook, pod: pod)
        let index = hook.isOnHost ? device.hostIndex : device.podIndex
        do {
            guard let wanted = try programs.id(hook) else { return }
            if Files.exists(path) {
                let link = try BPFLink(pinned: path)
                let info = try link.info()
                if info.interfaceIndex == index {
                    if info.programID != wanted { try programs.swap(into: link, at: hook) }
                    return
                }
                // Of a device that has gone.
                unlink(path)
            }
            let link = try attachLink(hook, device, index, programs)
            try Files.makeFolder(pins.linkFolder(pod))
            try link.pin(at: path)
        } catch let error as DatapathError {
            throw error
        } catch {
            let hint =
                switch (error as? BPFError)?.errno {
                case EBUSY where hook.isXDP, EEXIST where hook.isXDP:
                    " (another XDP program is attached there: remove it first)"
                case EEXIST: " (it is attached there already: does another endpoint name the same interface?)"
                default: ""
                }
            throw DatapathError(.failed, "pod \(pod): \(error)\(hint)")
        }
    }

    private func attachLink(
        _ hook: PodHook, _ device: borrowing PodDevice, _ index: Int32, _ programs: borrowing Programs
    ) throws(BPFError) -> BPFLink {
        switch hook {
        case .local:
            switch programs.local {
            case .some(let program): return try BPFLink.attachTCX(program, interfaceIndex: index, hook: .egress)
            case .none: throw BPFError(operation: "attach \(hook.rawValue)", errno: EINVAL)
            }
        case .encrypt: return try BPFLink.attachXDP(programs.encrypt, interfaceIndex: index)
        case .guard, .decrypt:
            // Links cannot be returned from the closure by value, so it hands the link over in a box.
            let box = Box()
            try device.namespace.run { () throws(BPFError) in
                if hook == .guard {
                    box.link = try BPFLink.attachTCX(programs.guard, interfaceIndex: index)
                } else {
                    box.link = try BPFLink.attachXDP(programs.decrypt, interfaceIndex: index)
                }
            }.get()
            guard let link = box.link.take() else {
                throw BPFError(operation: "attach \(hook.rawValue)", errno: EINVAL)
            }
            return link
        }
    }

    private final class Box {
        var link: BPFLink?
    }

    /// A pod's name becomes a folder's name.
    static func check(name: String) throws(DatapathError) {
        let isAllowed = name.utf8.allSatisfy { byte in
            (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
                || [45, 46, 95].contains(byte)
        }
        guard isAllowed, (1...200).contains(name.utf8.count), !name.hasPrefix(".") else {
            throw DatapathError(
                .failed,
                "\"\(name)\" cannot name a pod: expected 1 to 200 letters, digits, '-', '_' and '.', not beginning with '.'"
            )
        }
    }
}

// MARK: - Detaching, and what is there

extension Attacher {
    /// Names of everything that is attached, wholly or in part.
    func names() throws(DatapathError) -> [String] {
        Set(try pins.linkedPods()).union(try records.pods()).sorted()
    }

    /// Pods that are attached and whose network namespace is where it was.
    func presentPods() throws(DatapathError) -> [PodInterface] {
        var pods: [PodInterface] = []
        for name in try names() {
            guard let record = try records.read(name),
                let namespace = try? NetworkNamespace(path: record.pod.networkNamespace),
                namespace.identity == record.namespace
            else { continue }
            pods.append(record.pod)
        }
        return pods
    }

    /// Whether the interface that a pod's programs are attached to is still there, wherever its namespace is.
    func hasLiveLinks(name: String) -> Bool {
        PodHook.allCases.contains { hook in
            guard let link = try? BPFLink(pinned: pins.link(hook, pod: name)), let info = try? link.info() else {
                return false
            }
            return info.interfaceIndex != 0
        }
    }

    /// Undoes `attach`, in the opposite order. What has gone with its namespace is let go.
    func detach(name: String) throws(DatapathError) {
        try Self.check(name: name)
        for hook in PodHook.allCases.reversed() { try release(hook, pod: name) }
        try Files.removeFolder(pins.linkFolder(name))
        // Whatever has become of the map: it says who may come in, and the pod that could is gone.
        _ = try? hostEnds.refresh()
        if let record = try records.read(name) { try record.putBack() }
        try records.remove(name)
    }

    /// Takes one program off a pod; nothing happens when it is not there.
    func release(_ hook: PodHook, pod: String) throws(DatapathError) {
        let path = pins.link(hook, pod: pod)
        guard Files.exists(path) else { return }
        // At once, not when the kernel gets round to it; a link without a device has nothing to detach.
        if let link = try? BPFLink(pinned: path) { try? link.detach() }
        try Files.remove(path)
    }

    /// What is attached; `programs` gives the ids of the programs that links should hold.
    func attachments(programIDs: [PodHook: UInt32]) throws(DatapathError) -> [String: Attachment] {
        var attachments: [String: Attachment] = [:]
        let known = programIDs[.local] == nil ? nil : hostEnds.present() ?? []
        for name in try names() {
            guard let record = try records.read(name) else {
                // Links without a record: it was lost, so nobody knows which pod they belong to.
                let unknown = PodInterface(name: name, networkNamespace: "", interface: "")
                attachments[name] = Attachment(pod: unknown, podIndex: 0, hostIndex: 0, isWhole: false)
                continue
            }
            attachments[name] = Attachment(
                pod: record.pod, podIndex: record.podIndex, hostIndex: record.hostIndex,
                isWhole: isWhole(record, programIDs) && known?.contains(record.hostIndex) != false)
        }
        return attachments
    }

    private func isWhole(_ record: AttachmentRecord, _ programIDs: [PodHook: UInt32]) -> Bool {
        guard let namespace = try? NetworkNamespace(path: record.pod.networkNamespace),
            namespace.identity == record.namespace
        else { return false }
        return programIDs.allSatisfy { hook, programID in
            guard let link = try? BPFLink(pinned: pins.link(hook, pod: record.pod.name)), let info = try? link.info()
            else {
                return false
            }
            return info.programID == programID
                && info.interfaceIndex == (hook.isOnHost ? record.hostIndex : record.podIndex)
        }
    }

    /// Puts these programs into every link that holds others: each packet sees the old program or the new one.
    func swapPrograms(_ programs: borrowing Programs) throws(DatapathError) {
        let pods = try pins.linkedPods()
        // Senders first: a new guard may ask for a mark that an earlier build does not put on what leaves.
        for hook in PodHook.allCases.reversed() {
            for name in pods where Files.exists(pins.link(hook, pod: name)) {
                do {
                    let link = try BPFLink(pinned: pins.link(hook, pod: name))
                    let info = try link.info()
                    if info.interfaceIndex != 0, let wanted = try programs.id(hook), info.programID != wanted {
                        try programs.swap(into: link, at: hook)
                    }
                } catch {
                    throw DatapathError(.failed, "pod \(name): \(error)")
                }
            }
        }
    }
}
