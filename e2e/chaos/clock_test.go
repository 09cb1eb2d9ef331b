package chaos_test

import (
	"sync/atomic"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// step is a time at which the clock was set.
type step struct {
	since time.Time
	ahead time.Duration
}

// The wall clock jumps ten minutes ahead, and to ten minutes behind. Tokens are dated by it, and nobody is refused.
func TestClockIsStepped(t *testing.T) {
	a := open(t, harness.Options{RefreshTokens: true})
	var bad complaints
	var dated atomic.Int64
	var steady atomic.Pointer[step] // nil while the clock is being set
	clock := harness.ClockOf(t, a.Process)
	ordeal{
		servers: []*harness.Authserver{a}, clients: clients(t, a),
		each: func(r result) {
			now := steady.Load()
			if now == nil || r.began.Before(now.since) {
				return
			}
			dated.Add(1)
			issued := time.Unix(r.claims.IssuedAt, 0).Add(30 * time.Second) // they are dated back
			if off := issued.Sub(r.began.Add(now.ahead)); off.Abs() > 3*time.Second {
				bad.add("the clock is %s ahead, and a token is dated %s off", now.ahead, off.Round(time.Second))
			}
			if lifetime := r.claims.ExpiresAt - r.claims.IssuedAt; lifetime != 330 {
				bad.add("a token lives %d seconds", lifetime)
			}
		},
	}.run(t, func() {
		for _, ahead := range []time.Duration{10 * time.Minute, -10 * time.Minute, 0} {
			steady.Store(nil)
			clock.Set(t, ahead)
			steady.Store(&step{time.Now(), ahead})
			time.Sleep(2 * time.Second)
			reload(t, a, true)
			if status := makeToken(t, a, "at "+ahead.String()); status != 201 {
				t.Errorf("%s ahead: a token cannot be made: status %d", ahead, status)
			}
		}
	})
	bad.report(t)
	if dated.Load() == 0 {
		t.Error("no token was given while the clock was wrong")
	}
}
