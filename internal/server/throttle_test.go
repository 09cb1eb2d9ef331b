package server_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/server"
	"authserver/internal/users"
)

func from(address string) func(*http.Request) {
	return func(r *http.Request) { r.RemoteAddr = address }
}

func TestGuessesAreHeldBackWith429(t *testing.T) {
	x := newAccounts(t, nil)
	x.guard.Limit(users.Limits{Remember: time.Minute, Throttle: users.Throttle{Account: 4, Window: 10 * time.Minute}})
	form := func(name, secret string) url.Values { return password(name, secret) }
	for _, name := range []string{"alice", "nobody", "ci"} {
		for i := range 4 { // docker tries each twice: POST, then GET
			x.post(form(name, fmt.Sprint("guess ", i))).unauthorized(t)
			x.get("/token?service=registry.local", basic(name, fmt.Sprint("guess ", i))).unauthorized(t)
		}
		for _, a := range []answer{
			x.post(form(name, "secret:1")), x.get("/token?service=registry.local", basic(name, "secret:1")), x.get("/auth/token", basic(name, "secret:1")),
		} {
			a.refused(t, http.StatusTooManyRequests, "TOOMANYREQUESTS", "temporarily_unavailable")
			if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || seconds < 100 || seconds > 150 { // a fourth of the window
				t.Errorf("%s: Retry-After %q", name, a.Header.Get("Retry-After"))
			}
			if !strings.Contains(string(a.body), "too many wrong passwords; try again later") || strings.Contains(string(a.body), name) {
				t.Errorf("%s: %s", name, a.body)
			}
		}
		x.get("/token", basic(name, "guess 1")).unauthorized(t) // one of its own, which it has paid for
	}
	if c := x.get("/token", basic("alice", "secret:1"), from("198.51.100.1:1234")).claims(t); c.Subject != "alice" {
		t.Errorf("from elsewhere: %+v", c)
	}
	x.get("/token", basic("alice", x.accessToken("alice", "t1"))).claims(t) // nobody guesses a token
	x.get("/token?scope=repository:public/a:pull").claims(t)                // nor who nobody is
	if !strings.Contains(x.events.String(), `"outcome":"`+audit.Throttled+`"`) || strings.Contains(x.events.String(), "guess ") {
		t.Errorf("%s", x.events)
	}
	if log := x.log.String(); strings.Contains(log, "guess ") || strings.Contains(log, "secret:1") || !strings.Contains(log, "too many wrong passwords for this account from this network") {
		t.Errorf("%s", log)
	}
}

// Guesses are counted for the client, not for the proxy; but a header that is not believed makes no client.
func TestGuessesAreCountedForTheClient(t *testing.T) {
	x := newAccounts(t, nil)
	x.guard.Limit(users.Limits{Throttle: users.Throttle{Account: 2, Window: 10 * time.Minute}})
	for i := range 4 {
		a := x.get("/token", basic("alice", fmt.Sprint(i)), header("X-Forwarded-For", fmt.Sprintf("203.0.113.%d", i)))
		if want := []int{401, 401, 429, 429}[i]; a.StatusCode != want {
			t.Errorf("not believed: try %d: %d", i, a.StatusCode)
		}
	}
	x.config.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	x.handler = server.New(x.config)
	for i := range 4 {
		a := x.get("/token", basic("alice", fmt.Sprint("more ", i)), header("X-Forwarded-For", fmt.Sprintf("203.0.113.%d", i)))
		a.unauthorized(t)
	}
}

// Whom nobody has time for is told so, and when to come again: it is no outage of a directory, nor the client's fault.
func TestAFullQueueIs503WithRetryAfter(t *testing.T) {
	for after, want := range map[time.Duration]string{5 * time.Second: "5", 1500 * time.Millisecond: "2", 0: "5"} {
		f := newFace(t, with(stub{err: fmt.Errorf("%w: %w", issuer.ErrUnavailable, &users.Later{Reason: "queue", After: after})}))
		for _, a := range []answer{f.get("/token", basic("alice", "secret:1")), f.post(password("alice", "secret:1"))} {
			a.refused(t, http.StatusServiceUnavailable, "UNAVAILABLE", "temporarily_unavailable")
			if got := a.Header.Get("Retry-After"); got != want {
				t.Errorf("after %s: Retry-After %q, want %q", after, got, want)
			}
		}
	}
	for after, want := range map[time.Duration]string{time.Millisecond: "1", 30 * time.Second: "30", time.Hour: "3600", 29*time.Second + 1: "30"} {
		f := newFace(t, with(stub{err: fmt.Errorf("%w: %w", issuer.ErrThrottled, &users.Later{Reason: "account", After: after})}))
		if got := f.get("/token", basic("alice", "secret:1")).Header.Get("Retry-After"); got != want {
			t.Errorf("after %s: Retry-After %q, want %q", after, got, want)
		}
	}
}
