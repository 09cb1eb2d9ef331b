package users

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Guard stands before every password of the process. It compares passwords with bcrypt hashes, and sees to it that
//
//   - a password that was right is remembered, so that a node pays for bcrypt once and not at every pull;
//   - the same question asked at once by many is answered by one comparison;
//   - only so many comparisons run, and wait, that who is remembered does not notice;
//   - who guesses is held back (throttle);
//   - no clock tells a user from a name that nobody has: one highest cost, which every refusal takes, for all backends
//     of a chain.
type Guard struct {
	*guarded
	cost *atomic.Int64 // the highest that a backend of this chain has
}

// guarded is what the guards of all chains share.
type guarded struct {
	limits   atomic.Pointer[Limits]
	turns    turns
	memory   *memory
	flights  flights
	throttle throttle
	events   GuardEvents
	elapsed  func() time.Duration // since the process began: a clock that nobody sets
	pause    func(ctx context.Context, d time.Duration)
}

// Limits of a guard.
type Limits struct {
	Parallel int           // comparisons at once; 0 = 1
	Remember time.Duration // for which a password that was right is not compared again; 0 = never
	Throttle Throttle

	blur bool
}

// GuardEvents is who listens to a guard; nil = nobody.
type GuardEvents struct {
	Check    func(cost int) (done func()) // a comparison starts, and ends
	Recalled func(result string)          // "hit", "refused" (known to be wrong), "shared" (with one under way) or "miss"
	HeldBack func(reason string)          // as in Later.Reason
}

// NewGuard returns a guard with the least of limits: it remembers nothing, holds nobody back, and hurries.
func NewGuard(events GuardEvents) *Guard {
	if events.Check == nil {
		events.Check = func(int) func() { return func() {} }
	}
	if events.Recalled == nil {
		events.Recalled = func(string) {}
	}
	if events.HeldBack == nil {
		events.HeldBack = func(string) {}
	}
	start := time.Now()
	g := &Guard{&guarded{memory: newMemory(), events: events, elapsed: func() time.Duration { return time.Since(start) }, pause: pause}, new(atomic.Int64)}
	g.throttle.charged.most, g.throttle.overlooked = mostCounters, overlookedADay
	g.limit(Limits{})
	return g
}

// Limit sets the limits of all guards of the process, also while they are at work.
func (g *Guard) Limit(l Limits) {
	l.blur = true
	g.limit(l)
}

func (g *Guard) limit(l Limits) {
	g.limits.Store(&l)
	g.turns.set(max(1, l.Parallel))
}

// Waiting is how many passwords wait to be hashed.
func (g *Guard) Waiting() int { return g.turns.waiting() }

// ForChain returns a guard for the backends of one chain: it shares everything and knows no cost yet.
func (g *Guard) ForChain() *Guard { return &Guard{g.guarded, new(atomic.Int64)} }

// expect raises the highest cost. Backends call it while they load, and when they meet a hash that is dearer.
func (g *Guard) expect(cost int) {
	for {
		have := g.cost.Load()
		if int64(cost) <= have || g.cost.CompareAndSwap(have, int64(cost)) {
			return
		}
	}
}

// check tells whether the password is the one that was hashed, at a cost. An error means that it was not checked; it is
// a *Later when that was for the guard's own reasons.
func (g *Guard) check(ctx context.Context, c Credentials, hash []byte, cost int) (bool, error) {
	if c.Password == "" || len(c.Password) > MaxPasswordLength {
		return false, nil
	}
	if err := ctx.Err(); err != nil { // whatever is remembered: no answer is wanted
		return false, err
	}
	limits := g.limits.Load()
	q := &question{Credentials: c, hash: hash, cost: cost, digest: g.memory.digest(c.Username, hash, c.Password)}
	remembered := g.memory.recall(q.digest, g.elapsed(), limits)
	q.trusted = remembered == rightLately || remembered == rightOnce
	// Before anything is said of the password, be it that somebody else was wrong with it.
	if err := g.throttle.admit(q, g.elapsed(), limits.Throttle); err != nil {
		return false, g.heldBack(err)
	}
	switch remembered {
	case rightLately:
		g.events.Recalled("hit")
		return true, nil
	case wrongLately:
		g.events.Recalled("refused")
		return false, nil
	}
	ok, shared, err := g.flights.join(ctx, q.digest, func(ctx context.Context) (bool, error) { return g.ask(ctx, q, limits) })
	if shared {
		g.events.Recalled("shared")
	} else {
		g.events.Recalled("miss")
	}
	if ok {
		g.throttle.right(q, g.elapsed(), limits.Throttle)
	}
	return ok, err
}

// question is one that memory could not answer.
type question struct {
	Credentials
	hash    []byte
	cost    int
	digest  digest
	trusted bool // it was right before, so it is no guess
}

// ask compares.
//
// A refusal takes as long as one at the highest cost: costs are powers of two, so one more comparison at each cost from
// the hash's own up to the highest but one adds up to exactly that. All are done in one turn, because waiting for
// several turns on a busy machine would tell users apart as well.
func (g *Guard) ask(ctx context.Context, q *question, limits *Limits) (bool, error) {
	if err := g.turns.take(ctx, q.trusted); err != nil {
		return false, g.heldBack(err)
	}
	defer g.turns.giveBack()
	right := false
	inBackground(func() {
		if right = g.compare(q.hash, q.cost, q.Password); right {
			return
		}
		for cost := q.cost; int64(cost) < g.cost.Load(); cost++ {
			g.compare(decoy(cost), cost, q.Password)
		}
	})
	if right {
		g.memory.right(q.digest, g.elapsed(), limits)
		return true, nil
	}
	g.memory.wrong(q.digest, g.elapsed(), limits)
	g.throttle.wrong(q.Username, g.elapsed(), limits.Throttle)
	return false, nil
}

func (g *Guard) heldBack(err error) error {
	if later, ok := err.(*Later); ok {
		g.events.HeldBack(later.Reason)
	}
	return err
}

// Refuse takes the time, the turn and the throttling of refusing a known user. An error means what it means for a known user.
func (g *Guard) Refuse(ctx context.Context, c Credentials) error {
	cost := int(g.cost.Load())
	if cost == 0 { // no backend has hashes
		return nil
	}
	_, err := g.check(ctx, c, decoy(cost), cost)
	return err
}

// grain is what the time of a refusal is rounded up to, and at most as much is added at random. It is longer than a
// directory needs to answer, and next to what a comparison takes it is little.
const grain = 25 * time.Millisecond

// blur rounds up the time that a refusal takes, since it began. One that needs no comparison would else be so quick that
// the clock tells what the directory knew by heart from what it had to look for, and a name of the first backend from one
// that all were asked about. Timers are not exact enough to hide it all, so chance does the rest.
func (g *Guard) blur(ctx context.Context, began time.Duration) {
	if g.limits.Load().blur {
		g.pause(ctx, grain-(g.elapsed()-began)%grain+rand.N(grain))
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Hash is HashPassword within the bound on comparisons at once.
func (g *Guard) Hash(ctx context.Context, password string, cost int) (string, error) {
	if err := g.turns.take(ctx, false); err != nil {
		return "", g.heldBack(err)
	}
	defer g.turns.giveBack()
	var hash string
	var err error
	inBackground(func() { hash, err = HashPassword(password, cost) })
	return hash, err
}

// inBackground waits for what is done on a thread that gives way to all others. A hash takes as long as a thousand
// requests: whoever needs none must not wait until the scheduler takes the core away from it.
func inBackground(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine, so nobody else becomes slow on it
		giveWay()
		do()
	}()
	<-done
}

func (g *Guard) compare(hash []byte, cost int, password string) bool {
	defer g.events.Check(cost)()
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
}

// flights are the questions that are being answered. Who asks one that is under way waits for its answer.
type flights struct {
	mu    sync.Mutex
	under map[digest]*flight
}

type flight struct {
	done    chan struct{}
	ok      bool
	err     error
	waiting int
	cancel  context.CancelFunc
}

// join answers a question, together with others who ask the same. It goes on as long as one of them waits.
func (f *flights) join(ctx context.Context, d digest, ask func(context.Context) (bool, error)) (ok, shared bool, err error) {
	f.mu.Lock()
	one, shared := f.under[d]
	if !shared {
		run, cancel := context.WithCancel(context.WithoutCancel(ctx))
		one = &flight{done: make(chan struct{}), cancel: cancel}
		if f.under == nil {
			f.under = map[digest]*flight{}
		}
		f.under[d] = one
		go func() {
			one.ok, one.err = ask(run)
			f.land(d, one)
			close(one.done)
		}()
	}
	one.waiting++
	f.mu.Unlock()
	select {
	case <-one.done:
		return one.ok, shared, one.err
	case <-ctx.Done():
		f.leave(d, one)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) { // it waited for its turn, or for a hash that others hold up
			return false, shared, &Later{Reason: heldByQueue, After: queueRetry}
		}
		return false, shared, ctx.Err()
	}
}

func (f *flights) land(d digest, one *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one.cancel()
	if f.under[d] == one {
		delete(f.under, d)
	}
}

// leave gives up waiting. The last one calls the question off; who asks it again begins anew.
func (f *flights) leave(d digest, one *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one.waiting--; one.waiting > 0 {
		return
	}
	one.cancel()
	if f.under[d] == one {
		delete(f.under, d)
	}
}
