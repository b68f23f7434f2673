internal import Cluster
internal import Keys
internal import Kubernetes
internal import Logging
internal import Netlink

extension LeaderSession {
    /// Keeps `cluster.json` as configuration and policies say, and finds out who translates addresses of services.
    func runCluster() async {
        let alarm = Alarm(signal: clusterChanged, clock: clock)
        while !Task.isCancelled {
            await findProxies()
            let isGood = await ensureCluster()
            alarm.set(clock.now() + (isGood ? pace.cluster : .seconds(2)))
            await clusterChanged.wait()
        }
        alarm.set(nil)
    }

    private func ensureCluster() async -> Bool {
        guard mayWrite else { return true }
        let key = ObjectKey(namespace: namespace, name: ClusterConfigMap.name)
        do throws(KubernetesError) {
            do throws(KubernetesError) {
                let map = try await api.get(ClusterConfigMap.self, key)
                return try await update(map)
            } catch {
                guard error.code == .notFound else { throw error }
            }
            guard let cluster = await newCluster(), mayWrite else { return false }
            _ = try await api.create(
                ClusterConfigMap(namespace: namespace, data: [ClusterConfigMap.clusterKey: text(cluster)]))
            accept(cluster)
            logger.notice("made the cluster's object", metadata: ["id": "\(cluster.id)"])
            return true
        } catch {
            logger.warning("cannot keep the cluster's object", metadata: ["error": "\(error.message)"])
            return false
        }
    }

    private func update(_ map: ClusterConfigMap) async throws(KubernetesError) -> Bool {
        var map = map
        let present: Cluster
        do throws(ObjectCoding.Problem) {
            present = try map.cluster()
        } catch {
            logger.error(
                "the cluster's object cannot be read",
                metadata: [
                    "key": "\(ClusterConfigMap.name)/\(ClusterConfigMap.clusterKey)", "why": "\(error.description)",
                ])
            guard let cluster = await newCluster() else { return false }
            map.data = map.data ?? [:]
            map.data?[ClusterConfigMap.clusterKey] = text(cluster)
            guard mayWrite else { return false }
            _ = try await api.replace(map)
            accept(cluster)
            logger.notice("wrote the cluster's object anew", metadata: ["id": "\(cluster.id)"])
            return true
        }
        if let known = board.status.cluster, known.id != present.id {
            // Every key of the cluster would become another one, and no DEK could be unwrapped.
            logger.error(
                "somebody has changed the cluster's id; it is put back",
                metadata: ["now": "\(present.id)", "before": "\(known.id)"])
        }
        let wanted = await wanted(id: board.status.cluster?.id ?? present.id, present: present.strictCIDRs)
        guard wanted != present else {
            accept(present)
            return true
        }
        map.data?[ClusterConfigMap.clusterKey] = text(wanted)
        guard mayWrite else { return false }
        _ = try await api.replace(map)
        accept(wanted)
        let list = wanted.strictCIDRs.map(\.description).joined(separator: ", ")
        logger.notice("changed the cluster's object", metadata: ["strictCIDRs": "\(list)"])
        return true
    }

    /// A cluster's object where there is none: the one that we know, else the one that its epochs remember, else a new one, if nothing can
    /// depend on an old one.
    private func newCluster() async -> Cluster? {
        let epochs = await hub.epochs
        let remembered = board.status.cluster?.id ?? ClusterPlan.rememberedID(epochs.values)
        let isEmpty = await hub.areEpochsKnown && epochs.isEmpty
        guard let id = remembered ?? (isEmpty ? .random() : nil) else {
            logger.error(
                "the cluster's object is lost, and its epochs do not remember its id; put the ConfigMap back, or delete all EncryptionEpochs to begin anew (traffic stops until a new one is held by all nodes)",
                metadata: ["object": "\(namespace)/\(ClusterConfigMap.name)"])
            return nil
        }
        return await wanted(id: id, present: board.status.cluster?.strictCIDRs ?? [])
    }

    private func wanted(id: ClusterID, present: [IPPrefix]) async -> Cluster {
        let prefixes = await hub.strictCIDRs(configured: configuration.strictCIDRs ?? [], present: present)
        return ClusterPlan.cluster(
            id: id, strictCIDRs: prefixes, epochs: configuration.epochs ?? OperatorConfiguration.Epochs())
    }

    private func accept(_ cluster: Cluster) {
        let isNews = board.update { status in
            defer { status.cluster = cluster }
            return status.cluster != cluster
        }
        if isNews { epochsChanged.set() }
    }

    private func text(_ cluster: Cluster) -> String {
        ((try? ObjectCoding.encode(cluster)).map { String(decoding: $0, as: UTF8.self) }) ?? ""
    }

    // MARK: Who translates addresses of services

    private func findProxies() async {
        var proxies = ServiceProxies()
        let system = "kube-system"
        do throws(KubernetesError) {
            proxies.cilium = try await find(ConfigMap.self, system, "cilium-config")?.data ?? nil
            proxies.isCiliumKnown = true
        } catch {
            note(error, "cilium-config")
        }
        do throws(KubernetesError) {
            let set = try await find(DaemonSet.self, system, "kube-proxy")
            let map = try await find(ConfigMap.self, system, "kube-proxy")
            let hosted = try await find(ConfigMap.self, system, "kube-proxy-config")
            let text = map?.data?["config.conf"] ?? hosted?.data?["config"]
            let isRunning = set.map { $0.status?.desiredNumberScheduled != 0 } ?? false
            if isRunning {
                proxies.kubeProxy = .present(mode: text.flatMap { ServiceTranslation.kubeProxyMode($0) })
            } else {
                proxies.kubeProxy = await hub.hasKubeProxyPods ? .present(mode: nil) : .absent
            }
        } catch {
            note(error, "kube-proxy")
            if await hub.hasKubeProxyPods { proxies.kubeProxy = .present(mode: nil) }
        }
        let translation = ServiceTranslation.judge(
            proxies, attachMode: configuration.attachMode ?? .pod,
            socketLoadBalancing: configuration.socketLoadBalancing ?? false)
        let isNews = board.update { status in
            defer { status.translation = translation }
            return status.translation != translation
        }
        guard isNews else { return }
        statusesChanged.set()
        logger.log(
            level: translation.works == true ? .info : .warning, "service translation",
            metadata: ["works": "\(translation.works.map { "\($0)" } ?? "unknown")", "why": "\(translation.message)"])
    }

    private func find<O: KubernetesObject>(
        _ type: O.Type, _ namespace: String, _ name: String
    ) async throws(KubernetesError) -> O? {
        do throws(KubernetesError) {
            return try await api.get(type, ObjectKey(namespace: namespace, name: name))
        } catch {
            if error.code == .notFound { return nil }
            throw error
        }
    }

    private func note(_ error: KubernetesError, _ what: String) {
        logger.debug("cannot look", metadata: ["for": "\(what)", "error": "\(error.message)"])
    }
}
