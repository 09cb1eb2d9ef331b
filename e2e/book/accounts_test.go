package book_test

import (
	"path/filepath"
	"regexp"
	"testing"

	"authserver/e2e/harness"
)

// policyOf is the policy that a page shows.
func policyOf(t *testing.T, page string) string {
	t.Helper()
	text := harness.ReadFile(t, filepath.Join(harness.Root(t), "..", page))
	m := regexp.MustCompile("(?s)```yaml\n# policy.yaml\n(.*?)```").FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s shows no policy", page)
	}
	return string(m[1])
}

// beside is a reader in the folder of a running authserver.
func beside(t *testing.T, page string) (*reader, *harness.Authserver) {
	t.Helper()
	a := harness.StartAuthserver(t, harness.Options{Policy: policyOf(t, page)})
	r := newReader(t, "https://auth.example.com", a.URL)
	r.dir = a.Dir
	return r, a
}

func TestAccounts(t *testing.T) {
	const page = "docs/accounts.md"
	r, a := beside(t, page)
	r.answers = []string{"alice's own", "alice's own"}
	steps := harness.Documented(t, page, "")
	asked := harness.Documented(t, page, "introspect")[0]
	for _, step := range steps {
		if step == asked {
			continue
		}
		if step.Command == "curl -d token=asat_… https://auth.example.com/revoke" { // before its end, the token of this page is good
			a.AddUser(t, "gateway", "that of the gateway")
			r.answers = []string{"that of the gateway"}
			r.types(page, asked)
		}
		r.types(page, step)
	}
	r.answers = []string{"that of the gateway"}
	asked.Prints = "Enter host password for user 'gateway':\n{\"active\":false}\n"
	r.types(page, asked)
}

func TestAPI(t *testing.T) {
	const page = "docs/api.md"
	r, a := beside(t, page)
	a.Command(t, "alice's own\n", "user", "add", "alice", "--group", "backend", "--password-stdin")
	a.AddUser(t, "bob", "bob's own")
	r.answers = []string{"alice's own", "alice's own", "alice's own", a.Password, a.Password, a.Password}
	r.follows(page, "")
}
