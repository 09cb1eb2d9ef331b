package book_test

import (
	"os"
	"path/filepath"
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
