package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// BenchmarkToken is one request through the handler, and beside it what it cannot be faster than: one signature with
// the same kind of key.
func BenchmarkToken(b *testing.B) {
	b.Run("signature alone", func(b *testing.B) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
		if err != nil {
			b.Fatal(err)
		}
		payload := make([]byte, 300)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := signer.Sign(payload); err != nil {
				b.Fatal(err)
			}
		}
	})
	f := newFace(b)
	for name, target := range map[string]string{
		"anonymous, no scope":  "/token?service=registry.local",
		"anonymous, one scope": "/token?service=registry.local&scope=repository:public/a:pull",
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, target, nil)
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				f.handler.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatal(w.Body)
				}
			}
		})
	}
}
