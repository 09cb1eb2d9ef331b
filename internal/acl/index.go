package acl

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"authserver/internal/scope"
	"authserver/internal/users"
)

// index finds the rules that a resource and a subject can match, so that the others cost nothing however many there are.
// It leaves rules out and never decides: every rule that it returns is still matched as a whole.
//
// Rules lie at the place where the literal beginning of their pattern ends (team/** at team), in a tree of segments.
// Patterns that begin with a wildcard and end with a literal segment (**/base) lie under that; the rest at the root.
// In each place rules for named users, robots or groups lie in the order of these names.
type index map[string]*typeIndex // by resource type

type typeIndex struct {
	root  node
	tails map[string]*bucket // by last segment
}

type node struct {
	children map[string]*node
	rules    bucket
}

type bucket struct {
	named  []entry // sorted: most buckets hold one name, for which a map would take up ten times as much
	others []int32 // for subjects that are no exact names
}

// entry is a rule for the user, the robot or the group of an exact name.
type entry struct {
	kind, name string
	rule       int32
}

func (e entry) compare(kind, name string) int {
	return cmp.Or(strings.Compare(e.name, name), strings.Compare(e.kind, kind))
}

// mostNames bounds what a rule with many subjects and many resources takes up in the index.
const mostNames = 32

func newIndex(rules []rule) index {
	x := index{}
	for i := range rules {
		for _, res := range rules[i].resources {
			t := x[res.typ]
			if t == nil {
				t = &typeIndex{tails: map[string]*bucket{}}
				x[res.typ] = t
			}
			t.place(res.name).add(int32(i), rules[i].subjects)
		}
	}
	for _, t := range x {
		t.root.sort()
		for _, b := range t.tails {
			b.sort()
		}
	}
	return x
}

func (n *node) sort() {
	n.rules.sort()
	for _, child := range n.children {
		child.sort()
	}
}

func (b *bucket) sort() {
	slices.SortFunc(b.named, func(x, y entry) int { return x.compare(y.kind, y.name) })
}

// place is where a pattern lies.
func (t *typeIndex) place(p pattern) *bucket {
	n := &t.root
	for _, seg := range p.segments {
		if !seg.literal() {
			break
		}
		child := n.children[seg.tokens[0].text]
		if child == nil {
			if n.children == nil {
				n.children = map[string]*node{}
			}
			child = &node{}
			n.children[seg.tokens[0].text] = child
		}
		n = child
	}
	last := p.segments[len(p.segments)-1]
	if n != &t.root || !last.literal() {
		return &n.rules
	}
	tail := last.tokens[0].text
	if t.tails[tail] == nil {
		t.tails[tail] = &bucket{}
	}
	return t.tails[tail]
}

func (seg segment) literal() bool { return len(seg.tokens) == 1 && seg.tokens[0].kind == literal }

func (b *bucket) add(rule int32, subjects []matcher) {
	if len(subjects) > mostNames || !allOf(subjects, matcher.exact) {
		b.others = append(b.others, rule)
		return
	}
	for _, m := range subjects {
		b.named = append(b.named, entry{m.kind, m.glob.parts[0], rule})
	}
}

// exact tells whether m is one user, robot or group.
func (m matcher) exact() bool { return len(m.glob.parts) == 1 }

func allOf(subjects []matcher, holds func(matcher) bool) bool {
	return !slices.ContainsFunc(subjects, func(m matcher) bool { return !holds(m) })
}

// find appends the numbers of the rules that can match, in the order of the policy, each once.
func (x index) find(found []int32, who *subject, typ, name string) []int32 {
	t := x[typ]
	if t == nil {
		return found
	}
	path, below := strings.CutSuffix(name, "/"+scope.All)
	n, last := &t.root, ""
	found = n.rules.collect(found, who)
	for rest, more := path, true; more && n != nil; {
		last, rest, more = strings.Cut(rest, "/")
		if n = n.children[last]; n != nil {
			found = n.rules.collect(found, who)
		}
		if !more {
			break
		}
	}
	switch {
	case below: // deny rules for anything below the path count too
		if n != nil {
			for _, child := range n.children {
				found = child.collectAll(found, who)
			}
		}
		for _, b := range t.tails {
			found = b.collect(found, who)
		}
	default:
		if b := t.tails[path[strings.LastIndexByte(path, '/')+1:]]; b != nil {
			found = b.collect(found, who)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func (n *node) collectAll(found []int32, who *subject) []int32 {
	found = n.rules.collect(found, who)
	for _, child := range n.children {
		found = child.collectAll(found, who)
	}
	return found
}

func (b *bucket) collect(found []int32, who *subject) []int32 {
	found = append(found, b.others...)
	switch who.Kind {
	case users.KindAnonymous:
		return found
	case users.KindUser:
		found = b.collectNamed(found, "user", who.Name)
	case users.KindRobot:
		found = b.collectNamed(found, "robot", who.Name)
	}
	if len(b.named) < len(who.groups) {
		for _, e := range b.named {
			if e.kind == "group" && who.member(e.name) {
				found = append(found, e.rule)
			}
		}
		return found
	}
	for _, g := range who.groups {
		found = b.collectNamed(found, "group", g)
	}
	return found
}

func (b *bucket) collectNamed(found []int32, kind, name string) []int32 {
	first, _ := slices.BinarySearchFunc(b.named, name, func(e entry, name string) int { return e.compare(kind, name) })
	for _, e := range b.named[first:] {
		if e.compare(kind, name) != 0 {
			break
		}
		found = append(found, e.rule)
	}
	return found
}

// along returns the places on the way to where a pattern lies, and what lies at the end of its literal beginning.
func (t *typeIndex) along(p pattern) (places []*bucket, end *node) {
	n := &t.root
	places = append(places, &n.rules)
	for _, seg := range p.segments {
		if !seg.literal() {
			break
		}
		if n = n.children[seg.tokens[0].text]; n == nil {
			return places, nil
		}
		places = append(places, &n.rules)
	}
	return places, n
}

// containing appends, as find does, the rules that can contain a resource and a subject of another one. Where a pattern is
// literal, those that it contains are the same: it lies on the way to them, or under their last segment.
func (x index) containing(found []int32, res resource, m matcher) []int32 {
	t := x[res.typ]
	places, _ := t.along(res.name)
	if last := res.name.segments[len(res.name.segments)-1]; last.literal() && t.tails[last.tokens[0].text] != nil {
		places = append(places, t.tails[last.tokens[0].text])
	}
	for _, b := range places {
		found = append(found, b.others...)
		if m.exact() { // nobody else's exact name contains it
			found = b.collectNamed(found, m.kind, m.glob.parts[0])
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// meeting are the rules with a pattern that can meet a resource's, some more than once: those on the way to it, those
// below the end of its literal beginning, and those that begin with a wildcard.
func (x index) meeting(res resource) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		t := x[res.typ]
		places, end := t.along(res.name)
		for _, b := range places {
			if !b.all(yield) {
				return
			}
		}
		if end != nil && !end.allBelow(yield) {
			return
		}
		for _, b := range t.tails {
			if !b.all(yield) {
				return
			}
		}
	}
}

func (n *node) allBelow(yield func(int32) bool) bool {
	for _, child := range n.children {
		if !child.rules.all(yield) || !child.allBelow(yield) {
			return false
		}
	}
	return true
}

func (b *bucket) all(yield func(int32) bool) bool {
	for _, rule := range b.others {
		if !yield(rule) {
			return false
		}
	}
	for _, e := range b.named {
		if !yield(e.rule) {
			return false
		}
	}
	return true
}
