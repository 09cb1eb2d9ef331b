// Package acl decides: policy text becomes a compiled Policy, and a Policy turns what is asked into what is granted, with
// the names of the rules that made it so.
//
// The engine is pure: no I/O after Load, no clock, no state. A Policy is immutable, safe for concurrent use, and replaced
// as a whole. The default is deny, a deny rule overrides every allow rule (XACML 3.0 deny-overrides), and what a rule
// does not say never widens it.
package acl

import (
	"net/netip"
	"slices"

	"golang.org/x/text/unicode/norm"

	"authserver/internal/scope"
	"authserver/internal/users"
)

// Policy is a compiled set of rules.
type Policy struct {
	rules    []rule
	memberOf map[string][]string // user name -> groups that the policy puts it in
}

// rule is one compiled rule.
type rule struct {
	name      string
	where     string // file:line
	deny      bool
	subjects  []matcher
	resources []resource
	actions   []string // may hold scope.All
	services  []string // none = every service
	networks  []netip.Prefix
}

type resource struct {
	typ  string
	name pattern
}

// Where is the "file:line" of a rule, for people who ask why.
func (p *Policy) Where(rule string) string {
	for _, r := range p.rules {
		if r.name == rule {
			return r.where
		}
	}
	return ""
}

// Services are the service names that rules are limited to, each with the first rule that names it.
func (p *Policy) Services() map[string]string {
	named := map[string]string{}
	for _, r := range p.rules {
		for _, s := range r.services {
			if _, ok := named[s]; !ok {
				named[s] = r.name
			}
		}
	}
	return named
}

// Len is the number of rules.
func (p *Policy) Len() int { return len(p.rules) }

// The catalog of a registry, under the name that Distribution asks for it. zot asks repository::pull instead.
const (
	registryType = "registry"
	catalogName  = "catalog"
)

// Decide returns what of asked is granted to who, coming from an address (the zero Addr when it is not known) for a
// service, and a verdict on every action. The granted Set is always Within asked.
//
// All is answered by the concrete actions that are granted (a registry that compares word by word needs them), and by
// All itself only where a rule allows All and no rule denies anything: All in a token is every action to Distribution.
func (p *Policy) Decide(who users.Principal, from netip.Addr, service string, asked scope.Set) (scope.Set, []scope.Verdict) {
	s := p.subject(who)
	rules := p.applicable(s, from, service)
	granted := make(scope.Set, 0, len(asked))
	var verdicts []scope.Verdict
	for _, a := range asked {
		// An empty repository name is zot's way to ask for the list of all repositories. Only reading it can be meant:
		// zot asks push and delete without a name for routes that have nothing to do with the catalog.
		if a.Type == scope.Repository && a.Name == "" {
			read := scope.Access{Type: a.Type, Actions: []string{"pull"}}
			for _, v := range decideCatalog(a, matching(rules, s, registryType, catalogName)) {
				if v.Granted {
					granted = append(granted, read)
				}
				verdicts = append(verdicts, v)
			}
			continue
		}
		matched := matching(rules, s, a.Type, a.Name)
		actions := []string{}
		for _, action := range candidates(a, matched) {
			v := decideAction(matched, action)
			v.Type, v.Name = a.Type, a.Name
			if v.Granted {
				actions = append(actions, action)
			}
			verdicts = append(verdicts, v)
		}
		if len(actions) > 0 {
			granted = append(granted, scope.Access{Type: a.Type, Name: a.Name, Actions: actions})
		}
	}
	return granted, verdicts
}

// subject unites the groups of backend and policy. Robots are members by name as users are.
func (p *Policy) subject(who users.Principal) *subject {
	s := &subject{Principal: who}
	if who.Kind == users.KindAnonymous {
		return s
	}
	more := p.memberOf[who.Name]
	s.groups = make(map[string]struct{}, len(who.Groups)+len(more))
	for _, list := range [][]string{who.Groups, more} {
		for _, g := range list {
			s.groups[norm.NFC.String(g)] = struct{}{}
		}
	}
	return s
}

// applicable returns the rules whose conditions hold for the whole request.
func (p *Policy) applicable(who *subject, from netip.Addr, service string) []*rule {
	var rules []*rule
	for i := range p.rules {
		r := &p.rules[i]
		if (len(r.services) == 0 || slices.Contains(r.services, service)) &&
			r.inNetworks(from) &&
			slices.ContainsFunc(r.subjects, func(m matcher) bool { return m.match(who) }) {
			rules = append(rules, r)
		}
	}
	return rules
}

// inNetworks fails closed when the address is not known (a unix socket): an allow rule then does not apply, a deny does.
func (r *rule) inNetworks(from netip.Addr) bool {
	if len(r.networks) == 0 {
		return true
	}
	if !from.IsValid() {
		return r.deny
	}
	return slices.ContainsFunc(r.networks, func(n netip.Prefix) bool { return n.Contains(from) })
}

// matching returns the rules for a resource: allow rules that cover it, deny rules that meet it.
func matching(rules []*rule, who *subject, typ, name string) []*rule {
	var matched []*rule
	for _, r := range rules {
		match := pattern.covers
		if r.deny {
			match = pattern.meets
		}
		if slices.ContainsFunc(r.resources, func(res resource) bool { return res.typ == typ && match(res.name, name, who) }) {
			matched = append(matched, r)
		}
	}
	return matched
}

// candidates are the actions to decide on, sorted: those asked, and when All is asked, what it stands for: the type's
// vocabulary, and what the rules name.
func candidates(a scope.Access, matched []*rule) []string {
	actions := slices.Clone(a.Actions)
	if slices.Contains(actions, scope.All) {
		actions = append(actions, scope.Vocabulary(a.Type)...)
		for _, r := range matched {
			if !r.deny {
				actions = append(actions, r.actions...)
			}
		}
		slices.Sort(actions)
		actions = slices.Compact(actions)
	}
	return actions
}

// decideCatalog answers zot's question for the catalog: pull, or All as pull, is the catalog's All; nothing else is granted.
func decideCatalog(a scope.Access, matched []*rule) []scope.Verdict {
	var verdicts []scope.Verdict
	if a.Has("pull") {
		v := decideAction(matched, scope.All)
		v.Type, v.Action = a.Type, "pull"
		verdicts = append(verdicts, v)
	}
	for _, action := range a.Actions {
		if action != "pull" && action != scope.All {
			verdicts = append(verdicts, scope.Verdict{Type: a.Type, Action: action})
		}
	}
	return verdicts
}

// decideAction combines the rules that match a resource: one allow is needed, one deny is enough.
func decideAction(matched []*rule, action string) scope.Verdict {
	v := scope.Verdict{Action: action}
	for _, r := range matched {
		covers := slices.Contains(r.actions, action) || slices.Contains(r.actions, scope.All)
		switch {
		case r.deny && (covers || action == scope.All): // All would include whatever is denied
			v.DeniedBy = append(v.DeniedBy, r.name)
		case !r.deny && covers:
			v.AllowedBy = append(v.AllowedBy, r.name)
		}
	}
	v.Granted = len(v.AllowedBy) > 0 && len(v.DeniedBy) == 0
	return v
}
