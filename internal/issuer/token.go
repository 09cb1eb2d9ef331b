package issuer

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/go-jose/go-jose/v4"

	"authserver/internal/scope"
)

// maxToken bounds a token, in bytes: it stands twice in an answer, of which crane reads 64 KiB.
const maxToken = 31 << 10

// skew is how far nbf and iat lie back: Distribution 2.5 and zot take no token from the future, not by a second.
const skew = 30 * time.Second

// claims are what every verifier reads (Distribution's jwt.md). Times are whole seconds: registries refuse fractions and
// strings. aud is one string: registries up to 2.8 refuse a list. access is never null: zot up to 2.1.2 answers 500 to it.
type claims struct {
	Issuer    string    `json:"iss"`
	Subject   string    `json:"sub"`
	Audience  string    `json:"aud"`
	Expiry    int64     `json:"exp"`
	NotBefore int64     `json:"nbf"`
	IssuedAt  int64     `json:"iat"`
	ID        string    `json:"jti"`
	Access    scope.Set `json:"access"`
}

// mint signs a token. jti is 128 random bits, so that a log line names one token and nobody can guess another.
func mint(s Service, key *Key, subject string, granted scope.Set, now time.Time, random io.Reader) (token, jti string, err error) {
	var id [16]byte
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return "", "", fmt.Errorf("making a token id: %w", err)
	}
	jti = base64.RawURLEncoding.EncodeToString(id[:])
	if granted == nil {
		granted = scope.Set{}
	}
	payload, err := json.Marshal(claims{
		Issuer:    s.Issuer,
		Subject:   subject,
		Audience:  s.Name,
		Expiry:    now.Add(s.Lifetime).Unix(),
		NotBefore: now.Add(-skew).Unix(),
		IssuedAt:  now.Add(-skew).Unix(),
		ID:        jti,
		Access:    granted,
	})
	if err != nil {
		return "", "", fmt.Errorf("making a token: %w", err)
	}
	if token, err = key.signer.sign(payload); err != nil {
		return "", "", fmt.Errorf("signing a token: %w", err)
	}
	return token, jti, nil
}

// JWKS is the JSON Web Key Set (RFC 7517 §5) of the given keys, public halves only.
func JWKS(keys []*Key) ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public(), KeyID: k.ID, Algorithm: k.Algorithm, Use: "sig"})
	}
	return json.MarshalIndent(set, "", "  ")
}
