package flows_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// The services of these tests are registry.test, verified by its root, and three, by a JWKS.
const rotationConfig = `issuer:
  name: issuer.test
  keys: {%s}
services:
  - {name: registry.test}
  - {name: three, verifier: jwks}
users:
  - kind: htpasswd
    file: users.htpasswd
acl:
  files: [policy.yaml]
passwords: {bcrypt_cost: 4}
`

func startRotating(t *testing.T, keys string, o harness.Options) *harness.Authserver {
	t.Helper()
	o.Config, o.Policy, o.Users = fmt.Sprintf(rotationConfig, keys), policy, map[string]string{"alice": alicePassword}
	a := harness.StartAuthserver(t, o)
	a.Issuer = "issuer.test"
	return a
}

// export is what "key export" prints, in a file.
func export(t *testing.T, a *harness.Authserver, args ...string) string {
	t.Helper()
	return save(t, a.Command(t, "", append([]string{"key", "export"}, args...)...))
}

func save(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trusted")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// kid tells which key has signed a token.
func kid(t *testing.T, token string) string {
	t.Helper()
	part, _, _ := strings.Cut(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	var header struct{ Kid string }
	if err := json.Unmarshal(data, &header); err != nil || header.Kid == "" {
		t.Fatalf("%s: %v", data, err)
	}
	return header.Kid
}

func tokenFor(t *testing.T, a *harness.Authserver, service string) string {
	t.Helper()
	return a.Token(t, "alice", alicePassword, service, "repository:alice/app:pull")
}

// anotherKey waits until tokens are signed with another key than that, and returns one.
func anotherKey(t *testing.T, a *harness.Authserver, service, than string) string {
	t.Helper()
	began := time.Now()
	for {
		token := tokenFor(t, a, service)
		if kid(t, token) != than {
			t.Logf("%s: another key after %v", service, time.Since(began).Round(10*time.Millisecond))
			return token
		}
		if time.Since(began) > giveUp {
			t.Fatalf("%s: tokens are signed with the same key after %v\n%s", service, giveUp, a.Log())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// admits tells whether a registry takes a token.
func admits(t *testing.T, r *harness.Registry, token string) bool {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+r.Host+"/v2/alice/app/tags/list", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusNotFound: // there is no such repository, but it may know
		return true
	case http.StatusUnauthorized:
		return false
	}
	t.Fatalf("the registry answers %s", response.Status)
	return false
}

func want(t *testing.T, what string, r *harness.Registry, token string, taken bool) {
	t.Helper()
	if got := admits(t, r, token); got != taken {
		t.Errorf("%s: taken %v, want %v", what, got, taken)
	}
}

func TestARegistryDoesNotNoticeThatSigningKeysAreReplaced(t *testing.T) {
	for _, version := range []string{"2.8.3", "3.1.2"} {
		t.Run(version, func(t *testing.T) {
			a := startRotating(t, "", harness.Options{})
			r := harness.StartRegistryTrusting(t, version, a, "registry.test", "rootcertbundle", export(t, a))
			old := tokenFor(t, a, "registry.test")
			want(t, "before", r, old, true)
			a.Command(t, "", "key", "rotate")
			fresh := anotherKey(t, a, "registry.test", kid(t, old))
			want(t, "the new key", r, fresh, true)
			want(t, "the key before", r, old, true)
		})
	}
}

// The key is as old as it may be; the server makes the next one, publishes it, and lets it sign when its time comes.
func TestSigningKeysAreReplacedByThemselves(t *testing.T) {
	for _, version := range []string{"2.8.3", "3.1.2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel() // it waits
			a := startRotating(t, "rotate_every: 1h, publish_ahead: 15s", harness.Options{})
			r := harness.StartRegistryTrusting(t, version, a, "registry.test", "rootcertbundle", export(t, a))
			outdate(t, filepath.Join(a.Dir, "data"))
			young := kid(t, tokenFor(t, a, "registry.test"))
			old := anotherKey(t, a, "registry.test", young)
			want(t, "an old key", r, old, true)
			var published, before string // before: what was published when tokens were signed with the old key
			a.Await(t, func() error {
				before = published
				_, published = get(t, a.URL+"/.well-known/jwks.json")
				if kid(t, tokenFor(t, a, "registry.test")) == kid(t, old) {
					return errors.New("tokens are signed with the old key")
				}
				return nil
			})
			fresh := tokenFor(t, a, "registry.test")
			if !strings.Contains(before, kid(t, fresh)) {
				t.Errorf("%s was not published before it signed", kid(t, fresh))
			}
			want(t, "the new key", r, fresh, true)
			want(t, "the key before", r, old, true)
			_, jwks := get(t, a.URL+"/.well-known/jwks.json")
			for _, id := range []string{kid(t, old), kid(t, fresh)} {
				if !strings.Contains(jwks, id) {
					t.Errorf("%s is not in the JWKS", id)
				}
			}
		})
	}
}

func get(t *testing.T, address string) (int, string) {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body.String()
}

// outdate puts a signing key under the root that has signed for an hour. Its files are replaced one by one, and a server that
// looks between them makes a new one, so the certificate comes first.
func outdate(t *testing.T, data string) {
	t.Helper()
	block, _ := pem.Decode(harness.ReadFile(t, filepath.Join(data, "root.crt")))
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	block, _ = pem.Decode(harness.ReadFile(t, filepath.Join(data, "root.key")))
	rootKey, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "old"}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-25*time.Hour - time.Minute), NotAfter: time.Now().Add(1000 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root, key.Public(), rootKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name  string
		block pem.Block
	}{{"es256.crt", pem.Block{Type: "CERTIFICATE", Bytes: der}}, {"es256.key", pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}}} {
		file := filepath.Join(data, "chain", f.name)
		if err := os.WriteFile(file+".tmp", pem.EncodeToMemory(&f.block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".tmp", file); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheRootIsReplacedInTwoStages(t *testing.T) {
	for _, version := range []string{"2.8.3", "3.1.2"} {
		t.Run(version, func(t *testing.T) {
			a := startRotating(t, "", harness.Options{})
			registry := func(bundle string) *harness.Registry {
				return harness.StartRegistryTrusting(t, version, a, "registry.test", "rootcertbundle", bundle)
			}
			late := registry(export(t, a)) // nobody tells it
			old := tokenFor(t, a, "registry.test")
			a.Command(t, "", "key", "rotate", "--root")
			bundle := export(t, a)
			told := registry(bundle)
			between := tokenFor(t, a, "registry.test")
			for _, r := range []*harness.Registry{late, told} {
				want(t, "before the activation", r, between, true)
			}
			a.Command(t, "", "key", "rotate", "--root", "--activate")
			fresh := anotherKey(t, a, "registry.test", kid(t, old))
			want(t, "a token under the new root, with both", told, fresh, true)
			want(t, "a token under the old root, with both", told, old, true)
			want(t, "a token under the new root, with the old one", late, fresh, false)

			// What is exported last holds the new root alone: the first of the bundle by now.
			text := harness.ReadFile(t, export(t, a))
			block, _ := pem.Decode(text)
			last := registry(save(t, string(pem.EncodeToMemory(block))))
			want(t, "a token under the new root, with that alone", last, fresh, true)
			want(t, "a token under the old root, with the new one alone", last, old, false)
		})
	}
}

func TestAJWKSIsReplacedInTwoStages(t *testing.T) {
	a := startRotating(t, "", harness.Options{})
	jwks := func() string { return export(t, a, "--service", "three", "--format", "jwks") }
	registry := func(file string) *harness.Registry {
		return harness.StartRegistryTrusting(t, "3.1.2", a, "three", "jwks", file)
	}
	late := registry(jwks())
	old := tokenFor(t, a, "three")
	a.Command(t, "", "key", "rotate", "--service", "three")
	told := registry(jwks())
	for _, r := range []*harness.Registry{late, told} {
		want(t, "before the activation", r, tokenFor(t, a, "three"), true)
	}
	a.Command(t, "", "key", "rotate", "--service", "three", "--activate")
	fresh := anotherKey(t, a, "three", kid(t, old))
	want(t, "the new key", told, fresh, true)
	want(t, "the key before", told, old, true)
	want(t, "the new key, where nobody was told", late, fresh, false)
	a.Command(t, "", "key", "revoke", kid(t, old), "--yes")
	last := registry(jwks())
	want(t, "the new key, alone", last, fresh, true)
	want(t, "a revoked key", last, old, false)
}

// Two servers that share nothing but PostgreSQL sign with one key.
func TestReplicasSignWithTheKeysInPostgreSQL(t *testing.T) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		t.Fatal(err)
	}
	encryption := save(t, base64.StdEncoding.EncodeToString(secret)+"\n")
	a := startRotating(t, fmt.Sprintf("store: database, encryption_key_file: %q", encryption), harness.Options{Database: harness.Database(t)})
	b := a.Replica(t, "issuer.data_dir="+t.TempDir())
	r := harness.StartRegistryTrusting(t, "3.1.2", a, "registry.test", "rootcertbundle", export(t, a))
	done := make(chan struct{})
	var asked sync.WaitGroup
	for _, server := range []*harness.Authserver{a, b} {
		asked.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
				}
				answer := server.Get(t, "alice", alicePassword, url.Values{"service": {"registry.test"}, "scope": {"repository:alice/app:pull"}})
				if answer.Status != http.StatusOK {
					t.Errorf("status %d: %s", answer.Status, answer.Body)
					return
				}
			}
		})
	}
	same := func(service string) {
		t.Helper()
		if one, other := kid(t, tokenFor(t, a, service)), kid(t, tokenFor(t, b, service)); one != other {
			t.Errorf("%s: %s and %s", service, one, other)
		}
	}
	same("registry.test")
	same("three")
	for _, line := range []string{"", "", "--service three", "--root"} {
		service, stage := "registry.test", append([]string{"key", "rotate"}, strings.Fields(line)...)
		if strings.HasPrefix(line, "--service") {
			service = "three"
		}
		old := tokenFor(t, a, service)
		a.Command(t, "", stage...)
		if line != "" {
			time.Sleep(soon)
			for _, server := range []*harness.Authserver{a, b} {
				if kid(t, tokenFor(t, server, service)) != kid(t, old) {
					t.Errorf("%s: a key that waits signs", line)
				}
			}
			a.Command(t, "", append(stage, "--activate")...)
		}
		for _, server := range []*harness.Authserver{a, b} {
			fresh := anotherKey(t, server, service, kid(t, old))
			if service == "registry.test" && line == "" {
				want(t, "the new key", r, fresh, true)
				want(t, "the key before", r, old, true)
			}
		}
		same(service)
	}
	close(done)
	asked.Wait()
	if _, err := os.Stat(filepath.Join(a.Dir, "data", "jwks")); err == nil { // init has made the others
		t.Error("keys are in the data folder, too")
	}

	// Another encryption key, without a pause: old and new, new and old, new.
	other := make([]byte, 32)
	if _, err := rand.Read(other); err != nil {
		t.Fatal(err)
	}
	lines := func(keys ...[]byte) {
		t.Helper()
		text := ""
		for _, key := range keys {
			text += base64.StdEncoding.EncodeToString(key) + "\n"
		}
		if err := os.WriteFile(encryption, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := kid(t, tokenFor(t, a, "registry.test"))
	lines(secret, other)
	lines(other, secret)
	if out := a.Command(t, "", "key", "rotate", "--encryption"); !strings.HasPrefix(out, "Encrypted anew: ") || strings.HasPrefix(out, "Encrypted anew: 0") {
		t.Errorf("said %s", out)
	}
	lines(other)
	a.Command(t, "", "key", "rotate")
	for _, server := range []*harness.Authserver{a, b} {
		anotherKey(t, server, "registry.test", before)
		if log := server.Log(); strings.Contains(log, base64.StdEncoding.EncodeToString(other)[:20]) || strings.Contains(log, "PRIVATE KEY") {
			t.Error("a secret is in the log")
		}
	}
}
