package users

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryIsBoundedAndForgetsTheOldest(t *testing.T) {
	m, l := newMemory(), &Limits{Remember: time.Hour}
	for i := range m.shards {
		m.shards[i].right.most, m.shards[i].wrong.most = 3, 2
	}
	names := func(s int) []digest { // of one shard
		var list []digest
		for n := byte(0); len(list) < 10; n++ {
			list = append(list, digest{0: byte(s), 1: n})
		}
		return list
	}
	for i, d := range names(5) {
		m.right(d, time.Duration(i), l)
		m.wrong(d, time.Duration(i), l)
	}
	m.right(names(6)[0], 0, l)
	for i, d := range names(5) {
		want := nothing
		switch {
		case i >= 7:
			want = rightLately
		}
		if got := m.recall(d, 10, l); got != want {
			t.Errorf("%d: %d, want %d", i, got, want)
		}
		_, wrong := m.shards[5].wrong.entries[d]
		if wrong != (i >= 8) {
			t.Errorf("%d is remembered to be wrong: %t", i, wrong)
		}
	}
	if m.recall(names(6)[0], 10, l) != rightLately {
		t.Error("a shard drove out what another one has")
	}
	s := &m.shards[5]
	for i := range 1000 { // again and again: no growth
		m.right(names(5)[i%10], time.Duration(i), l)
	}
	if len(s.right.entries) != 3 || len(s.right.order) != 3 || len(s.wrong.entries) != 2 || cap(s.wrong.order) > 4 {
		t.Errorf("%d entries, %d in order, %d wrong", len(s.right.entries), len(s.right.order), len(s.wrong.entries))
	}
}

func TestHowLongWhatIsRemembered(t *testing.T) {
	throttled := Throttle{Account: 1, Window: 20 * time.Minute}
	for _, c := range []struct {
		what                string
		l                   Limits
		lately, once, wrong time.Duration
	}{
		{"nothing", Limits{}, 0, 0, 0},
		{"a memory", Limits{Remember: time.Minute}, time.Minute, trustedFor, time.Minute},
		{"a long memory", Limits{Remember: time.Hour}, time.Hour, trustedFor, wrongAtMost},
		{"a throttle", Limits{Throttle: throttled}, 0, trustedFor, wrongAtMost},
		{"both", Limits{Remember: time.Minute, Throttle: Throttle{Network: 1, Window: 2 * time.Minute}}, time.Minute, trustedFor, 2 * time.Minute},
	} {
		for age, want := range map[time.Duration]recollection{0: rightLately, c.lately - 1: rightLately, c.lately: rightOnce, c.once - 1: rightOnce, c.once: nothing} {
			if age < 0 || age >= c.lately && want == rightLately || age >= c.once && want == rightOnce {
				continue
			}
			m := newMemory()
			m.right(digest{}, time.Hour, &c.l)
			if got := m.recall(digest{}, time.Hour+age, &c.l); got != want {
				t.Errorf("%s: right, after %s: %d, want %d", c.what, age, got, want)
			}
		}
		for age, want := range map[time.Duration]recollection{c.wrong - 1: wrongLately, c.wrong: nothing} {
			m := newMemory()
			m.wrong(digest{}, time.Hour, &c.l)
			if age < 0 {
				if s := m.shards[0].wrong.entries; len(s) > 0 {
					t.Errorf("%s: a wrong one was noted", c.what)
				}
				continue
			}
			if got := m.recall(digest{}, time.Hour+age, &c.l); got != want {
				t.Errorf("%s: wrong, after %s: %d, want %d", c.what, age, got, want)
			}
		}
	}
	m := newMemory()
	if m.right(digest{}, 0, &Limits{}); len(m.shards[0].right.entries) > 0 {
		t.Error("what is never to be remembered was")
	}
}

// What is joined must not be taken for something else that is, and another process's digests are others.
func TestADigestIsOfNameHashAndPassword(t *testing.T) {
	m := newMemory()
	seen := map[digest][3]string{}
	for _, parts := range [][3]string{
		{"a", "b", "c"}, {"", "ab", "c"}, {"ab", "", "c"}, {"ab", "c", ""}, {"", "abc", ""}, {"a", "bc", ""}, {"a", "", "bc"}, {"", "", "abc"},
		{"a\x01", "b", "c"}, {"a", "\x01b", "c"}, {"A", "b", "c"}, {"a", "B", "c"}, {"a", "b", "C"}, {"a", "b", "c\x00"}, {"", "", ""},
	} {
		d := m.digest(parts[0], []byte(parts[1]), parts[2])
		if other, twice := seen[d]; twice {
			t.Errorf("%q and %q", parts, other)
		}
		seen[d] = parts
		if d != m.digest(parts[0], []byte(parts[1]), parts[2]) {
			t.Errorf("%q: another digest at the second time", parts)
		}
		if d == newMemory().digest(parts[0], []byte(parts[1]), parts[2]) {
			t.Errorf("%q: the same digest under another key", parts)
		}
	}
}

// line waits for turns; letters are noted as they get one.
type line struct {
	turns
	mu  sync.Mutex
	got string
}

func (l *line) join(t *testing.T, ctx context.Context, letter string, known bool) {
	t.Helper()
	go func() {
		if err := l.take(ctx, known); err != nil {
			letter = "(" + letter + ")"
		}
		l.mu.Lock()
		l.got += letter
		l.mu.Unlock()
	}()
	synctest.Wait()
}

func (l *line) wants(t *testing.T, what, want string) {
	t.Helper()
	synctest.Wait()
	if l.got != want {
		t.Errorf("%s: %s, want %s", what, l.got, want)
	}
}

func TestTurnsAreInTheOrderOfComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := &line{}, t.Context()
		l.set(2)
		for _, letter := range "abcdef" {
			l.join(t, ctx, string(letter), false)
		}
		l.wants(t, "two at once", "ab")
		l.giveBack()
		l.wants(t, "one is done", "abc")
		gone, leave := context.WithCancel(ctx)
		l.join(t, gone, "g", false)
		l.join(t, ctx, "h", false)
		leave()
		l.wants(t, "one has left", "abc(g)")
		l.set(3)
		synctest.Wait()
		l.set(4)
		l.wants(t, "more at once", "abc(g)de")
		l.set(1)
		l.giveBack()
		l.giveBack()
		l.giveBack()
		l.wants(t, "fewer at once", "abc(g)de")
		l.giveBack()
		l.wants(t, "the next", "abc(g)def")
		l.join(t, ctx, "i", false)
		l.giveBack()
		synctest.Wait()
		l.giveBack()
		l.wants(t, "the rest", "abc(g)defhi")
		l.giveBack()
		if l.working != 0 || l.others.Len()+l.known.Len() > 0 {
			t.Errorf("%d at work, %d wait", l.working, l.others.Len())
		}
		if err := l.take(gone, true); !errors.Is(err, context.Canceled) || l.working != 0 {
			t.Errorf("who has left before: %v", err)
		}
	})
}

func TestWhoIsKnownWaitsBehindNobodyElseAndNobodyForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := &line{}, t.Context()
		l.set(1)
		l.join(t, ctx, ".", false)
		for _, letter := range "abc" {
			l.join(t, ctx, string(letter), false)
		}
		for _, letter := range "ABCDEFG" {
			l.join(t, ctx, string(letter), true)
		}
		for range 11 {
			l.giveBack()
			synctest.Wait()
		}
		l.wants(t, "all", ".ABCaDEFbGc")
	})
}

func TestTheQueuesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{}
		l.set(2)
		ctx, leave := context.WithCancel(t.Context())
		for range 2 + 2*waitingPerTurn {
			l.join(t, ctx, "", false)
		}
		later := new(Later)
		if err := l.take(ctx, false); !errors.As(err, &later) || later.After != queueRetry || later.Throttled() || later.Error() != "too many passwords wait to be checked; to be tried again after 5s" {
			t.Errorf("%v", err)
		}
		for range 2 * waitingPerTurn {
			l.join(t, ctx, "", true)
		}
		if err := l.take(ctx, true); !errors.As(err, &later) {
			t.Errorf("%v", err)
		}
		if n := l.waiting(); n != 4*waitingPerTurn {
			t.Errorf("%d wait", n)
		}
		leave()
		synctest.Wait()
		l.giveBack()
		l.giveBack()
		if err := l.take(t.Context(), false); err != nil || l.working != 1 || l.others.Len()+l.known.Len() != 0 {
			t.Errorf("%v, %d at work, %d wait", err, l.working, l.others.Len())
		}
	})
}

// Whatever happens at the same moment, no turn is lost and none is had twice.
func TestTurnsAtRandom(t *testing.T) {
	var q turns
	q.set(3)
	var at, highest atomic.Int64
	var all sync.WaitGroup
	for worker := range 40 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 300 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(300))*time.Microsecond)
				if r.IntN(3) == 0 {
					go cancel()
				}
				err := q.take(ctx, r.IntN(2) == 0)
				if err == nil {
					n := at.Add(1)
					for h := highest.Load(); n > h && !highest.CompareAndSwap(h, n); h = highest.Load() {
					}
					time.Sleep(time.Duration(r.IntN(20)) * time.Microsecond)
					at.Add(-1)
					q.giveBack()
				} else if errors.As(err, new(*Later)) == (ctx.Err() != nil && errors.Is(err, ctx.Err())) {
					t.Errorf("%v", err)
				}
				cancel()
				if r.IntN(50) == 0 {
					q.set(1 + r.IntN(5))
				}
			}
		})
	}
	all.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.working != 0 || q.known.Len()+q.others.Len() != 0 || highest.Load() > 5 {
		t.Errorf("%d at work, %d and %d wait, %d at once", q.working, q.known.Len(), q.others.Len(), highest.Load())
	}
}

// Questions that come and go at random: each is answered rightly or with the error of its own context, and none is left over.
func TestFlightsAtRandom(t *testing.T) {
	var f flights
	var asked atomic.Int64
	var all sync.WaitGroup
	for worker := range 40 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 2))
			for range 200 {
				d := digest{byte(r.IntN(3))}
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(400))*time.Microsecond)
				ok, _, err := f.join(ctx, d, func(ctx context.Context) (bool, error) {
					asked.Add(1)
					select {
					case <-time.After(100 * time.Microsecond):
						return d[0] == 1, nil
					case <-ctx.Done():
						return false, ctx.Err()
					}
				})
				switch {
				case err == nil && ok != (d[0] == 1):
					t.Errorf("%d: %t", d[0], ok)
				case err != nil && (ctx.Err() == nil || ok):
					t.Errorf("%d: %t, %v for somebody who waits", d[0], ok, err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		n := len(f.under)
		f.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("%d questions are left over", n)
		}
	}
	if asked.Load() == 0 {
		t.Error("nothing was asked")
	}
}

func TestCountersAreBoundedAndKeepTheHighest(t *testing.T) {
	th, l := &throttle{charged: table[uint64]{most: mostCounters}}, Throttle{Account: 100, Network: 100, Window: time.Hour}
	guess := func(name, from string, n int) error {
		m := digest{}
		copy(m[:], fmt.Sprint(name, from, n))
		return th.admit(&question{Credentials: Credentials{Username: name, From: netip.MustParseAddr(from)}, digest: m}, 0, l)
	}
	for i := range 100 {
		if err := guess("alice", "192.0.2.1", i); err != nil {
			t.Fatal(err)
		}
	}
	th.welcome(1, time.Second)
	th.welcome(2, 2*time.Second)
	for i := range mostCounters + 5000 {
		_ = guess(fmt.Sprint("name ", i), fmt.Sprintf("2001:db8:%x:%x::1", i/256, i%0x10000), 0)
		th.wrong(fmt.Sprint("name ", i), 0, l)
		th.welcome(uint64(100+i), 0)
	}
	if err := guess("alice", "192.0.2.1", 1000); err == nil {
		t.Error("one with many guesses was driven out by many with one")
	}
	for what, n := range map[string]int{
		"pairs": len(th.pairs), "wide pairs": len(th.widePairs), "networks": len(th.networks), "wide networks": len(th.wideNetworks), "accounts": len(th.accounts),
		"homes": len(th.homes), "charged": len(th.charged.entries), "in order": len(th.charged.order),
	} {
		if n > mostCounters {
			t.Errorf("%s: %d", what, n)
		}
	}
	if _, kept := th.homes[2]; !kept {
		t.Error("the newest home was driven out")
	}
}
