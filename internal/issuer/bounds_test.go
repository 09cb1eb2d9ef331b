package issuer_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/scope"
	"authserver/internal/users"
)

func TestATokenThatClientsWouldNotReadIsNotGiven(t *testing.T) {
	c, log := configuration(t, service("registry.local", issuer.VerifierChain))
	i, err := issuer.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for names, want := range map[int]error{90: nil, 100: issuer.ErrTooLarge} {
		var asked []scope.Access
		for n := range names {
			asked = append(asked, scope.Access{Type: scope.Repository, Name: fmt.Sprintf("%d/%s", n, strings.Repeat("a", 180)), Actions: []string{"pull", "push"}})
		}
		result, err := i.Issue(t.Context(), issuer.Request{Grant: issuer.GrantAnonymous, Asked: scope.Canonical(asked...)})
		if !errors.Is(err, want) || (result.Token == "") != (want != nil) || len(result.Token) > 31<<10 {
			t.Errorf("%d names: %d bytes, %v", names, len(result.Token), err)
		}
		if outcome := log.last(t).Outcome; (outcome == audit.Invalid) != (want != nil) {
			t.Errorf("%d names: recorded as %s", names, outcome)
		}
	}
}

func TestARecordNamesABoundedNumberOfRules(t *testing.T) {
	c, log := configuration(t, service("registry.local", issuer.VerifierChain))
	var names []string
	for n := range 1000 {
		names = append(names, fmt.Sprintf("rule-%d", n))
	}
	c.Policy = decide(func(_ users.Principal, _ netip.Addr, _ string, _ time.Time, asked scope.Set) (scope.Set, []scope.Verdict) {
		return asked, []scope.Verdict{{Type: scope.Repository, Name: "a", Action: "pull", Granted: true, AllowedBy: names}}
	})
	i, err := issuer.New(c)
	if err != nil {
		t.Fatal(err)
	}
	asked := scope.Canonical(scope.Access{Type: scope.Repository, Name: "a", Actions: []string{"pull"}})
	if _, err := i.Issue(t.Context(), issuer.Request{Grant: issuer.GrantAnonymous, Asked: asked}); err != nil {
		t.Fatal(err)
	}
	if got, want := log.last(t).AllowedBy, append(slices.Clone(names[:32]), "…"); !slices.Equal(got, want) {
		t.Errorf("%d names, the last %q", len(got), got[len(got)-1])
	}
}
