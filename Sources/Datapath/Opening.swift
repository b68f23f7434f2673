internal import BPF
internal import BPFObjects

/// How a datapath comes up: what is pinned decides whether programs are loaded, picked up, or swapped.
///
/// The order of pinning makes every cut recognizable: maps first, programs next (a build counts when all of it is there), links
/// last. So links exist only where everything else does.
struct Opening {
    let tables: Tables
    let isFresh: Bool
    var warnings: [String]
    private let programs: ProgramBox

    /// Carries values that cannot be copied out of an initializer.
    private final class ProgramBox {
        var programs: Attacher.Programs?
        init(_ programs: consuming Attacher.Programs) { self.programs = consume programs }
    }

    consuming func takePrograms() -> Attacher.Programs {
        guard let programs = self.programs.programs.take() else { preconditionFailure("programs are taken once") }
        return programs
    }

    private func swapPrograms(_ attacher: Attacher) throws(DatapathError) {
        guard let programs = programs.programs.take() else { return }
        do throws(DatapathError) {
            try attacher.swapPrograms(programs)
        } catch {
            self.programs.programs = consume programs
            throw error
        }
        self.programs.programs = consume programs
    }

    static func open(options: Datapath.Options, attacher: Attacher) throws(DatapathError) -> Opening {
        let pins = attacher.pins
        let builds = try pins.completeBuilds()
        let hasLinks = try !pins.linkedPods().isEmpty
        if let build = builds.first(where: { $0 == Pins.embeddedBuild }) ?? builds.first,
            pins.hasSharedMaps(for: build)
        {
            let layout = try pinnedLayout(pins)
            if layout == UInt32(XE_LAYOUT) {
                return try pickUp(build, options: options, attacher: attacher)
            }
            if hasLinks {
                throw DatapathError(
                    .failed,
                    "the maps pinned under \(pins.root) have layout \(layout), and this version needs \(XE_LAYOUT). Run 'ebpf-xdp-keymgr detach' (pods are not encrypted meanwhile), then start again"
                )
            }
        } else if hasLinks {
            throw DatapathError(
                .failed,
                "programs are attached, but some of their maps or programs are no longer pinned under \(pins.root). Run 'ebpf-xdp-keymgr detach', then start again"
            )
        }
        // Nothing of use: what a killed process left is cleaned away. No packet ever passed it.
        for folder in [pins.links, pins.programs, pins.maps] { try Files.removeFolder(folder) }
        return try load(options: options, pins: pins)
    }

    private static func pinnedLayout(_ pins: Pins) throws(DatapathError) -> UInt32 {
        do {
            let config = try BPFMap(pinned: pins.map("config"))
            // Of an older layout the value may have another size; then the number is not known either.
            guard Int(config.shape.valueSize) == MemoryLayout<xe_config>.size else { return 0 }
            return try config.lookup(UInt32(0), as: xe_config.self)?.layout ?? 0
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }

    /// Loads new maps and programs and pins them.
    private static func load(options: Datapath.Options, pins: Pins) throws(DatapathError) -> Opening {
        let object = try loadObject(options: options, programs: KernelProgram.pinned)
        try Files.makeFolder(pins.maps)
        do {
            for name in KernelMaps.shared { try object.map(name).pin(at: pins.map(name)) }
        } catch {
            throw DatapathError(.failed, error.description)
        }
        try pins.pin(object, build: Pins.embeddedBuild)
        return try open(build: Pins.embeddedBuild, pins: pins, isFresh: true, warnings: [])
    }

    private static func open(
        build: String, pins: Pins, isFresh: Bool, warnings: [String]
    ) throws(DatapathError) -> Opening {
        do {
            let tables = Tables(
                maps: try pins.openMaps(build: build), install: try pins.openProgram(.install, build: build),
                remove: try pins.openProgram(.remove, build: build))
            let programs = Attacher.Programs(
                encrypt: try pins.openProgram(.encrypt, build: build),
                decrypt: try pins.openProgram(.decrypt, build: build),
                guard: try pins.openProgram(.guard, build: build),
                local: pins.hooks(build: build).contains(.local)
                    ? try pins.openProgram(.local, build: build) : nil)
            return Opening(tables: tables, isFresh: isFresh, warnings: warnings, programs: ProgramBox(programs))
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }

    /// Opens what an earlier process pinned. Where that was of another build, this one's programs take over; when they cannot, the
    /// earlier ones stay: traffic goes on in either case.
    private static func pickUp(
        _ found: String, options: Datapath.Options, attacher: Attacher
    ) throws(DatapathError) -> Opening {
        let pins = attacher.pins
        var build = found
        var warnings: [String] = []
        if build != Pins.embeddedBuild {
            do throws(DatapathError) {
                try Upgrade.load(from: build, pins: pins)
                build = Pins.embeddedBuild
            } catch {
                warnings.append(
                    "programs of build \(build) stay in use, because build \(Pins.embeddedBuild) of this binary cannot take over: \(error.message)"
                )
            }
        }
        var opened = try open(build: build, pins: pins, isFresh: false, warnings: warnings)
        // All pods at once, before the first of them gets a program that asks: else it would refuse what the others send.
        try attacher.hostEnds.refresh()
        // Also after an upgrade that was cut off between two links: from here on, keys go into one build's map only.
        try opened.swapPrograms(attacher)
        let config = try opened.tables.config()
        if config.node_id != options.nodeID { try opened.tables.setNodeID(options.nodeID) }
        if config.window != options.window {
            opened.warnings.append(
                "the replay window stays at \(config.window) packets until the maps are made anew; \(options.window) are asked for"
            )
        }
        opened.warnings += opened.tables.capacityWarnings(options.capacity)
        // The build before, and what a process left that was killed while it pinned.
        for other in try Files.list(pins.programs) where other != build {
            try Files.removeFolder(pins.build(other))
        }
        return opened
    }
}

extension Tables {
    /// Sentences about maps that are smaller or larger than asked for: sizes are set when maps are made.
    fileprivate func capacityWarnings(_ capacity: Datapath.Capacity) -> [String] {
        [
            ("peers", maps.peers.shape.maxEntries - 1, capacity.peers),
            ("endpoints", maps.endpoints.shape.maxEntries, capacity.endpoints),
            ("strict CIDRs", maps.strictCIDRs.shape.maxEntries, capacity.strictCIDRs),
            ("windows", maps.windows.shape.maxEntries, capacity.windows),
        ].filter { $0.1 != $0.2 }.map {
            "room for \($0.0) stays at \($0.1) until the maps are made anew; \($0.2) are asked for"
        }
    }
}
