package issuer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
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

// tree lists a folder with modes.
func tree(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	found := map[string]fs.FileMode{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err == nil {
			name, _ := filepath.Rel(dir, path)
			found[name] = info.Mode()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// ids lists the kids of a keyring by service.
func ids(r *issuer.Keyring) map[string]string {
	m := map[string]string{}
	for _, s := range r.Services() {
		m[s] = r.For(s).ID
	}
	return m
}

func remove(t *testing.T, files ...string) {
	t.Helper()
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

// stranger is a data folder of somebody else's, with the same services.
func stranger(t *testing.T, c issuer.KeyConfig) string {
	t.Helper()
	c.DataDir = t.TempDir()
	open(t, c)
	return c.DataDir
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, 0o600, string(data))
}

func mixed() []issuer.Service {
	return []issuer.Service{
		service("registry.local", issuer.VerifierChain), service("harbor", issuer.VerifierChain), service("old", issuer.VerifierChain, issuer.ES384),
		service("zot", issuer.VerifierPinned), service("host:5000/../x", issuer.VerifierPinned),
		service("three", issuer.VerifierJWKS), service("four", issuer.VerifierJWKS), service("five", issuer.VerifierJWKS, issuer.EdDSA),
	}
}

func TestOpeningMakesWhatIsMissingForItsOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	ring := open(t, keys(dir, mixed()...))
	want := map[string]fs.FileMode{
		"root.key": 0o600, "root.crt": 0o644,
		"chain": fs.ModeDir | 0o700, "chain/es256.key": 0o600, "chain/es256.crt": 0o644, "chain/es384.key": 0o600, "chain/es384.crt": 0o644,
		"pinned": fs.ModeDir | 0o700, "pinned/zot.key": 0o600, "pinned/zot.crt": 0o644,
		"pinned/host:5000%2F..%2Fx.key": 0o600, "pinned/host:5000%2F..%2Fx.crt": 0o644,
		"jwks": fs.ModeDir | 0o700, "jwks/es256.key": 0o600, "jwks/eddsa.key": 0o600,
	}
	if got := tree(t, dir); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder itself: %v, %v", info.Mode(), err)
	}
	if len(ring.Warnings) != 0 {
		t.Errorf("warnings %q", ring.Warnings)
	}
	if got := []string{"registry.local", "harbor", "old", "zot", "host:5000/../x", "three", "four", "five"}; !slices.Equal(ring.Services(), got) {
		t.Errorf("services %q", ring.Services())
	}
	if ring.For("nobody") != nil {
		t.Error("a service that is not listed has a key")
	}
}

func TestChainAndJWKSServicesOfAnAlgorithmShareAKeyAndPinnedOnesDoNot(t *testing.T) {
	ring := open(t, keys(t.TempDir(), mixed()...))
	id := ids(ring)
	if id["registry.local"] != id["harbor"] || id["three"] != id["four"] {
		t.Errorf("keys are not shared: %v", id)
	}
	if n := len(ring.Keys()); n != 6 {
		t.Errorf("%d keys, want 6", n)
	}
	different := map[string]bool{}
	for _, key := range ring.Keys() {
		different[key.ID] = true
	}
	if len(different) != 6 {
		t.Errorf("%d different keys, want 6: a token for one service would be good at another", len(different))
	}
}

func TestTheSecondOpeningFindsTheSameKeys(t *testing.T) {
	dir := t.TempDir()
	first := open(t, keys(dir, mixed()...))
	second := openAt(t, now.Add(day), keys(dir, mixed()...))
	if !maps.Equal(ids(first), ids(second)) || !first.Root.Equal(second.Root) {
		t.Errorf("first %v, second %v", ids(first), ids(second))
	}
	for n, key := range second.Keys() {
		if key.Anchor != nil && !key.Anchor.Equal(first.Keys()[n].Anchor) {
			t.Errorf("%s: the anchor was made anew", key.Use)
		}
	}
}

func TestCertificatesAreBackdatedAndOutliveTheirKeys(t *testing.T) {
	ring := open(t, keys(t.TempDir(), service("registry.local", issuer.VerifierChain), service("zot", issuer.VerifierPinned)))
	for name, c := range map[string]struct {
		certificate *x509.Certificate
		end         time.Duration
		subject     string
		ca          bool
	}{
		"root":   {ring.Root, 10 * 365 * day, "CN=auth token root", true},
		"leaf":   {ring.For("registry.local").Chain[0], 365 * day, "CN=auth token signing key", false},
		"pinned": {ring.For("zot").Anchor, 10 * 365 * day, "CN=auth signing key for zot", true},
	} {
		whole := now.Truncate(time.Second)
		if got := c.certificate; !got.NotBefore.Equal(whole.Add(-day)) || !got.NotAfter.Equal(whole.Add(c.end)) ||
			got.Subject.String() != c.subject || got.IsCA != c.ca || got.SerialNumber.BitLen() < 64 {
			t.Errorf("%s: from %v to %v, %s, CA %v, serial %v", name, got.NotBefore, got.NotAfter, got.Subject, got.IsCA, got.SerialNumber)
		}
	}
}

func TestProcessesThatStartAtOnceAgree(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	rings := make([]*issuer.Keyring, 8)
	for n := range rings {
		wg.Go(func() {
			var err error
			if rings[n], err = issuer.OpenKeyring(keys(dir, mixed()...)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, ring := range rings[1:] {
		if ring != nil && rings[0] != nil && !maps.Equal(ids(ring), ids(rings[0])) {
			t.Errorf("%v and %v", ids(ring), ids(rings[0]))
		}
	}
}

func TestARunThatOnlyChecksWritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	c := keys(dir, mixed()...)
	c.DryRun = true
	if ring := open(t, c); len(ring.Keys()) != 6 {
		t.Errorf("%d keys", len(ring.Keys()))
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}

	c.DryRun = false
	kept := open(t, c)
	before := tree(t, dir)
	c.DryRun = true
	remove(t, filepath.Join(dir, "pinned", "zot.key"), filepath.Join(dir, "pinned", "zot.crt"))
	delete(before, "pinned/zot.key")
	delete(before, "pinned/zot.crt")
	ring := openAt(t, now.Add(31*day), c) // a leaf is due, too
	if got := tree(t, dir); !maps.Equal(got, before) {
		t.Errorf("got  %v\nwant %v", got, before)
	}
	if ring.For("registry.local").ID == kept.For("registry.local").ID || ring.For("three").ID != kept.For("three").ID {
		t.Error("it did not check what the next start would use")
	}
}

func TestALeafIsReplacedWhenItIsDueUnderTheSameRoot(t *testing.T) {
	c := keys(t.TempDir(), service("registry.local", issuer.VerifierChain), service("zot", issuer.VerifierPinned), service("three", issuer.VerifierJWKS))
	first := open(t, c)
	if ring := openAt(t, now.Add(30*day-2*time.Second), c); ring.For("registry.local").ID != first.For("registry.local").ID {
		t.Error("replaced before it was due")
	}
	due := openAt(t, now.Add(30*day), c)
	leaf := due.For("registry.local")
	if leaf.ID == first.For("registry.local").ID {
		t.Error("not replaced when it was due")
	}
	if !due.Root.Equal(first.Root) || !leaf.Anchor.Equal(first.Root) || leaf.Chain[0].CheckSignatureFrom(first.Root) != nil {
		t.Error("the registry would have to be told")
	}
	if due.For("zot").ID != first.For("zot").ID || due.For("three").ID != first.For("three").ID {
		t.Error("a key that registries hold was replaced")
	}
	if len(due.Warnings) != 0 {
		t.Errorf("warnings %q", due.Warnings)
	}
	if again := openAt(t, now.Add(31*day), c); again.For("registry.local").ID != leaf.ID {
		t.Error("the new leaf was not kept")
	}
}

func TestALeafDoesNotOutliveTheRoot(t *testing.T) {
	c := keys(t.TempDir(), service("registry.local", issuer.VerifierChain))
	root := open(t, c).Root
	ring := openAt(t, now.Add(10*365*day-100*day), c)
	if end := ring.For("registry.local").Chain[0].NotAfter; !end.Equal(root.NotAfter) {
		t.Errorf("the leaf ends %v, the root %v", end, root.NotAfter)
	}
}

func TestARootNearItsEndIsAWarning(t *testing.T) {
	c := keys(t.TempDir(), service("registry.local", issuer.VerifierChain))
	open(t, c)
	openAt(t, now.Add(9*365*day-2*day), c) // replaces the leaf, which has ended
	if ring := openAt(t, now.Add(9*365*day-day), c); len(ring.Warnings) != 0 {
		t.Errorf("more than a year before: %q", ring.Warnings)
	}
	ring := openAt(t, now.Add(9*365*day+day), c)
	if want := []string{"the root certificate ends 2036-03-01; make the next one (authserver key rotate --root) and give it to the registries before"}; !slices.Equal(ring.Warnings, want) {
		t.Errorf("got  %q\nwant %q", ring.Warnings, want)
	}
}

func TestARootAtItsEndDoesNotStart(t *testing.T) {
	dir := t.TempDir()
	c := keys(dir, service("registry.local", issuer.VerifierChain))
	open(t, c)
	c.Now = clock(now.Add(10*365*day + day))
	_, err := issuer.OpenKeyring(c)
	wantError(t, err, `key of service "registry.local": `+filepath.Join(dir, "root.crt")+
		": certificate 1 (CN=auth token root) is valid from 2026-03-03T05:06:07Z to 2036-03-01T05:06:07Z only")
}

func TestTheRootKeyMayBeMovedAway(t *testing.T) {
	dir := t.TempDir()
	c := keys(dir, service("registry.local", issuer.VerifierChain))
	first := open(t, c)
	remove(t, filepath.Join(dir, "root.key"))

	ring := openAt(t, now.Add(day), c)
	if ring.For("registry.local").ID != first.For("registry.local").ID || !ring.Root.Equal(first.Root) || len(ring.Warnings) != 0 {
		t.Errorf("%v, warnings %q", ids(ring), ring.Warnings)
	}
	ring = openAt(t, now.Add(40*day), c)
	want := fmt.Sprintf("the signing key %s is due to be replaced, but %s is not there; it is good until 2027-03-04",
		filepath.Join(dir, "chain", "es256.key"), filepath.Join(dir, "root.key"))
	if !slices.Equal(ring.Warnings, []string{want}) || ring.For("registry.local").ID != first.For("registry.local").ID {
		t.Errorf("due: %v\n got %q\nwant %q", ids(ring), ring.Warnings, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "root.key")); err == nil {
		t.Error("a new root key was made")
	}
}

func TestARootKeyThatIsNeededAndAwayIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	c := keys(dir, service("registry.local", issuer.VerifierChain))
	open(t, c)
	rootKey, leafKey, leafCrt := filepath.Join(dir, "root.key"), filepath.Join(dir, "chain", "es256.key"), filepath.Join(dir, "chain", "es256.crt")
	remove(t, rootKey)
	const prefix = `key of service "registry.local": no signing key can be used (`
	suffix := "), and a new one needs " + rootKey + ", which is not there; bring it back"

	over := c
	over.Now = clock(now.Add(366 * day))
	_, err := issuer.OpenKeyring(over)
	wantError(t, err, prefix+leafCrt+": certificate 1 (CN=auth token signing key) is valid from 2026-03-03T05:06:07Z to 2027-03-04T05:06:07Z only"+suffix)

	was, err := os.ReadFile(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, leafKey, 0o600, "garbage")
	_, err = issuer.OpenKeyring(c)
	wantError(t, err, prefix+leafKey+": no private key in PEM form"+suffix)
	if data, err := os.ReadFile(leafKey); err != nil || string(data) != "garbage" {
		t.Errorf("the damaged key was touched: %q, %v", data, err)
	}

	remove(t, leafKey)
	_, err = issuer.OpenKeyring(c)
	wantError(t, err, prefix+"stat "+leafKey+": no such file or directory"+suffix)

	write(t, leafKey, 0o600, string(was))
	open(t, c) // whole again
}

func TestALostCertificateIsMadeAgainForTheSameKey(t *testing.T) {
	dir := t.TempDir()
	c := keys(dir, service("registry.local", issuer.VerifierChain), service("zot", issuer.VerifierPinned))
	first := open(t, c)
	remove(t, filepath.Join(dir, "root.crt"), filepath.Join(dir, "pinned", "zot.crt"))
	ring := openAt(t, now.Add(day), c)
	if !maps.Equal(ids(ring), ids(first)) || len(ring.Warnings) != 0 {
		t.Errorf("%v, want %v; warnings %q", ids(ring), ids(first), ring.Warnings)
	}
	// A registry that was given the old root believes what is signed under the new one: the key is the same.
	if err := ring.For("registry.local").Chain[0].CheckSignatureFrom(first.Root); err != nil {
		t.Error(err)
	}
	again := openAt(t, now.Add(2*day), c)
	if !again.Root.Equal(ring.Root) || !again.For("zot").Anchor.Equal(ring.For("zot").Anchor) {
		t.Error("the certificate that was made was not kept")
	}
}

func TestALostLeafIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	c := keys(dir, service("registry.local", issuer.VerifierChain))
	first := open(t, c)
	remove(t, filepath.Join(dir, "chain", "es256.crt"))
	ring := open(t, c)
	if ring.For("registry.local").ID == first.For("registry.local").ID || !ring.Root.Equal(first.Root) || len(ring.Warnings) != 0 {
		t.Errorf("%v, warnings %q", ids(ring), ring.Warnings)
	}
}

func TestADamagedLeafIsReplacedWithAWarning(t *testing.T) {
	services := []issuer.Service{service("registry.local", issuer.VerifierChain)}
	for name, c := range map[string]struct {
		damage func(key, crt, other string)
		want   func(key, crt, root string) string // beginning of the reason
	}{
		"a key that is none": {
			func(key, _, _ string) { write(t, key, 0o600, "garbage") },
			func(key, _, _ string) string { return key + ": no private key in PEM form" },
		},
		"a certificate that is none": {
			func(_, crt, _ string) { write(t, crt, 0o644, "garbage") },
			func(_, crt, _ string) string { return crt + ": no certificate in PEM form" },
		},
		"the certificate of another key": {
			func(_, crt, other string) { copyFile(t, filepath.Join(other, "chain/es256.crt"), crt) },
			func(_, crt, _ string) string {
				return crt + ": the first certificate does not belong to the private key"
			},
		},
		"a pair of another root": {
			func(key, crt, other string) {
				copyFile(t, filepath.Join(other, "chain/es256.crt"), crt)
				copyFile(t, filepath.Join(other, "chain/es256.key"), key)
			},
			func(_, crt, root string) string { return crt + ": not signed by " + root + ": x509: " },
		},
		"a key of another algorithm": {
			func(key, crt, _ string) {
				open(t, keys(filepath.Dir(filepath.Dir(key)), service("x", issuer.VerifierChain, issuer.ES384)))
				copyFile(t, filepath.Join(filepath.Dir(key), "es384.key"), key)
				copyFile(t, filepath.Join(filepath.Dir(key), "es384.crt"), crt)
			},
			func(key, _, _ string) string {
				return key + ": this key cannot sign with ES256; set the algorithm to ES384"
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			k := keys(dir, services...)
			first := open(t, k)
			key, crt, root := filepath.Join(dir, "chain/es256.key"), filepath.Join(dir, "chain/es256.crt"), filepath.Join(dir, "root.crt")
			c.damage(key, crt, stranger(t, k))
			ring := open(t, k)
			want := "the signing key " + key + " cannot be used and is replaced: " + c.want(key, crt, root)
			if len(ring.Warnings) != 1 || !strings.HasPrefix(ring.Warnings[0], want) {
				t.Errorf("got  %q\nwant %q", ring.Warnings, want)
			}
			if ring.For("registry.local").ID == first.For("registry.local").ID || !ring.Root.Equal(first.Root) {
				t.Errorf("%v under %v", ids(ring), ring.Root.Subject)
			}
			if again := open(t, k); !maps.Equal(ids(again), ids(ring)) || len(again.Warnings) != 0 {
				t.Errorf("the new one was not kept: %q", again.Warnings)
			}
		})
	}
}

func TestADamagedRootOrPinnedKeyIsRefusedAndKept(t *testing.T) {
	services := []issuer.Service{service("registry.local", issuer.VerifierChain), service("zot", issuer.VerifierPinned), service("three", issuer.VerifierJWKS)}
	for file, of := range map[string]string{
		"root.key": "registry.local", "pinned/zot.key": "zot", "jwks/es256.key": "three", "root.crt": "registry.local", "pinned/zot.crt": "zot",
	} {
		dir := t.TempDir()
		open(t, keys(dir, services...))
		path := write(t, filepath.Join(dir, file), 0o600, "garbage")
		what := "private key"
		if strings.HasSuffix(file, ".crt") {
			what = "certificate"
		}
		_, err := issuer.OpenKeyring(keys(dir, services...))
		wantError(t, err, fmt.Sprintf("key of service %q: %s: no %s in PEM form", of, path, what))
		if data, err := os.ReadFile(path); err != nil || string(data) != "garbage" {
			t.Errorf("%s was touched: %q, %v", file, data, err)
		}
	}
}

func TestACertificateOfAnotherKeyIsRefused(t *testing.T) {
	services := []issuer.Service{service("registry.local", issuer.VerifierChain), service("zot", issuer.VerifierPinned)}
	for file, of := range map[string]string{"root.crt": "registry.local", "pinned/zot.crt": "zot"} {
		dir := t.TempDir()
		open(t, keys(dir, services...))
		path := filepath.Join(dir, file)
		copyFile(t, filepath.Join(stranger(t, keys("", services...)), file), path)
		_, err := issuer.OpenKeyring(keys(dir, services...))
		wantError(t, err, fmt.Sprintf("key of service %q: %s: the first certificate does not belong to the private key", of, path))
	}
}

func TestAKeyThatEverybodyCanReadIsRefusedWithTheRemedy(t *testing.T) {
	services := []issuer.Service{service("registry.local", issuer.VerifierChain), service("zot", issuer.VerifierPinned), service("three", issuer.VerifierJWKS)}
	for file, of := range map[string]string{"root.key": "registry.local", "chain/es256.key": "registry.local", "pinned/zot.key": "zot", "jwks/es256.key": "three"} {
		for _, mode := range []fs.FileMode{0o604, 0o602, 0o601, 0o666} {
			dir := t.TempDir()
			open(t, keys(dir, services...))
			path := filepath.Join(dir, file)
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			_, err := issuer.OpenKeyring(keys(dir, services...))
			wantError(t, err, fmt.Sprintf("key of service %q: %s: everybody on this machine can read it; run: chmod o-rwx %s", of, path, path))
			if err := os.Chmod(path, 0o640); err != nil { // the group is the operator's choice
				t.Fatal(err)
			}
			open(t, keys(dir, services...))
		}
	}
}

func TestAnExistingKeyOfAnotherAlgorithmIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	open(t, keys(dir, service("zot", issuer.VerifierPinned)))
	path := filepath.Join(dir, "pinned", "zot.key")
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = issuer.OpenKeyring(keys(dir, service("zot", issuer.VerifierPinned, issuer.RS256)))
	wantError(t, err, `key of service "zot": `+path+": this key cannot sign with RS256; set the algorithm to ES256; or move the file away, and give the registry the new certificate")
	if data, err := os.ReadFile(path); err != nil || string(data) != string(was) {
		t.Errorf("the key was replaced: %v", err)
	}
}

func TestOneRSAKeySignsWithEveryRSAAlgorithm(t *testing.T) {
	dir := t.TempDir()
	first := open(t, keys(dir, service("zot", issuer.VerifierPinned, issuer.RS256)))
	second := open(t, keys(dir, service("zot", issuer.VerifierPinned, issuer.RS512)))
	if !maps.Equal(ids(first), ids(second)) || second.For("zot").Algorithm != issuer.RS512 {
		t.Errorf("%v and %v", ids(first), ids(second))
	}
}

func TestEveryServiceWhoseKeyIsMissingIsNamed(t *testing.T) {
	dir := t.TempDir()
	services := []issuer.Service{service("a", issuer.VerifierPinned), service("b", issuer.VerifierPinned), service("c", issuer.VerifierJWKS, "HS256")}
	a, b := write(t, filepath.Join(dir, "pinned/a.key"), 0o600, "x"), write(t, filepath.Join(dir, "pinned/b.key"), 0o600, "x")
	_, err := issuer.OpenKeyring(keys(dir, services...))
	wantError(t, err, `key of service "a": `+a+": no private key in PEM form\n"+`key of service "b": `+b+": no private key in PEM form\n"+
		`key of service "c": algorithm "HS256" is not known`)
}

func TestADataFolderThatCannotBeMadeIsNamed(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "file"), 0o600, "")
	_, err := issuer.OpenKeyring(keys(filepath.Join(file, "data"), service("a", issuer.VerifierJWKS)))
	if want := "data folder: mkdir " + file + ": not a directory"; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAKeySaysWhatItIs(t *testing.T) {
	dir := t.TempDir()
	ring := open(t, keys(dir, service("registry.local", issuer.VerifierChain), service("zot", issuer.VerifierPinned), service("three", issuer.VerifierJWKS, issuer.EdDSA)))
	for name, want := range map[string]struct {
		use, algorithm, source string
		chain                  int
	}{
		"registry.local": {"chain", "ES256", "chain/es256.key", 1}, "zot": {"pinned", "ES256", "pinned/zot.key", 1}, "three": {"jwks", "EdDSA", "jwks/eddsa.key", 0},
	} {
		k := ring.For(name)
		if k.Use != want.use || k.Algorithm != want.algorithm || k.Source != filepath.Join(dir, want.source) || len(k.Chain) != want.chain || (k.Anchor == nil) != (want.chain == 0) {
			t.Errorf("%s: %+v", name, k)
		}
		if k.ID != libtrust(t, k.Public()) {
			t.Errorf("%s: kid %s", name, k.ID)
		}
	}
}

func TestKeysAreKeptAsPKCS8(t *testing.T) {
	dir := t.TempDir()
	ring := open(t, keys(dir, service("zot", issuer.VerifierPinned)))
	data, err := os.ReadFile(filepath.Join(dir, "pinned/zot.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		t.Fatalf("block %v, rest %q", block, rest)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if private, ok := key.(crypto.Signer); !ok || !private.Public().(*ecdsa.PublicKey).Equal(ring.For("zot").Public()) {
		t.Errorf("the file holds another key: %T", key)
	}
}

// A key that everybody could read is for the operator to judge. Replacing it by itself would hide that, and each time anew.
func TestAnExposedLeafIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	config := keys(dir, service("registry.local", issuer.VerifierChain))
	open(t, config)
	path := filepath.Join(dir, "chain/es256.key")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := issuer.OpenKeyring(config)
		wantError(t, err, fmt.Sprintf("key of service %q: %s: everybody on this machine can read it; run: chmod o-rwx %s", "registry.local", path, path))
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the key was replaced: %v", err)
	}
	// And a key that is due is written with its own mode, whatever the old one's was.
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	config.Now = func() time.Time { return time.Now().Add(config.RotateEvery + time.Hour) }
	open(t, config)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestAPinnedKeyIsOneServicesAlone(t *testing.T) {
	dir := t.TempDir()
	first := service("zot", issuer.VerifierPinned)
	open(t, keys(dir, first))
	copied := filepath.Join(t.TempDir(), "copy.key")
	data, err := os.ReadFile(filepath.Join(dir, "pinned/zot.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, verifier := range []string{issuer.VerifierPinned, issuer.VerifierChain, issuer.VerifierJWKS} {
		second := service("other", verifier)
		second.KeyFile, second.CertificateFile = copied, filepath.Join(dir, "pinned/zot.crt")
		for _, order := range [][]issuer.Service{{first, second}, {second, first}} {
			_, err := issuer.OpenKeyring(keys(dir, order...))
			wantError(t, err, fmt.Sprintf("services %q and %q have the same key; a service with verifier pinned needs one of its own, because its registry takes whatever that key signs", order[0].Name, order[1].Name))
		}
	}
}

func TestEachServiceWithOneKeyHasItsOwnCertificateRead(t *testing.T) {
	dir := t.TempDir()
	open(t, keys(dir, service("x", issuer.VerifierChain)))
	one, two := service("one", issuer.VerifierChain), service("two", issuer.VerifierChain)
	one.KeyFile, one.CertificateFile = filepath.Join(dir, "chain/es256.key"), filepath.Join(dir, "chain/es256.crt")
	two.KeyFile, two.CertificateFile = one.KeyFile, filepath.Join(dir, "none.crt")
	if _, err := issuer.OpenKeyring(keys(t.TempDir(), one, two)); err == nil || !strings.Contains(err.Error(), "none.crt") {
		t.Errorf("got %v", err)
	}
}

// zot and ChartMuseum compare with the key of the certificate they are given, whoever signed it.
func TestAPinnedServiceTakesACertificateOfACertificateAuthority(t *testing.T) {
	dir := t.TempDir()
	open(t, keys(dir, service("x", issuer.VerifierChain)))
	chain := filepath.Join(dir, "chain.pem")
	var bundle []byte
	for _, name := range []string{"chain/es256.crt", "root.crt"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		bundle = append(bundle, data...)
	}
	if err := os.WriteFile(chain, bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	zot := service("zot", issuer.VerifierPinned)
	zot.KeyFile, zot.CertificateFile = filepath.Join(dir, "chain/es256.key"), chain
	ring := open(t, keys(t.TempDir(), zot))
	key := ring.For("zot")
	if !key.Anchor.Equal(key.Chain[0]) || key.Anchor.IsCA {
		t.Errorf("the registry would be given %s", key.Anchor.Subject)
	}
}

func TestALostRootIsNotReplacedUnderItsSigningKeys(t *testing.T) {
	dir := t.TempDir()
	config := keys(dir, service("registry.local", issuer.VerifierChain))
	open(t, config)
	for _, name := range []string{"root.crt", "root.key"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dryRun := range []bool{true, false} {
		config.DryRun = dryRun
		_, err := issuer.OpenKeyring(config)
		wantError(t, err, fmt.Sprintf("key of service %q: %s is not there, but signing keys under it are (%s); bring it back, or remove them to begin with a new root, which every registry must then be given",
			"registry.local", filepath.Join(dir, "root.crt"), filepath.Join(dir, "chain")))
	}
	if _, err := os.Stat(filepath.Join(dir, "root.key")); err == nil {
		t.Error("a new root was made")
	}
}

func TestADataFolderThatEverybodyCanWriteToIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := issuer.OpenKeyring(keys(dir, service("registry.local", issuer.VerifierChain)))
	wantError(t, err, fmt.Sprintf("data folder: everybody on this machine can write to %s; run: chmod o-w %s", dir, dir))
}
