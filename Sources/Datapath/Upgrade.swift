internal import BPF
internal import BPFObjects

/// Brings the programs of this binary up beside those of an earlier build: on the same maps, with the same keys, counters and
/// windows. The links still hold the earlier programs afterwards.
///
/// Keys never pass through this process: bpf/upgrade.bpf.h says how they are taken over.
enum Upgrade {
    /// Loads and pins the embedded build. Until it returns nothing of the earlier one has changed.
    static func load(from earlier: String, pins: Pins) throws(DatapathError) {
        do {
            let present = try BPFMap(pinned: pins.associations(build: earlier))
            let object = try BPFObject(.encryptor)
            let config = try BPFMap(pinned: pins.map("config")).lookup(UInt32(0), as: xe_config.self)
            try setWindow(config?.window ?? UInt32(XE_WINDOW_DEFAULT), object)
            let missing = KernelMaps.shared.filter { !Files.exists(pins.map($0)) }
            for name in KernelMaps.shared where !missing.contains(name) {
                try object.reuse(BPFMap(pinned: pins.map(name)), as: name)
            }
            try object.reuse(present, as: KernelMaps.earlierName)
            try object.setMaxEntries(present.shape.maxEntries, map: KernelMaps.associationsName)
            let wanted = Set((KernelProgram.pinned + [.upgradeCipher, .upgradeHashKey]).map(\.rawValue))
            for name in object.programNames { try object.setAutoload(wanted.contains(name), program: name) }
            try object.load()
            try takeKeys(present, object)
            // Before the programs: a build that is complete has its maps.
            for name in missing { try object.map(name).pin(at: pins.map(name)) }
            try pins.pin(object, build: Pins.embeddedBuild)
        } catch let error as DatapathError {
            throw error
        } catch let error as BPFError {
            throw KernelRequirements.explain(error)
        } catch {
            throw DatapathError(.failed, "\(error)")
        }
    }

    /// Puts every key of the earlier build into the new one's map.
    private static func takeKeys(_ present: borrowing BPFMap, _ object: borrowing BPFObject) throws {
        let first = try object.program(KernelProgram.upgradeCipher.rawValue)
        let second = try object.program(KernelProgram.upgradeHashKey.rawValue)
        for (index, association) in try present.entries(keys: UInt32.self, values: xe_association.self)
        where association.epoch != 0 {
            var request = xe_upgrade()
            request.index = index
            try first.run(context: &request)
            var error = request.error
            if error == 0 {
                let run = try second.run(packet: bytes(of: request))
                error = run.packet.withUnsafeBytes { $0.loadUnaligned(as: xe_upgrade.self).error }
                if error == 0, run.action != 2 { error = -5 }  // EIO: the program did not get as far as an answer
            }
            if error != 0 {
                throw DatapathError(
                    .failed,
                    "the key of association \(index) cannot be taken over: \(BPFError.text(of: -error)) (errno \(-error))"
                )
            }
        }
    }
}
