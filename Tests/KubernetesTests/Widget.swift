@testable import Kubernetes

/// A kind of the tests, with a schema and a status.
struct Widget: KubernetesObject, Hashable {
    static let resource = ResourceKind(
        group: "tests.example", version: "v1", kind: "Widget", plural: "widgets", isNamespaced: true)

    struct Spec: Codable, Hashable {
        var size: Int?
        var color: String?
        var tags: [String]?
    }
    struct Status: Codable, Hashable {
        var ready: Bool?
        var observedGeneration: Int64?
    }
    var metadata: ObjectMeta
    var spec: Spec?
    var status: Status?

    init(_ name: String, namespace: String = "default", size: Int? = nil, color: String? = nil) {
        metadata = ObjectMeta(name: name, namespace: namespace)
        spec = Spec(size: size, color: color)
    }

    mutating func trim() { metadata.annotations = metadata.annotations?.filter { $0.key != "dropped" } }

    /// JSON as the server would send it.
    static func json(_ name: String, version: Int, size: String = "1", namespace: String = "default") -> String {
        #"{"apiVersion":"tests.example/v1","kind":"Widget","metadata":{"name":"\#(name)","namespace":"\#(namespace)","uid":"uid-\#(name)","resourceVersion":"\#(version)"},"spec":{"size":\#(size)}}"#
    }

    static let definition = #"""
        {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.tests.example"},
         "spec": {"group": "tests.example", "scope": "Namespaced",
                  "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wi"]},
                  "versions": [
                    {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                     "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                       "spec": {"type": "object", "properties": {
                         "size": {"type": "integer", "minimum": 0, "default": 1},
                         "color": {"type": "string", "enum": ["red", "green", "blue"]},
                         "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}}},
                       "status": {"type": "object", "properties": {
                         "ready": {"type": "boolean"}, "observedGeneration": {"type": "integer"},
                         "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                           "items": {"type": "object", "required": ["type"],
                             "properties": {"type": {"type": "string"}, "status": {"type": "string"}}}}}}}}}},
                    {"name": "v1beta1", "served": true, "storage": false, "subresources": {"status": {}},
                     "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}
        """#
}

/// A trimmed built-in kind.
struct ConfigMap: KubernetesObject, Hashable {
    static let resource = ResourceKind(
        group: "", version: "v1", kind: "ConfigMap", plural: "configmaps", isNamespaced: true)
    var metadata: ObjectMeta
    var data: [String: String]?

    init(_ name: String, namespace: String = "default", data: [String: String]? = nil) {
        metadata = ObjectMeta(name: name, namespace: namespace)
        self.data = data
    }
}

/// A kind without namespaces.
struct Node: KubernetesObject {
    static let resource = ResourceKind(group: "", version: "v1", kind: "Node", plural: "nodes", isNamespaced: false)
    var metadata: ObjectMeta
}
