package issuer_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/scope"
	"authserver/internal/users"
)

// logins are refresh tokens: the token of NAME is "for NAME".
type logins struct {
	begun, redeemed []string
	none            bool
	err             error
	redeem          users.Principal
}

func (l *logins) Begin(_ context.Context, who users.Principal, service, client string, at time.Time) (string, error) {
	l.begun = append(l.begun, who.Name+" "+service+" "+client+" "+at.Format(time.TimeOnly))
	if l.none {
		return "", nil
	}
	return "for " + who.Name, l.err
}

func (l *logins) Redeem(_ context.Context, token, service string, at time.Time) (users.Principal, error) {
	l.redeemed = append(l.redeemed, token+" "+service+" "+at.Format(time.TimeOnly))
	return l.redeem, l.err
}

// refresh is a request with a refresh token.
func refresh(t *testing.T, scopes ...string) issuer.Request {
	t.Helper()
	r := request(t, "registry.local", scopes...)
	r.Grant, r.Credentials, r.RefreshToken = issuer.GrantRefresh, nil, "for alice"
	return r
}

func TestARefreshTokenIsGivenToWhoAsksWhereThereAreSome(t *testing.T) {
	for _, c := range []struct {
		name    string
		offline bool
		logins  *logins
		given   string
		begun   int
	}{
		{"asked", true, &logins{}, "for alice", 1},
		{"not asked", false, &logins{}, "", 0},
		{"asked, for a login that gets none", true, &logins{none: true}, "", 1},
		{"asked where there are none", true, nil, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, log := configuration(t, registry)
			if c.logins != nil {
				config.Logins = c.logins
			}
			r := request(t, "registry.local", "repository:a:pull")
			r.Offline, r.ClientName = c.offline, "docker"
			result := issue(t, start(t, config), r)
			if result.Token == "" || result.RefreshToken != c.given || result.RefreshErr != nil {
				t.Errorf("given %q, %v", result.RefreshToken, result.RefreshErr)
			}
			if c.logins != nil && (len(c.logins.begun) != c.begun || c.begun == 1 && c.logins.begun[0] != "alice registry.local docker 05:06:07") {
				t.Errorf("begun: %q", c.logins.begun)
			}
			if e := log.last(t); e.Refresh != (c.given != "") || e.Using != "" {
				t.Errorf("recorded %+v", e)
			}
		})
	}
}

// A database that is down takes away the refresh token, not the token.
func TestALoginHoldsWithoutTheRefreshTokenThatCouldNotBeGiven(t *testing.T) {
	config, log := configuration(t, registry)
	config.Logins = &logins{err: errDown}
	r := request(t, "registry.local", "repository:a:pull")
	r.Offline = true
	result := issue(t, start(t, config), r)
	if result.Token == "" || result.RefreshToken != "" || !errors.Is(result.RefreshErr, errDown) || result.Outcome != audit.Granted {
		t.Errorf("%+v", result)
	}
	if e := log.last(t); e.Refresh || e.Outcome != audit.Granted {
		t.Errorf("recorded %+v", e)
	}
}

func TestWithoutARecordThereIsNoRefreshToken(t *testing.T) {
	config, log := configuration(t, registry)
	config.Logins, log.err = &logins{}, errors.New("disk full")
	r := request(t, "registry.local")
	r.Offline = true
	if result, err := start(t, config).Issue(t.Context(), r); !errors.Is(err, log.err) || result.Token != "" || result.RefreshToken != "" {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestNobodyWhoIsRefusedOrUnservedGetsARefreshToken(t *testing.T) {
	for name, change := range map[string]func(r *issuer.Request, c *issuer.Config){
		"a wrong password": func(r *issuer.Request, _ *issuer.Config) {
			r.Credentials = &users.Credentials{Username: "alice", Password: "x"}
		},
		"no credentials": func(r *issuer.Request, _ *issuer.Config) {
			r.Credentials, r.BadCredentials = nil, "offline_token without credentials"
		},
		"another account":    func(r *issuer.Request, _ *issuer.Config) { r.Account = "bob" },
		"an unknown service": func(r *issuer.Request, _ *issuer.Config) { r.Service = "evil" },
		"an outage":          func(_ *issuer.Request, c *issuer.Config) { c.Users = people{down: errDown} },
		"a reviewer that cannot say": func(_ *issuer.Request, c *issuer.Config) {
			c.Reviewer = review(func(issuer.Review) (scope.Set, error) { return nil, errDown })
		},
	} {
		t.Run(name, func(t *testing.T) {
			config, log := configuration(t, registry)
			given := &logins{}
			config.Logins = given
			r := request(t, "registry.local", "repository:a:pull")
			r.Offline = true
			change(&r, &config)
			if result, err := start(t, config).Issue(t.Context(), r); err == nil || result.RefreshToken != "" || len(given.begun) > 0 {
				t.Errorf("%+v, %v, begun %q", result, err, given.begun)
			}
			if log.last(t).Refresh {
				t.Errorf("recorded %+v", log.last(t))
			}
		})
	}
}

func TestARefreshTokenStandsForItsOwner(t *testing.T) {
	config, log := configuration(t, registry, zot)
	kept := &logins{redeem: users.Principal{Name: "alice", Kind: users.KindUser, Backend: "database", Credential: "refresh token r7"}}
	config.Logins = kept
	i := start(t, config)
	result := issue(t, i, refresh(t, "repository:a:pull"))
	if part(t, result.Token, 1)["sub"] != "alice" || result.RefreshToken != "" {
		t.Errorf("%+v", result)
	}
	want := base(audit.Granted)
	want.Grant, want.Principal, want.Kind, want.Backend, want.Using = issuer.GrantRefresh, "alice", "user", "database", "refresh token r7"
	want.Asked, want.Granted, want.TokenID, want.KeyID = "repository:a:pull", "repository:a:pull", result.ID, log.last(t).KeyID
	wantEvent(t, log, want)
	// It is taken for the service that the token will be for, also when that is not named.
	r := refresh(t)
	r.Service = ""
	issue(t, i, r)
	r.Service = "zot"
	issue(t, i, r)
	if got := strings.Join(kept.redeemed, ", "); got != "for alice registry.local 05:06:07, for alice registry.local 05:06:07, for alice zot 05:06:07" {
		t.Errorf("redeemed: %s", got)
	}
	for account, good := range map[string]bool{"alice": true, "": true, "bob": false, "Alice": false, "alice\x00": false} {
		r := refresh(t)
		r.Account = account
		result, err := i.Issue(t.Context(), r)
		if (err == nil) != good || !good && (!errors.Is(err, issuer.ErrAccount) || result.Token != "") {
			t.Errorf("account %q: %v", account, err)
		}
	}
}

func TestTheCredentialIsRecorded(t *testing.T) {
	config, log := configuration(t, registry)
	robot := users.Principal{Name: "alice", Kind: users.KindRobot, Backend: "database", Credential: "access token t9", Scopes: []string{"repository:a:pull"}}
	config.Users = people{known: map[string]users.Principal{"alice": robot}}
	issue(t, start(t, config), request(t, "registry.local"))
	if e := log.last(t); e.Using != "access token t9" || e.Kind != "robot" || e.Backend != "database" || e.Refresh {
		t.Errorf("recorded %+v", e)
	}
}

func TestARefreshTokenThatIsNotTakenIsRecordedWithItsReason(t *testing.T) {
	for _, c := range []struct {
		name   string
		logins *logins
		is     error
		isNot  error
		want   audit.Event
	}{
		{"where there are none", nil, issuer.ErrBadCredentials, issuer.ErrUnavailable, audit.Event{Outcome: audit.Refused, Reason: "credentials refused: not credentials: refresh tokens are not given out here"}},
		{"refused", &logins{err: users.ErrRefused}, users.ErrRefused, issuer.ErrBadCredentials, audit.Event{Outcome: audit.Refused, Reason: "credentials refused"}},
		{"an outage", &logins{err: errDown}, issuer.ErrUnavailable, users.ErrRefused, audit.Event{Outcome: audit.Unavailable, Reason: "cannot say: connection refused"}},
		{"for nobody", &logins{}, users.ErrRefused, issuer.ErrBadCredentials, audit.Event{Outcome: audit.Refused, Reason: "credentials refused"}},
		{"for anonymous", &logins{redeem: users.Principal{Name: "x", Kind: users.KindAnonymous}}, users.ErrRefused, issuer.ErrBadCredentials, audit.Event{Outcome: audit.Refused, Reason: "credentials refused"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, log := configuration(t, registry)
			if c.logins != nil {
				config.Logins = c.logins
			}
			result, err := start(t, config).Issue(t.Context(), refresh(t, "repository:a:pull"))
			if !errors.Is(err, c.is) || errors.Is(err, c.isNot) || !reflect.DeepEqual(result, issuer.Result{Outcome: c.want.Outcome, Service: "registry.local"}) {
				t.Errorf("%+v, %v", result, err)
			}
			want := base(c.want.Outcome)
			want.Grant, want.Asked, want.Reason = issuer.GrantRefresh, "repository:a:pull", c.want.Reason
			wantEvent(t, log, want)
		})
	}
}
