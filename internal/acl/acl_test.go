package acl_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/acl"
	"authserver/internal/scope"
	"authserver/internal/users"
)

func policy(t testing.TB, text string) *acl.Policy {
	t.Helper()
	p, err := acl.Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func user(name string, groups ...string) users.Principal {
	return users.Principal{Name: name, Kind: users.KindUser, Groups: groups}
}

func robot(name string) users.Principal {
	return users.Principal{Name: name, Kind: users.KindRobot}
}

// ask decides on a scope, from 192.0.2.1 at the service registry.local.
func ask(t testing.TB, p *acl.Policy, who users.Principal, text string) string {
	t.Helper()
	return askFrom(t, p, who, "192.0.2.1", "registry.local", text)
}

func askFrom(t testing.TB, p *acl.Policy, who users.Principal, from, service, text string) string {
	t.Helper()
	asked, dropped, err := scope.Parse([]string{text})
	if err != nil || len(dropped) > 0 {
		t.Fatalf("%q: %v %q", text, err, dropped)
	}
	addr, _ := netip.ParseAddr(from) // "" is the address that is not known
	granted, _ := p.Decide(who, addr, service, time.Time{}, asked)
	if !granted.Within(asked) {
		t.Fatalf("%q is answered with %q, which is more", text, granted)
	}
	return granted.String()
}

// rule makes a policy of one allow rule for everybody on every repository, with the given lines in their place.
func rule(lines ...string) string {
	fields := map[string]string{"name": "r", "subjects": "[anyone]", "repositories": `["**"]`, "actions": `["*"]`}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, ": ")
		fields[key] = value
		if key == "resources" {
			delete(fields, "repositories")
		}
	}
	text := "rules:\n  - name: " + fields["name"] + "\n"
	delete(fields, "name")
	keys := make([]string, 0, len(fields))
	for key := range fields {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		text += "    " + key + ": " + fields[key] + "\n"
	}
	return text
}

func TestSubjects(t *testing.T) {
	alice, bot := user("alice", "dev"), robot("ci")
	tests := []struct {
		subject string
		who     users.Principal
		want    bool
	}{
		{"anyone", users.Anonymous(), true},
		{"anyone", alice, true},
		{"anyone", bot, true},
		{"anonymous", users.Anonymous(), true},
		{"anonymous", alice, false},
		{"anonymous", bot, false},
		{"authenticated", users.Anonymous(), false},
		{"authenticated", alice, true},
		{"authenticated", bot, true},
		{"user:alice", alice, true},
		{"user:alice", user("alice2"), false},
		{"user:alice", user("malice"), false},
		{"user:alice", robot("alice"), false},
		{"user:*", alice, true},
		{"user:*", users.Anonymous(), false},
		{"user:*", bot, false},
		{"user:al*", alice, true},
		{"user:alice*", alice, false}, // a star is at least one character
		{"user:*ice", alice, true},
		{"user:a*i*e", alice, true},
		{"user:a*l*e", alice, false},
		{"user:*@example.com", user("bob@example.com"), true},
		{"user:*@example.com", user("bob@example.com.evil"), false},
		{"user:*@example.com", user("bob@examplexcom"), false},
		{"robot:ci", bot, true},
		{"robot:*", bot, true},
		{"robot:*", alice, false},
		{"robot:*", users.Anonymous(), false},
		{"group:dev", alice, true},
		{"group:dev", bot, false},
		{"group:dev", user("dev"), false},
		{"group:d*", alice, true},
		{"group:*", alice, true},
		{"group:*", user("loner"), false},
		{"group:*", users.Anonymous(), false},
	}
	for _, test := range tests {
		p := policy(t, rule(fmt.Sprintf("subjects: [%q]", test.subject), "actions: [pull]"))
		if got := ask(t, p, test.who, "repository:a:pull") != ""; got != test.want {
			t.Errorf("%s matches %s %q: %v", test.subject, test.who.Kind, test.who.Name, got)
		}
	}
}

func TestRepositoryPatterns(t *testing.T) {
	alice := user("alice", "dev", "ops", "team=web", "team=api", "tier=prod", "ldap:cn/x-core")
	alice.Claims = map[string]any{"team": "blue", "list": []any{"x"}, "empty": ""}
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true},
		{"a", "a/b", false},
		{"a", "aa", false},
		{"a/b", "a/b", true},
		{"a/b", "a", false},
		{"*", "a", true},
		{"*", "a/b", false},
		{"**", "a", true},
		{"**", "a/b/c", true},
		{"a/*", "a/b", true},
		{"a/*", "a", false},
		{"a/*", "a/b/c", false},
		{"a/**", "a/b", true},
		{"a/**", "a/b/c/d", true},
		{"a/**", "a", false},
		{"a/**", "ab/c", false},
		{"a/**", "evila/x", false},
		{"**/a", "b/a", true},
		{"**/a", "b/c/a", true},
		{"**/a", "a", false},
		{"a/**/b", "a/x/b", true},
		{"a/**/b", "a/x/y/b", true},
		{"a/**/b", "a/b", false},
		{"**/x/**", "a/x/b", true},
		{"**/x/**", "x/b", false},
		{"**/**", "a", false},
		{"**/**", "a/b", true},
		{"app-*", "app-1", true},
		{"app-*", "app", false},
		{"app-*", "my-app-1", false},
		{"*-app", "my-app", true},
		{"a*b*c", "axbyc", true},
		{"a*b*c", "abc", false},
		{"a*b*c", "aXbbc", true},
		{"host.example:5000/a/*", "host.example:5000/a/b", true},
		{"host.example:5000/a/*", "host.example:5001/a/b", false},
		{"host.example:*/a/*", "host.example:5001/a/b", true},
		{"{user}/**", "alice/x", true},
		{"{user}/**", "bob/x", false},
		{"{user}/**", "evilalice/x", false},
		{"{user}/**", "alice2/x", false},
		{"{user}/**", "alic/x", false},
		{"home-{user}", "home-alice2", false},
		{"home-{user}", "home-alic", false},
		{"*-app", "my-app2", false},
		{"*-app", "my-ap", false},
		{"{group}/**", "dev2/x", false},
		{"{claims.team}/**", "blue2/x", false},
		{"x-{claims.team}/**", "x-blue2/x", false},
		{"{user}", "alice", true},
		{"home-{user}/*", "home-alice/x", true},
		{"home-{user}-*/x", "home-alice-1/x", true},
		{"home-{user}-*/x", "home-alice/x", false},
		{"{group}/**", "dev/x", true},
		{"{group}/**", "ops/x", true},
		{"{group}/**", "hr/x", false},
		{"team-{group}/x", "team-ops/x", true},
		{"team-{group}/x", "team-op/x", false},
		{"{group}/{user}/*", "dev/alice/x", true},
		{"{group}/{user}/*", "dev/bob/x", false},
		{"{group}/{group}-x", "dev/dev-x", true},
		{"{group}/{group}-x", "dev/ops-x", false}, // one group at a time
		{"{group:team=*}/**", "web/x", true},
		{"{group:team=*}/**", "api/x", true},
		{"{group:team=*}/**", "prod/x", false},
		{"{group:team=*}/**", "team/x", false},
		{"{group:team=*}/**", "dev/x", false},
		{"{group:team=web*}/**", "web/x", false}, // nothing is left of team=web
		{"{group:d*}/**", "ev/x", true},
		{"{group:team=*}-{group:tier=*}/**", "web-prod/x", true},
		{"{group:team=*}-{group:tier=*}/**", "prod-web/x", false},
		{"{group:team=*}/{group:team=*}/**", "web/web/x", true},
		{"{group:team=*}/{group:team=*}/**", "web/api/x", false}, // one group at a time
		{"{group:team=*}/{group}/{group:team=*}", "web/dev/web", true},
		{"{group:team=*}/{group}/{group:team=*}", "web/dev/api", false},
		{"x-{group:team=*}-y", "x-api-y", true},
		{"{group:ldap:cn/x-*}/**", "core/x", true},
		{"{group:none*}/**", "web/x", false},
		{"{claims.team}/**", "blue/x", true},
		{"{claims.team}/**", "red/x", false},
		{"{claims.none}/**", "x/y", false},
		{"{claims.list}/**", "x/y", false},
		{"a{claims.empty}/**", "a/y", false}, // an empty claim is no claim

		// GitLab's PATH/* means everything below PATH: one segment must not cover it.
		{"a/**", "a/*", true},
		{"**", "a/*", true},
		{"a/*", "a/*", false},
		{"a/b*", "a/*", false},
	}
	for _, test := range tests {
		p := policy(t, rule("repositories: "+fmt.Sprintf("[%q]", test.pattern), "actions: [pull]"))
		if got := ask(t, p, alice, "repository:"+test.name+":pull") != ""; got != test.want {
			t.Errorf("%q matches %q: %v", test.pattern, test.name, got)
		}
	}
}

// As docker_auth had it: a user or group whose name is a pattern must not become one.
func TestNamesAreNeverPatterns(t *testing.T) {
	p := policy(t, rule(`repositories: ["{user}/**", "{group}/**", "{group:team=*}/**", "x/{user}", "{claims.team}/**"]`))
	for _, name := range []string{"*", "**", "a/b", "a", "{group}", "?", "[a-z]", "", "victim/..", ".*"} {
		who := users.Principal{Name: name, Kind: users.KindUser, Groups: []string{name, "team=" + name}, Claims: map[string]any{"team": name}}
		for _, repository := range []string{"victim/x", "a/b/x", "x/y", "x/*", "a/b", "victim/x/y"} {
			if strings.HasPrefix(repository, name+"/") && !strings.Contains(name, "/") && name != "" {
				continue // its own
			}
			if got := ask(t, p, who, "repository:"+repository+":pull"); got != "" {
				t.Errorf("the user %q is granted %q", name, got)
			}
		}
	}
}

// As docker_auth had it: `account: "*"` matched anonymous.
func TestAnonymousIsMatchedByAnyoneAndAnonymousOnly(t *testing.T) {
	for _, subject := range []string{"anyone", "anonymous", "authenticated", "user:*", "robot:*", "group:*"} {
		for _, action := range []string{"pull", "push", "delete", "*"} {
			for _, pattern := range []string{"**", "{user}/**", "**/{user}", "{group}/**"} {
				p := policy(t, rule(fmt.Sprintf("subjects: [%q]", subject), fmt.Sprintf("actions: [%q]", action), fmt.Sprintf("repositories: [%q]", pattern)))
				got := ask(t, p, users.Anonymous(), "repository:a/b:"+action)
				want := (subject == "anyone" || subject == "anonymous") && pattern == "**"
				if (got != "") != want {
					t.Errorf("anonymous, %s, %s, %s: granted %q", subject, action, pattern, got)
				}
			}
		}
	}
	// Not even a group of the policy has it as a member.
	p := policy(t, "groups: {all: [alice]}\n"+rule(`subjects: ["group:all", "group:*"]`))
	if got := ask(t, p, users.Anonymous(), "repository:a:pull"); got != "" {
		t.Errorf("granted %q", got)
	}
}

// As docker_auth had it: rules without a type covered the catalog too.
func TestARepositoryRuleCoversRepositoriesOnly(t *testing.T) {
	p := policy(t, rule())
	for _, asked := range []string{"registry:catalog:*", "registry:**:pull", "artifact-repository:a:pull", "repository::pull", "registry::pull"} {
		if s, dropped, _ := scope.Parse([]string{asked}); len(dropped) == 0 {
			if granted, _ := p.Decide(user("alice"), netip.Addr{}, "", time.Time{}, s); len(granted) > 0 {
				t.Errorf("%s: granted %q", asked, granted)
			}
		}
	}
	p = policy(t, rule(`resources: ["artifact-repository:org/**", "registry:catalog", "authserver:introspect"]`, `actions: ["*"]`))
	for asked, want := range map[string]string{
		"artifact-repository:org/a:pull": "artifact-repository:org/a:pull",
		"artifact-repository:a:pull":     "",
		"repository:org/a:pull":          "",
		"registry:catalog:*":             "registry:catalog:*",
		"registry:other:*":               "",
		"authserver:introspect:read":     "authserver:introspect:read",
	} {
		if got := ask(t, p, user("alice"), asked); got != want {
			t.Errorf("%s: granted %q, want %q", asked, got, want)
		}
	}
}

func TestTheEmptyNameIsTheCatalog(t *testing.T) {
	catalog := policy(t, rule(`resources: ["registry:catalog"]`, `actions: ["*"]`))
	tests := []struct{ asked, want string }{
		{"repository::pull", "repository::pull"},
		{"repository::*", "repository::pull"},
		{"repository::push", ""}, // zot asks this for routes that are no catalog
		{"repository::delete", ""},
		{"repository::pull,push", "repository::pull"},
		{"registry::pull", ""},
	}
	for _, test := range tests {
		if got := ask(t, catalog, user("alice"), test.asked); got != test.want {
			t.Errorf("%s: granted %q, want %q", test.asked, got, test.want)
		}
	}
	for name, text := range map[string]string{
		"a rule for repositories":    rule(),
		"a rule for less than all":   rule(`resources: ["registry:catalog"]`, "actions: [pull]"),
		"a deny rule on the catalog": rule(`resources: ["registry:catalog"]`) + "  - {name: d, effect: deny, subjects: [anyone], resources: [\"registry:catalog\"], actions: [pull]}\n",
	} {
		if got := ask(t, policy(t, text), user("alice"), "repository::pull"); got != "" {
			t.Errorf("%s: granted %q", name, got)
		}
	}
}

func TestAllIsAnsweredByWhatIsGranted(t *testing.T) {
	deny := func(actions string) string {
		return "  - {name: d, effect: deny, subjects: [anyone], repositories: [\"**\"], actions: " + actions + "}\n"
	}
	tests := []struct{ name, policy, asked, want string }{
		{"some actions", rule("actions: [pull, push]"), "repository:a:*", "repository:a:pull,push"},
		{"every action by name is not All", rule("actions: [pull, push, delete]"), "repository:a:*", "repository:a:delete,pull,push"},
		{"All itself, with the concrete ones beside it", rule(`actions: ["*"]`), "repository:a:*", "repository:a:*,delete,pull,push"},
		{"an action of another registry", rule("actions: [pull, scan]"), "repository:a:*", "repository:a:pull,scan"},
		{"All is not given to who does not ask for it", rule(`actions: ["*"]`), "repository:a:pull", "repository:a:pull"},
		{"any action under All", rule(`actions: ["*"]`), "repository:a:scan", "repository:a:scan"},
		{"one denied action takes All away", rule(`actions: ["*"]`) + deny("[delete]"), "repository:a:*", "repository:a:pull,push"},
		{"and does not come back in another word", rule(`actions: ["*"]`) + deny("[delete]"), "repository:a:*,delete", "repository:a:pull,push"},
		{"All denied is everything denied", rule(`actions: ["*"]`) + deny(`["*"]`), "repository:a:*", ""},
		{"the catalog as it was asked", rule(`resources: ["registry:catalog"]`), "registry:catalog:*", "registry:catalog:*"},
		{"another type has no fixed actions", rule(`resources: ["registry:catalog"]`, "actions: [read]"), "registry:catalog:*", "registry:catalog:read"},
		{"nothing asked", rule(), "repository:a:", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := ask(t, policy(t, test.policy), user("alice"), test.asked); got != test.want {
				t.Errorf("granted %q, want %q", got, test.want)
			}
		})
	}
}

func TestDenyOverridesWhateverTheOrder(t *testing.T) {
	allow := "  - {name: allow, subjects: [anyone], repositories: [\"**\"], actions: [\"*\"]}\n"
	deny := "  - {name: deny, effect: deny, subjects: [\"user:alice\"], repositories: [\"prod/**\"], actions: [push, delete]}\n"
	for _, text := range []string{"rules:\n" + allow + deny, "rules:\n" + deny + allow, "combining: deny-overrides\nrules:\n" + deny + allow} {
		p := policy(t, text)
		for asked, want := range map[string]string{
			"repository:prod/a:pull,push,delete": "repository:prod/a:pull",
			"repository:prod/a:*":                "repository:prod/a:pull",
			"repository:test/a:*":                "repository:test/a:*,delete,pull,push",
		} {
			if got := ask(t, p, user("alice"), asked); got != want {
				t.Errorf("%s: granted %q, want %q", asked, got, want)
			}
		}
		if got := ask(t, p, user("bob"), "repository:prod/a:push"); got == "" {
			t.Error("the deny rule is for alice alone")
		}
	}
}

func TestServices(t *testing.T) {
	p := policy(t, rule("services: [one, two]"))
	for service, want := range map[string]bool{"one": true, "two": true, "three": false, "": false, "ONE": false} {
		if got := askFrom(t, p, user("alice"), "192.0.2.1", service, "repository:a:pull") != ""; got != want {
			t.Errorf("service %q: %v", service, got)
		}
	}
	if named := p.Services(); len(named) != 2 || named["one"] != "r" {
		t.Errorf("named %v", named)
	}
}

func TestNetworks(t *testing.T) {
	p := policy(t, rule(`networks: ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]`))
	for from, want := range map[string]bool{
		"10.1.2.3": true, "11.1.2.3": false, "2001:db8::1": true, "2001:db9::1": false, "192.0.2.7": true, "192.0.2.8": false,
		"": false, // not known
	} {
		if got := askFrom(t, p, user("alice"), from, "", "repository:a:pull") != ""; got != want {
			t.Errorf("from %q: %v", from, got)
		}
	}
}

func TestAnUnknownAddressIsDeniedWhatANetworkIsDenied(t *testing.T) {
	p := policy(t, rule()+"  - {name: d, effect: deny, subjects: [anyone], repositories: [\"**\"], actions: [push], networks: [\"203.0.113.0/24\"]}\n")
	for from, want := range map[string]string{
		"203.0.113.5": "", "192.0.2.1": "repository:a:push", "": "",
	} {
		if got := askFrom(t, p, user("alice"), from, "", "repository:a:push"); got != want {
			t.Errorf("from %q: %q", from, got)
		}
	}
}

func TestGroupsOfPolicyAndBackendAreUnited(t *testing.T) {
	p := policy(t, `
groups:
  backend: [alice, bob]
  ops: [alice]
rules:
  - {name: g, subjects: ["group:backend"], repositories: ["backend/**"], actions: [pull]}
  - {name: p, subjects: [authenticated], repositories: ["{group}/**"], actions: [push]}
`)
	tests := []struct {
		who         users.Principal
		asked, want string
	}{
		{user("alice"), "repository:backend/x:pull,push", "repository:backend/x:pull,push"},
		{user("alice"), "repository:ops/x:pull,push", "repository:ops/x:push"},
		{user("carol"), "repository:backend/x:pull,push", ""},
		{user("carol", "backend"), "repository:backend/x:pull,push", "repository:backend/x:pull,push"},
		{user("carol", "hr"), "repository:hr/x:push", "repository:hr/x:push"},
		{user("Alice"), "repository:backend/x:pull", ""}, // names are compared byte by byte
	}
	for _, test := range tests {
		if got := ask(t, p, test.who, test.asked); got != test.want {
			t.Errorf("%s: %q, want %q", test.who.Name, got, test.want)
		}
	}
}

func TestVerdictsNameTheRules(t *testing.T) {
	p := policy(t, `
rules:
  - {name: one, subjects: [anyone], repositories: ["**"], actions: [pull]}
  - {name: two, subjects: [anyone], repositories: ["a/**"], actions: [pull, push]}
  - {name: freeze, effect: deny, subjects: [anyone], repositories: ["a/**"], actions: [push]}
`)
	asked, _, _ := scope.Parse([]string{"repository:a/b:pull,push,delete"})
	_, verdicts := p.Decide(user("alice"), netip.Addr{}, "", time.Time{}, asked)
	want := []scope.Verdict{
		{Type: "repository", Name: "a/b", Action: "delete"},
		{Type: "repository", Name: "a/b", Action: "pull", Granted: true, AllowedBy: []string{"one", "two"}},
		{Type: "repository", Name: "a/b", Action: "push", AllowedBy: []string{"two"}, DeniedBy: []string{"freeze"}},
	}
	if fmt.Sprint(verdicts) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", verdicts, want)
	}
	if got := p.Where("freeze"); got != "policy.yaml:5" {
		t.Errorf("freeze is at %q", got)
	}
	if got := p.Where("nowhere"); got != "" {
		t.Errorf("nowhere is at %q", got)
	}
	if p.Len() != 3 {
		t.Errorf("%d rules", p.Len())
	}
}

func TestAPrincipalWithManyGroupsIsMatchedByEach(t *testing.T) {
	var groups []string
	for i := range 1000 {
		groups = append(groups, fmt.Sprintf("g%d", i))
	}
	p := policy(t, rule(`repositories: ["{group}/{group}/**", "x-{group}-{group}-y/**"]`))
	for asked, want := range map[string]bool{
		"g999/g999/a": true, "g1/g2/a": false, "x-g7-g7-y/a": true, "x-g7-g8-y/a": false, "g1000/g1000/a": false,
	} {
		if got := ask(t, p, user("alice", groups...), "repository:"+asked+":pull") != ""; got != want {
			t.Errorf("%s: %v", asked, got)
		}
	}
}

func TestDecideIsSafeForConcurrentUse(t *testing.T) {
	p := policy(t, rule(`repositories: ["{user}/**", "{group}/**"]`))
	done := make(chan bool)
	for i := range 8 {
		go func() {
			name := fmt.Sprintf("u%d", i)
			ok := true
			for range 200 {
				asked := scope.Canonical(scope.Access{Type: "repository", Name: name + "/x", Actions: []string{"pull"}})
				granted, _ := p.Decide(user(name, "g"), netip.Addr{}, "", time.Time{}, asked)
				ok = ok && granted.String() == asked.String()
			}
			done <- ok
		}()
	}
	for range 8 {
		if !<-done {
			t.Error("a decision went wrong")
		}
	}
}

// What is granted is never more than what was asked, whatever the policy.
func TestGrantedIsWithinAsked(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	granting := 0
	for range 3000 {
		text := "rules:\n"
		for i := range 1 + r.IntN(5) {
			text += fmt.Sprintf("  - {name: r%d, effect: %s, subjects: [%q], %s, actions: [%q, %q]}\n", i,
				pick("allow", "allow", "deny"), pick("anyone", "authenticated", "user:a*", "group:g"),
				pick(`repositories: ["**"]`, `repositories: ["a/*", "{user}/**"]`, `resources: ["registry:catalog"]`, `resources: ["registry:catalog", "repository:b"]`),
				pick("pull", "*"), pick("pull", "push", "delete", "*", "scan"))
		}
		p := policy(t, text)
		var entries []scope.Access
		for range r.IntN(5) {
			entries = append(entries, scope.Access{Type: pick("repository", "registry"), Name: pick("a/b", "b", "catalog", "", "alice/x", "a/*"),
				Actions: []string{pick("pull", "push", "*"), pick("pull", "delete", "*")}})
		}
		asked := scope.Canonical(entries...)
		who := []users.Principal{users.Anonymous(), user("alice", "g"), robot("a")}[r.IntN(3)]
		granted, verdicts := p.Decide(who, netip.Addr{}, "", time.Time{}, asked)
		if !granted.Within(asked) {
			t.Fatalf("%s\nasked %q, granted %q", text, asked, granted)
		}
		if granted.String() != scope.Canonical(granted...).String() {
			t.Fatalf("%q is not canonical", granted)
		}
		for _, v := range verdicts {
			if v.Granted && (len(v.AllowedBy) == 0 || len(v.DeniedBy) > 0) {
				t.Fatalf("%s\n%+v", text, v)
			}
			if !v.Granted && slices.Contains(granted.Find(v.Type, v.Name), v.Action) {
				t.Fatalf("%s\n%+v, but granted %q", text, v, granted)
			}
		}
		if len(granted) > 0 {
			granting++
		}
	}
	if granting < 500 {
		t.Fatalf("only %d grants; the test says nothing", granting)
	}
}

// BenchmarkDecide shows how the cost of a decision grows with the number of rules: not at all in the first four shapes,
// where the index finds the few rules that can match; with their number in the last, where every rule can.
func BenchmarkDecide(b *testing.B) {
	var many []string // groups of one user
	for i := range 200 {
		many = append(many, fmt.Sprintf("team-%d", i))
	}
	shapes := []struct {
		name, rule string // %d is the rule's number
		who        users.Principal
		asked      string
	}{
		{"a rule for each team", `{name: r%d, subjects: ["group:team-%d"], repositories: ["team-%d/**"], actions: [pull, push]}`, user("alice", "team-5"), "team-5/app"},
		{"200 groups", `{name: r%d, subjects: ["group:team-%d"], repositories: ["team-%d/**"], actions: [pull, push]}`, user("alice", many...), "team-5/app"},
		{"a rule for each user", `{name: r%d, subjects: ["user:user-%d"], repositories: ["**", "x-%d"], actions: [pull, push]}`, user("user-5"), "some/app"},
		{"patterns that begin with **", `{name: r%d, subjects: [authenticated], repositories: ["**/app-%d"], services: ["registry.local"], actions: [pull, push]} # %d`, user("alice"), "some/app-5"},
		{"patterns that begin with ** and end with *", `{name: r%d, subjects: [authenticated], repositories: ["**/app-%d-*"], services: ["registry.local"], actions: [pull, push]} # %d`, user("alice"), "some/app-5-x"},
	}
	for _, shape := range shapes {
		asked := scope.Canonical(scope.Access{Type: "repository", Name: shape.asked, Actions: []string{"pull", "push"}})
		for _, n := range []int{10, 100, 1000, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/rules=%d", shape.name, n), func(b *testing.B) {
				text := strings.Builder{}
				text.WriteString("rules:\n")
				for i := range n {
					fmt.Fprintf(&text, "  - "+shape.rule+"\n", i, i, i)
				}
				p := policy(b, text.String())
				b.ReportAllocs()
				for b.Loop() {
					if granted, _ := p.Decide(shape.who, netip.Addr{}, "registry.local", time.Time{}, asked); len(granted) != 1 {
						b.Fatal(granted)
					}
				}
			})
		}
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// Asking for everything below a path must not slip past a rule that denies a part of it.
func TestADenyRuleStopsEverythingThatItMeets(t *testing.T) {
	tests := []struct {
		denied, asked string
		want          bool // denied
	}{
		{"prod/*", "prod/*", true},
		{"prod/**", "prod/*", true},
		{"**", "prod/*", true},
		{"prod/a/b", "prod/*", true},
		{"prod/a/b", "prod/a/*", true},
		{"prod/a/b", "prod/a/b/*", false}, // below prod/a/b, and not prod/a/b itself
		{"prod/a/b", "prod/b/*", false},
		{"prod", "prod/*", false},
		{"**/secret", "prod/*", true},
		{"**/secret", "prod/secret/*", true}, // prod/secret/x/secret
		{"prod/**/secret", "prod/x/*", true},
		{"test/**", "prod/*", false},
		{"*/x", "prod/*", true},
		{"{user}/x", "alice/*", true},
		{"{user}/x", "bob/*", false},
		{"{group}/{group}", "dev/*", true},
		{"{group}/{group}", "hr/*", false},
		{"p*/x", "prod/*", true},
		{"q*/x", "prod/*", false},
	}
	for _, test := range tests {
		p := policy(t, rule(`actions: ["*"]`)+fmt.Sprintf("  - {name: d, effect: deny, subjects: [anyone], repositories: [%q], actions: [pull]}\n", test.denied))
		if got := ask(t, p, user("alice", "dev", "ops"), "repository:"+test.asked+":pull") == ""; got != test.want {
			t.Errorf("deny %s, asked %s: denied %v", test.denied, test.asked, got)
		}
	}
}

func TestNamesAreComparedInOneUnicodeForm(t *testing.T) {
	const composed, decomposed = "\u00e9quipe", "e\u0301quipe"
	for _, inGroups := range []string{composed, decomposed} {
		for _, inRule := range []string{composed, decomposed} {
			p := policy(t, fmt.Sprintf("groups: {%q: [bot]}\n", inGroups)+rule()+
				fmt.Sprintf("  - {name: d, effect: deny, subjects: [%q], repositories: [\"**\"], actions: [push]}\n", "group:"+inRule))
			if got := ask(t, p, user("bot"), "repository:a:push"); got != "" {
				t.Errorf("%q, %q: granted %q", inGroups, inRule, got)
			}
			if got := ask(t, p, user("carol", inGroups), "repository:a:push"); got != "" {
				t.Errorf("the backend's %q, %q: granted %q", inGroups, inRule, got)
			}
		}
	}
	_, err := acl.Parse("policy.yaml", []byte(rule("name: "+composed)+strings.TrimPrefix(rule("name: "+decomposed), "rules:\n")))
	if err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("one name in two forms: %v", err)
	}
}

// The work of a decision is bounded by the lengths of patterns and names, not by what a client can make of them.
func BenchmarkDecideAdversarial(b *testing.B) {
	for name, pattern := range map[string]string{"stars": "*-*-*-%d", "group": "*-{group}-%d", "groups": "*{group}*{group}*-%d"} {
		text := strings.Builder{}
		text.WriteString("rules:\n")
		for i := range 1000 {
			fmt.Fprintf(&text, "  - {name: r%d, subjects: [anyone], repositories: [\""+pattern+"\"], actions: [pull]}\n", i, i)
		}
		p := policy(b, text.String())
		var entries []scope.Access
		for i := range 29 {
			entries = append(entries, scope.Access{Type: "repository", Name: strings.Repeat("a-", 120) + fmt.Sprint(i), Actions: []string{"pull"}})
		}
		asked := scope.Canonical(entries...)
		who := user("alice")
		for i := range 200 {
			who.Groups = append(who.Groups, "a-a-"+strings.Repeat("a", i%50)+fmt.Sprint(i))
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p.Decide(who, netip.Addr{}, "", time.Time{}, asked)
			}
		})
	}
}

func scopeOf(t testing.TB, text string) scope.Set {
	t.Helper()
	s, dropped, err := scope.Parse([]string{text})
	if err != nil || len(dropped) > 0 {
		t.Fatalf("%q: %v %q", text, err, dropped)
	}
	return s
}
