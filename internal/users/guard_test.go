package users_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"authserver/internal/users"
)

// These tests run in bubbles of testing/synctest: time passes when everybody waits, and a comparison takes none.

// gate is a guarded chain. While it is shut, comparisons wait before they begin.
type gate struct {
	t        *testing.T
	guard    *users.Guard
	chain    *users.Chain
	compared atomic.Int64
	shut     chan struct{} // nil = open

	mu     sync.Mutex
	events []string
}

var usualLimits = users.Limits{Parallel: 1, Remember: 5 * time.Minute, Throttle: users.Throttle{Account: 10, Network: 300, Window: 5 * time.Minute}}

// newGate returns a chain over backends that are made with its guard: by default a file with alice and bob, whose
// passwords are "right".
func newGate(t *testing.T, limits users.Limits, backends ...func(*users.Guard) users.Authenticator) *gate {
	t.Helper()
	g := &gate{t: t}
	note := func(event string) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.events = append(g.events, event)
	}
	g.guard = users.NewGuard(users.GuardEvents{
		Check: func(int) func() {
			if g.shut != nil {
				<-g.shut
			}
			g.compared.Add(1)
			return func() {}
		},
		Recalled: note, HeldBack: note,
	})
	g.guard.Limit(limits)
	g.guard.Unrounded()
	if backends == nil {
		lines := []string{"alice:" + rightHash(), "bob:" + rightHash()}
		backends = append(backends, func(guard *users.Guard) users.Authenticator { return loadUsers(t, guard, lines...) })
	}
	var list []users.Authenticator
	for _, b := range backends {
		list = append(list, b(g.guard))
	}
	g.chain = users.NewChain(list, g.guard, nil)
	return g
}

var rightHash = sync.OnceValue(func() string {
	h, err := users.HashPassword("right", users.MinCost)
	if err != nil {
		panic(err)
	}
	return h
})

// took are the events since the last call.
func (g *gate) took() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	events := g.events
	g.events = nil
	return events
}

const (
	home  = "192.0.2.1"
	away  = "198.51.100.7"
	third = "203.0.113.9"
)

func (g *gate) try(name, password, from string) error {
	return g.tryWith(g.t.Context(), name, password, from)
}

func (g *gate) tryWith(ctx context.Context, name, password, from string) error {
	c := users.Credentials{Username: name, Password: password}
	if from != "" {
		c.From = netip.MustParseAddr(from)
	}
	p, err := g.chain.Authenticate(ctx, c)
	if (err == nil) != (p.Name == name) {
		g.t.Errorf("%s: %+v, %v", name, p, err)
	}
	return err
}

// answers: nil, ErrRefused, or the reason of a *Later.
func (g *gate) wants(what string, err error, want string) *users.Later {
	g.t.Helper()
	got := "right"
	var later *users.Later
	switch {
	case errors.As(err, &later):
		got = later.Reason
	case errors.Is(err, users.ErrRefused):
		got = "refused"
	case errors.Is(err, context.Canceled):
		got = "gone"
	case err != nil:
		got = err.Error()
	}
	if got != want {
		g.t.Errorf("%s: %s, want %s", what, got, want)
	}
	if later != nil && (errors.Is(err, users.ErrRefused) || later.After <= 0 || later.Throttled() != (got != "queue")) {
		g.t.Errorf("%s: %v, %+v", what, err, later)
	}
	return later
}

func (g *gate) comparisons(what string, want int64) {
	g.t.Helper()
	if got := g.compared.Swap(0); got != want {
		g.t.Errorf("%s: %d comparisons, want %d", what, got, want)
	}
}

func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestWhatIsRememberedIsNotComparedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGate(t, users.Limits{Parallel: 1, Remember: 5 * time.Minute})
		step := func(what string, err error, answer string, compared int64, event string) {
			t.Helper()
			g.wants(what, err, answer)
			g.comparisons(what, compared)
			if events := g.took(); !slices.Equal(events, []string{event}) {
				t.Errorf("%s: events %q, want %q", what, events, event)
			}
		}
		step("first", g.try("alice", "right", home), "right", 1, "miss")
		step("again", g.try("alice", "right", home), "right", 0, "hit")
		step("from elsewhere", g.try("alice", "right", away), "right", 0, "hit")
		step("another name with the same hash and password", g.try("bob", "right", home), "right", 1, "miss")
		step("wrong", g.try("alice", "wrong", home), "refused", 1, "miss")
		step("wrong again", g.try("alice", "wrong", home), "refused", 0, "refused")
		step("wrong for bob", g.try("bob", "wrong", home), "refused", 1, "miss")
		step("nobody", g.try("nobody", "wrong", home), "refused", 1, "miss")
		step("nobody again", g.try("nobody", "wrong", home), "refused", 0, "refused")
		step("right, still", g.try("alice", "right", home), "right", 0, "hit")

		time.Sleep(5*time.Minute - time.Second)
		step("shortly before it is forgotten", g.try("alice", "right", home), "right", 0, "hit") // a hit does not prolong it
		time.Sleep(2 * time.Second)
		step("forgotten", g.try("alice", "right", home), "right", 1, "miss")
		step("wrong, forgotten", g.try("alice", "wrong", home), "refused", 1, "miss")
		step("nobody, forgotten", g.try("nobody", "wrong", home), "refused", 1, "miss")

		// Limits are those of now, also for what was remembered before.
		g.guard.Limit(users.Limits{Parallel: 1})
		step("no memory", g.try("alice", "right", home), "right", 1, "miss")
		step("no memory", g.try("alice", "right", home), "right", 1, "miss")
		step("no memory, wrong", g.try("alice", "wrong", home), "refused", 1, "miss")
		step("no memory, wrong", g.try("alice", "wrong", home), "refused", 1, "miss")
		g.guard.Limit(users.Limits{Parallel: 1, Remember: time.Hour})
		step("memory again", g.try("alice", "right", home), "right", 0, "hit") // of before
		time.Sleep(20 * time.Minute)
		step("an hour's memory", g.try("alice", "right", home), "right", 0, "hit")
		g.guard.Limit(users.Limits{Parallel: 1, Remember: 20 * time.Minute})
		step("a shorter one", g.try("alice", "right", home), "right", 1, "miss")
		step("wrong", g.try("alice", "wrong", home), "refused", 1, "miss")
		time.Sleep(11 * time.Minute)
		step("a wrong one is never remembered that long", g.try("alice", "wrong", home), "refused", 1, "miss")
	})
}

func TestAChangedPasswordIsOutAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGate(t, usualLimits)
		g.wants("old password", g.try("alice", "right", home), "right")
		g.wants("new password, too early", g.try("alice", "new", home), "refused")
		reload := func(lines ...string) {
			guard := g.guard.ForChain()
			g.chain = users.NewChain([]users.Authenticator{loadUsers(t, guard, lines...)}, guard, nil)
			g.compared.Store(0)
		}
		reload("alice:" + hash(t, "new"))
		g.wants("old password after the change", g.try("alice", "right", home), "refused")
		g.comparisons("old password after the change", 1)
		g.wants("new password", g.try("alice", "new", home), "right")
		g.comparisons("new password", 1)
		reload("alice:" + hash(t, "right"))
		g.wants("the first password set anew", g.try("alice", "right", home), "right")
		g.comparisons("the first password set anew", 1)
		g.wants("new password after that", g.try("alice", "new", home), "refused")
		reload("bob:" + rightHash())
		g.wants("a user who was removed", g.try("alice", "right", home), "refused")
	})
}

// As when a fleet starts, or a job with a hundred steps.
func TestTheSameQuestionOfManyIsOneComparison(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, c := range []struct{ name, password, answer string }{
			{"alice", "right", "right"}, {"alice", "wrong", "refused"}, {"nobody", "wrong", "refused"},
		} {
			g := newGate(t, usualLimits)
			g.shut = make(chan struct{})
			var all sync.WaitGroup
			const nodes = 500
			for i := range nodes {
				all.Go(func() {
					g.wants(c.name, g.try(c.name, c.password, fmt.Sprintf("10.0.%d.%d", i/200, i%200)), c.answer)
				})
			}
			synctest.Wait()
			close(g.shut)
			all.Wait()
			g.comparisons(c.name+"/"+c.password, 1)
			events := map[string]int{}
			for _, e := range g.took() {
				events[e]++
			}
			if events["miss"] != 1 || events["shared"] != nodes-1 || len(events) != 2 {
				t.Errorf("%s: %v", c.name, events)
			}
			// Nor was it a guess, for any of them.
			for i := range 9 {
				g.wants("a guess after it", g.try("alice", fmt.Sprint(i), "10.0.0.1"), "refused")
			}
		}
	})
}

func TestWhoGivesUpWaitingStopsNobodyElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGate(t, users.Limits{Parallel: 1})
		g.shut = make(chan struct{})
		var all sync.WaitGroup
		ask := func(ctx context.Context, name, password, answer string) {
			all.Go(func() { g.wants(name+"/"+password, g.tryWith(ctx, name, password, home), answer) })
			synctest.Wait()
		}
		first, leaveFirst := context.WithCancel(t.Context())
		second, leaveSecond := context.WithCancel(t.Context())
		ask(first, "alice", "right", "gone")
		ask(second, "alice", "right", "gone")
		ask(t.Context(), "alice", "right", "right")
		leaveFirst() // it began
		synctest.Wait()
		leaveSecond()
		synctest.Wait()

		// Behind it waits one whom nobody waits for in the end: it is never compared, and leaves no place taken.
		behind, leaveBehind := context.WithCancel(t.Context())
		ask(behind, "bob", "right", "gone")
		leaveBehind()
		synctest.Wait()
		// Who asks the same again begins anew.
		ask(t.Context(), "bob", "right", "right")
		close(g.shut)
		all.Wait()
		g.comparisons("alice once, bob once", 2)
	})
}

// The comparison cannot be stopped, and its turn is not given to two.
func TestAQuestionThatEverybodyHasLeftIsAskedAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGate(t, users.Limits{Parallel: 1})
		g.shut = make(chan struct{})
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { g.wants("left", g.tryWith(ctx, "alice", "right", home), "gone") })
		synctest.Wait()
		leave()
		synctest.Wait()
		all.Go(func() { g.wants("anew", g.try("alice", "right", home), "right") })
		synctest.Wait()
		close(g.shut)
		all.Wait()
		synctest.Wait()
		g.comparisons("the one that nobody waited for, and the new one", 2)
		g.wants("later", g.try("alice", "right", home), "right") // nothing is stuck
	})
}

func TestAFullQueueSaysLaterToAllAlike(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGate(t, users.Limits{Parallel: 1, Remember: 5 * time.Minute})
		g.wants("bob, before", g.try("bob", "right", home), "right")
		time.Sleep(6 * time.Minute) // he is compared again, but is known
		g.wants("alice, before", g.try("alice", "right", home), "right")
		g.shut = make(chan struct{})
		g.took()
		var all sync.WaitGroup
		for i := range 65 { // one at work, 64 wait
			all.Go(func() { g.wants("in the queue", g.try("nobody", fmt.Sprint(i), away), "refused") })
		}
		synctest.Wait()
		for _, name := range []string{"alice", "nobody", "somebody"} {
			if later := g.wants(name, g.try(name, "wrong", third), "queue"); later == nil || later.After != 5*time.Second {
				t.Errorf("%s: %+v", name, later)
			}
		}
		if _, err := g.guard.Hash(t.Context(), "new", 4); g.wants("a new password", err, "queue") == nil {
			t.Error(err)
		}
		g.wants("who is remembered", g.try("alice", "right", home), "right")
		if events := g.took(); !slices.Equal(events, []string{"queue", "miss", "queue", "miss", "queue", "miss", "queue", "hit"}) {
			t.Errorf("events %q", events)
		}
		// Who was right once has a queue of his own, which is served first.
		done := false
		all.Go(func() {
			g.wants("who was right once", g.try("bob", "right", home), "right")
			done = true
			g.comparisons("before bob's turn", 2)
		})
		synctest.Wait()
		g.compared.Store(0)
		g.shut <- struct{}{}
		synctest.Wait()
		g.shut <- struct{}{}
		synctest.Wait()
		if !done {
			t.Error("bob waits behind those who guess")
		}
		close(g.shut)
		all.Wait()
	})
}

func limited(account, network int) users.Limits {
	l := usualLimits
	l.Throttle.Account, l.Throttle.Network = account, network
	return l
}

// guess tries n passwords that nobody has tried.
func (g *gate) guess(n int, name, from, answer string) {
	g.t.Helper()
	for range n {
		g.wants(fmt.Sprintf("guess at %s from %s", name, from), g.try(name, fmt.Sprint("guess ", guesses.Add(1)), from), answer)
	}
}

var guesses atomic.Int64

func TestGuessesAreHeldBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGate(t, limited(10, 0))
		g.guess(10, "alice", away, "refused")
		g.comparisons("ten guesses", 10)
		later := g.wants("the eleventh", g.try("alice", "eleven", away), "account")
		if later.After < 29*time.Second || later.After > 30*time.Second || !strings.HasPrefix(later.Error(), "too many wrong passwords for this account from this network; to be tried again after ") {
			t.Errorf("%v", later)
		}
		g.guess(5, "alice", away, "account")
		g.wants("the right one is not told either", g.try("alice", "right", away), "account")
		g.comparisons("what is held back", 0)

		g.guess(1, "bob", away, "refused") // another account
		g.guess(1, "alice", third, "refused")
		g.wants("who knows the password elsewhere", g.try("alice", "right", home), "right")
		g.wants("who is held back, still", g.try("alice", "right", away), "account")

		// One try comes free after as long as it said, and no more.
		later = g.wants("held back", g.try("alice", "twelve", away), "account")
		time.Sleep(later.After - 100*time.Millisecond)
		g.wants("too early", g.try("alice", "twelve", away), "account")
		time.Sleep(100 * time.Millisecond)
		g.wants("as it was told", g.try("alice", "twelve", away), "refused")
		g.guess(1, "alice", away, "account")
		time.Sleep(5 * time.Minute)
		g.guess(10, "alice", away, "refused")
		g.guess(1, "alice", away, "account")
		time.Sleep(30 * time.Second)
		g.wants("the right one, when its time has come", g.try("alice", "right", away), "right")
		g.guess(1, "alice", away, "refused") // it was given back
	})
}

func TestWhatIsNoGuessIsNotCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGate(t, limited(3, 0))
		g.guard.Limit(users.Limits{Parallel: 1, Throttle: limited(3, 0).Throttle}) // all are compared
		for range 100 {
			g.wants("right", g.try("alice", "right", away), "right")
		}
		g.comparisons("right ones", 100)
		for range 100 {
			g.wants("the same wrong one", g.try("alice", "old", away), "refused") // a node that was not told the new one
		}
		g.comparisons("the same wrong one", 1)
		g.wants("empty", g.try("alice", "", away), "refused")
		g.wants("too long", g.try("alice", strings.Repeat("x", 73), away), "refused")
		g.guess(2, "alice", away, "refused")
		g.guess(1, "alice", away, "account")
		// Who is held back is still told that the wrong one is wrong: docker would else show another error at each try.
		g.wants("the same wrong one", g.try("alice", "old", away), "refused")
		// But it is not told what others have tried, perhaps the owner: an old password is half the new one.
		g.wants("mine", g.try("alice", "summer 2025", home), "refused")
		g.wants("another's", g.try("alice", "summer 2025", away), "account")
		g.wants("another's, of nobody", g.try("nobody", "summer 2025", home), "refused")
		g.guess(3, "nobody", away, "refused")
		g.wants("another's, of nobody", g.try("nobody", "summer 2025", away), "account")
	})
}

// Who hangs up has guessed all the same, and so has who sends all guesses at once.
func TestGuessesCountBeforeTheyAreAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGate(t, limited(10, 0))
		g.wants("the owner", g.try("alice", "right", home), "right") // it is remembered: to be right needs no turn
		g.shut = make(chan struct{})
		var all sync.WaitGroup
		for i := range 10 {
			ctx, hangUp := context.WithCancel(t.Context())
			all.Go(func() { g.wants("hung up", g.tryWith(ctx, "alice", fmt.Sprint("early ", i), away), "gone") })
			synctest.Wait()
			hangUp()
		}
		g.wants("the eleventh", g.try("alice", "eleven", away), "account")
		g.wants("the right one", g.try("alice", "right", away), "account")
		close(g.shut)
		all.Wait()
		synctest.Wait()
		g.shut = nil

		var refused, held atomic.Int64
		g.compared.Store(0)
		for i := range 300 {
			all.Go(func() {
				switch err := g.try("bob", fmt.Sprint("at once ", i), away); {
				case errors.Is(err, users.ErrRefused):
					refused.Add(1)
				case errors.As(err, new(*users.Later)):
					held.Add(1)
				default:
					t.Errorf("%v", err)
				}
			})
		}
		all.Wait()
		if refused.Load() != 10 || held.Load() != 290 {
			t.Errorf("%d refused, %d held back", refused.Load(), held.Load())
		}
		g.comparisons("at once", 10)
	})
}

// Who finds the queue full with the right password, again and again, is not held back for it.
func TestTheQueueLocksNobodyOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGate(t, limited(3, 0))
		g.guard.Limit(users.Limits{Parallel: 1, Remember: time.Minute, Throttle: users.Throttle{Account: 3, Window: 5 * time.Minute}})
		g.shut = make(chan struct{})
		var all sync.WaitGroup
		for i := range 65 {
			all.Go(func() { g.wants("the queue", g.try(fmt.Sprint("nobody", i), "x", away), "refused") })
		}
		synctest.Wait()
		for range 20 {
			g.wants("no place", g.try("alice", "right", home), "queue")
		}
		close(g.shut)
		all.Wait()
		g.shut = nil
		g.wants("a place", g.try("alice", "right", home), "right")
		g.guess(3, "alice", home, "refused") // it was given back
		g.guess(1, "alice", home, "account")
	})
}

// A fleet behind one address goes on, though somebody guesses from there.
func TestWhoIsAtHomePassesWhileOthersAreHeldBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGate(t, limited(10, 20))
		g.wants("the owner", g.try("alice", "right", home), "right")
		g.guess(10, "alice", home, "refused")
		g.guess(80, "alice", home, "account") // they are overlooked so far, and told nothing
		for range 1000 {
			g.wants("the owner", g.try("alice", "right", home), "right")
		}
		time.Sleep(6 * time.Minute) // not remembered, only known: compared, and no guess
		g.compared.Store(0)
		g.guess(10, "alice", home, "refused")
		g.guess(1, "alice", home, "account")
		g.comparisons("guesses", 10)
		g.wants("the owner", g.try("alice", "right", home), "right")
		g.comparisons("the owner", 1)
		g.wants("somebody who is not at home here", g.try("bob", "right", home), "right")
		g.guess(10, "bob", home, "refused") // 20 of the network
		g.wants("bob", g.try("bob", "right", home), "right")
		g.guess(1, "carol", home, "network")
		g.wants("alice", g.try("alice", "right", home), "right") // the network's limit is not hers

		// She is not at home where she never was, whatever is remembered.
		g.guess(10, "alice", away, "refused")
		g.wants("away", g.try("alice", "right", away), "account")
		time.Sleep(24 * time.Hour)
		g.guess(10, "alice", home, "refused")
		g.wants("a day later", g.try("alice", "right", home), "account")
	})
	// Else whoever shares her address could ask for free what the remembered password is, as often as the network bears.
	bubble(t, func(t *testing.T) {
		g := newGate(t, limited(10, 0))
		g.guard.Overlook(400)
		g.wants("the owner", g.try("alice", "right", home), "right")
		g.guess(10, "alice", home, "refused")
		g.guess(500, "alice", home, "account")
		later := g.wants("too many, even here", g.try("alice", "right", home), "account")
		// Nor does the time to wait tell that she is at home here.
		g.guess(10, "nobody", home, "refused")
		g.guess(500, "nobody", home, "account")
		if other := g.wants("nobody", g.try("nobody", "right", home), "account"); later.After.Round(time.Second) != other.After.Round(time.Second) {
			t.Errorf("%s, nobody %s", later.After, other.After)
		}
		g.wants("elsewhere", g.try("alice", "right", away), "right")
		time.Sleep(4 * time.Minute) // a day for 400
		g.wants("soon", g.try("alice", "right", home), "right")
	})
}

func TestNetworks(t *testing.T) {
	for _, c := range []struct {
		what, one, other string
		same             bool
	}{
		{"IPv4", "192.0.2.1", "192.0.2.1", true},
		{"the next address", "192.0.2.1", "192.0.2.2", false},
		{"IPv4 in IPv6", "192.0.2.1", "::ffff:192.0.2.1", true},
		{"another in IPv6", "::ffff:192.0.2.2", "::ffff:192.0.2.1", false},
		{"a /64", "2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", true},
		{"two /64", "2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"zones", "fe80::1%eth0", "fe80::2%eth1", true},
		{"unknown", "", "", true},
		{"unknown and known", "", "192.0.2.1", false},
	} {
		bubble(t, func(t *testing.T) {
			g := newGate(t, limited(2, 0))
			g.guess(2, "alice", c.one, "refused")
			want := "refused"
			if c.same {
				want = "account"
			}
			g.guess(1, "alice", c.other, want)
		})
	}
	// Who rents a /48 has 65536 of them.
	bubble(t, func(t *testing.T) {
		g := newGate(t, limited(2, 5))
		n := 0
		next := func() string { n++; return fmt.Sprintf("2001:db8:0:%x::1", n) }
		for range 10 {
			g.guess(2, "alice", next(), "refused")
		}
		g.guess(1, "alice", next(), "account")
		g.guess(1, "alice", "2001:db8:1:1::1", "refused")
		for range 15 {
			g.guess(2, fmt.Sprint("nobody", n), next(), "refused")
		}
		g.guess(1, "bob", next(), "network")
		g.guess(1, "bob", "2001:db8:1:1::1", "refused")
	})
}

func TestTheLimitOfANetwork(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGate(t, limited(0, 30))
		g.guard.Overlook(30)
		g.wants("bob", g.try("bob", "right", home), "right")
		for i := range 30 {
			g.guess(1, fmt.Sprint("name", i), home, "refused")
		}
		later := g.wants("the next", g.try("alice", "x", home), "network")
		if later.After < 9*time.Second || later.After > 10*time.Second || !strings.HasPrefix(later.Error(), "too many wrong passwords from this network") {
			t.Errorf("%v", later)
		}
		g.wants("who is not at home here", g.try("alice", "right", home), "network")
		g.wants("who is", g.try("bob", "right", home), "right")
		g.guess(29, "bob", home, "network")
		g.wants("who is", g.try("bob", "right", home), "right")
		g.guess(1, "bob", home, "network")
		g.wants("too many", g.try("bob", "right", home), "network")
		g.guess(1, "alice", away, "refused")
		g.guess(100, "alice", "", "refused") // not known where from: no network that could be held back
	})
}

// An account that is guessed at from everywhere.
func TestABesiegedAccountHasOneTryForEachNetwork(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, name := range []string{"alice", "nobody"} {
			g := newGate(t, limited(3, 0))
			for i := range 15 {
				g.guess(2, name, fmt.Sprintf("10.0.0.%d", i), "refused")
			}
			g.guess(1, name, away, "refused")
			g.guess(1, name, away, "account")
			if name == "alice" {
				g.wants("the owner", g.try(name, "right", home), "right")
				g.wants("the owner again", g.try(name, "right", home), "right")
				g.guess(1, "bob", away, "refused")
				g.guess(1, "bob", away, "refused")
			}
			time.Sleep(5 * time.Minute)
			g.guess(3, name, away, "refused")
		}
		// One wrong password of a large fleet is no siege, nor are the right ones of one.
		g := newGate(t, limited(3, 0))
		for i := range 200 {
			g.wants("a node that was not told the new one", g.try("alice", "old", fmt.Sprintf("10.0.0.%d", i)), "refused")
			g.wants("a node that was", g.try("alice", "right", fmt.Sprintf("10.0.1.%d", i)), "right")
		}
		g.guess(2, "alice", away, "refused")
	})
}

func TestZeroIsNoLimit(t *testing.T) {
	for _, l := range []users.Throttle{{}, {Window: 5 * time.Minute}, {Account: 1, Network: 1}} {
		bubble(t, func(t *testing.T) {
			g := newGate(t, users.Limits{Parallel: 1, Throttle: l})
			g.guess(50, "alice", home, "refused")
			g.wants("right", g.try("alice", "right", home), "right")
		})
	}
	bubble(t, func(t *testing.T) { // set and taken away while it is in use
		g := newGate(t, limited(2, 0))
		g.guess(2, "alice", home, "refused")
		g.guess(1, "alice", home, "account")
		g.guard.Limit(limited(4, 0))
		g.guess(2, "alice", home, "refused")
		g.guess(1, "alice", home, "account")
		g.guard.Limit(limited(1, 0))
		if later := g.wants("a tighter one", g.try("alice", "x", home), "account"); later.After < 19*time.Minute {
			t.Errorf("%s", later.After) // four at one in five minutes
		}
		g.guard.Limit(users.Limits{Parallel: 1})
		g.guess(10, "alice", home, "refused")
		g.guard.Limit(limited(2, 0))
		g.guess(1, "alice", home, "account")
	})
}

// Of all that a client sees, nothing tells a name that somebody has from one that nobody has.
func TestNothingTellsAUserFromNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		kept := newShelf(
			users.Account{Name: "carol", Kind: users.KindUser, Password: hash(t, "right", 5)},
			users.Account{Name: "locked", Kind: users.KindUser, Password: hash(t, "right", 5), Disabled: true},
			users.Account{Name: "ci", Kind: users.KindRobot},
			users.Account{Name: "damaged", Kind: users.KindUser, Password: "?"},
		)
		// Each name has a process of its own, so that none is held back for another.
		story := func(name string) (seen []string) {
			g := newGate(t, limited(3, 8),
				func(guard *users.Guard) users.Authenticator { return loadUsers(t, guard, "alice:"+rightHash()) },
				func(guard *users.Guard) users.Authenticator { return users.NewDatabase(kept, guard, 6) })
			g.shut = make(chan struct{})
			close(g.shut)
			for i, step := range []struct {
				password, from string
				after          time.Duration
			}{
				{"a", home, 0}, {"a", home, 0}, {"", home, 0}, {strings.Repeat("x", 72), home, 0}, {strings.Repeat("x", 73), home, 0}, {"c", home, 0},
				{"d", home, 0}, {"a", home, 0}, {"d", away, 0}, {"a", away, 0}, {"e", away, 0}, {"f", away, 0}, {"g", "", 0}, {"h", "", 0}, {"i", "", 0}, {"j", "", 0},
				{"a", home, 6 * time.Minute}, {"k", home, 0}, {"l", home, 0}, {"m", home, 0}, {"m", home, time.Minute},
				{"n", "2001:db8::1", 0}, {"o", "2001:db8::2", 0}, {"p", "2001:db8::3", 0}, {"q", "2001:db8::4", 0},
				{"r", third, 0}, {"s", third, 0}, // besieged by now, or not
			} {
				time.Sleep(step.after)
				g.compared.Store(0)
				err := g.try(name, step.password, step.from)
				text := fmt.Sprint(err)
				if later := new(users.Later); errors.As(err, &later) {
					text = fmt.Sprint(later.Reason, later.After)
				}
				seen = append(seen, fmt.Sprintf("%d: %s %s, compared %t", i, step.password, text, g.compared.Load() > 0))
			}
			return seen
		}
		want := story("nobody")
		for _, name := range []string{"alice", "carol", "locked", "ci", "damaged", "Alice"} {
			for i, got := range story(name) {
				if got != want[i] {
					t.Errorf("%s: %s\nnobody: %s", name, got, want[i])
				}
			}
		}
	})
}

// slow is a backend whose directory takes its time.
type slow struct {
	backend
	takes time.Duration
}

func (s *slow) Authenticate(ctx context.Context, c users.Credentials) (users.Principal, error) {
	time.Sleep(s.takes)
	return s.backend.Authenticate(ctx, c)
}

// The clock says nothing of which backend knew a name, nor of what a directory knew by heart.
func TestTheTimeOfARefusalIsRoundedUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		first := &slow{backend{name: "first", known: map[string]string{"alice": "a"}}, 0}
		second := &slow{backend{name: "second", known: map[string]string{"bob": "b"}}, 0}
		guard := users.NewGuard(users.GuardEvents{})
		guard.Limit(users.Limits{})
		chain := users.NewChain([]users.Authenticator{first, second}, guard, nil)
		const ms, grain = time.Millisecond, 25 * time.Millisecond
		took := func(name, password string, one, two time.Duration) (time.Duration, error) {
			first.takes, second.takes = one, two
			start := time.Now()
			_, err := ask(t, chain, name, password)
			return time.Since(start), err
		}
		for _, c := range []struct {
			name, password      string
			first, second, want time.Duration
		}{
			{"alice", "a", 3 * ms, 4 * ms, 0}, // who is let in does not wait
			{"bob", "b", 3 * ms, 4 * ms, 0},
			{"alice", "wrong", 3 * ms, 4 * ms, grain},
			{"alice", "wrong", 0, 4 * ms, grain},
			{"bob", "wrong", 3 * ms, 4 * ms, grain},
			{"nobody", "wrong", 3 * ms, 4 * ms, grain},
			{"nobody", "wrong", 0, 0, grain},
			{"nobody", "wrong", 0, 24 * ms, grain},
			{"nobody", "wrong", 251 * ms, 0, 275 * ms},
			{"alice", "wrong", 260 * ms, 0, 275 * ms},
		} {
			least, most := time.Hour, time.Duration(0)
			for range 100 {
				took, err := took(c.name, c.password, c.first, c.second)
				if (err == nil) != (c.want == 0) {
					t.Error(err)
				}
				least, most = min(least, took), max(most, took)
			}
			if c.want == 0 {
				if most > c.first+c.second {
					t.Errorf("%+v: up to %s", c, most)
				}
				continue
			}
			if least < c.want || least > c.want+grain/5 || most > c.want+grain || most < c.want+grain-grain/5 {
				t.Errorf("%+v: %s to %s", c, least, most)
			}
		}
		second.down = errors.New("down")
		if took, err := took("nobody", "x", 0, 3*ms); took != 3*ms || !errors.Is(err, second.down) {
			t.Errorf("an outage: %s, %v", took, err)
		}
		second.down = fmt.Errorf("down: %w", &users.Later{Reason: "account", After: time.Second})
		if took, err := took("nobody", "x", 0, 3*ms); took < grain || !errors.Is(err, second.down) {
			t.Errorf("held back: %s, %v", took, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*ms)
		defer cancel()
		start := time.Now()
		if _, err := chain.Authenticate(ctx, users.Credentials{Username: "alice", Password: "x"}); err != users.ErrRefused || time.Since(start) != 10*ms {
			t.Errorf("who does not wait for it: %v after %s", err, time.Since(start))
		}
		chain = users.NewChain([]users.Authenticator{first, second}, users.NewGuard(users.GuardEvents{}), nil)
		if took, err := took("alice", "x", 0, 0); took != 0 || err != users.ErrRefused {
			t.Errorf("a guard without limits: %v after %s", err, took)
		}
	})
}

// Who is held back at one backend, or finds its queue full, is not tried at the next, which may have another of that name.
func TestLaterIsTheLastWord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var answers []string
		for _, later := range []*users.Later{{Reason: "account", After: time.Second}, {Reason: "network", After: time.Second}, {Reason: "queue", After: time.Second}} {
			first := &backend{name: "first", down: fmt.Errorf("asking: %w", later)}
			second := &backend{name: "second", known: map[string]string{"alice": "a"}}
			chain := users.NewChain([]users.Authenticator{first, second}, users.NewGuard(users.GuardEvents{}), func(backend, outcome string) { answers = append(answers, backend+" "+outcome) })
			p, err := ask(t, chain, "alice", "a")
			if got := new(users.Later); !errors.As(err, &got) || got != later || p.Name != "" || second.asked != 0 || errors.Is(err, users.ErrRefused) {
				t.Errorf("%+v, %v, the second was asked %d times", p, err, second.asked)
			}
		}
		if want := []string{"first held_back", "first held_back", "first held_back"}; !slices.Equal(answers, want) {
			t.Errorf("answers %q", answers)
		}
		// Of a chain of ours: the second file's alice does not stand in, nor does an outage behind it matter.
		both := func(guard *users.Guard) users.Authenticator { return loadUsers(t, guard, "alice:"+rightHash()) }
		other := func(guard *users.Guard) users.Authenticator { return loadUsers(t, guard, "alice:"+hash(t, "other")) }
		g := newGate(t, limited(2, 0), both, other)
		g.guess(2, "alice", home, "refused")
		g.wants("the second's password", g.try("alice", "other", home), "account")
		g.wants("the second's password, elsewhere", g.try("alice", "other", away), "refused")
	})
}

// The cost of new passwords may have been lowered: an account that was not changed since is as slow as it was, and who
// is asked for first after a start must not stand out.
func TestTheDearestPasswordOfADatabaseIsKnownBeforeItIsMet(t *testing.T) {
	guard, work := counted()
	kept := newShelf(
		users.Account{Name: "new", Kind: users.KindUser, Password: hash(t, "right", 4)},
		users.Account{Name: "old", Kind: users.KindUser, Password: hash(t, "right", 6)},
		users.Account{Name: "ci", Kind: users.KindRobot},
		users.Account{Name: "damaged", Kind: users.KindUser, Password: "$2a$99$"},
		users.Account{Name: "short", Kind: users.KindUser, Password: "$2a$"},
		users.Account{Name: "strange", Kind: users.KindUser, Password: "$argon2id$v=19$"},
	)
	chain := users.NewChain([]users.Authenticator{users.NewDatabase(kept, guard, 4)}, guard, nil)
	for _, name := range []string{"nobody", "new", "ci", "old"} {
		work.Store(0)
		if _, err := ask(t, chain, name, "wrong"); err != users.ErrRefused || work.Load() != 4 {
			t.Errorf("%s: %v with work %d", name, err, work.Load())
		}
	}
	// One that is made elsewhere, at a cost that this process has not heard of, is learned when it is met.
	kept.accounts["dear"] = users.Account{Name: "dear", Kind: users.KindUser, Password: hash(t, "right", 7)}
	for _, name := range []string{"dear", "nobody", "new"} {
		work.Store(0)
		if _, err := ask(t, chain, name, "wrong"); err != users.ErrRefused || work.Load() != 8 {
			t.Errorf("%s: %v with work %d", name, err, work.Load())
		}
	}
	// A database that cannot be asked for them is one that cannot be asked.
	kept.down = errDown
	db := users.NewDatabase(kept, guard, 4)
	if _, err := db.Authenticate(t.Context(), users.Credentials{Username: "new", Password: "right"}); !errors.Is(err, errDown) {
		t.Error(err)
	}
	kept.down = nil
	if _, err := db.Authenticate(t.Context(), users.Credentials{Username: "new", Password: "right"}); err != nil {
		t.Error(err)
	}
}

// A store may remember accounts: what is changed in the account counts, and not what was compared.
func TestAnAccountThatIsLockedIsOutAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		kept := newShelf(users.Account{Name: "alice", Kind: users.KindUser, Password: rightHash()})
		g := newGate(t, usualLimits, func(guard *users.Guard) users.Authenticator { return users.NewDatabase(kept, guard, 4) })
		g.wants("before", g.try("alice", "right", home), "right")
		kept.change("alice", func(a *users.Account) { a.Disabled = true })
		g.wants("locked", g.try("alice", "right", home), "refused")
		kept.change("alice", func(a *users.Account) { a.Disabled = false })
		g.wants("let in again", g.try("alice", "right", home), "right")
		kept.change("alice", func(a *users.Account) { a.Password = hash(t, "new") })
		g.wants("another password", g.try("alice", "right", home), "refused")
		g.wants("the new one", g.try("alice", "new", home), "right")
		kept.change("alice", func(a *users.Account) { a.Kind = users.KindRobot })
		g.wants("a robot by now", g.try("alice", "new", home), "refused")
		delete(kept.accounts, "alice")
		g.wants("removed", g.try("alice", "new", home), "refused")
	})
}
