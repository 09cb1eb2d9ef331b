package dockerauth

import (
	"fmt"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"authserver/internal/scope"
	"authserver/internal/users"
)

// rule is what stands under one rule of our policy.
type rule struct {
	subjects, repositories, resources, services, networks []string
	when                                                  []string
}

// policy writes policy.yaml.
func (c *converter) policy() (text []byte, rules int) {
	var out strings.Builder
	fmt.Fprintf(&out, `# Made from %s. docker_auth decides by the first entry that matches, so the order counts here too: the
# first rule that covers an action decides on it. An entry that allows some actions is followed by a rule that denies
# the rest. Try it: authserver acl explain --as NAME --scope repository:some/name:pull,push
combining: first-applicable

`, c.base)
	c.groups(&out)
	out.WriteString("rules:\n")
	for i, e := range c.theirs.acl {
		made := c.rules(i, e)
		fmt.Fprintf(&out, "  # %s:%d%s\n", c.base, e.line, comment(e.comment))
		if len(made) == 0 {
			out.WriteString("  # left out, see the notes of the import\n")
		}
		for _, text := range made {
			out.WriteString(text)
		}
		out.WriteString("\n")
		rules += len(made)
	}
	if rules == 0 {
		out.WriteString("  # Nothing is allowed.\n" + write("nothing", true, rule{subjects: []string{"anyone"}, repositories: []string{"**"}}, []string{"*"}))
		rules++
	}
	return []byte(out.String()), rules
}

// comment makes one line of a comment.
func comment(s string) string {
	if s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }), " "); s == "" {
		return ""
	}
	return ": " + s
}

// groups writes the labels of users as groups: the value v of a label l is the group l=v.
func (c *converter) groups(out *strings.Builder) {
	members := map[string][]string{}
	for _, u := range c.theirs.users {
		for _, l := range slices.Sorted(maps.Keys(u.labels)) {
			for _, v := range u.labels[l] {
				group := l + "=" + v
				switch {
				case u.name == "":
					c.note(Lost, u.line, "users.\"\".labels."+l, "the anonymous user is in no group here; name anonymous in the rules that are meant")
				case !labelName.MatchString(l) || !groupName(group):
					c.note(Lost, u.line, "users."+u.name+".labels."+l, "%q cannot be part of a group's name", v)
				case !memberName(u.name): // no user here: users said so, or a name like a pattern
					c.note(Lost, u.line, "users."+u.name+".labels."+l, "%q cannot be a member of a group", u.name)
				default:
					members[group] = append(members[group], u.name)
				}
			}
		}
	}
	if len(members) == 0 {
		return
	}
	out.WriteString("# The labels of docker_auth's users.\ngroups:\n")
	for _, g := range slices.Sorted(maps.Keys(members)) {
		slices.Sort(members[g])
		fmt.Fprintf(out, "  %s: %s\n", quote(g), list(slices.Compact(members[g])))
	}
	out.WriteString("\n")
}

func memberName(s string) bool {
	_, err := users.ParseName(s)
	return err == nil && !strings.ContainsAny(s, "*{}")
}

func groupName(s string) bool {
	_, err := users.ParseName(strings.ReplaceAll(s, ":", "x"))
	return err == nil && !strings.ContainsAny(s, "*{}")
}

// rules are the rules of entry i, as text.
func (c *converter) rules(i int, e entry) []string {
	key := fmt.Sprintf("acl[%d]", i)
	if e.broken != "" {
		c.note(Lost, e.line, key, "%s, docker_auth would fail on every request that comes to it", e.broken)
		return nil
	}
	all := slices.Equal(e.actions, []string{scope.All})
	allow, deny, as := c.match(i, e, all)
	if c.options.Safe {
		// What the entry took away from those below it stays taken away: the safe form narrows only what it allows.
		kept := *c
		kept.options.Safe, kept.notes = false, nil
		var keptAs carried
		if _, deny, keptAs = kept.match(i, e, all); keptAs == nothing {
			return nil
		}
		as = min(as, keptAs)
	}
	if as == nothing && !c.options.Safe {
		return nil
	}
	actions := c.actions(key, e)
	id := fmt.Sprintf("%d%s", i+1, slug(e.comment))
	var made []string
	if as == whole && len(actions) > 0 {
		made = append(made, write(id, false, allow, actions))
	}
	// The last entry needs none: what no rule allows is denied. An entry that allows everything leaves nothing to deny, unless
	// what it allows could not be said.
	last := i == len(c.theirs.acl)-1
	if denies := !all || as == part; denies && (!last || len(made) == 0) {
		if len(made) > 0 {
			id += "-nothing-else"
		}
		made = append(made, write(id, true, deny, []string{scope.All}))
	}
	for _, text := range made {
		if err := c.options.Check([]byte("combining: first-applicable\nrules:\n" + text)); err != nil {
			_, problem, _ := strings.Cut(err.Error(), ": ")
			c.note(Lost, e.line, key, "it cannot be said here, and is denied instead: %s", problem)
			deny.when = nil // wider than the entry
			return []string{write(id, true, deny, []string{scope.All})}
		}
	}
	return made
}

// carried is how much of what an entry matches can be said.
type carried int

const (
	nothing carried = iota // it matches nothing
	part                   // not all of it: then what it matches at most is denied, because what it took away must not be granted below it
	whole
)

// match says what entry i matches, as what it allows (all = every action) and what it leaves nothing of for the entries below.
func (c *converter) match(i int, e entry, all bool) (allow, deny rule, as carried) {
	key := fmt.Sprintf("acl[%d]", i)
	for _, u := range e.match.unknown {
		if c.options.Safe {
			c.note(Lost, u.line, key+"."+u.key, "docker_auth does not know this key and passes over it, so the entry matches more than it says; what it allows is left out, say what is meant")
			return allow, deny, nothing
		}
		c.note(Warning, u.line, key+"."+u.key, "docker_auth does not know this key and passes over it, so the entry matches more than it says; kept without it, --safe leaves out what it allows")
	}
	t := &translator{c: c, m: e.match, number: i, labels: c.labels()}
	t.findCaptures()
	name, account := t.name(), t.account()
	tests := map[string]test{"name": name, "account": account}
	var labels []test
	for _, l := range e.match.labels {
		out := t.label(l)
		tests["labels."+l.name] = out
		if out.lost == "" {
			labels = append(labels, out)
		}
	}
	types, typeTest := t.types()
	tests["type"] = typeTest
	services, serviceTest := t.services()
	tests["service"] = serviceTest
	as = whole
	for _, k := range slices.Sorted(maps.Keys(tests)) {
		switch out := tests[k]; {
		case out.lost != "":
			c.note(Lost, e.line, key+".match."+k, "%s; what the entry matches at most is denied instead", out.lost)
			as = min(as, part)
		case out.never != "":
			c.note(Warning, e.line, key+".match."+k, "the entry matches nothing and is left out: %s", out.never)
			as = nothing
		}
	}
	networks, err := networks(e.match.ip)
	if err != nil {
		c.note(Lost, e.match.ip.line, key+".match.ip", "%v; what the entry matches at most is denied instead", err)
		as = min(as, part)
	}
	if as == nothing {
		return allow, deny, as
	}
	// What cannot be said is taken for everything.
	if name.lost != "" {
		name = test{always: true, native: []string{"**"}}
	}
	if account.lost != "" {
		account = test{always: true, native: t.everybody()}
	}
	if typeTest.lost != "" {
		types = []string{scope.Repository, registryType}
	}

	base := rule{services: services, networks: networks}
	base.subjects, base.when = t.who(account, labels)
	patterns := name.native
	if patterns == nil {
		patterns, base.when = []string{"**"}, append(base.when, name.cel)
	}
	allow, deny = base, base
	for _, typ := range types {
		switch {
		case typ == scope.Repository:
			allow.repositories, deny.repositories = patterns, patterns
		case typ != registryType || e.match.typ != nil:
			for _, p := range patterns {
				if e.match.typ != nil || !c.options.Safe {
					allow.resources = append(allow.resources, typ+":"+p)
				}
				deny.resources = append(deny.resources, typ+":"+p)
			}
		default:
			for _, p := range patterns {
				if slices.ContainsFunc(registryNames, func(name string) bool { return mayMatch(p, name) }) {
					deny.resources = append(deny.resources, registryType+":"+p)
				}
				if p == "**" { // of what registries ask for, only the catalog is carried over
					p = catalog
				}
				if all && !c.options.Safe && mayMatch(p, catalog) {
					allow.resources = append(allow.resources, registryType+":"+p)
				}
			}
			if all && !c.options.Safe && len(allow.resources) > 0 {
				c.note(Warning, e.line, key+".match", "without a type it covers the catalog (the list of all repositories) too; kept, safe would be type: repository (--safe)")
			}
		}
	}
	return allow, deny, as
}

const registryType, catalog = "registry", "catalog"

// registryNames are what registries ask for of that type.
var registryNames = []string{catalog, "statistics", "background-migrations"}

// who are the subjects of a rule: the account if subjects can say it, else the first label that they can say. What else
// must hold goes into when.
func (t *translator) who(account test, labels []test) (subjects, when []string) {
	subjects = t.everybody()
	said := account.native != nil && (!account.always || len(labels) == 0)
	switch {
	case said:
		subjects = account.native
	case !account.always:
		when = append(when, account.cel)
	}
	for _, l := range labels {
		if l.native != nil && !said {
			subjects, said = l.native, true // only who logged in is in a group
			continue
		}
		when = append(when, l.cel)
	}
	return subjects, when
}

// labels are the values that users have.
func (c *converter) labels() map[string][]string {
	values := map[string][]string{}
	for _, u := range c.theirs.users {
		for l, list := range u.labels {
			for _, v := range list {
				if u.name != "" && groupName(l+"="+v) && !slices.Contains(values[l], v) {
					values[l] = append(values[l], v)
				}
			}
		}
	}
	for l := range values {
		slices.Sort(values[l])
	}
	return values
}

// actions are those that the policy can grant.
func (c *converter) actions(key string, e entry) []string {
	var actions []string
	for _, a := range e.actions {
		switch {
		case a == scope.All && len(e.actions) > 1:
			c.note(Warning, e.line, key+".actions", `"*" beside other actions is not everything in docker_auth, it grants "*" to who asks for "*"; left out`)
		case !scope.ValidAction(a):
			c.note(Warning, e.line, key+".actions", "%q is no action that a registry asks for; left out", a)
		case !slices.Contains(actions, a):
			actions = append(actions, a)
		}
	}
	return actions
}

// types are the resource types that the entry is about. Registries ask for repository and registry; others must be named.
func (t *translator) types() ([]string, test) {
	known := []string{scope.Repository, registryType}
	for _, e := range t.c.theirs.acl {
		if p := e.match.typ; p != nil && p.literal() && scope.ValidType(p.text) && !slices.Contains(known, p.text) {
			known = append(known, p.text)
		}
	}
	if t.m.typ == nil {
		return known, test{}
	}
	return t.among(t.m.typ, "type", known)
}

// services are the registries that the entry is about; none = all.
func (t *translator) services() ([]string, test) {
	if t.m.service == nil {
		return nil, test{}
	}
	services, out := t.among(t.m.service, "service", t.c.services)
	if len(services) == len(t.c.services) {
		return nil, out
	}
	return services, out
}

// among returns which of the known words a pattern matches.
func (t *translator) among(p *pattern, key string, known []string) ([]string, test) {
	if strings.Contains(p.text, "${") {
		return nil, test{lost: fmt.Sprintf("%q: variables are read in account, name and labels only", p)}
	}
	r, out := t.parse(p, key)
	if out.never+out.lost != "" {
		return nil, out
	}
	var words []string
	for _, w := range known {
		var matched bool
		if p.regex {
			matched, _ = regexp.MatchString(r.regex, w)
		} else {
			matched, _ = path.Match(p.text, w)
		}
		if matched {
			words = append(words, w)
		}
	}
	if len(words) == 0 {
		return nil, test{never: fmt.Sprintf("%q is none of %s", p, strings.Join(known, ", "))}
	}
	return words, test{}
}

// networks reads match.ip: an address or a network.
func networks(ip *value) ([]string, error) {
	if ip == nil {
		return nil, nil
	}
	if a, err := netip.ParseAddr(ip.text); err == nil && a.Zone() == "" {
		return []string{a.Unmap().String()}, nil
	}
	n, err := netip.ParsePrefix(ip.text)
	if err != nil {
		return nil, fmt.Errorf("%q is neither an address nor a network", ip.text)
	}
	return []string{n.Masked().String()}, nil
}

// slug makes a short part of a rule's name of a comment.
func slug(s string) string {
	words := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9') })
	name := ""
	for _, w := range words {
		if len(name)+len(w) > 48 {
			break
		}
		name += "-" + w
	}
	return name
}

// write writes one rule.
func write(name string, deny bool, r rule, actions []string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "  - name: %s\n", quote(name))
	if deny {
		out.WriteString("    effect: deny\n")
	}
	for _, key := range []struct {
		name   string
		values []string
	}{
		{"subjects", r.subjects}, {"repositories", r.repositories}, {"resources", r.resources}, {"actions", actions},
		{"services", r.services}, {"networks", r.networks},
	} {
		if len(key.values) > 0 {
			fmt.Fprintf(&out, "    %s: %s\n", key.name, list(key.values))
		}
	}
	if len(r.when) > 0 {
		fmt.Fprintf(&out, "    when: |-\n      %s\n", strings.Join(r.when, " && "))
	}
	return out.String()
}
