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

const suitePolicy = `
groups: {dev: [alice]}
rules:
  - {name: dev, subjects: ["group:dev"], repositories: ["dev/**"], actions: [pull, push]}
  - {name: office, subjects: [authenticated], repositories: ["office/**"], actions: [pull], networks: ["10.0.0.0/8"]}
  - {name: other, subjects: [authenticated], repositories: ["other/**"], actions: [pull], services: [elsewhere]}
  - {name: early, subjects: [authenticated], repositories: ["early/**"], actions: [pull], when: "now.getHours() < 6"}
  - {name: freeze, effect: deny, subjects: [anyone], repositories: ["dev/frozen"], actions: [push]}
  - {name: catalog, subjects: ["user:admin"], resources: ["registry:catalog"], actions: ["*"]}
`

func TestNearestMisses(t *testing.T) {
	p := policy(t, suitePolicy)
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct{ user, typ, name, action, want string }{
		{"bob", "repository", "dev/app", "pull", "rule dev (policy.yaml:4) would match but for the subject"},
		{"alice", "repository", "dev/app", "delete", "rule dev (policy.yaml:4) would match but for the action delete"},
		{"alice", "repository", "devs/app", "pull", "rule dev (policy.yaml:4) would match but for the resource"},
		{"bob", "repository", "office/app", "pull", "rule office (policy.yaml:5) would match but for the network"},
		{"bob", "repository", "other/app", "pull", "rule other (policy.yaml:6) would match but for the service"},
		{"bob", "repository", "early/app", "pull", "rule early (policy.yaml:7) would match but for its condition"},
		{"bob", "repository", "dev/app", "delete", ""}, // two things are missing
		{"bob", "repository", "", "pull", "rule catalog (policy.yaml:9) would match but for the subject"},
	} {
		got := strings.Join(p.Nearest(user(test.user), addr("192.0.2.1"), "here", noon, test.typ, test.name, test.action), "; ")
		if got != test.want {
			t.Errorf("%s, %s:%s:%s\n got %s\nwant %s", test.user, test.typ, test.name, test.action, got, test.want)
		}
	}
	many := rule()
	for range 20 {
		many += "  - {name: r" + strings.Repeat("x", len(many)%100+strings.Count(many, "\n")) + ", subjects: [\"user:bob\"], repositories: [\"**\"], actions: [pull]}\n"
	}
	if p, err := acl.Parse("policy.yaml", []byte(strings.Replace(many, "subjects: [anyone]", "subjects: [\"user:bob\"]", 1))); err != nil || len(p.Nearest(user("alice"), addr("192.0.2.1"), "", noon, "repository", "a", "pull")) != 5 {
		t.Errorf("the list is not bounded: %v", err)
	}
}

func TestCasesRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.test.yaml")
	if err := os.WriteFile(file, []byte(`
- as: {user: alice, ip: "::ffff:10.0.0.1"}
  scope: "repository:dev/frozen:pull,push"
  grants: [pull]
- as: {robot: ci, groups: [dev], claims: {a: b}}
  name: a robot
  scope: "repository:dev/app:push"
  grants: [push]
- scope: "repository:dev/app:push"
  grants: []
`), 0o600); err != nil {
		t.Fatal(err)
	}
	cases, err := acl.LoadCases(file, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p := policy(t, suitePolicy)
	var all []scope.Verdict
	for i, title := range []string{"alice, repository:dev/frozen:pull,push", "a robot", "anonymous, repository:dev/app:push"} {
		granted, verdicts := cases[i].Run(p)
		all = append(all, verdicts...)
		if cases[i].Title() != title || !slices.Equal(granted, cases[i].Grants) && len(granted)+len(cases[i].Grants) > 0 {
			t.Errorf("%s at %s: granted %q", cases[i].Title(), cases[i].Where, granted)
		}
	}
	if cases[0].From.String() != "10.0.0.1" {
		t.Errorf("from %s", cases[0].From)
	}
	if got := p.Unexercised(all); !slices.Equal(got, []string{"office", "other", "early", "catalog"}) {
		t.Errorf("unexercised %q", got)
	}
	if _, err := acl.LoadCases(filepath.Join(t.TempDir(), "none"), time.Now()); err == nil {
		t.Error("a file that is not there")
	}
}
