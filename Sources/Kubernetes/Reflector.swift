public import Logging

/// Lists objects, then watches them, for ever: what the API server has, level-triggered.
///
/// Lists are read in pages; watches resume after time-outs and broken connections from the last version seen, bookmarks included; an
/// expired version (410) leads to a new list. Failures wait with full jitter and honour Retry-After. Until a new list is complete,
/// nothing that was known is taken back. Objects that do not fit their type are reported and hold up nothing else.
public struct Reflector<O: KubernetesObject>: Sendable {
    /// What happens to the objects.
    public enum Event: Sendable {
        /// A list begins. Objects known before stay in force until `synced`.
        case reset
        /// An object of the list.
        case listed(O)
        /// The list is complete: objects known before and not listed (nor undecodable) are gone.
        case synced
        /// New or changed.
        case applied(O)
        /// Gone, or no longer selected.
        case deleted(ObjectKey, uid: String?)
        /// New or changed, but not readable as `O`: keep the last version that was.
        case undecodable(UndecodableObject)
        /// The server's state cannot be followed for the time being. Sent for every failed attempt; `.notFound` means that the
        /// server has no such kind (yet).
        case failing(KubernetesError)
        /// It can again.
        case recovered
    }

    private let api: any KubernetesAPI
    private let namespace: String?
    private let fieldSelector: String?
    private let labelSelector: String?
    private let version: String?
    private let pageSize: Int
    private let clock: KubernetesClock
    private let logger: Logger

    /// Makes a reflector.
    ///
    /// - Parameters:
    ///   - namespace: nil for all.
    ///   - version: instead of the type's own, for kinds that are served alike in several versions.
    public init(
        api: any KubernetesAPI, namespace: String? = nil, fieldSelector: String? = nil, labelSelector: String? = nil,
        version: String? = nil, pageSize: Int = 500, clock: KubernetesClock = .system, logger: Logger
    ) {
        self.api = api
        self.namespace = namespace
        self.fieldSelector = fieldSelector
        self.labelSelector = labelSelector
        self.version = version
        self.pageSize = pageSize
        self.clock = clock
        self.logger = logger
    }

    /// Where the reflector stands between two requests.
    private struct Progress {
        /// Watch from here; nil: list first.
        var resourceVersion: String?
        var backOff = BackOff()
        var isFailing = false
    }

    /// Runs until the task is cancelled. Events come one after the other; while `handle` works, the server waits.
    public func run(_ handle: (Event) async -> Void) async {
        var progress = Progress()
        while !Task.isCancelled {
            do throws(KubernetesError) {
                if progress.resourceVersion == nil {
                    progress.resourceVersion = try await list(handle)
                    await recover(&progress, handle)
                }
                try await watch(&progress, handle)
            } catch {
                await fail(error, &progress, handle)
            }
        }
    }

    private func list(_ handle: (Event) async -> Void) async throws(KubernetesError) -> String {
        var options = ListOptions(
            fieldSelector: fieldSelector, labelSelector: labelSelector, limit: pageSize, version: version)
        await handle(.reset)
        while true {
            let page = try await api.list(O.self, namespace: namespace, options: options)
            for object in page.items { await handle(.listed(object)) }
            for object in page.undecodable { await report(object, handle) }
            guard !Task.isCancelled else { throw KubernetesError(.cancelled, "cancelled") }
            guard let token = page.continueToken else {
                guard !page.resourceVersion.isEmpty else {
                    throw KubernetesError(
                        .decoding, "the list of \(O.resource.plural) has no resourceVersion: not an API server's answer"
                    )
                }
                await handle(.synced)
                return page.resourceVersion
            }
            options.continueToken = token
        }
    }

    private func watch(_ progress: inout Progress, _ handle: (Event) async -> Void) async throws(KubernetesError) {
        // Not all watches of all clients end in the same moment.
        let timeout = Duration.seconds(300 + Int(300 * clock.random()))
        let options = WatchOptions(
            fieldSelector: fieldSelector, labelSelector: labelSelector,
            resourceVersion: progress.resourceVersion ?? "", timeout: timeout, version: version)
        let begin = clock.now()
        var sawEvent = false
        try await api.watch(O.self, namespace: namespace, options: options) { (event: WatchEvent<O>) in
            let version: String?
            switch event {
            case .opened:
                // Anything that was wrong before is over, but only an event shows that the watch works: the back-off stays.
                if progress.isFailing {
                    progress.isFailing = false
                    await handle(.recovered)
                }
                return
            case .added(let object), .modified(let object):
                await handle(.applied(object))
                version = object.metadata.resourceVersion
            case .deleted(let metadata):
                let key = ObjectKey(namespace: metadata.namespace, name: metadata.name)
                await handle(.deleted(key, uid: metadata.uid))
                version = metadata.resourceVersion
            case .undecodable(let object):
                await report(object, handle)
                version = object.resourceVersion
            case .bookmark(let resourceVersion):
                version = resourceVersion
            }
            if let version, !version.isEmpty { progress.resourceVersion = version }
            sawEvent = true
            progress.backOff.reset()
            await recover(&progress, handle)
        }
        if sawEvent || clock.now() - begin >= .seconds(1) {
            progress.backOff.reset()
        } else if !Task.isCancelled {
            // A server that ends every watch at once must not be asked in a tight loop.
            await clock.sleep(progress.backOff.next(random: clock.random()))
        }
    }

    /// A list that succeeds does not end the back-off: when every watch after it expires at once, lists must become rarer.
    private func recover(_ progress: inout Progress, _ handle: (Event) async -> Void) async {
        guard progress.isFailing else { return }
        progress.isFailing = false
        logger.info("following \(O.resource.plural) again")
        await handle(.recovered)
    }

    private func fail(
        _ error: KubernetesError, _ progress: inout Progress, _ handle: (Event) async -> Void
    ) async {
        guard !Task.isCancelled else { return }
        switch error.code {
        case .network, .timeout, .cancelled, .unavailable, .server, .tooManyRequests, .untrusted, .unauthorized,
            .forbidden:
            // What was seen is still what was: resume.
            break
        default:
            progress.resourceVersion = nil
        }
        let delay = progress.backOff.next(random: clock.random(), retryAfter: error.retryAfter)
        let metadata: Logger.Metadata = [
            "resource": "\(O.resource.plural)", "error": "\(error.message)", "retryIn": "\(delay)",
        ]
        if error.code == .expired {
            // Part of normal life after a quiet hour or a compaction; nothing is lost.
            logger.debug("listing again", metadata: metadata)
        } else {
            if progress.isFailing {
                logger.debug("cannot follow", metadata: metadata)
            } else {
                logger.warning("cannot follow; what is known stays in force", metadata: metadata)
            }
            progress.isFailing = true
            await handle(.failing(error))
        }
        await clock.sleep(delay)
    }

    private func report(_ object: UndecodableObject, _ handle: (Event) async -> Void) async {
        logger.warning(
            "object cannot be read; its last readable version stays in force",
            metadata: [
                "resource": "\(O.resource.plural)", "object": "\(object.key)", "problem": "\(object.problem)",
            ])
        await handle(.undecodable(object))
    }
}
