package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512" // SHA-384, SHA-512
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// signer makes JWS in compact form (RFC 7515 §7.1). A key's header is always the same, with a kilobyte of certificates,
// so it is encoded once: to encode it for every token, as go-jose does, takes a fifth of a request. Whatever signs is
// held against go-jose's verification before it comes into use (selfCheck).
type signer struct {
	private crypto.Signer
	hash    crypto.Hash // 0 = the message itself is signed
	header  string      // encoded, with the dot behind it
	size    int         // of the signature, in bytes
}

// header is the JOSE header of a token; never with a jwk or a jku.
type header struct {
	Algorithm string   `json:"alg"`
	KeyID     string   `json:"kid"`
	Type      string   `json:"typ"`
	Chain     []string `json:"x5c,omitempty"`
}

// newSigner prepares a key. Whether it fits the algorithm has been checked.
func newSigner(private crypto.Signer, algorithm, id string, chain []*x509.Certificate) (signer, error) {
	h := header{Algorithm: algorithm, KeyID: id, Type: "JWT"}
	for _, c := range chain {
		h.Chain = append(h.Chain, base64.StdEncoding.EncodeToString(c.Raw)) // with padding, RFC 7515 §4.1.6
	}
	text, err := json.Marshal(h)
	if err != nil {
		return signer{}, err
	}
	s := signer{private: private, header: base64.RawURLEncoding.EncodeToString(text) + "."}
	switch jose.SignatureAlgorithm(algorithm) {
	case jose.ES256, jose.RS256:
		s.hash = crypto.SHA256
	case jose.ES384, jose.RS384:
		s.hash = crypto.SHA384
	case jose.RS512:
		s.hash = crypto.SHA512
	}
	switch key := private.Public().(type) {
	case *ecdsa.PublicKey:
		s.size = 2 * ((key.Params().BitSize + 7) / 8)
	case *rsa.PublicKey:
		s.size = key.Size()
	case ed25519.PublicKey:
		s.size = ed25519.SignatureSize
	}
	return s, nil
}

// sign returns the JWS of a payload.
func (s signer) sign(payload []byte) (string, error) {
	encoding := base64.RawURLEncoding
	token := make([]byte, 0, len(s.header)+encoding.EncodedLen(len(payload))+1+encoding.EncodedLen(s.size))
	token = append(token, s.header...)
	token = encoding.AppendEncode(token, payload)
	signature, err := s.signature(token)
	if err != nil {
		return "", err
	}
	return string(encoding.AppendEncode(append(token, '.'), signature)), nil
}

func (s signer) signature(message []byte) ([]byte, error) {
	digest := message
	if s.hash != 0 {
		h := s.hash.New()
		_, _ = h.Write(message)
		digest = h.Sum(nil)
	}
	switch key := s.private.(type) {
	case *ecdsa.PrivateKey: // R and S in their full width, RFC 7518 §3.4
		r, v, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			return nil, err
		}
		both := make([]byte, s.size)
		r.FillBytes(both[:s.size/2])
		v.FillBytes(both[s.size/2:])
		return both, nil
	case *rsa.PrivateKey:
		return rsa.SignPKCS1v15(nil, key, s.hash, digest)
	case ed25519.PrivateKey:
		return ed25519.Sign(key, digest), nil
	}
	return nil, fmt.Errorf("a key of kind %T cannot sign", s.private)
}
