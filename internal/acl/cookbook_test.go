package acl_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/acl"
	"authserver/internal/scope"
)

// Every policy of the cookbook loads, is sound to lint, does what its tests say, and has a test for every rule.
func TestCookbook(t *testing.T) {
	tests, err := filepath.Glob("../../docs/cookbook/*" + acl.TestSuffix)
	if err != nil || len(tests) < 15 {
		t.Fatalf("%d policies with tests, %v", len(tests), err)
	}
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tests {
		policyFile := strings.TrimSuffix(file, acl.TestSuffix) + ".yaml"
		t.Run(filepath.Base(policyFile), func(t *testing.T) {
			p, err := acl.Load([]string{policyFile})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range p.Lint() {
				if f.Severity != acl.SeverityInfo {
					t.Errorf("%s: %s", f.Where, f.Text)
				}
			}
			cases, err := acl.LoadCases(file, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			var all []scope.Verdict
			for _, c := range cases {
				granted, verdicts := c.Run(p)
				all = append(all, verdicts...)
				if !slices.Equal(granted, c.Grants) && len(granted)+len(c.Grants) > 0 {
					t.Errorf("%s: %s: granted %q, want %q", c.Where, c.Title(), granted, c.Grants)
				}
			}
			if rest := p.Unexercised(all); len(rest) > 0 {
				t.Errorf("no test exercises %q", rest)
			}
			if !strings.Contains(string(page), "cookbook/"+filepath.Base(policyFile)+")") {
				t.Error("docs/policy.md does not name it")
			}
		})
	}
}
