// Package scope is the noun of a token request: what is asked of a registry, and what is granted.
//
// It holds the grammar of Distribution's scope specification (docs/content/spec/auth/scope.md) and what real clients and
// registries send outside it, the canonical form, and the intersection. It decides nothing: who may do what is acl's.
package scope

import (
	"slices"
	"strings"
)

// All is the action that stands for every action of its resource, when it is asked and when it is granted
// (distribution registry/auth/token/util.go: a set that contains "*" contains every action).
const All = "*"

// Repository is the type of image repositories, the only type whose vocabulary of actions is fixed.
const Repository = "repository"

// Actions that a registry asks for on a repository; the concrete meaning of All there.
var repositoryActions = []string{"delete", "pull", "push"}

// Access is one resource and a set of actions on it. It is an entry of the token's `access` claim as it stands
// (Distribution's jwt.md): Type has no class, Actions is sorted, without duplicates, and never nil in a Set.
type Access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// String is the scope that asks for a, as in "repository:team/app:pull,push".
func (a Access) String() string {
	return a.Type + ":" + a.Name + ":" + strings.Join(a.Actions, ",")
}

// Has tells whether a holds action, by name or because it holds All.
func (a Access) Has(action string) bool {
	return slices.Contains(a.Actions, action) || slices.Contains(a.Actions, All)
}

// Set is a canonical list of accesses: sorted by type, then name; one entry a resource; actions sorted, each once.
// Canonical makes one. The zero Set asks for nothing and grants nothing.
type Set []Access

// Canonical merges the entries of each resource and sorts. The argument is not kept.
func Canonical(entries ...Access) Set {
	set := make(Set, 0, len(entries))
	for _, e := range entries {
		set = append(set, Access{Type: e.Type, Name: e.Name, Actions: slices.Clone(e.Actions)})
	}
	return set.merge()
}

// merge makes s canonical in place. Entries own their Actions.
func (s Set) merge() Set {
	if len(s) == 0 {
		return Set{}
	}
	slices.SortStableFunc(s, func(a, b Access) int {
		if c := strings.Compare(a.Type, b.Type); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	merged := s[:1]
	for _, e := range s[1:] {
		if last := &merged[len(merged)-1]; last.Type == e.Type && last.Name == e.Name {
			last.Actions = append(last.Actions, e.Actions...)
			continue
		}
		merged = append(merged, e)
	}
	for i := range merged {
		slices.Sort(merged[i].Actions)
		merged[i].Actions = slices.Compact(merged[i].Actions)
		if merged[i].Actions == nil {
			merged[i].Actions = []string{}
		}
	}
	return merged
}

// String is the canonical text: the entries separated by one space. Parse reads it back to the same Set.
func (s Set) String() string {
	texts := make([]string, len(s))
	for i, a := range s {
		texts[i] = a.String()
	}
	return strings.Join(texts, " ")
}

// Find returns the actions that s holds on a resource, nil when it does not name the resource.
func (s Set) Find(typ, name string) []string {
	for _, a := range s {
		if a.Type == typ && a.Name == name {
			return a.Actions
		}
	}
	return nil
}

// Within tells whether everything in s is also in other: each action by name, or because other has All there.
func (s Set) Within(other Set) bool {
	for _, a := range s {
		limit := Access{Actions: other.Find(a.Type, a.Name)}
		for _, action := range a.Actions {
			if !limit.Has(action) {
				return false
			}
		}
	}
	return true
}

// Intersect returns what both sets hold; All on one side keeps whatever the other names. Resources with no common
// action are left out. The result is Within both, whatever they are.
func (s Set) Intersect(other Set) Set {
	common := make(Set, 0, min(len(s), len(other)))
	for _, a := range s {
		b := Access{Actions: other.Find(a.Type, a.Name)}
		var actions []string
		for _, action := range a.Actions {
			if b.Has(action) {
				actions = append(actions, action)
			}
		}
		for _, action := range b.Actions {
			if a.Has(action) && !slices.Contains(actions, action) {
				actions = append(actions, action)
			}
		}
		if len(actions) > 0 {
			slices.Sort(actions)
			common = append(common, Access{Type: a.Type, Name: a.Name, Actions: actions})
		}
	}
	return common
}

// Vocabulary lists the concrete actions that All stands for on a type; nil when the type has no fixed list.
func Vocabulary(typ string) []string {
	if typ == Repository {
		return slices.Clone(repositoryActions)
	}
	return nil
}

// Verdict is the decision on one action of one resource, with the names of the policy rules that made it.
type Verdict struct {
	Type      string   `json:"type"`
	Name      string   `json:"name"`
	Action    string   `json:"action"`
	Granted   bool     `json:"granted"`
	AllowedBy []string `json:"allowed_by,omitempty"` // allow rules that matched, in policy order
	DeniedBy  []string `json:"denied_by,omitempty"`  // deny rules that matched; one is enough to refuse
	Failed    []string `json:"failed,omitempty"`     // rules whose condition could not be evaluated
}
