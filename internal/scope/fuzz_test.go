package scope_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"authserver/internal/scope"
)

// The grammar once more, as one expression: TYPE[(CLASS)]:NAME:ACTIONS.
var grammar = func() *regexp.Regexp {
	const word, component, action = `[a-z0-9]+(?:-[a-z0-9]+)*`, `[A-Za-z0-9]+(?:(?:\.|_|__|-+)[A-Za-z0-9]+)*`, `(?:\*|[a-z]+)?`
	const name = `(?:` + component + `|` + component + `(?::[0-9]+)?/(?:` + component + `/)*(?:` + component + `|\*))?`
	return regexp.MustCompile(`\A(` + word + `)(?:\(` + word + `\))?:(` + name + `):(` + action + `(?:,` + action + `)*)\z`)
}()

// reference reads scopes by the expression. bound tells whether the request breaks a bound.
func reference(values []string) (asked map[string][]string, dropped int, bound bool) {
	asked = map[string][]string{}
	for _, text := range strings.Split(strings.Join(values, " "), " ") {
		if first, last := strings.IndexByte(text, ':'), strings.LastIndexByte(text, ':'); last-first-1 > scope.MaxNameLength {
			bound = true
		}
		m := grammar.FindStringSubmatch(text)
		if m == nil {
			if text != "" {
				dropped++
			}
			continue
		}
		resource := m[1] + ":" + m[2]
		actions := append(asked[resource], strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' })...)
		slices.Sort(actions)
		asked[resource] = slices.Compact(actions)
		bound = bound || len(asked[resource]) > scope.MaxActions
	}
	return asked, dropped, bound || len(asked) > scope.MaxResources || len(strings.Join(values, " ")) > scope.MaxLength
}

// FuzzParseMany holds the parser against the grammar, over repeated parameters (a line each), and sets against each other.
func FuzzParseMany(f *testing.F) {
	for _, seed := range []string{
		"repository:alice/img:push,pull\nrepository:alice/base:pull", "repository(plugin):alice/plug:pull repository:alice/plug:pull", "registry:catalog:*", "repository::pull",
		"repository:a:pull\nrepository:a:push,pull\n\n", "repository:h:5000/a/*:pull", "repository:h:5000:pull", "repository:*:pull", "a:b:c:d", "::", "repository:a:,,", "artifact-repository:x/y__z:pull",
		"repository:a---b:pull repository:a_-b:pull repository:a.:pull", "repository(x)(y):a:pull repository():a:pull", "repository:A/b:Pull", "repository:a:pull\trepository:b:pull",
		strings.Repeat("repository:a:pull\n", 456), strings.Repeat("a:b:c ", 1366), "repository:" + strings.Repeat("a", 256) + ":pull", "a:" + strings.Repeat(":", 256) + "b",
		"repository:a:" + strings.Join(strings.Split("abcdefghijklmnopqrstuvwxyz", ""), ",") + ",aa,ab,ac,ad,ae,af,ag",
		many(99, 82), // fits without the spaces between
	} {
		f.Add(seed, "repository:a:pull,push repository:alice/img:*")
	}
	f.Fuzz(func(t *testing.T, text, other string) {
		values := strings.Split(text, "\n")
		got, dropped, err := scope.Parse(values)
		want, drops, bound := reference(values)
		if (err != nil) != bound || err != nil && (got != nil || dropped != nil) {
			t.Fatalf("%q: %q, %v; a bound is broken: %t", values, got, err, bound)
		}
		if err != nil {
			return
		}
		if len(dropped) != drops || len(got) != len(want) {
			t.Fatalf("%q: %q, dropped %q; want %v and %d dropped", values, got, dropped, want, drops)
		}
		var resources []string
		for _, a := range got {
			resources = append(resources, a.Type+"\n"+a.Name)
			if actions, ok := want[a.Type+":"+a.Name]; !ok || !slices.Equal(a.Actions, actions) {
				t.Fatalf("%q: %q, want %v", values, got, slices.Sorted(maps.Keys(want)))
			}
		}
		if !slices.IsSorted(resources) {
			t.Fatalf("%q: %q is not in order", values, got)
		}
		// The canonical text of what was in bounds is in bounds, and means the same; so does the one text instead of the many.
		for _, one := range []string{got.String(), strings.Join(values, " ")} {
			if again, _, err := scope.Parse([]string{one}); err != nil || again.String() != got.String() {
				t.Fatalf("%q: %q, read again %q, %v", values, got, again, err)
			}
		}
		second, _, err := scope.Parse([]string{other})
		if err != nil {
			return
		}
		common := got.Intersect(second)
		if !common.Within(got) || !common.Within(second) || common.String() != second.Intersect(got).String() || got.Within(second) != (len(want) == 0 || within(want, second)) {
			t.Fatalf("%q and %q: %q", got, second, common)
		}
	})
}

// many makes n scopes for different resources, each of so many bytes, a line each.
func many(n, length int) string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf("repository:%0*d:pull", length-16, i)
	}
	return strings.Join(lines, "\n")
}

// within is Within over the map of the reference.
func within(asked map[string][]string, limit scope.Set) bool {
	for resource, actions := range asked {
		typ, name, _ := strings.Cut(resource, ":")
		allowed := limit.Find(typ, name)
		for _, action := range actions {
			if !slices.Contains(allowed, action) && !slices.Contains(allowed, scope.All) {
				return false
			}
		}
	}
	return true
}
