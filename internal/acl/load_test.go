package acl_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"authserver/internal/acl"
	"authserver/internal/scope"
	"authserver/internal/users"
)

func TestBadPolicies(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"an empty file", "", "policy.yaml: the file is empty"},
		{"only a comment", "# nothing\n", "policy.yaml: the file is empty"},
		{"no rules", "groups: {a: [b]}", "policy.yaml: rules: there are none; without a rule nobody may do anything"},
		{"no subjects", "rules:\n  - {name: r, repositories: [a], actions: [pull]}",
			"policy.yaml:2: rules[0].subjects: missing; would be right: anyone, anonymous, authenticated, user:GLOB, group:GLOB or robot:GLOB"},
		{"empty subjects", rule("subjects: []"),
			"policy.yaml:5: rules[0].subjects: missing; would be right: anyone, anonymous, authenticated, user:GLOB, group:GLOB or robot:GLOB"},
		{"subjects without a value", rule("subjects: "), "policy.yaml:5: rules[0].subjects: has no value; give one or remove the key"},
		{"no resources", "rules:\n  - {name: r, subjects: [anyone], actions: [pull]}",
			`policy.yaml:2: rules[0].repositories: missing, and so is resources; would be right: repositories: ["team/**"]`},
		{"no actions", "rules:\n  - {name: r, subjects: [anyone], repositories: [a]}",
			`policy.yaml:2: rules[0].actions: missing; would be right: [pull], [pull, push] or ["*"]`},
		{"no name", "rules:\n  - {subjects: [anyone], repositories: [a], actions: [pull]}",
			"policy.yaml:2: rules[0].name: missing; every rule has a name, it is what logs and explain say"},
		{"a name with a line break", rule(`name: "a\nb"`),
			`policy.yaml:2: rules[0].name: "a\nb" cannot be used: it is 1 to 255 bytes, without colons, control characters or blanks at the ends`},
		{"a name twice", rule() + "  - {name: r, subjects: [anyone], repositories: [a], actions: [pull]}",
			`policy.yaml:6: rules[1].name: "r" is the name of the rule at policy.yaml:2 already`},
		{"a key twice", "rules: []\nrules: []", "policy.yaml:2: rules: given twice, first on line 1; remove one"},
		// As docker_auth had it: a field that does not exist widened the rule.
		{"a mistyped key", rule("team: infrastructure"),
			"policy.yaml:6: rules[0].team: unknown key; known here: name, effect, subjects, repositories, resources, actions, services, networks, when, silence"},
		{"a mistyped key at the top", "rule: []\n" + rule(), "policy.yaml:1: rule: unknown key; known here: combining, groups, rules"},
		{"another effect", rule("effect: permit"), `policy.yaml:4: rules[0].effect: "permit" is not known; would be right: allow or deny`},
		{"another way to combine", "combining: permit-overrides\n" + rule(), `policy.yaml:1: combining: "permit-overrides" is not known; would be right: deny-overrides or first-applicable`},
		{"an unknown subject", rule("subjects: [everyone]"),
			`policy.yaml:5: rules[0].subjects[0]: "everyone" is no subject; would be right: anyone, anonymous, authenticated, user:GLOB, group:GLOB or robot:GLOB`},
		{"a subject without a name", rule(`subjects: ["user:"]`), `policy.yaml:5: rules[0].subjects[0]: "user:": the name is missing`},
		{"two stars in a name", rule(`subjects: ["user:**"]`),
			`policy.yaml:5: rules[0].subjects[0]: "user:**": ** is for repositories; in a name * stands for one or more characters`},
		{"a user's name with a colon", rule(`subjects: ["robot:a:b"]`), `policy.yaml:5: rules[0].subjects[0]: "robot:a:b": a user name cannot hold a colon`},
		{"an explicit tag", rule("actions: !!set {pull}"), "policy.yaml:3: rules[0].actions: tags are not read; remove !!set"},
		{"subjects that are no list", rule("subjects: anyone"), "policy.yaml:5: rules[0].subjects: text where a list belongs"},
		{"an action that is none", rule("actions: [Pull]"), `policy.yaml:3: rules[0].actions[0]: "Pull" is no action; would be right: pull, push, delete or "*"`},
		{"an action that is a number", rule("actions: [1]"), "policy.yaml:3: rules[0].actions[0]: a whole number where text belongs; put it in quotes"},
		{"no services", rule("services: []"), "policy.yaml:5: rules[0].services: empty; name at least one, or remove the key for every service"},
		{"no networks", rule("networks: []"), "policy.yaml:4: rules[0].networks: empty; name at least one, or remove the key for every network"},
		{"a network that is none", rule("networks: [local]"),
			`policy.yaml:4: rules[0].networks[0]: "local" is no network; would be right: 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7`},
		{"a network with bits of a host", rule("networks: [10.0.0.1/8]"),
			`policy.yaml:4: rules[0].networks[0]: "10.0.0.1/8" has bits set beyond its length; would be right: 10.0.0.0/8`},
		{"IPv4 in IPv6", rule(`networks: ["::ffff:10.0.0.0/104"]`),
			`policy.yaml:4: rules[0].networks[0]: "::ffff:10.0.0.0/104" is an IPv4 network in IPv6 form; write it as IPv4`},
		{"a resource without a type", rule("resources: [catalog]"), `policy.yaml:4: rules[0].resources[0]: "catalog" is no type:name; would be right: registry:catalog`},
		{"a resource with a class", rule(`resources: ["repository(plugin):x"]`),
			`policy.yaml:4: rules[0].resources[0]: "repository(plugin):x" is no type:name; would be right: registry:catalog`},
		{"an empty pattern", rule(`repositories: [""]`),
			`policy.yaml:4: rules[0].repositories[0]: empty; would be right: "team/**", or "**" for every name`},
		// As docker_auth had it: a regular expression was not anchored. Here it is none.
		{"a regular expression", rule("repositories: [/admin|ci/]"),
			`policy.yaml:4: rules[0].repositories[0]: "/admin|ci/" has an empty segment; names neither begin nor end with a slash (regular expressions are not read)`},
		{"a character of no name", rule(`repositories: ["a|b"]`),
			`policy.yaml:4: rules[0].repositories[0]: "a|b" has the character '|', which no resource name can hold; the wildcards are * and **`},
		{"a question mark", rule(`repositories: ["a?"]`),
			`policy.yaml:4: rules[0].repositories[0]: "a?" has the character '?', which no resource name can hold; the wildcards are * and **`},
		// docker_auth loads this and never matches it.
		{"half a bracket", rule(`repositories: ["team-[a"]`),
			`policy.yaml:4: rules[0].repositories[0]: "team-[a" has the character '[', which no resource name can hold; the wildcards are * and **`},
		{"a pattern that climbs", rule(`repositories: ["a/../b"]`),
			`policy.yaml:4: rules[0].repositories[0]: "a/../b" can match no name: components begin and end with a letter or a digit, with single separators between`},
		{"a pattern that begins with a separator", rule(`repositories: ["-x/**"]`),
			`policy.yaml:4: rules[0].repositories[0]: "-x/**" can match no name: components begin and end with a letter or a digit, with single separators between`},
		{"a mistyped key and what else is wrong", "rules:\n  - {name: r, subject: [anyone], repositories: [\"a?\"], actions: pull}\n  - {name: r, subjects: [all], repositories: [a], actions: [Pull]}",
			`policy.yaml:2: rules[0].actions: text where a list belongs
policy.yaml:2: rules[0].repositories[0]: "a?" has the character '?', which no resource name can hold; the wildcards are * and **
policy.yaml:2: rules[0].subject: unknown key; known here: name, effect, subjects, repositories, resources, actions, services, networks, when, silence
policy.yaml:2: rules[0].subjects: missing; would be right: anyone, anonymous, authenticated, user:GLOB, group:GLOB or robot:GLOB
policy.yaml:3: rules[1].actions[0]: "Pull" is no action; would be right: pull, push, delete or "*"
policy.yaml:3: rules[1].name: "r" is the name of the rule at policy.yaml:2 already
policy.yaml:3: rules[1].subjects[0]: "all" is no subject; would be right: anyone, anonymous, authenticated, user:GLOB, group:GLOB or robot:GLOB`},
		{"two stars beside letters", rule(`repositories: ["a**"]`),
			`policy.yaml:4: rules[0].repositories[0]: "a**" has ** beside other characters; ** stands alone between slashes, * is part of one segment`},
		{"three stars", rule(`repositories: ["***"]`),
			`policy.yaml:4: rules[0].repositories[0]: "***" has ** beside other characters; ** stands alone between slashes, * is part of one segment`},
		{"an unknown placeholder", rule(`repositories: ["{account}/**"]`),
			`policy.yaml:4: rules[0].repositories[0]: "{account}/**" has the unknown placeholder {account}; would be right: {user}, {group}, {group:PREFIX*} or {claims.NAME}`},
		{"docker_auth's placeholder", rule(`repositories: ["${account}/**"]`),
			`policy.yaml:4: rules[0].repositories[0]: "${account}/**" has the character '$', which no resource name can hold; the wildcards are * and **`},
		{"a placeholder for groups without an end", rule(`repositories: ["{group:team}/**"]`),
			`policy.yaml:4: rules[0].repositories[0]: "{group:team}/**" has the unknown placeholder {group:team}; would be right: {user}, {group}, {group:PREFIX*} or {claims.NAME}`},
		{"a placeholder for groups with a pattern", rule(`repositories: ["{group:a*b*}/**"]`),
			`policy.yaml:4: rules[0].repositories[0]: "{group:a*b*}/**" has the unknown placeholder {group:a*b*}; would be right: {user}, {group}, {group:PREFIX*} or {claims.NAME}`},
		{"two placeholders for groups repeated", rule(`repositories: ["{group}/{group:a*}/{group}/{group:a*}"]`),
			`policy.yaml:4: rules[0].repositories[0]: "{group}/{group:a*}/{group}/{group:a*}" repeats two placeholders for groups; repeat one at most`},
		{"an open placeholder", rule(`repositories: ["{user/**"]`),
			`policy.yaml:4: rules[0].repositories[0]: "{user/**" has a { without }`},
		{"a member that is a pattern", "groups: {a: [\"b*\"]}\n" + rule(), `policy.yaml:1: groups.a[0]: "b*": a member is a user's name, without wildcards, or group:NAME`},
		{"a group that is a pattern", "groups: {\"a*\": [b]}\n" + rule(), `policy.yaml:1: groups.a*: "a*" is no name of a group`},
		{"an anchor", "rules: &x []\n", "policy.yaml:1: rules: anchors and aliases are not read; write the value out"},
		{"a second document", rule() + "---\nrules: []\n", `policy.yaml:6: a second YAML document; only one is read, remove the line "---"`},
		{"not YAML", "rules: [", "policy.yaml:1: not YAML: did not find expected node content"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := acl.Parse("policy.yaml", []byte(test.text))
			if err == nil || p != nil {
				t.Fatalf("loaded")
			}
			if err.Error() != test.want {
				t.Errorf("got  %s\nwant %s", err, test.want)
			}
		})
	}
}

func TestAllFaultsAreReportedAtOnce(t *testing.T) {
	_, err := acl.Parse("policy.yaml", []byte(`
rules:
  - {name: a, subjects: [nobody], repositories: ["a?"], actions: [pull]}
  - {name: a, subjects: [anyone], repositories: [b], actions: []}
`))
	if err == nil {
		t.Fatal("loaded")
	}
	for _, want := range []string{"rules[0].subjects[0]", "rules[0].repositories[0]", "rules[1].name", "rules[1].actions"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in:\n%v", want, err)
		}
	}
}

func TestManyFilesAreMergedInOrder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	allow := func(name string) string {
		return fmt.Sprintf("groups: {g: [%s]}\nrules:\n  - {name: %s, subjects: [\"group:g\"], repositories: [\"**\"], actions: [pull]}\n", name, name)
	}
	first := write("z.yaml", allow("first"))
	write("b.d.yaml", allow("second"))
	write("c.d.yaml", allow("third"))
	p, err := acl.Load([]string{first, filepath.Join(dir, "*.d.yaml"), first})
	if err != nil {
		t.Fatal(err)
	}
	asked := scope.Canonical(scope.Access{Type: "repository", Name: "a", Actions: []string{"pull"}})
	for _, member := range []string{"first", "second", "third"} { // the members of a group are united over files
		_, verdicts := p.Decide(users.Principal{Name: member, Kind: users.KindUser}, addr("192.0.2.1"), "", time.Time{}, asked)
		if got := fmt.Sprint(verdicts[0].AllowedBy); got != "[first second third]" {
			t.Errorf("%s: %s", member, got)
		}
	}
	write("d.d.yaml", allow("first"))
	_, err = acl.Load([]string{first, filepath.Join(dir, "*.d.yaml")})
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "d.d.yaml")+":3") || !strings.Contains(err.Error(), first+":3") {
		t.Errorf("a name in two files: %v", err)
	}
}

func TestGlobsMatchNoHiddenFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with[1]") // a folder whose name is a pattern
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.yaml", ".a.yaml", ".#a.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(rule()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := acl.Load([]string{filepath.Join(dir, "a.yaml")}); err != nil {
		t.Errorf("a file in a folder whose name is a pattern: %v", err)
	}
	t.Chdir(dir)
	if p, err := acl.Load([]string{"*.yaml"}); err != nil || p.Len() != 1 {
		t.Errorf("hidden files: %v", err)
	}
}

func TestFilesThatAreNotThere(t *testing.T) {
	dir := t.TempDir()
	_, err := acl.Load([]string{filepath.Join(dir, "none.yaml"), filepath.Join(dir, "*.yaml"), filepath.Join(dir, "[")})
	if err == nil {
		t.Fatal("loaded")
	}
	for _, want := range []string{"none.yaml: cannot be read: no such file or directory", "*.yaml: no file matches", "[: syntax error in pattern"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(rule()), "alice", "repository:a/b:pull,push")
	f.Add([]byte(rule(`repositories: ["{user}/**", "{group}-*/{claims.x}"]`, `networks: ["10.0.0.0/8"]`)), "*", "repository:x:*")
	f.Add([]byte("groups: {a: [b]}\n"+rule("effect: deny")), "a/b", "registry:catalog:*")
	f.Add([]byte("combining: deny-overrides\nrules: &a [*a]\n---\n"), "", "")
	f.Fuzz(func(t *testing.T, text []byte, name, ask string) {
		p, err := acl.Parse("policy.yaml", text)
		if (p == nil) == (err == nil) {
			t.Fatalf("a policy %v and an error %v", p, err)
		}
		if err != nil {
			return
		}
		asked, _, err := scope.Parse([]string{ask})
		if err != nil {
			return
		}
		who := users.Principal{Name: name, Kind: users.KindUser, Groups: []string{name, "g"}, Claims: map[string]any{"x": name}}
		granted, _ := p.Decide(who, addr("10.0.0.1"), "registry.local", time.Time{}, asked)
		if !granted.Within(asked) {
			t.Fatalf("asked %q, granted %q", asked, granted)
		}
		again, _ := p.Decide(who, addr("10.0.0.1"), "registry.local", time.Time{}, asked)
		if again.String() != granted.String() {
			t.Fatalf("granted %q, then %q", granted, again)
		}
	})
}

// teams is a policy with a rule for each team.
func teams(n int) string {
	text := strings.Builder{}
	text.WriteString("rules:\n")
	for i := range n {
		fmt.Fprintf(&text, "  - {name: r%d, subjects: [\"group:team-%d\"], repositories: [\"team-%d/**\"], actions: [pull, push]}\n", i, i, i)
	}
	return text.String()
}

// BenchmarkLoad shows what it takes to read a policy beside the one that serves, and what is kept of it.
func BenchmarkLoad(b *testing.B) {
	inUse := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			data := []byte(teams(n))
			before := inUse()
			b.ReportAllocs()
			var p *acl.Policy
			for b.Loop() {
				var err error
				if p, err = acl.Parse("policy.yaml", data); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(inUse()-before, "B-kept")
			runtime.KeepAlive(data)
			runtime.KeepAlive(p)
		})
	}
}
