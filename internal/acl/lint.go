package acl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"authserver/internal/scope"
)

// Severity orders findings: an error is a hole, a warning is most likely not what was meant, info can be tidied up.
type Severity string

const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
	SeverityInfo    Severity = "info"
)

// Finding is something in a policy that is allowed and yet probably wrong.
type Finding struct {
	Name     string   `json:"name"` // to silence it: silence: [NAME] in the rule
	Severity Severity `json:"severity"`
	Rule     string   `json:"rule"`
	Where    string   `json:"where"` // file:line
	Text     string   `json:"text"`
}

// Checks are the names of all findings, each with what it is about.
var Checks = map[string]string{
	"unreachable":        "the rule can never decide anything, because another one always does before",
	"redundant":          "another rule grants all that this one grants",
	"deny-without-allow": "the rule denies what no rule allows",
	"push-without-pull":  "registries ask for pull and push together, so a push without pull never succeeds",
	"public-write":       "everybody, logged in or not, may write",
	"everything":         "one rule is about every repository, for everybody who can log in",
	"public-catalog":     "everybody who can log in sees the names of all repositories",
	"unknown-action":     "no registry asks for this action on a repository",
	"unknown-type":       "no registry asks for this type of resource",
	"never-asked":        "registries ask for the catalog with the action * alone",
	"regular-expression": "the name looks like a regular expression, and is compared as text",
}

// Types of resources that registries are known to ask for, and our own.
var knownTypes = []string{scope.Repository, registryType, "artifact-repository", "authserver"}

// Lint looks for what is most likely not meant. It errs on the side of silence: a finding is never a guess about patterns.
func (p *Policy) Lint() []Finding {
	l := &linter{policy: p}
	for i := range p.rules {
		l.rule = &p.rules[i]
		l.subjects()
		l.actions()
		l.reach(i)
	}
	return l.findings
}

type linter struct {
	policy   *Policy
	rule     *rule
	found    []int32 // room for the rules that can contain it
	findings []Finding
}

func (l *linter) find(name string, severity Severity, format string, args ...any) {
	if !slices.Contains(l.rule.silence, name) {
		l.findings = append(l.findings, Finding{name, severity, l.rule.name, l.rule.where, fmt.Sprintf(format, args...) + ": " + Checks[name]})
	}
}

// open tells whether the rule is for everybody, or for everybody who can log in.
func (r *rule) open(kinds ...string) bool {
	return slices.ContainsFunc(r.subjects, func(m matcher) bool {
		return slices.Contains(kinds, m.kind) || slices.Contains(kinds, "authenticated") && m.kind == "user" && slices.Equal(m.glob.parts, []string{"", ""})
	})
}

// bounded tells whether a condition narrows the rule.
func (r *rule) bounded() bool { return len(r.networks) > 0 || r.when != nil }

func (l *linter) subjects() {
	r := l.rule
	for _, m := range r.subjects {
		if text := strings.Join(m.glob.parts, "*"); strings.ContainsAny(text, `^$[]()|\+`) || len(text) > 1 && strings.HasPrefix(text, "/") && strings.HasSuffix(text, "/") {
			l.find("regular-expression", SeverityWarning, "%s:%s", m.kind, text)
		}
	}
	if r.deny {
		return
	}
	// A placeholder stands for nothing where nobody has logged in.
	if r.open("anyone", "anonymous") && slices.ContainsFunc(r.resources, func(res resource) bool { return !res.name.personal() }) {
		for _, action := range r.actions {
			if action == "push" || action == "delete" || action == scope.All {
				l.find("public-write", SeverityError, "%s for anonymous", action)
			}
		}
	}
	for _, res := range r.resources {
		all := len(res.name.segments) == 1 && res.name.segments[0].anyDepth
		if all && res.typ == scope.Repository && r.open("anyone", "anonymous", "authenticated") && !r.bounded() {
			l.find("everything", SeverityWarning, "%s on **", strings.Join(r.actions, ", "))
		}
		if res.typ == registryType && res.name.covers(catalogName, &subject{}) && r.open("anyone", "anonymous", "authenticated") && !r.bounded() {
			l.find("public-catalog", SeverityWarning, "registry:catalog")
		}
	}
}

func (l *linter) actions() {
	r := l.rule
	repositories := false
	for _, res := range r.resources {
		repositories = repositories || res.typ == scope.Repository
		if !slices.Contains(knownTypes, res.typ) {
			l.find("unknown-type", SeverityWarning, "%s", res.typ)
		}
		if !r.deny && res.typ == registryType && res.name.covers(catalogName, &subject{}) && !slices.Contains(r.actions, scope.All) {
			l.find("never-asked", SeverityWarning, "%s on registry:catalog", strings.Join(r.actions, ", "))
		}
	}
	if !repositories {
		return
	}
	for _, action := range r.actions {
		if action != scope.All && !slices.Contains(scope.Vocabulary(scope.Repository), action) {
			l.find("unknown-action", SeverityWarning, "%s", action)
		}
	}
	if !r.deny && slices.Contains(r.actions, "push") && !r.covers("pull") && !l.pulls() {
		l.find("push-without-pull", SeverityWarning, "push")
	}
}

// containing are the rules that can contain the rule, itself among them, in the order of the policy: what contains all of
// it contains its first resource and its first subject.
func (l *linter) containing() []int32 {
	l.found = l.policy.index.containing(l.found[:0], l.rule.resources[0], l.rule.subjects[0])
	return l.found
}

// pulls tells whether another rule grants pull wherever this one grants push.
func (l *linter) pulls() bool {
	return slices.ContainsFunc(l.containing(), func(j int32) bool {
		other := &l.policy.rules[j]
		return !other.deny && other.covers("pull") && other.contains(l.rule)
	})
}

// reach looks for rules that decide nothing.
func (l *linter) reach(i int) {
	r := l.rule
	for _, number := range l.containing() {
		j, other := int(number), &l.policy.rules[number]
		if i == j || !other.contains(r) || !other.coversAll(r.actions) {
			continue
		}
		switch {
		case l.policy.combining == FirstApplicable && j < i:
			l.find("unreachable", SeverityWarning, "after rule %s (%s)", other.name, other.where)
			return
		case l.policy.combining == DenyOverrides && other.deny && !r.deny:
			l.find("unreachable", SeverityWarning, "denied by rule %s (%s)", other.name, other.where)
			return
		case l.policy.combining == DenyOverrides && other.deny == r.deny && (j < i || !r.contains(other) || !r.coversAll(other.actions)):
			l.find("redundant", SeverityInfo, "beside rule %s (%s)", other.name, other.where)
			return
		}
	}
	if r.deny && !l.meetsAllow() {
		l.find("deny-without-allow", SeverityInfo, "%s", strings.Join(r.actions, ", "))
	}
}

// meetsAllow tells whether there may be something to deny.
func (l *linter) meetsAllow() bool {
	for _, res := range l.rule.resources {
		for j := range l.policy.index.meeting(res) {
			if other := &l.policy.rules[j]; !other.deny && other.mayMeet(l.rule) {
				return true
			}
		}
	}
	return false
}

// coversAll tells whether the rule covers each of the actions; All is covered by All alone.
func (r *rule) coversAll(actions []string) bool {
	for _, action := range actions {
		if !slices.Contains(r.actions, scope.All) && !slices.Contains(r.actions, action) {
			return false
		}
	}
	return true
}

// contains tells whether every request that other matches is one that r matches too, actions aside. It says no when it
// is not sure.
func (r *rule) contains(other *rule) bool {
	if r.when != nil {
		return false
	}
	if len(r.services) > 0 && (len(other.services) == 0 || slices.ContainsFunc(other.services, func(s string) bool { return !slices.Contains(r.services, s) })) {
		return false
	}
	for _, n := range other.networks {
		if len(r.networks) > 0 && !slices.ContainsFunc(r.networks, func(m netip.Prefix) bool { return m.Bits() <= n.Bits() && m.Contains(n.Addr()) }) {
			return false
		}
	}
	if len(r.networks) > 0 && len(other.networks) == 0 {
		return false
	}
	for _, s := range other.subjects {
		if !slices.ContainsFunc(r.subjects, func(m matcher) bool { return m.contains(s) }) {
			return false
		}
	}
	for _, res := range other.resources {
		if !slices.ContainsFunc(r.resources, func(mine resource) bool { return mine.typ == res.typ && mine.name.contains(res.name) }) {
			return false
		}
	}
	return true
}

// contains tells whether everybody whom other matches is matched by m.
func (m matcher) contains(other matcher) bool {
	switch m.kind {
	case "anyone":
		return true
	case "authenticated":
		return other.kind != "anyone" && other.kind != "anonymous"
	}
	everybody := slices.Equal(m.glob.parts, []string{"", ""})
	return m.kind == other.kind && (everybody || slices.Equal(m.glob.parts, other.glob.parts))
}

// contains tells whether every name that other covers is covered by p: segment by segment, where "**" takes one or more
// and "*" any one. Other segments must be written alike.
func (p pattern) contains(other pattern) bool {
	return containSegments(p.segments, other.segments)
}

func containSegments(mine, other []segment) bool {
	if len(mine) == 0 || len(other) == 0 {
		return len(mine) == len(other)
	}
	switch first := mine[0]; {
	case first.anyDepth:
		for n := 1; n <= len(other); n++ {
			if containSegments(mine[1:], other[n:]) {
				return true
			}
		}
		return false
	case other[0].anyDepth:
		return false
	case len(first.tokens) == 1 && first.tokens[0].kind == star, slices.Equal(first.tokens, other[0].tokens):
		return containSegments(mine[1:], other[1:])
	}
	return false
}

// mayMeet tells whether some request could match both rules. It says yes when it is not sure.
func (r *rule) mayMeet(other *rule) bool {
	actions := slices.Contains(r.actions, scope.All) || slices.Contains(other.actions, scope.All) ||
		slices.ContainsFunc(r.actions, func(a string) bool { return slices.Contains(other.actions, a) })
	return actions && slices.ContainsFunc(r.resources, func(mine resource) bool {
		return slices.ContainsFunc(other.resources, func(theirs resource) bool {
			return mine.typ == theirs.typ && mayMeet(mine.name, theirs.name)
		})
	})
}

// mayMeet compares the literal beginnings of two patterns.
func mayMeet(a, b pattern) bool {
	for i := 0; i < len(a.segments) && i < len(b.segments); i++ {
		x, y := a.segments[i], b.segments[i]
		if !x.literal() || !y.literal() {
			return true
		}
		if x.tokens[0].text != y.tokens[0].text {
			return false
		}
	}
	return len(a.segments) == len(b.segments)
}
