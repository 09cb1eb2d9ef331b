package chaos_test

import (
	"testing"
	"time"

	"authserver/e2e/harness"
)

// PostgreSQL is killed. Its users are told to come again, users of the file notice nothing; a policy that was changed
// meanwhile is in use soon after it is back, if not before.
func TestPostgresIsKilled(t *testing.T) {
	for _, stage := range []struct {
		name    string
		options func(*testing.T) harness.Options
	}{
		{"with accounts", func(*testing.T) harness.Options { return harness.Options{} }},
		{"with accounts and keys", keysInPostgres},
	} {
		t.Run(stage.name, func(t *testing.T) {
			database := harness.StartPostgres(t)
			o := stage.options(t)
			o.Database, o.Policy = database.URL, generation("a")
			a := open(t, o)
			ordeal{
				servers: []*harness.Authserver{a}, clients: clients(t, a),
				allowed: func(r result) bool { return r.client.database && r.busy() },
			}.run(t, func() {
				database.Kill(t)
				time.Sleep(time.Second)
				rename(t, a.Dir, map[string]string{"policy.yaml": generation("b")})
				time.Sleep(3 * time.Second)
				database.Start(t)
			})
			inUse(t, a, "b")
		})
	}
}
