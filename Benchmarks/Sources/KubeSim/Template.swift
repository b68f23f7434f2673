/// Objects as a real cluster has them: as long, with all that nobody here reads.
enum Template {
    static func namespace(_ name: String, group: Int?) -> String {
        let label = group.map { ",\"group\":\"g-\($0)\"" } ?? ""
        return
            "{\"metadata\":{\"name\":\"\(name)\",\"uid\":\"ns-\(name)\",\"creationTimestamp\":\"2026-01-02T03:04:05Z\",\"labels\":{\"kubernetes.io/metadata.name\":\"\(name)\"\(label)}},\"spec\":{\"finalizers\":[\"kubernetes\"]},\"status\":{\"phase\":\"Active\"}}"
    }

    static func policy(_ number: Int) -> String {
        "{\"metadata\":{\"name\":\"policy-\(number)\",\"uid\":\"policy-\(number)\",\"generation\":1,\"creationTimestamp\":\"2026-01-02T03:04:05Z\"},\"spec\":{\"mode\":\"strict\",\"namespaceSelector\":{\"matchLabels\":{\"group\":\"g-\(number)\"}},\"podSelector\":{\"matchLabels\":{\"tier\":\"protected\"}}}}"
    }

    static func service(_ namespace: String, _ app: Int) -> String {
        "{\"metadata\":{\"name\":\"app-\(app)\",\"namespace\":\"\(namespace)\",\"uid\":\"service-\(namespace)-\(app)\",\"creationTimestamp\":\"2026-01-02T03:04:05Z\",\"labels\":{\"app\":\"app-\(app)\"}},\"spec\":{\"clusterIP\":\"None\",\"clusterIPs\":[\"None\"],\"internalTrafficPolicy\":\"Cluster\",\"ipFamilies\":[\"IPv4\"],\"ipFamilyPolicy\":\"SingleStack\",\"ports\":[{\"name\":\"http\",\"port\":8080,\"protocol\":\"TCP\",\"targetPort\":8080}],\"selector\":{\"app\":\"app-\(app)\"},\"sessionAffinity\":\"None\",\"type\":\"ClusterIP\"},\"status\":{\"loadBalancer\":{}}}"
    }

    static func virtualService(_ namespace: String) -> String {
        let routes = (Kinds.selectedApps..<Kinds.protectedApps).map {
            "{\"match\":[{\"uri\":{\"prefix\":\"/\($0)\"}}],\"route\":[{\"destination\":{\"host\":\"app-\($0)\",\"port\":{\"number\":8080}}}]}"
        }
        return
            "{\"metadata\":{\"name\":\"mesh\",\"namespace\":\"\(namespace)\",\"uid\":\"vs-\(namespace)\",\"generation\":1,\"creationTimestamp\":\"2026-01-02T03:04:05Z\"},\"spec\":{\"hosts\":[\"app-7\",\"app-8\"],\"http\":[\(routes.joined(separator: ","))]}}"
    }

    static func endpointSlice(_ service: String, _ pods: [(pod: String, address: UInt32, node: Int)]) -> String {
        let parts = service.split(separator: "/")
        let endpoints = pods.map { pod, address, node in
            "{\"addresses\":[\"\(dotted(address))\"],\"conditions\":{\"ready\":true,\"serving\":true,\"terminating\":false},\"nodeName\":\"\(Kinds.node(node))\",\"targetRef\":{\"kind\":\"Pod\",\"name\":\"\(pod)\",\"namespace\":\"\(parts[0])\"}}"
        }
        return
            "{\"metadata\":{\"name\":\"\(parts[1])-1\",\"namespace\":\"\(parts[0])\",\"uid\":\"es-\(parts[0])-\(parts[1])\",\"labels\":{\"kubernetes.io/service-name\":\"\(parts[1])\"}},\"addressType\":\"IPv4\",\"endpoints\":[\(endpoints.joined(separator: ","))],\"ports\":[{\"name\":\"http\",\"port\":8080,\"protocol\":\"TCP\"}]}"
    }

    static func node(_ number: Int) -> String {
        let name = Kinds.node(number)
        let conditions = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"].map {
            "{\"lastHeartbeatTime\":\"2026-01-02T03:04:05Z\",\"lastTransitionTime\":\"2026-01-02T03:04:05Z\",\"message\":\"kubelet has sufficient memory available\",\"reason\":\"KubeletHasSufficientMemory\",\"status\":\"\($0 == "Ready" ? "True" : "False")\",\"type\":\"\($0)\"}"
        }
        let images = (0..<12).map {
            "{\"names\":[\"registry.example/team/image-\($0)@sha256:\(String(repeating: "4f", count: 32))\",\"registry.example/team/image-\($0):v1.2.\($0)\"],\"sizeBytes\":\(12_345_678 + $0)}"
        }
        return
            "{\"metadata\":{\"name\":\"\(name)\",\"uid\":\"node-\(number)\",\"creationTimestamp\":\"2026-01-02T03:04:05Z\",\"labels\":{\"kubernetes.io/arch\":\"amd64\",\"kubernetes.io/hostname\":\"\(name)\",\"kubernetes.io/os\":\"linux\",\"node.kubernetes.io/instance-type\":\"m6i.2xlarge\",\"topology.kubernetes.io/zone\":\"zone-\(number % 3)\"}},\"spec\":{\"podCIDR\":\"10.0.0.0/24\",\"providerID\":\"example:///\(name)\"},\"status\":{\"addresses\":[{\"address\":\"172.\(16 + number / 65536).\(number / 256 % 256).\(number % 256)\",\"type\":\"InternalIP\"},{\"address\":\"\(name)\",\"type\":\"Hostname\"}],\"allocatable\":{\"cpu\":\"7910m\",\"memory\":\"31482284Ki\",\"pods\":\"58\"},\"capacity\":{\"cpu\":\"8\",\"memory\":\"32499116Ki\",\"pods\":\"58\"},\"conditions\":[\(conditions.joined(separator: ","))],\"images\":[\(images.joined(separator: ","))],\"nodeInfo\":{\"architecture\":\"amd64\",\"containerRuntimeVersion\":\"containerd://2.0.4\",\"kernelVersion\":\"6.12.20\",\"kubeletVersion\":\"v1.34.1\",\"operatingSystem\":\"linux\",\"osImage\":\"Debian GNU/Linux 13\"}}}"
    }

    static func incarnation(_ number: Int) -> String {
        let text = String(0x1000_0000 + number, radix: 16)
        return String(repeating: "a", count: 32 - text.count) + text
    }

    static func encryptionNode(_ number: Int) -> String {
        let status =
            number == 0
            ? ""
            : ",\"status\":\(Keymgrs.status(number, revision: 0, endpoints: [], epochs: "", sending: 0, since: "", through: 0))"
        return
            "{\"metadata\":{\"name\":\"\(Kinds.node(number))\",\"uid\":\"encnode-\(number)\",\"generation\":1,\"creationTimestamp\":\"2026-01-02T03:04:05Z\"},\"spec\":{\"nodeID\":\(number + 1),\"endpoints\":[]}\(status)}"
    }

    static func ownPod(_ pod: Simulation.OwnPod, _ index: Int) -> String {
        let ips = pod.addresses.map { "{\"ip\":\"\($0)\"}" }.joined(separator: ",")
        return
            "{\"metadata\":{\"name\":\"\(pod.name)\",\"namespace\":\"ns-000\",\"uid\":\"6e0d8a2e-6b0f-4c5e-9d2b-\(padded(index, 12))\",\"creationTimestamp\":\"2026-01-02T03:04:05Z\",\"labels\":{\"app\":\"own\",\"tier\":\"protected\"}},\"spec\":{\"nodeName\":\"\(Simulation.ownNode)\",\"containers\":[{\"name\":\"main\",\"image\":\"main\"}]},\"status\":{\"phase\":\"Running\",\"podIP\":\"\(pod.addresses[0])\",\"podIPs\":[\(ips)]}}"
    }

    static func dotted(_ address: UInt32) -> String {
        "\(address >> 24).\(address >> 16 & 255).\(address >> 8 & 255).\(address & 255)"
    }

    /// What the kubelet says when a pod runs: members of the pod.
    static func running(_ pod: PodRecord) -> String {
        let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"].map {
            "{\"lastProbeTime\":null,\"lastTransitionTime\":\"2026-01-02T03:04:05Z\",\"status\":\"True\",\"type\":\"\($0)\"}"
        }
        return
            "\"status\":{\"phase\":\"Running\",\"hostIP\":\"172.16.0.1\",\"podIP\":\"\(pod.addressText)\",\"podIPs\":[{\"ip\":\"\(pod.addressText)\"}],\"qosClass\":\"Burstable\",\"startTime\":\"2026-01-02T03:04:05Z\",\"conditions\":[\(conditions.joined(separator: ","))],\"containerStatuses\":[{\"containerID\":\"containerd://\(String(repeating: "7a", count: 32))\",\"image\":\"registry.example/team/app:v1.2.3\",\"imageID\":\"registry.example/team/app@sha256:\(String(repeating: "4f", count: 32))\",\"lastState\":{},\"name\":\"main\",\"ready\":true,\"restartCount\":0,\"started\":true,\"state\":{\"running\":{\"startedAt\":\"2026-01-02T03:04:05Z\"}}}]}"
    }

    static func pod(_ pod: PodRecord, isRunning: Bool) -> String {
        let (namespace, app, name) = (Kinds.namespace(pod.namespace), pod.app, pod.name)
        let tier = app < Kinds.selectedApps ? "protected" : "other"
        let managed =
            "{\"apiVersion\":\"v1\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{\"f:metadata\":{\"f:generateName\":{},\"f:labels\":{\".\":{},\"f:app\":{},\"f:pod-template-hash\":{},\"f:tier\":{}},\"f:ownerReferences\":{\".\":{},\"k:{\\\"uid\\\":\\\"rs-\(namespace)-\(app)\\\"}\":{}}},\"f:spec\":{\"f:containers\":{\"k:{\\\"name\\\":\\\"main\\\"}\":{\".\":{},\"f:env\":{\".\":{},\"k:{\\\"name\\\":\\\"MODE\\\"}\":{\".\":{},\"f:name\":{},\"f:value\":{}}},\"f:image\":{},\"f:imagePullPolicy\":{},\"f:name\":{},\"f:ports\":{\".\":{},\"k:{\\\"containerPort\\\":8080,\\\"protocol\\\":\\\"TCP\\\"}\":{\".\":{},\"f:containerPort\":{},\"f:protocol\":{}}},\"f:resources\":{\".\":{},\"f:limits\":{\".\":{},\"f:memory\":{}},\"f:requests\":{\".\":{},\"f:cpu\":{},\"f:memory\":{}}},\"f:terminationMessagePath\":{},\"f:terminationMessagePolicy\":{}}},\"f:dnsPolicy\":{},\"f:enableServiceLinks\":{},\"f:restartPolicy\":{},\"f:schedulerName\":{},\"f:securityContext\":{},\"f:terminationGracePeriodSeconds\":{}}},\"manager\":\"kube-controller-manager\",\"operation\":\"Update\",\"time\":\"2026-01-02T03:04:05Z\"}"
        let metadata =
            "\"metadata\":{\"name\":\"\(name)\",\"generateName\":\"app-\(app)-7d9f8b6c5-\",\"namespace\":\"\(namespace)\",\"uid\":\"\(pod.uid)\",\"creationTimestamp\":\"2026-01-02T03:04:05Z\",\"labels\":{\"app\":\"app-\(app)\",\"pod-template-hash\":\"7d9f8b6c5\",\"tier\":\"\(tier)\"},\"annotations\":{\"prometheus.io/scrape\":\"true\",\"prometheus.io/port\":\"8080\"},\"ownerReferences\":[{\"apiVersion\":\"apps/v1\",\"blockOwnerDeletion\":true,\"controller\":true,\"kind\":\"ReplicaSet\",\"name\":\"app-\(app)-7d9f8b6c5\",\"uid\":\"rs-\(namespace)-\(app)\"}],\"managedFields\":[\(managed)]}"
        let spec =
            "\"spec\":{\"containers\":[{\"env\":[{\"name\":\"MODE\",\"value\":\"production\"},{\"name\":\"POD_NAME\",\"valueFrom\":{\"fieldRef\":{\"apiVersion\":\"v1\",\"fieldPath\":\"metadata.name\"}}}],\"image\":\"registry.example/team/app:v1.2.3\",\"imagePullPolicy\":\"IfNotPresent\",\"livenessProbe\":{\"failureThreshold\":3,\"httpGet\":{\"path\":\"/healthz\",\"port\":8080,\"scheme\":\"HTTP\"},\"periodSeconds\":10,\"successThreshold\":1,\"timeoutSeconds\":1},\"name\":\"main\",\"ports\":[{\"containerPort\":8080,\"name\":\"http\",\"protocol\":\"TCP\"}],\"resources\":{\"limits\":{\"memory\":\"256Mi\"},\"requests\":{\"cpu\":\"100m\",\"memory\":\"128Mi\"}},\"terminationMessagePath\":\"/dev/termination-log\",\"terminationMessagePolicy\":\"File\",\"volumeMounts\":[{\"mountPath\":\"/var/run/secrets/kubernetes.io/serviceaccount\",\"name\":\"kube-api-access-x7k2p\",\"readOnly\":true}]}],\"dnsPolicy\":\"ClusterFirst\",\"enableServiceLinks\":true,\"nodeName\":\"\(Kinds.node(pod.node))\",\"preemptionPolicy\":\"PreemptLowerPriority\",\"priority\":0,\"restartPolicy\":\"Always\",\"schedulerName\":\"default-scheduler\",\"securityContext\":{},\"serviceAccount\":\"default\",\"serviceAccountName\":\"default\",\"terminationGracePeriodSeconds\":30,\"tolerations\":[{\"effect\":\"NoExecute\",\"key\":\"node.kubernetes.io/not-ready\",\"operator\":\"Exists\",\"tolerationSeconds\":300},{\"effect\":\"NoExecute\",\"key\":\"node.kubernetes.io/unreachable\",\"operator\":\"Exists\",\"tolerationSeconds\":300}],\"volumes\":[{\"name\":\"kube-api-access-x7k2p\",\"projected\":{\"defaultMode\":420,\"sources\":[{\"serviceAccountToken\":{\"expirationSeconds\":3607,\"path\":\"token\"}},{\"configMap\":{\"items\":[{\"key\":\"ca.crt\",\"path\":\"ca.crt\"}],\"name\":\"kube-root-ca.crt\"}}]}}]}"
        let status = isRunning ? running(pod) : "\"status\":{\"phase\":\"Pending\",\"qosClass\":\"Burstable\"}"
        return "{\(metadata),\(spec),\(status)}"
    }
}
