package acl_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/acl"
	"authserver/internal/users"
)

// The difference between XACML 3.0's deny-overrides (C.2) and first-applicable (C.8), for one action. A is an allow rule
// and D a deny rule that match; a and d are ones that do not.
func TestCombining(t *testing.T) {
	tests := []struct {
		rules           string
		overrides, once bool // granted under deny-overrides, under first-applicable
	}{
		{"", false, false},
		{"a", false, false},
		{"d", false, false},
		{"A", true, true},
		{"D", false, false},
		{"AD", false, true},
		{"DA", false, false},
		{"aD", false, false},
		{"dA", true, true},
		{"adAD", false, true},
		{"adDA", false, false},
		{"AA", true, true},
		{"ADA", false, true},
		{"DAD", false, false},
	}
	for _, test := range tests {
		for combining, want := range map[string]bool{acl.DenyOverrides: test.overrides, acl.FirstApplicable: test.once} {
			text := "combining: " + combining + "\nrules:\n  - {name: other, subjects: [\"user:nobody\"], repositories: [x], actions: [pull]}\n"
			for i, r := range test.rules {
				effect, name := "allow", "a/b"
				if strings.ContainsRune("dD", r) {
					effect = "deny"
				}
				if strings.ContainsRune("ad", r) {
					name = "other"
				}
				text += fmt.Sprintf("  - {name: r%d, effect: %s, subjects: [anyone], repositories: [%q], actions: [pull]}\n", i, effect, name)
			}
			if got := ask(t, policy(t, text), user("alice"), "repository:a/b:pull") != ""; got != want {
				t.Errorf("%s, rules %q: granted %v", combining, test.rules, got)
			}
		}
	}
}

// Each action is decided by the first rule that covers it, and All by the first that covers every action.
func TestFirstApplicableDecidesEachActionByItself(t *testing.T) {
	rules := func(lines ...string) string {
		text := "combining: first-applicable\nrules:\n"
		for i, line := range lines {
			effect, actions, _ := strings.Cut(line, " ")
			text += fmt.Sprintf("  - {name: r%d, effect: %s, subjects: [anyone], repositories: [\"**\"], actions: %s}\n", i, effect, actions)
		}
		return text
	}
	tests := []struct {
		rules       []string
		asked, want string
	}{
		{[]string{"allow [pull]", "deny [push]", `allow ["*"]`}, "pull,push,delete", "delete,pull"},
		{[]string{"allow [pull]", "deny [push]", `allow ["*"]`}, "*", "delete,pull"}, // the deny comes before All
		{[]string{`allow ["*"]`, "deny [push]"}, "*", "*,delete,pull,push"},
		{[]string{"allow [pull]", `deny ["*"]`, `allow ["*"]`}, "*", "pull"}, // docker_auth's `actions: [pull]`
		{[]string{`deny ["*"]`, `allow ["*"]`}, "*", ""},                     // docker_auth's `actions: []`
		{[]string{"allow [pull]", `allow ["*"]`}, "*", "*,delete,pull,push"},
	}
	for _, test := range tests {
		want := ""
		if test.want != "" {
			want = "repository:a:" + test.want
		}
		if got := ask(t, policy(t, rules(test.rules...)), user("alice"), "repository:a:"+test.asked); got != want {
			t.Errorf("%q, asked %s: %q, want %q", test.rules, test.asked, got, want)
		}
	}
}

func TestTheVerdictOfFirstApplicableNamesTheRuleThatDecided(t *testing.T) {
	p := policy(t, `
combining: first-applicable
rules:
  - {name: freeze, effect: deny, subjects: [anyone], repositories: ["prod/**"], actions: [push]}
  - {name: all, subjects: [anyone], repositories: ["**"], actions: ["*"]}
  - {name: late, effect: deny, subjects: [anyone], repositories: ["**"], actions: [pull]}
`)
	asked := scopeOf(t, "repository:prod/a:pull,push")
	_, verdicts := p.Decide(user("alice"), addr("192.0.2.1"), "", time.Time{}, asked)
	if got := fmt.Sprint(verdicts[0].AllowedBy, verdicts[0].DeniedBy, verdicts[1].AllowedBy, verdicts[1].DeniedBy); got != "[all] [] [] [freeze]" {
		t.Errorf("got %s", got)
	}
}

func TestAllFilesOfAPolicyCombineAlike(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yaml", "combining: first-applicable\n"+rule("name: a"))
	write("b.yaml", rule("name: b"))
	_, err := acl.Load([]string{filepath.Join(dir, "*.yaml")})
	want := filepath.Join(dir, "b.yaml") + ": combining: deny-overrides, but the files before say first-applicable; all files of a policy say the same (deny-overrides when they say nothing)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	write("b.yaml", "combining: first-applicable\n"+rule("name: b"))
	if p, err := acl.Load([]string{filepath.Join(dir, "*.yaml")}); err != nil || p.Len() != 2 {
		t.Errorf("got %v", err)
	}
}

func TestGroupsWithinGroups(t *testing.T) {
	p := policy(t, `
groups:
  engineering: ["group:backend", "group:frontend", erin]
  backend: [bob, "group:storage"]
  storage: [sam]
  frontend: [fred]
rules:
  - {name: g, subjects: [authenticated], repositories: ["{group}/x"], actions: [pull]}
`)
	for _, test := range []struct {
		who  users.Principal
		want string
	}{
		{user("sam"), "storage backend engineering"},
		{user("bob"), "backend engineering"},
		{user("fred"), "frontend engineering"},
		{user("erin"), "engineering"},
		{user("carol"), ""},
		{user("carol", "storage"), "storage backend engineering"}, // by the directory
		{user("carol", "engineering"), "engineering"},
		{user("storage"), ""}, // a user of the same name
		{robot("sam"), ""},    // a robot of the same name
	} {
		for _, g := range []string{"storage", "backend", "frontend", "engineering"} {
			want := strings.Contains(" "+test.want+" ", " "+g+" ")
			if got := ask(t, p, test.who, "repository:"+g+"/x:pull") != ""; got != want {
				t.Errorf("%s %v is in %s: %v", test.who.Name, test.who.Groups, g, got)
			}
		}
	}
}

func TestACircleOfGroupsIsAnError(t *testing.T) {
	for groups, want := range map[string]string{
		`{a: ["group:a"]}`:                                        "policy.yaml:1: groups.a: a circle of groups: a is part of a; remove one of them from another",
		`{a: ["group:b"], b: ["group:a"]}`:                        "policy.yaml:1: groups.a: a circle of groups: a is part of b is part of a; remove one of them from another",
		`{a: ["group:c"], b: ["group:a"], c: ["group:b"], d: []}`: "policy.yaml:1: groups.a: a circle of groups: a is part of b is part of c is part of a; remove one of them from another",
	} {
		if _, err := acl.Parse("policy.yaml", []byte("groups: "+groups+"\n"+rule())); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", groups, err, want)
		}
	}
	deep := "groups: {"
	for i := range 40 {
		deep += fmt.Sprintf("g%d: [\"group:g%d\"], ", i, i+1)
	}
	if _, err := acl.Parse("policy.yaml", []byte(deep+"g40: [x]}\n"+rule())); err == nil || !strings.Contains(err.Error(), "groups lie within each other more than 32 deep, beginning at g40") {
		t.Errorf("got %v", err)
	}
	if _, err := acl.Parse("policy.yaml", []byte("groups: {a: [\"group:b\", \"group:b\"], b: [\"group:a\"]}\n"+rule())); err == nil || strings.Count(err.Error(), "a circle") != 1 {
		t.Errorf("got %v", err)
	}
	// A group on two ways is no circle.
	policy(t, `groups: {a: ["group:b", "group:c"], b: ["group:d"], c: ["group:d"], d: [x]}`+"\n"+rule())
	if _, err := acl.Parse("policy.yaml", []byte("groups: {a: [\"group:*\"]}\n"+rule())); err == nil || err.Error() != `policy.yaml:1: groups.a[0]: "group:*": a group's name holds no wildcards` {
		t.Errorf("got %v", err)
	}
}
