package config_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"authserver/internal/config"
	"authserver/internal/document/jsonschema"
	"authserver/internal/users"
)

var update = flag.Bool("update", false, "write schema.json anew")

// The schema says what Load says: keys and types are those of Config, values and bounds those that Load names when it
// refuses others, and what a key is for stands in docs/configuration.md.
func TestSchemaIsThatOfTheCode(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\| ?([^|]*) ?\\| ?([^|]*) ?\\|$").FindAllStringSubmatch(string(text), -1) {
		text := strings.TrimSpace(row[3])
		if text == "" {
			text = "Default: " + strings.TrimSpace(row[2]) + "."
		}
		explained[row[1]] = textOfLink.ReplaceAllString(text, "$1")
	}
	defaults := plain(t, config.Defaults())
	bounded := 0
	root := jsonschema.Of(reflect.TypeFor[config.Config](), "", func(path string, o jsonschema.Object) {
		if o["type"] == "object" {
			return
		}
		if explained[path] != "" {
			o["description"] = explained[path]
		} else if !strings.HasSuffix(path, "[]") && path != "services" && path != "users" {
			t.Errorf("docs/configuration.md does not say what %s is", path)
		}
		if value, there := at(defaults, path); there && fmt.Sprint(value) != "" && fmt.Sprint(value) != "[]" {
			o["default"] = value
		}
		if bounds(t, path, o) {
			bounded++
		}
	})
	if bounded < 20 {
		t.Errorf("only %d keys have bounds", bounded)
	}
	properties := root["properties"].(jsonschema.Object)
	root["required"] = []string{"services", "acl"}
	properties["services"].(jsonschema.Object)["minItems"] = 1
	properties["services"].(jsonschema.Object)["items"].(jsonschema.Object)["required"] = []string{"name"}
	files := properties["acl"].(jsonschema.Object)["properties"].(jsonschema.Object)["files"].(jsonschema.Object)
	files["minItems"] = 1
	properties["users"].(jsonschema.Object)["items"] = backends(explained)

	made := jsonschema.Text("authserver.yaml", root)
	if *update {
		if err := os.WriteFile("schema.json", made, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(made, config.Schema) {
		t.Error("schema.json is not what the code says; go test ./internal/config -run Schema -update")
	}
}

// backends is a users[] block: one of its kinds. cmd holds the kinds against its switch.
func backends(explained map[string]string) jsonschema.Object {
	var kinds []jsonschema.Object
	for _, kind := range []struct {
		name     string
		options  reflect.Type
		required []string
	}{
		{"htpasswd", reflect.TypeFor[users.HTPasswdOptions](), []string{"kind", "file"}},
		{"database", reflect.TypeFor[users.DatabaseOptions](), []string{"kind"}},
	} {
		block := jsonschema.Of(kind.options, "users[]", func(path string, o jsonschema.Object) {
			if explained[path] != "" {
				o["description"] = explained[path]
			}
		})
		block["properties"].(jsonschema.Object)["kind"] = jsonschema.Object{"const": kind.name, "description": explained["users[].kind"]}
		block["required"] = kind.required
		kinds = append(kinds, block)
	}
	return jsonschema.Object{"anyOf": kinds}
}

var (
	textOfLink = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	among      = regexp.MustCompile(`" is not known; would be right: ([^;]+)$`)
	within     = regexp.MustCompile(`is out of range; would be right: (\S+) to ([^\s,]+)`)
)

// bounds adds what Load names as right when it is given what is surely wrong, and tells whether it named anything.
func bounds(t *testing.T, path string, o jsonschema.Object) bool {
	t.Helper()
	wrong := map[string]any{"string": "nothing of this name", "integer": 1 << 40}[fmt.Sprint(o["type"])]
	if o["pattern"] != nil {
		wrong = "999999h"
	}
	if wrong == nil {
		return false
	}
	problem := refusal(t, path, wrong)
	if m := within.FindStringSubmatch(problem); m != nil && o["pattern"] != nil {
		if text := fmt.Sprint(o["description"]); !strings.Contains(text, m[2]) {
			o["description"] = fmt.Sprintf("%s (%s to %s)", text, m[1], m[2])
		}
		return true
	} else if m != nil {
		o["minimum"], o["maximum"] = number(t, m[1]), number(t, m[2])
		return true
	}
	if m := among.FindStringSubmatch(problem); m != nil && !strings.Contains(m[1], " or ") {
		o["enum"] = strings.Split(m[1], ", ")
		return true
	}
	return false
}

// refusal is what Load says of a value at a path, in a configuration that is well without it.
func refusal(t *testing.T, path string, value any) string {
	t.Helper()
	service := map[string]any{"name": "registry.example.com"}
	root := map[string]any{"services": []any{service}, "acl": map[string]any{
		"files": []any{"policy.yaml"}, "webhook": map[string]any{"url": "https://opa.example.com/"},
	}}
	into, key := root, strings.Split(path, ".")
	if key[0] == "services[]" {
		into, key = service, key[1:]
	}
	for ; len(key) > 1; key = key[1:] {
		below, ok := into[key[0]].(map[string]any)
		if !ok {
			below = map[string]any{}
			into[key[0]] = below
		}
		into = below
	}
	if strings.HasSuffix(key[0], "[]") {
		into[strings.TrimSuffix(key[0], "[]")] = []any{value}
	} else {
		into[key[0]] = value
	}
	text, err := yaml.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "authserver.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = config.Load(file, nil, nil)
	if err == nil {
		return ""
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if _, problem, ok := strings.Cut(line, ": "+strings.ReplaceAll(path, "[]", "[0]")+": "); ok {
			return problem
		}
	}
	return ""
}

// plain is a value as YAML reads it back.
func plain(t *testing.T, value any) map[string]any {
	t.Helper()
	text, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := yaml.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func at(m map[string]any, path string) (any, bool) {
	key, rest, more := strings.Cut(path, ".")
	value, there := m[key]
	if below, ok := value.(map[string]any); more && ok {
		return at(below, rest)
	}
	return value, there && !more
}

func number(t *testing.T, s string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return n
}
