package acl

import (
	"errors"
	"fmt"
	"strings"

	"authserver/internal/scope"
)

// pattern is a resource name with wildcards and placeholders. It is parsed before any placeholder is known, and what
// replaces a placeholder is compared as text: a user called "*" or "a/b" is no wildcard and no path.
type pattern struct {
	segments []segment
	groups   int // how many {group} it holds
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
	text string // the literal, or the claim's name
}

// parsePattern reads a pattern, or says what is wrong with it and what would be right.
func parsePattern(s string) (pattern, error) {
	if s == "" {
		return pattern{}, errors.New(`empty; would be right: "team/**", or "**" for every name`)
	}
	var p pattern
	for text := range strings.SplitSeq(s, "/") {
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
			if t.kind == group {
				p.groups++
			}
		}
		p.segments = append(p.segments, seg)
	}
	return p, nil
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
			switch {
			case name == "user":
				seg.tokens = append(seg.tokens, token{kind: user})
			case name == "group":
				seg.tokens = append(seg.tokens, token{kind: group})
			case isClaim && claimName != "":
				seg.tokens = append(seg.tokens, token{claim, claimName})
			default:
				return segment{}, fmt.Errorf("has the unknown placeholder {%s}; would be right: {user}, {group} or {claims.NAME}", name)
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

// match tells whether the whole name matches for the subject.
func (p pattern) match(name string, who *subject) bool {
	if name == "" { // one or more segments: an empty name has none
		return false
	}
	if p.groups < 2 {
		return p.matchBound(name, who, "")
	}
	// {group} more than once means the same group each time. Only groups that the name holds can be meant.
	for g := range who.groups {
		if g != "" && strings.Contains(name, g) && p.matchBound(name, who, g) {
			return true
		}
	}
	return false
}

// matchBound walks the pattern's segments with the set of places in the name that they can have come to, so its cost
// is the product of the two lengths, whatever the number of wildcards. bound is what {group} stands for, or "" for any.
func (p pattern) matchBound(name string, who *subject, bound string) bool {
	var buffer [16]string
	parts := buffer[:0]
	for part := range strings.SplitSeq(name, "/") {
		parts = append(parts, part)
	}
	if len(p.segments) > len(parts) {
		return false
	}
	var bits [17]bool
	at := bits[:]
	if len(parts) >= len(bits) {
		at = make([]bool, len(parts)+1)
	}
	at = at[:len(parts)+1]
	at[0] = true
	for _, seg := range p.segments {
		alive := false
		if seg.anyDepth {
			// From the first place on, one or more whole segments.
			reached := false
			for i := range at {
				at[i], reached = reached, reached || at[i]
				alive = alive || at[i]
			}
		} else {
			for i := len(parts) - 1; i >= 0; i-- {
				at[i+1] = at[i] && seg.match(parts[i], who, bound)
				alive = alive || at[i+1]
			}
			at[0] = false
		}
		if !alive {
			return false
		}
	}
	return at[len(parts)]
}

// match tells whether one segment of a name matches. A literal "*" there is GitLab's "everything below": no single
// segment may cover it, only "**" does.
func (seg segment) match(s string, who *subject, bound string) bool {
	if s == scope.All || s == "" {
		return false
	}
	if len(seg.tokens) == 1 {
		switch t := seg.tokens[0]; t.kind {
		case literal:
			return s == t.text
		case star:
			return true
		}
	}
	// The same walk as over segments, over bytes. Names have at most scope.MaxNameLength of them.
	var at [scope.MaxNameLength + 1]bool
	if len(s) >= len(at) {
		return false
	}
	at[0] = true
	for _, t := range seg.tokens {
		var next [scope.MaxNameLength + 1]bool
		alive := false
		for i := range len(s) {
			if !at[i] {
				continue
			}
			switch t.kind {
			case star:
				for j := i + 1; j <= len(s); j++ {
					next[j], alive = true, true
				}
			case group:
				if bound != "" {
					if strings.HasPrefix(s[i:], bound) {
						next[i+len(bound)], alive = true, true
					}
					continue
				}
				for j := i + 1; j <= len(s); j++ {
					if _, member := who.groups[s[i:j]]; member {
						next[j], alive = true, true
					}
				}
			default:
				text := who.text(t)
				if text != "" && strings.HasPrefix(s[i:], text) {
					next[i+len(text)], alive = true, true
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
