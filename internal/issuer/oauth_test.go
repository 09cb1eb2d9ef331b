package issuer_test

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/scope"
	"authserver/internal/users"
)

// opaque knows one token, "good".
type opaque struct {
	token   users.OpaqueToken
	err     error
	revoked []string
}

func (o *opaque) Revoke(_ context.Context, token string) (users.OpaqueToken, error) {
	o.revoked = append(o.revoked, token)
	return o.Describe(context.Background(), token, now)
}

func (o *opaque) Describe(_ context.Context, token string, at time.Time) (users.OpaqueToken, error) {
	switch {
	case o.err != nil:
		return users.OpaqueToken{}, o.err
	case token != "good" || !at.Equal(now):
		return users.OpaqueToken{}, users.ErrNotFound
	}
	return o.token, nil
}

// administrators grants alice everything that is asked, and says why.
func administrators(who users.Principal, _ netip.Addr, service string, _ time.Time, asked scope.Set) (scope.Set, []scope.Verdict) {
	if who.Name != "alice" || service != "" {
		return nil, []scope.Verdict{{DeniedBy: []string{"nobody-else"}}}
	}
	return asked, []scope.Verdict{{Granted: true, AllowedBy: []string{"admins"}}}
}

func TestAdministrationIsDecidedByThePolicyAndRecorded(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *issuer.Request, c *issuer.Config)
		want   error
		event  audit.Event
	}{
		"granted": {func(*issuer.Request, *issuer.Config) {}, nil,
			audit.Event{Outcome: audit.Granted, Principal: "alice", Kind: "user", Backend: "htpasswd", Granted: "authserver:users/bob:write", AllowedBy: []string{"admins"}}},
		"not granted": {func(_ *issuer.Request, c *issuer.Config) {
			c.Users = people{known: map[string]users.Principal{"alice": {Name: "mallory", Kind: users.KindUser}}}
		}, issuer.ErrForbidden, audit.Event{Outcome: audit.Denied, Principal: "mallory", Kind: "user", DeniedBy: []string{"nobody-else"}, Reason: issuer.ErrForbidden.Error()}},
		"a wrong password": {func(r *issuer.Request, _ *issuer.Config) { r.Credentials.Password = "hunter2" }, users.ErrRefused,
			audit.Event{Outcome: audit.Refused, Principal: "alice", Reason: "credentials refused"}},
		"nobody": {func(r *issuer.Request, _ *issuer.Config) { r.Credentials = nil }, users.ErrRefused,
			audit.Event{Outcome: audit.Refused, Reason: "credentials refused: not credentials: none were sent"}},
		"a refresh token": {func(r *issuer.Request, c *issuer.Config) {
			r.Credentials, r.RefreshToken, c.Logins = nil, "for alice", &logins{redeem: alice}
		}, users.ErrRefused, audit.Event{Outcome: audit.Refused, Reason: "credentials refused: not credentials: none were sent"}},
		"what cannot be credentials": {func(r *issuer.Request, _ *issuer.Config) { r.Credentials, r.BadCredentials = nil, "no colon" }, users.ErrRefused,
			audit.Event{Outcome: audit.Refused, Reason: "credentials refused: not credentials: no colon"}},
		"a backend that is down": {func(_ *issuer.Request, c *issuer.Config) { c.Users = people{down: errDown} }, issuer.ErrUnavailable,
			audit.Event{Outcome: audit.Unavailable, Principal: "alice", Reason: "cannot say: connection refused"}},
		"a reviewer that takes it away": {func(_ *issuer.Request, c *issuer.Config) {
			c.Reviewer = review(func(issuer.Review) (scope.Set, error) { return nil, nil })
		}, issuer.ErrForbidden, audit.Event{Outcome: audit.Denied, Principal: "alice", Kind: "user", Backend: "htpasswd", AllowedBy: []string{"admins"}, DeniedBy: []string{issuer.ReviewerName}, Reason: issuer.ErrForbidden.Error()}},
		"a reviewer that cannot say": {func(_ *issuer.Request, c *issuer.Config) {
			c.Reviewer = review(func(issuer.Review) (scope.Set, error) { return nil, errDown })
		}, issuer.ErrUndecided, audit.Event{Outcome: audit.Unavailable, Principal: "alice", Kind: "user", Backend: "htpasswd", Reason: "cannot say what is granted: connection refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			config, log := configuration(t, registry)
			config.Policy = decide(administrators)
			r := request(t, "")
			c.change(&r, &config)
			who, err := start(t, config).Authorize(t.Context(), r, "users/bob", "write")
			if !errors.Is(err, c.want) || (err != nil) != (c.want != nil) || (who.Name == "alice") != (c.want == nil) {
				t.Errorf("%+v, %v; want %v", who, err, c.want)
			}
			want := c.event
			want.Time, want.Event, want.RequestID, want.Grant, want.Client, want.Asked = now, "api", "r1", issuer.GrantBasic, "192.0.2.7", "authserver:users/bob:write"
			wantEvent(t, log, want)
		})
	}
	config, log := configuration(t, registry)
	config.Policy = decide(administrators)
	i := start(t, config)
	log.err = errors.New("no space left on device")
	if _, err := i.Authorize(t.Context(), request(t, ""), "users/bob", "write"); !errors.Is(err, log.err) {
		t.Errorf("without a record: %v", err)
	}
}

func TestWhoHasATokenInHandMayEndIt(t *testing.T) {
	config, log := configuration(t, registry)
	known := &opaque{token: users.OpaqueToken{Kind: "access_token", ID: "t1", Owner: "alice"}}
	config.Opaque = known
	i := start(t, config)
	r := request(t, "")
	r.Credentials, r.Grant = nil, issuer.GrantUnknown
	for _, token := range []string{"good", "unknown"} {
		if err := i.Revoke(t.Context(), r, token); err != nil {
			t.Errorf("%s: %v", token, err)
		}
	}
	if !slices.Equal(known.revoked, []string{"good", "unknown"}) {
		t.Errorf("ended %v", known.revoked)
	}
	wantEvent(t, log, audit.Event{
		Time: now, Event: "revoke", RequestID: "r1", Outcome: audit.Granted, Grant: issuer.GrantUnknown, Principal: "alice", Using: "access token t1", Client: "192.0.2.7",
	})
	if err := i.Revoke(t.Context(), r, "a.b.c"); !errors.Is(err, issuer.ErrCannotRevoke) || len(known.revoked) > 2 {
		t.Errorf("a signed token: %v", err)
	}
	known.err = errDown
	if err := i.Revoke(t.Context(), r, "good"); !errors.Is(err, issuer.ErrUnavailable) {
		t.Errorf("an outage: %v", err)
	}
	config.Opaque = nil
	if err := start(t, config).Revoke(t.Context(), r, "good"); err != nil {
		t.Errorf("where there are none: %v", err)
	}
}

func TestWhatATokenIs(t *testing.T) {
	config, _ := configuration(t, registry, zot)
	config.Policy = decide(administrators)
	known := &opaque{token: users.OpaqueToken{
		Kind: "refresh_token", ID: "t1", Owner: "bob", Service: "registry.local", Client: "docker", Created: now.Add(-time.Hour), Expires: now.Add(time.Hour),
	}}
	config.Opaque = known
	i := start(t, config)
	ask := func(token string) issuer.Introspection {
		t.Helper()
		answer, err := i.Introspect(t.Context(), request(t, ""), token)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	want := issuer.Introspection{
		Active: true, ClientID: "docker", Username: "bob", Subject: "bob", TokenType: "refresh_token", Audience: "registry.local", ID: "t1",
		Expiry: now.Add(time.Hour).Unix(), IssuedAt: now.Add(-time.Hour).Unix(),
	}
	if got := ask("good"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	text := "repository:a:pull repository:b:pull"
	known.token = users.OpaqueToken{Kind: "access_token", ID: "t2", Owner: "bob", Scopes: []string{"repository:a:pull", "repository:b:pull"}, Created: now}
	want = issuer.Introspection{Active: true, Username: "bob", Subject: "bob", TokenType: "access_token", ID: "t2", IssuedAt: now.Unix(), Scope: &text}
	if got := ask("good"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}

	// Signed ones: of every service, as long as they are good.
	for _, name := range []string{"registry.local", "zot"} {
		config.Policy = decide(all)
		result := issue(t, start(t, config), request(t, name, "repository:a:pull"))
		got := ask(result.Token)
		if !got.Active || got.Audience != name || got.Subject != "alice" || got.ID != result.ID || got.TokenType != "Bearer" || got.Issuer != "auth" || *got.Scope != "repository:a:pull" ||
			got.Expiry != now.Add(5*time.Minute).Unix() {
			t.Errorf("%+v", got)
		}
		late := config
		late.Policy, late.Now = decide(administrators), clock(now.Add(5*time.Minute))
		if got, err := start(t, late).Introspect(t.Context(), request(t, ""), result.Token); err != nil || !reflect.DeepEqual(got, issuer.Introspection{}) {
			t.Errorf("an old one: %+v, %v", got, err)
		}
		if got := ask(result.Token + "x"); got.Active {
			t.Errorf("a changed one: %+v", got)
		}
	}
	foreign, _ := configuration(t, registry) // other keys
	if got := ask(issue(t, start(t, foreign), request(t, "")).Token); got.Active {
		t.Errorf("somebody else's: %+v", got)
	}
	for _, token := range []string{"unknown", "a.b.c", "..", ""} {
		if got := ask(token); !reflect.DeepEqual(got, issuer.Introspection{}) {
			t.Errorf("%q: %+v", token, got)
		}
	}
	r := request(t, "")
	r.Credentials = nil
	if got, err := i.Introspect(t.Context(), r, "good"); !errors.Is(err, users.ErrRefused) || got.Active {
		t.Errorf("for nobody: %+v, %v", got, err)
	}
	config.Policy, config.Opaque = decide(administrators), nil
	if got, err := start(t, config).Introspect(t.Context(), request(t, ""), "good"); err != nil || got.Active {
		t.Errorf("where there are none: %+v, %v", got, err)
	}
}
