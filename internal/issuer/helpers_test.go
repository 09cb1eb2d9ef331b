package issuer_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/scope"
	"authserver/internal/users"
)

const day = 24 * time.Hour

// now is when the tests play.
var now = time.Date(2026, 3, 4, 5, 6, 7, 890, time.UTC)

func clock(at time.Time) func() time.Time { return func() time.Time { return at } }

// service is a service with the given name and verifier; its algorithm is ES256 unless one is given.
func service(name, verifier string, algorithm ...string) issuer.Service {
	return issuer.Service{
		Name: name, Issuer: "auth", Verifier: verifier, Lifetime: 5 * time.Minute,
		Algorithm: append(algorithm, issuer.ES256)[0],
	}
}

// keys is a configuration of keys in dir, rotating monthly.
func keys(dir string, services ...issuer.Service) issuer.KeyConfig {
	return issuer.KeyConfig{DataDir: dir, Name: "auth", Services: services, RotateEvery: 30 * day, Now: clock(now)}
}

func open(t *testing.T, c issuer.KeyConfig) *issuer.Keyring {
	t.Helper()
	ring, err := issuer.OpenKeyring(c)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func openAt(t *testing.T, at time.Time, c issuer.KeyConfig) *issuer.Keyring {
	t.Helper()
	c.Now = clock(at)
	return open(t, c)
}

// people is an identity backend: name -> principal, whose password is the name twice.
type people struct {
	known map[string]users.Principal
	down  error
}

func (p people) Authenticate(_ context.Context, c users.Credentials) (users.Principal, error) {
	if p.down != nil {
		return users.Principal{}, p.down
	}
	who, ok := p.known[c.Username]
	if !ok || c.Password != c.Username+c.Username {
		return users.Principal{}, users.ErrRefused
	}
	return who, nil
}

// decide is a policy.
type decide func(who users.Principal, from netip.Addr, service string, now time.Time, asked scope.Set) (scope.Set, []scope.Verdict)

func (d decide) Decide(who users.Principal, from netip.Addr, service string, now time.Time, asked scope.Set) (scope.Set, []scope.Verdict) {
	return d(who, from, service, now, asked)
}

// all grants what is asked.
func all(_ users.Principal, _ netip.Addr, _ string, _ time.Time, asked scope.Set) (scope.Set, []scope.Verdict) {
	return asked, nil
}

// record keeps events, or fails.
type record struct {
	events []audit.Event
	err    error
}

func (r *record) Record(e audit.Event) error {
	r.events = append(r.events, e)
	return r.err
}

// last is the newest event.
func (r *record) last(t *testing.T) audit.Event {
	t.Helper()
	if len(r.events) == 0 {
		t.Fatal("nothing was recorded")
	}
	return r.events[len(r.events)-1]
}

var alice = users.Principal{Name: "alice", Kind: users.KindUser, Backend: "htpasswd"}

// configuration is an issuer of the services, with the user alice, a policy that grants what is asked, and a record.
func configuration(t *testing.T, services ...issuer.Service) (issuer.Config, *record) {
	t.Helper()
	log := &record{}
	return issuer.Config{
		Services: services, Keyring: open(t, keys(t.TempDir(), services...)),
		Users: people{known: map[string]users.Principal{"alice": alice}}, Policy: decide(all), Audit: log, Now: clock(now),
	}, log
}

func start(t *testing.T, c issuer.Config) *issuer.Issuer {
	t.Helper()
	i, err := issuer.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// request is alice's, by Basic authentication.
func request(t *testing.T, service string, scopes ...string) issuer.Request {
	t.Helper()
	return issuer.Request{
		ID: "r1", Grant: issuer.GrantBasic, Service: service, Asked: asked(t, scopes...),
		Credentials: &users.Credentials{Username: "alice", Password: "alicealice"}, Client: netip.MustParseAddr("192.0.2.7"),
	}
}

func asked(t *testing.T, scopes ...string) scope.Set {
	t.Helper()
	set, dropped, err := scope.Parse(scopes)
	if err != nil || len(dropped) > 0 {
		t.Fatal(dropped, err)
	}
	return set
}

func issue(t *testing.T, i *issuer.Issuer, r issuer.Request) issuer.Result {
	t.Helper()
	result, err := i.Issue(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// part decodes a part of a token, 0 the header and 1 the claims, with numbers as they are written.
func part(t *testing.T, token string, n int) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[n])
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var m map[string]any
	if err := decoder.Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

// libtrust is the key ID as docker/libtrust defines it: SHA-256 of the DER public key, cut to 240 bits, base32, a colon
// after every four characters.
func libtrust(t *testing.T, public crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	text := strings.TrimRight(base32.StdEncoding.EncodeToString(sum[:240/8]), "=")
	id := text[:4]
	for text = text[4:]; text != ""; text = text[4:] {
		id += ":" + text[:4]
	}
	return id
}

func writePEM(t *testing.T, file string, perm os.FileMode, blocks ...*pem.Block) string {
	t.Helper()
	var out bytes.Buffer
	for _, b := range blocks {
		if err := pem.Encode(&out, b); err != nil {
			t.Fatal(err)
		}
	}
	return write(t, file, perm, out.String())
}

func write(t *testing.T, file string, perm os.FileMode, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), perm); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, perm); err != nil {
		t.Fatal(err)
	}
	return file
}

// wantError compares a whole message.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("error:\n got %v\nwant %s", err, want)
	}
}

var errDown = errors.New("connection refused")
