package flows_test

import (
	"fmt"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// What docs/scaling.md reckons with: a pull takes one token however many layers there are, or two with containerd; a push one
// or two.
func TestTokensOfAPull(t *testing.T) {
	clients := tools(t)
	s := setStage(t, "3.1.2")
	count := func(do func() (string, error)) int {
		t.Helper()
		before := strings.Count(s.auth.Log(), `"event":"token"`)
		succeeds(t, "it")(do())
		return strings.Count(s.auth.Log(), `"event":"token"`) - before
	}
	// An image of twelve layers.
	maker, many := newCrane(t, s.registry.Host).(crane), s.ref("alice/many:1")
	succeeds(t, "login")(maker.login("alice", alicePassword))
	args := []string{"append", "-t", many}
	for i := range 12 {
		args = append(args, "-f", harness.MakeImage(t, fmt.Sprint(many, i)).Layer)
	}
	maker.must(args...)
	for _, client := range clients {
		t.Run(client.name, func(t *testing.T) {
			c, image := client.make(t, s.registry.Host), s.ref("alice/"+client.name+":1")
			succeeds(t, "login")(c.login("alice", alicePassword))
			pushed := count(func() (string, error) { return c.push(image) })
			pulled := count(func() (string, error) { return c.pull(many) })
			t.Logf("tokens: %d to push, %d to pull", pushed, pulled)
			most := 1
			if client.name == "ctr" { // one to resolve the name, one for all the rest
				most = 2
			}
			if pulled < 1 || pulled > most {
				t.Errorf("a pull took %d tokens, at most %d are reckoned with", pulled, most)
			}
			if pushed < 1 || pushed > 2 {
				t.Errorf("a push took %d tokens", pushed)
			}
		})
	}
}
