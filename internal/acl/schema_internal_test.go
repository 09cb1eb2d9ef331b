package acl

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"authserver/internal/document/jsonschema"
)

var update = flag.Bool("update", false, "write the schemas anew")

// The schemas have the keys and types that policies and their tests are read into, and say of each what docs/policy.md says.
func TestSchemasAreThoseOfTheCode(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\| ([^|]*) \\|$").FindAllStringSubmatch(string(text), -1) {
		explained[row[1]] = row[2]
	}
	// One who writes an empty list means nothing, and the code says so.
	filled := []string{"rules", "rules[].subjects", "rules[].repositories", "rules[].resources", "rules[].actions", "rules[].services", "rules[].networks"}
	enums := map[string][]string{
		"combining": {DenyOverrides, FirstApplicable}, "rules[].effect": {"allow", "deny"},
		"rules[].silence[]": slices.Sorted(maps.Keys(Checks)),
	}
	patterns := map[string]string{
		"rules[].subjects[]":  `^(anyone|anonymous|authenticated|(user|group|robot):.+)$`,
		"rules[].resources[]": `^[^:]+:`,
	}
	note := func(path string, o jsonschema.Object) {
		if key := explained[path]; key != "" {
			o["description"] = key
		} else if leaf := !strings.HasSuffix(path, "]") && !strings.HasSuffix(path, "*") && path != "" && path != "rules"; leaf {
			t.Errorf("docs/policy.md does not say what %s is", path)
		}
		if slices.Contains(filled, path) {
			o["minItems"] = 1
		}
		if enums[path] != nil {
			o["enum"] = enums[path]
		}
		if patterns[path] != "" {
			o["pattern"] = patterns[path]
		}
		switch path {
		case "":
			if o["type"] == "object" {
				o["required"] = []string{"rules"}
			}
		case "rules[]":
			o["required"] = []string{"name", "subjects", "actions"}
			o["anyOf"] = []jsonschema.Object{{"required": []string{"repositories"}}, {"required": []string{"resources"}}}
		case "rules[].name", "rules[].when":
			o["minLength"] = 1
		case "[]":
			o["required"] = []string{"scope", "grants"}
		}
	}
	for file, schema := range map[string]struct {
		made      []byte
		committed []byte
	}{
		"schema/policy.json": {jsonschema.Text("policy of authserver", jsonschema.Of(reflect.TypeFor[file](), "", note)), PolicySchema},
		"schema/test.json":   {jsonschema.Text("policy tests of authserver", jsonschema.Of(reflect.TypeFor[[]caseText](), "", note)), TestSchema},
	} {
		if *update {
			if err := os.WriteFile(file, schema.made, 0o644); err != nil {
				t.Fatal(err)
			}
		} else if !bytes.Equal(schema.made, schema.committed) {
			t.Errorf("%s is not what the code says; go test ./internal/acl -run Schema -update", file)
		}
	}
}
