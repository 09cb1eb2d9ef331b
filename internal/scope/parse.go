package scope

import (
	"fmt"
	"strings"
)

// Hard bounds on one request. Past them the request is refused as a whole (400): no client is near them, and each
// resource costs a policy decision and room in a token that has to fit the 8 kB header lines of common proxies.
const (
	MaxLength     = 8 << 10 // bytes of all scope parameters, joined by spaces
	MaxResources  = 100     // different resources in one request
	MaxActions    = 32      // different actions on one resource
	MaxNameLength = 255     // bytes of a resource name; distribution reference.NameTotalLengthMax
)

// BoundError says which bound a request broke.
type BoundError struct {
	What  string // what is bounded, in words
	Limit int
}

func (e *BoundError) Error() string {
	return fmt.Sprintf("too large a scope: at most %d %s", e.Limit, e.What)
}

// Parse reads the values of all scope parameters of one request. Each value is a space-separated list, so repeated
// parameters and joined ones are the same thing (scope.md, "multiple scopes"). Entries that are no resource scope are
// dropped and returned as they came: whatever they were meant to ask, they ask for nothing. Only a *BoundError is
// returned as an error, and then nothing else is.
func Parse(values []string) (asked Set, dropped []string, err error) {
	length := max(0, len(values)-1) // the spaces between them
	for _, v := range values {
		length += len(v)
	}
	if length > MaxLength {
		return nil, nil, &BoundError{"bytes of scope", MaxLength}
	}
	var entries Set
	for _, v := range values {
		for text := range strings.SplitSeq(v, " ") {
			if text == "" {
				continue
			}
			entry, ok := parseEntry(text)
			if len(entry.Name) > MaxNameLength {
				return nil, nil, &BoundError{"bytes in a resource name", MaxNameLength}
			}
			if !ok {
				dropped = append(dropped, text)
				continue
			}
			entries = append(entries, entry)
		}
	}
	asked = entries.merge()
	if len(asked) > MaxResources {
		return nil, nil, &BoundError{"resources", MaxResources}
	}
	for _, a := range asked {
		if len(a.Actions) > MaxActions {
			return nil, nil, &BoundError{"actions on a resource", MaxActions}
		}
	}
	return asked, dropped, nil
}

// parseEntry splits at the first and at the last colon, because the name between them may hold one of its own
// (host:port/repository, scope.md "resource name"). The name is set even when the entry is not good.
func parseEntry(text string) (Access, bool) {
	typ, rest, ok := strings.Cut(text, ":")
	if !ok {
		return Access{}, false
	}
	last := strings.LastIndexByte(rest, ':')
	if last < 0 {
		return Access{}, false
	}
	entry := Access{Name: rest[:last]}
	// The class is deprecated and has no meaning: repository(plugin) is decided and answered as repository.
	base, class, hasClass := strings.Cut(typ, "(")
	if hasClass && (!strings.HasSuffix(class, ")") || !ValidType(strings.TrimSuffix(class, ")"))) {
		return entry, false
	}
	if !ValidType(base) || !ValidName(entry.Name) {
		return entry, false
	}
	entry.Type = base
	entry.Actions = []string{}
	for action := range strings.SplitSeq(rest[last+1:], ",") {
		if action == "" { // the grammar allows an empty action; it asks for nothing
			continue
		}
		if !ValidAction(action) {
			return entry, false
		}
		entry.Actions = append(entry.Actions, action)
	}
	return entry, true
}

// ValidType tells whether s is a resource type: lower-case letters and digits, in groups joined by single hyphens
// (the grammar has no hyphen, ChartMuseum's artifact-repository does).
func ValidType(s string) bool {
	for group := range strings.SplitSeq(s, "-") {
		if group == "" || strings.IndexFunc(group, notLowerAlphanumeric) >= 0 {
			return false
		}
	}
	return true
}

// ValidAction tells whether s is All or a word of lower-case letters.
func ValidAction(s string) bool {
	return s == All || s != "" && strings.IndexFunc(s, func(r rune) bool { return r < 'a' || r > 'z' }) < 0
}

// ValidName tells whether s is a resource name: components joined by slashes, the first of which may be a host with a
// port, the last of which may be "*" (GitLab asks PATH/* for all below PATH). It may be empty: zot asks
// repository::pull for the catalog. Upper case is taken anywhere; names are compared byte by byte, so it widens nothing.
func ValidName(s string) bool {
	if s == "" {
		return true
	}
	first, rest, more := strings.Cut(s, "/")
	if host, port, hasPort := strings.Cut(first, ":"); hasPort {
		if !more || !validComponent(host) || port == "" || strings.IndexFunc(port, notDigit) >= 0 {
			return false
		}
	} else if !validComponent(first) {
		return false
	}
	for more {
		var component string
		component, rest, more = strings.Cut(rest, "/")
		if component == All && !more {
			return true
		}
		if !validComponent(component) {
			return false
		}
	}
	return true
}

// validComponent follows `alpha-numeric [separator alpha-numeric]*` with the separators ".", "_", "__" and any
// number of "-". So ".." can never be part of a name, nor can a leading or trailing separator.
func validComponent(s string) bool {
	if s == "" || !alphanumeric(s[0]) || !alphanumeric(s[len(s)-1]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case alphanumeric(c), alphanumeric(s[i-1]) && (c == '.' || c == '_' || c == '-'):
		case c == '-' && s[i-1] == '-':
		case c == '_' && s[i-1] == '_' && alphanumeric(s[i-2]): // i-2 exists: s[0] is alphanumeric
		default:
			return false
		}
	}
	return true
}

// ValidNameByte tells whether any resource name can hold c.
func ValidNameByte(c byte) bool {
	return alphanumeric(c) || strings.IndexByte("._-/:", c) >= 0
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func notDigit(r rune) bool { return r < '0' || r > '9' }

func notLowerAlphanumeric(r rune) bool { return notDigit(r) && (r < 'a' || r > 'z') }
