package book_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// An encryption key that is made as docs/keys.md says is one that keys in the database are encrypted with.
func TestEncryptionKey(t *testing.T) {
	const page = "docs/keys.md"
	r := newReader(t)
	r.put = []string{"/etc/authserver", r.dir}
	r.follows(page, "")
	file := filepath.Join(r.dir, "encryption.key")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	a := harness.StartAuthserver(t, harness.Options{Database: harness.Database(t), Set: []string{
		"issuer.keys.store=database", "issuer.keys.encryption_key_file=" + file,
	}})
	a.Token(t, "admin", a.Password, a.Service, "repository:a:pull")
}

// What docker_auth's own example says is taken over by the command of docs/docker-auth.md, and is a configuration that serves.
func TestComingFromDockerAuth(t *testing.T) {
	const page = "docs/docker-auth.md"
	r := newReader(t)
	r.put = []string{"/etc/authserver", filepath.Join(r.dir, "auth")}
	example := harness.ReadFile(t, filepath.Join(harness.Root(t), "..", "internal", "dockerauth", "testdata", "non_tls.yml"))
	if err := os.WriteFile(filepath.Join(r.dir, "auth_config.yml"), example, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range harness.Documented(t, page, "") {
		if out := r.types(page, step); !strings.Contains(out, "rootcertbundle:") {
			t.Errorf("%s has printed no stanza\n%s", step.Command, out)
		}
	}
	config := filepath.Join(r.dir, "auth", "authserver.yaml")
	if out, err := r.terminal("authserver config check --config " + config); err != nil || !strings.HasPrefix(out, "ok: ") {
		t.Errorf("%v\n%s", err, out)
	}
}
