package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Algorithms that tokens can be signed with (RFC 7518 §3.1, RFC 8037 §3.1).
const (
	ES256 = string(jose.ES256)
	ES384 = string(jose.ES384)
	RS256 = string(jose.RS256)
	RS384 = string(jose.RS384)
	RS512 = string(jose.RS512)
	EdDSA = string(jose.EdDSA)
)

const rsaBits = 2048

// Key is a signing key with what its tokens carry to be believed.
type Key struct {
	ID        string // kid: the libtrust fingerprint
	Algorithm string
	Use       string              // verifier, and the service of a pinned key
	Chain     []*x509.Certificate // x5c: leaf first, never a root beside it; empty for jwks
	Anchor    *x509.Certificate   // what the registry is given to trust; nil for jwks
	Source    string              // file of the private key
	From      time.Time           // since when it signs, or from when it will; the zero time when that is not known
	public    crypto.PublicKey
	signer    signer // the zero signer when it signs no more
}

// Public is the verification key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// publicKey is a key that signs no more.
func publicKey(public crypto.PublicKey, algorithm, use, source string) (*Key, error) {
	id, err := fingerprint(public)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return &Key{ID: id, Algorithm: algorithm, Use: use, Source: source, public: public}, nil
}

// newKey prepares a key for signing.
func newKey(private crypto.Signer, algorithm, use, source string, chain []*x509.Certificate, anchor *x509.Certificate) (*Key, error) {
	if err := fits(private, algorithm); err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	k, err := publicKey(private.Public(), algorithm, use, source)
	if err != nil {
		return nil, err
	}
	k.Chain, k.Anchor = chain, anchor
	if len(chain) > 0 {
		k.From = chain[0].NotBefore.Add(backdate)
	}
	if k.signer, err = newSigner(private, algorithm, k.ID, chain); err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return k, nil
}

// generate makes a private key for an algorithm.
func generate(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case ES256:
		return generateEC(elliptic.P256())
	case ES384:
		return generateEC(elliptic.P384())
	case RS256, RS384, RS512:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	case EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("algorithm %q is not known", algorithm)
}

// generateEC makes keys whose coordinates have their full width. Distribution 3.1 drops leading zero bytes when it
// computes a thumbprint (registry/auth/token/util.go), so one key in 128 would not be found there by its kid.
func generateEC(curve elliptic.Curve) (*ecdsa.PrivateKey, error) {
	for {
		private, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			return nil, err
		}
		if fullWidth(&private.PublicKey) {
			return private, nil
		}
	}
}

func fullWidth(public *ecdsa.PublicKey) bool {
	point, err := public.Bytes() // 0x04, X, Y
	if err != nil {
		return false
	}
	return point[1] != 0 && point[1+(len(point)-1)/2] != 0
}

// fits tells whether a key can sign with an algorithm, and otherwise which it can sign with.
func fits(private crypto.Signer, algorithm string) error {
	var can []string
	switch public := private.Public().(type) {
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			can = []string{ES256}
		case elliptic.P384():
			can = []string{ES384}
		}
	case *rsa.PublicKey:
		if public.N.BitLen() < rsaBits {
			return fmt.Errorf("an RSA key of %d bits is too short; at least %d are needed", public.N.BitLen(), rsaBits)
		}
		can = []string{RS256, RS384, RS512}
	case ed25519.PublicKey:
		can = []string{EdDSA}
	}
	if len(can) == 0 {
		return errors.New("a key of this kind cannot sign tokens; use EC P-256, P-384, RSA or Ed25519")
	}
	for _, a := range can {
		if a == algorithm {
			return nil
		}
	}
	return fmt.Errorf("this key cannot sign with %s; set the algorithm to %s", algorithm, strings.Join(can, " or "))
}

// fingerprint is libtrust's key ID, the kid that every registry up to 2.8 looks a key up by: the first 30 bytes of the
// SHA-256 of the DER SubjectPublicKeyInfo, in base32, in groups of four (libtrust util.go keyIDFromCryptoKey).
func fingerprint(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	text := base32.StdEncoding.EncodeToString(sum[:30])
	groups := make([]string, 0, len(text)/4)
	for i := 0; i < len(text); i += 4 {
		groups = append(groups, text[i:i+4])
	}
	return strings.Join(groups, ":"), nil
}

// maxPEM bounds a key or certificate file.
const maxPEM = 256 << 10

func readPEM(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxPEM {
		return nil, fmt.Errorf("%s: larger than %d bytes, no PEM file", file, maxPEM)
	}
	return os.ReadFile(file)
}

// errExposed is a key file that everybody can read. It is never mended by itself: somebody may have read it.
var errExposed = errors.New("everybody on this machine can read it")

var errEncrypted = errors.New("the private key is encrypted; give it without a passphrase")

// readSecret reads a file that nobody else may read. The key signs tokens for every image: whoever can read it is the
// token server. Groups are left to the operator, because volumes in Kubernetes are shared with a pod by group.
func readSecret(file string) ([]byte, error) {
	data, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s: %w; run: chmod o-rwx %s", file, errExposed, file)
	}
	return data, nil
}

// readPrivateKey reads the private key of a PEM file: PKCS #8, PKCS #1 or SEC 1. Other blocks are passed over.
func readPrivateKey(file string) (crypto.Signer, error) {
	data, err := readSecret(file)
	if err != nil {
		return nil, err
	}
	private, err := parsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return private, nil
}

func parsePrivateKey(data []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, errors.New("no private key in PEM form")
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errEncrypted
		default:
			continue
		}
		if block.Headers["DEK-Info"] != "" { // RFC 1421, as old OpenSSL wrote it
			return nil, errEncrypted
		}
		if err != nil {
			return nil, fmt.Errorf("the private key cannot be read: %w", err)
		}
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, errors.New("a key of this kind cannot sign")
	}
}

// readCertificates reads the certificates of a PEM file, in order.
func readCertificates(file string) ([]*x509.Certificate, error) {
	data, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	certificates, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return certificates, nil
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be read: %w", len(certificates)+1, err)
		}
		certificates = append(certificates, c)
	}
	if len(certificates) == 0 {
		return nil, errors.New("no certificate in PEM form")
	}
	return certificates, nil
}
