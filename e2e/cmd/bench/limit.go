package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/crypto/bcrypt"
)

// claims are those of authserver's tokens.
type claims struct {
	Issuer    string          `json:"iss"`
	Subject   string          `json:"sub"`
	Audience  string          `json:"aud"`
	Expiry    int64           `json:"exp"`
	NotBefore int64           `json:"nbf"`
	IssuedAt  int64           `json:"iat"`
	ID        string          `json:"jti"`
	Access    []resourceClaim `json:"access"`
}

type resourceClaim struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// A sample is what a token says, and how.
type sample struct {
	Algorithm string   `json:"alg"`
	KeyID     string   `json:"kid"`
	Chain     []string `json:"x5c"`
	claims    claims
	signature int // bytes
}

func readSample(token string) (sample, error) {
	var s sample
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return s, fmt.Errorf("not a signed token: %.40q", token)
	}
	for part, into := range map[string]any{parts[0]: &s, parts[1]: &s.claims} {
		text, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			return s, err
		}
		if err := json.Unmarshal(text, into); err != nil {
			return s, err
		}
	}
	s.signature = base64.RawURLEncoding.DecodedLen(len(parts[2]))
	return s, nil
}

// signer signs with a key that is equal in kind and size, and with the same header.
func (s sample) signer() (jose.Signer, error) {
	var private crypto.Signer
	var err error
	switch jose.SignatureAlgorithm(s.Algorithm) {
	case jose.ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.RS256:
		private, err = rsa.GenerateKey(rand.Reader, 8*s.signature)
	case jose.EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("algorithm %q is not known", s.Algorithm)
	}
	if err != nil {
		return nil, err
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	if len(s.Chain) > 0 {
		options = options.WithHeader("x5c", s.Chain)
	}
	return jose.NewSigner(jose.SigningKey{
		Algorithm: jose.SignatureAlgorithm(s.Algorithm),
		Key:       jose.JSONWebKey{Key: private, KeyID: s.KeyID},
	}, options)
}

// authserver lets so much garbage come together at least; of data the limit has hardly any, and Go counts 4 MB.
const (
	garbage = 32 << 20
	data    = 4 << 20
)

// runLimit is the role "limit": a server that does nothing but sign tokens like the one in a file, for whoever asks for
// whatever. It is what one writes with net/http and go-jose, and has the collector of authserver, which is not what is
// measured.
func runLimit(address, file string) error {
	token, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	s, err := readSample(strings.TrimSpace(string(token)))
	if err != nil {
		return err
	}
	signer, err := s.signer()
	if err != nil {
		return err
	}
	debug.SetGCPercent(100 * garbage / data)
	lifetime := s.claims.Expiry - s.claims.NotBefore
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var id [16]byte
		_, _ = rand.Read(id[:]) // does not fail (Go 1.24)
		c, now := s.claims, time.Now().Unix()
		c.ID = base64.RawURLEncoding.EncodeToString(id[:])
		c.NotBefore, c.IssuedAt, c.Expiry = now, now, now+lifetime
		body, err := sign(signer, c, lifetime)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}))
}

func sign(signer jose.Signer, c claims, lifetime int64) ([]byte, error) {
	payload, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return nil, err
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}{token, token, lifetime})
}

// runBcrypt is the role "bcrypt": so many checks of a password, so many at once, and nothing else. It writes how long they
// have taken.
func runBcrypt(out io.Writer, cost, parallel, checks int) error {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		return err
	}
	work := make(chan struct{}, checks)
	for range checks {
		work <- struct{}{}
	}
	close(work)
	start := time.Now()
	var group sync.WaitGroup
	for range parallel {
		group.Go(func() {
			for range work {
				_ = bcrypt.CompareHashAndPassword(hash, []byte(password))
			}
		})
	}
	group.Wait()
	_, err = fmt.Fprintln(out, time.Since(start))
	return err
}
