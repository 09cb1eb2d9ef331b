package acl

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"authserver/internal/scope"
)

// limit is what a credential may do at most: the scopes of an access token, as patterns. It grants nothing by itself.
type limit []limitEntry

type limitEntry struct {
	resource
	actions []string
}

// LimitName stands among the rules that deny where a credential's own scopes do.
const LimitName = "scope of the credential"

// CheckLimit tells whether texts can be the scopes of a credential: scopes whose names are patterns, without
// placeholders, as in "repository:team/**:pull".
func CheckLimit(texts []string) error {
	_, err := parseLimit(texts)
	return err
}

func parseLimit(texts []string) (limit, error) {
	l := make(limit, 0, len(texts))
	for _, text := range texts {
		first, last := strings.IndexByte(text, ':'), strings.LastIndexByte(text, ':')
		if first < 0 || first == last {
			return nil, fmt.Errorf("%q is no scope; would be right: repository:team/**:pull,push", text)
		}
		typ, name, actions := text[:first], text[first+1:last], strings.Split(text[last+1:], ",")
		if !scope.ValidType(typ) {
			return nil, fmt.Errorf("%q: %q is no type; would be right: repository:team/**:pull,push", text, typ)
		}
		p, err := parsePattern(name)
		if err != nil {
			return nil, err
		}
		if strings.ContainsRune(name, '{') {
			return nil, errors.New("placeholders stand for nothing in the scope of a credential; name the repositories")
		}
		for _, a := range actions {
			if !scope.ValidAction(a) {
				return nil, fmt.Errorf("%q: %q is no action; would be right: pull, push, delete or \"*\"", text, a)
			}
		}
		l = append(l, limitEntry{resource{typ, p}, actions})
	}
	return l, nil
}

// allows tells whether an action is within the limit. All is only where the limit says All.
func (l limit) allows(typ, name, action string) bool {
	return slices.ContainsFunc(l, func(e limitEntry) bool {
		return e.typ == typ && (slices.Contains(e.actions, action) || slices.Contains(e.actions, scope.All)) && e.name.covers(name, &subject{})
	})
}
