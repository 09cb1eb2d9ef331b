package acl

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"authserver/internal/scope"
	"authserver/internal/users"
)

// FuzzLimit lets the fuzzer choose the scopes of a credential, a line each, and what is asked. What can be read as a limit
// allows what a policy of the same words grants; what cannot allows nothing at all, alone and beside what can.
func FuzzLimit(f *testing.F) {
	for _, seed := range []string{
		"repository:team/**:pull", "repository:**:*", "registry:catalog:*", "repository:team/a*:pull,push\nrepository:team/b:delete", "repository:{user}/**:pull", "repository::pull", "repository:a:", "",
		"repository:host:5000/app:pull", "repository:host:*/app:pull", "repository:*:*/a:pull", "repository:a:pull repository:b:pull", "artifact-repository:**:pull", "repository(plugin):a:pull", "a:b", "repository:**/**:*", "repository:a/*:*",
		"repository:..:pull", "repository:a\x00:pull", "repository:team/*:pull\nrepository:**:push,pull,pull", "authserver:tokens/bob:write", "repository:*a*b*:pull",
	} {
		for _, ask := range []string{"repository:team/a:pull,push repository:team/*:pull repository::pull", "registry:catalog:* repository:host:5000/app:*", "authserver:tokens/bob:read,write"} {
			f.Add(seed, ask)
		}
	}
	all, err := Parse("policy.yaml", []byte(`
rules:
  - {name: all, subjects: [anyone], repositories: ["**"], resources: ["registry:**", "authserver:**", "artifact-repository:**", "a:**"], actions: ["*"]}
`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, ask string) {
		scopes := strings.Split(text, "\n")
		asked, _, err := scope.Parse([]string{ask})
		if err != nil || len(text) > 4096 {
			return
		}
		who := users.Principal{Name: "alice", Kind: users.KindUser, Groups: []string{"team"}, Scopes: scopes}
		got, verdicts := all.Decide(who, netip.Addr{}, "s", time.Time{}, asked)
		if !got.Within(asked) {
			t.Fatalf("asked %q, granted %q", asked, got)
		}
		for _, v := range verdicts {
			if v.Granted != (got.Find(v.Type, v.Name) != nil && (scope.Access{Actions: got.Find(v.Type, v.Name)}).Has(v.Action)) {
				t.Fatalf("granted %q, verdict %+v", got, v)
			}
		}
		if err := CheckLimit(scopes); err != nil {
			if len(got) > 0 {
				t.Fatalf("%q cannot be read (%v), and grants %q", scopes, err, got)
			}
			return
		}
		limit := asPolicy(t, scopes)
		var want []scope.Access
		for _, a := range asked {
			for _, action := range a.Actions { // each by itself: "*" here is "*", not what it stands for
				one := scope.Set{{Type: a.Type, Name: a.Name, Actions: []string{action}}}
				mine, _ := all.Decide(users.Principal{Name: "alice", Kind: users.KindUser}, netip.Addr{}, "s", time.Time{}, one)
				its, _ := limit.Decide(users.Anonymous(), netip.Addr{}, "s", time.Time{}, one)
				both := mine.Intersect(its)
				if action == scope.All { // what "*" stands for, less the "*" of one side
					both = scope.Set{}
					for _, concrete := range its.Find(a.Type, a.Name) {
						if (scope.Access{Actions: mine.Find(a.Type, a.Name)}).Has(concrete) {
							both = append(both, scope.Access{Type: a.Type, Name: a.Name, Actions: []string{concrete}})
						}
					}
				}
				want = append(want, both...)
			}
		}
		wanted := scope.Canonical(want...)
		// "*" names what the rules name: a policy of the limit's words may name more than the one of everything does.
		if !got.Within(wanted) {
			t.Fatalf("%q: asked %q, granted %q, the scopes allow %q", scopes, asked, got, wanted)
		}
		for _, a := range wanted {
			for _, action := range a.Actions {
				known := action == "pull" || action == "push" || action == "delete" || action == scope.All
				if (known || !(scope.Access{Actions: asked.Find(a.Type, a.Name)}).Has(scope.All)) && !(scope.Access{Actions: got.Find(a.Type, a.Name)}).Has(action) && a.Type == scope.Repository {
					t.Fatalf("%q: asked %q, granted %q, the scopes allow %q", scopes, asked, got, wanted)
				}
			}
		}
	})
}
