// SPDX-License-Identifier: Apache-2.0

// check looks at manifests with the API server's own code: what a server says that is asked to take them.
//
//	check CRD.yaml... ADMISSION.yaml
//
// CustomResourceDefinitions are validated as at creation: structural schemas, defaults, printer columns, CEL rules, and what these may
// cost. ValidatingAdmissionPolicies are compiled, and then decide about requests. Both are compiled for the oldest Kubernetes that is
// supported as well. Prints what was checked; exit status 1 when something is wrong.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	crdv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	schemacel "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/yaml"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	sigsyaml "sigs.k8s.io/yaml"
)

// The oldest Kubernetes that docs/kubernetes.md names.
var oldest = environment.MustBaseEnvSet(version.MajorMinor(1, 30))

var failures int

func complain(format string, values ...any) {
	failures++
	fmt.Printf("  WRONG: "+format+"\n", values...)
}

func main() {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	var policies []*admissionv1.ValidatingAdmissionPolicy
	var bindings []*admissionv1.ValidatingAdmissionPolicyBinding
	for _, path := range os.Args[1:] {
		for _, document := range read(path) {
			var kind struct{ Kind string }
			must(sigsyaml.Unmarshal(document, &kind))
			switch kind.Kind {
			case "CustomResourceDefinition":
				crd := &crdv1.CustomResourceDefinition{}
				must(sigsyaml.UnmarshalStrict(document, crd))
				checkDefinition(scheme, crd)
			case "ValidatingAdmissionPolicy":
				policy := &admissionv1.ValidatingAdmissionPolicy{}
				must(sigsyaml.UnmarshalStrict(document, policy))
				policies = append(policies, policy)
			case "ValidatingAdmissionPolicyBinding":
				binding := &admissionv1.ValidatingAdmissionPolicyBinding{}
				must(sigsyaml.UnmarshalStrict(document, binding))
				bindings = append(bindings, binding)
			}
		}
	}
	if len(policies) > 0 {
		checkPolicies(policies, bindings)
	}
	if failures > 0 {
		fmt.Printf("%d wrong\n", failures)
		os.Exit(1)
	}
	fmt.Println("all in order")
}

// checkDefinition does what the registry does with a new CRD.
func checkDefinition(scheme *runtime.Scheme, crd *crdv1.CustomResourceDefinition) {
	fmt.Println(crd.Name)
	scheme.Default(crd)
	internal := &apiextensions.CustomResourceDefinition{}
	must(scheme.Convert(crd, internal, nil))
	// As the registry's strategy does before it validates.
	internal.Status.StoredVersions = []string{internal.Spec.Versions[0].Name}
	for _, problem := range validation.ValidateCustomResourceDefinition(context.Background(), internal) {
		complain("%v", problem)
	}
	for _, version := range internal.Spec.Versions {
		definition := version.Schema
		if definition == nil {
			definition = internal.Spec.Validation
		}
		structural, err := schema.NewStructural(definition.OpenAPIV3Schema)
		must(err)
		// A server adds what every object has.
		checkRules(structural, "", 1, true)
	}
}

// checkRules compiles the rules of a schema and of those in it, and prints what they may cost in the worst case.
func checkRules(structural *schema.Structural, path string, times uint64, isRoot bool) {
	declared := model.SchemaDeclType(structural, isRoot)
	results, err := schemacel.Compile(structural, declared, celconfig.PerCallLimit, oldest, schemacel.NewExpressionsEnvLoader())
	must(err)
	for index, result := range results {
		rule := structural.XValidations[index].Rule
		if result.Error != nil {
			complain("%s: %s: %v", path, rule, result.Error)
			continue
		}
		if result.MessageExpressionError != nil {
			complain("%s: %s: %v", path, rule, result.MessageExpressionError)
		}
		cost := result.MaxCost * times
		fmt.Printf("  rule at %s: costs %d of %d\n", display(path), cost, uint64(validation.StaticEstimatedCostLimit))
		if cost > validation.StaticEstimatedCostLimit {
			complain("%s: %s: too expensive", path, rule)
		}
	}
	for name, property := range structural.Properties {
		checkRules(&property, path+"."+name, times, false)
	}
	if structural.Items != nil {
		most := times * 1000000
		if validations := structural.ValueValidation; validations != nil && validations.MaxItems != nil {
			most = times * uint64(*validations.MaxItems)
		}
		checkRules(structural.Items, path+"[]", most, false)
	}
}

func display(path string) string {
	if path == "" {
		return "the whole object"
	}
	return path
}

func read(path string) [][]byte {
	content, err := os.ReadFile(path)
	must(err)
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	var documents [][]byte
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return documents
		}
		must(err)
		documents = append(documents, document)
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(2)
	}
}
