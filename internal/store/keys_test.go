package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"authserver/internal/store"
	"authserver/internal/users"
)

// keysOf reads all keys.
func keysOf(t *testing.T, s *store.Store) map[string]string {
	t.Helper()
	var found map[string]string
	must(t, s.UpdateKeys(t.Context(), now, func(rows map[string]string) error {
		found = maps.Clone(rows)
		return nil
	}))
	return found
}

func set(t *testing.T, s *store.Store, want map[string]string) {
	t.Helper()
	must(t, s.UpdateKeys(t.Context(), now, func(rows map[string]string) error {
		clear(rows)
		maps.Copy(rows, want)
		return nil
	}))
}

func TestKeysAreChangedAsAWholeOrNotAtAll(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s := open(t, c)
		if got := keysOf(t, s); len(got) != 0 {
			t.Errorf("a new database has %v", got)
		}
		for _, want := range []map[string]string{
			{"root.key": "1", "chain/es256.key": "2", "x": ""},
			{"root.key": "3", "chain/es256.key": "2", "chain/es256.next.key": "4"}, // changed, kept, added, removed
			{},
			{"'; DROP TABLE signing_keys; --": "$1", strings.Repeat("x", 600): strings.Repeat("y", 100_000)},
		} {
			set(t, s, want)
			if got := keysOf(t, s); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			failed := errors.New("no")
			is(t, s.UpdateKeys(t.Context(), now, func(rows map[string]string) error {
				clear(rows)
				rows["half"] = "made"
				return failed
			}), failed)
			times := 0
			is(t, s.UpdateKeys(t.Context(), now, func(rows map[string]string) error { // the second time with nobody else at it
				rows["half"] = "made"
				if times++; times > 1 {
					return failed
				}
				return nil
			}), failed)
			if got := keysOf(t, open(t, c)); !maps.Equal(got, want) {
				t.Errorf("after a change that failed: %v, want %v", got, want)
			}
		}
		must(t, s.Close())
		if err := s.UpdateKeys(t.Context(), now, func(map[string]string) error { return nil }); err == nil {
			t.Error("a closed database")
		}
	})
}

func TestNoChangeOfKeysIsLost(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		stores := []*store.Store{open(t, c), open(t, c), open(t, c)}
		var wg sync.WaitGroup
		for n, s := range stores {
			for i := range 5 {
				wg.Go(func() {
					for {
						err := s.UpdateKeys(t.Context(), now, func(rows map[string]string) error {
							rows[fmt.Sprintf("%d-%d", n, i)] = "x"
							rows["count"] += "x"
							return nil
						})
						if err == nil {
							return
						}
						if !strings.Contains(err.Error(), "locked") { // SQLite's waiting is not fair, and bounded
							t.Error(err)
							return
						}
					}
				})
			}
		}
		wg.Wait()
		if got := keysOf(t, stores[0]); len(got) != 16 || len(got["count"]) != 15 {
			t.Errorf("%d rows, counted to %d", len(got), len(got["count"]))
		}
	})
}

func TestOthersAreToldOfChangedKeysOnly(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		mine, other := open(t, c), open(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		var told atomic.Int32
		var watch sync.WaitGroup
		watch.Go(func() { mine.Watch(ctx, func() { told.Add(1) }) })
		defer watch.Wait()
		defer cancel()
		until := func(what string, n int32) {
			t.Helper()
			for deadline := time.Now().Add(20 * time.Second); told.Load() != n; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%s: told %d times, want %d", what, told.Load(), n)
				}
			}
		}
		must(t, mine.AddAccount(ctx, users.Account{Name: "a", Kind: users.KindUser, Created: now}))
		if _, err := mine.Account(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // two looks
		until("before", 1)      // at first, as they may have changed since they were read
		for n := range int32(3) {
			set(t, other, map[string]string{"k": fmt.Sprint(n)})
			until("changed", n+2)
			keysOf(t, other)
			must(t, other.AddAccount(ctx, users.Account{Name: fmt.Sprint(n), Kind: users.KindUser, Created: now}))
			set(t, other, map[string]string{"k": fmt.Sprint(n)}) // no change
			time.Sleep(time.Second)
			until("nothing changed", n+2)
		}
	})
}

// Replicas look at keys often; one that is slow with a change must not keep them from it.
func TestWhoOnlyLooksAtKeysWaitsForNobody(t *testing.T) {
	if postgres() == "" {
		t.Skip("TEST_POSTGRES is not set")
	}
	c := postgresConfig(t)
	s := open(t, c)
	set(t, s, map[string]string{"k": "1"})
	busy, err := pgx.Connect(t.Context(), c.URL)
	must(t, err)
	defer func() { _ = busy.Close(context.Background()) }()
	tx, err := busy.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE signing_keys IN EXCLUSIVE MODE")
	must(t, err)
	if got := keysOf(t, s); got["k"] != "1" {
		t.Errorf("got %v", got)
	}
	c.Timeout = time.Second
	hasty, err := store.New(c)
	must(t, err)
	defer func() { _ = hasty.Close() }()
	if hasty.UpdateKeys(t.Context(), now, func(rows map[string]string) error { rows["k"] = "2"; return nil }) == nil {
		t.Error("two changed keys at once")
	}
	must(t, tx.Rollback(t.Context()))
	set(t, s, map[string]string{"k": "2"})
}
