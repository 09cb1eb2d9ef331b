package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/users"
)

// Guesses at the API are guesses, and who is held back there is held back at /token.
func TestGuessesAreHeldBack(t *testing.T) {
	w := newWorld(t)
	w.guard.Limit(users.Limits{Remember: time.Minute, Throttle: users.Throttle{Account: 3, Network: 100, Window: 5 * time.Minute}})
	for _, name := range []string{"alice", "admin", "ci", "locked", "nobody"} { // of the database, of a file, a robot, locked, and nobody
		var seen []string
		for i := range 5 {
			a := w.do(as{name, fmt.Sprint("guess ", i)}, http.MethodGet, "/api/v1/whoami", "")
			seen = append(seen, fmt.Sprint(a.code, a.header.Get("Retry-After") != "", a.field(t, "detail")))
		}
		want := strings.Repeat("401 false the user name or password is not correct\n", 3) + strings.Repeat("429 true too many wrong passwords; try again later\n", 2)
		if got := strings.Join(seen, "\n") + "\n"; strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
			t.Errorf("%s:\n%s", name, got)
		}
	}
	w.wants(http.StatusTooManyRequests, user("alice"), http.MethodGet, "/api/v1/users/alice", "")
	if e := w.audit.events[len(w.audit.events)-1]; e.Outcome != audit.Throttled || e.Principal != "alice" || !strings.HasPrefix(e.Reason, "held back: too many wrong passwords for this account from this network") {
		t.Errorf("%+v", e)
	}
	r, recorder := httptest.NewRequest(http.MethodGet, "/token", nil), httptest.NewRecorder()
	r.SetBasicAuth("alice", "alice-secret")
	if w.handler.ServeHTTP(recorder, r); recorder.Code != http.StatusTooManyRequests {
		t.Errorf("/token: %d", recorder.Code)
	}
	w.wants(http.StatusOK, user("bob"), http.MethodGet, "/api/v1/whoami", "")
	w.wants(http.StatusOK, w.token("database", "alice"), http.MethodGet, "/api/v1/whoami", "") // nobody guesses a token
}
