package store_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authserver/internal/store"
	"authserver/internal/users"
)

func TestAChangeIsOfOneVersion(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		must(t, s.AddAccount(ctx, users.Account{Name: "alice", Kind: users.KindUser, Created: now}))
		is(t, s.SetDisabledIf(ctx, "alice", now.Add(time.Microsecond), true, now), users.ErrChanged)
		is(t, s.RemoveAccountIf(ctx, "alice", now.Add(-time.Microsecond)), users.ErrChanged)
		is(t, s.SetPasswordIf(ctx, "alice", now.Add(time.Microsecond), "x", now), users.ErrChanged)
		is(t, s.RemoveAccountIf(ctx, "nobody", now), users.ErrChanged)

		// Of many who have read the same version, one changes it.
		var all sync.WaitGroup
		var changed atomic.Int32
		for i := range 8 {
			all.Go(func() {
				if s.SetDisabledIf(ctx, "alice", now, true, now.Add(time.Duration(i+1)*time.Second)) == nil {
					changed.Add(1)
				}
			})
		}
		all.Wait()
		a, err := s.Account(ctx, "alice")
		must(t, err)
		if changed.Load() != 1 || !a.Disabled || a.Changed.Equal(now) {
			t.Errorf("%d changed it: %+v", changed.Load(), a)
		}
		must(t, s.RemoveAccountIf(ctx, "alice", a.Changed))
		_, err = s.Account(ctx, "alice")
		is(t, err, users.ErrNotFound)
	})
}

// A token may be made while its owner is removed. It is not one of the next of that name.
func TestANewAccountHasNoTokens(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		must(t, s.AddAccessToken(ctx, "late", users.AccessToken{ID: "t", Owner: "alice", Backend: "database", Created: now}))
		must(t, s.AddAccessToken(ctx, "other", users.AccessToken{ID: "u", Owner: "alice", Backend: "htpasswd", Created: now}))
		must(t, s.AddAccount(ctx, users.Account{Name: "alice", Kind: users.KindUser, Created: now}))
		_, err := s.AccessToken(ctx, "late")
		is(t, err, users.ErrNotFound)
		_, err = s.AccessToken(ctx, "other")
		must(t, err)
	})
}

func TestTokensAreEndedByTheirOwner(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		must(t, s.AddAccessToken(ctx, "h", users.AccessToken{ID: "t", Owner: "alice", Backend: "database", Created: now}))
		must(t, s.AddRefreshToken(ctx, "h", users.RefreshToken{ID: "r", Owner: "alice", Backend: "database", Created: now, LastUsed: now}))
		for _, o := range []store.Owner{{Name: "bob"}, {Backend: "htpasswd", Name: "alice"}, {Backend: "database"}, {}} {
			is(t, s.RevokeAccessTokenOf(ctx, o, "t"), users.ErrNotFound)
			is(t, s.RevokeRefreshTokenOf(ctx, o, "r"), users.ErrNotFound)
			access, err := s.AccessTokensOf(ctx, o, "", 10)
			must(t, err)
			refresh, err := s.RefreshTokensOf(ctx, o, "", 10)
			must(t, err)
			if len(access)+len(refresh) > 0 {
				t.Errorf("%v sees %v %v", o, access, refresh)
			}
		}
		for _, o := range []store.Owner{{Name: "alice"}, {Backend: "database", Name: "alice"}} {
			access, err := s.AccessTokensOf(ctx, o, "", 10)
			must(t, err)
			refresh, err := s.RefreshTokensOf(ctx, o, "", 10)
			must(t, err)
			if len(access) != 1 || len(refresh) != 1 {
				t.Errorf("%v sees %v %v", o, access, refresh)
			}
		}
		must(t, s.RevokeAccessTokenOf(ctx, store.Owner{Name: "alice"}, "t"))
		must(t, s.RevokeRefreshTokenOf(ctx, store.Owner{Backend: "database", Name: "alice"}, "r"))
	})
}
