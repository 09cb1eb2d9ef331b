package acl

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"authserver/internal/scope"
)

// pattern is a resource name with wildcards and placeholders. It is parsed before any placeholder is known, and what
// replaces a placeholder is compared as text: a user called "*" or "a/b" is no wildcard and no path.
type pattern struct {
	segments       []segment
	groups         bool   // it holds {group} or {group:PREFIX*}
	repeated       *token // the one of these that stands in it more than once, which then means the same group each time
	prefix, suffix string // what every name that it covers begins and ends with
}

// segment is what stands between slashes. anyDepth is "**".
type segment struct {
	tokens   []token
	anyDepth bool
}

type tokenKind int

const (
	literal tokenKind = iota
	star              // one or more characters of the segment
	user
	group
	claim
)

type token struct {
	kind tokenKind
	text string // the literal, the claim's name, or what the group's name begins with before the part that is meant
}

// parsePattern reads a pattern, or says what is wrong with it and what would be right.
func parsePattern(s string) (pattern, error) {
	if s == "" {
		return pattern{}, errors.New(`empty; would be right: "team/**", or "**" for every name`)
	}
	first, last := strings.IndexAny(s, "*{"), strings.LastIndexAny(s, "*}")
	p := pattern{prefix: s, suffix: s[last+1:], segments: make([]segment, 0, 1+strings.Count(s, "/"))}
	if first >= 0 {
		p.prefix = s[:first]
	}
	seen := map[token]bool{}
	for text := range segmentsOf(s) {
		switch {
		case text == "":
			return pattern{}, fmt.Errorf("%q has an empty segment; names neither begin nor end with a slash (regular expressions are not read)", s)
		case text == "**":
			p.segments = append(p.segments, segment{anyDepth: true})
			continue
		}
		seg, err := parseSegment(text)
		if err != nil {
			return pattern{}, fmt.Errorf("%q %w", s, err)
		}
		for _, t := range seg.tokens {
			if t.kind != group {
				continue
			}
			if seen[t] && p.repeated != nil && *p.repeated != t {
				return pattern{}, fmt.Errorf("%q repeats two placeholders for groups; repeat one at most", s)
			}
			if seen[t] {
				p.repeated = &t
			}
			p.groups, seen[t] = true, true
		}
		p.segments = append(p.segments, seg)
	}
	if !scope.ValidName(p.example("x")) && !scope.ValidName(p.example("1")) { // "1" where a port stands
		return pattern{}, fmt.Errorf("%q can match no name: components begin and end with a letter or a digit, with single separators between", s)
	}
	return p, nil
}

// segmentsOf yields what stands between slashes outside of braces.
func segmentsOf(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		start, within := 0, false
		for i := range len(s) {
			switch s[i] {
			case '{', '}':
				within = s[i] == '{'
			case '/':
				if !within {
					if !yield(s[start:i]) {
						return
					}
					start = i + 1
				}
			}
		}
		yield(s[start:])
	}
}

// example is a name that the pattern covers, if filler may stand where it has wildcards and placeholders.
func (p pattern) example(filler string) string {
	texts := make([]string, len(p.segments))
	for i, seg := range p.segments {
		for _, t := range seg.tokens {
			if t.kind == literal {
				texts[i] += t.text
			} else {
				texts[i] += filler
			}
		}
		if seg.anyDepth {
			texts[i] = filler
		}
	}
	return strings.Join(texts, "/")
}

func parseSegment(text string) (segment, error) {
	var seg segment
	for text != "" {
		switch c := text[0]; {
		case strings.HasPrefix(text, "**"):
			return segment{}, errors.New("has ** beside other characters; ** stands alone between slashes, * is part of one segment")
		case c == '*':
			seg.tokens = append(seg.tokens, token{kind: star})
			text = text[1:]
		case c == '{':
			name, rest, ok := strings.Cut(text[1:], "}")
			if !ok {
				return segment{}, errors.New("has a { without }")
			}
			claimName, isClaim := strings.CutPrefix(name, "claims.")
			groupPrefix, isGroup := strings.CutPrefix(name, "group:")
			groupPrefix, open := strings.CutSuffix(groupPrefix, "*")
			switch {
			case name == "user":
				seg.tokens = append(seg.tokens, token{kind: user})
			case name == "group":
				seg.tokens = append(seg.tokens, token{kind: group})
			case isGroup && open && checkGroup(groupPrefix+"x") == nil:
				seg.tokens = append(seg.tokens, token{group, norm.NFC.String(groupPrefix)})
			case isClaim && claimName != "":
				seg.tokens = append(seg.tokens, token{claim, claimName})
			default:
				return segment{}, fmt.Errorf("has the unknown placeholder {%s}; would be right: {user}, {group}, {group:PREFIX*} or {claims.NAME}", name)
			}
			text = rest
		case scope.ValidNameByte(c):
			end := 1
			for end < len(text) && scope.ValidNameByte(text[end]) {
				end++
			}
			seg.tokens = append(seg.tokens, token{literal, text[:end]})
			text = text[end:]
		default:
			r := []rune(text)[0]
			return segment{}, fmt.Errorf("has the character %q, which no resource name can hold; the wildcards are * and **", r)
		}
	}
	return seg, nil
}

// personal tells whether the pattern holds a placeholder.
func (p pattern) personal() bool {
	return slices.ContainsFunc(p.segments, func(seg segment) bool {
		return slices.ContainsFunc(seg.tokens, func(t token) bool { return t.kind == user || t.kind == group || t.kind == claim })
	})
}

// covers tells whether the whole name matches for the subject. GitLab's name PATH/*, everything below PATH, is covered by
// what covers all of it: only "**" does.
func (p pattern) covers(name string, who *subject) bool {
	// Most patterns are done with here. An empty name has no segments, so even "**" does not cover it.
	if name == "" || !strings.HasPrefix(name, p.prefix) || !strings.HasSuffix(name, p.suffix) {
		return false
	}
	return p.bind(name, who, p.walk)
}

// meets tells whether the pattern matches the name or, for PATH/*, anything below PATH: what a deny rule has to stop.
func (p pattern) meets(name string, who *subject) bool {
	if path, below := strings.CutSuffix(name, "/"+scope.All); below {
		return p.bind(path, who, p.walkBelow)
	}
	return p.covers(name, who)
}

// bound is a placeholder and the text that it stands for in one walk.
type bound struct {
	placeholder token
	text        string
}

// bind calls walk for each group that a repeated placeholder can stand for, or once when none is repeated.
func (p pattern) bind(name string, who *subject, walk func(name string, who *subject, b bound) bool) bool {
	if p.repeated == nil {
		return walk(name, who, bound{})
	}
	for _, g := range who.groups {
		if text, ok := strings.CutPrefix(g, p.repeated.text); ok && text != "" && walk(name, who, bound{*p.repeated, text}) {
			return true
		}
	}
	return false
}

// places is room for the segments of a usual name, so that matching one allocates nothing.
type places struct {
	parts [12]string
	at    [13]bool
}

// split returns the segments of a name, and the set of places between them, in which only the first is.
func (r *places) split(name string) (parts []string, at []bool) {
	parts = r.parts[:0]
	for part := range strings.SplitSeq(name, "/") {
		parts = append(parts, part)
	}
	at = r.at[:]
	if len(parts) >= len(at) {
		at = make([]bool, len(parts)+1)
	}
	at = at[:len(parts)+1]
	at[0] = true
	return parts, at
}

// walk follows the pattern's segments with the set of places in the name that they can have come to, so its cost is the
// product of the two lengths, whatever the number of wildcards.
func (p pattern) walk(name string, who *subject, b bound) bool {
	var room places
	parts, at := room.split(name)
	if len(p.segments) > len(parts) {
		return false
	}
	for _, seg := range p.segments {
		if !seg.step(at, parts, who, b) {
			return false
		}
	}
	return at[len(parts)]
}

// walkBelow tells whether the pattern can match a name that begins with the segments of path and goes on: when some of
// it is left after path, or when its "**" reaches beyond.
func (p pattern) walkBelow(path string, who *subject, b bound) bool {
	var room places
	parts, at := room.split(path)
	for _, seg := range p.segments {
		if seg.anyDepth || at[len(parts)] {
			return true
		}
		if !seg.step(at, parts, who, b) {
			return false
		}
	}
	return false
}

// step moves the set of places over one segment of the pattern, and tells whether any is left.
func (seg segment) step(at []bool, parts []string, who *subject, b bound) bool {
	alive := false
	if seg.anyDepth { // from the first place on, one or more whole segments
		reached := false
		for i := range at {
			at[i], reached = reached, reached || at[i]
			alive = alive || at[i]
		}
		return alive
	}
	for i := len(parts) - 1; i >= 0; i-- {
		at[i+1] = at[i] && seg.match(parts[i], who, b)
		alive = alive || at[i+1]
	}
	at[0] = false
	return alive
}

// match tells whether one segment of a name matches. "*" there is GitLab's: no single segment may cover it.
func (seg segment) match(s string, who *subject, b bound) bool {
	first, last := seg.tokens[0], seg.tokens[len(seg.tokens)-1]
	switch {
	case s == scope.All || s == "" || len(s) > scope.MaxNameLength:
		return false
	case len(seg.tokens) == 1 && first.kind == literal:
		return s == first.text
	case len(seg.tokens) == 1 && first.kind == star:
		return true
	case first.kind == literal && !strings.HasPrefix(s, first.text), last.kind == literal && !strings.HasSuffix(s, last.text):
		return false
	}
	// The same walk as over segments, over bytes.
	var at [scope.MaxNameLength + 1]bool
	at[0] = true
	for _, t := range seg.tokens {
		var next [scope.MaxNameLength + 1]bool
		alive := false
		move := func(to int) { next[to], alive = true, true }
		switch {
		case t.kind == star:
			for i := range len(s) {
				if at[i] { // everything behind the first place
					for j := i + 1; j <= len(s); j++ {
						move(j)
					}
					break
				}
			}
		case t.kind == group && (b.text == "" || b.placeholder != t):
			for _, span := range who.groupsIn(t.text, s) {
				if at[span.from] {
					move(span.to)
				}
			}
		default:
			text := who.text(t)
			if t.kind == group {
				text = b.text
			}
			for i := range len(s) {
				if text != "" && at[i] && strings.HasPrefix(s[i:], text) {
					move(i + len(text))
				}
			}
		}
		if !alive {
			return false
		}
		at = next
	}
	return at[len(s)]
}
