package issuer_test

import (
	"crypto/elliptic"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/issuer"
	"authserver/internal/users"
)

// dying is a vault of a process that dies after a number of writes.
type dying struct {
	issuer.Vault
	left int
}

var errDied = errors.New("killed")

func (d *dying) Open(do func(issuer.Shelf) error) error {
	return d.Vault.Open(func(s issuer.Shelf) error { return do(dyingShelf{s, d}) })
}

type dyingShelf struct {
	issuer.Shelf
	d *dying
}

func (s dyingShelf) live() error {
	if s.d.left == 0 {
		return errDied
	}
	s.d.left--
	return nil
}

func (s dyingShelf) Write(name string, data []byte) error {
	if err := s.live(); err != nil {
		return err
	}
	return s.Shelf.Write(name, data)
}

func (s dyingShelf) Remove(name string) error {
	if _, err := s.Read(name); errors.Is(err, fs.ErrNotExist) {
		return nil // changes nothing
	}
	if err := s.live(); err != nil {
		return err
	}
	return s.Shelf.Remove(name)
}

// prepared makes a keyring with a next key of every kind, and keys of before.
func prepared(t *testing.T, c issuer.KeyConfig) *issuer.Keyring {
	t.Helper()
	open(t, c)
	for _, change := range []func() (*issuer.Keyring, error){
		func() (*issuer.Keyring, error) { return issuer.Stage(c, "zot") }, func() (*issuer.Keyring, error) { return issuer.Activate(c, "zot") },
		func() (*issuer.Keyring, error) { return issuer.Stage(c, "four") }, func() (*issuer.Keyring, error) { return issuer.Activate(c, "four") },
		func() (*issuer.Keyring, error) { return issuer.StageRoot(c) }, func() (*issuer.Keyring, error) { return issuer.ActivateRoot(c) },
		func() (*issuer.Keyring, error) { return issuer.RotateLeaves(c, "") },
		func() (*issuer.Keyring, error) { return issuer.Stage(c, "zot") }, func() (*issuer.Keyring, error) { return issuer.Stage(c, "four") },
		func() (*issuer.Keyring, error) { return issuer.StageRoot(c) },
	} {
		done(change())(t)
	}
	return open(t, c)
}

// changes are all ways to change keys; leaf is the id of a signing key under the root.
func changes(leaf string) map[string]func(issuer.KeyConfig) error {
	return map[string]func(issuer.KeyConfig) error{
		"open":            func(c issuer.KeyConfig) error { return second(issuer.OpenKeyring(c)) },
		"rotate":          func(c issuer.KeyConfig) error { return second(issuer.RotateLeaves(c, "")) },
		"activate pinned": func(c issuer.KeyConfig) error { return second(issuer.Activate(c, "zot")) },
		"activate jwks":   func(c issuer.KeyConfig) error { return second(issuer.Activate(c, "three")) },
		"activate root":   func(c issuer.KeyConfig) error { return second(issuer.ActivateRoot(c)) },
		"revoke leaf": func(c issuer.KeyConfig) error {
			_, _, err := issuer.Revoke(c, leaf)
			return err
		},
	}
}

func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	for name, mode := range tree(t, from) {
		if err := os.Chmod(filepath.Join(to, name), mode.Perm()); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// A process may die between any two writes. Whoever opens the keyring then can use it, under the root of before or the
// one that the process was to put in its place; and no key that waits signs unless it was to be activated.
func TestAProcessMayDieBetweenAnyTwoWrites(t *testing.T) {
	with := keys(t.TempDir(), kinds()...)
	with.PublishAhead = ahead
	was := prepared(t, with)
	bare := keys(t.TempDir(), kinds()...)
	bare.PublishAhead = ahead
	open(t, bare)
	waiting := keys(copyTree(t, with.DataDir), kinds()...)
	waiting.PublishAhead = ahead
	due := now.Add(30*day - ahead)
	openAt(t, due, waiting)
	old := was.PublishedFor("zot")[2].ID
	oldRoot := roots(was)[2]

	revoke := func(id string) func(issuer.KeyConfig) error {
		return func(c issuer.KeyConfig) error {
			_, _, err := issuer.Revoke(c, id)
			if errors.Is(err, issuer.ErrNoSuchKey) {
				return nil // it had died when all was done
			}
			return err
		}
	}
	again := func(do func(issuer.KeyConfig) error) func(issuer.KeyConfig) error {
		return func(c issuer.KeyConfig) error {
			if err := do(c); !errors.Is(err, issuer.ErrNoNext) {
				return err
			}
			return nil
		}
	}
	all := changes("")
	for name, c := range map[string]struct {
		in      issuer.KeyConfig
		change  func(issuer.KeyConfig) error
		changes []string // services whose key may be another then, and "root"
		gone    string   // a key that must be published no more when all is done
		offline bool     // may be done without root.key
	}{
		"first start":         {keys("", kinds()...), all["open"], []string{"registry", "zot", "three", "four", "root"}, "", false},
		"a leaf is due":       {at(due, with), all["open"], nil, "", false},
		"due, not ahead":      {func() issuer.KeyConfig { c := at(due.Add(ahead), bare); c.PublishAhead = 0; return c }(), all["open"], []string{"registry"}, "", false},
		"a leaf is promoted":  {at(due.Add(ahead), waiting), all["open"], []string{"registry"}, "", true},
		"rotate":              {with, all["rotate"], []string{"registry"}, "", false},
		"rotate before":       {at(due, waiting), all["rotate"], []string{"registry"}, "", false},
		"stage pinned":        {bare, func(c issuer.KeyConfig) error { return second(issuer.Stage(c, "zot")) }, nil, "", true},
		"stage jwks":          {bare, func(c issuer.KeyConfig) error { return second(issuer.Stage(c, "three")) }, nil, "", true},
		"stage root":          {bare, func(c issuer.KeyConfig) error { return second(issuer.StageRoot(c)) }, nil, "", true},
		"activate pinned":     {with, again(all["activate pinned"]), []string{"zot"}, "", true},
		"activate jwks":       {with, again(all["activate jwks"]), []string{"three", "four"}, "", true},
		"activate root":       {with, again(all["activate root"]), []string{"registry", "root"}, "", true},
		"revoke leaf":         {with, revoke(was.For("registry").ID), []string{"registry", "root"}, was.For("registry").ID, true},
		"revoke root":         {with, revoke(roots(was)[0]), []string{"registry", "root"}, roots(was)[0], true},
		"revoke next root":    {with, revoke(roots(was)[1]), nil, roots(was)[1], true},
		"revoke old root":     {with, revoke(oldRoot), nil, oldRoot, true},
		"revoke pinned":       {bare, revoke(openAt(t, now, bare).For("zot").ID), []string{"zot"}, openAt(t, now, bare).For("zot").ID, true},
		"revoke with a next":  {with, revoke(was.For("zot").ID), []string{"zot"}, was.For("zot").ID, true},
		"revoke next pinned":  {with, revoke(was.NextFor("zot").ID), nil, was.NextFor("zot").ID, true},
		"revoke old pinned":   {with, revoke(old), nil, old, true},
		"revoke shared jwks":  {with, revoke(was.For("four").ID), []string{"three", "four"}, was.For("four").ID, true},
		"revoke next of jwks": {with, revoke(was.NextFor("four").ID), nil, was.NextFor("four").ID, true},
	} {
		for _, offline := range []bool{false, true} {
			if offline && !c.offline {
				continue
			}
			t.Run(fmt.Sprintf("%s, root offline %v", name, offline), func(t *testing.T) {
				t.Parallel()
				start := func() issuer.KeyConfig {
					k := c.in
					if k.DataDir = t.TempDir(); c.in.DataDir != "" {
						k.DataDir = copyTree(t, c.in.DataDir)
					}
					if offline {
						remove(t, filepath.Join(k.DataDir, "root.key"))
					}
					return k
				}
				for writes := 0; ; writes++ {
					k := start()
					var before map[string]string
					var root string
					next := map[string]string{}
					if c.in.DataDir != "" {
						look := k
						look.DryRun = true
						look.Now, look.RotateEvery = clock(now), 1000*day // what is there, not what is due
						seen := open(t, look)
						before, root = ids(seen), issuer.RootID(seen.Root)
						for _, s := range seen.Services() {
							if key := seen.NextFor(s); key != nil {
								next[s] = key.ID
							}
						}
					}
					d := &dying{issuer.Folder(k.DataDir), writes}
					dead := k
					dead.Vault = d
					err := c.change(dead)
					if err != nil && !errors.Is(err, errDied) {
						t.Fatalf("after %d writes: %v", writes, err)
					}
					ring, openErr := issuer.OpenKeyring(k)
					if openErr != nil {
						t.Fatalf("dead after %d writes: %v\n%v", writes, openErr, slices.Sorted(maps.Keys(contents(t, k.DataDir))))
					}
					usable(t, k, ring)
					for s, id := range ids(ring) {
						if before[s] == id || slices.Contains(c.changes, s) {
							continue
						}
						t.Errorf("dead after %d writes: %s signs with another key", writes, s)
					}
					for _, s := range []string{"zot", "three"} {
						if next[s] != "" && ring.For(s).ID == next[s] && !strings.Contains(name, "activate") && !strings.Contains(name, "revoke") {
							t.Errorf("dead after %d writes: the key that waited for %s signs", writes, s)
						}
					}
					if root != "" && issuer.RootID(ring.Root) != root && !slices.Contains(c.changes, "root") {
						t.Errorf("dead after %d writes: another root", writes)
					}
					if ring.NextRoot != nil && ring.NextRoot.Equal(ring.Root) {
						t.Errorf("dead after %d writes: the root follows itself", writes)
					}
					for _, s := range ring.Services() {
						if list := published(ring, s); len(slices.Compact(slices.Sorted(slices.Values(list)))) != len(list) {
							t.Errorf("dead after %d writes: published twice: %v", writes, list)
						}
					}
					for name, text := range contents(t, k.DataDir) {
						if strings.Contains(text, "PRIVATE KEY") && (!strings.HasPrefix(text, "-rw-------") || !strings.HasSuffix(name, ".key")) {
							t.Errorf("dead after %d writes: %s", writes, name)
						}
					}
					// The command can be given again, and then all is as it should be.
					if err := c.change(k); err != nil {
						t.Fatalf("again, after %d writes: %v", writes, err)
					}
					last := open(t, k)
					usable(t, k, last)
					set, _ := issuer.JWKS(last.Published())
					if c.gone != "" && (strings.Contains(string(set), c.gone) || slices.Contains(roots(last), c.gone)) {
						t.Errorf("after %d writes: the revoked key is published still", writes)
					}
					if err == nil { // it has not died
						if writes == 0 && !offline {
							t.Error("it writes nothing")
						}
						return
					}
				}
			})
		}
	}
}

func TestRevokingAKeyReplacesItAndSaysWhoIsToBeTold(t *testing.T) {
	chain, jwks := []string{"registry"}, []string{"three", "four"}
	for name, c := range map[string]struct {
		id      func(r *issuer.Keyring) string
		want    issuer.Revocation
		changes []string // services with another key then
		root    bool     // and another root
	}{
		"leaf":          {func(r *issuer.Keyring) string { return r.For("registry").ID }, issuer.Revocation{Services: chain, Root: true, Signs: true}, chain, true},
		"next leaf":     {func(r *issuer.Keyring) string { return r.NextFor("registry").ID }, issuer.Revocation{Services: chain, Root: true, Signs: true}, chain, true},
		"old leaf":      {func(r *issuer.Keyring) string { return r.PublishedFor("registry")[2].ID }, issuer.Revocation{Services: chain, Root: true, Signs: true}, chain, true},
		"root":          {func(r *issuer.Keyring) string { return roots(r)[0] }, issuer.Revocation{Services: chain, Root: true, Signs: true}, chain, true},
		"next root":     {func(r *issuer.Keyring) string { return roots(r)[1] }, issuer.Revocation{Services: chain, Root: true}, nil, false},
		"old root":      {func(r *issuer.Keyring) string { return roots(r)[2] }, issuer.Revocation{Services: chain, Root: true}, nil, false},
		"pinned":        {func(r *issuer.Keyring) string { return r.For("zot").ID }, issuer.Revocation{Services: []string{"zot"}, Signs: true}, []string{"zot"}, false},
		"next pinned":   {func(r *issuer.Keyring) string { return r.NextFor("zot").ID }, issuer.Revocation{Services: []string{"zot"}}, nil, false},
		"old pinned":    {func(r *issuer.Keyring) string { return r.PublishedFor("zot")[2].ID }, issuer.Revocation{Services: []string{"zot"}}, nil, false},
		"pinned alone":  {func(r *issuer.Keyring) string { return r.For("alone").ID }, issuer.Revocation{Services: []string{"alone"}, Signs: true}, []string{"alone"}, false},
		"jwks, shared":  {func(r *issuer.Keyring) string { return r.For("four").ID }, issuer.Revocation{Services: jwks, Signs: true}, jwks, false},
		"next of jwks":  {func(r *issuer.Keyring) string { return r.NextFor("four").ID }, issuer.Revocation{Services: jwks}, nil, false},
		"one of before": {func(r *issuer.Keyring) string { return r.PublishedFor("three")[2].ID }, issuer.Revocation{Services: jwks}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			places(t, func(t *testing.T, k issuer.KeyConfig) {
				k.Services = append(k.Services, service("alone", issuer.VerifierPinned))
				prepared(t, k)
				// Everything is there at once: the leaf of before is from a minute ago.
				soon := now.Add(30*day - ahead)
				k.Now = clock(soon)
				for _, s := range []string{"zot", "four"} {
					done(issuer.Activate(k, s))(t)
					done(issuer.Stage(k, s))(t)
				}
				done(issuer.ActivateRoot(k))(t)
				done(issuer.StageRoot(k))(t)
				k.Now = clock(soon.Add(30*day - ahead))
				done(issuer.RotateLeaves(k, ""))(t)
				for _, s := range []string{"zot", "four"} {
					done(issuer.Activate(k, s))(t)
					done(issuer.Stage(k, s))(t)
				}
				done(issuer.ActivateRoot(k))(t)
				done(issuer.StageRoot(k))(t)
				k.RotateEvery = 2 * ahead // the leaf is due before those of before are forgotten
				k.PublishAhead = 2*ahead - 1
				was := open(t, k)

				id := c.id(was)
				dry := k
				dry.DryRun = true
				if _, r, err := issuer.Revoke(dry, id); err != nil || !slices.Equal(r.Services, c.want.Services) {
					t.Errorf("asked: %+v, %v", r, err)
				}
				ring, r, err := issuer.Revoke(k, id)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(r.Services, c.want.Services) || r.Root != c.want.Root || r.Signs != c.want.Signs {
					t.Errorf("%+v, want %+v", r, c.want)
				}
				for _, s := range ring.Services() {
					if changed := ring.For(s).ID != was.For(s).ID; changed != slices.Contains(c.changes, s) {
						t.Errorf("%s: changed %v", s, changed)
					}
				}
				if changed := !ring.Root.Equal(was.Root); changed != c.root {
					t.Errorf("root: changed %v", changed)
				}
				if c.root && len(ring.Roots()) != 1 {
					t.Errorf("roots %v", roots(ring))
				}
				if name == "pinned" && ring.For("zot").ID != was.NextFor("zot").ID {
					t.Error("the next key did not take its place")
				}
				for _, r := range []*issuer.Keyring{ring, open(t, k)} {
					usable(t, k, r)
					set, err := issuer.JWKS(r.Published())
					if err != nil || strings.Contains(string(set), id) || slices.Contains(roots(r), id) {
						t.Errorf("it is published still: %v", err)
					}
				}
				if _, _, err := issuer.Revoke(k, id); !errors.Is(err, issuer.ErrNoSuchKey) {
					t.Errorf("again: %v", err)
				}
			})
		})
	}
}

func TestWhatCannotBeRevokedIsSaid(t *testing.T) {
	key := ec(t, elliptic.P256())
	leaf, between, root := pki(t, key)
	own := withOwn(t, issuer.VerifierChain, issuer.ES256, []*pem.Block{pkcs8(t, key)}, certificates(leaf, between, root))
	c := keys(t.TempDir(), own, service("registry", issuer.VerifierChain))
	ring := open(t, c)
	before := contents(t, c.DataDir)
	for id, want := range map[string]error{ring.For("registry.local").ID: issuer.ErrOwnKey, "": issuer.ErrNoSuchKey, "AAAA": issuer.ErrNoSuchKey} {
		if _, _, err := issuer.Revoke(c, id); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", id, err, want)
		}
	}
	for _, err := range []error{
		second(issuer.RotateLeaves(c, "registry.local")), second(issuer.Stage(c, "registry.local")), second(issuer.Activate(c, "registry.local")),
	} {
		if !errors.Is(err, issuer.ErrOwnKey) {
			t.Error(err)
		}
	}
	if !maps.Equal(before, contents(t, c.DataDir)) {
		t.Error("something was written")
	}
	// Our own root goes, and the registries of somebody else's certificates are not told.
	_, r, err := issuer.Revoke(c, ring.For("registry").ID)
	if err != nil || !slices.Equal(r.Services, []string{"registry"}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// A process that retired a key, and died before it had replaced it, leaves it among those of before. Revoked, it is gone
// from there, too.
func TestARevokedKeyIsGoneFromThoseOfBefore(t *testing.T) {
	c := keys(t.TempDir(), kinds()...)
	done(issuer.Stage(c, "zot"))(t)
	dead := c
	dead.Vault = &dying{issuer.Folder(c.DataDir), 1}
	if _, err := issuer.Activate(dead, "zot"); !errors.Is(err, errDied) {
		t.Fatal(err)
	}
	id := open(t, c).For("zot").ID
	ring, _, err := issuer.Revoke(c, id)
	if err != nil {
		t.Fatal(err)
	}
	if set, _ := issuer.JWKS(ring.Published()); strings.Contains(string(set), id) {
		t.Error("it is published still")
	}
}

// RFC 7662 is asked about tokens that registries may be shown: those of the keys before, too, and no others.
func TestTokensOfTheKeyBeforeAreKnown(t *testing.T) {
	places(t, func(t *testing.T, k issuer.KeyConfig) {
		prepared(t, k)
		with := func(t *testing.T, k issuer.KeyConfig, r *issuer.Keyring) *issuer.Issuer {
			return start(t, issuer.Config{
				Services: k.Services, Keyring: r, Users: people{known: map[string]users.Principal{"alice": alice}}, Policy: decide(all), Audit: &record{}, Now: k.Now,
			})
		}
		mint := func(r *issuer.Keyring) map[string]string {
			tokens := map[string]string{}
			for _, s := range r.Services() {
				tokens[s] = issue(t, with(t, k, r), request(t, s, "repository:a:pull")).Token
			}
			return tokens
		}
		wantActive := func(when string, r *issuer.Keyring, tokens map[string]string, want bool) {
			t.Helper()
			i := with(t, k, r)
			for s, token := range tokens {
				answer, err := i.Introspect(t.Context(), request(t, ""), token)
				if err != nil || answer.Active != want || want && answer.Audience != s {
					t.Errorf("%s, %s: %+v, %v", when, s, answer, err)
				}
			}
		}
		first := open(t, k)
		tokens := mint(first)
		wantActive("now", first, tokens, true)
		k.Now = clock(now.Add(4 * time.Minute)) // they live for five
		done(issuer.RotateLeaves(k, ""))(t)
		done(issuer.Activate(k, "zot"))(t)
		done(issuer.Activate(k, "three"))(t)
		ring := done(issuer.ActivateRoot(k))(t)
		for _, s := range ring.Services() {
			if ring.For(s).ID == first.For(s).ID {
				t.Fatalf("%s: the same key", s)
			}
		}
		wantActive("after a rotation", ring, tokens, true)
		// A process that has not noticed yet is asked about tokens of one that has: the next keys are known to it.
		fresh := mint(ring)
		wantActive("elsewhere", first, map[string]string{"zot": fresh["zot"], "three": fresh["three"]}, true)

		ring, _, err := issuer.Revoke(k, first.For("zot").ID)
		if err != nil {
			t.Fatal(err)
		}
		wantActive("revoked", ring, map[string]string{"zot": tokens["zot"]}, false)
		if ring, _, err = issuer.Revoke(k, first.For("three").ID); err != nil {
			t.Fatal(err)
		}
		wantActive("revoked", ring, map[string]string{"three": tokens["three"], "four": tokens["four"]}, false)
		if ring, _, err = issuer.Revoke(k, issuer.RootID(first.Root)); err != nil {
			t.Fatal(err)
		}
		wantActive("its root revoked", ring, map[string]string{"registry": tokens["registry"]}, false)
		wantActive("of the new ones", ring, fresh, true)
	})
}
