package chaos_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// A thousand users log in for the first time at once, and somebody guesses. Who is remembered does not notice; the others
// get in, are told when to come again, or are refused.
func TestPasswordStorm(t *testing.T) {
	const users, lasts = 1000, 8 * time.Second
	a := open(t, harness.Options{Set: []string{"server.trusted_proxies=127.0.0.1"}})
	password, hash := usual(t)
	file := filepath.Join(a.Dir, "users.htpasswd")
	text := string(harness.ReadFile(t, file))
	for i := range users {
		text += fmt.Sprintf("user-%d:%s", i, hash)
	}
	rename(t, a.Dir, map[string]string{"users.htpasswd": text})
	reload(t, a, true)

	list := clients(t, a)
	for i := range list {
		list[i].from = "192.0.2.1" // in the same network as the one who guesses
	}
	var bad complaints
	counts := map[string]int{}
	var mu sync.Mutex
	note := func(r result) {
		mu.Lock()
		counts[r.client.name+": "+r.String()]++
		mu.Unlock()
		later := (r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable) && r.retry != ""
		if r.err != nil || !later && r.status != http.StatusUnauthorized && !r.well() {
			bad.add("%s: %s", r.client, r)
		}
	}
	ordeal{servers: []*harness.Authserver{a}, clients: list}.run(t, func() {
		end := time.Now().Add(lasts)
		var all sync.WaitGroup
		for i := range users {
			all.Go(func() {
				c := client{name: "first login", user: fmt.Sprintf("user-%d", i), password: password, from: fmt.Sprintf("198.51.100.%d", i%250+1), fresh: true}
				note(at(a.URL, a.Service, []client{c})[0].ask(c.transport()))
			})
		}
		for g := range 20 {
			all.Go(func() {
				c := client{name: "guess", from: "192.0.2.66"}
				h := c.transport()
				defer h.CloseIdleConnections()
				for i := 0; time.Now().Before(end); i++ {
					c.user, c.password = []string{"alice", "admin", "user-7", "nobody"}[i%4], fmt.Sprintf("guess %d %d", g, i)
					note(at(a.URL, a.Service, []client{c})[0].ask(h))
				}
			})
		}
		all.Wait()
	})
	bad.report(t)
	t.Log(strings.Trim(fmt.Sprint(counts), "map[]"))
	if counts["first login: token"] == 0 {
		t.Error("nobody got in")
	}
	if n := counts["guess: token"]; n > 0 {
		t.Errorf("%d guesses were right", n)
	}
}

// usual is a password with its hash, and the end of the line, at the cost that there is without configuration.
func usual(t *testing.T) (password, hash string) {
	t.Helper()
	dir := t.TempDir()
	out := harness.MustRun(t, nil, "", harness.Program(t, "authserver"), "init", dir, "--service", "any", "--public-url", "http://localhost:1", "-o", "json")
	var made struct{ Password string }
	must(t, json.Unmarshal([]byte(out), &made))
	return made.Password, strings.TrimPrefix(string(harness.ReadFile(t, filepath.Join(dir, "users.htpasswd"))), "admin:")
}
