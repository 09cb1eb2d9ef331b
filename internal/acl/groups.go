package acl

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"authserver/internal/document"
	"authserver/internal/users"
)

// membership gathers the groups of all files: who is in them, and which groups are part of which.
type membership struct {
	users  map[string][]string // user name -> groups that name it
	within map[string][]string // group -> groups that name it
	where  map[string]string   // group -> where it is first written
}

// read reads the groups of one file.
func (m *membership) read(d *document.Document, groups map[string][]string, fault func(path, format string, args ...any)) {
	for _, text := range slices.Sorted(maps.Keys(groups)) {
		path, name := document.Join("groups", text), norm.NFC.String(text)
		if err := checkGroup(name); err != nil {
			fault(path, "%q is no name of a group", name)
			continue
		}
		if m.where[name] == "" {
			m.where[name] = d.Where(path)
		}
		for i, text := range groups[text] {
			at := fmt.Sprintf("%s[%d]", path, i)
			if inner, ok := strings.CutPrefix(text, "group:"); ok {
				inner = norm.NFC.String(inner)
				if err := checkGroup(inner); err != nil {
					fault(at, "%q: %v", text, err)
					continue
				}
				m.within[inner] = append(m.within[inner], name)
				continue
			}
			member, err := users.ParseName(text)
			if err == nil && strings.ContainsAny(member, "*{}") {
				err = errors.New("a member is a user's name, without wildcards, or group:NAME")
			}
			if err != nil {
				fault(at, "%q: %v", text, err)
				continue
			}
			m.users[member] = append(m.users[member], name)
		}
	}
}

// checkGroup takes a group's name: as a user's, but groups of some directories hold colons.
func checkGroup(name string) error {
	if strings.ContainsAny(name, "*{}") {
		return errors.New("a group's name holds no wildcards")
	}
	_, err := users.ParseName(strings.ReplaceAll(name, ":", "x"))
	return err
}

// maxNesting bounds groups within groups. Nobody nests deeper on purpose, and the closure grows with its square.
const maxNesting = 32

// close follows groups within groups to their end. A circle is an error: in it everybody would be in every group, which
// nobody writes on purpose.
func (m *membership) close() (memberOf, partOf map[string][]string, err error) {
	partOf = map[string][]string{}
	var faults []error
	for inner := range m.within {
		slices.Sort(m.within[inner])
		m.within[inner] = slices.Compact(m.within[inner])
	}
	for _, start := range slices.Sorted(maps.Keys(m.within)) {
		tooDeep := false
		seen := map[string]bool{}
		var follow func(group string, path []string)
		follow = func(group string, path []string) {
			for _, outer := range m.within[group] {
				if outer == start {
					// Each circle is told once, from its first group in the order of names.
					if slices.Min(path) == start {
						faults = append(faults, &document.Fault{Where: m.where[start], Key: document.Join("groups", start),
							Problem: "a circle of groups: " + strings.Join(append(slices.Clone(path), start), " is part of ") + "; remove one of them from another"})
					}
					continue
				}
				if len(path) > maxNesting {
					if !tooDeep {
						faults = append(faults, &document.Fault{Where: m.where[outer], Key: document.Join("groups", outer),
							Problem: fmt.Sprintf("groups lie within each other more than %d deep, beginning at %s", maxNesting, start)})
					}
					tooDeep = true
					return
				}
				if !seen[outer] {
					seen[outer] = true
					partOf[start] = append(partOf[start], outer)
					follow(outer, append(path, outer))
				}
			}
		}
		follow(start, []string{start})
	}
	memberOf = map[string][]string{}
	for name, groups := range m.users {
		for _, g := range groups {
			memberOf[name] = append(memberOf[name], g)
			memberOf[name] = append(memberOf[name], partOf[g]...)
		}
		slices.Sort(memberOf[name])
		memberOf[name] = slices.Compact(memberOf[name])
	}
	return memberOf, partOf, errors.Join(faults...)
}
