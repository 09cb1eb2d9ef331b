package chaos_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// gone: nobody was there, or nothing came back. Half of an answer is never allowed.
func gone(r result) bool {
	return r.err != nil && r.status == 0
}

// Told to end at any moment, it ends with status 0 and has answered what it accepted: every token in the audit log has
// reached its client, and every token that a client has is in the audit log.
func TestEndsInOrder(t *testing.T) {
	// Each password is hashed each time, and one of them takes long: there is always something under way.
	a := open(t, harness.Options{Set: []string{"passwords.cache_lifetime=0s"}})
	password, hash := usual(t)
	rename(t, a.Dir, map[string]string{"users.htpasswd": "admin:" + hash})
	reload(t, a, true)
	a.Password = password
	log := auditOf(a)
	given := &jtis{}
	ordeal{servers: []*harness.Authserver{a}, clients: clients(t, a), allowed: gone, each: given.add}.run(t, func() {
		for range 6 {
			time.Sleep(300*time.Millisecond + rand.N(700*time.Millisecond))
			if err := a.Stop(); err != nil {
				t.Error(err)
			}
			a.Restart(t)
		}
	})
	if lost := given.audited(t, log); len(lost) > 0 {
		t.Errorf("%d tokens were written down, and no client got them", len(lost))
	}
}

// Killed at any moment, it starts again: what it has acknowledged is there, and every token that a client has is in the
// audit log.
func TestIsKilled(t *testing.T) {
	a := open(t, harness.Options{})
	log := auditOf(a)
	given := &jtis{}
	kept := &writer{}
	list := clients(t, a)
	ordeal{servers: []*harness.Authserver{a}, clients: list, allowed: gone, each: given.add}.run(t, func() {
		for range 6 {
			stop := kept.begin(t, a)
			time.Sleep(300*time.Millisecond + rand.N(700*time.Millisecond))
			a.Kill()
			stop()
			a.Restart(t)
		}
		reader := client{name: "a token that was acknowledged", user: "alice"}
		for _, token := range kept.tokens {
			reader.password = token
			c := at(a.URL, a.Service, []client{reader})[0]
			if r := c.ask(ops); !r.well() {
				t.Errorf("%s: %s", c, r)
			}
		}
	})
	t.Logf("%d writes were acknowledged", len(kept.tokens))
	if len(kept.tokens) == 0 {
		t.Error("no write was acknowledged")
	}
	given.audited(t, log)
	must(t, a.Stop())
	database := filepath.Join(a.Dir, "data", "authserver.db")
	if said := strings.TrimSpace(harness.MustRun(t, nil, "", harness.Program(t, "sqlite3"), database, "PRAGMA integrity_check; PRAGMA foreign_key_check")); said != "ok" {
		t.Errorf("the database: %s", said)
	}
}

// A writer makes access tokens, and keeps those that were acknowledged.
type writer struct {
	mu     sync.Mutex
	tokens []string
}

func (w *writer) begin(t *testing.T, a *harness.Authserver) (stop func()) {
	done := make(chan struct{})
	var writing sync.WaitGroup
	for range 2 {
		writing.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
				}
				request, err := tokenRequest(a, fmt.Sprintf("%d", i))
				if err != nil {
					t.Error(err)
					return
				}
				response, err := ops.Do(request)
				if err != nil {
					continue // it was killed
				}
				var made struct{ Token string }
				if err := json.NewDecoder(response.Body).Decode(&made); err == nil && response.StatusCode == http.StatusCreated {
					w.mu.Lock()
					w.tokens = append(w.tokens, made.Token)
					w.mu.Unlock()
				}
				response.Body.Close()
			}
		})
	}
	return func() { close(done); writing.Wait() }
}
