package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"authserver/internal/config"
)

// keys lists the path of every key, as the documentation writes it.
func keys(t reflect.Type, path string) []string {
	var list []string
	for field := range t.Fields() {
		name := field.Tag.Get("yaml")
		if name == "" {
			continue
		}
		at := path + name
		switch kind := field.Type; {
		case kind.Kind() == reflect.Struct:
			list = append(list, keys(kind, at+".")...)
		case kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Struct:
			list = append(list, keys(kind.Elem(), at+"[].")...)
		case kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Map:
			list = append(list, at+"[].kind") // the rest is the backends'
		default:
			list = append(list, at)
		}
	}
	return list
}

func TestEveryKeyIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	all := keys(reflect.TypeFor[config.Config](), "")
	if len(all) < 25 {
		t.Fatalf("only %v", all)
	}
	for _, key := range all {
		if !strings.Contains(string(page), "| `"+key+"` |") {
			t.Errorf("docs/configuration.md does not explain %s", key)
		}
	}
}

func TestTheDocumentedExampleLoads(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(page), "```yaml\n")
	text, _, closed := strings.Cut(block, "```")
	if !ok || !closed {
		t.Fatal("no example on the page")
	}
	file := filepath.Join(t.TempDir(), "authserver.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Realm() != "https://auth.example.com/token" {
		t.Errorf("realm %q", c.Realm())
	}
}
