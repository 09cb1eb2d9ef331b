package scope_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"authserver/internal/scope"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name    string
		values  []string
		want    string
		dropped int
	}{
		{"one", []string{"repository:team/app:pull"}, "repository:team/app:pull", 0},
		{"actions are sorted and stand once", []string{"repository:a:push,pull,push"}, "repository:a:pull,push", 0},
		{"repeated parameters", []string{"repository:b:pull", "repository:a:pull"}, "repository:a:pull repository:b:pull", 0},
		{"a joined list is the same as repeated parameters", []string{"repository:b:pull repository:a:pull"}, "repository:a:pull repository:b:pull", 0},
		{"entries of one resource are merged", []string{"repository:a:pull", "repository:a:push repository:a:pull"}, "repository:a:pull,push", 0},
		{"blanks", []string{"  repository:a:pull   ", "", " "}, "repository:a:pull", 0},
		{"host and port in the name", []string{"repository:reg.example.test:5000/foo/bar:pull"}, "repository:reg.example.test:5000/foo/bar:pull", 0},
		{"upper case in the host", []string{"repository:Host.Example/foo:pull"}, "repository:Host.Example/foo:pull", 0},
		{"a class is no part of the type", []string{"repository(plugin):x/y:pull"}, "repository:x/y:pull", 0},
		{"with and without a class is one resource", []string{"repository(plugin):x:pull repository:x:push"}, "repository:x:pull,push", 0},
		{"all actions", []string{"repository:a:*"}, "repository:a:*", 0},
		{"the catalog", []string{"registry:catalog:*"}, "registry:catalog:*", 0},
		{"zot's empty name", []string{"repository::pull"}, "repository::pull", 0},
		{"olareg's empty name", []string{"registry::pull"}, "registry::pull", 0},
		{"a hyphenated type", []string{"artifact-repository:org/repo:pull"}, "artifact-repository:org/repo:pull", 0},
		{"GitLab's everything below", []string{"repository:group/project/*:pull"}, "repository:group/project/*:pull", 0},
		{"GitLab's own resources", []string{"registry:background-migrations:* registry:statistics:*"}, "registry:background-migrations:* registry:statistics:*", 0},
		{"no action asks for nothing", []string{"repository:a:"}, "repository:a:", 0},
		{"empty actions between others", []string{"repository:a:,pull,,push,"}, "repository:a:pull,push", 0},
		{"separators of the grammar", []string{"repository:a.b/c_d/e__f/g---h:pull"}, "repository:a.b/c_d/e__f/g---h:pull", 0},

		{"no colon", []string{"repository"}, "", 1},
		{"one colon", []string{"repository:a"}, "", 1},
		{"no type", []string{":a:pull"}, "", 1},
		{"docker_auth read the type sitory here", []string{"!!REPOsitory:a:pull", "!!REPOsitory(plugin):a:pull"}, "", 2},
		{"upper case in the type", []string{"Repository:a:pull"}, "", 1},
		{"half a class", []string{"repository(plugin:a:pull", "repository(:a:pull", "repository():a:pull", "repository(a)b:a:pull"}, "", 4},
		{"hyphens at the ends of the type", []string{"-a:b:pull", "a-:b:pull", "a--c:b:pull"}, "", 3},
		{"upper case in an action", []string{"repository:a:Pull"}, "", 1},
		{"one bad action drops the entry, not only the action", []string{"repository:a:pull,push2"}, "", 1},
		{"a bad entry leaves the good one", []string{"repository:a:pull !!:x:y"}, "repository:a:pull", 1},
		{"paths that climb", []string{"repository:../a:pull", "repository:a/../b:pull", "repository:a/..:pull", "repository:a..b:pull"}, "", 4},
		{"empty components", []string{"repository:/a:pull", "repository:a//b:pull", "repository:a/:pull"}, "", 3},
		{"separators at the ends of a component", []string{"repository:-a:pull", "repository:a-:pull", "repository:a/.b:pull", "repository:a/b_:pull"}, "", 4},
		{"mixed separators", []string{"repository:a._b:pull", "repository:a___b:pull", "repository:a-_b:pull"}, "", 3},
		{"wildcards within a name", []string{"repository:*:pull", "repository:a/*/b:pull", "repository:a*:pull", "repository:**:pull"}, "", 4},
		{"a host alone is no name", []string{"repository:host:5000:pull"}, "", 1},
		{"a port that is none", []string{"repository:host:port/a:pull", "repository:host:/a:pull", "repository::5000/a:pull"}, "", 3},
		{"a port in a later component", []string{"repository:a/b:5/c:pull"}, "", 1},
		{"control characters", []string{"repository:a\nb:pull", "repository:a:pull\t", "repository:a\x00:pull"}, "", 3},
		{"beyond ASCII", []string{"repository:ä:pull"}, "", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, dropped, err := scope.Parse(test.values)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if len(dropped) != test.dropped {
				t.Errorf("dropped %q, want %d", dropped, test.dropped)
			}
		})
	}
}

func TestDroppedEntriesAreReturnedAsTheyCame(t *testing.T) {
	_, dropped, err := scope.Parse([]string{"x repository:a:pull y:z"})
	if err != nil || !slices.Equal(dropped, []string{"x", "y:z"}) {
		t.Fatalf("dropped %q, %v", dropped, err)
	}
}

func TestBoundsAreRefusedAsAWhole(t *testing.T) {
	many := func(n int, format string) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(parts, " ")
	}
	letters := func(n int) string { // n different actions
		var actions []string
		for i := range n {
			actions = append(actions, string([]byte{byte('a' + i/26), byte('a' + i%26)}))
		}
		return strings.Join(actions, ",")
	}
	tests := []struct {
		name   string
		values []string
		limit  int // 0 = fits
	}{
		{"the most resources", []string{many(scope.MaxResources, "repository:a%d:pull")}, 0},
		{"one resource more", []string{many(scope.MaxResources+1, "repository:a%d:pull")}, scope.MaxResources},
		{"one resource often is one", []string{strings.Repeat("repository:a:pull ", 200)}, 0},
		{"the longest name", []string{"repository:" + strings.Repeat("a", scope.MaxNameLength) + ":pull"}, 0},
		{"a byte more", []string{"repository:" + strings.Repeat("a", scope.MaxNameLength+1) + ":pull"}, scope.MaxNameLength},
		{"too long a name that is none", []string{"repository:" + strings.Repeat("!", scope.MaxNameLength+1) + ":pull"}, scope.MaxNameLength},
		{"the most actions", []string{"repository:a:" + letters(scope.MaxActions)}, 0},
		{"one action more", []string{"repository:a:" + letters(scope.MaxActions+1)}, scope.MaxActions},
		{"one action more, over two entries", []string{"repository:a:" + letters(scope.MaxActions), "repository:a:zz"}, scope.MaxActions},
		{"the most bytes", []string{strings.Repeat(" ", scope.MaxLength)}, 0},
		{"a byte more than the most, over two values", []string{strings.Repeat(" ", scope.MaxLength), " "}, scope.MaxLength},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, _, err := scope.Parse(test.values)
			var bound *scope.BoundError
			switch {
			case test.limit == 0 && err != nil:
				t.Fatal(err)
			case test.limit != 0 && (!errors.As(err, &bound) || bound.Limit != test.limit || got != nil):
				t.Fatalf("got %v, %v; want a bound of %d and nothing else", got, err, test.limit)
			case test.limit != 0 && !strings.Contains(err.Error(), fmt.Sprint(test.limit)):
				t.Errorf("%q does not name the bound", err)
			}
		})
	}
}

func set(t testing.TB, text string) scope.Set {
	t.Helper()
	s, dropped, err := scope.Parse([]string{text})
	if err != nil || len(dropped) > 0 {
		t.Fatalf("%q: %v, dropped %q", text, err, dropped)
	}
	return s
}

func TestIntersect(t *testing.T) {
	tests := []struct{ asked, other, want string }{
		{"repository:a:pull,push", "repository:a:pull", "repository:a:pull"},
		{"repository:a:pull", "repository:a:pull,push,delete", "repository:a:pull"},
		{"repository:a:pull", "repository:b:pull", ""},
		{"repository:a:pull", "registry:a:pull", ""},
		{"repository:a:*", "repository:a:pull,push", "repository:a:pull,push"},
		{"repository:a:pull", "repository:a:*", "repository:a:pull"},
		{"repository:a:*", "repository:a:*,pull", "repository:a:*,pull"},
		{"repository:a:pull repository:b:pull", "repository:b:pull,push repository:c:pull", "repository:b:pull"},
		{"repository:a:", "repository:a:*", ""},
		{"", "repository:a:*", ""},
		{"repository:a:pull", "", ""},
	}
	for _, test := range tests {
		if got := set(t, test.asked).Intersect(set(t, test.other)).String(); got != test.want {
			t.Errorf("%q ∩ %q = %q, want %q", test.asked, test.other, got, test.want)
		}
	}
}

func TestWithin(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"", "", true},
		{"", "repository:a:pull", true},
		{"repository:a:pull", "", false},
		{"repository:a:pull", "repository:a:pull,push", true},
		{"repository:a:pull,push", "repository:a:pull", false},
		{"repository:a:pull,push", "repository:a:*", true},
		{"repository:a:*", "repository:a:pull,push,delete", false}, // All is more than the actions of today
		{"repository:a:pull", "repository:b:pull", false},
		{"repository:a:", "", true},
	}
	for _, test := range tests {
		if got := set(t, test.a).Within(set(t, test.b)); got != test.want {
			t.Errorf("%q within %q is %v", test.a, test.b, got)
		}
	}
}

// random returns a set over a small world, so that sets meet.
func random(r *rand.Rand) scope.Set {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	var entries []scope.Access
	for range r.IntN(6) {
		e := scope.Access{Type: pick("repository", "registry"), Name: pick("a", "b", "a/b", "")}
		for range r.IntN(4) {
			e.Actions = append(e.Actions, pick("pull", "push", "delete", "*"))
		}
		entries = append(entries, e)
	}
	return scope.Canonical(entries...)
}

func TestIntersectionIsWithinBoth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	met := 0
	for range 20000 {
		a, b := random(r), random(r)
		common := a.Intersect(b)
		if !common.Within(a) || !common.Within(b) {
			t.Fatalf("%q ∩ %q = %q, which is not within both", a, b, common)
		}
		if other := b.Intersect(a); other.String() != common.String() {
			t.Fatalf("%q ∩ %q = %q, the other way %q", a, b, common, other)
		}
		if again := common.Intersect(a); again.String() != common.String() {
			t.Fatalf("%q ∩ %q = %q, once more %q", a, b, common, again)
		}
		if len(common) > 0 {
			met++
		}
	}
	if met < 1000 {
		t.Fatalf("only %d of the sets met; the test says nothing", met)
	}
}

func TestCanonicalKeepsItsArgument(t *testing.T) {
	actions := []string{"push", "pull"}
	got := scope.Canonical(scope.Access{Type: "repository", Name: "a", Actions: actions}, scope.Access{Type: "repository", Name: "a"})
	if actions[0] != "push" || got.String() != "repository:a:pull,push" {
		t.Fatalf("argument %q, result %q", actions, got)
	}
	if got := scope.Canonical(scope.Access{Type: "repository", Name: "a"}); got[0].Actions == nil {
		t.Fatal("actions are null")
	}
}

func TestVocabularyIsACopy(t *testing.T) {
	scope.Vocabulary(scope.Repository)[0] = "overwritten"
	if got := scope.Vocabulary(scope.Repository); !slices.Equal(got, []string{"delete", "pull", "push"}) {
		t.Fatalf("got %q", got)
	}
	if scope.Vocabulary("registry") != nil {
		t.Fatal("the registry type has no fixed actions")
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"repository:a:pull", "repository:a/b:pull,push repository(plugin):x:*", "registry:catalog:*", "repository::pull",
		"repository:h:5000/a/b:pull", "repository:a/*:pull", "!!REPOsitory(plugin):a:pull", "a:b", "::", "repository:a:,", "a-b:c__d:e",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, _, err := scope.Parse([]string{text})
		if err != nil {
			return
		}
		for _, a := range got {
			if !scope.ValidType(a.Type) || len(a.Name) > scope.MaxNameLength || a.Actions == nil || !slices.IsSorted(a.Actions) {
				t.Fatalf("%q: entry %+v", text, a)
			}
			for _, action := range a.Actions {
				if !scope.ValidAction(action) || !strings.Contains(text, action) {
					t.Fatalf("%q: action %q was not asked", text, action)
				}
			}
			if !strings.Contains(text, ":"+a.Name+":") {
				t.Fatalf("%q: name %q was not asked", text, a.Name)
			}
		}
		// The canonical form is a fixed point.
		again, dropped, err := scope.Parse([]string{got.String()})
		if err != nil || len(dropped) > 0 || again.String() != got.String() {
			t.Fatalf("%q: %q, read back %q (%v, dropped %q)", text, got, again, err, dropped)
		}
		// A set shares with itself everything but the resources of which it asks nothing.
		asking := slices.DeleteFunc(slices.Clone(got), func(a scope.Access) bool { return len(a.Actions) == 0 })
		if !got.Within(got) || got.Intersect(got).String() != asking.String() {
			t.Fatalf("%q: %q is not itself", text, got)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		values := make([]string, n)
		for i := range values {
			values[i] = fmt.Sprintf("repository:team/app-%d:pull,push", i)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := scope.Parse(values); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
