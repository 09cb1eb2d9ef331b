package doctor

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
)

// certificates is a PEM file that a registry trusts.
type certificates struct {
	file    string
	missing error // why it cannot be read
	broken  error // why a registry cannot use it
	certs   []*x509.Certificate
	others  []string         // types of the blocks that are no certificates
	first   crypto.PublicKey // of the first block: all that zot and ChartMuseum look at
}

func parsePEM(file string, data []byte) *certificates {
	c := &certificates{file: file}
	for n := 1; ; n++ {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		var public crypto.PublicKey
		var err error
		switch block.Type {
		case "CERTIFICATE":
			var cert *x509.Certificate
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				c.certs = append(c.certs, cert)
				public = cert.PublicKey
			}
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			public, err = x509.ParsePKCS1PublicKey(block.Bytes)
		}
		if block.Type != "CERTIFICATE" {
			c.others = append(c.others, block.Type)
		}
		if err != nil && block.Type == "CERTIFICATE" { // of others nothing is read
			c.broken = fmt.Errorf("block %d (%s): %w", n, block.Type, err)
		}
		if n == 1 {
			c.first = public
		}
	}
	return c
}

// holdsPrivateKey tells of a secret that does not belong there.
func (c *certificates) holdsPrivateKey() bool {
	return slices.ContainsFunc(c.others, func(kind string) bool { return strings.HasSuffix(kind, "PRIVATE KEY") })
}

func (c *certificates) holdsEd25519() bool {
	return slices.ContainsFunc(c.certs, func(cert *x509.Certificate) bool {
		_, ok := cert.PublicKey.(ed25519.PublicKey)
		return ok
	})
}

func (c *certificates) holds(cert *x509.Certificate) bool {
	return slices.ContainsFunc(c.certs, cert.Equal)
}

// holdsKey tells whether one of the certificates is of a key.
func (c *certificates) holdsKey(key crypto.PublicKey) bool {
	return slices.ContainsFunc(c.certs, func(cert *x509.Certificate) bool { return sameKey(cert.PublicKey, key) })
}

// namesake is a certificate of the same name as another, with another key: keys that were made anew.
func (c *certificates) namesake(of *x509.Certificate) *x509.Certificate {
	for _, cert := range c.certs {
		if bytes.Equal(cert.RawSubject, of.RawSubject) && !sameKey(cert.PublicKey, of.PublicKey) {
			return cert
		}
	}
	return nil
}

// pool is what chains are verified against.
func (c *certificates) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	if c != nil {
		for _, cert := range c.certs {
			pool.AddCert(cert)
		}
	}
	return pool
}

func sameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// keySet is a JWKS file that a registry trusts (RFC 7517).
type keySet struct {
	file    string
	missing error
	broken  error
	ids     []string
}

func isJWKS(data []byte) bool {
	var set struct{ Keys []json.RawMessage }
	return json.Unmarshal(data, &set) == nil && set.Keys != nil
}

func parseJWKS(file string, data []byte) *keySet {
	k := &keySet{file: file}
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	k.broken = json.Unmarshal(data, &set)
	for _, key := range set.Keys {
		k.ids = append(k.ids, key.ID)
	}
	return k
}
