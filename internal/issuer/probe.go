package issuer

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A Variant is how a probe differs from a token of its service. The zero Variant differs in nothing.
type Variant struct {
	Issuer   string // "" = the service's
	Audience string // "" = the service
	Wide     bool   // valid from an hour ago, for an hour at least
	NoChain  bool   // without x5c
	Broken   bool   // with a signature that is wrong
}

// Probe signs a token that says nobody may do anything, to find out what a registry makes of it. It is no way around
// Issue: it has neither a subject nor access, so it opens nothing but a registry's greeting (GET /v2/), as the token
// does that anybody gets without a password.
func Probe(s Service, key *Key, v Variant, now time.Time) (string, error) {
	if key.signer.private == nil {
		return "", fmt.Errorf("key %s signs no more", key.ID)
	}
	if v.Issuer != "" {
		s.Issuer = v.Issuer
	}
	if v.Audience != "" {
		s.Name = v.Audience
	}
	if v.Wide {
		now, s.Lifetime = now.Add(-time.Hour), time.Hour+max(time.Hour, s.Lifetime)
	}
	if v.NoChain {
		signer, err := newSigner(key.signer.private, key.Algorithm, key.ID, nil)
		if err != nil {
			return "", err
		}
		key = &Key{signer: signer}
	}
	token, _, err := mint(s, key, "", nil, now, rand.Reader)
	if err != nil || !v.Broken {
		return token, err
	}
	dot := strings.LastIndexByte(token, '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(token[dot:])
	if err != nil {
		return "", err
	}
	signature[len(signature)/2] ^= 1
	return token[:dot] + base64.RawURLEncoding.EncodeToString(signature), nil
}

// KeyID is the kid that a token names, "" when it cannot be read. The token is not believed.
func KeyID(token string) string {
	text, _, _ := strings.Cut(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	var h header
	if json.Unmarshal(data, &h) != nil {
		return ""
	}
	return h.KeyID
}
