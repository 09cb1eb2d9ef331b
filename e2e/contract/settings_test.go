package contract_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"authserver/e2e/harness"
)

const restOfConfig = "users: [{kind: htpasswd, file: users.htpasswd}]\nacl: {files: [policy.yaml]}\n"

var everyVersion = []string{"2.5.2", "2.8.3", "3.0.0", "3.1.2"}

// A service may have an issuer and a lifetime of its own (Pulp wants its realm
// as the issuer).
func TestServiceHasItsOwnIssuerAndLifetime(t *testing.T) {
	const own = "https://auth.test/token"
	a := harness.StartAuthserver(t, harness.Options{
		Policy: policy,
		Config: "issuer: {name: " + issuer + "}\nservices:\n  - {name: one, issuer: \"" + own + "\", token_lifetime: 1m}\n  - {name: two}\n" + restOfConfig,
	})
	one := a.Ask(t, "", "", "one", "repository:public/app:pull")
	if one.ExpiresIn != 60 {
		t.Errorf("expires_in %d, want 60", one.ExpiresIn)
	}
	two := a.Token(t, "", "", "two", "repository:public/app:pull")
	trust := harness.VerifierOptions{Realm: own, Service: "one", Issuer: own, RootCertBundle: a.Root}
	for _, version := range everyVersion {
		t.Run(version, func(t *testing.T) {
			v := harness.StartVerifier(t, version, trust)
			question{"of the service", one.Token, repository("public/app", "pull"), true, "", ""}.ask(t, v)
			question{"of another service", two, repository("public/app", "pull"), false, "", "invalid_token"}.ask(t, v)
		})
	}
	if answer := a.Ask(t, "", "", "three"); answer.Status != 400 {
		t.Errorf("a service that is not listed: status %d, want 400: %s", answer.Status, answer.Body)
	}
}

// Keys and certificates that somebody else has made.
func TestOwnKeys(t *testing.T) {
	ec := func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }
	root, intermediate, leaf := ec(), ec(), ec()
	rootCert := certify(t, "root", true, root.Public(), nil, root)
	intermediateCert := certify(t, "intermediate", true, intermediate.Public(), rootCert, root)
	leafCert := certify(t, "leaf", false, leaf.Public(), intermediateCert, intermediate)
	rsaLeaf := must(rsa.GenerateKey(rand.Reader, 2048))
	rsaLeafCert := certify(t, "leaf", false, rsaLeaf.Public(), intermediateCert, intermediate)
	selfSigned := certify(t, "self", true, leaf.Public(), nil, leaf)

	for _, c := range []struct {
		name, algorithm string
		key             *pem.Block
		certificates    []*x509.Certificate
		bundle          *x509.Certificate
	}{
		{"with the root", "RS256", &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaLeaf)},
			[]*x509.Certificate{rsaLeafCert, intermediateCert, rootCert}, rootCert},
		{"without the root", "ES256", &pem.Block{Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(leaf.(*ecdsa.PrivateKey)))},
			[]*x509.Certificate{leafCert, intermediateCert}, rootCert},
		{"self-signed", "ES256", &pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(leaf))},
			[]*x509.Certificate{selfSigned}, selfSigned},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			writePEM(t, filepath.Join(dir, "key.pem"), c.key)
			writePEM(t, filepath.Join(dir, "certificates.pem"), blocks(c.certificates...)...)
			writePEM(t, filepath.Join(dir, "bundle.pem"), blocks(c.bundle)...)
			a := harness.StartAuthserver(t, harness.Options{
				Policy: policy,
				Config: fmt.Sprintf("issuer:\n  name: %s\n  keys: {algorithm: %s, key_file: %q, certificate_file: %q}\nservices: [{name: one}]\n%s",
					issuer, c.algorithm, filepath.Join(dir, "key.pem"), filepath.Join(dir, "certificates.pem"), restOfConfig),
			})
			token := a.Token(t, "", "", "one", "repository:public/app:pull")
			for name, bundle := range map[string]string{
				"what we gave": filepath.Join(dir, "bundle.pem"),
				"the export":   a.Export(t, "pem", "one"),
			} {
				for _, version := range everyVersion {
					t.Run(name+"/"+version, func(t *testing.T) {
						v := harness.StartVerifier(t, version, harness.VerifierOptions{Realm: a.URL, Service: "one", Issuer: issuer, RootCertBundle: bundle})
						question{"pull", token, repository("public/app", "pull"), true, "", ""}.ask(t, v)
					})
				}
			}
		})
	}
}

// certify makes a certificate; without a parent it is self-signed.
func certify(t *testing.T, name string, ca bool, public crypto.PublicKey, parent *x509.Certificate, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber:          must(rand.Int(rand.Reader, big.NewInt(1<<62))),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  ca,
	}
	if ca {
		template.KeyUsage |= x509.KeyUsageCertSign
	}
	if parent == nil {
		parent = template
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, parent, public, signer))))
}

func blocks(certificates ...*x509.Certificate) []*pem.Block {
	var all []*pem.Block
	for _, c := range certificates {
		all = append(all, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return all
}

func writePEM(t *testing.T, path string, blocks ...*pem.Block) {
	t.Helper()
	var text bytes.Buffer
	for _, block := range blocks {
		if err := pem.Encode(&text, block); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// must is for what cannot fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
