// Package acl decides: policy text becomes a compiled Policy, and a Policy turns what is asked into what is granted, with
// the names of the rules that made it so.
//
// The engine is pure: no I/O after Load, no clock, no state. A Policy is immutable, safe for concurrent use, and replaced
// as a whole. The default is deny, rules are combined as XACML 3.0 defines deny-overrides or first-applicable, and what a
// rule does not say never widens it.
package acl

import (
	"net/netip"
	"slices"
	"time"

	"authserver/internal/scope"
	"authserver/internal/users"
)

// Policy is a compiled set of rules.
type Policy struct {
	rules     []rule
	index     index
	byName    map[string]int
	combining string
	memberOf  map[string][]string // user name -> groups that the policy puts it in, and what these are part of
	partOf    map[string][]string // group -> groups that it is part of
}

// question is one request to a policy, with room that its resources share.
type question struct {
	who     *subject
	from    netip.Addr
	service string
	now     time.Time
	found   []int32
	matched []*rule
	limited bool  // the credential has scopes of its own
	limit   limit // these

	evaluated map[evaluation]outcome // conditions, each asked once
	cost      uint64                 // of them, so far

	// Room for what a usual request needs, so that it is one allocation.
	subject     subject
	foundRoom   [32]int32
	matchedRoom [16]*rule
}

// ask begins a question.
func (p *Policy) ask(who users.Principal, from netip.Addr, service string, now time.Time) *question {
	q := &question{from: from, service: service, now: now}
	q.subject = p.newSubject(who)
	q.who, q.found, q.matched = &q.subject, q.foundRoom[:0], q.matchedRoom[:0]
	if who.Scopes != nil {
		q.limited = true
		q.limit, _ = parseLimit(who.Scopes) // what cannot be read allows nothing
	}
	return q
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
	when      *condition // nil = always
	silence   []string   // findings of lint that the author knows of
}

type resource struct {
	typ  string
	name pattern
}

// Where is the "file:line" of a rule, for people who ask why.
func (p *Policy) Where(rule string) string {
	if i, ok := p.byName[rule]; ok {
		return p.rules[i].where
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
// service at a time, and a verdict on every action. The granted Set is always Within asked.
//
// All is answered by the concrete actions that are granted (a registry that compares word by word needs them), and by
// All itself only where a rule allows All and no rule denies anything: All in a token is every action to Distribution.
func (p *Policy) Decide(who users.Principal, from netip.Addr, service string, now time.Time, asked scope.Set) (scope.Set, []scope.Verdict) {
	q := p.ask(who, from, service, now)
	granted := make(scope.Set, 0, len(asked))
	actions := 0
	for _, a := range asked {
		actions += len(a.Actions)
	}
	verdicts := make([]scope.Verdict, 0, actions)
	for _, a := range asked {
		// An empty repository name is zot's way to ask for the list of all repositories. Only reading it can be meant:
		// zot asks push and delete without a name for routes that have nothing to do with the catalog.
		if a.Type == scope.Repository && a.Name == "" {
			read := scope.Access{Type: a.Type, Actions: []string{"pull"}}
			for _, v := range p.decideCatalog(q, a) {
				if v.Granted {
					granted = append(granted, read)
				}
				verdicts = append(verdicts, v)
			}
			continue
		}
		matched := p.matching(q, a.Type, a.Name)
		candidates := candidates(a, matched)
		actions := make([]string, 0, len(candidates))
		for _, action := range candidates {
			v := p.decideAction(q, matched, a.Type, a.Name, action)
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

// matching returns the rules for a resource, in the order of the policy: allow rules that cover it, deny rules that meet it.
func (p *Policy) matching(q *question, typ, name string) []*rule {
	q.found = p.index.find(q.found[:0], q.who, typ, name)
	q.matched = q.matched[:0]
	for _, number := range q.found {
		if r := &p.rules[number]; r.misses(q, typ, name) == 0 {
			q.matched = append(q.matched, r)
		}
	}
	return q.matched
}

// miss is a set of reasons why a rule does not match.
type miss uint8

const (
	missSubject miss = 1 << iota
	missResource
	missService
	missNetwork
	missAction
	missCondition
)

// misses returns why a rule does not match; 0 when it does.
func (r *rule) misses(q *question, typ, name string) miss {
	var m miss
	if len(r.services) > 0 && !slices.Contains(r.services, q.service) {
		m |= missService
	}
	if !r.inNetworks(q.from) {
		m |= missNetwork
	}
	if !slices.ContainsFunc(r.subjects, func(s matcher) bool { return s.match(q.who) }) {
		m |= missSubject
	}
	if !r.on(q.who, typ, name) {
		m |= missResource
	}
	return m
}

// on tells whether the rule is about a resource.
func (r *rule) on(who *subject, typ, name string) bool {
	for i := range r.resources {
		res := &r.resources[i]
		if res.typ == typ && (r.deny && res.name.meets(name, who) || !r.deny && res.name.covers(name, who)) {
			return true
		}
	}
	return false
}

// candidates are the actions to decide on, sorted: those asked, and when All is asked, what it stands for: the type's
// vocabulary, and what the rules name.
func candidates(a scope.Access, matched []*rule) []string {
	if !slices.Contains(a.Actions, scope.All) {
		return a.Actions
	}
	actions := append(scope.Vocabulary(a.Type), a.Actions...)
	for _, r := range matched {
		if !r.deny {
			actions = append(actions, r.actions...)
		}
	}
	slices.Sort(actions)
	return slices.Compact(actions)
}

// decideCatalog answers zot's question for the catalog: pull, or All as pull, is the catalog's All; nothing else is granted.
func (p *Policy) decideCatalog(q *question, a scope.Access) []scope.Verdict {
	var verdicts []scope.Verdict
	if a.Has("pull") {
		v := p.decideAction(q, p.matching(q, registryType, catalogName), registryType, catalogName, scope.All)
		v.Type, v.Name, v.Action = a.Type, a.Name, "pull"
		verdicts = append(verdicts, v)
	}
	for _, action := range a.Actions {
		if action != "pull" && action != scope.All {
			verdicts = append(verdicts, scope.Verdict{Type: a.Type, Action: action})
		}
	}
	return verdicts
}

// decideAction combines the rules that match a resource.
//
// deny-overrides: one allow is needed, one deny is enough (XACML 3.0, C.2). first-applicable: the first rule that covers
// the action decides, and the others are not looked at (C.8). All includes every action, so a deny of any action stops it.
func (p *Policy) decideAction(q *question, matched []*rule, typ, name, action string) scope.Verdict {
	v := scope.Verdict{Type: typ, Name: name, Action: action}
	for _, r := range matched {
		if !r.covers(action) {
			continue
		}
		applies, failed := r.holds(q, typ, name, action)
		if failed {
			v.Failed = append(v.Failed, r.name)
		}
		switch {
		case !applies:
			continue
		case r.deny:
			v.DeniedBy = append(v.DeniedBy, r.name)
		default:
			v.AllowedBy = append(v.AllowedBy, r.name)
		}
		if p.combining == FirstApplicable {
			break
		}
	}
	// A credential that is narrower than who it belongs to: never more than either may.
	if q.limited && !q.limit.allows(typ, name, action) {
		v.DeniedBy = append(v.DeniedBy, LimitName)
	}
	v.Granted = len(v.AllowedBy) > 0 && len(v.DeniedBy) == 0
	return v
}

// covers tells whether the rule is about an action. A deny rule is about All whatever it names: All would include it.
func (r *rule) covers(action string) bool {
	return slices.Contains(r.actions, action) || slices.Contains(r.actions, scope.All) || r.deny && action == scope.All
}
