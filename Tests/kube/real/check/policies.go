// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/environment"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

const (
	namespace = "n"
	keymgr    = "system:serviceaccount:xdp-encryptor:ebpf-xdp-keymgr"
	operator  = "system:serviceaccount:xdp-encryptor:ebpf-xdp-operator"
	nodeName  = "authentication.kubernetes.io/node-name"
)

// checkPolicies compiles policies as a server of the oldest version does that is asked to take them, and lets the newest decide.
func checkPolicies(policies []*admissionv1.ValidatingAdmissionPolicy, bindings []*admissionv1.ValidatingAdmissionPolicyBinding) {
	for _, policy := range policies {
		fmt.Println(policy.Name)
		compile(policy)
		// What the controller manager would write into the policy's status.
		checker := validating.TypeChecker{SchemaResolver: shapes{}, RestMapper: mapper()}
		for _, warning := range checker.Check(policy) {
			complain("%s: %s", warning.FieldRef, warning.Warning)
		}
	}
	plugin, err := start(policies, bindings)
	must(err)
	for _, request := range requests() {
		err := plugin.Validate(context.Background(), request.attributes, admission.NewObjectInterfacesFromScheme(scheme.Scheme))
		if (err == nil) != request.passes {
			complain("%s: %v", request.what, err)
		}
	}
	fmt.Printf("  %d requests decided\n", len(requests()))
}

func compile(policy *admissionv1.ValidatingAdmissionPolicy) {
	compiler, err := plugincel.NewCompositedCompiler(oldest)
	must(err)
	options := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	for index := range policy.Spec.Variables {
		variable := policy.Spec.Variables[index]
		result := compiler.CompileAndStoreVariable(&validating.Variable{Name: variable.Name, Expression: variable.Expression}, options, environment.NewExpressions)
		if result.Error != nil {
			complain("variable %s: %v", variable.Name, result.Error)
		}
	}
	var expressions []plugincel.ExpressionAccessor
	for index := range policy.Spec.MatchConditions {
		expressions = append(expressions, (*matchconditions.MatchCondition)(&policy.Spec.MatchConditions[index]))
	}
	for _, rule := range policy.Spec.Validations {
		expressions = append(expressions, &validating.ValidationCondition{Expression: rule.Expression, Message: rule.Message, Reason: rule.Reason})
	}
	for _, problem := range compiler.CompileCondition(expressions, options, environment.NewExpressions).CompilationErrors() {
		complain("%v", problem)
	}
	fmt.Printf("  %d expressions compile\n", len(expressions)+len(policy.Spec.Variables))
}

// start makes the admission plugin of a server that has these policies and a namespace.
func start(policies []*admissionv1.ValidatingAdmissionPolicy, bindings []*admissionv1.ValidatingAdmissionPolicyBinding) (*validating.Plugin, error) {
	objects := []runtime.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}}
	for index, policy := range policies {
		policy.UID, policy.Generation, policy.ResourceVersion = "p", int64(index+1), "1"
		scheme.Scheme.Default(policy)
		// The API server's own defaults, which the client's scheme does not have.
		equivalent, all := admissionv1.Equivalent, admissionv1.AllScopes
		policy.Spec.MatchConstraints.MatchPolicy = &equivalent
		policy.Spec.MatchConstraints.NamespaceSelector, policy.Spec.MatchConstraints.ObjectSelector = &metav1.LabelSelector{}, &metav1.LabelSelector{}
		for rule := range policy.Spec.MatchConstraints.ResourceRules {
			policy.Spec.MatchConstraints.ResourceRules[rule].Scope = &all
		}
		objects = append(objects, policy)
	}
	for _, binding := range bindings {
		objects = append(objects, binding)
	}
	client := fake.NewClientset(objects...)
	factory := informers.NewSharedInformerFactory(client, 0)
	plugin, err := validating.NewPlugin(nil)
	if err != nil {
		return nil, err
	}
	plugin.SetExternalKubeInformerFactory(factory)
	plugin.SetExternalKubeClientSet(client)
	plugin.SetRESTMapper(mapper())
	plugin.SetDynamicClient(dynamicfake.NewSimpleDynamicClient(scheme.Scheme))
	plugin.SetDrainedNotification(make(chan struct{}))
	plugin.SetAuthorizer(authorizer.AuthorizerFunc(authorize))
	if err := plugin.ValidateInitialization(); err != nil {
		return nil, err
	}
	factory.Start(make(chan struct{}))
	factory.WaitForCacheSync(make(chan struct{}))
	for deadline := time.Now().Add(20 * time.Second); !plugin.WaitForReady(); {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the admission plugin does not get ready")
		}
	}
	return plugin, nil
}

// authorize knows one who is bound to xdp-encryptor-annotator in the namespace.
func authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetUser().GetName() == "annotator" && a.GetNamespace() == namespace && a.GetAPIGroup() == "encryption.ebpf.xdp" &&
		a.GetResource() == "podencryptions" && a.GetVerb() == "annotate" {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

type request struct {
	what       string
	attributes admission.Attributes
	passes     bool
}

func attributes(who user.Info, operation admission.Operation, kind schema.GroupVersionKind, resource, sub, namespace, name string, object, old runtime.Object) admission.Attributes {
	return admission.NewAttributesRecord(object, old, kind, namespace, name, kind.GroupVersion().WithResource(resource), sub, operation, nil, false, who)
}

func requests() []request {
	var all []request
	add := func(passes bool, what string, a admission.Attributes) { all = append(all, request{what, a, passes}) }

	node := schema.GroupVersionKind{Group: "encryption.ebpf.xdp", Version: "v1alpha1", Kind: "EncryptionNode"}
	write := func(name string, extra map[string][]string, of string) admission.Attributes {
		object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "encryption.ebpf.xdp/v1alpha1", "kind": "EncryptionNode", "metadata": map[string]any{"name": of}}}
		return attributes(&user.DefaultInfo{Name: name, Extra: extra}, admission.Update, node, "encryptionnodes", "status", "", of, object, object)
	}
	add(true, "a keymgr writes its own node", write(keymgr, map[string][]string{nodeName: {"a"}}, "a"))
	add(false, "a keymgr writes another node", write(keymgr, map[string][]string{nodeName: {"a"}}, "b"))
	add(false, "a keymgr with two nodes", write(keymgr, map[string][]string{nodeName: {"a", "b"}}, "b"))
	add(false, "a keymgr's token of no node", write(keymgr, map[string][]string{"authentication.kubernetes.io/credential-id": {"JTI=1"}}, "a"))
	add(false, "a keymgr's token without anything", write(keymgr, nil, "a"))
	add(true, "the operator writes a node", write(operator, nil, "a"))

	on, off, other := map[string]string{"ebpf.xdp/encrypt": "true"}, map[string]string{"ebpf.xdp/encrypt": "false"}, map[string]string{"a": "b"}
	controller := "system:serviceaccount:kube-system:replicaset-controller"
	pod := func(annotations map[string]string) runtime.Object {
		return &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: namespace, Annotations: annotations}}
	}
	podKind := corev1.SchemeGroupVersion.WithKind("Pod")
	for _, sub := range []string{"", "status", "ephemeralcontainers", "resize"} {
		change := func(name string, before, after map[string]string) admission.Attributes {
			return attributes(&user.DefaultInfo{Name: name}, admission.Update, podKind, "pods", sub, namespace, "x", pod(after), pod(before))
		}
		add(true, "somebody sets another annotation at pods/"+sub, change("bob", nil, other))
		add(true, "somebody leaves ours at pods/"+sub, change("bob", on, map[string]string{"a": "b", "ebpf.xdp/encrypt": "true"}))
		add(false, "somebody sets ours at pods/"+sub, change("bob", nil, on))
		add(false, "somebody changes ours at pods/"+sub, change("bob", on, off))
		add(false, "somebody removes ours at pods/"+sub, change("bob", on, nil))
		add(false, "a controller removes ours at pods/"+sub, change(controller, on, other))
		add(true, "the operator sets ours at pods/"+sub, change(operator, nil, on))
		add(true, "one who may sets ours at pods/"+sub, change("annotator", on, off))
	}
	create := func(name string, annotations map[string]string) admission.Attributes {
		return attributes(&user.DefaultInfo{Name: name}, admission.Create, podKind, "pods", "", namespace, "x", pod(annotations), nil)
	}
	add(true, "a new pod without annotations", create("bob", nil))
	add(false, "a new pod with ours", create("bob", on))
	add(true, "a new pod of a controller with ours", create(controller, on))
	add(true, "a new pod with ours of one who may", create("annotator", off))
	bind := func(annotations map[string]string) admission.Attributes {
		object := &corev1.Binding{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Binding"}, ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: namespace, Annotations: annotations}}
		return attributes(&user.DefaultInfo{Name: "bob"}, admission.Create, corev1.SchemeGroupVersion.WithKind("Binding"), "pods", "binding", namespace, "x", object, nil)
	}
	add(true, "a binding", bind(nil))
	add(false, "a binding with ours", bind(off))

	for kind, make := range templates {
		change := func(name string, before, after map[string]string) admission.Attributes {
			return attributes(&user.DefaultInfo{Name: name}, admission.Update, kind.kind, kind.resource, "", namespace, "x", make(after), make(before))
		}
		create := func(name string, annotations map[string]string) admission.Attributes {
			return attributes(&user.DefaultInfo{Name: name}, admission.Create, kind.kind, kind.resource, "", namespace, "x", make(annotations), nil)
		}
		add(true, "somebody makes "+kind.resource, create("bob", nil))
		add(true, "somebody makes "+kind.resource+" with another annotation", create("bob", other))
		add(false, "somebody makes "+kind.resource+" with ours", create("bob", off))
		add(true, "one who may makes "+kind.resource+" with ours", create("annotator", off))
		add(true, "somebody leaves ours in "+kind.resource, change("bob", on, on))
		add(false, "somebody sets ours in "+kind.resource, change("bob", nil, on))
		add(false, "somebody removes ours in "+kind.resource, change("bob", on, other))
		add(true, "a controller sets ours in "+kind.resource, change("system:serviceaccount:kube-system:deployment-controller", nil, on))
	}
	return all
}

// shapes knows of each kind where its annotations and its template are; no more is asked for.
type shapes struct{}

func object(properties map[string]spec.Schema) spec.Schema {
	return spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: properties}}
}

func (shapes) ResolveSchema(kind schema.GroupVersionKind) (*spec.Schema, error) {
	text := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"string"}}}
	metadata := object(map[string]spec.Schema{"name": text, "annotations": *spec.MapProperty(&text)})
	template := object(map[string]spec.Schema{"metadata": metadata})
	whole := map[string]spec.Schema{"metadata": metadata, "kind": text, "apiVersion": text}
	switch kind.Kind {
	case "Pod", "EncryptionNode":
	case "PodTemplate":
		whole["template"] = template
	case "CronJob":
		job := object(map[string]spec.Schema{"spec": object(map[string]spec.Schema{"template": template})})
		whole["spec"] = object(map[string]spec.Schema{"jobTemplate": job})
	default:
		whole["spec"] = object(map[string]spec.Schema{"template": template})
	}
	shape := object(whole)
	return &shape, nil
}

func mapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	for kind := range templates {
		mapper.Add(kind.kind, meta.RESTScopeNamespace)
	}
	return mapper
}

type templateKind struct {
	kind     schema.GroupVersionKind
	resource string
}

func template(annotations map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}}
}

var named = metav1.ObjectMeta{Name: "x", Namespace: namespace}

func typed(group, kind string) metav1.TypeMeta { return metav1.TypeMeta{APIVersion: group, Kind: kind} }

var templates = map[templateKind]func(map[string]string) runtime.Object{
	{corev1.SchemeGroupVersion.WithKind("PodTemplate"), "podtemplates"}: func(a map[string]string) runtime.Object {
		return &corev1.PodTemplate{TypeMeta: typed("v1", "PodTemplate"), ObjectMeta: named, Template: template(a)}
	},
	{corev1.SchemeGroupVersion.WithKind("ReplicationController"), "replicationcontrollers"}: func(a map[string]string) runtime.Object {
		t := template(a)
		return &corev1.ReplicationController{TypeMeta: typed("v1", "ReplicationController"), ObjectMeta: named, Spec: corev1.ReplicationControllerSpec{Template: &t}}
	},
	{appsv1.SchemeGroupVersion.WithKind("Deployment"), "deployments"}: func(a map[string]string) runtime.Object {
		return &appsv1.Deployment{TypeMeta: typed("apps/v1", "Deployment"), ObjectMeta: named, Spec: appsv1.DeploymentSpec{Template: template(a)}}
	},
	{appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), "replicasets"}: func(a map[string]string) runtime.Object {
		return &appsv1.ReplicaSet{TypeMeta: typed("apps/v1", "ReplicaSet"), ObjectMeta: named, Spec: appsv1.ReplicaSetSpec{Template: template(a)}}
	},
	{appsv1.SchemeGroupVersion.WithKind("StatefulSet"), "statefulsets"}: func(a map[string]string) runtime.Object {
		return &appsv1.StatefulSet{TypeMeta: typed("apps/v1", "StatefulSet"), ObjectMeta: named, Spec: appsv1.StatefulSetSpec{Template: template(a)}}
	},
	{appsv1.SchemeGroupVersion.WithKind("DaemonSet"), "daemonsets"}: func(a map[string]string) runtime.Object {
		return &appsv1.DaemonSet{TypeMeta: typed("apps/v1", "DaemonSet"), ObjectMeta: named, Spec: appsv1.DaemonSetSpec{Template: template(a)}}
	},
	{batchv1.SchemeGroupVersion.WithKind("Job"), "jobs"}: func(a map[string]string) runtime.Object {
		return &batchv1.Job{TypeMeta: typed("batch/v1", "Job"), ObjectMeta: named, Spec: batchv1.JobSpec{Template: template(a)}}
	},
	{batchv1.SchemeGroupVersion.WithKind("CronJob"), "cronjobs"}: func(a map[string]string) runtime.Object {
		return &batchv1.CronJob{TypeMeta: typed("batch/v1", "CronJob"), ObjectMeta: named, Spec: batchv1.CronJobSpec{
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template(a)}}}}
	},
}
