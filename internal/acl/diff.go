package acl

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"authserver/internal/scope"
	"authserver/internal/users"
)

// Change is what a principal gains or loses on a resource between two policies.
type Change struct {
	Principal string   `json:"principal"` // a name, "group:NAME" for a member of it, "anonymous", or "anybody else"
	Resource  string   `json:"resource"`  // type:name
	Gains     []string `json:"gains,omitempty"`
	Loses     []string `json:"loses,omitempty"`
}

// World is who and what two policies are compared over.
type World struct {
	principals map[string]users.Principal
	resources  map[string]scope.Access
}

// Size is the number of decisions that a comparison takes, of each policy.
func (w World) Size() int { return len(w.principals) * len(w.resources) }

// NewWorld gathers the principals and resources that policies name: their users, robots and groups, anonymous and
// somebody whom nobody names; and for each pattern a name that it covers. names are further repositories.
func NewWorld(names []string, policies ...*Policy) World {
	w := World{map[string]users.Principal{
		"anonymous":    users.Anonymous(),
		"anybody else": {Name: "somebody-else", Kind: users.KindUser},
		"any robot":    {Name: "some-robot", Kind: users.KindRobot},
	}, map[string]scope.Access{}}
	add := func(typ, name string) {
		w.resources[typ+":"+name] = scope.Access{Type: typ, Name: name, Actions: []string{scope.All}}
	}
	for _, p := range policies {
		for name := range p.memberOf {
			w.principals[name] = users.Principal{Name: name, Kind: users.KindUser}
		}
		for i := range p.rules {
			for _, m := range p.rules[i].subjects {
				name := strings.Join(m.glob.parts, "x")
				switch m.kind {
				case "user":
					w.principals[name] = users.Principal{Name: name, Kind: users.KindUser}
				case "robot":
					w.principals["robot:"+name] = users.Principal{Name: name, Kind: users.KindRobot}
				case "group":
					w.principals["group:"+name] = users.Principal{Name: "somebody-else", Kind: users.KindUser, Groups: []string{name}}
				}
			}
		}
	}
	for _, name := range names {
		add(scope.Repository, name)
	}
	for _, p := range policies {
		for i := range p.rules {
			for _, res := range p.rules[i].resources {
				for _, name := range res.name.examples(w.principals, policies) {
					if scope.ValidName(name) && len(name) <= scope.MaxNameLength {
						add(res.typ, name)
					}
				}
			}
		}
	}
	return w
}

// examples are names that the pattern covers: one for each principal whose name or group it holds.
func (p pattern) examples(principals map[string]users.Principal, policies []*Policy) []string {
	text := func(who users.Principal, member string) string {
		parts := make([]string, len(p.segments))
		for i, seg := range p.segments {
			if seg.anyDepth {
				parts[i] = "x"
			}
			for _, t := range seg.tokens {
				switch t.kind {
				case literal:
					parts[i] += t.text
				case user:
					parts[i] += who.Name
				case group:
					parts[i] += strings.TrimPrefix(member, t.text)
				default:
					parts[i] += "x"
				}
			}
		}
		return strings.Join(parts, "/")
	}
	names := map[string]bool{}
	for _, who := range principals {
		groups := []string{""}
		if p.groups {
			groups = nil
			for _, policy := range policies {
				groups = append(groups, policy.newSubject(who).groups...)
			}
		}
		for _, g := range groups {
			names[text(who, g)] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Diff returns what changes from one policy to another, for requests to a service at a time, from an address or, with
// the zero Addr, from one that is not known.
func Diff(before, after *Policy, w World, from netip.Addr, service string, at time.Time) []Change {
	var changes []Change
	for _, name := range slices.Sorted(maps.Keys(w.principals)) {
		for _, resource := range slices.Sorted(maps.Keys(w.resources)) {
			asked := scope.Set{w.resources[resource]}
			old, _ := before.Decide(w.principals[name], from, service, at, asked)
			now, _ := after.Decide(w.principals[name], from, service, at, asked)
			c := Change{Principal: name, Resource: resource, Gains: without(actionsOf(now), actionsOf(old)), Loses: without(actionsOf(old), actionsOf(now))}
			if len(c.Gains)+len(c.Loses) > 0 {
				changes = append(changes, c)
			}
		}
	}
	return changes
}

func actionsOf(s scope.Set) []string {
	if len(s) == 0 {
		return nil
	}
	return s[0].Actions
}

// without returns the actions of a that are not in b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(action string) bool { return slices.Contains(b, action) })
}
