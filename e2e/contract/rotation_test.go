package contract_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
)

// A registry that compares with one key is told at the moment when the next key begins to sign, and not before.
func TestAPinnedKeyIsReplacedInTwoStages(t *testing.T) {
	s := service{"pinned", "RS256"}
	a := startAuthserver(t, []service{s, {"pinned", "ES256"}})
	token := func() string { return a.Token(t, "alice", alicePassword, s.name(), "repository:alice/app:pull") }
	kid := func(token string) string {
		var h header
		decode(t, token, 0, &h)
		return h.KeyID
	}
	type zots map[string]interface {
		authorize(token, method, name string) error
	}
	with := func(certificate string) zots {
		block, rest := pem.Decode([]byte(certificate))
		if block == nil || len(rest) > 0 {
			t.Fatalf("not one certificate: %s", certificate)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return zots{"2.1.2": newOldZot(t, []byte(certificate)), "2.1.18": newZot{c.PublicKey, "delete"}}
	}
	want := func(what string, z zots, token string, taken bool) {
		t.Helper()
		for version, zot := range z {
			if err := zot.authorize(token, "GET", "alice/app"); (err == nil) != taken {
				t.Errorf("%s, zot %s: %v, want it taken: %v", what, version, err, taken)
			}
		}
	}
	key := func(args ...string) string { return a.Command(t, "", append([]string{"key"}, args...)...) }

	before := with(key("export", "--service", s.name()))
	old := token()
	key("rotate", "--service", s.name())
	next := key("export", "--service", s.name(), "--next")
	after := with(next)
	want("before the activation", before, token(), true)
	want("before the activation, where the next certificate is already", after, token(), false)
	other := a.Token(t, "alice", alicePassword, "pinned-es256", "repository:alice/app:pull")
	key("rotate", "--service", s.name(), "--activate")
	a.Await(t, func() error {
		if fresh := token(); kid(fresh) == kid(old) {
			return errStill
		}
		return nil
	})
	want("the next key", after, token(), true)
	want("the key before", after, old, false)
	want("the next key, where the certificate is the old one", before, token(), false)
	if now := a.Token(t, "alice", alicePassword, "pinned-es256", "repository:alice/app:pull"); kid(now) != kid(other) {
		t.Error("another service's key was replaced")
	}
	if key("export", "--service", s.name()) != next {
		t.Error("the certificate in use is not the one that was exported as the next")
	}

	// Stolen: the next one takes its place at once, and the registry that has its certificate refuses the thief.
	stolen := token()
	key("rotate", "--service", s.name())
	last := with(key("export", "--service", s.name(), "--next"))
	key("revoke", kid(stolen), "--yes")
	a.Await(t, func() error {
		if fresh := token(); kid(fresh) == kid(stolen) {
			return errStill
		}
		return nil
	})
	want("after the revocation", last, token(), true)
	want("of the thief", last, stolen, false)
}

var errStill = errors.New("the key before signs still")
