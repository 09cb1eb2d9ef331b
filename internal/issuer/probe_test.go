package issuer_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"authserver/internal/issuer"
)

// A probe differs in what it is told to, and allows nothing whatever it is told.
func TestProbesAllowNothing(t *testing.T) {
	now := time.Now()
	services := []issuer.Service{{Name: "registry", Issuer: "auth", Verifier: issuer.VerifierChain, Algorithm: issuer.ES256, Lifetime: 5 * time.Minute}}
	ring, err := issuer.OpenKeyring(issuer.KeyConfig{DataDir: t.TempDir(), Name: "auth", Services: services, RotateEvery: time.Hour, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		variant      issuer.Variant
		iss, aud     string
		chain, wrong bool
		from, until  time.Duration
	}{
		"as it is":   {issuer.Variant{}, "auth", "registry", true, false, -30 * time.Second, 5 * time.Minute},
		"issuer":     {issuer.Variant{Issuer: "other"}, "other", "registry", true, false, -30 * time.Second, 5 * time.Minute},
		"audience":   {issuer.Variant{Audience: "other"}, "auth", "other", true, false, -30 * time.Second, 5 * time.Minute},
		"wide":       {issuer.Variant{Wide: true}, "auth", "registry", true, false, -time.Hour - 30*time.Second, time.Hour},
		"no chain":   {issuer.Variant{NoChain: true}, "auth", "registry", false, false, -30 * time.Second, 5 * time.Minute},
		"broken":     {issuer.Variant{Broken: true}, "auth", "registry", true, true, -30 * time.Second, 5 * time.Minute},
		"everything": {issuer.Variant{Issuer: "i", Audience: "a", Wide: true, NoChain: true, Broken: true}, "i", "a", false, true, -time.Hour - 30*time.Second, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			key := ring.For("registry")
			token, err := issuer.Probe(services[0], key, c.variant, now)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(token, ".")
			var header struct{ X5C []string }
			var claims struct {
				Iss, Sub, Aud string
				Nbf, Iat, Exp int64
				Access        *[]any
			}
			for i, into := range []any{&header, &claims} {
				text, err := base64.RawURLEncoding.DecodeString(parts[i])
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(text, into); err != nil {
					t.Fatal(err)
				}
			}
			if claims.Access == nil || len(*claims.Access) != 0 || claims.Sub != "" {
				t.Errorf("it allows something, or somebody: %+v", claims)
			}
			if claims.Iss != c.iss || claims.Aud != c.aud || claims.Nbf != now.Add(c.from).Unix() || claims.Iat != claims.Nbf || claims.Exp != now.Add(c.until).Unix() {
				t.Errorf("claims %+v", claims)
			}
			if got := len(header.X5C) > 0; got != c.chain {
				t.Errorf("with certificates: %v", got)
			}
			if id := issuer.KeyID(token); id != key.ID {
				t.Errorf("kid %q, want %q", id, key.ID)
			}
			if valid := signedBy(t, token, key); valid == c.wrong {
				t.Errorf("its signature is right: %v", valid)
			}
		})
	}
	long := services[0]
	long.Lifetime = 24 * time.Hour // the longest there is
	token, err := issuer.Probe(long, ring.For("registry"), issuer.Variant{Wide: true}, now)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct{ Nbf, Exp int64 }
	if text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1]); err != nil || json.Unmarshal(text, &claims) != nil {
		t.Fatal(err)
	}
	if claims.Exp != now.Add(24*time.Hour).Unix() || claims.Nbf != now.Add(-time.Hour-30*time.Second).Unix() {
		t.Errorf("of long tokens the wide one is narrower: %+v", claims)
	}
	if _, err := issuer.Probe(services[0], &issuer.Key{ID: "old"}, issuer.Variant{}, now); err == nil {
		t.Error("a key that signs no more has signed")
	}
	for _, junk := range []string{"", "x", "!.!.!", "eyJ9.x.y", base64.RawURLEncoding.EncodeToString([]byte(`{"kid":1}`))} {
		if id := issuer.KeyID(junk); id != "" {
			t.Errorf("KeyID(%q) = %q", junk, id)
		}
	}
}

func signedBy(t *testing.T, token string, key *issuer.Key) bool {
	t.Helper()
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(key.Algorithm)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = parsed.Verify(key.Public())
	return err == nil
}
