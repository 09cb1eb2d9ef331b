package users

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Throttle is how many guesses are taken before more are held back. A password that was right is none, the same wrong one
// again is none (clients try twice, nodes for ever), and a token is none.
type Throttle struct {
	Account int           // guesses at one account from one network in a window; 0 = no limit
	Network int           // guesses from one network in a window; 0 = no limit
	Window  time.Duration // after it, as many may be tried again; each becomes free after its share
}

func (t Throttle) enabled() bool { return t.Window > 0 && (t.Account > 0 || t.Network > 0) }

// Later says that a password was not checked, and when it may be tried again.
type Later struct {
	Reason string // "account" or "network": too many wrong ones; "queue": too many wait
	After  time.Duration
}

const (
	heldByAccount = "account"
	heldByNetwork = "network"
	heldByQueue   = "queue"
)

// Throttled tells whether who asks is held back, and not the service busy.
func (l *Later) Throttled() bool { return l.Reason != heldByQueue }

func (l *Later) Error() string {
	what := map[string]string{
		heldByAccount: "too many wrong passwords for this account from this network",
		heldByNetwork: "too many wrong passwords from this network",
		heldByQueue:   "too many passwords wait to be checked",
	}
	return fmt.Sprintf("%s; to be tried again after %s", what[l.Reason], l.After.Round(time.Second))
}

const (
	// tenfold is what one network may fail with, ten times over: what an account takes from all networks together before
	// each has one try at a time, and what a /48 takes that is 65536 networks.
	tenfold = 10
	// overlookedADay is how many guesses at an account, while they are held back, do not stop those who know the password
	// and are at home in the same network. Fewer, and whoever shares an address with somebody could lock them out within
	// seconds; more, and he could try lists of passwords against the remembered one, which is answered without bcrypt.
	overlookedADay = 1_000_000
	// mostCounters bounds each table.
	mostCounters = 1 << 16
	// evictFrom is among how many entries one makes room for a new one.
	evictFrom = 8
	// homeFor is for how long a network is one that an account is at home in, since a password was right there.
	homeFor = 24 * time.Hour
)

// throttle counts guesses.
//
// A password is charged before anything is said of it, and given back when it was right. So it does not matter how many are
// sent at once, nor whether who sent them waits for the answer. And while guesses are held back, none is answered, not even
// the right one: who may ask for free whether a password is the remembered one needs no comparison to find it.
//
// Nobody who knows a name can lock its owner out: the count that refuses is that of account and network together. Where
// somebody guesses from the owner's own network (behind one NAT), a password that is remembered to be right is let through
// all the same, until overlookedADay were tried.
type throttle struct {
	mu           sync.RWMutex
	pairs        counters // account and network
	widePairs    counters // account and /48
	networks     counters
	wideNetworks counters // /48
	accounts     counters // passwords that were wrong, from everywhere
	homes        map[uint64]home
	charged      table[uint64] // passwords by networks
	overlooked   int           // overlookedADay
}

// counters are levels that rise by one at each guess and fall at an even rate. Keys are hashed under a secret seed: they
// take little room, and nobody can choose two that meet.
type counters map[uint64]counter

type counter struct {
	level float64
	at    time.Duration // when it was that
}

// home is an account in a network from where its password was right.
type home struct {
	right   time.Duration // when
	guesses counter       // while they were held back
}

var throttleSeed = maphash.MakeSeed()

type pair struct {
	name    string
	network netip.Prefix
}

type attempt struct {
	password digest
	network  netip.Prefix
}

// networkOf is what is counted together: an IPv4 address, or the /64 that one IPv6 customer has. wide is the /48 that one
// has who rents more of them; not valid for IPv4.
func networkOf(from netip.Addr) (near, wide netip.Prefix) {
	from = from.Unmap()
	if !from.Is6() {
		near, _ = from.Prefix(32) // the zero Prefix for an address that is not known
		return near, wide
	}
	near, _ = from.Prefix(64)
	wide, _ = from.Prefix(48)
	return near, wide
}

// bound is one of those that a guess is held against.
type bound struct {
	counters  *counters
	key       uint64
	perWindow int
	reason    string
}

// bounds appends those of a guess to a list.
func (t *throttle) bounds(list []bound, name string, from netip.Addr, l Throttle) []bound {
	near, wide := networkOf(from)
	if l.Account > 0 {
		list = append(list, bound{&t.pairs, maphash.Comparable(throttleSeed, pair{name, near}), l.Account, heldByAccount})
		if wide.IsValid() {
			list = append(list, bound{&t.widePairs, maphash.Comparable(throttleSeed, pair{name, wide}), tenfold * l.Account, heldByAccount})
		}
	}
	if l.Network > 0 && near.IsValid() {
		list = append(list, bound{&t.networks, maphash.Comparable(throttleSeed, near), l.Network, heldByNetwork})
		if wide.IsValid() {
			list = append(list, bound{&t.wideNetworks, maphash.Comparable(throttleSeed, wide), tenfold * l.Network, heldByNetwork})
		}
	}
	return list
}

// admit returns nil when a password may be checked, or a *Later.
func (t *throttle) admit(q *question, now time.Duration, l Throttle) error {
	if !l.enabled() {
		return nil
	}
	var room [4]bound
	bounds := t.bounds(room[:0], q.Username, q.From, l)
	near, _ := networkOf(q.From)
	place, password := maphash.Comparable(throttleSeed, pair{q.Username, near}), maphash.Comparable(throttleSeed, attempt{q.digest, near})
	if q.trusted {
		return t.admitTrusted(bounds, q.Username, place, password, now, l)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	later, paid := t.held(bounds, q.Username, password, now, l)
	switch {
	case later != nil:
		if h, known := t.homes[place]; known {
			h.guesses = counter{min(h.guesses.now(now, t.overlooked, homeFor)+1, float64(t.overlooked)), now}
			t.homes[place] = h
		}
		return later
	case !paid:
		for _, b := range bounds {
			b.counters.raise(b.key, now, b.perWindow, l.Window, 1)
		}
		t.charged.put(password, now)
	}
	return nil
}

// admitTrusted is admit for a password that is remembered to be right. It writes next to nothing.
func (t *throttle) admitTrusted(bounds []bound, name string, place, password uint64, now time.Duration, l Throttle) error {
	t.mu.RLock()
	later, _ := t.held(bounds, name, password, now, l)
	h, known := t.homes[place]
	t.mu.RUnlock()
	atHome := known && now-h.right < homeFor
	if later != nil && !(atHome && h.guesses.now(now, t.overlooked, homeFor) <= float64(t.overlooked-1)) {
		return later
	}
	if !atHome || now-h.right > homeFor/24 {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.welcome(place, now)
	}
	return nil
}

// held returns a *Later when a password must wait, and whether it has been charged already.
func (t *throttle) held(bounds []bound, name string, password uint64, now time.Duration, l Throttle) (later error, paid bool) {
	if at, ok := t.charged.entries[password]; ok && now-at < l.Window {
		paid = true
	}
	var longest time.Duration
	for _, b := range bounds {
		level, most := b.counters.level(b.key, now, b.perWindow, l.Window), float64(b.perWindow)
		if paid {
			level-- // by itself
		}
		if b.counters == &t.pairs && t.accounts.level(maphash.Comparable(throttleSeed, name), now, tenfold*l.Account, l.Window) >= float64(tenfold*l.Account) {
			most = 1 // guessing from everywhere is slow, and who knows the password needs no second try
		}
		if after := wait(level, most, b.perWindow, l.Window); after > longest {
			longest, later = after, &Later{b.reason, after}
		}
	}
	return later, paid
}

// wait is how long it takes until one more fits below most.
func wait(level, most float64, perWindow int, window time.Duration) time.Duration {
	if level <= most-1 {
		return 0
	}
	return time.Duration((level - (most - 1)) * float64(window) / float64(perWindow))
}

// right gives back what a password was charged.
func (t *throttle) right(q *question, now time.Duration, l Throttle) {
	if !l.enabled() {
		return
	}
	near, _ := networkOf(q.From)
	password := maphash.Comparable(throttleSeed, attempt{q.digest, near})
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, paid := t.charged.entries[password]; paid {
		delete(t.charged.entries, password)
		var room [4]bound
		for _, b := range t.bounds(room[:0], q.Username, q.From, l) {
			b.counters.raise(b.key, now, b.perWindow, l.Window, -1)
		}
	}
	t.welcome(maphash.Comparable(throttleSeed, pair{q.Username, near}), now)
}

// wrong counts a password that was compared, for the account alone.
func (t *throttle) wrong(name string, now time.Duration, l Throttle) {
	if !l.enabled() || l.Account == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accounts.raise(maphash.Comparable(throttleSeed, name), now, tenfold*l.Account, l.Window, 1)
}

// welcome notes that a password was right.
func (t *throttle) welcome(place uint64, now time.Duration) {
	if t.homes == nil {
		t.homes = map[uint64]home{}
	}
	h, known := t.homes[place]
	if !known && len(t.homes) >= mostCounters {
		evict(t.homes, func(h home) float64 { return float64(h.right) })
	}
	h.right = now
	t.homes[place] = h
}

// level is a counter's now, when it falls by perWindow in a window.
func (c counters) level(key uint64, now time.Duration, perWindow int, window time.Duration) float64 {
	return c[key].now(now, perWindow, window)
}

func (c counter) now(now time.Duration, perWindow int, window time.Duration) float64 {
	return max(0, c.level-float64(now-c.at)*float64(perWindow)/float64(window))
}

func (c *counters) raise(key uint64, now time.Duration, perWindow int, window time.Duration, by float64) {
	if *c == nil {
		*c = counters{}
	}
	one, known := (*c)[key]
	if !known && by < 0 {
		return
	}
	if !known && len(*c) >= mostCounters {
		evict(*c, func(one counter) float64 { return one.now(now, perWindow, window) }) // those with many guesses stay
	}
	(*c)[key] = counter{max(0, one.now(now, perWindow, window)+by), now}
}

// evict makes room: the lowest of a few, which the map picks.
func evict[V any](m map[uint64]V, worth func(V) float64) {
	var lowest uint64
	least, seen := 0.0, 0
	for key, v := range m {
		if w := worth(v); seen == 0 || w < least {
			lowest, least = key, w
		}
		if seen++; seen == evictFrom {
			break
		}
	}
	delete(m, lowest)
}
