package acl_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/acl"
	"authserver/internal/users"
)

// when makes a policy of one rule with a condition, for everybody on every repository.
func when(condition string, lines ...string) string {
	return rule(append([]string{"when: " + fmt.Sprintf("%q", condition)}, lines...)...)
}

func TestConditions(t *testing.T) {
	alice := user("alice", "dev")
	alice.Claims = map[string]any{"repository": "org/app", "run": map[string]any{"attempt": 2}, "tags": []any{"x"}}
	at := time.Date(2026, 7, 1, 3, 30, 0, 0, time.UTC) // 05:30 in Berlin
	tests := []struct {
		condition string
		want      bool
	}{
		{"true", true},
		{"false", false},
		{`user.name == "alice"`, true},
		{`user.kind == "user"`, true},
		{`"dev" in user.groups`, true},
		{`"policy" in user.groups`, true},
		{`"ops" in user.groups`, false},
		{`user.groups.exists(g, resource.name.startsWith(g + "/"))`, true},
		{`request.service == "registry.local"`, true},
		{`cidr("192.0.2.0/24").containsIP(request.ip)`, true},
		{`cidr("10.0.0.0/8").containsIP(request.ip)`, false},
		{`resource.type == "repository" && resource.name == "dev/app"`, true},
		{`resource.name.matches("^dev/[a-z]+$")`, true},
		{`action == "pull"`, true},
		{`action in ["push", "delete"]`, false},
		{`now < timestamp("2026-07-02T00:00:00Z")`, true},
		{`now.getHours() == 3`, true},
		{`now.getHours("Europe/Berlin") == 5`, true},
		{`now.getDayOfWeek("Europe/Berlin") == 3`, true},
		{`claims.repository == "org/app"`, true},
		{`claims.run.attempt == 2`, true},
		{`"x" in claims.tags`, true},
		{`literal("a.b*") == "a\\.b\\*"`, true},
		{`resource.name.matches("^" + literal(user.name) + "/")`, false},
		{`resource.name.matches("^" + literal(user.groups[0]) + "/app$")`, true},
		{`"dexapp".matches("^" + literal("de.app") + "$")`, false},
		{`capture(resource.name, "^([a-z]+)/([a-z]+)$", 2) == "app"`, true},
		{`capture(resource.name, "[a-z](p)", 1) == "p"`, true},
		{`capture(resource.name, "app|(x)", 1) == ""`, true},
		{`resource.name.matches("nothing") && capture(resource.name, "(nothing)", 1) == "x"`, false},
		{`has(claims.environment) && claims.environment == "prod"`, false},
	}
	for _, test := range tests {
		p := policy(t, "groups: {policy: [alice]}\n"+when(test.condition))
		granted, verdicts := p.Decide(alice, addr("192.0.2.1"), "registry.local", at, scopeOf(t, "repository:dev/app:pull"))
		if (len(granted) > 0) != test.want || len(verdicts[0].Failed) > 0 {
			t.Errorf("%s: %q, failed %v", test.condition, granted, verdicts[0].Failed)
		}
	}
}

// A condition that fails never grants: an allow rule does not apply, a deny rule does.
func TestAConditionThatFailsNeverGrants(t *testing.T) {
	unknown := netip.Addr{}
	for condition, from := range map[string]netip.Addr{
		`claims.none == "x"`:                            addr("192.0.2.1"),
		`claims.number.size() == 1`:                     addr("192.0.2.1"),
		`[1, 2][int(now.getFullYear())] == 1`:           addr("192.0.2.1"),
		`cidr("10.0.0.0/8").containsIP(request.ip)`:     unknown,
		`!cidr("10.0.0.0/8").containsIP(request.ip)`:    unknown,
		`now.getHours("Nowhere/City") == 1`:             addr("192.0.2.1"),
		`claims.list.all(a, a == "x")`:                  addr("192.0.2.1"), // beyond the cost
		`cidr(user.name + "/8").containsIP("10.0.0.1")`: addr("192.0.2.1"),
	} {
		who := user("alice")
		long := make([]any, 200_000)
		for i := range long {
			long[i] = "x"
		}
		who.Claims = map[string]any{"number": 5, "list": long}
		asked := scopeOf(t, "repository:a:pull")
		granted, verdicts := policy(t, when(condition)).Decide(who, from, "", time.Now(), asked)
		if len(granted) != 0 || !slices.Equal(verdicts[0].Failed, []string{"r"}) || len(verdicts[0].AllowedBy) != 0 {
			t.Errorf("allow, %s: %q %+v", condition, granted, verdicts)
		}
		deny := when(condition, "name: d", "effect: deny")
		granted, verdicts = policy(t, rule()+strings.TrimPrefix(deny, "rules:\n")).Decide(who, from, "", time.Now(), asked)
		if len(granted) != 0 || !slices.Equal(verdicts[0].Failed, []string{"d"}) || !slices.Equal(verdicts[0].DeniedBy, []string{"d"}) {
			t.Errorf("deny, %s: %q %+v", condition, granted, verdicts)
		}
	}
}

// All is every action and PATH/* every name below: a condition on the action or on the name cannot tell for all of them.
func TestAConditionCannotBeAskedAround(t *testing.T) {
	who := user("alice")
	decide := func(text, asked string) string {
		granted, _ := policy(t, text).Decide(who, addr("192.0.2.1"), "", time.Now(), scopeOf(t, asked))
		return granted.String()
	}
	allow := when(`action != "delete"`)
	if got := decide(allow, "repository:a:*"); got != "repository:a:pull,push" {
		t.Errorf("allow all but delete: %q", got)
	}
	deny := rule() + strings.TrimPrefix(when(`action == "delete"`, "name: d", "effect: deny"), "rules:\n")
	if got := decide(deny, "repository:a:*"); got != "repository:a:pull,push" {
		t.Errorf("deny delete: %q", got)
	}
	if got := decide(when(`!resource.name.startsWith("a/secret")`), "repository:a/*:pull"); got != "" {
		t.Errorf("allow but a secret: %q", got)
	}
	secret := rule() + strings.TrimPrefix(when(`resource.name.startsWith("a/secret")`, "name: d", "effect: deny"), "rules:\n")
	if got := decide(secret, "repository:a/*:pull"); got != "" {
		t.Errorf("deny a secret: %q", got)
	}
	if got := decide(secret, "repository:a/b:pull"); got != "repository:a/b:pull" {
		t.Errorf("beside the secret: %q", got)
	}
	// A condition on neither tells.
	if got := decide(when(`user.name == "alice"`), "repository:a/*:*"); got != "repository:a/*:*,delete,pull,push" {
		t.Errorf("a condition on the user: %q", got)
	}
}

func TestConditionsOnTheCatalogSeeTheCatalog(t *testing.T) {
	p := policy(t, when(`resource.type == "registry" && resource.name == "catalog"`, `resources: ["registry:catalog"]`))
	if got := ask(t, p, user("alice"), "repository::pull"); got != "repository::pull" {
		t.Errorf("got %q", got)
	}
}

func TestConditionsOfAnonymous(t *testing.T) {
	p := policy(t, when(`user.kind == "anonymous" && user.name == "" && size(user.groups) == 0 && size(claims) == 0`))
	if got := ask(t, p, users.Anonymous(), "repository:a:pull"); got == "" {
		t.Error("the condition does not hold")
	}
}

func TestBadConditions(t *testing.T) {
	for condition, want := range map[string]string{
		`user.name`:       "line 1, column 1: is of type string; a condition is true or false",
		`1`:               "line 1, column 1: is of type int; a condition is true or false",
		`usr.name == "a"`: "line 1, column 4: undeclared reference to 'usr.name' (did you mean 'user.name'?)",
		`user.nam == "a"`: "line 1, column 5: undeclared reference to 'user.nam' (did you mean 'user.name'?)",
		`user.name == 1`:  "line 1, column 11: found no matching overload for '_==_' applied to '(string, int)'",
		`user.groups.exists(a, user.groups.exists(b, resource.name.matches(literal(a) + literal(b))))`:  "line 1, column 1: may cost up to ",
		`user.groups.exists(a, capture(resource.name, "^(` + strings.Repeat("x", 100) + `)$", 1) == a)`: "line 1, column 1: may cost up to ",
		// A regular expression is the policy's own.
		`resource.name.matches(user.name)`:                                                   "line 1, column 27: the regular expression holds what comes with the request; put literal(…) around it",
		`matches(resource.name, "^" + user.name)`:                                            "line 1, column 28: the regular expression holds what comes with the request",
		`user.groups.exists(g, resource.name.matches("^" + g + "/"))`:                        "the regular expression holds what comes with the request",
		`capture(resource.name, user.name, 1) == "x"`:                                        "line 1, column 28: the regular expression holds what comes with the request",
		`resource.name.matches(capture(user.name, "(.*)", 1))`:                               "line 1, column 30: the regular expression holds what comes with the request",
		`resource.name.matches(literal(user.name).replace("x", "y"))`:                        "the regular expression holds what comes with the request",
		`resource.name.matches("(")`:                                                         "line 1, column 23: error parsing regexp: missing closing ): `(`",
		`resource.name.matches("` + strings.Repeat("x{1000}", 30) + `")`:                     "line 1, column 23: the regular expression becomes too large",
		`resource.name.matches("(" + literal(user.name) + "){1000}")`:                        "the regular expression becomes too large",
		`resource.name.matches(literal(user.name) + "` + strings.Repeat("x{1000}", 2) + `")`: "the regular expression becomes too large",
		`user.groups.exists(g, g.matches("` + strings.Repeat("[a-z]{0,60}", 5) + `"))`:       "line 1, column 1: may cost up to ",
		`user.name ==`:      "line 1, column 13: Syntax error: ",
		`nothing()`:         "line 1, column 8: undeclared reference to 'nothing'",
		"true &&\n  x == 1": "line 2, column 3: undeclared reference to 'x'",
		`user.groups.all(a, user.groups.all(b, user.groups.all(c, a + b == c)))`: "line 1, column 1: may cost up to ",
		strings.Repeat("true && ", 600) + "true":                                 "longer than 4096 bytes",
		strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100):             "recursion",
	} {
		_, err := acl.Parse("policy.yaml", []byte(when(condition)))
		if err == nil || !strings.HasPrefix(err.Error(), "policy.yaml:6: rules[0].when: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s:\n got %v\nwant %s", condition, err, want)
		}
	}
	if _, err := acl.Parse("policy.yaml", []byte(when(""))); err == nil || !strings.HasSuffix(err.Error(), "rules[0].when: empty; give a condition, or remove the key for always") {
		t.Errorf("got %v", err)
	}
}

// A comprehension may have a variable of its own called action; ".action" is still the question's.
func TestNoSpellingHidesWhatAConditionNames(t *testing.T) {
	decide := func(text, asked string) string {
		granted, _ := policy(t, text).Decide(user("alice"), addr("192.0.2.1"), "", time.Now(), scopeOf(t, asked))
		return granted.String()
	}
	for _, condition := range []string{
		`action != "delete"`, `.action != "delete"`, `[1].exists(action, .action != "delete")`, `[action].exists(a, a != "delete")`,
		`{"a": action}.a != "delete"`, `["push", "pull", "*"].exists(a, a == action)`, `[1].map(x, action)[0] != "delete"`,
	} {
		if got := decide(when(condition), "repository:a/b:*"); got != "repository:a/b:pull,push" {
			t.Errorf("%s: %q", condition, got)
		}
	}
	for _, condition := range []string{
		`[1].exists(resource, .resource.name.startsWith("a/secret"))`, `[resource.name].exists(n, n.startsWith("a/secret"))`, `.resource.name.startsWith("a/secret")`,
	} {
		text := rule() + strings.TrimPrefix(when(condition, "name: d", "effect: deny"), "rules:\n")
		if got := decide(text, "repository:a/*:pull"); got != "" {
			t.Errorf("%s: %q", condition, got)
		}
		if got := decide(text, "repository:a/b:pull"); got == "" {
			t.Errorf("%s: denies everything", condition)
		}
	}
}

// A request cannot buy more evaluation by asking for more: past the budget conditions fail, and fail closed.
func TestConditionsOfOneRequestHaveABudget(t *testing.T) {
	text := "rules:\n"
	for i := range 20 {
		text += strings.TrimPrefix(when(`user.groups.all(g, !resource.name.startsWith(g + "/"))`, fmt.Sprintf("name: r%d", i)), "rules:\n")
	}
	p := policy(t, text)
	who := user("alice")
	for i := range 1000 {
		who.Groups = append(who.Groups, fmt.Sprintf("group-%d", i))
	}
	decide := func(resources int) (granted, failed int) {
		var entries []string
		for i := range resources {
			entries = append(entries, fmt.Sprintf("repository:a/b%d:pull,push,delete", i))
		}
		set, verdicts := p.Decide(who, addr("192.0.2.1"), "", time.Now(), scopeOf(t, strings.Join(entries, " ")))
		for _, v := range verdicts {
			if len(v.Failed) > 0 {
				failed++
			}
		}
		return len(set), failed
	}
	if granted, failed := decide(1); granted != 1 || failed != 0 {
		t.Errorf("a usual request: %d granted, %d failed", granted, failed)
	}
	if granted, failed := decide(100); granted == 100 || failed == 0 {
		t.Errorf("a hundred resources: %d granted, %d failed; nothing bounds it", granted, failed)
	}
}

// What a condition does not name makes no difference to it.
func TestAConditionIsAskedOnceForWhatItNames(t *testing.T) {
	p := policy(t, when(`action == "pull" || resource.name == "a/b"`)+strings.TrimPrefix(when(`user.name == "bob"`, "name: s"), "rules:\n"))
	granted, _ := p.Decide(user("alice"), addr("192.0.2.1"), "", time.Now(), scopeOf(t, "repository:a/b:pull,push repository:a/c:pull,push"))
	if granted.String() != "repository:a/b:pull,push repository:a/c:pull" {
		t.Errorf("got %q", granted)
	}
}
