package users

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestNotesThatCannotBeWrittenHoldLittleAndNotLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := make(notes, notesAtOnce)
		var at, most atomic.Int32
		var all sync.WaitGroup
		start := time.Now()
		for range 40 {
			all.Go(func() {
				err := n.write(t.Context(), func(ctx context.Context) error {
					now := at.Add(1)
					defer at.Add(-1)
					for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
					}
					<-ctx.Done() // a database that takes no writes
					return ctx.Err()
				})
				if err == nil {
					t.Error("written")
				}
			})
		}
		all.Wait()
		if took := time.Since(start); took != noteWithin || most.Load() != notesAtOnce {
			t.Errorf("%d at once, %s", most.Load(), took)
		}
	})
}
