package deploy_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"authserver/e2e/harness"
)

var update = flag.Bool("update", false, "write what is generated of deploy/helm/authserver/values.schema.json")

// What the chart's schema says of config and policy is what authserver's own schemas say.
func TestValuesSchemaKnowsTheConfiguration(t *testing.T) {
	file := shipped(t, "helm", "authserver", "values.schema.json")
	text := harness.ReadFile(t, file)
	const begin = `  "definitions": `
	start := bytes.Index(text, []byte(begin))
	if start < 0 {
		t.Fatalf("%s has no %s", file, begin)
	}
	definitions := map[string]any{"config": productSchema(t, "authserver"), "policy": productSchema(t, "policy")}
	// The chart itself says what is missing, in better words, and what it adds need not be given.
	config := definitions["config"].(map[string]any)
	delete(config, "required")
	properties := config["properties"].(map[string]any)
	delete(properties["services"].(map[string]any), "minItems")
	properties["server"].(map[string]any)["properties"].(map[string]any)["public_url"] = map[string]any{"type": "string"}

	generated, err := json.MarshalIndent(definitions, "  ", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(text[:start], []byte(begin), generated, []byte("\n}\n"))
	if bytes.Equal(text, want) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the configuration's schemas say; cd e2e && go test ./deploy -run ValuesSchema -update", file)
	}
	if err := os.WriteFile(file, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

// productSchema is what "authserver config schema" prints, without what is for people.
func productSchema(t testing.TB, name string) any {
	t.Helper()
	var schema map[string]any
	args := []string{"config", "schema"}
	if name != "authserver" {
		args = append(args, name)
	}
	if err := json.Unmarshal([]byte(stdout(t, nil, harness.Program(t, "authserver"), args...)), &schema); err != nil {
		t.Fatal(err)
	}
	delete(schema, "$schema")
	delete(schema, "title")
	return bare(schema)
}

// bare takes descriptions and defaults out of a schema; properties may have these names.
func bare(schema any) any {
	switch schema := schema.(type) {
	case map[string]any:
		delete(schema, "description")
		delete(schema, "default")
		for key, value := range schema {
			if properties, ok := value.(map[string]any); ok && key == "properties" {
				for name, property := range properties {
					properties[name] = bare(property)
				}
				continue
			}
			schema[key] = bare(value)
		}
	case []any:
		for i, value := range schema {
			schema[i] = bare(value)
		}
	}
	return schema
}

// Every value has a row in README.md with its default, and every row is a value. A row for a map holds for all below it.
func TestChartReadmeHasEveryValue(t *testing.T) {
	var values map[string]any
	if err := yaml.Unmarshal(harness.ReadFile(t, shipped(t, "helm", "authserver", "values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([\\w.]+)` \\| (?:`(.*?)`|(…)) \\| .*\\|$").FindAllStringSubmatch(string(harness.ReadFile(t, shipped(t, "helm", "authserver", "README.md"))), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("%s has two rows", m[1])
		}
		rows[m[1]] = m[2] + m[3]
	}
	if len(rows) < 60 {
		t.Fatalf("%d rows", len(rows))
	}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		if shown, ok := rows[path]; ok {
			delete(rows, path)
			is, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			if shown != string(is) && (shown != "…" || len(is) < 60) {
				t.Errorf("README.md: the default of %s is %s, not %s", path, is, shown)
			}
			return
		}
		below, ok := value.(map[string]any)
		if !ok || len(below) == 0 {
			t.Errorf("README.md has no row for %s", path)
			return
		}
		for _, key := range slices.Sorted(maps.Keys(below)) {
			walk(path+"."+key, below[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		walk(key, values[key])
	}
	for row := range rows {
		t.Errorf("README.md has a row for %s, which is no value", row)
	}
}

// The schema knows every value, and so nothing that the chart reads is refused.
func TestValuesSchemaHasEveryValue(t *testing.T) {
	var schema struct {
		Properties map[string]struct {
			Properties map[string]any `json:"properties"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(harness.ReadFile(t, shipped(t, "helm", "authserver", "values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(harness.ReadFile(t, shipped(t, "helm", "authserver", "values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	delete(schema.Properties, "global")
	if a, b := slices.Sorted(maps.Keys(schema.Properties)), slices.Sorted(maps.Keys(values)); !slices.Equal(a, b) {
		t.Errorf("the schema has %q\nvalues.yaml %q", a, b)
	}
	for key, property := range schema.Properties {
		value, ok := values[key].(map[string]any)
		if !ok || len(property.Properties) == 0 || key == "resources" {
			continue
		}
		if a, b := slices.Sorted(maps.Keys(property.Properties)), slices.Sorted(maps.Keys(value)); !slices.Equal(a, b) {
			t.Errorf("%s: the schema has %q\nvalues.yaml %q", key, a, b)
		}
	}
}

// What the chart carries is what is tested elsewhere.
func TestChartHasTheAlertsOfObservability(t *testing.T) {
	ours, theirs := harness.ReadFile(t, shipped(t, "helm", "authserver", "files", "rules.yaml")), harness.ReadFile(t, shipped(t, "observability", "prometheus", "rules.yaml"))
	if !bytes.Equal(ours, theirs) {
		t.Error("deploy/helm/authserver/files/rules.yaml is not deploy/observability/prometheus/rules.yaml: copy it")
	}
	const at = "https://git.example.com/authserver/"
	stream := template(t, kubeVersions[0], "prometheusRule: {enabled: true, labels: {release: prometheus}, runbooks: "+at+"}")
	parse(t, stream) // as the operator's own type
	if n, m := strings.Count(string(stream), "runbook_url: "+at+"docs/"), strings.Count(string(ours), "runbook_url: "); n != m || n == 0 {
		t.Errorf("%d of %d runbooks are at %s", n, m, at)
	}
}
