internal import Cluster

// A slice is written anew when anything in it changes, and readings of a moment ago are still in use then: without this, every address
// of the cluster would be in memory several times.

extension EncryptedEndpointSlice.Spec {
    /// The same, in the memory of an earlier version as far as nothing has changed.
    func sharing(_ earlier: Self?) -> Self {
        guard let earlier else { return self }
        var spec = self
        var index = earlier.nodes.startIndex
        // Both are in order of names.
        for position in spec.nodes.indices {
            let name = spec.nodes[position].name
            while index < earlier.nodes.endIndex, earlier.nodes[index].name < name { index += 1 }
            if index < earlier.nodes.endIndex, earlier.nodes[index].name == name {
                spec.nodes[position].share(earlier.nodes[index])
            }
        }
        return spec
    }
}

extension NodeEntry {
    fileprivate mutating func share(_ earlier: NodeEntry) {
        if report.incarnation == earlier.report.incarnation { report.incarnation = earlier.report.incarnation }
        if report.epochs == earlier.report.epochs { report.epochs = earlier.report.epochs }
        if history == earlier.history { history = earlier.history }
        guard report.endpoints != earlier.report.endpoints else {
            report.endpoints = earlier.report.endpoints
            return
        }
        let known = earlier.report.endpoints.reduce(into: [:]) { $0[$1.name] = $1 }
        report.endpoints = report.endpoints.map { endpoint in
            if let before = known[endpoint.name], before == endpoint { before } else { endpoint }
        }
    }
}
