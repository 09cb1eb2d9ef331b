package webhook

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// nowhere is an address that is given up at once, without a network.
const nowhere = "nowhere://x"

// Too many questions are our own trouble: whether half of the timeout or the time of the request itself is up, they end without
// an answer, and are not held against who is asked.
func TestNoTurnIsNoFailure(t *testing.T) {
	for name, own := range map[string]time.Duration{"half of the timeout": time.Minute, "the time of the request": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var seen, states []string
				c, err := New(Config{
					URL: nowhere, Timeout: 4 * time.Second, Parallel: 1, Pause: time.Hour,
					Observe: func(outcome string, _ time.Duration) {
						mu.Lock()
						defer mu.Unlock()
						seen = append(seen, outcome)
					},
					OnChange: func(state string) {
						mu.Lock()
						defer mu.Unlock()
						states = append(states, state)
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				c.slots <- struct{}{}                               // somebody is asking,
				time.AfterFunc(3*time.Second, func() { <-c.slots }) // and has an answer when the rest of the time is less than half
				var all sync.WaitGroup
				for range 8 {
					all.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), own)
						defer cancel()
						if _, err := c.Review(ctx, Question{}); !errors.Is(err, errBusy) {
							t.Errorf("no turn: %v", err)
						}
					})
				}
				all.Wait()
				gone, leave := context.WithCancel(t.Context())
				leave()
				if _, err := c.Review(gone, Question{}); !errors.Is(err, errGone) {
					t.Errorf("no turn, and gone: %v", err)
				}
				if want := append(slices.Repeat([]string{Busy}, 8), Failed); !slices.Equal(seen, want) || len(states) > 0 {
					t.Errorf("observed %v, states %v", seen, states)
				}
			})
		})
	}
}

// A stall is no crowd: whose time to wait is over before it looks for a turn still takes one that is free.
func TestAFreeTurnIsTaken(t *testing.T) {
	c, err := New(Config{URL: nowhere, Parallel: 1})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := c.post(t.Context(), "", nil); err == nil || errors.Is(err, errBusy) {
			t.Fatal(err)
		}
	}
}
