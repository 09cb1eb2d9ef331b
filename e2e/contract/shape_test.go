package contract_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// What tokens hold, to the letter: verifiers that are not tried here rely on it.
func TestTokenHasTheShapeThatEveryVerifierTakes(t *testing.T) {
	a := startAuthserver(t, services)
	for _, s := range services {
		t.Run(s.name(), func(t *testing.T) {
			before := time.Now().Unix()
			answer := a.Ask(t, "alice", alicePassword, s.name(), "repository:alice/app:push,pull", "repository:alice/app:pull")
			after := time.Now().Unix()
			s.checkHeader(t, a, answer.Token)

			var claims map[string]json.RawMessage
			decode(t, answer.Token, 1, &claims)
			want := []string{"access", "aud", "exp", "iat", "iss", "jti", "nbf", "sub"}
			if got := slices.Sorted(maps.Keys(claims)); !slices.Equal(got, want) {
				t.Errorf("claims %v, want %v", got, want)
			}
			for name, want := range map[string]string{
				"iss":    `"` + issuer + `"`,
				"sub":    `"alice"`,
				"aud":    `"` + s.name() + `"`, // a list breaks versions up to 2.8
				"access": `[{"type":"repository","name":"alice/app","actions":["pull","push"]}]`,
			} {
				if got := string(claims[name]); got != want {
					t.Errorf("%s is %s, want %s", name, got, want)
				}
			}
			// Integers: fractions, exponents and strings are refused by registries.
			times := map[string]int64{}
			for _, name := range []string{"exp", "nbf", "iat"} {
				var n int64
				if err := json.Unmarshal(claims[name], &n); err != nil || strings.ContainsAny(string(claims[name]), ".eE\"") {
					t.Errorf("%s is %s, want an integer", name, claims[name])
				}
				times[name] = n
			}
			if lifetime := int64(answer.ExpiresIn); lifetime < 60 || times["exp"] < before+lifetime || times["exp"] > after+lifetime {
				t.Errorf("exp %d is not expires_in %d after %d", times["exp"], lifetime, before)
			}
			for _, name := range []string{"nbf", "iat"} {
				if least, most := before-times[name], after-times[name]; most < 25 || least > 60 {
					t.Errorf("%s lies %d to %d s back; some clocks are slow, want about 30", name, least, most)
				}
			}
		})
	}

	t.Run("access is an array even when empty", func(t *testing.T) {
		for _, scopes := range [][]string{nil, {""}, {"repository:bob/app:pull"}} {
			var claims map[string]json.RawMessage
			decode(t, a.Token(t, "alice", alicePassword, services[0].name(), scopes...), 1, &claims)
			if got := string(claims["access"]); got != "[]" {
				t.Errorf("scope %q: access is %s, want []", scopes, got)
			}
		}
	})
}

func (s service) checkHeader(t *testing.T, a *harness.Authserver, token string) {
	t.Helper()
	var members map[string]json.RawMessage
	decode(t, token, 0, &members)
	want := []string{"alg", "kid", "typ", "x5c"}
	if s.verifier == "jwks" {
		want = want[:3] // version 3 with a key set only fails on x5c
	}
	if got := slices.Sorted(maps.Keys(members)); !slices.Equal(got, want) {
		t.Errorf("header has %v, want %v", got, want)
	}
	var h header
	decode(t, token, 0, &h)
	if h.Type != "JWT" || h.Algorithm != s.algorithm {
		t.Errorf("typ %q, alg %q", h.Type, h.Algorithm)
	}

	spki, err := x509.MarshalPKIXPublicKey(readKey(t, s.keyFile(a)).Public())
	if err != nil {
		t.Fatal(err)
	}
	if want := libtrustID(spki); h.KeyID != want {
		t.Errorf("kid %q, want %q", h.KeyID, want)
	}
	if s.verifier == "jwks" {
		return
	}
	if len(h.X5C) == 0 {
		t.Fatal("no x5c")
	}
	der, err := base64.StdEncoding.DecodeString(h.X5C[0])
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(leaf.RawSubjectPublicKeyInfo, spki) {
		t.Error("x5c[0] is not of the signing key")
	}
	// Registries have no leeway here.
	if back := time.Since(leaf.NotBefore); back < time.Hour {
		t.Errorf("the certificate is valid since %s only", back)
	}
}

// libtrustID is the fingerprint that Distribution up to 2.8 knows keys by.
func libtrustID(spki []byte) string {
	sum := sha256.Sum256(spki)
	var groups []string
	for group := range slices.Chunk([]byte(base32.StdEncoding.EncodeToString(sum[:30])), 4) {
		groups = append(groups, string(group))
	}
	return strings.Join(groups, ":")
}
