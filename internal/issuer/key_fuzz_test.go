package issuer

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
)

// Whatever stands in a key file: a key that can be judged, or an error, and never both or a panic. What is taken for an
// algorithm is of its kind.
func FuzzParsePrivateKey(f *testing.F) {
	for _, algorithm := range []string{ES256, ES384, RS256, EdDSA} {
		private, err := generate(algorithm)
		if err != nil {
			f.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}))
		switch key := private.(type) {
		case *rsa.PrivateKey:
			f.Add(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
		case *ecdsa.PrivateKey:
			if der, err = x509.MarshalECPrivateKey(key); err != nil {
				f.Fatal(err)
			}
			f.Add(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der, Headers: map[string]string{"DEK-Info": "AES-128-CBC,00"}}))
		}
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		private, err := parsePrivateKey(data)
		if (private == nil) == (err == nil) {
			t.Fatalf("key %T, error %v", private, err)
		}
		if err != nil {
			return
		}
		taken := ""
		for _, algorithm := range []string{ES256, ES384, RS256, RS384, RS512, EdDSA, "HS256", "none", ""} {
			if fits(private, algorithm) == nil {
				taken += algorithm + " "
			}
		}
		switch taken = strings.TrimSpace(taken); taken {
		case "", ES256, ES384, "RS256 RS384 RS512", EdDSA:
		default:
			t.Fatalf("a %T signs with %s", private, taken)
		}
		if taken == "" {
			return
		}
		if id, err := fingerprint(private.Public()); err != nil || len(id) != 12*4+11 {
			t.Fatalf("kid %q, %v", id, err)
		}
	})
}
