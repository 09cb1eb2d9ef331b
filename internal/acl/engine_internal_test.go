package acl

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/scope"
	"authserver/internal/users"
)

// naive is the straight loop over all rules that the index must agree with.
func naive(p *Policy, who users.Principal, from netip.Addr, service, typ, name string) []string {
	q := p.ask(who, from, service, time.Time{})
	var matched []string
	for i := range p.rules {
		if p.rules[i].misses(q, typ, name) == 0 {
			matched = append(matched, p.rules[i].name)
		}
	}
	return matched
}

// world makes random policies and requests over few words, so that they meet.
type world struct{ *rand.Rand }

func (w world) pick(words ...string) string { return words[w.IntN(len(words))] }

func (w world) name(segments ...string) string {
	parts := make([]string, 1+w.IntN(4))
	for i := range parts {
		parts[i] = w.pick(segments...)
	}
	return strings.Join(parts, "/")
}

func (w world) policy() string {
	text := strings.Builder{}
	fmt.Fprintf(&text, "combining: %s\ngroups: {g1: [alice, \"group:g2\"], g2: [bob], a: [alice]}\nrules:\n", w.pick(DenyOverrides, FirstApplicable))
	for i := range 1 + w.IntN(12) {
		fmt.Fprintf(&text, "  - name: r%d\n    effect: %s\n    subjects: [%q, %q]\n", i, w.pick("allow", "allow", "deny"),
			w.pick("anyone", "anonymous", "authenticated", "user:alice", "user:a*", "robot:ci", "group:g1"), w.pick("user:bob", "group:g2", "group:*", "robot:*", "user:nobody"))
		pattern := func() string {
			for {
				text := w.name("a", "b", "c", "a*", "*", "**", "{user}", "{group}", "x-{group}", "{group:g*}", "{group:x*}-{user}")
				if _, err := parsePattern(text); err == nil { // two placeholders repeated are refused
					return text
				}
			}
		}
		fmt.Fprintf(&text, "    repositories: [%q, %q]\n    resources: [%q]\n", pattern(), pattern(), w.pick("registry:catalog", "registry:**", "registry:a", "other:a", "other:**/b"))
		fmt.Fprintf(&text, "    actions: [%q]\n", w.pick("pull", "push", "*"))
		if w.IntN(4) == 0 {
			text.WriteString("    services: [one]\n")
		}
		if w.IntN(4) == 0 {
			text.WriteString("    networks: [10.0.0.0/8]\n")
		}
	}
	return text.String()
}

func (w world) principal() users.Principal {
	switch w.IntN(4) {
	case 0:
		return users.Anonymous()
	case 1:
		return users.Principal{Name: "ci", Kind: users.KindRobot, Groups: []string{"g1"}}
	}
	p := users.Principal{Name: w.pick("alice", "bob", "carol", "a", "*"), Kind: users.KindUser}
	for range w.IntN(30) { // beyond fewGroups too
		p.Groups = append(p.Groups, w.pick("g1", "g2", "a", "b", fmt.Sprint("x", w.IntN(100))))
	}
	return p
}

func TestTheIndexLeavesOutNoRule(t *testing.T) {
	w := world{rand.New(rand.NewPCG(5, 6))}
	matches := 0
	for range 4000 {
		text := w.policy()
		p, err := Parse("policy.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for range 20 {
			who, service := w.principal(), w.pick("one", "two")
			from := []netip.Addr{{}, netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("192.0.2.1")}[w.IntN(3)]
			typ, name := w.pick("repository", "repository", "registry", "other", "none"), w.name("a", "b", "c", "ab", "alice", "g1", "x-g2")
			if w.IntN(5) == 0 {
				name += "/*"
			}
			q := p.ask(who, from, service, time.Time{})
			var got []string
			for _, r := range p.matching(q, typ, name) {
				got = append(got, r.name)
			}
			want := naive(p, who, from, service, typ, name)
			if !slices.Equal(got, want) {
				t.Fatalf("%+v, %s:%s: the index finds %v, the loop %v\n%s", who, typ, name, got, want, text)
			}
			matches += len(want)
		}
	}
	if matches < 10000 {
		t.Fatalf("only %d matches; the test says nothing", matches)
	}
}

// FuzzEngine lets the fuzzer choose policy and request; the straight loop is the oracle.
func FuzzEngine(f *testing.F) {
	w := world{rand.New(rand.NewPCG(7, 8))}
	for range 20 {
		f.Add([]byte(w.policy()), "alice", "g1,g2", "repository", w.name("a", "b", "alice"))
	}
	f.Fuzz(func(t *testing.T, text []byte, user, groups, typ, name string) {
		p, err := Parse("policy.yaml", text)
		if err != nil {
			return
		}
		if got, want := p.Lint(), p.comparingAll().Lint(); !slices.Equal(got, want) {
			t.Fatalf("lint finds %+v with the index, %+v without", got, want)
		}
		asked, _, err := scope.Parse([]string{typ + ":" + name + ":pull,push,delete", typ + ":" + name + ":*"})
		if err != nil {
			return
		}
		who := users.Principal{Name: user, Kind: users.KindUser, Groups: strings.Split(groups, ",")}
		from := netip.MustParseAddr("10.0.0.1")
		for _, a := range asked {
			q := p.ask(who, from, "one", time.Time{})
			var got []string
			for _, r := range p.matching(q, a.Type, a.Name) {
				got = append(got, r.name)
			}
			if want := naive(p, who, from, "one", a.Type, a.Name); !slices.Equal(got, want) {
				t.Fatalf("the index finds %v, the loop %v", got, want)
			}
		}
		if granted, _ := p.Decide(who, from, "one", time.Time{}, asked); !granted.Within(asked) {
			t.Fatalf("asked %q, granted %q", asked, granted)
		}
	})
}

// comparingAll is the policy with an index that leaves out nothing: lint compares all pairs of its rules.
func (p *Policy) comparingAll() *Policy {
	all := make([]int32, len(p.rules))
	for i := range all {
		all[i] = int32(i)
	}
	straight := *p
	straight.index = index{}
	for typ := range p.index {
		straight.index[typ] = &typeIndex{root: node{rules: bucket{others: all}}}
	}
	return &straight
}

// narrow makes policies of rules for one resource and one subject, of which many contain each other.
func (w world) narrow() string {
	text := strings.Builder{}
	fmt.Fprintf(&text, "combining: %s\nrules:\n", w.pick(DenyOverrides, FirstApplicable))
	for i := range 1 + w.IntN(12) {
		fmt.Fprintf(&text, "  - {name: r%d, effect: %s, subjects: [%q], repositories: [%q], actions: [%s]%s}\n", i, w.pick("allow", "allow", "deny"),
			w.pick("anyone", "anonymous", "authenticated", "user:alice", "user:bob", "user:*", "user:a*", "robot:ci", "group:alice", "group:*"),
			w.name("a", "b", "b", "a*", "*", "**", "{user}"), w.pick("pull", "push", "pull, push", `"*"`),
			w.pick("", "", "", ", services: [one]", ", services: [one, two]", ", networks: [10.0.0.0/8]", ", networks: [10.1.0.0/16]"))
	}
	return text.String()
}

func TestLintFindsWhatComparingAllPairsFinds(t *testing.T) {
	w := world{rand.New(rand.NewPCG(11, 12))}
	found := map[string]int{}
	for i := range 8000 {
		text := w.narrow()
		if i%4 == 0 {
			text = w.policy()
		}
		p, err := Parse("policy.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		got, want := p.Lint(), p.comparingAll().Lint()
		if !slices.Equal(got, want) {
			t.Fatalf("the index finds %+v, all pairs %+v\n%s", got, want, text)
		}
		for _, f := range got {
			found[f.Name]++
		}
	}
	for _, name := range []string{"unreachable", "redundant", "deny-without-allow", "push-without-pull"} {
		if found[name] < 300 {
			t.Errorf("only %d times %s; the test says nothing", found[name], name)
		}
	}
}

// CheckUseless holds lint against the engine: see TestWhatLintCallsUselessIsUseless.
func CheckUseless(t *testing.T) {
	w := world{rand.New(rand.NewPCG(9, 10))}
	useless := 0
	for range 3000 {
		p, err := Parse("policy.yaml", []byte(w.policy()))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range p.Lint() {
			if f.Name != "unreachable" && f.Name != "redundant" && f.Name != "deny-without-allow" {
				continue
			}
			useless++
			without := *p
			without.rules = slices.Delete(slices.Clone(p.rules), p.byName[f.Rule], p.byName[f.Rule]+1)
			without.index = newIndex(without.rules)
			for range 30 {
				who, service := w.principal(), w.pick("one", "two")
				from := []netip.Addr{{}, netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("192.0.2.1")}[w.IntN(3)]
				asked := scope.Canonical(scope.Access{Type: w.pick("repository", "registry", "other"), Name: w.name("a", "b", "c", "ab", "alice", "g1", "x-g2"), Actions: []string{"pull", "push", "*"}})
				with, _ := p.Decide(who, from, service, time.Time{}, asked)
				less, _ := without.Decide(who, from, service, time.Time{}, asked)
				// A rule that grants All under first-applicable may still name actions for an asked All.
				if with.String() != less.String() {
					t.Fatalf("%s is called %s, but without it %q becomes %q for %+v", f.Rule, f.Name, with, less, who)
				}
			}
		}
	}
	if useless < 300 {
		t.Fatalf("only %d rules were useless; the test says nothing", useless)
	}
}
