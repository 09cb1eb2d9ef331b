package pages_test

import (
	"path/filepath"
	"regexp"
	"testing"

	"authserver/e2e/harness"
)

var policyBlock = regexp.MustCompile("(?s)```yaml\n(# policy.yaml\n.*?)```")

// What the pages below docs show as policy.yaml is one. (Those of docs itself are read by the product's own tests.)
func TestPoliciesOfPages(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(harness.Root(t), "..", "docs", "*", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	r := harness.NewReader(t)
	if out, err := r.Type("authserver init . --service notary.example.com"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	shown := 0
	for _, page := range pages {
		for _, block := range policyBlock.FindAllStringSubmatch(string(harness.ReadFile(t, page)), -1) {
			shown++
			r.File("policy.yaml", "groups: {admins: [admin], team: [alice]}\n%s", block[1])
			if out, err := r.Type("authserver config check"); err != nil {
				t.Errorf("%s: %v\n%s\n%s", page, err, out, block[1])
			}
		}
	}
	if shown == 0 {
		t.Error("no page shows a policy")
	}
}
