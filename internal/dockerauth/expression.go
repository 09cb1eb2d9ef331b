package dockerauth

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// item is one part of what a pattern matches.
type item struct {
	kind itemKind
	text string // literal: the text; class: the regular expression; variable: its name between ${ and }
}

type itemKind int

const (
	literal  itemKind = iota
	star              // any characters but a slash, none too
	plus              // one or more characters but a slash
	wild              // any characters, none too
	wildPlus          // one or more characters
	class             // one character of some, as a regular expression
	variable          // ${…}
)

// variables that stand for a text of the request, and the condition's name of that text.
var variables = map[string]string{
	"account": "user.name", "type": "resource.type", "name": "resource.name", "service": "request.service",
}

var capturing = regexp.MustCompile(`^(account|type|name|service):([0-9]{1,3})$`)

// split separates text from the variables that docker_auth replaces; what else looks like one is text.
func split(text string, replaces func(name string) bool) []item {
	var items []item
	add := func(kind itemKind, s string) {
		if n := len(items); kind == literal && n > 0 && items[n-1].kind == literal {
			items[n-1].text += s
		} else if s != "" {
			items = append(items, item{kind, s})
		}
	}
	for text != "" {
		before, rest, found := strings.Cut(text, "${")
		add(literal, before)
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if closed && replaces(name) {
			add(variable, name)
			text = after
			continue
		}
		add(literal, "${")
		text = rest
	}
	return items
}

// globItems reads a glob as path.Match does. It is not ok where path.Match finds it malformed, and so never matches.
func globItems(parts []item) (items []item, ok bool) {
	add := func(kind itemKind, s string) {
		n := len(items) - 1
		switch {
		case kind == literal && n >= 0 && items[n].kind == literal:
			items[n].text += s
		case kind == star && n >= 0 && (items[n].kind == star || items[n].kind == plus): // the same as one
		case kind == star && n >= 0 && items[n] == item{class, anyOne}, kind == class && s == anyOne && n >= 0 && items[n].kind == star:
			items[n] = item{kind: plus}
		default:
			items = append(items, item{kind, s})
		}
	}
	for _, part := range parts {
		if part.kind == variable {
			items = append(items, part)
			continue
		}
		for s := part.text; s != ""; {
			r, size := utf8.DecodeRuneInString(s)
			switch r {
			case '*':
				add(star, "")
			case '?':
				add(class, anyOne)
			case '[':
				text, length, ok := globClass(s)
				if !ok {
					return nil, false
				}
				add(class, text)
				size = length
			case '\\':
				_, next := utf8.DecodeRuneInString(s[1:])
				if next == 0 {
					return nil, false
				}
				add(literal, s[1:1+next])
				size = 1 + next
			default:
				add(literal, s[:size])
			}
			s = s[size:]
		}
	}
	return items, true
}

// anyOne is the ? of a glob.
const anyOne = "[^/]"

// globClass reads a [class] at the beginning of s into the same class of a regular expression.
func globClass(s string) (expression string, length int, ok bool) {
	rest := s[1:]
	negated := strings.HasPrefix(rest, "^")
	rest = strings.TrimPrefix(rest, "^")
	char := func() (rune, bool) {
		if rest == "" || rest[0] == '-' || rest[0] == ']' {
			return 0, false
		}
		if rest[0] == '\\' {
			if rest = rest[1:]; rest == "" {
				return 0, false
			}
		}
		r, size := utf8.DecodeRuneInString(rest)
		rest = rest[size:]
		return r, rest != "" // the class must end
	}
	var ranges strings.Builder
	for n := 0; n == 0 || !strings.HasPrefix(rest, "]"); n++ {
		low, ok := char()
		if !ok {
			return "", 0, false
		}
		high := low
		if strings.HasPrefix(rest, "-") {
			rest = rest[1:]
			if high, ok = char(); !ok {
				return "", 0, false
			}
		}
		if low <= high { // an empty range matches nothing
			fmt.Fprintf(&ranges, `\x{%x}-\x{%x}`, low, high)
		}
	}
	length = len(s) - len(rest) + 1
	switch {
	case ranges.Len() > 0 && negated:
		return "[^" + ranges.String() + "]", length, true
	case ranges.Len() > 0:
		return "[" + ranges.String() + "]", length, true
	case negated:
		return `(?s:.)`, length, true
	}
	return `[^\x00-\x{10FFFF}]`, length, true
}

// Variables in a regular expression are parsed as characters that nobody uses, so that the syntax shows where they stand:
// two for each, because what follows a variable (as + does) or encloses it (as [] does) is about the characters of its text.
const firstSentinel = '\uE000'

// parseRegex parses a regular expression in which variables are sentinels.
func parseRegex(parts []item) (tree *syntax.Regexp, names []string, err error) {
	var plain strings.Builder
	for _, part := range parts {
		if part.kind == variable {
			plain.WriteRune(firstSentinel + rune(2*len(names)))
			plain.WriteRune(firstSentinel + rune(2*len(names)+1))
			names = append(names, part.text)
			continue
		}
		plain.WriteString(part.text)
	}
	tree, err = syntax.Parse(plain.String(), syntax.Perl)
	return tree, names, err
}

// mostSequences bounds what a regular expression with alternatives is written out to.
const mostSequences = 16

// sequences writes a regular expression out as the alternatives that patterns can say, or is not ok. What is not
// anchored begins and ends with wild.
func sequences(tree *syntax.Regexp, names []string) (list [][]item, ok bool) {
	raw, ok := alternatives(tree, names)
	if !ok {
		return nil, false
	}
	for _, seq := range raw {
		begin, end := 0, len(seq)
		for begin < end && seq[begin].kind == beginText {
			begin++
		}
		for end > begin && seq[end-1].kind == endText {
			end--
		}
		middle := seq[begin:end]
		if slices.ContainsFunc(middle, func(i item) bool { return i.kind == beginText || i.kind == endText }) {
			return nil, false
		}
		var whole []item
		if begin == 0 {
			whole = append(whole, item{kind: wild})
		}
		whole = append(whole, middle...)
		if end == len(seq) {
			whole = append(whole, item{kind: wild})
		}
		list = append(list, joined(whole))
	}
	return list, true
}

// Kinds that only alternatives uses.
const (
	beginText itemKind = 100 + iota
	endText
)

func alternatives(tree *syntax.Regexp, names []string) ([][]item, bool) {
	one := func(i item) ([][]item, bool) { return [][]item{{i}}, true }
	switch tree.Op {
	case syntax.OpEmptyMatch:
		return [][]item{{}}, true
	case syntax.OpBeginText:
		return one(item{kind: beginText})
	case syntax.OpEndText: // without the flag for multiple lines $ is this too
		return one(item{kind: endText})
	case syntax.OpCapture:
		return alternatives(tree.Sub[0], names)
	case syntax.OpLiteral:
		if tree.Flags&syntax.FoldCase != 0 {
			return nil, false
		}
		var items []item
		for i := 0; i < len(tree.Rune); i++ {
			r := tree.Rune[i]
			if n := int(r - firstSentinel); n >= 0 && n < 2*len(names) {
				if n%2 == 1 || i+1 == len(tree.Rune) || tree.Rune[i+1] != r+1 {
					return nil, false
				}
				items = append(items, item{variable, names[n/2]})
				i++
			} else if last := len(items) - 1; last >= 0 && items[last].kind == literal {
				items[last].text += string(r)
			} else {
				items = append(items, item{literal, string(r)})
			}
		}
		return [][]item{items}, true
	case syntax.OpStar, syntax.OpPlus:
		kind := star
		switch sub := tree.Sub[0]; {
		case sub.Op == syntax.OpAnyChar || sub.Op == syntax.OpAnyCharNotNL:
			kind = wild
		case sub.Op == syntax.OpCharClass && slices.Equal(sub.Rune, []rune{0, '/' - 1, '/' + 1, unicode.MaxRune}):
		default:
			return nil, false
		}
		if tree.Op == syntax.OpPlus {
			kind++ // plus follows star, wildPlus follows wild
		}
		return one(item{kind: kind})
	case syntax.OpQuest:
		list, ok := alternatives(tree.Sub[0], names)
		return append(list, []item{}), ok
	case syntax.OpAlternate:
		var list [][]item
		for _, sub := range tree.Sub {
			below, ok := alternatives(sub, names)
			if list = append(list, below...); !ok || len(list) > mostSequences {
				return nil, false
			}
		}
		return list, true
	case syntax.OpConcat:
		list := [][]item{{}}
		for _, sub := range tree.Sub {
			below, ok := alternatives(sub, names)
			if !ok || len(list)*len(below) > mostSequences {
				return nil, false
			}
			var longer [][]item
			for _, head := range list {
				for _, tail := range below {
					longer = append(longer, slices.Concat(head, tail))
				}
			}
			list = longer
		}
		return list, true
	}
	return nil, false
}

// joined puts neighbours together: texts, and wildcards that say no more than one of them.
func joined(items []item) []item {
	var out []item
	for _, i := range items {
		n := len(out) - 1
		switch {
		case n >= 0 && i.kind == literal && out[n].kind == literal:
			out[n].text += i.text
		case n >= 0 && i.kind == wild && (out[n].kind == wild || out[n].kind == wildPlus):
		case n >= 0 && i.kind == wildPlus && out[n].kind == wild:
			out[n].kind = wildPlus
		case n >= 0 && i.kind == star && (out[n].kind == star || out[n].kind == plus):
		case n >= 0 && i.kind == plus && out[n].kind == star:
			out[n].kind = plus
		default:
			out = append(out, i)
		}
	}
	return out
}

// anchored tells whether every match of the expression reaches from the beginning to the end of the text.
func anchored(tree *syntax.Regexp) bool { return anchoredAt(tree, true) && anchoredAt(tree, false) }

func anchoredAt(tree *syntax.Regexp, begin bool) bool {
	switch tree.Op {
	case syntax.OpBeginText:
		return begin
	case syntax.OpEndText:
		return !begin
	case syntax.OpCapture:
		return anchoredAt(tree.Sub[0], begin)
	case syntax.OpConcat:
		if begin {
			return anchoredAt(tree.Sub[0], begin)
		}
		return anchoredAt(tree.Sub[len(tree.Sub)-1], begin)
	case syntax.OpAlternate:
		return !slices.ContainsFunc(tree.Sub, func(sub *syntax.Regexp) bool { return !anchoredAt(sub, begin) })
	case syntax.OpStar, syntax.OpPlus: // .* reaches to where it begins or ends
		return tree.Sub[0].Op == syntax.OpAnyChar || tree.Sub[0].Op == syntax.OpAnyCharNotNL
	}
	return false
}

// celString is a literal of a condition: raw when it holds backslashes, so that regular expressions stay readable.
func celString(s string) string {
	printable := !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
	switch {
	case printable && !strings.ContainsAny(s, `"\`):
		return `"` + s + `"`
	case printable && !strings.Contains(s, `"`):
		return `r"` + s + `"`
	case printable && !strings.Contains(s, `'`):
		return `r'` + s + `'`
	}
	return strconv.QuoteToASCII(s)
}

// celText joins texts and expressions of a condition to one expression.
type celText struct {
	terms  []string
	static strings.Builder
}

func (c *celText) text(s string) { c.static.WriteString(s) }

func (c *celText) flush() {
	if c.static.Len() > 0 {
		c.terms = append(c.terms, celString(c.static.String()))
		c.static.Reset()
	}
}

func (c *celText) value(expression string) {
	c.flush()
	c.terms = append(c.terms, expression)
}

func (c *celText) String() string {
	c.flush()
	if len(c.terms) == 0 {
		return `""`
	}
	return strings.Join(c.terms, " + ")
}
