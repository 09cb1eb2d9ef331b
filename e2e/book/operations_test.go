package book_test

import (
	"testing"

	"authserver/e2e/harness"
)

func TestOperations(t *testing.T) {
	a := harness.StartAuthserver(t, harness.Options{Service: "registry.example.com"})
	a.Token(t, "admin", a.Password, a.Service)
	newReader(t, "http://127.0.0.1:5002", a.Ops).follows("docs/operations.md", "")
}

// Who guesses is held back as docs/passwords.md says, also with the right password.
func TestPasswords(t *testing.T) {
	a := harness.StartAuthserver(t, harness.Options{Users: map[string]string{"alice": "alice's own"}})
	r := newReader(t, "https://auth.example.com", a.URL)
	r.answers = []string{"alice's own"}
	r.follows("docs/passwords.md", "")
}
