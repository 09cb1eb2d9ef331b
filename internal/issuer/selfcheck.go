package issuer

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"authserver/internal/scope"
)

// verify checks a token the way the service's registry does: it finds the key as that kind of verifier finds it, from
// what the registry was given and never from the token alone, and then looks at signature, iss, aud and times without
// leeway. A start or a reload whose own tokens do not pass is refused.
func verify(s Service, ring *Keyring, token string, now time.Time) error {
	_, err := verified(s, ring, token, ring.For(s.Name).ID, now)
	return err
}

// verified is verify, and returns the claims. A kid of "" is any: that of a signing key before this one, say, which a
// chain verifies still.
func verified(s Service, ring *Keyring, token, kid string, now time.Time) (claims, error) {
	var c claims
	key := ring.For(s.Name)
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(s.Algorithm)})
	if err != nil {
		return c, fmt.Errorf("reading it: %w", err)
	}
	header := parsed.Signatures[0].Protected
	if kid != "" && header.KeyID != kid {
		return c, fmt.Errorf("its kid is %q, the key's is %q", header.KeyID, kid)
	}
	var public crypto.PublicKey
	switch s.Verifier {
	case VerifierChain:
		// distribution registry/auth/token/token.go, verifyCertificateChain
		roots := x509.NewCertPool()
		roots.AddCert(key.Anchor)
		if kid == "" {
			for _, root := range ring.Roots() {
				roots.AddCert(root)
			}
		}
		chains, err := header.Certificates(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil {
			return c, fmt.Errorf("its certificates: %w", err)
		}
		public = chains[0][0].PublicKey
	case VerifierPinned:
		public = key.Anchor.PublicKey
		if old := keyOf(ring.PublishedFor(s.Name), header.KeyID); kid == "" && old != nil {
			public = old.Public()
		}
	case VerifierJWKS:
		if _, err := header.Certificates(x509.VerifyOptions{}); !errors.Is(err, jose.ErrMissingX5cHeader) {
			return c, errors.New("it carries certificates, which a registry with a JWKS alone refuses")
		}
		known := keyOf(ring.PublishedFor(s.Name), header.KeyID)
		if known == nil {
			return c, errors.New("its kid is in no JWKS of ours")
		}
		public = known.Public()
	default:
		return c, fmt.Errorf("verifier %q is not known", s.Verifier)
	}
	payload, err := parsed.Verify(public)
	if err != nil {
		return c, fmt.Errorf("its signature: %w", err)
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return c, fmt.Errorf("its claims: %w", err)
	}
	switch at := now.Unix(); {
	case c.Issuer != s.Issuer || c.Audience != s.Name:
		return c, fmt.Errorf("it is from %q for %q", c.Issuer, c.Audience)
	case at < c.NotBefore || at < c.IssuedAt || at >= c.Expiry:
		return c, errors.New("it is not valid now")
	case c.Access == nil:
		return c, errors.New("it has no access list")
	}
	return c, nil
}

func keyOf(keys []*Key, id string) *Key {
	for _, k := range keys {
		if k.ID == id {
			return k
		}
	}
	return nil
}

// selfCheck mints a token for every service and verifies it.
func (i *Issuer) selfCheck() error {
	var faults []error
	asked := scope.Canonical(scope.Access{Type: scope.Repository, Name: "self/check", Actions: []string{"pull"}})
	for _, name := range i.order {
		s := i.services[name]
		now := i.now()
		token, _, err := mint(s, i.ring.For(name), "", asked, now, i.random)
		if err == nil {
			err = verify(s, i.ring, token, now)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("a token for service %q would be refused by its registry: %w", name, err))
		}
	}
	return errors.Join(faults...)
}
