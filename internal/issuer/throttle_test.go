package issuer_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/users"
)

// Who is held back is no outage, and who finds no turn is no guesser. Neither gets a token, nor is it anybody.
func TestWhoIsHeldBackAndWhoFindsNoTurnAreToldApart(t *testing.T) {
	for reason, want := range map[string]struct {
		err     error
		outcome string
	}{
		"account": {issuer.ErrThrottled, audit.Throttled},
		"network": {issuer.ErrThrottled, audit.Throttled},
		"queue":   {issuer.ErrUnavailable, audit.Unavailable},
	} {
		c, log := configuration(t, service("one", issuer.VerifierChain))
		later := &users.Later{Reason: reason, After: 7 * time.Second}
		c.Users = people{down: fmt.Errorf("users backend x: %w", later)}
		i, err := issuer.New(c)
		if err != nil {
			t.Fatal(err)
		}
		request := issuer.Request{Credentials: &users.Credentials{Username: "alice", Password: "alicealice"}}
		check := func(what string, err error) {
			t.Helper()
			got := new(users.Later)
			if !errors.Is(err, want.err) || errors.Is(err, issuer.ErrThrottled) && errors.Is(err, issuer.ErrUnavailable) || errors.Is(err, users.ErrRefused) || !errors.As(err, &got) || got != later {
				t.Errorf("%s, %s: %v", reason, what, err)
			}
			if e := log.last(t); e.Outcome != want.outcome || e.Principal != "alice" || e.Reason == "" || e.TokenID != "" {
				t.Errorf("%s, %s: %+v", reason, what, e)
			}
		}
		result, err := i.Issue(t.Context(), request)
		check("token", err)
		if result.Token != "" || result.Outcome != want.outcome {
			t.Errorf("%s: %+v", reason, result)
		}
		who, err := i.Identify(t.Context(), request)
		check("identify", err)
		if who.Name != "" {
			t.Errorf("%s: %+v", reason, who)
		}
		_, err = i.Authorize(t.Context(), request, "users", "read")
		check("authorize", err)
	}
}
