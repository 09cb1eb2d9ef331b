package users_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"authserver/internal/store"
	"authserver/internal/users"
)

// TestTiming measures whether the clock tells a user from nobody:
//
//	TIMING=2000 go test ./internal/users -run TestTiming -v -timeout 1h
//
// TIMING is the number of samples of each kind (1 = 2000), which are taken in random order, every one with a name or a
// password that was not used before: of nobody, and of users whose passwords have the lowest cost of the chain (low, active),
// the highest (high), or who are locked. For each pair of kinds it prints the medians, and the probability that two samples of one
// distribution differ as much: by Mann-Whitney's U (is one slower?) and by Kolmogorov and Smirnov (is one different?).
// It asserts nothing: a busy machine proves nothing, and a small p among many is no surprise. What must not be is a
// small p that comes again, with medians that differ by more than the network hides.
func TestTiming(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("TIMING"))
	if err != nil {
		t.Skip("TIMING is not set to a number of samples")
	}
	if n == 1 {
		n = 2000
	}
	compared := users.Limits{}
	remembering := users.Limits{Remember: time.Hour}
	held := users.Limits{Remember: time.Hour, Throttle: users.Throttle{Network: 1, Window: time.Hour}}
	for _, chain := range []string{"htpasswd", "database", "htpasswd+database"} {
		for _, c := range []struct {
			what      string
			limits    users.Limits
			unrounded bool
			repeat    bool // the first answer is not measured
			kinds     []string
		}{
			{"compared", compared, true, false, []string{"low", "high", "locked", "active"}},
			{"compared-while-remembered", remembering, true, false, []string{"low", "high", "active"}},
			{"wrong-again", remembering, true, true, []string{"low", "high", "active"}},
			{"held-back", held, true, false, []string{"low", "high", "active"}},
			{"compared-rounded", remembering, false, false, []string{"low", "active"}},
			{"wrong-again-rounded", remembering, false, true, []string{"low"}},
			{"held-back-rounded", held, false, false, []string{"low", "active"}},
		} {
			t.Run(chain+"/"+c.what, func(t *testing.T) {
				w := newTimed(t, chain, c.limits, n)
				if c.unrounded {
					w.guard.Unrounded()
				}
				if c.limits.Throttle.Network > 0 {
					_ = w.ask("nobody", "the one guess")
				}
				if chain == "htpasswd" {
					c.kinds = slices.DeleteFunc(slices.Clone(c.kinds), func(kind string) bool { return kind == "locked" })
				}
				took := w.measure(n, append(c.kinds, "nobody"), c.repeat)
				for _, kind := range c.kinds {
					a, b := took["nobody"], took[kind]
					t.Logf("nobody %s, %s %s: difference %s, U p=%.3f, KS p=%.3f", median(a), kind, median(b), median(b)-median(a), mannWhitney(a, b), kolmogorovSmirnov(a, b))
				}
			})
		}
	}
}

// sample is what the i-th request of a kind asks.
func sample(kind string, i int) (name, password string) {
	switch kind {
	case "nobody":
		return fmt.Sprint("nobody-", i), "wrong"
	case "active": // whose owners have just logged in
		return fmt.Sprint("active-", i), "wrong"
	}
	return kind, fmt.Sprint("wrong ", i)
}

type timed struct {
	t     *testing.T
	guard *users.Guard
	chain *users.Chain
}

// newTimed has users whose passwords cost 4 (low), 5 (locked) and 6 (high), and n active ones of cost 4, in the first backend.
func newTimed(t *testing.T, chain string, limits users.Limits, n int) *timed {
	t.Helper()
	w := &timed{t: t, guard: users.NewGuard(users.GuardEvents{})}
	db, err := store.Open(t.Context(), store.Config{URL: "sqlite:authserver.db", Dir: t.TempDir(), Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() { stop(); _ = db.Close() })
	accounts := []users.Account{
		{Name: "low", Password: hash(t, "right", 4)}, {Name: "high", Password: hash(t, "right", 6)},
		{Name: "locked", Password: hash(t, "right", 5), Disabled: true},
	}
	for i := range n {
		accounts = append(accounts, users.Account{Name: fmt.Sprint("active-", i), Password: rightHash()})
	}
	var lines []string
	inFile := chain != "database"
	for _, a := range accounts {
		if inFile && a.Name != "locked" {
			lines = append(lines, a.Name+":"+a.Password)
			continue
		}
		// All in one transaction would be quicker, but that is no method of the store.
		if _, err := db.DB().Exec("INSERT INTO accounts (name, kind, password, disabled, created, changed) VALUES (?1, 'user', ?2, ?3, 1, 1)", a.Name, a.Password, a.Disabled); err != nil {
			t.Fatal(err)
		}
	}
	var backends []users.Authenticator
	if inFile {
		backends = append(backends, loadUsers(t, w.guard, lines...))
	}
	if chain != "htpasswd" {
		backends = append(backends, users.NewDatabase(db, w.guard, 6))
	}
	w.chain = users.NewChain(backends, w.guard, nil)
	go db.Watch(ctx, func() {})
	time.Sleep(50 * time.Millisecond) // the first look
	// Whose owners have logged in, from elsewhere.
	w.guard.Limit(users.Limits{Remember: time.Hour})
	for _, a := range accounts {
		if !a.Disabled {
			if _, err := w.chain.Authenticate(t.Context(), users.Credentials{Username: a.Name, Password: "right", From: netip.MustParseAddr(home)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.guard.Limit(limits)
	return w
}

func (w *timed) ask(name, password string) error {
	_, err := w.chain.Authenticate(w.t.Context(), users.Credentials{Username: name, Password: password, From: netip.MustParseAddr(away)})
	return err
}

func (w *timed) measure(n int, kinds []string, repeat bool) map[string][]time.Duration {
	var order []string
	for _, kind := range kinds {
		for range n {
			order = append(order, kind)
		}
	}
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	took, used := map[string][]time.Duration{}, map[string]int{}
	for _, kind := range order {
		name, password := sample(kind, used[kind])
		used[kind]++
		if repeat {
			_ = w.ask(name, password)
		}
		start := time.Now()
		err := w.ask(name, password)
		took[kind] = append(took[kind], time.Since(start))
		if err == nil || !errors.Is(err, users.ErrRefused) && !errors.As(err, new(*users.Later)) {
			w.t.Fatalf("%s: %v", name, err)
		}
	}
	return took
}

func median(x []time.Duration) time.Duration {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2].Round(100 * time.Nanosecond)
}

// mannWhitney is the two-sided p of the U test, by the normal approximation with ties.
func mannWhitney(a, b []time.Duration) float64 {
	type sample struct {
		d     time.Duration
		first bool
	}
	var all []sample
	for _, d := range a {
		all = append(all, sample{d, true})
	}
	for _, d := range b {
		all = append(all, sample{d, false})
	}
	slices.SortFunc(all, func(x, y sample) int { return int(x.d - y.d) })
	n1, n2, n := float64(len(a)), float64(len(b)), float64(len(all))
	ranks, ties := 0.0, 0.0
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].d == all[i].d {
			j++
		}
		for _, s := range all[i:j] {
			if s.first {
				ranks += float64(i+j+1) / 2
			}
		}
		k := float64(j - i)
		ties += k*k*k - k
		i = j
	}
	u := ranks - n1*(n1+1)/2
	sigma := math.Sqrt(n1 * n2 / 12 * (n + 1 - ties/(n*(n-1))))
	return math.Erfc(math.Abs(u-n1*n2/2) / sigma / math.Sqrt2)
}

// kolmogorovSmirnov is the asymptotic p of the two-sample test.
func kolmogorovSmirnov(a, b []time.Duration) float64 {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	i, j, most := 0, 0, 0.0
	for i < len(a) && j < len(b) {
		at := min(a[i], b[j])
		for i < len(a) && a[i] == at {
			i++
		}
		for j < len(b) && b[j] == at {
			j++
		}
		most = max(most, math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	n := float64(len(a)) * float64(len(b)) / float64(len(a)+len(b))
	lambda := (math.Sqrt(n) + 0.12 + 0.11/math.Sqrt(n)) * most
	if lambda < 0.2 { // the series does not converge, and p is 1
		return 1
	}
	p := 0.0
	for k := 1.0; k <= 100; k++ {
		p += 2 * math.Pow(-1, k-1) * math.Exp(-2*k*k*lambda*lambda)
	}
	return min(1, max(0, p))
}

func TestTheStatistics(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	draw := func(shift time.Duration) (list []time.Duration) {
		for range 2000 {
			list = append(list, shift+time.Duration(1000*r.NormFloat64()))
		}
		return list
	}
	same, again, slower := draw(0), draw(0), draw(150)
	if p := mannWhitney(same, again); p < 0.01 {
		t.Errorf("U of the same: %g", p)
	}
	if p := kolmogorovSmirnov(same, again); p < 0.01 {
		t.Errorf("KS of the same: %g", p)
	}
	if p := mannWhitney(same, slower); p > 0.001 {
		t.Errorf("U of another: %g", p)
	}
	if p := kolmogorovSmirnov(same, slower); p > 0.001 {
		t.Errorf("KS of another: %g", p)
	}
	if p, q := mannWhitney(same, same), kolmogorovSmirnov(same, same); p < 0.999 || q < 0.999 {
		t.Errorf("of itself: %g, %g", p, q)
	}
}
