package acl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"authserver/internal/document"
	"authserver/internal/scope"
	"authserver/internal/users"
)

// TestSuffix ends the names of policy tests, which lie beside policies.
const TestSuffix = ".test.yaml"

// Case is one policy test: who asks for what, and what must be granted.
type Case struct {
	Where   string // file:line
	Name    string
	Who     users.Principal
	From    netip.Addr
	Service string // "" = the first one
	At      time.Time
	Asked   scope.Access
	Grants  []string // sorted; empty = nothing
}

// caseText is a test as it is written.
type caseText struct {
	Name    string    `yaml:"name"`
	As      *asText   `yaml:"as"` // absent = anonymous
	Service string    `yaml:"service"`
	At      string    `yaml:"at"` // RFC 3339; absent = the time of the run
	Scope   string    `yaml:"scope"`
	Grants  *[]string `yaml:"grants"`
}

type asText struct {
	User   string         `yaml:"user"` // neither user nor robot, but an ip = anonymous from there
	Robot  string         `yaml:"robot"`
	Groups []string       `yaml:"groups"`
	IP     string         `yaml:"ip"`
	Claims map[string]any `yaml:"claims"`
}

// LoadCases reads a file of policy tests. now is the time of those that name none.
func LoadCases(file string, now time.Time) ([]Case, error) {
	d, err := document.ReadList(file)
	if err != nil {
		return nil, err
	}
	var texts []caseText
	reading := d.Decode(&texts)
	var cases []Case
	var faults []error
	for i, text := range texts {
		c, err := text.parse(now, func(key, format string, args ...any) error {
			return d.Fault(document.Join(fmt.Sprintf("[%d]", i), key), format, args...)
		})
		if err != nil {
			faults = append(faults, err)
		}
		c.Where = d.Where(fmt.Sprintf("[%d]", i))
		cases = append(cases, c)
	}
	if err := document.Merge(reading, faults...); err != nil {
		return nil, err
	}
	if len(cases) == 0 {
		return nil, &document.Fault{Where: file, Problem: "there are no tests"}
	}
	return cases, nil
}

func (t caseText) parse(now time.Time, fault func(key, format string, args ...any) error) (Case, error) {
	c := Case{Name: t.Name, Who: users.Anonymous(), Service: t.Service, At: now}
	var faults []error
	note := func(key, format string, args ...any) { faults = append(faults, fault(key, format, args...)) }
	if t.As == nil {
		t.As = &asText{}
	} else if t.As.User == "" && t.As.Robot == "" && t.As.IP == "" {
		note("as", "neither user nor robot; leave as out for anonymous, or give the ip alone")
	}
	name, kind := t.As.User, users.KindUser
	if t.As.Robot != "" {
		name, kind = t.As.Robot, users.KindRobot
	}
	switch {
	case t.As.User != "" && t.As.Robot != "":
		note("as", "a user and a robot; name one of them")
	case name != "":
		canonical, err := users.ParseName(name)
		if err != nil {
			note("as", "%q: %v", name, err)
		}
		c.Who = users.Principal{Name: canonical, Kind: kind, Groups: t.As.Groups, Claims: t.As.Claims}
	case len(t.As.Groups) > 0 || len(t.As.Claims) > 0:
		note("as", "groups and claims are a user's; name the user")
	}
	var err error
	if t.As.IP != "" {
		if c.From, err = netip.ParseAddr(t.As.IP); err != nil {
			note("as.ip", "%q is no address", t.As.IP)
		}
		c.From = c.From.Unmap()
	}
	if t.At != "" {
		if c.At, err = time.Parse(time.RFC3339, t.At); err != nil {
			note("at", "%q is no time; would be right: \"2026-01-02T15:04:05Z\"", t.At)
		}
	}
	asked, dropped, err := scope.Parse([]string{t.Scope})
	switch {
	case err != nil:
		note("scope", "%v", err)
	case len(asked) != 1 || len(dropped) > 0 || len(asked[0].Actions) == 0:
		note("scope", "%q is not one resource and its actions; would be right: \"repository:team/app:pull,push\"", t.Scope)
	default:
		c.Asked = asked[0]
	}
	if t.Grants == nil {
		note("grants", "missing; would be right: [pull], or [] for nothing")
		return c, errors.Join(faults...)
	}
	for i, action := range *t.Grants {
		if !scope.ValidAction(action) {
			note(fmt.Sprintf("grants[%d]", i), "%q is no action", action)
		}
	}
	c.Grants = slices.Clone(*t.Grants)
	slices.Sort(c.Grants)
	return c, errors.Join(faults...)
}

// Title is what the test is called: its name, or else what it asks.
func (c Case) Title() string {
	if c.Name != "" {
		return c.Name
	}
	who := c.Who.Name
	if c.Who.Kind == users.KindAnonymous {
		who = "anonymous"
	}
	return who + ", " + c.Asked.String()
}

// Run asks the policy, and tells what it granted and why.
func (c Case) Run(p *Policy) (granted []string, verdicts []scope.Verdict) {
	set, verdicts := p.Decide(c.Who, c.From, c.Service, c.At, scope.Set{c.Asked})
	return set.Find(c.Asked.Type, c.Asked.Name), verdicts
}

// Unexercised are the rules that decided in none of the verdicts, in the order of the policy.
func (p *Policy) Unexercised(verdicts []scope.Verdict) []string {
	seen := map[string]bool{}
	for _, v := range verdicts {
		for _, names := range [][]string{v.AllowedBy, v.DeniedBy} {
			for _, n := range names {
				seen[n] = true
			}
		}
	}
	var rest []string
	for _, r := range p.rules {
		if !seen[r.name] {
			rest = append(rest, r.name)
		}
	}
	return rest
}

// Nearest lists the allow rules that miss an action by one thing alone, each with what that is: what somebody who asks
// why they were denied wants to hear of.
func (p *Policy) Nearest(who users.Principal, from netip.Addr, service string, now time.Time, typ, name, action string) []string {
	if typ == scope.Repository && name == "" {
		typ, name, action = registryType, catalogName, scope.All
	}
	q := p.ask(who, from, service, now)
	reasons := map[miss]string{
		missSubject: "the subject", missResource: "the resource", missService: "the service", missNetwork: "the network",
		missAction: "the action " + action, missCondition: "its condition",
	}
	var near []string
	for i := range p.rules {
		r := &p.rules[i]
		if r.deny || !slices.ContainsFunc(r.resources, func(res resource) bool { return res.typ == typ }) {
			continue
		}
		m := r.misses(q, typ, name)
		if !r.covers(action) {
			m |= missAction
		}
		if applies, _ := r.holds(q, typ, name, action); !applies {
			m |= missCondition
		}
		if reason, one := reasons[m]; one {
			near = append(near, fmt.Sprintf("rule %s (%s) would match but for %s", r.name, r.where, reason))
		}
		if len(near) == mostNearest {
			break
		}
	}
	return near
}

// mostNearest bounds what explain prints.
const mostNearest = 5
