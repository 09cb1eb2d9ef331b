package audit_test

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"authserver/internal/audit"
)

// field is one of a line: what JSON makes of it, and whether it is always there.
type field struct {
	name, kind string
	always     bool
}

func fields() []field {
	var list []field
	for f := range reflect.TypeFor[audit.Event]().Fields() {
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		kind := map[reflect.Kind]string{reflect.String: "string", reflect.Int: "number", reflect.Bool: "true", reflect.Slice: "list of strings", reflect.Struct: "string"}[f.Type.Kind()]
		list = append(list, field{name, kind, option != "omitempty"})
	}
	return list
}

func TestEveryFieldIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Audit log\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var documented []field
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]+) \\| ([^|]+) \\| `[^|]+` \\| ").FindAllStringSubmatch(section, -1) {
		documented = append(documented, field{m[1], m[2], m[3] == "always"})
	}
	if want := fields(); len(want) < 20 || !slices.Equal(documented, want) {
		t.Errorf("docs/logs.md has the fields\n%v\nand a line has\n%v", documented, want)
	}
}

func TestTheSchemaIsThatOfALine(t *testing.T) {
	text, err := os.ReadFile("../../docs/audit.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Required   []string
		Properties map[string]struct {
			Type  string
			Items struct{ Type string }
			Enum  []string
		}
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	types := map[string]string{"string": "string", "number": "integer", "true": "boolean", "list of strings": "array"}
	var always []string
	for _, f := range fields() {
		if f.always {
			always = append(always, f.name)
		}
		p, ok := schema.Properties[f.name]
		if !ok || p.Type != types[f.kind] || p.Type == "array" && p.Items.Type != "string" {
			t.Errorf("%s: %+v in the schema, and it is a %s", f.name, p, f.kind)
		}
	}
	if len(schema.Properties) != len(fields()) || !slices.Equal(schema.Required, always) {
		t.Errorf("%d properties, required %v; want %d and %v", len(schema.Properties), schema.Required, len(fields()), always)
	}
	outcomes := []string{audit.Granted, audit.Partial, audit.Denied, audit.Refused, audit.Invalid, audit.Throttled, audit.Unavailable, audit.Failed}
	if !slices.Equal(schema.Properties["outcome"].Enum, outcomes) {
		t.Errorf("outcomes %v", schema.Properties["outcome"].Enum)
	}
}
