package acl_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/acl"
	"authserver/internal/scope"
	"authserver/internal/users"
)

// What is read as policy tests can be run, and asks what it says; anything else is refused with its place.
func FuzzLoadCases(f *testing.F) {
	for _, seed := range []string{
		"- as: {user: alice, groups: [backend], ip: 10.0.0.1}\n  scope: \"repository:backend/api:pull,push\"\n  grants: [push, pull]\n",
		"- as: {robot: ci, claims: {team: x}}\n  at: \"2026-01-02T15:04:05+01:00\"\n  scope: registry:catalog:*\n  grants: []\n  name: catalog\n  service: one\n", "- {scope: \"repository:a:pull\", grants: [pull]}\n",
		"- as: {ip: \"::ffff:10.0.0.1\"}\n  scope: repository::pull\n  grants: [pull]\n- as: {}\n- scope: x\n", "- as: {user: a, robot: b}\n  at: now\n  grants: [Pull]\n", "[]\n", "a: b\n", "- [a]\n", "- as: {user: \"a:b\"}\n  as: 1\n",
	} {
		f.Add([]byte(seed))
	}
	file := filepath.Join(f.TempDir(), "policy.test.yaml")
	policy, err := acl.Parse("policy.yaml", []byte(rule()))
	if err != nil {
		f.Fatal(err)
	}
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		cases, err := acl.LoadCases(file, now)
		if (len(cases) == 0) == (err == nil) {
			t.Fatalf("%d cases, %v", len(cases), err)
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), file+":") {
				t.Fatalf("a fault without its place: %v", err)
			}
			return
		}
		for _, c := range cases {
			asked, dropped, err := scope.Parse([]string{c.Asked.String()})
			if err != nil || len(dropped) > 0 || len(asked) != 1 || asked.String() != c.Asked.String() || len(c.Asked.Actions) == 0 {
				t.Fatalf("%+v: asks %q, which is %q", c, c.Asked, asked)
			}
			if name, err := users.ParseName(c.Who.Name); (c.Who.Kind == users.KindAnonymous) != (c.Who.Name == "") || c.Who.Name != "" && (err != nil || name != c.Who.Name) {
				t.Fatalf("%+v: it is %q", c, name)
			}
			granted, verdicts := c.Run(policy)
			if !(scope.Set{{Type: c.Asked.Type, Name: c.Asked.Name, Actions: granted}}).Within(asked) || len(verdicts) == 0 || c.Title() == "" || !strings.HasPrefix(c.Where, file+":") {
				t.Fatalf("%+v: granted %q, %v", c, granted, verdicts)
			}
		}
	})
}
