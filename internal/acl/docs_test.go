package acl_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authserver/internal/acl"
)

// Every finding is explained, and every policy that we ship is one.
func TestDocumentedFindingsAndShippedPolicies(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range acl.Checks {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("the page does not explain the finding %s", name)
		}
	}
	shipped, err := filepath.Glob("../../deploy/*/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range shipped {
		if _, err := acl.Load([]string{file}); err != nil {
			t.Error(err)
		}
	}
}
