package chaos_test

import (
	"testing"
	"time"

	"authserver/e2e/harness"
)

// PostgreSQL is killed. Its users are told to come again, users of the file notice nothing.
func TestPostgresIsKilled(t *testing.T) {
	database := harness.StartPostgres(t)
	a := open(t, harness.Options{Database: database.URL})
	ordeal{
		servers: []*harness.Authserver{a}, clients: clients(t, a),
		allowed: func(r result) bool { return r.client.database && r.busy() },
	}.run(t, func() {
		for range 2 {
			database.Kill(t)
			time.Sleep(4 * time.Second)
			database.Start(t)
			time.Sleep(time.Second)
		}
	})
}
