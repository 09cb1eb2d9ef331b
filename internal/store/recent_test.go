package store_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"authserver/internal/store"
	"authserver/internal/users"
)

// watched is a store that remembers, and how often it has read.
type watched struct {
	*store.Store
	reads atomic.Int64
	keys  atomic.Int64 // how often keys were said to have changed
	stop  func()
}

// times of Watch; the zero ones are those of the program.
func watch(t *testing.T, c store.Config, times ...time.Duration) *watched {
	t.Helper()
	w := &watched{}
	c.Observe = func(operation string, _ time.Duration) {
		if operation == "read" {
			w.reads.Add(1)
		}
	}
	w.Store = open(t, c)
	if len(times) == 3 {
		w.Watching(times[0], times[1], times[2])
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Watch(ctx, func() { w.keys.Add(1) })
	}()
	w.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(w.stop)
	eventually(t, "it remembers", w.Remembers)
	return w
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within half a minute: %s", what)
		}
	}
}

func (w *watched) password(t *testing.T, name string) string {
	t.Helper()
	a, err := w.Account(t.Context(), name)
	if err != nil && !errors.Is(err, users.ErrNotFound) {
		t.Error(err)
	}
	return a.Password
}

const forever = time.Hour

func TestWhoAsksAgainIsAnsweredWithoutSQL(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := watch(t, c, time.Millisecond, forever, forever), t.Context()
		must(t, s.AddAccount(ctx, users.Account{Name: "alice", Kind: users.KindUser, Password: "a", Created: now}))
		must(t, s.AddGroup(ctx, "dev", now))
		must(t, s.AddMember(ctx, "dev", "alice"))
		must(t, s.AddAccessToken(ctx, "h", users.AccessToken{ID: "t", Owner: "alice", Backend: "database", Created: now}))
		must(t, s.AddRefreshToken(ctx, "h", users.RefreshToken{ID: "r", Owner: "alice", Backend: "database", Created: now, LastUsed: now}))
		ask := func() (all string) {
			a, err := s.Account(ctx, "alice")
			_, nobody := s.Account(ctx, "nobody")
			access, err2 := s.AccessToken(ctx, "h")
			refresh, err3 := s.RefreshToken(ctx, "h")
			must(t, errors.Join(err, err2, err3))
			is(t, nobody, users.ErrNotFound)
			return fmt.Sprint(a, access, refresh)
		}
		// The look that follows the changes above makes it forget once more.
		changed := time.Now()
		eventually(t, "it has looked", func() bool { return s.LookedAfter(changed) })
		first := ask()
		before := s.reads.Load()
		for range 20 {
			if got := ask(); got != first {
				t.Errorf("%s, first %s", got, first)
			}
		}
		if s.reads.Load() != before {
			t.Errorf("%d readings of what was read", s.reads.Load()-before)
		}
		_, err := s.AccessToken(ctx, "none") // what is no token is not remembered: nobody guesses one, and tables would fill
		is(t, err, users.ErrNotFound)
		_, err = s.AccessToken(ctx, "none")
		is(t, err, users.ErrNotFound)
		if s.reads.Load() != before+2 {
			t.Errorf("%d readings", s.reads.Load()-before)
		}

		// A use is noted in the database and in what is remembered, and makes it forget nothing.
		// Nor does a change that is none make it forget: anybody could ask for one, again and again.
		before = s.reads.Load()
		is(t, s.RemoveAccount(ctx, "nobody"), users.ErrNotFound)
		is(t, s.RevokeAccessTokenOf(ctx, store.Owner{Name: "alice"}, "none"), users.ErrNotFound)
		is(t, s.AddGroup(ctx, "dev", now), users.ErrConflict)
		ask()
		if s.reads.Load() != before {
			t.Errorf("%d readings after nothing was changed", s.reads.Load()-before)
		}

		before = s.reads.Load()
		later := now.Add(time.Minute)
		must(t, s.AccessTokenUsed(ctx, "t", later, "192.0.2.1"))
		must(t, s.RefreshTokenUsed(ctx, "r", later))
		access, err := s.AccessToken(ctx, "h")
		must(t, err)
		refresh, err := s.RefreshToken(ctx, "h")
		must(t, err)
		if !access.LastUsed.Equal(later) || access.LastFrom != "192.0.2.1" || !refresh.LastUsed.Equal(later) || s.reads.Load() != before {
			t.Errorf("%+v, %+v after %d readings", access, refresh, s.reads.Load()-before)
		}

		s.stop()
		before = s.reads.Load()
		ask()
		ask()
		if s.reads.Load() != before+8 {
			t.Errorf("%d readings when nobody looks for changes", s.reads.Load()-before)
		}
	})
}

func TestOwnChangesAreSeenAtOnceAndOthersSoon(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, other, ctx := watch(t, c, 10*time.Millisecond, forever, forever), open(t, c), t.Context()
		must(t, s.AddAccount(ctx, users.Account{Name: "alice", Kind: users.KindUser, Password: "0", Created: now}))
		for i := range 50 {
			s.password(t, "alice")
			must(t, s.SetPassword(ctx, "alice", fmt.Sprint(i), now))
			if got := s.password(t, "alice"); got != fmt.Sprint(i) {
				t.Fatalf("password %s after it was set to %d", got, i)
			}
		}
		for i := range 5 {
			s.password(t, "alice")
			must(t, other.SetPassword(ctx, "alice", fmt.Sprint("other ", i), now))
			eventually(t, "the change of another process", func() bool { return s.password(t, "alice") == fmt.Sprint("other ", i) })
		}
		if _, err := s.Account(ctx, "bob"); !errors.Is(err, users.ErrNotFound) {
			t.Error(err)
		}
		must(t, other.AddAccount(ctx, users.Account{Name: "bob", Kind: users.KindUser, Password: "b", Created: now}))
		eventually(t, "an account that another process has made", func() bool { return s.password(t, "bob") == "b" })
		must(t, other.RemoveAccount(ctx, "alice"))
		eventually(t, "an account that another process has removed", func() bool { return s.password(t, "alice") == "" })

		// Each kind of token, ended elsewhere.
		must(t, s.AddAccessToken(ctx, "h", users.AccessToken{ID: "t", Owner: "bob", Backend: "database", Created: now}))
		must(t, s.AddRefreshToken(ctx, "h", users.RefreshToken{ID: "r", Owner: "bob", Backend: "database", Service: "s", Created: now, LastUsed: now}))
		_, err := s.AccessToken(ctx, "h")
		must(t, err)
		_, err = s.RefreshToken(ctx, "h")
		must(t, err)
		must(t, other.RevokeAccessToken(ctx, "t"))
		eventually(t, "a token that was revoked elsewhere", func() bool { _, err := s.AccessToken(ctx, "h"); return errors.Is(err, users.ErrNotFound) })
		for i := range 100 { // the oldest of too many ends
			must(t, other.AddRefreshToken(ctx, fmt.Sprint(i), users.RefreshToken{ID: fmt.Sprint(i), Owner: "bob", Backend: "database", Service: "s", Created: now, LastUsed: now.Add(time.Hour)}))
		}
		eventually(t, "a login that was one too many", func() bool { _, err := s.RefreshToken(ctx, "h"); return errors.Is(err, users.ErrNotFound) })
	})
}

// Who has changed something can wait until others have seen it.
func TestSettle(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		s.Watching(forever, forever, forever)
		s.Settle(ctx) // nothing was changed
		is(t, s.RemoveAccount(ctx, "nobody"), users.ErrNotFound)
		s.Settle(ctx)
		must(t, s.AddGroup(ctx, "g", now))
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		s.Settle(short)
		is(t, short.Err(), context.DeadlineExceeded)
		s.Watching(time.Millisecond, forever, forever)
		s.Settle(ctx)
	})
}

// With the times of the program: see DESIGN, nothing is older than two seconds. The test would wait longer, and says how long it took.
func TestTheTimesOfTheProgram(t *testing.T) {
	c := sqliteConfig(t)
	s, other := watch(t, c), open(t, c)
	must(t, s.AddAccount(t.Context(), users.Account{Name: "alice", Kind: users.KindUser, Password: "old", Created: now}))
	s.password(t, "alice")
	must(t, other.SetPassword(t.Context(), "alice", "new", now))
	start := time.Now()
	eventually(t, "the change of another process", func() bool { return s.password(t, "alice") == "new" })
	t.Logf("seen after %s", time.Since(start))
}

func TestNothingIsRememberedThatNobodyConfirms(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, other, ctx := watch(t, c, 5*time.Millisecond, 200*time.Millisecond, forever), open(t, c), t.Context()
		must(t, s.AddAccount(ctx, users.Account{Name: "alice", Kind: users.KindUser, Password: "old", Created: now}))
		sql := func(statement string) {
			t.Helper()
			eventually(t, statement, func() bool { _, err := other.DB().Exec(statement); return err == nil }) // or it is locked
		}
		sql("ALTER TABLE revisions RENAME TO hidden") // every look fails
		if s.password(t, "alice") == "" {
			t.Error("who reads is not answered")
		}
		sql("UPDATE accounts SET password = 'new'")
		eventually(t, "a change while nobody could look", func() bool { return s.password(t, "alice") == "new" })
		eventually(t, "nothing is remembered", func() bool { return !s.Remembers() })

		// What was remembered before is not good again, though the revision is the same.
		sql("UPDATE accounts SET password = 'old'")
		sql("ALTER TABLE hidden RENAME TO revisions")
		eventually(t, "it remembers", s.Remembers)
		eventually(t, "it is remembered", func() bool { // for the next test
			before := s.reads.Load()
			s.password(t, "alice")
			return s.reads.Load() == before
		})
		sql("ALTER TABLE revisions RENAME TO hidden")
		eventually(t, "nothing is remembered", func() bool { return !s.Remembers() })
		sql("UPDATE accounts SET password = 'restored'") // another database at the same revision
		sql("ALTER TABLE hidden RENAME TO revisions")
		eventually(t, "it remembers", s.Remembers)
		if got := s.password(t, "alice"); got != "restored" {
			t.Errorf("password %s, of a database that is no more", got)
		}
	})
}

// Notes of other processes, and what somebody changes by hand, have no revision.
func TestWhatIsRememberedIsReadAnewNowAndThen(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, other, ctx := watch(t, c, 5*time.Millisecond, forever, 20*time.Millisecond), open(t, c), t.Context()
		must(t, s.AddRefreshToken(ctx, "h", users.RefreshToken{ID: "r", Owner: "alice", Backend: "database", Created: now, LastUsed: now}))
		_, err := s.RefreshToken(ctx, "h")
		must(t, err)
		later := now.Add(time.Hour)
		must(t, other.RefreshTokenUsed(ctx, "r", later))
		eventually(t, "a use that another process has noted", func() bool {
			r, err := s.RefreshToken(ctx, "h")
			return err == nil && r.LastUsed.Equal(later)
		})
	})
}

func TestOtherProcessesAreToldOfKeys(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, other := watch(t, c, time.Millisecond, forever, forever), open(t, c)
		must(t, other.AddGroup(t.Context(), "g", now))
		eventually(t, "the first look", func() bool { return s.keys.Load() == 1 })
		for i := int64(1); i < 4; i++ {
			if s.keys.Load() != i {
				t.Errorf("%d changes, want %d", s.keys.Load(), i)
			}
			eventually(t, "a key", func() bool {
				_, err := other.DB().Exec("UPDATE revisions SET number = number + 1 WHERE part = 'keys'")
				return err == nil
			})
			eventually(t, "it is told", func() bool { return s.keys.Load() > i })
		}
	})
}

// Every method of Store is in one of the three lists: a new one must be decided on.
func TestEveryChangeHasARevision(t *testing.T) {
	reads := []string{
		"AccessToken", "AccessTokens", "AccessTokensOf", "Account", "Accounts", "Backup", "Check", "Close", "DB", "Groups", "GroupsAfter", "GroupsOf", "Members",
		"MembersAfter", "PasswordForms", "Ping", "RefreshToken", "RefreshTokensOf", "Settle", "Watch",
		"Watching", "Remembers", "LookedAfter", // of the tests
	}
	exceptions := map[string]string{
		"Migrate":          "nothing is remembered of a database that was not there",
		"AddAccessToken":   "it is not remembered that there is no such token",
		"AddRefreshToken":  "the same; when older ones end, there is a revision",
		"AccessTokenUsed":  "a note; what is remembered is read anew within a minute",
		"RefreshTokenUsed": "the same",
		"UpdateKeys":       "keys have a revision of their own, see TestOtherProcessesAreToldOfKeys",
		"Sweep":            "what has ended by its dates is refused by them",
	}
	owner := store.Owner{Backend: "database", Name: "alice"}
	changes := map[string]func(*store.Store, context.Context) error{
		"AddAccount": func(s *store.Store, ctx context.Context) error {
			return s.AddAccount(ctx, users.Account{Name: "bob", Kind: users.KindUser, Created: now})
		},
		"SetPassword":       func(s *store.Store, ctx context.Context) error { return s.SetPassword(ctx, "alice", "b", now) },
		"SetPasswordIf":     func(s *store.Store, ctx context.Context) error { return s.SetPasswordIf(ctx, "alice", now, "b", now) },
		"SetDisabled":       func(s *store.Store, ctx context.Context) error { return s.SetDisabled(ctx, "alice", true, now) },
		"SetDisabledIf":     func(s *store.Store, ctx context.Context) error { return s.SetDisabledIf(ctx, "alice", now, true, now) },
		"RemoveAccount":     func(s *store.Store, ctx context.Context) error { return s.RemoveAccount(ctx, "alice") },
		"RemoveAccountIf":   func(s *store.Store, ctx context.Context) error { return s.RemoveAccountIf(ctx, "alice", now) },
		"RemoveTokens":      func(s *store.Store, ctx context.Context) error { return s.RemoveTokens(ctx, "database", "alice") },
		"AddGroup":          func(s *store.Store, ctx context.Context) error { return s.AddGroup(ctx, "ops", now) },
		"RemoveGroup":       func(s *store.Store, ctx context.Context) error { return s.RemoveGroup(ctx, "dev") },
		"AddMember":         func(s *store.Store, ctx context.Context) error { return s.AddMember(ctx, "empty", "alice") },
		"RemoveMember":      func(s *store.Store, ctx context.Context) error { return s.RemoveMember(ctx, "dev", "alice") },
		"RevokeAccessToken": func(s *store.Store, ctx context.Context) error { return s.RevokeAccessToken(ctx, "t") },
		"RevokeAccessTokenOf": func(s *store.Store, ctx context.Context) error {
			return s.RevokeAccessTokenOf(ctx, owner, "t")
		},
		"RevokeRefreshToken": func(s *store.Store, ctx context.Context) error { return s.RevokeRefreshToken(ctx, "r") },
		"RevokeRefreshTokenOf": func(s *store.Store, ctx context.Context) error {
			return s.RevokeRefreshTokenOf(ctx, owner, "r")
		},
	}
	methods := reflect.TypeFor[*store.Store]()
	for i := range methods.NumMethod() {
		name := methods.Method(i).Name
		listed := 0
		if slices.Contains(reads, name) {
			listed++
		}
		if exceptions[name] != "" {
			listed++
		}
		if changes[name] != nil {
			listed++
		}
		if listed != 1 {
			t.Errorf("%s is in %d lists: does it change what others may remember?", name, listed)
		}
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, c store.Config) {
				s, ctx := watch(t, c, forever, forever, forever), t.Context() // it does not look again
				must(t, s.AddAccount(ctx, users.Account{Name: "alice", Kind: users.KindUser, Password: "a", Created: now}))
				must(t, errors.Join(s.AddGroup(ctx, "dev", now), s.AddGroup(ctx, "empty", now), s.AddMember(ctx, "dev", "alice")))
				must(t, s.AddAccessToken(ctx, "h", users.AccessToken{ID: "t", Owner: "alice", Backend: "database", Created: now}))
				must(t, s.AddRefreshToken(ctx, "h", users.RefreshToken{ID: "r", Owner: "alice", Backend: "database", Created: now, LastUsed: now}))
				state := func(s *store.Store) string {
					alice, err := s.Account(ctx, "alice")
					bob, err2 := s.Account(ctx, "bob")
					access, err3 := s.AccessToken(ctx, "h")
					refresh, err4 := s.RefreshToken(ctx, "h")
					return fmt.Sprint(alice, err, bob, err2, access, err3, refresh, err4)
				}
				revision := func() (n int64) {
					t.Helper()
					must(t, s.DB().QueryRowContext(ctx, "SELECT number FROM revisions WHERE part = 'accounts'").Scan(&n))
					return n
				}
				before := revision()
				state(s.Store)
				must(t, change(s.Store, ctx))
				if after := revision(); after <= before {
					t.Errorf("revision %d after %d", after, before)
				}
				if got, want := state(s.Store), state(open(t, c)); got != want {
					t.Errorf("remembered\n%s\nwhile there is\n%s", got, want)
				}
				// One that fails changes nothing, nor has it a revision.
				before = revision()
				gone, cancel := context.WithCancel(ctx)
				cancel()
				if err := change(s.Store, gone); err == nil || revision() != before {
					t.Errorf("%v, revision %d after %d", err, revision(), before)
				}
			})
		})
	}
	// What is not listed as a change makes nobody forget.
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		must(t, s.AddAccount(ctx, users.Account{Name: "alice", Kind: users.KindUser, Password: "$2a$05$abc", Created: now}))
		must(t, s.AddAccessToken(ctx, "h", users.AccessToken{ID: "t", Owner: "alice", Created: now}))
		must(t, s.AddRefreshToken(ctx, "h", users.RefreshToken{ID: "r", Owner: "alice", Created: now, LastUsed: now}))
		must(t, s.AccessTokenUsed(ctx, "t", now, ""))
		must(t, s.RefreshTokenUsed(ctx, "r", now))
		_, err := s.Sweep(ctx, now, now, now)
		must(t, err)
		forms, err := s.PasswordForms(ctx)
		if err != nil || !slices.Equal(forms, []string{"$2a$05"}) {
			t.Errorf("%q, %v", forms, err)
		}
		var n int64
		must(t, s.DB().QueryRowContext(ctx, "SELECT number FROM revisions WHERE part = 'accounts'").Scan(&n))
		if n != 1 {
			t.Errorf("revision %d", n)
		}
	})
}
