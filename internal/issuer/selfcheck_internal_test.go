package issuer

import (
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"authserver/internal/scope"
)

// The self-check is worth as much as what it refuses: each token here is one that the registry would refuse.
func TestTheSelfCheckVerifiesAsARegistryWould(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	openFor := func(verifier string) (Service, *Keyring) {
		s := Service{Name: "registry.local", Issuer: "auth", Verifier: verifier, Algorithm: ES256, Lifetime: 5 * time.Minute}
		ring, err := OpenKeyring(KeyConfig{DataDir: t.TempDir(), Name: "auth", Services: []Service{s}, RotateEvery: time.Hour, Now: func() time.Time { return at }})
		if err != nil {
			t.Fatal(err)
		}
		return s, ring
	}
	good := func(s Service) claims {
		return claims{Issuer: s.Issuer, Audience: s.Name, Expiry: at.Unix() + 300, NotBefore: at.Unix() - 30, IssuedAt: at.Unix() - 30, Access: scope.Set{}}
	}
	sign := func(key *Key, payload any) string {
		text, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		token, err := key.signer.sign(text)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	for _, verifier := range []string{VerifierChain, VerifierPinned, VerifierJWKS} {
		s, ring := openFor(verifier)
		_, other := openFor(verifier)
		key := ring.For(s.Name)
		// A key that claims to be ours: with our kid, and certificates of its own.
		forged := *other.For(s.Name)
		private, err := readPrivateKey(forged.Source)
		if err != nil {
			t.Fatal(err)
		}
		if forged.signer, err = newSigner(private, ES256, key.ID, forged.Chain); err != nil {
			t.Fatal(err)
		}
		with := func(change func(c *claims)) string {
			c := good(s)
			change(&c)
			return sign(key, c)
		}
		swapped := func(token, by string) string { // the signature of another token
			return token[:strings.LastIndexByte(token, '.')] + by[strings.LastIndexByte(by, '.'):]
		}
		for name, c := range map[string]struct{ token, want string }{
			"good":            {sign(key, good(s)), ""},
			"no token":        {"a.b", "reading it: "},
			"another kid":     {sign(other.For(s.Name), good(s)), `its kid is "`},
			"a forged kid":    {sign(&forged, good(s)), map[string]string{VerifierChain: "its certificates: ", VerifierPinned: "its signature: ", VerifierJWKS: "its signature: "}[verifier]},
			"a swapped sign":  {swapped(sign(key, good(s)), with(func(c *claims) { c.ID = "x" })), "its signature: "},
			"no claims":       {sign(key, "text"), "its claims: "},
			"another issuer":  {with(func(c *claims) { c.Issuer = "x" }), `it is from "x" for "registry.local"`},
			"another service": {with(func(c *claims) { c.Audience = "x" }), `it is from "auth" for "x"`},
			"over":            {with(func(c *claims) { c.Expiry = at.Unix() }), "it is not valid now"},
			"not yet":         {with(func(c *claims) { c.NotBefore = at.Unix() + 1 }), "it is not valid now"},
			"from the future": {with(func(c *claims) { c.IssuedAt = at.Unix() + 1 }), "it is not valid now"},
			"no access list":  {with(func(c *claims) { c.Access = nil }), "it has no access list"},
		} {
			err := verify(s, ring, c.token, at)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("%s, %s: %v, want %q", verifier, name, err, c.want)
			}
		}
	}
}

func TestTheSelfCheckTrustsWhatTheRegistryWasGivenAndNotWhatTheTokenCarries(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	s := Service{Name: "registry.local", Issuer: "auth", Verifier: VerifierChain, Algorithm: ES256, Lifetime: 5 * time.Minute}
	open := func() *Keyring {
		ring, err := OpenKeyring(KeyConfig{DataDir: t.TempDir(), Name: "auth", Services: []Service{s}, RotateEvery: time.Hour, Now: func() time.Time { return at }})
		if err != nil {
			t.Fatal(err)
		}
		return ring
	}
	ring, other := open(), open()
	token, _, err := mint(s, ring.For(s.Name), "", nil, at, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(s, ring, token, at); err != nil {
		t.Fatal(err)
	}
	ring.For(s.Name).Anchor = other.Root
	if err := verify(s, ring, token, at); err == nil || !strings.HasPrefix(err.Error(), "its certificates: x509: certificate signed by unknown authority") {
		t.Errorf("a registry with another root: %v", err)
	}
}

func TestAccessOfNothingIsMintedAsAnEmptyList(t *testing.T) {
	private, err := generate(ES256)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newKey(private, ES256, VerifierJWKS, "f.key", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := mint(Service{Name: "a"}, key, "", nil, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	if payload := string(signed.UnsafePayloadWithoutVerification()); !strings.Contains(payload, `"access":[]`) {
		t.Errorf("claims %s", payload)
	}
}
