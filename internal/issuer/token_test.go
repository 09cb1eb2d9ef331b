package issuer_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"authserver/internal/issuer"
	"authserver/internal/users"
)

// everyKind is a service for every verifier and algorithm that go together (EdDSA and chain do not).
func everyKind() []issuer.Service {
	var services []issuer.Service
	for _, verifier := range []string{issuer.VerifierChain, issuer.VerifierPinned, issuer.VerifierJWKS} {
		for _, algorithm := range []string{issuer.ES256, issuer.ES384, issuer.RS256, issuer.RS384, issuer.RS512, issuer.EdDSA} {
			if verifier == issuer.VerifierChain && algorithm == issuer.EdDSA {
				continue
			}
			services = append(services, service(verifier+"-"+algorithm, verifier, algorithm))
		}
	}
	return services
}

// exported is the anchor as a registry gets it.
func exported(t *testing.T, key *issuer.Key) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(issuer.EncodeCertificates(key.Anchor))
	if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		t.Fatalf("the export is %v and %q", block, rest)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// keyFor finds the key as the service's registry does: from what it was given, and the token's header.
func keyFor(t *testing.T, s issuer.Service, ring *issuer.Keyring, header map[string]any) crypto.PublicKey {
	t.Helper()
	var x5c []*x509.Certificate
	list, _ := header["x5c"].([]any)
	for _, text := range list {
		der, err := base64.StdEncoding.DecodeString(text.(string))
		if err != nil {
			t.Fatalf("x5c: %v", err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatalf("x5c: %v", err)
		}
		x5c = append(x5c, c)
	}
	switch s.Verifier {
	case issuer.VerifierChain:
		root := exported(t, ring.For(s.Name))
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(root)
		for _, c := range x5c[1:] {
			between.AddCert(c)
		}
		if _, err := x5c[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("the registry does not believe x5c: %v", err)
		}
		for i, c := range x5c {
			if c.Equal(root) {
				t.Errorf("x5c[%d] is the root", i)
			}
		}
		return x5c[0].PublicKey
	case issuer.VerifierPinned:
		pinned := exported(t, ring.For(s.Name))
		if len(x5c) != 1 || !x5c[0].Equal(pinned) {
			t.Errorf("x5c holds %d certificates, want the pinned one", len(x5c))
		}
		return pinned.PublicKey
	}
	data, err := issuer.JWKS(ring.Keys())
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	found := set.Key(header["kid"].(string))
	if len(found) != 1 {
		t.Fatalf("%d keys of that kid in the JWKS", len(found))
	}
	return found[0].Key
}

func TestEveryTokenIsTheMeasuredOne(t *testing.T) {
	services := everyKind()
	c, _ := configuration(t, services...)
	i := start(t, c)
	for _, s := range services {
		t.Run(s.Name, func(t *testing.T) {
			result := issue(t, i, request(t, s.Name, "repository:team/app:push,pull", "registry:catalog:*"))
			header := part(t, result.Token, 0)

			names := []string{"alg", "kid", "typ", "x5c"}
			if s.Verifier == issuer.VerifierJWKS {
				names = names[:3]
			}
			if got := slices.Sorted(maps.Keys(header)); !slices.Equal(got, names) {
				t.Errorf("header %q, want %q", got, names)
			}
			if header["alg"] != s.Algorithm || header["typ"] != "JWT" {
				t.Errorf("alg %v, typ %v", header["alg"], header["typ"])
			}

			public := keyFor(t, s, i.Keyring(), header)
			if want := libtrust(t, public); header["kid"] != want || i.Keyring().For(s.Name).ID != want {
				t.Errorf("kid %v, want %s", header["kid"], want)
			}
			parsed, err := jose.ParseSignedCompact(result.Token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(s.Algorithm)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parsed.Verify(public); err != nil {
				t.Errorf("signature: %v", err)
			}

			claims := part(t, result.Token, 1)
			want := map[string]any{
				"iss": "auth", "sub": "alice", "aud": s.Name, "jti": result.ID,
				"exp": json.Number(strconv.FormatInt(now.Add(5*time.Minute).Unix(), 10)),
				"nbf": json.Number(strconv.FormatInt(now.Add(-30*time.Second).Unix(), 10)),
				"iat": json.Number(strconv.FormatInt(now.Add(-30*time.Second).Unix(), 10)),
				"access": []any{
					map[string]any{"type": "registry", "name": "catalog", "actions": []any{"*"}},
					map[string]any{"type": "repository", "name": "team/app", "actions": []any{"pull", "push"}},
				},
			}
			if got, want := fmt.Sprint(claims), fmt.Sprint(want); got != want {
				t.Errorf("claims %s\nwant   %s", got, want)
			}
			if result.ExpiresIn != 5*time.Minute {
				t.Errorf("expires in %v", result.ExpiresIn)
			}
		})
	}
}

func TestAccessIsAListEvenWhenItIsEmpty(t *testing.T) {
	c, _ := configuration(t, service("registry.local", issuer.VerifierChain))
	i := start(t, c)
	r := request(t, "registry.local")
	r.Asked = nil
	parts := strings.Split(issue(t, i, r).Token, ".")
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || !strings.Contains(string(text), `"access":[]`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestTheAnonymousTokenHasAnEmptySubject(t *testing.T) {
	c, _ := configuration(t, service("registry.local", issuer.VerifierChain))
	r := request(t, "registry.local")
	r.Credentials = nil
	if sub := part(t, issue(t, start(t, c), r).Token, 1)["sub"]; sub != "" {
		t.Errorf("sub is %v", sub)
	}
}

func TestTokenIDsAre128RandomBitsAndNeverTheSame(t *testing.T) {
	c, _ := configuration(t, service("registry.local", issuer.VerifierChain))
	i := start(t, c)
	seen := map[string]bool{}
	for range 200 {
		result := issue(t, i, request(t, ""))
		if raw, err := base64.RawURLEncoding.DecodeString(result.ID); err != nil || len(raw) != 16 || seen[result.ID] {
			t.Fatalf("jti %q: %d bytes, %v, seen %v", result.ID, len(raw), err, seen[result.ID])
		}
		seen[result.ID] = true
	}
}

func TestTheTokenIDComesFromTheRandomnessHandedIn(t *testing.T) {
	c, _ := configuration(t, service("registry.local", issuer.VerifierChain))
	c.Random = strings.NewReader(strings.Repeat("s", 16) + "0123456789abcdef") // the self-check takes the first
	if got, want := issue(t, start(t, c), request(t, "")).ID, base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef")); got != want {
		t.Errorf("jti %q, want %q", got, want)
	}
}

func TestWithoutRandomnessThereIsNoToken(t *testing.T) {
	c, log := configuration(t, service("registry.local", issuer.VerifierChain))
	c.Random = strings.NewReader(strings.Repeat("s", 16+15))
	i := start(t, c)
	result, err := i.Issue(t.Context(), request(t, ""))
	wantError(t, err, "making a token id: unexpected EOF")
	if result.Token != "" || result.Outcome != "failed" || log.last(t).Outcome != "failed" || log.last(t).TokenID != "" {
		t.Errorf("%+v, recorded %+v", result, log.last(t))
	}
}

func TestEveryServiceHasItsOwnIssuerAndLifetime(t *testing.T) {
	pulp := service("pulp", issuer.VerifierPinned)
	pulp.Issuer, pulp.Lifetime = "https://pulp.example.com/token/", time.Hour
	c, _ := configuration(t, service("registry.local", issuer.VerifierChain), pulp)
	i := start(t, c)
	for name, want := range map[string]string{"registry.local": "auth 5m0s", "pulp": "https://pulp.example.com/token/ 1h0m0s"} {
		result := issue(t, i, request(t, name))
		claims := part(t, result.Token, 1)
		exp, _ := claims["exp"].(json.Number).Int64()
		if got := fmt.Sprint(claims["iss"], " ", time.Duration(exp-now.Unix())*time.Second); got != want || result.ExpiresIn.String() != want[strings.IndexByte(want, ' ')+1:] {
			t.Errorf("%s: %s, expires in %v; want %s", name, got, result.ExpiresIn, want)
		}
	}
}

// One key in 128 has a coordinate that begins with a zero byte. Of a thousand, none may.
func TestCoordinatesOfECKeysHaveTheirFullWidth(t *testing.T) {
	var services []issuer.Service
	for n := range 1000 {
		services = append(services, service(fmt.Sprint(n), issuer.VerifierPinned))
	}
	c := keys(t.TempDir(), services...)
	c.DryRun = true
	for _, key := range open(t, c).Keys() {
		point, err := key.Public().(*ecdsa.PublicKey).Bytes()
		if err != nil || len(point) != 65 {
			t.Fatal(len(point), err)
		}
		if point[1] == 0 || point[33] == 0 {
			t.Fatalf("a key with a short coordinate: %x", point)
		}
	}
}

func TestTheJWKSHoldsPublicHalvesAndNothingElse(t *testing.T) {
	c, _ := configuration(t, everyKind()...)
	data, err := issuer.JWKS(c.Keyring.Keys())
	if err != nil {
		t.Fatal(err)
	}
	var set map[string][]map[string]any
	if err := json.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	if len(set) != 1 || len(set["keys"]) != len(everyKind()) {
		t.Fatalf("%d keys in a set of %d members", len(set["keys"]), len(set))
	}
	fields := map[string][]string{
		"EC": {"alg", "crv", "kid", "kty", "use", "x", "y"}, "RSA": {"alg", "e", "kid", "kty", "n", "use"}, "OKP": {"alg", "crv", "kid", "kty", "use", "x"},
	}
	width := map[any]int{"P-256": 32, "P-384": 48, "Ed25519": 32}
	for n, k := range set["keys"] {
		s := everyKind()[n]
		if got := slices.Sorted(maps.Keys(k)); !slices.Equal(got, fields[k["kty"].(string)]) {
			t.Errorf("%s: %v has the members %q", s.Name, k["kty"], got)
		}
		if k["alg"] != s.Algorithm || k["use"] != "sig" || k["kid"] != c.Keyring.For(s.Name).ID {
			t.Errorf("%s: %v", s.Name, k)
		}
		for _, coordinate := range []string{"x", "y"} {
			if text, ok := k[coordinate].(string); ok {
				if raw, err := base64.RawURLEncoding.DecodeString(text); err != nil || len(raw) != width[k["crv"]] {
					t.Errorf("%s: %s has %d bytes, %v", s.Name, coordinate, len(raw), err)
				}
			}
		}
	}
}

func TestAJWKSOfNoKeysIsAnEmptyList(t *testing.T) {
	data, err := issuer.JWKS(nil)
	if want := "{\n  \"keys\": []\n}"; err != nil || string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
}

func TestANameIsSignedAsItIs(t *testing.T) {
	name := "ren\u00e9 <\"o'brien\\>"
	c, _ := configuration(t, service("registry.local", issuer.VerifierChain))
	c.Users = people{known: map[string]users.Principal{name: {Name: name, Kind: users.KindUser}}}
	r := request(t, "")
	r.Credentials = &users.Credentials{Username: name, Password: name + name}
	if sub := part(t, issue(t, start(t, c), r).Token, 1)["sub"]; sub != name {
		t.Errorf("sub is %q", sub)
	}
}
