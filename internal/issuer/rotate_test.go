package issuer_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/issuer"
)

// kept is how long a key is published after it has signed last: the longest lifetime, and what clocks differ.
const kept = 10 * time.Minute

// ahead is publish_ahead here.
const ahead = time.Hour

func kinds() []issuer.Service {
	return []issuer.Service{
		service("registry", issuer.VerifierChain), service("zot", issuer.VerifierPinned),
		service("three", issuer.VerifierJWKS), service("four", issuer.VerifierJWKS),
	}
}

// table is a database's table, and counts how often it was changed.
type table struct {
	mu      sync.Mutex
	rows    map[string]string
	changes int
}

func (m *table) update(do func(map[string]string) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	rows := maps.Clone(m.rows)
	if rows == nil {
		rows = map[string]string{}
	}
	if err := do(rows); err != nil {
		return err
	}
	if !maps.Equal(rows, m.rows) {
		m.rows = rows
		m.changes++
	}
	return nil
}

var secret = bytes.Repeat([]byte{7}, 32)

func seal(t *testing.T, m *table, secrets ...[]byte) issuer.Vault {
	t.Helper()
	v, err := issuer.Sealed(m.update, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// places runs a test with keys in a folder, and with keys in a database.
func places(t *testing.T, test func(t *testing.T, c issuer.KeyConfig)) {
	c := keys("", kinds()...)
	c.PublishAhead = ahead
	t.Run("folder", func(t *testing.T) {
		c := c
		c.DataDir = t.TempDir()
		test(t, c)
	})
	t.Run("database", func(t *testing.T) {
		c := c
		c.Vault = seal(t, &table{}, secret)
		test(t, c)
	})
}

// at is c at a time.
func at(when time.Time, c issuer.KeyConfig) issuer.KeyConfig {
	c.Now = clock(when)
	return c
}

// done returns what a change of keys returns, which has to succeed.
func done(ring *issuer.Keyring, err error) func(t *testing.T) *issuer.Keyring {
	return func(t *testing.T) *issuer.Keyring {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return ring
	}
}

// published are the kids of a service: what signs, then what will, then what did.
func published(r *issuer.Keyring, service string) []string {
	var list []string
	for _, k := range r.PublishedFor(service) {
		list = append(list, k.ID)
	}
	return list
}

func roots(r *issuer.Keyring) []string {
	var list []string
	for _, root := range r.Roots() {
		list = append(list, issuer.RootID(root))
	}
	return list
}

// wantKeys compares the kids of a service, and what the JWKS says of them.
func wantKeys(t *testing.T, when string, r *issuer.Keyring, service string, want ...string) {
	t.Helper()
	if got := published(r, service); !slices.Equal(got, want) {
		t.Errorf("%s, %s: published %v, want %v", when, service, got, want)
	}
	set, err := issuer.JWKS(r.Published())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range want {
		if n := bytes.Count(set, []byte(id)); n != 1 {
			t.Errorf("%s: %s is %d times in the JWKS", when, id, n)
		}
	}
}

// usable makes an issuer, which checks its tokens as registries do.
func usable(t *testing.T, c issuer.KeyConfig, r *issuer.Keyring) *issuer.Issuer {
	t.Helper()
	i, err := issuer.New(issuer.Config{Services: c.Services, Keyring: r, Users: people{}, Policy: decide(all), Audit: &record{}, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestALeafIsPublishedThenSignsThenIsKeptThenForgotten(t *testing.T) {
	places(t, func(t *testing.T, c issuer.KeyConfig) {
		look := func(when time.Time) *issuer.Keyring {
			t.Helper()
			again := openAt(t, when, c) // every one is a restart, too
			ring := openAt(t, when, c)
			if !slices.Equal(published(again, "registry"), published(ring, "registry")) || !again.Root.Equal(ring.Root) {
				t.Errorf("%v: opened twice, %v and %v", when, published(again, "registry"), published(ring, "registry"))
			}
			if len(ring.Warnings) > 0 {
				t.Errorf("%v: %q", when, ring.Warnings)
			}
			return ring
		}
		first := look(now)
		one := first.For("registry").ID
		from := now.Truncate(time.Second)
		due := from.Add(30*day - ahead)
		if !first.Next.Equal(due) || !first.For("registry").From.Equal(from) {
			t.Errorf("the next look is at %v, want %v; it signs from %v", first.Next, due, first.For("registry").From)
		}
		wantKeys(t, "before it is due", look(due.Add(-time.Second)), "registry", one)

		staged := look(due)
		two := staged.NextFor("registry").ID
		wantKeys(t, "due", staged, "registry", one, two)
		signs := due.Add(ahead)
		if !staged.Next.Equal(signs) || !staged.NextFor("registry").From.Equal(signs) {
			t.Errorf("it signs from %v, look %v, want %v", staged.NextFor("registry").From, staged.Next, signs)
		}
		if got := staged.NextFor("registry").Chain[0].NotBefore; !got.Equal(signs.Add(-day)) {
			t.Errorf("not before %v", got)
		}
		wantKeys(t, "a second before its time", look(signs.Add(-time.Second)), "registry", one, two)

		ring := look(signs)
		wantKeys(t, "its time", ring, "registry", two, one)
		if end := signs.Add(kept); !ring.Next.Equal(end) {
			t.Errorf("the next look is at %v, want %v", ring.Next, end)
		}
		usable(t, at(signs, c), ring)
		wantKeys(t, "its last token may be good", look(signs.Add(kept-time.Millisecond)), "registry", two, one)
		last := look(signs.Add(kept))
		wantKeys(t, "no token of it is good", last, "registry", two)
		if want := signs.Add(30*day - ahead); !last.Next.Equal(want) {
			t.Errorf("the next look is at %v, want %v", last.Next, want)
		}
		for _, s := range []string{"zot", "three", "four"} {
			wantKeys(t, "never by itself", last, s, first.For(s).ID)
		}
		if got := roots(last); !slices.Equal(got, []string{issuer.RootID(first.Root)}) {
			t.Errorf("roots %v", got)
		}
	})
}

func TestALeafThatNobodyLookedAtWhenItWasDueIsPublishedAheadAllTheSame(t *testing.T) {
	places(t, func(t *testing.T, c issuer.KeyConfig) {
		one := open(t, c).For("registry").ID
		late := now.Add(60 * day)
		ring := openAt(t, late, c)
		wantKeys(t, "late", ring, "registry", one, ring.NextFor("registry").ID)
		if from := ring.NextFor("registry").From; from.Before(late.Add(ahead - time.Second)) {
			t.Errorf("it signs from %v", from)
		}
		// A process that slept past its time takes it up at once.
		two := ring.NextFor("registry").ID
		wantKeys(t, "much later", openAt(t, late.Add(10*day), c), "registry", two, one)
	})
}

func TestWithoutPublishAheadALeafSignsAtOnce(t *testing.T) {
	places(t, func(t *testing.T, c issuer.KeyConfig) {
		c.PublishAhead = 0
		one := open(t, c).For("registry").ID
		ring := openAt(t, now.Add(30*day), c)
		if ring.NextFor("registry") != nil || ring.For("registry").ID == one {
			t.Error("not replaced")
		}
		wantKeys(t, "due", ring, "registry", ring.For("registry").ID, one)
		usable(t, at(now.Add(30*day), c), ring)
		wantKeys(t, "later", openAt(t, now.Add(30*day+kept), c), "registry", ring.For("registry").ID)
	})
}

func TestLeavesAreReplacedAtOnceWhenAskedFor(t *testing.T) {
	places(t, func(t *testing.T, c issuer.KeyConfig) {
		c.Services = append(c.Services, service("other", issuer.VerifierChain, issuer.ES384))
		first := open(t, c)
		ring := done(issuer.RotateLeaves(c, ""))(t)
		wantKeys(t, "all", ring, "registry", ring.For("registry").ID, first.For("registry").ID)
		wantKeys(t, "all", ring, "other", ring.For("other").ID, first.For("other").ID)
		if ring.For("registry").ID == first.For("registry").ID || ring.For("other").ID == first.For("other").ID || !ring.Root.Equal(first.Root) {
			t.Error("not replaced, or not under the root")
		}
		// One service alone; and two at the same time of the clock are both kept.
		one := done(issuer.RotateLeaves(c, "registry"))(t)
		wantKeys(t, "one", one, "other", ring.For("other").ID, first.For("other").ID)
		wantKeys(t, "one", one, "registry", one.For("registry").ID, first.For("registry").ID, ring.For("registry").ID)
		usable(t, c, one)
		// The one that was made already for later goes: it has signed nothing.
		due := at(now.Add(30*day), c)
		staged := open(t, due).NextFor("registry").ID
		ring = done(issuer.RotateLeaves(due, ""))(t)
		if slices.Contains(published(ring, "registry"), staged) || ring.NextFor("registry") != nil {
			t.Errorf("published %v, staged was %s", published(ring, "registry"), staged)
		}
	})
}

func TestWhatARegistryWasGivenIsReplacedWhenTheOperatorSaysSo(t *testing.T) {
	places(t, func(t *testing.T, c issuer.KeyConfig) {
		first := open(t, c)
		for _, s := range []string{"zot", "three"} {
			if _, err := issuer.Activate(c, s); !errors.Is(err, issuer.ErrNoNext) {
				t.Errorf("%s: %v", s, err)
			}
			one := first.For(s).ID
			staged := done(issuer.Stage(c, s))(t)
			two := staged.NextFor(s).ID
			wantKeys(t, "staged", staged, s, one, two)
			wantKeys(t, "staged twice", done(issuer.Stage(at(now.Add(day), c), s))(t), s, one, two)
			for _, later := range []time.Duration{time.Second, 365 * day, 3649 * day} {
				wantKeys(t, "not by itself", openAt(t, now.Add(later), c), s, one, two)
			}
			when := now.Add(2 * day)
			ring := done(issuer.Activate(at(when, c), s))(t)
			wantKeys(t, "activated", ring, s, two, one)
			usable(t, at(when, c), ring)
			wantKeys(t, "kept", openAt(t, when.Add(kept-time.Millisecond), c), s, two, one)
			wantKeys(t, "forgotten", openAt(t, when.Add(kept), c), s, two)
			if _, err := issuer.Activate(at(when, c), s); !errors.Is(err, issuer.ErrNoNext) {
				t.Errorf("%s, twice: %v", s, err)
			}
		}
		// Services with one JWKS sign with one key.
		if ring := openAt(t, now.Add(3*day), c); ring.For("three") != ring.For("four") || ring.For("four").ID == first.For("four").ID {
			t.Error("services with one JWKS have two keys")
		}
		if ring := openAt(t, now.Add(3*day), c); ring.For("zot").Anchor.PublicKey == nil || !ring.For("zot").Anchor.Equal(ring.For("zot").Chain[0]) {
			t.Error("the certificate of the pinned key was not taken along")
		}
		for _, err := range []error{
			second(issuer.Stage(c, "nobody")), second(issuer.Activate(c, "nobody")), second(issuer.RotateLeaves(c, "nobody")),
		} {
			wantError(t, err, `service "nobody" is not known`)
		}
	})
}

func second(_ *issuer.Keyring, err error) error { return err }

func TestTheRootIsReplacedInTwoStages(t *testing.T) {
	places(t, func(t *testing.T, c issuer.KeyConfig) {
		first := open(t, c)
		one := issuer.RootID(first.Root)
		if _, err := issuer.ActivateRoot(c); !errors.Is(err, issuer.ErrNoNext) {
			t.Error(err)
		}
		staged := done(issuer.StageRoot(c))(t)
		two := issuer.RootID(staged.NextRoot)
		if got := roots(staged); !slices.Equal(got, []string{one, two}) || !staged.For("registry").Anchor.Equal(first.Root) {
			t.Errorf("roots %v, want %v", got, []string{one, two})
		}
		if again := done(issuer.StageRoot(at(now.Add(day), c)))(t); !again.NextRoot.Equal(staged.NextRoot) {
			t.Error("another was made")
		}
		for _, later := range []time.Duration{time.Second, 31 * day, 3000 * day} {
			if ring := openAt(t, now.Add(later), c); !ring.Root.Equal(first.Root) || !ring.For("registry").Anchor.Equal(first.Root) {
				t.Error("a root was activated by itself")
			}
		}
		when := now.Add(3000*day + time.Hour)
		leaf := openAt(t, when, c).For("registry").ID
		ring := done(issuer.ActivateRoot(at(when, c)))(t)
		if got := roots(ring); !slices.Equal(got, []string{two, one}) || !ring.Root.Equal(staged.NextRoot) || ring.NextRoot != nil {
			t.Errorf("roots %v, want %v", got, []string{two, one})
		}
		if key := ring.For("registry"); key.ID == leaf || key.Chain[0].CheckSignatureFrom(staged.NextRoot) != nil {
			t.Error("the signing key is not under the new root")
		}
		wantKeys(t, "activated", ring, "registry", ring.For("registry").ID, leaf)
		usable(t, at(when, c), ring)
		if got := roots(openAt(t, when.Add(kept-time.Millisecond), c)); len(got) != 2 {
			t.Errorf("roots %v while tokens under the old one are good", got)
		}
		if got := roots(openAt(t, when.Add(kept), c)); !slices.Equal(got, []string{two}) {
			t.Errorf("roots %v", got)
		}
	})
}

func TestARootIsNotReplacedWhereThereIsNone(t *testing.T) {
	c := keys(t.TempDir(), service("zot", issuer.VerifierPinned))
	for _, err := range []error{second(issuer.StageRoot(c)), second(issuer.ActivateRoot(c)), second(issuer.RotateLeaves(c, ""))} {
		if !errors.Is(err, issuer.ErrNoLeaves) {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(c.DataDir); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestOnlyTheKeysOfTheRootsInUseAreNeeded(t *testing.T) {
	dir := t.TempDir()
	c := keys(dir, kinds()...)
	open(t, c)
	away := func(names ...string) {
		for _, name := range names {
			if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, name+".away")); err != nil {
				t.Fatal(err)
			}
		}
	}
	back := func(name string) {
		if err := os.Rename(filepath.Join(dir, name+".away"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	away("root.key")
	staged := done(issuer.StageRoot(c))(t) // the next root is made without the one in use
	away("root.next.key")
	if again := done(issuer.StageRoot(c))(t); !again.NextRoot.Equal(staged.NextRoot) || len(again.Roots()) != 2 {
		t.Error("the next root, whose key is offline, was replaced")
	}
	_, err := issuer.ActivateRoot(c)
	if err == nil || !strings.Contains(err.Error(), "the next root signs with "+filepath.Join(dir, "root.next.key")) {
		t.Errorf("got %v", err)
	}
	wantError(t, second(issuer.RotateLeaves(c, "")), "a new signing key needs "+filepath.Join(dir, "root.key")+", which is not there; bring it back")
	back("root.next.key")
	ring := done(issuer.ActivateRoot(c))(t)
	if !ring.Root.Equal(staged.NextRoot) || len(ring.Roots()) != 2 {
		t.Errorf("roots %v", roots(ring))
	}
	usable(t, c, ring)
	// The old key, brought back over the new one by mistake.
	back("root.key")
	_, err = issuer.OpenKeyring(c)
	wantError(t, err, `key of service "registry": `+filepath.Join(dir, "root.crt")+": the first certificate does not belong to the private key")
}

func TestADueLeafWithTheRootOfflineIsAWarningAndNoLoop(t *testing.T) {
	dir := t.TempDir()
	c := keys(dir, service("registry", issuer.VerifierChain))
	c.PublishAhead = ahead
	open(t, c)
	remove(t, filepath.Join(dir, "root.key"))
	for _, later := range []time.Duration{30*day - ahead, 40 * day} {
		ring := openAt(t, now.Add(later), c)
		if len(ring.Warnings) != 1 || !strings.Contains(ring.Warnings[0], "is due to be replaced, but ") {
			t.Errorf("warnings %q", ring.Warnings)
		}
		if !ring.Next.IsZero() {
			t.Errorf("it is to be opened again at %v, it is %v: nothing will be better then", ring.Next, now.Add(later))
		}
	}
}

// Clocks of processes that share keys differ, and are set.
func TestAClockThatIsSetLosesNothing(t *testing.T) {
	places(t, func(t *testing.T, c issuer.KeyConfig) {
		first := open(t, c)
		due := now.Add(30*day - ahead)
		staged := openAt(t, due, c)
		one, two := first.For("registry").ID, staged.NextFor("registry").ID
		signs := staged.NextFor("registry").From
		wantKeys(t, "10 minutes back", openAt(t, signs.Add(-10*time.Minute), c), "registry", one, two)
		ring := openAt(t, signs.Add(10*time.Minute), c)
		wantKeys(t, "10 minutes ahead", ring, "registry", two, one)
		for _, off := range []time.Duration{-10 * time.Minute, 0, -10 * time.Minute} {
			back := openAt(t, signs.Add(off), c)
			wantKeys(t, "set back", back, "registry", two, one)
			usable(t, at(signs.Add(off), c), back)
			if len(back.Warnings) > 0 || back.Root == nil || !back.Root.Equal(first.Root) {
				t.Errorf("%v: %q", off, back.Warnings)
			}
		}
		// What was made on a clock that is wrong by a year is not good, and is made anew under the same root.
		wrong := openAt(t, now.Add(400*day), c).For("registry")
		right := openAt(t, now.Add(day), c)
		if right.For("registry").ID == wrong.ID || !right.Root.Equal(first.Root) {
			t.Error("a signing key of the future is in use")
		}
		usable(t, at(now.Add(day), c), right)
	})
}

func TestProcessesThatRotateAtOnceAgree(t *testing.T) {
	places(t, func(t *testing.T, c issuer.KeyConfig) {
		first := open(t, c)
		done(issuer.Stage(c, "zot"))(t)
		due := at(now.Add(30*day-ahead), c)
		var wg sync.WaitGroup
		rings := make([]*issuer.Keyring, 12)
		var activated, refused int
		var mu sync.Mutex
		for n := range rings {
			wg.Go(func() {
				var err error
				if n%4 == 0 { // one of them wins, the others are told that there is nothing left to do
					_, err = issuer.Activate(due, "zot")
					mu.Lock()
					defer mu.Unlock()
					if errors.Is(err, issuer.ErrNoNext) {
						refused++
						return
					}
					activated++
				} else {
					rings[n], err = issuer.OpenKeyring(due)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if activated != 1 || refused != 2 {
			t.Errorf("activated %d times, refused %d times", activated, refused)
		}
		want := open(t, due)
		for _, ring := range rings {
			if ring != nil && (!slices.Equal(published(ring, "registry"), published(want, "registry")) || !ring.Root.Equal(first.Root)) {
				t.Errorf("%v and %v", published(ring, "registry"), published(want, "registry"))
			}
		}
	})
}

func TestServicesComeAndGo(t *testing.T) {
	places(t, func(t *testing.T, c issuer.KeyConfig) {
		first := done(issuer.Stage(c, "three"))(t)
		zot := done(issuer.Stage(c, "zot"))(t).NextFor("zot").ID
		fewer := c
		fewer.Services = []issuer.Service{service("new", issuer.VerifierPinned)}
		ring := openAt(t, now.Add(day), fewer)
		if len(ring.Published()) != 1 || ring.Root != nil || ring.For("zot") != nil || ring.NextFor("zot") != nil || ring.PublishedFor("zot") != nil {
			t.Errorf("%d keys are published", len(ring.Published()))
		}
		again := openAt(t, now.Add(2*day), c)
		for _, s := range again.Services() {
			if !slices.Equal(published(again, s)[:1], published(first, s)[:1]) {
				t.Errorf("%s: another key", s)
			}
		}
		wantKeys(t, "back", again, "zot", first.For("zot").ID, zot)
		wantKeys(t, "back", again, "three", first.For("three").ID, first.NextFor("three").ID)
	})
}

// The key of a service "x.next" is not the next key of a service "x".
func TestNamesOfServicesAreNotTakenForNextKeys(t *testing.T) {
	places(t, func(t *testing.T, c issuer.KeyConfig) {
		c.Services = []issuer.Service{service("x", issuer.VerifierPinned), service("x.next", issuer.VerifierPinned), service("x.old", issuer.VerifierPinned), service("x.next.next", issuer.VerifierPinned)}
		ring := open(t, c)
		for _, s := range ring.Services() {
			wantKeys(t, "opened", ring, s, ring.For(s).ID)
			if _, err := issuer.Activate(c, s); !errors.Is(err, issuer.ErrNoNext) {
				t.Errorf("%s: %v", s, err)
			}
		}
		two := done(issuer.Stage(c, "x"))(t)
		ring = done(issuer.Activate(c, "x"))(t)
		wantKeys(t, "activated", ring, "x", two.NextFor("x").ID, two.For("x").ID)
		wantKeys(t, "activated", ring, "x.next", two.For("x.next").ID)
	})
}

// A configuration with another algorithm, while a next key waits.
func TestANextKeyThatCannotBeUsedIsLeftOutAndNotActivated(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"damaged": func(t *testing.T, dir string) { write(t, dir+".next.key", 0o600, "x") },
		"of another algorithm": func(t *testing.T, dir string) {
			writePEM(t, dir+".next.key", 0o600, pkcs8(t, rsaKey(t, 2048)))
		},
		"with another's certificate": func(t *testing.T, dir string) {
			writePEM(t, dir+".next.key", 0o600, pkcs8(t, ec(t, elliptic.P256())))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := keys(dir, kinds()...)
			first := done(issuer.Stage(c, "zot"))(t)
			spoil(t, filepath.Join(dir, "pinned/zot"))
			ring := open(t, c)
			wantKeys(t, name, ring, "zot", first.For("zot").ID)
			if len(ring.Warnings) != 1 || !strings.HasPrefix(ring.Warnings[0], `the next key of service "zot" cannot be used and is left out: `) {
				t.Errorf("warnings %q", ring.Warnings)
			}
			before := contents(t, dir)
			if _, err := issuer.Activate(c, "zot"); err == nil {
				t.Error("it was activated")
			}
			if _, err := issuer.Stage(c, "zot"); err == nil {
				t.Error("it was taken for one that is made already")
			}
			if after := contents(t, dir); !maps.Equal(before, after) {
				t.Errorf("a refused command changed files")
			}
			usable(t, c, open(t, c))
		})
	}
	t.Run("root", func(t *testing.T) {
		dir := t.TempDir()
		c := keys(dir, kinds()...)
		first := done(issuer.StageRoot(c))(t)
		writePEM(t, filepath.Join(dir, "root.next.key"), 0o600, pkcs8(t, ec(t, elliptic.P256())))
		ring := open(t, c)
		if ring.NextRoot != nil || len(ring.Warnings) != 1 || !strings.HasPrefix(ring.Warnings[0], "the next root cannot be used and is left out: ") {
			t.Errorf("%v, warnings %q", roots(ring), ring.Warnings)
		}
		before := contents(t, dir)
		for _, err := range []error{second(issuer.ActivateRoot(c)), second(issuer.StageRoot(c))} {
			wantError(t, err, filepath.Join(dir, "root.next.crt")+": the first certificate does not belong to the private key")
		}
		if after := contents(t, dir); !maps.Equal(before, after) || !open(t, c).Root.Equal(first.Root) {
			t.Error("a refused command changed files")
		}
	})
	t.Run("leaf", func(t *testing.T) {
		dir := t.TempDir()
		c := keys(dir, kinds()...)
		c.PublishAhead = ahead
		open(t, c)
		due := now.Add(30*day - ahead)
		one := openAt(t, due, c).For("registry").ID
		write(t, filepath.Join(dir, "chain/es256.next.key"), 0o600, "x")
		ring := openAt(t, due, c)
		if len(ring.Warnings) != 1 || !strings.Contains(ring.Warnings[0], "cannot be used and is removed") || ring.For("registry").ID != one || ring.NextFor("registry") == nil {
			t.Errorf("warnings %q, published %v", ring.Warnings, published(ring, "registry"))
		}
		if again := openAt(t, due, c); len(again.Warnings) > 0 || again.NextFor("registry").ID != ring.NextFor("registry").ID {
			t.Errorf("warnings %q", again.Warnings)
		}
	})
}

func TestAnExposedNextKeyIsRefusedAndKept(t *testing.T) {
	dir := t.TempDir()
	c := keys(dir, kinds()...)
	c.PublishAhead = ahead
	open(t, c)
	done(issuer.Stage(c, "zot"))(t)
	done(issuer.Stage(c, "three"))(t)
	done(issuer.StageRoot(c))(t)
	c.Now = clock(now.Add(30*day - ahead))
	open(t, c)
	for file, of := range map[string]string{"root.next.key": "registry", "chain/es256.next.key": "registry", "pinned/zot.next.key": "zot", "jwks/es256.next.key": "three"} {
		path := filepath.Join(dir, file)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := issuer.OpenKeyring(c)
		if want := fmt.Sprintf("key of service %q: %s: everybody on this machine can read it; run: chmod o-rwx %s", of, path, path); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, c)
}

func TestADryRunOfEveryChangeWritesNothing(t *testing.T) {
	for _, dryRun := range []bool{true, false} {
		dir := t.TempDir()
		c := keys(dir, kinds()...)
		c.PublishAhead = ahead
		prepared(t, c)
		c.Now, c.DryRun = clock(now.Add(30*day-ahead)), dryRun
		id := openAt(t, now, c).For("registry").ID
		m := &table{}
		sealed := c
		sealed.Vault, sealed.DryRun = seal(t, m, secret), false
		prepared(t, sealed)
		sealed.DryRun = dryRun
		was := m.changes
		for name, change := range changes(id) {
			before := contents(t, dir)
			if err := change(c); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if same := maps.Equal(before, contents(t, dir)); dryRun && !same {
				t.Errorf("%s wrote", name)
			}
			if !dryRun { // and without, each does: the test could fail
				if maps.Equal(before, contents(t, dir)) {
					t.Errorf("%s wrote nothing", name)
				}
				break
			}
		}
		if dryRun {
			if _, err := issuer.ActivateRoot(sealed); err != nil || m.changes != was {
				t.Errorf("in the database: %v, %d changes", err, m.changes-was)
			}
		}
	}
}

func TestALoopThatRotatesIsStopped(t *testing.T) {
	places(t, func(t *testing.T, c issuer.KeyConfig) {
		c.Services = c.Services[:3]
		open(t, c)
		var err error
		n := 0
		for ; err == nil && n < 200; n++ {
			_, err = issuer.RotateLeaves(at(now.Add(time.Duration(n)*time.Second), c), "")
		}
		if !errors.Is(err, issuer.ErrCrowded) || n != 101 {
			t.Errorf("after %d: %v", n, err)
		}
		when := now.Add(time.Duration(n) * time.Second)
		ring := openAt(t, when, c)
		usable(t, at(when, c), ring)
		if got := len(published(ring, "registry")); got != 101 {
			t.Errorf("%d are published", got)
		}
		if _, err := issuer.RotateLeaves(at(when.Add(kept), c), ""); !errors.Is(err, issuer.ErrCrowded) { // they are removed by who opens
			t.Error(err)
		}
		openAt(t, when.Add(kept), c)
		if ring := done(issuer.RotateLeaves(at(when.Add(kept), c), ""))(t); len(published(ring, "registry")) != 2 {
			t.Errorf("published %v", published(ring, "registry"))
		}
	})
}

// contents are the files of a folder, with what is in them.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for name, mode := range tree(t, dir) {
		if mode.IsRegular() {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			found[name] = fmt.Sprint(mode, string(data))
		}
	}
	return found
}

// What a process was writing when it died holds a key, too.
func TestWhatADyingProcessWasWritingIsRemoved(t *testing.T) {
	dir := t.TempDir()
	c := keys(dir, kinds()...)
	open(t, c)
	for _, name := range []string{".root.key.1", ".root.next.key.22", "chain/.es256.next.key.3", "pinned/.zot.crt.4", "jwks/.es256.key.5"} {
		write(t, filepath.Join(dir, name), 0o600, "x")
	}
	kept := []string{".tls.key.6", "chain/.keep", ".root"}
	for _, name := range kept {
		write(t, filepath.Join(dir, name), 0o600, "x")
	}
	open(t, c)
	var hidden []string
	for name := range tree(t, dir) {
		if strings.HasPrefix(filepath.Base(name), ".") {
			hidden = append(hidden, name)
		}
	}
	if slices.Sort(hidden); !slices.Equal(hidden, []string{".root", ".tls.key.6", "chain/.keep"}) {
		t.Errorf("left: %q", hidden)
	}
}

func TestKeysOfBeforeThatCannotBeReadAreLeftOut(t *testing.T) {
	dir := t.TempDir()
	c := keys(dir, kinds()...)
	open(t, c)
	ring := done(issuer.RotateLeaves(c, ""))(t)
	old := filepath.Join(dir, "chain/es256.old")
	write(t, filepath.Join(old, now.Add(time.Minute).Format("20060102T150405.000Z")+".pem"), 0o600, "x")
	writePEM(t, filepath.Join(old, now.Add(2*time.Minute).Format("20060102T150405.000Z")+".pem"), 0o600, &pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})
	writePEM(t, filepath.Join(old, now.Add(3*time.Minute).Format("20060102T150405.000Z")+".pem"), 0o600, &pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
	write(t, filepath.Join(old, "README"), 0o600, "x")
	write(t, filepath.Join(dir, "root.old", now.Format("20060102T150405.000Z")+".pem"), 0o600, "x")
	again := open(t, c)
	if !slices.Equal(published(again, "registry"), published(ring, "registry")) || len(again.Warnings) != 4 || len(again.Roots()) != 1 {
		t.Errorf("published %v, warnings %q", published(again, "registry"), again.Warnings)
	}
	later := openAt(t, now.Add(time.Hour), c)
	if names := tree(t, old); len(later.Warnings) > 0 || len(names) != 1 {
		t.Errorf("left: %v, warnings %q", names, later.Warnings)
	}
}

func TestSealingKeysAreReadStrictly(t *testing.T) {
	dir := t.TempDir()
	line := func(b byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) }
	file := filepath.Join(dir, "encryption.key")
	right := `would be right: the output of "openssl rand -base64 32"`
	for name, c := range map[string]struct{ text, want string }{
		"empty":            {"", file + ": empty; " + right},
		"blank":            {"\n \n", file + ": empty; " + right},
		"short":            {line(1)[:20] + "\n", file + ": line 1 is not 32 bytes in base64; " + right},
		"long":             {"\n" + base64.StdEncoding.EncodeToString(make([]byte, 33)), file + ": line 2 is not 32 bytes in base64; " + right},
		"not base64":       {line(1) + "\n" + strings.Repeat("!", 44), file + ": line 2 is not 32 bytes in base64; " + right},
		"two on one line":  {line(1) + " " + line(2), file + ": line 1 is not 32 bytes in base64; " + right},
		"one":              {line(1), ""},
		"two, and no line": {line(1) + "\r\n\n" + line(2) + "\n\n", ""},
	} {
		write(t, file, 0o600, c.text)
		secrets, err := issuer.SealingKeys(file)
		if c.want != "" {
			wantError(t, err, c.want)
			continue
		}
		if err != nil || !bytes.Equal(secrets[0], bytes.Repeat([]byte{1}, 32)) || len(secrets) != 1+strings.Count(name, "two") {
			t.Errorf("%s: %d, %v", name, len(secrets), err)
		}
	}
	if err := os.Chmod(file, 0o604); err != nil {
		t.Fatal(err)
	}
	_, err := issuer.SealingKeys(file)
	wantError(t, err, fmt.Sprintf("%s: everybody on this machine can read it; run: chmod o-rwx %s", file, file))
	if _, err := issuer.SealingKeys(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := issuer.Sealed((&table{}).update, [][]byte{make([]byte, 31)}); err == nil {
		t.Error("a key of 31 bytes")
	}
}

func TestInTheDatabaseNothingIsInClear(t *testing.T) {
	m := &table{}
	c := keys("", kinds()...)
	c.Vault = seal(t, m, secret)
	prepared(t, c)
	if len(m.rows) < 12 {
		t.Errorf("%d rows", len(m.rows))
	}
	for name, text := range m.rows {
		box, err := base64.StdEncoding.DecodeString(text)
		if err != nil || bytes.Contains(box, []byte("BEGIN")) || bytes.Contains(box, []byte("KEY")) {
			t.Errorf("%s: %v, %q", name, err, box)
		}
	}
}

func TestWhoCanWriteToTheDatabaseCanNeitherReadNorPutInAKey(t *testing.T) {
	other := bytes.Repeat([]byte{8}, 32)
	fresh := func() (*table, issuer.KeyConfig, *issuer.Keyring) {
		m := &table{}
		c := keys("", kinds()...)
		c.PublishAhead = ahead
		c.Vault = seal(t, m, secret)
		prepared(t, c)
		return m, c, open(t, c)
	}
	const cannot = "cannot be decrypted with issuer.keys.encryption_key_file; bring the right key back"
	wantRefused := func(what string, m *table, c issuer.KeyConfig, want string) {
		t.Helper()
		before := maps.Clone(m.rows)
		for _, when := range []time.Duration{0, 40 * day, 400 * day} {
			if _, err := issuer.OpenKeyring(at(now.Add(when), c)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
		}
		if !maps.Equal(before, m.rows) {
			t.Errorf("%s: a key that could not be read was replaced", what)
		}
	}
	m, c, ring := fresh()
	wrong := c
	wrong.Vault = seal(t, m, other)
	wantRefused("another key", m, wrong, cannot)
	// The first encrypts, all decrypt.
	both := c
	both.Vault = seal(t, m, other, secret)
	if again := open(t, both); !maps.Equal(ids(again), ids(ring)) {
		t.Error("the second line does not decrypt")
	}
	done(issuer.RotateLeaves(both, ""))(t)
	wantRefused("what the first line has encrypted", m, c, cannot)

	for name := range m.rows {
		if !strings.Contains(name, ".old/") {
			m, c, _ := fresh()
			m.rows[name] = sealedBy(t, other, name, "x")
			wantRefused(name+" of somebody else", m, c, cannot)
		}
	}
	swap := func(a, b string) {
		t.Helper()
		m, c, _ := fresh()
		if m.rows[a] == "" || m.rows[b] == "" {
			t.Fatalf("no %s or %s in %v", a, b, slices.Sorted(maps.Keys(m.rows)))
		}
		m.rows[a], m.rows[b] = m.rows[b], m.rows[a]
		wantRefused(a+" for "+b, m, c, cannot)
	}
	swap("pinned/zot.key", "pinned/zot.next.key") // a staged key is not activated by moving its row
	swap("jwks/es256.key", "jwks/es256.next.key")
	swap("root.key", "root.next.key")
	swap("root.crt", "root.next.crt")
	swap("pinned/zot.key", "jwks/es256.key")

	m, c, _ = fresh()
	m.rows["root.key"] = "!"
	wantRefused("damaged", m, c, "database:root.key: damaged")
	m, c, _ = fresh()
	delete(m.rows, "root.key")
	delete(m.rows, "root.crt")
	wantRefused("a root that is gone", m, c, "database:root.crt is not there, but signing keys under it are (database:chain)")
	m, c, ring = fresh()
	delete(m.rows, "chain/es256.key")
	if again := open(t, c); again.For("registry").ID == ring.For("registry").ID || !again.Root.Equal(ring.Root) {
		t.Error("a signing key that is gone was not made anew")
	}
	m.rows["chain/es256.key"] = "!"
	if again := open(t, c); len(again.Warnings) != 1 || !strings.Contains(again.Warnings[0], "damaged") {
		t.Errorf("warnings %q", again.Warnings)
	}
}

// sealedBy is a row as the key of somebody else encrypts it.
func sealedBy(t *testing.T, secret []byte, name, text string) string {
	t.Helper()
	m := &table{}
	err := seal(t, m, secret).Open(func(s issuer.Shelf) error { return s.Write(name, []byte(text)) })
	if err != nil {
		t.Fatal(err)
	}
	return m.rows[name]
}

func TestTheEncryptionKeyIsReplaced(t *testing.T) {
	m := &table{}
	c := keys("", kinds()...)
	c.Vault = seal(t, m, secret)
	prepared(t, c)
	before := open(t, c)
	other := bytes.Repeat([]byte{8}, 32)
	both := seal(t, m, other, secret)
	for _, want := range []int{len(m.rows), 0} { // and the second time nothing is left to do
		if n, err := issuer.Reseal(both); err != nil || n != want {
			t.Errorf("%d encrypted, want %d, %v", n, want, err)
		}
	}
	c.Vault = seal(t, m, other)
	after := open(t, c)
	if !maps.Equal(ids(after), ids(before)) || !slices.Equal(roots(after), roots(before)) || len(after.Published()) != len(before.Published()) {
		t.Error("keys were lost")
	}
	changes := m.changes
	if _, err := issuer.Reseal(seal(t, m, secret)); err == nil || m.changes != changes {
		t.Errorf("with the wrong key: %v", err)
	}
	if _, err := issuer.Reseal(issuer.Folder(t.TempDir())); !errors.Is(err, issuer.ErrNotSealed) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := issuer.Reseal(nil); !errors.Is(err, issuer.ErrNotSealed) {
		t.Errorf("nothing: %v", err)
	}
}

func TestKeysInTheDataFolderThatAreNotUsedAreAWarning(t *testing.T) {
	c := keys(t.TempDir(), kinds()...)
	old := open(t, c).Root
	c.Vault = seal(t, &table{}, secret)
	ring := open(t, c)
	if ring.Root.Equal(old) || len(ring.Warnings) != 1 || !strings.HasPrefix(ring.Warnings[0], "the keys in use are in the database, with a root of their own, ") {
		t.Errorf("warnings %q", ring.Warnings)
	}
	remove(t, filepath.Join(c.DataDir, "root.crt"))
	if ring := open(t, c); len(ring.Warnings) > 0 {
		t.Errorf("warnings %q", ring.Warnings)
	}
}

func TestAnOwnKeyOfSeveralServicesIsPublishedOnce(t *testing.T) {
	key := ec(t, elliptic.P256())
	leaf, between, root := pki(t, key)
	chain := withOwn(t, issuer.VerifierChain, issuer.ES256, []*pem.Block{pkcs8(t, key)}, certificates(leaf, between, root))
	jwks := chain
	jwks.Name, jwks.Verifier, jwks.CertificateFile = "three", issuer.VerifierJWKS, ""
	ring := open(t, keys(t.TempDir(), chain, jwks))
	wantKeys(t, "shared", ring, "three", ring.For("registry.local").ID)
}
