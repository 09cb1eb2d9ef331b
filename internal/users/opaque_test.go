package users_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"authserver/internal/users"
)

// RevokeAccessToken implements users.TokenStore.
func (s *shelf) RevokeAccessToken(_ context.Context, id string) error {
	for hash, t := range s.access {
		if t.ID == id && s.down == nil {
			delete(s.access, hash)
			return nil
		}
	}
	return errors.Join(s.down, users.ErrNotFound)
}

// RevokeRefreshToken implements users.TokenStore.
func (s *shelf) RevokeRefreshToken(_ context.Context, id string) error {
	for hash, t := range s.refresh {
		if t.ID == id && s.down == nil {
			delete(s.refresh, hash)
			return nil
		}
	}
	return errors.Join(s.down, users.ErrNotFound)
}

func TestWhatIsSaidOfAToken(t *testing.T) {
	x := newTokens(t)
	o := users.NewOpaqueTokens(x.shelf, x.auth, x.logins)
	describe := func(token string, after time.Duration) (users.OpaqueToken, error) {
		return o.Describe(t.Context(), token, now.Add(after))
	}
	access := x.give(users.AccessToken{ID: "t1", Owner: "alice", Backend: "database", Scopes: []string{"repository:a:pull"}, Created: now, Expires: now.Add(time.Hour)})
	refresh := x.begin(t, "alice", "a")
	want := users.OpaqueToken{Kind: "access_token", ID: "t1", Owner: "alice", Scopes: []string{"repository:a:pull"}, Created: now, Expires: now.Add(time.Hour)}
	if got, err := describe(access, 0); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	got, err := describe(refresh, 0)
	want = users.OpaqueToken{Kind: "refresh_token", ID: got.ID, Owner: "alice", Service: "registry", Client: "docker", Created: now, Expires: now.Add(idle)}
	if err != nil || got.ID == "" || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	// It ends for good at the latest, however often it is used.
	for at := time.Duration(0); at < most; at += idle / 2 {
		if _, err := x.redeem(t, refresh, at); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := describe(refresh, most-time.Hour); err != nil || !got.Expires.Equal(now.Add(most)) {
		t.Errorf("%+v, %v", got, err)
	}

	none := func(what, token string, after time.Duration) {
		t.Helper()
		if got, err := describe(token, after); !errors.Is(err, users.ErrNotFound) || !reflect.DeepEqual(got, users.OpaqueToken{}) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	none("an access token past its end", access, time.Hour)
	none("a refresh token past its end", refresh, most+time.Second)
	none("a stranger", x.begin(t, "bob", "b")[:20], 0)
	none("nothing", "", 0)
	none("a well-formed one that is not kept", secretOf(users.NewAccessToken()), 0)
	x.change("alice", func(a *users.Account) { a.Disabled = true })
	none("an access token of who is locked out", access, 0)
	none("a refresh token of who is locked out", refresh, most-time.Hour)
	x.change("alice", func(a *users.Account) { a.Disabled = false })

	x.down = errDown
	for _, token := range []string{access, refresh} {
		if _, err := describe(token, 0); !errors.Is(err, errDown) || errors.Is(err, users.ErrNotFound) {
			t.Errorf("an outage: %v", err)
		}
		if _, err := o.Revoke(t.Context(), token); !errors.Is(err, errDown) {
			t.Errorf("an outage: %v", err)
		}
	}
	x.down = nil

	off := users.NewOpaqueTokens(x.shelf, x.auth, nil) // refresh tokens are switched off
	if _, err := off.Describe(t.Context(), refresh, now); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("switched off: %v", err)
	}
	for token, kind := range map[string]string{access: "access_token", refresh: "refresh_token"} {
		if was, err := off.Revoke(t.Context(), token); err != nil || was.Kind != kind || was.Owner != "alice" || was.ID == "" {
			t.Errorf("%+v, %v", was, err)
		}
		if _, err := off.Revoke(t.Context(), token); !errors.Is(err, users.ErrNotFound) {
			t.Errorf("a second time: %v", err)
		}
		none("ended", token, 0)
	}
	if _, err := x.login(t, "alice", access); !errors.Is(err, users.ErrRefused) {
		t.Errorf("an access token that was ended: %v", err)
	}
}

func secretOf(secret, _, _ string) string { return secret }
