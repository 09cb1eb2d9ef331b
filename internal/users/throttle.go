package users

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Throttle is how many wrong passwords are taken before guesses are held back. Only what was compared and found wrong
// counts: not a password that was right, not the same wrong one again (clients try twice, nodes for ever), not a token.
type Throttle struct {
	Account int           // wrong passwords for one account from one network in a window; 0 = no limit
	Network int           // wrong passwords from one network in a window; 0 = no limit
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
	// besieged is how many times the failures of one network an account may have from all together. Past it each network
	// has one try at a time: guessing from everywhere is slow, and who knows the password needs no second try.
	besieged = 10
	// mostCounters bounds each table. Every failure cost a comparison, so there are fewer in a window than cores compare.
	mostCounters = 1 << 16
	// evictFrom is among how many counters the lowest makes room for a new one.
	evictFrom = 8
)

// throttle counts failures. Nobody who knows a name can lock its owner out: the count that refuses is that of account and
// network together, and who was right before is not asked.
type throttle struct {
	mu       sync.Mutex
	pairs    counters // account and network
	accounts counters
	networks counters
}

// counters are levels that rise by one at each failure and fall at an even rate. Keys are hashed under a secret seed: they
// take little room, and nobody can choose two that meet.
type counters map[uint64]*counter

type counter struct {
	level float64
	at    time.Duration // when it was that
}

var throttleSeed = maphash.MakeSeed()

type pair struct {
	name    string
	network netip.Prefix
}

// networkOf is what is counted together: an IPv4 address, or the /64 that one IPv6 customer has.
func networkOf(from netip.Addr) netip.Prefix {
	bits := 32
	if from.Is6() {
		bits = 64
	}
	n, _ := from.Prefix(bits) // the zero Prefix for an address that is not known
	return n
}

// allow returns nil, or a *Later.
func (t *throttle) allow(name string, from netip.Addr, now time.Duration, l Throttle) error {
	if !l.enabled() {
		return nil
	}
	network := networkOf(from)
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.Account > 0 {
		most := float64(l.Account)
		if t.accounts.level(maphash.Comparable(throttleSeed, name), now, besieged*l.Account, l.Window) >= float64(besieged*l.Account) {
			most = 1
		}
		if after := wait(t.pairs.level(maphash.Comparable(throttleSeed, pair{name, network}), now, l.Account, l.Window), most, l.Account, l.Window); after > 0 {
			return &Later{heldByAccount, after}
		}
	}
	if l.Network > 0 && network.IsValid() {
		if after := wait(t.networks.level(maphash.Comparable(throttleSeed, network), now, l.Network, l.Window), float64(l.Network), l.Network, l.Window); after > 0 {
			return &Later{heldByNetwork, after}
		}
	}
	return nil
}

// wait is how long it takes until one more fits below most.
func wait(level, most float64, perWindow int, window time.Duration) time.Duration {
	if level <= most-1 {
		return 0
	}
	return time.Duration((level - (most - 1)) * float64(window) / float64(perWindow))
}

// failed counts a wrong password.
func (t *throttle) failed(name string, from netip.Addr, now time.Duration, l Throttle) {
	if !l.enabled() {
		return
	}
	network := networkOf(from)
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.Account > 0 {
		raise(&t.pairs, maphash.Comparable(throttleSeed, pair{name, network}), now, l.Account, l.Window)
		raise(&t.accounts, maphash.Comparable(throttleSeed, name), now, besieged*l.Account, l.Window)
	}
	if l.Network > 0 && network.IsValid() {
		raise(&t.networks, maphash.Comparable(throttleSeed, network), now, l.Network, l.Window)
	}
}

// level is a counter's now, when it falls by perWindow in a window.
func (c counters) level(key uint64, now time.Duration, perWindow int, window time.Duration) float64 {
	one, ok := c[key]
	if !ok {
		return 0
	}
	return max(0, one.level-float64(now-one.at)*float64(perWindow)/float64(window))
}

func raise(c *counters, key uint64, now time.Duration, perWindow int, window time.Duration) {
	if *c == nil {
		*c = counters{}
	}
	level := c.level(key, now, perWindow, window)
	if _, ok := (*c)[key]; !ok && len(*c) >= mostCounters {
		c.evict(now, perWindow, window)
	}
	(*c)[key] = &counter{level + 1, now}
}

// evict makes room: the lowest of a few, which the map picks. Those with many failures stay.
func (c counters) evict(now time.Duration, perWindow int, window time.Duration) {
	var lowest uint64
	least, seen := -1.0, 0
	for key := range c {
		if level := c.level(key, now, perWindow, window); least < 0 || level < least {
			lowest, least = key, level
		}
		if seen++; seen == evictFrom {
			break
		}
	}
	delete(c, lowest)
}
