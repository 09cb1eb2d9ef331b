package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authserver/internal/config"
)

// The schema of a users block has the kinds that the switch of backends has.
func TestSchemaHasEveryKindOfBackend(t *testing.T) {
	var schema struct {
		Properties struct {
			Users struct {
				Items struct {
					AnyOf []struct {
						Properties struct {
							Kind struct{ Const string }
						}
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(must(t, "", "config", "schema")), &schema); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, block := range schema.Properties.Users.Items.AnyOf {
		kinds = append(kinds, block.Properties.Kind.Const)
	}
	file := filepath.Join(t.TempDir(), "authserver.yaml")
	if err := os.WriteFile(file, []byte("services: [{name: r}]\nusers: [{kind: none}]\nacl: {files: [policy.yaml]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = describe(c, 0)
	if want := "would be right: " + strings.Join(kinds, " or "); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; the schema has %q", err, kinds)
	}
}

func TestAnUnknownSchemaIsMisuse(t *testing.T) {
	if _, stderr, status := call(t, "", "config", "schema", "registry"); status != exitMisuse || !strings.Contains(stderr, "would be right: authserver, policy, test") {
		t.Errorf("status %d: %s", status, stderr)
	}
}
