package simulation

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"strings"
	"testing"
)

// auditorsFiles are what the auditor is made of.
var auditorsFiles = []string{"evidence_test.go", "audit_test.go", "audit_requests_test.go", "audit_clients_test.go", "coverage_test.go"}

// messageOf is a type checker's error without its place.
func messageOf(err error) string {
	if found, ok := errors.AsType[types.Error](err); ok {
		return found.Msg
	}
	return ""
}

// TestAuditorIsIndependent holds that the auditor uses nothing of what it judges: neither the gateway's
// packages nor the harness.
func TestAuditorIsIndependent(t *testing.T) {
	t.Parallel()
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range auditorsFiles {
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			if first, _, _ := strings.Cut(strings.Trim(spec.Path.Value, `"`), "/"); strings.Contains(first, ".") || first == "llm-gateway" {
				t.Errorf("%s imports %s", name, spec.Path.Value)
			}
		}
		files = append(files, f)
	}
	// Without importers nothing of other packages is known, and that is passed over: what is undefined and
	// has no package's name before it would be the harness's.
	config := types.Config{Error: func(err error) {
		if name, undefined := strings.CutPrefix(messageOf(err), "undefined: "); undefined && !strings.Contains(name, ".") {
			t.Errorf("the auditor uses %s: %v", name, err)
		}
	}}
	config.Check("auditor", set, files, nil) //nolint:errcheck // Error has had them all
}
