package issuer_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/issuer"
)

// authority is a key with a certificate, as an operator's own PKI makes them.
type authority struct {
	key         crypto.Signer
	certificate *x509.Certificate
}

// under makes a certificate for key; by nil means self-signed.
func under(t *testing.T, by *authority, name string, key crypto.Signer, ca bool, until time.Time) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-day), NotAfter: until,
		BasicConstraintsValid: true, IsCA: ca, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if ca {
		template.KeyUsage |= x509.KeyUsageCertSign
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, c}
}

func ec(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certificates(list ...*authority) []*pem.Block {
	var blocks []*pem.Block
	for _, a := range list {
		blocks = append(blocks, &pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
	}
	return blocks
}

func pkcs8(t *testing.T, key any) *pem.Block {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &pem.Block{Type: "PRIVATE KEY", Bytes: der}
}

func sec1(t *testing.T, key *ecdsa.PrivateKey) *pem.Block {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}
}

func pkcs1(key *rsa.PrivateKey) *pem.Block {
	return &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
}

var later = now.Add(100 * day)

// pki is a root, an authority between, and a leaf for key.
func pki(t *testing.T, key crypto.Signer) (leaf, between, root *authority) {
	t.Helper()
	root = under(t, nil, "root", ec(t, elliptic.P256()), true, later)
	between = under(t, root, "between", ec(t, elliptic.P384()), true, later)
	return under(t, between, "leaf", key, false, later), between, root
}

// withOwn is a service of that verifier whose key and certificates are brought by file.
func withOwn(t *testing.T, verifier, algorithm string, key []*pem.Block, certs []*pem.Block) issuer.Service {
	t.Helper()
	dir := t.TempDir()
	s := service("registry.local", verifier, algorithm)
	s.KeyFile = writePEM(t, filepath.Join(dir, "own.key"), 0o600, key...)
	if certs != nil {
		s.CertificateFile = writePEM(t, filepath.Join(dir, "own.crt"), 0o644, certs...)
	}
	return s
}

func TestOwnKeysAreReadInEveryUsualForm(t *testing.T) {
	p256, p384, rsa2048 := ec(t, elliptic.P256()), ec(t, elliptic.P384()), rsaKey(t, 2048)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parameters := &pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}} // openssl writes it first
	for name, c := range map[string]struct {
		key       crypto.Signer
		algorithm string
		blocks    []*pem.Block
	}{
		"PKCS #8, EC":                {p256, issuer.ES256, []*pem.Block{pkcs8(t, p256)}},
		"PKCS #8, RSA":               {rsa2048, issuer.RS384, []*pem.Block{pkcs8(t, rsa2048)}},
		"PKCS #8, Ed25519":           {edwards, issuer.EdDSA, []*pem.Block{pkcs8(t, edwards)}},
		"PKCS #1":                    {rsa2048, issuer.RS256, []*pem.Block{pkcs1(rsa2048)}},
		"SEC 1":                      {p384, issuer.ES384, []*pem.Block{sec1(t, p384)}},
		"SEC 1 after its parameters": {p256, issuer.ES256, []*pem.Block{parameters, sec1(t, p256)}},
	} {
		t.Run(name, func(t *testing.T) {
			leaf, between, root := pki(t, c.key)
			s := withOwn(t, issuer.VerifierChain, c.algorithm, c.blocks, certificates(leaf, between, root))
			config, _ := configuration(t, s)
			i := start(t, config)
			key := i.Keyring().For("registry.local")
			if key.ID != libtrust(t, c.key.Public()) || key.Source != s.KeyFile || i.Keyring().Root != nil {
				t.Errorf("%+v", key)
			}
			result := issue(t, i, request(t, ""))
			header := part(t, result.Token, 0)
			keyFor(t, s, i.Keyring(), header)
			if n := len(header["x5c"].([]any)); n != 2 { // leaf and between
				t.Errorf("%d certificates in x5c", n)
			}
			if !exported(t, key).Equal(root.certificate) {
				t.Error("the anchor is not the root")
			}
		})
	}
}

func TestKeyAndCertificatesMayStandInOneFile(t *testing.T) {
	private := ec(t, elliptic.P256())
	leaf, between, root := pki(t, private)
	s := service("registry.local", issuer.VerifierChain)
	s.KeyFile = writePEM(t, filepath.Join(t.TempDir(), "all.pem"), 0o600, append(certificates(leaf, between, root), pkcs8(t, private))...)
	s.CertificateFile = s.KeyFile
	if ring := open(t, keys(t.TempDir(), s)); len(ring.For("registry.local").Chain) != 2 {
		t.Error("x5c is not leaf and between")
	}
}

func TestWhatGoesIntoX5CAndWhatTheRegistryTrusts(t *testing.T) {
	private := ec(t, elliptic.P256())
	leaf, between, root := pki(t, private)
	alone := under(t, nil, "alone", private, true, later)
	for name, c := range map[string]struct {
		given  []*authority
		x5c    []*authority
		anchor *authority
	}{
		"leaf, between, root": {[]*authority{leaf, between, root}, []*authority{leaf, between}, root},
		"without the root":    {[]*authority{leaf, between}, []*authority{leaf, between}, between},
		"self-signed":         {[]*authority{alone}, []*authority{alone}, alone},
		"a leaf alone":        {[]*authority{leaf}, []*authority{leaf}, leaf},
	} {
		s := withOwn(t, issuer.VerifierChain, issuer.ES256, []*pem.Block{pkcs8(t, private)}, certificates(c.given...))
		config, _ := configuration(t, s)
		i, err := issuer.New(config)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		key := i.Keyring().For("registry.local")
		same := slices.EqualFunc(key.Chain, c.x5c, func(a *x509.Certificate, b *authority) bool { return a.Equal(b.certificate) })
		if !same || !key.Anchor.Equal(c.anchor.certificate) {
			t.Errorf("%s: %d certificates, anchor %s", name, len(key.Chain), key.Anchor.Subject)
		}
	}
}

func TestAJWKSServiceNeedsNoCertificate(t *testing.T) {
	private := ec(t, elliptic.P256())
	s := withOwn(t, issuer.VerifierJWKS, issuer.ES256, []*pem.Block{sec1(t, private)}, nil)
	config, _ := configuration(t, s)
	key := start(t, config).Keyring().For("registry.local")
	if key.ID != libtrust(t, private.Public()) || key.Anchor != nil || len(key.Chain) != 0 {
		t.Errorf("%+v", key)
	}
}

func TestTheOwnKeyOfAllIsForChainServicesWithoutOneOfTheirOwn(t *testing.T) {
	shared, single := ec(t, elliptic.P256()), ec(t, elliptic.P256())
	leaf, between, root := pki(t, shared)
	c := keys(t.TempDir(), service("a", issuer.VerifierChain), service("b", issuer.VerifierChain), service("zot", issuer.VerifierPinned), service("three", issuer.VerifierJWKS))
	all := withOwn(t, issuer.VerifierChain, issuer.ES256, []*pem.Block{pkcs8(t, shared)}, certificates(leaf, between, root))
	c.KeyFile, c.CertificateFile = all.KeyFile, all.CertificateFile
	leaf, between, root = pki(t, single)
	c.Services = append(c.Services, withOwn(t, issuer.VerifierChain, issuer.ES256, []*pem.Block{pkcs8(t, single)}, certificates(leaf, between, root)))
	ring := open(t, c)
	id := ids(ring)
	if want := libtrust(t, shared.Public()); id["a"] != want || id["b"] != want || id["zot"] == want || id["three"] == want {
		t.Errorf("%v, the shared key is %s", id, want)
	}
	if want := libtrust(t, single.Public()); id["registry.local"] != want {
		t.Errorf("%v, the single key is %s", id, want)
	}
	if ring.Root != nil {
		t.Error("a root was made though nobody needs one")
	}
	if got := slices.Sorted(maps.Keys(tree(t, c.DataDir))); !slices.Equal(got, []string{"jwks", "jwks/es256.key", "pinned", "pinned/zot.crt", "pinned/zot.key"}) {
		t.Errorf("the folder holds %q", got)
	}
}

func TestAnOwnCertificateNearItsEndIsAWarning(t *testing.T) {
	private := ec(t, elliptic.P256())
	s := withOwn(t, issuer.VerifierChain, issuer.ES256, []*pem.Block{pkcs8(t, private)}, certificates(under(t, nil, "alone", private, true, now.Add(40*day))))
	c := keys(t.TempDir(), s)
	if ring := openAt(t, now.Add(10*day-time.Hour), c); len(ring.Warnings) != 0 {
		t.Errorf("more than 30 days before: %q", ring.Warnings)
	}
	want := "the certificate in " + s.CertificateFile + " ends 2026-04-13T05:06:07Z; registries refuse every token from then on"
	if ring := openAt(t, now.Add(10*day+time.Hour), c); !slices.Equal(ring.Warnings, []string{want}) {
		t.Errorf("got  %q\nwant %q", ring.Warnings, want)
	}
}

func TestOwnKeysThatCannotBeUsedAreRefusedWithTheReason(t *testing.T) {
	p256, p384 := ec(t, elliptic.P256()), ec(t, elliptic.P384())
	leaf, between, root := pki(t, p256)
	_, otherBetween, _ := pki(t, p256)
	chain := certificates(leaf, between, root)
	key := []*pem.Block{pkcs8(t, p256)}
	exchange, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short := rsaKey(t, 1024)
	ended := under(t, nil, "ended", p256, true, now.Add(-time.Hour))
	endedRoot := under(t, nil, "ended root", ec(t, elliptic.P256()), true, now.Add(-time.Hour))
	garbage := func(kind string) []*pem.Block { return []*pem.Block{{Type: kind, Bytes: []byte("garbage")}} }
	for name, c := range map[string]struct {
		algorithm  string
		key, certs []*pem.Block
		file       string // that the message names
		want       string // "…" at the end: what follows is crypto/x509's
	}{
		"no key in the file":     {issuer.ES256, chain, chain, "key", "no private key in PEM form"},
		"an empty key file":      {issuer.ES256, nil, chain, "key", "no private key in PEM form"},
		"an encrypted key":       {issuer.ES256, garbage("ENCRYPTED PRIVATE KEY"), chain, "key", "the private key is encrypted; give it without a passphrase"},
		"a key of OpenSSH":       {issuer.ES256, garbage("OPENSSH PRIVATE KEY"), chain, "key", "no private key in PEM form"},
		"a broken PKCS #8 key":   {issuer.ES256, garbage("PRIVATE KEY"), chain, "key", "the private key cannot be read: …"},
		"a broken PKCS #1 key":   {issuer.ES256, garbage("RSA PRIVATE KEY"), chain, "key", "the private key cannot be read: …"},
		"a broken SEC 1 key":     {issuer.ES256, garbage("EC PRIVATE KEY"), chain, "key", "the private key cannot be read: …"},
		"a key that cannot sign": {issuer.ES256, []*pem.Block{pkcs8(t, exchange)}, chain, "key", "a key of this kind cannot sign"},
		"a public key":           {issuer.ES256, garbage("PUBLIC KEY"), chain, "key", "no private key in PEM form"},
		"another algorithm, EC":  {issuer.ES384, key, chain, "key", "this key cannot sign with ES384; set the algorithm to ES256"},
		"another algorithm, RSA": {issuer.RS256, key, chain, "key", "this key cannot sign with RS256; set the algorithm to ES256"},
		"a short RSA key":        {issuer.RS256, []*pem.Block{pkcs1(short)}, certificates(under(t, nil, "short", short, true, later)), "key", "an RSA key of 1024 bits is too short; at least 2048 are needed"},
		"no certificate":         {issuer.ES256, key, key, "crt", "no certificate in PEM form"},
		"a broken certificate":   {issuer.ES256, key, append(certificates(leaf), garbage("CERTIFICATE")...), "crt", "certificate 2 cannot be read: x509: malformed certificate"},
		"the key of another":     {issuer.ES384, []*pem.Block{sec1(t, p384)}, chain, "crt", "the first certificate does not belong to the private key"},
		"the root first":         {issuer.ES256, key, certificates(root, between, leaf), "crt", "the first certificate does not belong to the private key"},
		"the root in the middle": {issuer.ES256, key, certificates(leaf, root, between), "crt", "certificate 1 (CN=leaf) is not signed by the next one: …"},
		"another authority":      {issuer.ES256, key, certificates(leaf, otherBetween), "crt", "certificate 1 (CN=leaf) is not signed by the next one: …"},
		"a leaf as an authority": {issuer.ES256, key, certificates(leaf, leaf), "crt", "certificate 1 (CN=leaf) is not signed by the next one: …"},
		"a certificate that is over": {issuer.ES256, key, certificates(ended), "crt",
			"certificate 1 (CN=ended) is valid from 2026-03-03T05:06:07Z to 2026-03-04T04:06:07Z only"},
		"a root that is over": {issuer.ES256, key, certificates(under(t, endedRoot, "leaf", p256, false, later), endedRoot), "crt",
			"certificate 2 (CN=ended root) is valid from 2026-03-03T05:06:07Z to 2026-03-04T04:06:07Z only"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.certs == nil {
				c.certs = []*pem.Block{}
			}
			s := withOwn(t, issuer.VerifierChain, c.algorithm, c.key, c.certs)
			dir := filepath.Join(t.TempDir(), "data")
			_, err := issuer.OpenKeyring(keys(dir, s))
			file := map[string]string{"key": s.KeyFile, "crt": s.CertificateFile}[c.file]
			want := fmt.Sprintf("key of service %q: %s: %s", "registry.local", file, c.want)
			if begin, any := strings.CutSuffix(want, "…"); any {
				if err == nil || !strings.HasPrefix(err.Error(), begin) || len(err.Error()) == len(begin) {
					t.Errorf("error:\n got %v\nwant %s", err, want)
				}
				return
			}
			wantError(t, err, want)
			if n := len(tree(t, dir)); n != 0 {
				t.Errorf("%d files were made instead", n)
			}
		})
	}
}

func TestACurveThatNoVerifierTakesIsRefused(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P521()} {
		s := withOwn(t, issuer.VerifierJWKS, issuer.ES256, []*pem.Block{sec1(t, ec(t, curve))}, nil)
		_, err := issuer.OpenKeyring(keys(t.TempDir(), s))
		wantError(t, err, `key of service "registry.local": `+s.KeyFile+": a key of this kind cannot sign tokens; use EC P-256, P-384, RSA or Ed25519")
	}
}

func TestACertificateThatIsNotValidYetIsRefused(t *testing.T) {
	private := ec(t, elliptic.P256())
	s := withOwn(t, issuer.VerifierChain, issuer.ES256, []*pem.Block{pkcs8(t, private)}, certificates(under(t, nil, "alone", private, true, later)))
	c := keys(t.TempDir(), s)
	c.Now = clock(now.Add(-2 * day))
	_, err := issuer.OpenKeyring(c)
	wantError(t, err, `key of service "registry.local": `+s.CertificateFile+": certificate 1 (CN=alone) is valid from 2026-03-03T05:06:07Z to 2026-06-12T05:06:07Z only")
}

func TestOwnFilesThatAreMissingAreNamed(t *testing.T) {
	private := ec(t, elliptic.P256())
	s := withOwn(t, issuer.VerifierChain, issuer.ES256, []*pem.Block{pkcs8(t, private)}, certificates(under(t, nil, "alone", private, true, later)))
	key, crt := s, s
	key.KeyFile += ".missing"
	crt.CertificateFile += ".missing"
	for _, s := range []issuer.Service{key, crt} {
		missing := s.KeyFile
		if s.CertificateFile != key.CertificateFile {
			missing = s.CertificateFile
		}
		dir := t.TempDir()
		_, err := issuer.OpenKeyring(keys(dir, s))
		wantError(t, err, `key of service "registry.local": stat `+missing+": no such file or directory")
		if n := len(tree(t, dir)); n != 0 {
			t.Errorf("%d files were made instead", n)
		}
	}
}

func TestAnOwnKeyThatEverybodyCanReadIsRefused(t *testing.T) {
	private := ec(t, elliptic.P256())
	s := withOwn(t, issuer.VerifierJWKS, issuer.ES256, []*pem.Block{pkcs8(t, private)}, nil)
	writePEM(t, s.KeyFile, 0o644, pkcs8(t, private))
	_, err := issuer.OpenKeyring(keys(t.TempDir(), s))
	wantError(t, err, `key of service "registry.local": `+s.KeyFile+": everybody on this machine can read it; run: chmod o-rwx "+s.KeyFile)
}

func TestAFileTooLargeToBeAKeyIsRefused(t *testing.T) {
	s := service("registry.local", issuer.VerifierJWKS)
	s.KeyFile = write(t, filepath.Join(t.TempDir(), "own.key"), 0o600, strings.Repeat("x", 256<<10+1))
	_, err := issuer.OpenKeyring(keys(t.TempDir(), s))
	wantError(t, err, `key of service "registry.local": `+s.KeyFile+": larger than 262144 bytes, no PEM file")
}

func TestAnExportIsCertificatesAndNothingElse(t *testing.T) {
	_, between, root := pki(t, ec(t, elliptic.P256()))
	rest := issuer.EncodeCertificates(root.certificate, between.certificate)
	for _, want := range []*authority{root, between} {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || string(block.Bytes) != string(want.certificate.Raw) {
			t.Fatalf("block %v, want %s", block, want.certificate.Subject)
		}
	}
	if len(rest) != 0 {
		t.Errorf("and %q", rest)
	}
}
