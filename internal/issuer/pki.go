package issuer

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Lifetimes of certificates. Registries look at the dates of every certificate in x5c, with no leeway, on their own
// clock: so all are backdated, and all end long after the keys are replaced.
const (
	backdate     = 24 * time.Hour
	rootLifetime = 10 * 365 * 24 * time.Hour
	leafLifetime = 365 * 24 * time.Hour
)

// selfSigned makes a certificate that a registry can be given to trust: a root, or the certificate of a pinned key.
// It is a CA certificate in both cases, because registries built with old versions of Go ask for that.
func selfSigned(private crypto.Signer, name string, now time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(rootLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return sign(template, template, private.Public(), private)
}

// leafCertificate makes the certificate of a key that will sign from a time, under root.
func leafCertificate(public crypto.PublicKey, name string, root *x509.Certificate, rootKey crypto.Signer, from time.Time) (*x509.Certificate, error) {
	end := from.Add(leafLifetime)
	if end.After(root.NotAfter) {
		end = root.NotAfter
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             from.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	return sign(template, root, public, rootKey)
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// checkChain checks own certificates: the first belongs to the key, each is signed by the next, all are valid now. It
// returns what goes into x5c, and the one that the registry is to trust.
func checkChain(certificates []*x509.Certificate, private crypto.Signer, now time.Time) (x5c []*x509.Certificate, anchor *x509.Certificate, err error) {
	if !equal(private.Public(), certificates[0].PublicKey) {
		return nil, nil, errors.New("the first certificate does not belong to the private key")
	}
	for i, c := range certificates {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return nil, nil, fmt.Errorf("certificate %d (%s) is valid from %s to %s only", i+1, c.Subject, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
		}
		if i+1 < len(certificates) {
			if err := c.CheckSignatureFrom(certificates[i+1]); err != nil {
				return nil, nil, fmt.Errorf("certificate %d (%s) is not signed by the next one: %w", i+1, c.Subject, err)
			}
		}
	}
	anchor = certificates[len(certificates)-1]
	x5c = certificates
	for last := anchor; len(x5c) > 1 && bytes.Equal(last.RawSubject, last.RawIssuer); last = x5c[len(x5c)-1] {
		x5c = x5c[:len(x5c)-1] // the root, which may stand there twice: the registry has it, and would not believe ours
	}
	return x5c, anchor, nil
}

func equal(a, b crypto.PublicKey) bool {
	public, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(b)
}

// EncodeCertificates returns CERTIFICATE blocks and nothing else: Distribution 2.5 refuses a bundle with other blocks.
func EncodeCertificates(certificates ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certificates {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a bytes.Buffer does not fail
	}
	return out.Bytes()
}

func encodePrivateKey(private crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func encodePublicKey(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
