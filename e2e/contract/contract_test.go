// Package contract_test holds tokens of a real authserver against the code that
// verifies them in the field: the token access controllers of four Distribution
// versions, and the checks of zot and ChartMuseum.
package contract_test

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"authserver/e2e/harness"
)

const (
	issuer        = "issuer.test"
	alicePassword = "alice in wonderland"
	bobPassword   = "bob: the builder"
	rootPassword  = "the root of all"
)

const policy = `
rules:
  - name: public
    subjects: [anyone]
    repositories: ["public/**"]
    actions: [pull]
  - name: own
    subjects: [authenticated]
    repositories: ["{user}/**"]
    actions: [pull, push, delete]
  - name: bob-reads-alice
    subjects: ["user:bob"]
    repositories: ["alice/**"]
    actions: [pull]
  - name: root
    subjects: ["user:root"]
    repositories: ["**"]
    actions: ["*"]
  - name: catalog
    subjects: ["user:root"]
    resources: ["registry:catalog"]
    actions: ["*"]
  - name: charts
    subjects: ["user:alice"]
    resources: ["artifact-repository:org1/repo1"]
    actions: [pull, push]
`

// A service is one entry of services in the configuration.
type service struct {
	verifier  string // chain, pinned or jwks
	algorithm string
}

func (s service) name() string { return strings.ToLower(s.verifier + "-" + s.algorithm) }

// keyFile is where authserver keeps the key that signs for the service.
func (s service) keyFile(a *harness.Authserver) string {
	name := strings.ToLower(s.algorithm)
	if s.verifier == "pinned" {
		name = s.name() // a key of its own
	}
	return filepath.Join(a.Dir, "data", s.verifier, name+".key")
}

func startAuthserver(t *testing.T, services []service) *harness.Authserver {
	t.Helper()
	config := "issuer:\n  name: " + issuer + "\nservices:\n"
	for _, s := range services {
		config += fmt.Sprintf("  - {name: %s, verifier: %s, algorithm: %s}\n", s.name(), s.verifier, s.algorithm)
	}
	config += "users:\n  - kind: htpasswd\n    file: users.htpasswd\nacl:\n  files: [policy.yaml]\n"
	return harness.StartAuthserver(t, harness.Options{
		Config: config,
		Policy: policy,
		Users:  map[string]string{"alice": alicePassword, "bob": bobPassword, "root": rootPassword},
	})
}

// A header is the JOSE header of a token.
type header struct {
	Type      string   `json:"typ"`
	Algorithm string   `json:"alg"`
	KeyID     string   `json:"kid"`
	X5C       []string `json:"x5c"`
}

// decode decodes part 0 (header) or 1 (claims) of a token.
func decode(t *testing.T, token string, part int, v any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token has %d parts", len(parts))
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[part])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

// forge signs a token that is like a genuine one but for what change does to
// its claims.
func forge(t *testing.T, genuine string, key crypto.PrivateKey, change func(claims map[string]any)) string {
	t.Helper()
	var h header
	decode(t, genuine, 0, &h)
	claims := map[string]any{}
	decode(t, genuine, 1, &claims)
	change(claims)

	options := (&jose.SignerOptions{}).WithType(jose.ContentType(h.Type)).WithHeader("kid", h.KeyID)
	if h.X5C != nil {
		options = options.WithHeader("x5c", h.X5C)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(h.Algorithm), Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func readKey(t *testing.T, path string) crypto.Signer {
	t.Helper()
	block, _ := pem.Decode(harness.ReadFile(t, path))
	if block == nil {
		t.Fatalf("%s is not PEM", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

// readCertificate reads the first certificate of a PEM file, as zot does.
func readCertificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(harness.ReadFile(t, path))
	if block == nil || block.Type != "CERTIFICATE" {
		t.Fatalf("%s does not begin with a certificate", path)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}
