// Package book_test tries what documentation and init give to readers and their editors.
package book_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"authserver/e2e/harness"
)

// schema is what "authserver config schema" prints, as an editor's validator reads it.
func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	text := harness.MustRun(t, nil, "", harness.Program(t, "authserver"), "config", "schema", name)
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("https://authserver.test/"+name+".json", doc); err != nil {
		t.Fatal(err)
	}
	return c.MustCompile("https://authserver.test/" + name + ".json")
}

// judge is what the schema says of a text; yaml that cannot be read says so.
func judge(s *jsonschema.Schema, text []byte) error {
	data, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	return s.Validate(value)
}

func glob(t *testing.T, patterns ...string) (files []string) {
	t.Helper()
	for _, pattern := range patterns {
		some, err := filepath.Glob(filepath.Join(harness.Root(t), "..", pattern))
		if err != nil || len(some) == 0 {
			t.Fatalf("%s: no files, %v", pattern, err)
		}
		files = append(files, some...)
	}
	return files
}

// Every file that the program takes is well by the schema that editors hold it against: those of init, and all that we show.
func TestSchemasTakeWhatTheProgramTakes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "auth")
	harness.MustRun(t, nil, "", harness.Program(t, "authserver"), "init", dir)
	files := append(glob(t, "docs/cookbook/*.yaml", "deploy/*/authserver.yaml", "deploy/*/policy.yaml", "deploy/*/*/authserver.yaml", "deploy/*/*/policy.yaml", "deploy/*/*/*/authserver.yaml", "internal/config/testdata/good.yaml"),
		filepath.Join(dir, "authserver.yaml"), filepath.Join(dir, "policy.yaml"))
	schemas := map[string]*jsonschema.Schema{"authserver": schema(t, "authserver"), "policy": schema(t, "policy"), "test": schema(t, "test")}
	for _, file := range files {
		kind := "policy"
		switch name := filepath.Base(file); {
		case strings.HasSuffix(name, ".test.yaml"):
			kind = "test"
		case name == "authserver.yaml" || name == "good.yaml":
			kind = "authserver"
		}
		if err := judge(schemas[kind], harness.ReadFile(t, file)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}

	// What init writes names its schema, in the words of the YAML language server, and beside it the schema is.
	for _, name := range []string{"authserver", "policy"} {
		file := filepath.Join(dir, name+".yaml")
		first, _, _ := strings.Cut(string(harness.ReadFile(t, file)), "\n")
		m := regexp.MustCompile(`^# yaml-language-server: \$schema=(\S+)$`).FindStringSubmatch(first)
		if m == nil {
			t.Fatalf("%s begins with %q", file, first)
		}
		there := harness.ReadFile(t, filepath.Join(dir, m[1]))
		if printed := harness.MustRun(t, nil, "", harness.Program(t, "authserver"), "config", "schema", name); string(there) != printed {
			t.Errorf("%s is not what config schema prints", m[1])
		}
	}
}

// What a schema can see, it sees: keys that do not exist, other types, words that are not known, numbers out of bounds.
func TestSchemasRefuseWhatTheProgramRefuses(t *testing.T) {
	visible := regexp.MustCompile(`unknown key|where .* belongs|: a number without a unit|is no duration|would be right: [a-zA-Z0-9_]+(, [a-zA-Z0-9_.]+)+$|[0-9] is out of range|: services: missing|acl\.files: missing|given twice`)
	refused, left := 0, 0
	s := schema(t, "authserver")
	for _, file := range glob(t, "internal/config/testdata/bad/*.yaml") {
		want := string(harness.ReadFile(t, strings.TrimSuffix(file, ".yaml")+".want"))
		err := judge(s, harness.ReadFile(t, file))
		var invalid *jsonschema.ValidationError
		seen := false
		for line := range strings.Lines(want) {
			seen = seen || visible.MatchString(strings.TrimSpace(line))
		}
		switch {
		case err != nil:
			refused++
		case seen:
			t.Errorf("%s is well by the schema, but the program says\n%s", filepath.Base(file), want)
		default:
			left++ // two keys that do not go together, an address, a date: for config check
		}
		if err != nil && !errors.As(err, &invalid) && seen && !strings.Contains(want, "given twice") {
			t.Errorf("%s: %v", file, err)
		}
	}
	t.Logf("of the configurations that the program refuses, the schema refuses %d; %d are for config check", refused, left)
	if refused < 40 {
		t.Errorf("only %d bad configurations are refused", refused)
	}

	rule := func(text string) string {
		return "rules:\n  - {name: a, subjects: [anyone], repositories: [a], actions: [pull]" + text + "}\n"
	}
	for kind, texts := range map[string][]string{
		"policy": {
			"groups: {a: [b]}\n", "rules: []\n", "rules:\n  - {name: a, subjects: [anyone], actions: [pull]}\n", "rules:\n  - {name: a, subjects: [], repositories: [a], actions: [pull]}\n",
			"rules:\n  - {name: a, subjects: [everyone], repositories: [a], actions: [pull]}\n", "rules:\n  - {name: a, subjects: anyone, repositories: [a], actions: [pull]}\n",
			"rules:\n  - {subjects: [anyone], repositories: [a], actions: [pull]}\n", rule(", effect: block"), rule(", silence: [noise]"), rule(", action: [push]"), rule(", networks: []"), rule(", when: ''"),
			"combining: last\n" + rule(""),
		},
		"test": {
			"as: {user: a}\n", "- {scope: 'repository:a:pull'}\n", "- {grants: []}\n", "- {scope: 'repository:a:pull', grants: pull}\n", "- {scope: 'repository:a:pull', grants: [], who: a}\n",
			"- {scope: 'repository:a:pull', grants: [], as: {name: a}}\n",
		},
	} {
		s, well := schema(t, kind), map[string]string{"policy": rule(""), "test": "- {scope: 'repository:a:pull', grants: [pull], as: {user: a}}\n"}[kind]
		if err := judge(s, []byte(well)); err != nil {
			t.Errorf("%s: %s: %v", kind, well, err)
		}
		for _, text := range texts {
			if judge(s, []byte(text)) == nil {
				t.Errorf("%s: this is well by the schema: %s", kind, text)
			}
			file := filepath.Join(t.TempDir(), "policy.yaml")
			if kind == "policy" {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if out, err := harness.Run(t, nil, "", harness.Program(t, "authserver"), "acl", "lint", "--config", glob(t, "internal/config/testdata/good.yaml")[0], "--set", "acl.files="+file); err == nil || !strings.Contains(out, file) {
					t.Errorf("the program takes this: %s", text)
				}
			}
		}
	}
}
