package acl_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/acl"
)

// Every policy in the documentation, and every one that we ship, is a policy.
func TestDocumentedPoliciesLoad(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range acl.Checks {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("the page does not explain the finding %s", name)
		}
	}
	found, tests := 0, 0
	for _, block := range strings.Split(string(page), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		if strings.HasPrefix(text, "- as:") {
			file := filepath.Join(t.TempDir(), "docs.test.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := acl.LoadCases(file, time.Now()); err != nil {
				t.Error(err)
			}
			tests++
		}
		if !strings.Contains(text, "rules:") {
			continue
		}
		found++
		if _, err := acl.Parse("docs/policy.md", []byte(text)); err != nil {
			t.Error(err)
		}
	}
	if found < 1 || tests != 1 {
		t.Errorf("%d policies and %d files of tests found on the page", found, tests)
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
