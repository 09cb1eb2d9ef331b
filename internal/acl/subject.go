package acl

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"authserver/internal/users"
)

// subject is a principal as rules see it: with the groups of the policy beside those of its backend.
type subject struct {
	users.Principal
	groups []string            // of backend and policy, each once
	among  map[string]struct{} // the same, when there are many
	spans  map[place][]span    // where segments hold groups' names, found once for all rules
}

// fewGroups are looked through faster than a map is made.
const fewGroups = 16

// Groups are all groups of a principal: those of its backend, those that the policy puts it in, and all that these are part of.
func (p *Policy) Groups(who users.Principal) []string { return p.newSubject(who).groups }

// newSubject unites the groups of the backend with those of the policy, and with all that these are part of.
func (p *Policy) newSubject(who users.Principal) subject {
	s := subject{Principal: who}
	if who.Kind == users.KindAnonymous {
		return s
	}
	var own []string
	if who.Kind == users.KindUser { // a policy's members are users; a robot of the same name is somebody else
		own = p.memberOf[who.Name]
	}
	s.groups = make([]string, 0, len(who.Groups)+len(own))
	s.groups = append(s.groups, own...)
	for _, g := range who.Groups {
		g = norm.NFC.String(g)
		s.groups = append(s.groups, g)
		s.groups = append(s.groups, p.partOf[g]...)
	}
	slices.Sort(s.groups)
	s.groups = slices.Compact(s.groups)
	if len(s.groups) > fewGroups {
		s.among = make(map[string]struct{}, len(s.groups))
		for _, g := range s.groups {
			s.among[g] = struct{}{}
		}
	}
	return s
}

func (s *subject) member(group string) bool {
	if s.among != nil {
		_, ok := s.among[group]
		return ok
	}
	return slices.Contains(s.groups, group)
}

// place is a segment of a name, and what the names of groups to look for in it begin with.
type place struct{ prefix, segment string }

// span is a part of a segment.
type span struct{ from, to int }

// groupsIn finds the subject's groups whose names begin with prefix, without it, in a segment of a name.
func (s *subject) groupsIn(prefix, segment string) []span {
	if found, ok := s.spans[place{prefix, segment}]; ok {
		return found
	}
	found := []span{}
	for _, g := range s.groups {
		text, ok := strings.CutPrefix(g, prefix)
		if !ok || text == "" {
			continue
		}
		for from := 0; ; from++ {
			at := strings.Index(segment[from:], text)
			if at < 0 {
				break
			}
			from += at
			found = append(found, span{from, from + len(text)})
		}
	}
	if s.spans == nil {
		s.spans = map[place][]span{}
	}
	s.spans[place{prefix, segment}] = found
	return found
}

// text is what a literal, {user} or {claims.NAME} stands for; "" when the subject has no such thing.
func (s *subject) text(t token) string {
	switch t.kind {
	case literal:
		return t.text
	case user:
		return s.Name
	case claim:
		value, _ := s.Claims[t.text].(string)
		return value
	}
	return ""
}

// matcher is one entry of a rule's subjects.
type matcher struct {
	kind string // anyone, anonymous, authenticated, user, group or robot
	glob glob
}

const subjectForms = "anyone, anonymous, authenticated, user:GLOB, group:GLOB or robot:GLOB"

func parseSubject(s string) (matcher, error) {
	switch s {
	case "anyone", "anonymous", "authenticated":
		return matcher{kind: s}, nil
	}
	kind, text, ok := strings.Cut(s, ":")
	if !ok || kind != "user" && kind != "group" && kind != "robot" {
		return matcher{}, fmt.Errorf("%q is no subject; would be right: %s", s, subjectForms)
	}
	plain := text
	if kind == "group" { // the groups of some directories hold colons; names of users and robots cannot
		plain = strings.ReplaceAll(text, ":", "x")
	}
	if err := checkGlob(plain); err != nil {
		return matcher{}, fmt.Errorf("%q: %w", s, err)
	}
	g := glob{strings.Split(norm.NFC.String(text), "*")}
	return matcher{kind, g}, nil
}

// match: the anonymous principal is matched by anyone and anonymous and by nothing else, whatever the pattern.
func (m matcher) match(who *subject) bool {
	switch m.kind {
	case "anyone":
		return true
	case "anonymous":
		return who.Kind == users.KindAnonymous
	}
	if who.Kind == users.KindAnonymous {
		return false
	}
	switch m.kind {
	case "authenticated":
		return true
	case "user":
		return who.Kind == users.KindUser && m.glob.match(who.Name)
	case "robot":
		return who.Kind == users.KindRobot && m.glob.match(who.Name)
	case "group":
		if len(m.glob.parts) == 1 {
			return who.member(m.glob.parts[0])
		}
		return slices.ContainsFunc(who.groups, m.glob.match)
	}
	return false
}

// glob is a name in which each * stands for one or more characters. parts are what stands between the stars.
type glob struct{ parts []string }

func checkGlob(s string) error {
	switch {
	case s == "":
		return errors.New("the name is missing")
	case strings.Contains(s, "**"):
		return errors.New("** is for repositories; in a name * stands for one or more characters")
	}
	_, err := users.ParseName(strings.ReplaceAll(s, "*", "x"))
	return err
}

func (g glob) match(s string) bool {
	first, rest := g.parts[0], g.parts[1:]
	if len(rest) == 0 {
		return s == first
	}
	s, ok := strings.CutPrefix(s, first)
	if !ok {
		return false
	}
	last := rest[len(rest)-1]
	for _, part := range rest[:len(rest)-1] { // the leftmost place is as good as any for what follows
		if s == "" {
			return false
		}
		at := strings.Index(s[1:], part) // at least one character for the star
		if at < 0 {
			return false
		}
		s = s[1+at+len(part):]
	}
	return len(s) > len(last) && strings.HasSuffix(s, last)
}
