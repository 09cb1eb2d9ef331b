package acl

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"authserver/internal/document"
	"authserver/internal/scope"
	"authserver/internal/users"
)

// FuzzPolicyText holds what a policy text is read as against the same in other words, and against what must hold of any
// policy: faults with their places, and the same ones each time; nobody gains from what is denied, or from what they are not.
func FuzzPolicyText(f *testing.F) {
	for _, seed := range []string{
		"rules:\n  - {name: own, subjects: [authenticated], repositories: [\"{user}/**\"], actions: [\"*\"]}\n",
		"rules:\n  - {name: r, subjects: [anyone], repositories: [\"public/**\"], actions: [pull]}\n  - {name: d, effect: deny, subjects: [\"group:*\"], repositories: [\"**\"], actions: [push], networks: [10.0.0.0/8], services: [one]}\n",
		"combining: first-applicable\ngroups: {admins: [alice, \"group:ops\"], ops: [bob]}\nrules:\n  - name: c\n    subjects: [\"group:admins\", anonymous]\n    resources: [\"registry:catalog\"]\n    actions: [\"*\"]\n    when: 'request.service == \"one\"'\n",
		"rules:\n  - {name: g, subjects: [\"user:a*\"], repositories: [\"{group:team-*}/{claims.x}/x-{group}\"], actions: [pull, push], silence: [redundant]}\n",
		"groups: {a: [\"group:b\"], b: [\"group:a\"]}\nrules: [{name: a}, {name: a}, {}]\nrule: x\n", "rules:\n- name: a\n  name: b\n", "rules: []\n", "rules: {}\n", "combining: 1\n", "groups: {\"a*\": [\"*\"], b: [1]}\n",
	} {
		f.Add([]byte(seed), "alice", "team-a,ops", "repository:alice/img:pull,push repository:public/x:* registry:catalog:*")
	}
	f.Fuzz(func(t *testing.T, text []byte, name, groups, ask string) {
		p, err := Parse("policy.yaml", text)
		if again, second := Parse("policy.yaml", text); (again == nil) != (p == nil) || err != nil && err.Error() != second.Error() {
			t.Fatalf("%v\nthen %v", err, second)
		}
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\npolicy.yaml") {
				if line = strings.TrimPrefix(line, "policy.yaml"); !strings.HasPrefix(line, ": ") && (len(line) < 2 || line[0] != ':' || line[1] < '1' || line[1] > '9') {
					t.Fatalf("a fault without its place: %q", err)
				}
			}
			return
		}
		d, err := document.Parse("policy.yaml", text)
		if err != nil {
			t.Fatal(err)
		}
		other, err := yaml.Marshal(d.Root)
		if err != nil {
			t.Fatal(err)
		}
		same, err := Parse("policy.yaml", other)
		if err != nil {
			t.Fatalf("in other words it is refused: %v\n%s", err, other)
		}
		asked, _, err := scope.Parse([]string{ask})
		if err != nil {
			return
		}
		denied := *p
		denied.combining = DenyOverrides
		denied.rules = append(p.rules[:len(p.rules):len(p.rules)], rule{name: "no", deny: true, subjects: []matcher{{kind: "anyone"}}, actions: []string{"push"}, resources: []resource{{scope.Repository, pattern{segments: []segment{{anyDepth: true}}}}}})
		denied.index = newIndex(denied.rules)
		for _, who := range []users.Principal{users.Anonymous(), {Name: name, Kind: users.KindUser, Groups: strings.Split(groups, ","), Claims: map[string]any{"x": name}}, {Name: name, Kind: users.KindRobot}} {
			for _, from := range []netip.Addr{{}, netip.MustParseAddr("10.0.0.1")} {
				granted, verdicts := p.Decide(who, from, "one", time.Time{}, asked)
				if !granted.Within(asked) || scope.Canonical(granted...).String() != granted.String() {
					t.Fatalf("asked %q, granted %q", asked, granted)
				}
				if got, why := same.Decide(who, from, "one", time.Time{}, asked); got.String() != granted.String() || !reflect.DeepEqual(why, verdicts) {
					t.Fatalf("granted %q, in other words %q\n%s", granted, got, other)
				}
				for _, v := range verdicts {
					if v.Granted != (len(v.AllowedBy) > 0 && len(v.DeniedBy) == 0) || v.Granted && (who.Kind == users.KindAnonymous) && !p.forNobody(v.AllowedBy) {
						t.Fatalf("%+v for %+v", v, who)
					}
				}
				if p.combining == DenyOverrides {
					less, _ := denied.Decide(who, from, "one", time.Time{}, asked)
					if !less.Within(granted) {
						t.Fatalf("granted %q, with a rule that denies %q", granted, less)
					}
					for _, a := range less {
						if access := (scope.Access{Actions: a.Actions}); a.Type == scope.Repository && a.Name != "" && access.Has("push") {
							t.Fatalf("push is denied, granted %q", less)
						}
					}
				}
				// What is asked together is what is asked alone, but for what conditions cost.
				for _, a := range asked {
					alone, _ := p.Decide(who, from, "one", time.Time{}, scope.Set{a})
					together := scope.Set{{Type: a.Type, Name: a.Name, Actions: granted.Find(a.Type, a.Name)}}
					if !together.Within(alone) || !p.conditional() && !alone.Within(together) {
						t.Fatalf("alone %q, together %q", alone, granted)
					}
				}
			}
		}
	})
}

// forNobody tells whether one of the rules is for who did not log in.
func (p *Policy) forNobody(rules []string) bool {
	for _, name := range rules {
		for _, s := range p.rules[p.byName[name]].subjects {
			if s.kind == "anyone" || s.kind == "anonymous" {
				return true
			}
		}
	}
	return false
}

// conditional tells whether a rule has a condition.
func (p *Policy) conditional() bool {
	for _, r := range p.rules {
		if r.when != nil {
			return true
		}
	}
	return false
}
