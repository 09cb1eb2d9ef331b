package issuer

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"authserver/internal/scope"
)

var fuzzTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// Whatever stands in a certificate file: certificates or an error. What is read is written so that it is read again, with
// no other blocks, and is taken for a key only when it is that key's, good now, and each certified by the next.
func FuzzParseCertificates(f *testing.F) {
	private, err := generate(ES256)
	if err != nil {
		f.Fatal(err)
	}
	root, err := selfSigned(private, "root", fuzzTime)
	if err != nil {
		f.Fatal(err)
	}
	leafKey, err := generate(ES384)
	if err != nil {
		f.Fatal(err)
	}
	leaf, err := leafCertificate(leafKey.Public(), "leaf", root, private, fuzzTime)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		f.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	chain := EncodeCertificates(leaf, root)
	for _, seed := range [][]byte{
		EncodeCertificates(root), chain, EncodeCertificates(root, leaf), append(key, chain...), append([]byte("subject=CN = leaf\nissuer=CN = root\n"), chain...), bytes.ReplaceAll(chain, []byte("\n"), []byte("\r\n")),
		[]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n\nAA==\n-----END CERTIFICATE-----"),
		pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: root.Raw}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: append(root.Raw, 0)}), key, nil,
	} {
		f.Add(seed, uint(20), byte(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, at uint, b byte) {
		texts := [][]byte{data}
		if block, rest := pem.Decode(data); block != nil && len(block.Bytes) > 0 { // beneath the base64, where the fuzzer does not reach
			block.Bytes[at%uint(len(block.Bytes))] = b
			texts = append(texts, append(pem.EncodeToMemory(block), rest...))
		}
		for _, text := range texts {
			certificates, err := parseCertificates(text)
			if (len(certificates) == 0) == (err == nil) {
				t.Fatalf("%d certificates, %v", len(certificates), err)
			}
			if err != nil {
				continue
			}
			again, err := parseCertificates(EncodeCertificates(certificates...))
			if err != nil || len(again) != len(certificates) {
				t.Fatalf("%d certificates, read again %d, %v", len(certificates), len(again), err)
			}
			for i := range again {
				if !again[i].Equal(certificates[i]) {
					t.Fatalf("certificate %d changes", i)
				}
			}
			for _, k := range []crypto.Signer{private, leafKey} {
				x5c, anchor, err := checkChain(certificates, k, fuzzTime)
				if err == nil {
					believed(t, certificates, x5c, anchor, k)
				}
			}
		}
	})
}

// believed holds what checkChain takes against what it says of it.
func believed(t *testing.T, certificates, x5c []*x509.Certificate, anchor *x509.Certificate, private crypto.Signer) {
	t.Helper()
	type comparable interface{ Equal(crypto.PublicKey) bool }
	if len(x5c) == 0 || !private.Public().(comparable).Equal(x5c[0].PublicKey) || !anchor.Equal(certificates[len(certificates)-1]) {
		t.Fatalf("of %d certificates %d go along", len(certificates), len(x5c))
	}
	if last := x5c[len(x5c)-1]; len(x5c) > 1 && bytes.Equal(last.RawSubject, last.RawIssuer) && last.CheckSignature(last.SignatureAlgorithm, last.RawTBSCertificate, last.Signature) == nil {
		t.Fatal("a root goes along")
	}
	for i, c := range certificates {
		if fuzzTime.Before(c.NotBefore) || fuzzTime.After(c.NotAfter) || i > 0 && (!c.IsCA && c.Version == 3 || certificates[i-1].CheckSignatureFrom(c) != nil) {
			t.Fatalf("certificate %d is taken", i+1)
		}
	}
}

// Of certificates that somebody else made: what is taken at start is what a registry takes that was given the last one.
func FuzzChain(f *testing.F) {
	keys := make([]crypto.Signer, 4)
	for i := range keys {
		var err error
		if keys[i], err = generate([]string{ES256, ES384, ES256, EdDSA}[i]); err != nil {
			f.Fatal(err)
		}
	}
	// Six bytes for each certificate, the leaf first: key, the next one's key, name, the next one's name, dates, what it may.
	f.Add([]byte{0, 0, 0, 0, 0, 1}, byte(0))
	f.Add([]byte{0, 2, 0, 2, 0, 0, 2, 2, 2, 2, 0, 1}, byte(0))
	f.Add([]byte{0, 1, 0, 1, 0, 0, 1, 2, 1, 2, 0, 1, 2, 2, 2, 2, 0, 1}, byte(0))
	f.Add([]byte{0, 1, 0, 1, 0, 0, 1, 2, 1, 2, 0, 1}, byte(0))
	f.Add([]byte{0, 1, 0, 3, 0, 0, 1, 1, 1, 1, 0, 1}, byte(0))
	f.Add([]byte{0, 1, 0, 1, 0, 0, 1, 2, 1, 2, 0, 5, 2, 2, 2, 2, 0, 9}, byte(0))
	f.Add([]byte{0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 2, 1}, byte(1))
	f.Add([]byte{0, 2, 0, 2, 0, 0, 2, 2, 2, 2, 0, 1, 2, 2, 2, 2, 0, 1}, byte(0)) // the root twice: one went along
	f.Add([]byte{0, 2, 0, 2, 0, 16, 2, 2, 2, 2, 0, 33}, byte(2))
	f.Fuzz(func(t *testing.T, shape []byte, verifier byte) {
		var certificates []*x509.Certificate
		for ; len(shape) >= 6 && len(certificates) < 5; shape = shape[6:] {
			c := shape[:6]
			parent := &x509.Certificate{Subject: pkix.Name{CommonName: string('a' + rune(c[3]%4))}}
			template := &x509.Certificate{
				SerialNumber: big.NewInt(int64(len(certificates)) + 1), Subject: pkix.Name{CommonName: string('a' + rune(c[2]%4))},
				NotBefore: fuzzTime.Add(-time.Hour), NotAfter: fuzzTime.Add(2 * leafLifetime),
				BasicConstraintsValid: c[5]&2 == 0, IsCA: c[5]&1 != 0 && c[5]&2 == 0, MaxPathLenZero: c[5]&4 != 0,
			}
			switch c[4] % 8 {
			case 1:
				template.NotBefore = fuzzTime.Add(time.Second)
			case 2:
				template.NotAfter = fuzzTime.Add(-time.Second)
			case 3:
				template.NotBefore, template.NotAfter = fuzzTime, fuzzTime
			}
			if c[5]&8 != 0 {
				template.KeyUsage = x509.KeyUsageCertSign
			} else if c[5]&16 != 0 {
				template.KeyUsage = x509.KeyUsageDigitalSignature
			}
			if c[5]&32 != 0 {
				template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			}
			if c[5]&64 != 0 {
				template.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: c[5]&128 != 0, Value: []byte{5, 0}}}
			}
			der, err := x509.CreateCertificate(rand.Reader, template, parent, keys[c[0]%4].Public(), keys[c[1]%4])
			if err != nil {
				return // no such certificate can be made
			}
			made, err := x509.ParseCertificate(der)
			if err != nil {
				return
			}
			certificates = append(certificates, made)
		}
		if len(certificates) == 0 {
			return
		}
		x5c, anchor, err := checkChain(certificates, keys[0], fuzzTime)
		if err != nil {
			return
		}
		believed(t, certificates, x5c, anchor, keys[0])
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(anchor)
		for _, c := range x5c[1:] {
			between.AddCert(c)
		}
		_, refused := x5c[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: fuzzTime, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})

		kind := []string{VerifierChain, VerifierPinned}[verifier%2]
		if kind == VerifierPinned {
			anchor = x5c[0]
		}
		key, err := newKey(keys[0], ES256, kind, "file", x5c, anchor)
		if err != nil {
			t.Fatal(err)
		}
		s := Service{Name: "registry", Issuer: "auth", Verifier: kind, Algorithm: ES256, Lifetime: time.Minute}
		token, _, err := mint(s, key, "alice", scope.Set{}, fuzzTime, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		err = verify(s, &Keyring{byName: map[string]*slot{s.Name: {current: key}}}, token, fuzzTime)
		if kind == VerifierPinned && err != nil || kind == VerifierChain && (err == nil) != (refused == nil) {
			t.Fatalf("%s: the self-check says %v, a registry %v", kind, err, refused)
		}
		if kind == VerifierChain && refused != nil {
			t.Logf("left to the self-check: %v", refused)
		}
	})
}
