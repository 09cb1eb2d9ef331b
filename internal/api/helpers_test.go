package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/bcrypt"

	"authserver/internal/acl"
	"authserver/internal/api"
	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/metrics"
	"authserver/internal/server"
	"authserver/internal/store"
	"authserver/internal/users"
)

const testPolicy = `
groups: {admins: [admin, boss], engineering: ["group:dev"]}
rules:
  - {name: registry, subjects: [authenticated], repositories: ["{user}/**", "team/**"], actions: [pull, push]}
  - {name: admins, subjects: ["group:admins"], resources: ["authserver:**"], actions: ["*"]}
  - {name: automation, subjects: ["robot:auto"], resources: ["authserver:tokens/**", "authserver:users/**"], actions: [read, write]}
  - {name: self-service, subjects: [authenticated], resources: ["authserver:users/{user}", "authserver:tokens/{user}"], actions: [read, write]}
`

// world is a server with the htpasswd users admin and shadow, and the accounts boss, alice (in dev), bob, locked, shadow and
// the robots ci and auto in the database. Passwords are the name and "-secret".
type world struct {
	t       testing.TB
	db      *store.Store
	guard   *users.Guard
	handler http.Handler
	audit   *record
	log     *bytes.Buffer
}

// record keeps events, or fails from the n-th on.
type record struct {
	mu     sync.Mutex
	events []audit.Event
	failAt int
	hook   func(audit.Event)
}

func (r *record) Record(e audit.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	if r.hook != nil {
		r.hook(e)
	}
	if r.failAt > 0 && len(r.events) >= r.failAt {
		return errors.New("the disk is full")
	}
	return nil
}

// elsewhere is a backend that cannot be asked about a name without its password. It knows the user federated.
type elsewhere struct{}

func (elsewhere) Name() string { return "elsewhere" }

func (elsewhere) Authenticate(_ context.Context, c users.Credentials) (users.Principal, error) {
	if c.Username != "federated" || c.Password != "federated-secret" {
		return users.Principal{}, users.ErrUnknown
	}
	return users.Principal{Name: c.Username, Kind: users.KindUser}, nil
}

func hash(password string) string {
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(h)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// database is SQLite, or PostgreSQL where TEST_POSTGRES says where one is.
func database(t testing.TB, dir string) store.Config {
	c := store.Config{URL: "sqlite:authserver.db", Dir: dir, Timeout: 5 * time.Second}
	url := os.Getenv("TEST_POSTGRES")
	if url == "" {
		return c
	}
	admin, err := pgx.Connect(context.Background(), url)
	must(t, err)
	name := fmt.Sprintf("test_api_%d", time.Now().UnixNano())
	_, err = admin.Exec(context.Background(), "CREATE DATABASE "+name)
	must(t, err)
	t.Cleanup(func() {
		_, err := admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
		must(t, errors.Join(err, admin.Close(context.Background())))
	})
	url, _, _ = strings.Cut(url, "?")
	return store.Config{URL: url[:strings.LastIndexByte(url, '/')+1] + name + "?sslmode=disable", MaxConnections: 5, Timeout: 5 * time.Second}
}

func fill(db *store.Store) error {
	ctx, now := context.Background(), time.Now()
	var faults []error
	for _, name := range []string{"boss", "alice", "bob", "locked", "shadow"} {
		faults = append(faults, db.AddAccount(ctx, users.Account{Name: name, Kind: users.KindUser, Password: hash(name + "-secret"), Disabled: name == "locked", Created: now}))
	}
	for _, name := range []string{"ci", "auto"} {
		faults = append(faults, db.AddAccount(ctx, users.Account{Name: name, Kind: users.KindRobot, Created: now}))
	}
	return errors.Join(append(faults, db.AddGroup(ctx, "dev", now), db.AddMember(ctx, "dev", "alice"))...)
}

// filled is a file of SQLite that fill has filled.
var filled = sync.OnceValue(func() []byte {
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	db, err := store.Open(context.Background(), store.Config{URL: "sqlite:authserver.db", Dir: dir, Timeout: 5 * time.Second})
	if err != nil {
		panic(err)
	}
	if err := errors.Join(fill(db), db.Close()); err != nil {
		panic(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "authserver.db"))
	if err != nil {
		panic(err)
	}
	return data
})

var services = []issuer.Service{{Name: "registry.local", Issuer: "authserver", Verifier: issuer.VerifierChain, Algorithm: issuer.ES256, Lifetime: 5 * time.Minute}}

var ring = sync.OnceValue(func() *issuer.Keyring {
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r, err := issuer.OpenKeyring(issuer.KeyConfig{DataDir: filepath.Join(dir, "data"), Name: "test", Services: services, RotateEvery: time.Hour, Now: time.Now})
	if err != nil {
		panic(err)
	}
	return r
})

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := worldIn(t, dir, database(t, dir))
	t.Cleanup(func() { _ = w.db.Close() })
	return w
}

// worldIn is newWorld in a folder, with a database that somebody else closes.
func worldIn(t testing.TB, dir string, c store.Config) *world {
	t.Helper()
	file := filepath.Join(dir, "users")
	must(t, os.WriteFile(file, []byte("admin:"+hash("admin-secret")+"\nshadow:"+hash("shadow-secret")+"\n"), 0o600))
	if strings.HasPrefix(c.URL, "sqlite:") { // a copy of one that is made once
		must(t, os.WriteFile(filepath.Join(dir, "authserver.db"), filled(), 0o600))
	}
	db, err := store.Open(context.Background(), c)
	must(t, err)
	if !strings.HasPrefix(c.URL, "sqlite:") {
		must(t, fill(db))
	}

	guard := users.NewGuard(users.GuardEvents{})
	guard.Limit(users.Limits{Remember: time.Minute})
	htpasswd, err := users.LoadHTPasswd(file, guard)
	must(t, err)
	chain := users.NewChain([]users.Authenticator{htpasswd, users.NewDatabase(db, guard, bcrypt.MinCost), elsewhere{}}, guard, nil)
	policy, err := acl.Parse("policy.yaml", []byte(testPolicy))
	must(t, err)
	w := &world{t: t, db: db, guard: guard, audit: &record{}, log: &bytes.Buffer{}}
	mint, err := issuer.New(issuer.Config{Services: services, Keyring: ring(), Users: users.NewAccessTokens(db, chain, time.Now), Policy: policy, Audit: w.audit})
	must(t, err)
	log := slog.New(slog.NewJSONHandler(w.log, nil))
	programs, err := api.New(api.Config{
		Issuer: mint, Store: db, Chain: chain, Guard: guard, Cost: bcrypt.MinCost, Groups: policy.Groups, Audit: w.audit,
		Realm: "test", PublicURL: "https://auth.example.com", Log: log, Now: time.Now,
	})
	must(t, err)
	w.handler = server.New(server.Config{Issuer: mint, API: programs, Realm: "test", Log: log, Metrics: metrics.New("test", "", "")})
	return w
}

// as is a credential.
type as struct{ name, password string }

func user(name string) as { return as{name, name + "-secret"} }

// token makes an access token, as the command does.
func (w *world) token(backend, owner string, change ...func(*users.AccessToken)) as {
	w.t.Helper()
	secret, hash, shown := users.NewAccessToken()
	token := users.AccessToken{ID: users.NewID(), Owner: owner, Backend: backend, Name: secret[:20], Shown: shown, Created: time.Now()}
	for _, c := range change {
		c(&token)
	}
	must(w.t, w.db.AddAccessToken(w.t.Context(), hash, token))
	return as{owner, secret}
}

func scopes(list ...string) func(*users.AccessToken) {
	return func(t *users.AccessToken) { t.Scopes = append([]string{}, list...) }
}

func expires(in time.Duration) func(*users.AccessToken) {
	return func(t *users.AccessToken) { t.Expires = time.Now().Add(in) }
}

func networks(list ...string) func(*users.AccessToken) {
	return func(t *users.AccessToken) {
		for _, n := range list {
			t.Networks = append(t.Networks, netip.MustParsePrefix(n))
		}
	}
}

type answer struct {
	code   int
	header http.Header
	body   string
}

func (a answer) field(t testing.TB, name string) any {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(a.body), &fields); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return fields[name]
}

// do sends a request from 192.0.2.1; header is name, value, ….
func (w *world) do(who as, method, path, body string, header ...string) answer {
	w.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if who != (as{}) {
		r.SetBasicAuth(who.name, who.password)
	}
	recorder := httptest.NewRecorder()
	w.handler.ServeHTTP(recorder, r)
	a := answer{recorder.Code, recorder.Header(), recorder.Body.String()}
	if a.header.Get("Cache-Control") != "no-store" {
		w.t.Errorf("%s %s: it may be stored: %v", method, path, a.header)
	}
	if a.code >= 400 && (a.header.Get("Content-Type") != "application/problem+json" || a.field(w.t, "status") != float64(a.code)) {
		w.t.Errorf("%s %s: no problem: %d %v %s", method, path, a.code, a.header, a.body)
	}
	if (a.code == http.StatusUnauthorized) != (a.header.Get("WWW-Authenticate") == `Basic realm="test", charset="UTF-8"`) {
		w.t.Errorf("%s %s: %d with the challenge %q", method, path, a.code, a.header.Get("WWW-Authenticate"))
	}
	return a
}

// wants is do for what must come back.
func (w *world) wants(code int, who as, method, path, body string, header ...string) answer {
	w.t.Helper()
	a := w.do(who, method, path, body, header...)
	if a.code != code {
		w.t.Errorf("%s %s as %s: %d, want %d: %s", method, path, who.name, a.code, code, a.body)
	}
	return a
}
