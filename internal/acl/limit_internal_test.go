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
)

// scopes makes the scopes of a credential.
func (w world) scopes() []string {
	list := make([]string, w.IntN(6))
	for i := range list {
		if w.IntN(3) == 0 {
			list[i] = w.pick("registry:catalog:*", "repository:**:*", "repository:**:pull", "repository:*:*", "other:**:*")
			continue
		}
		list[i] = w.pick("repository:", "repository:", "repository:", "registry:", "other:") +
			w.pick("catalog", "**", w.name("a", "b", "c", "a*", "*", "**"), w.name("a", "b", "**"), "a/**") + ":" + w.pick("pull", "push", "*", "pull,push", "delete", "pull,delete,push")
	}
	return list
}

// ask makes what a client asks, with All, names of GitLab's and zot's among it.
func (w world) asked() scope.Set {
	var entries []scope.Access
	for range 1 + w.IntN(3) {
		a := scope.Access{Type: w.pick("repository", "repository", "repository", "registry", "other"), Name: w.name("a", "b", "c", "ab", "alice", "g1", "x-g2")}
		switch w.IntN(6) {
		case 0:
			a.Name += "/*"
		case 1:
			a.Type, a.Name = "repository", ""
		case 2:
			a.Type, a.Name = "registry", "catalog"
		}
		for range w.IntN(4) {
			a.Actions = append(a.Actions, w.pick("pull", "push", "delete", "*", "*", "other"))
		}
		entries = append(entries, a)
	}
	return scope.Canonical(entries...)
}

// asPolicy is a policy that lets everybody do what the scopes of a credential say: an oracle that knows nothing of limits.
func asPolicy(t testing.TB, scopes []string) *Policy {
	t.Helper()
	text := "rules:\n  - {name: nobody, subjects: [\"user:nobody-at-all\"], repositories: [x], actions: [pull]}\n"
	for i, s := range scopes {
		first, last := strings.IndexByte(s, ':'), strings.LastIndexByte(s, ':')
		actions := strings.Split(s[last+1:], ",")
		for n := range actions {
			actions[n] = fmt.Sprintf("%q", actions[n])
		}
		resources := fmt.Sprintf("resources: [%q]", s[:last])
		if s[:first] == scope.Repository {
			resources = fmt.Sprintf("repositories: [%q]", s[first+1:last])
		}
		text += fmt.Sprintf("  - {name: s%d, subjects: [anyone], %s, actions: [%s]}\n", i, resources, strings.Join(actions, ", "))
	}
	p, err := Parse("limit.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

// Whatever policy and scopes say: what is granted is what is granted without the scopes and is within them, each action
// by name, and All only where both say All. Never more, and never less.
func TestALimitIsAnIntersection(t *testing.T) {
	w := world{rand.New(rand.NewPCG(13, 14))}
	var all, some, none, kept, whole, zot, below int
	for range 600 {
		text := w.policy()
		p, err := Parse("policy.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for range 4 {
			scopes := w.scopes()
			if err := CheckLimit(scopes); err != nil {
				t.Fatalf("%q: %v", scopes, err)
			}
			limit := asPolicy(t, scopes)
			for range 10 {
				who, service, asked := w.principal(), w.pick("one", "two"), w.asked()
				from := []netip.Addr{{}, netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("192.0.2.1")}[w.IntN(3)]
				without, _ := p.Decide(who, from, service, time.Time{}, asked)
				within, _ := limit.Decide(who, from, service, time.Time{}, asked)
				who.Scopes = scopes
				with, verdicts := p.Decide(who, from, service, time.Time{}, asked)

				var want []scope.Access
				for _, a := range without {
					may := scope.Access{Actions: within.Find(a.Type, a.Name)}
					var actions []string
					for _, action := range a.Actions {
						if may.Has(action) {
							actions = append(actions, action)
						}
					}
					if len(actions) > 0 {
						want = append(want, scope.Access{Type: a.Type, Name: a.Name, Actions: actions})
					}
				}
				if got, want := with.String(), scope.Canonical(want...).String(); got != want {
					t.Fatalf("%+v asks %q: granted %q, without scopes %q, the scopes allow %q; want %q\n%s", who, asked, got, without, within, want, text)
				}
				if !with.Within(without) || !with.Within(within) || !with.Within(asked) {
					t.Fatalf("%+v asks %q: granted %q is more than %q, %q or what was asked", who, asked, with, without, within)
				}
				for _, v := range verdicts {
					if v.Granted != slices.Contains(with.Find(v.Type, v.Name), v.Action) {
						t.Fatalf("granted %q, verdict %+v", with, v)
					}
				}
				switch {
				case len(without) == 0:
				case with.String() == without.String():
					all++
				case len(with) == 0:
					none++
				default:
					some++
				}
				for _, a := range with {
					kept++
					if slices.Contains(a.Actions, scope.All) {
						whole++
					}
					if a.Name == "" {
						zot++
					}
					if strings.HasSuffix(a.Name, "/*") {
						below++
					}
				}

				// No scopes are no limit, an empty list is nothing.
				who.Scopes = []string{}
				if nothing, _ := p.Decide(who, from, service, time.Time{}, asked); len(nothing) > 0 {
					t.Fatalf("an empty list grants %q", nothing)
				}
			}
		}
	}
	t.Logf("%d as before, %d less, %d nothing; %d resources, of them %d with All, %d of zot's, %d of GitLab's", all, some, none, kept, whole, zot, below)
	if min(all, some, none) < 150 || min(whole, zot, below) < 50 {
		t.Error("the test says nothing")
	}
}
