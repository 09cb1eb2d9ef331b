package store_test

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"authserver/internal/store"
)

func TestKeysAreKeptAsAWholeOrNotAtAll(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		revision := func() (n int64) {
			t.Helper()
			must(t, s.DB().QueryRow("SELECT number FROM revisions WHERE part = 'keys'").Scan(&n))
			return n
		}
		wants := func(what string, revisions int64, want map[string]string) {
			t.Helper()
			var got map[string]string
			must(t, s.UpdateKeys(ctx, now, func(rows map[string]string) error { got = maps.Clone(rows); return nil }))
			if !maps.Equal(got, want) || revision() != revisions {
				t.Errorf("%s: %v at revision %d, want %v at %d", what, got, revision(), want, revisions)
			}
		}
		wants("at first", 0, map[string]string{})
		must(t, s.UpdateKeys(ctx, now, func(rows map[string]string) error {
			rows["root"], rows["a"], rows["it's"] = "1", "2", `{"key": "ä"}`
			return nil
		}))
		first := map[string]string{"root": "1", "a": "2", "it's": `{"key": "ä"}`}
		wants("three", 1, first)
		fault := errors.New("no")
		is(t, s.UpdateKeys(ctx, now, func(rows map[string]string) error {
			delete(rows, "root")
			rows["a"] = "3"
			return fault
		}), fault)
		wants("given up", 1, first)
		must(t, s.UpdateKeys(ctx, now.Add(time.Hour), func(rows map[string]string) error {
			delete(rows, "it's")
			rows["a"], rows["b"] = "3", "4"
			return nil
		}))
		wants("changed", 2, map[string]string{"root": "1", "a": "3", "b": "4"})
		var changed int64
		must(t, s.DB().QueryRow("SELECT changed FROM signing_keys WHERE name = 'root'").Scan(&changed))
		if changed != now.UnixMicro() {
			t.Errorf("what stayed was written anew at %d", changed)
		}
	})
}

// Each sees what the one before has left: two that make a key at once make one.
func TestOneProcessAtATimeChangesKeys(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		var all sync.WaitGroup
		for range 4 {
			s := open(t, c)
			all.Go(func() {
				for range 5 {
					if err := s.UpdateKeys(t.Context(), now, func(rows map[string]string) error {
						rows[fmt.Sprint(len(rows))] = "key"
						return nil
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		must(t, open(t, c).UpdateKeys(t.Context(), now, func(rows map[string]string) error {
			if len(rows) != 20 {
				t.Errorf("%d keys: %v", len(rows), rows)
			}
			return nil
		}))
	})
}
