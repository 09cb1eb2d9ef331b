package server_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"authserver/internal/acl"
	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/metrics"
	"authserver/internal/scope"
	"authserver/internal/server"
	"authserver/internal/users"
)

const testPolicy = `
rules:
  - {name: own, subjects: [authenticated], repositories: ["{user}/**"], actions: ["*"]}
  - {name: catalog, subjects: ["user:admin"], resources: ["registry:catalog"], actions: ["*"]}
  - {name: public, subjects: [anyone], repositories: ["public/**"], actions: [pull]}
  - {name: office, subjects: [anyone], repositories: ["office/**"], actions: [pull, push], networks: ["10.0.0.0/8"]}
`

// face is a server made of real parts, with what it wrote.
type face struct {
	t       testing.TB
	handler http.Handler
	log     *buffer
	audit   *buffer
	metrics *metrics.Metrics
	config  server.Config
}

// buffer is written by handlers and read by tests.
type buffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	full bool // nothing can be written any more
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full {
		return 0, syscall.ENOSPC
	}
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newFace makes a server for the users alice (password "secret:1") and admin, and the services registry.local and other.
func newFace(t testing.TB, change ...func(*server.Config)) *face {
	t.Helper()
	dir := t.TempDir()
	var file strings.Builder
	for name, password := range map[string]string{"alice": "secret:1", "admin": "hunter2", "jos\u00e9": "p\u00e4ss"} {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		file.WriteString(name + ":" + string(hash) + "\n")
	}
	usersFile := filepath.Join(dir, "users")
	if err := os.WriteFile(usersFile, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	guard := users.NewGuard(users.GuardEvents{})
	backend, err := users.LoadHTPasswd(usersFile, guard)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := acl.Parse("policy.yaml", []byte(testPolicy))
	if err != nil {
		t.Fatal(err)
	}
	services := []issuer.Service{
		{Name: "registry.local", Issuer: "authserver", Verifier: issuer.VerifierChain, Algorithm: issuer.ES256, Lifetime: 5 * time.Minute},
		{Name: "other", Issuer: "authserver", Verifier: issuer.VerifierChain, Algorithm: issuer.ES256, Lifetime: time.Hour},
	}
	ring, err := issuer.OpenKeyring(issuer.KeyConfig{DataDir: filepath.Join(dir, "data"), Name: "test", Services: services, RotateEvery: time.Hour, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	f := &face{t: t, log: &buffer{}, audit: &buffer{}, metrics: metrics.New("test", "", "")}
	mint, err := issuer.New(issuer.Config{
		Services: services, Keyring: ring, Users: users.NewChain([]users.Authenticator{backend}, guard, f.metrics.Authentication),
		Policy: policy, Audit: audit.New(f.audit),
	})
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := issuer.JWKS(ring.Keys())
	if err != nil {
		t.Fatal(err)
	}
	f.config = server.Config{Issuer: mint, JWKS: jwks, Realm: "authserver", Log: slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: f.metrics}
	for _, c := range change {
		c(&f.config)
	}
	f.handler = server.New(f.config)
	return f
}

// answer is what came back.
type answer struct {
	*http.Response
	body []byte
}

// do sends a request from 192.0.2.1.
func (f *face) do(r *http.Request) answer {
	f.t.Helper()
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	response := w.Result()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return answer{response, body}
}

func (f *face) get(target string, change ...func(*http.Request)) answer {
	f.t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for _, c := range change {
		c(r)
	}
	return f.do(r)
}

func (f *face) post(form url.Values, change ...func(*http.Request)) answer {
	f.t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range change {
		c(r)
	}
	return f.do(r)
}

func basic(user, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

// fields reads the body of any answer.
func (a answer) fields(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("status %d, body %q: %v", a.StatusCode, a.body, err)
	}
	return m
}

// claims of the token in an answer, which must be 200.
type claims struct {
	Subject  string    `json:"sub"`
	Audience string    `json:"aud"`
	ID       string    `json:"jti"`
	Access   scope.Set `json:"access"`
}

func (a answer) claims(t *testing.T) claims {
	t.Helper()
	if a.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", a.StatusCode, a.body)
	}
	token, _ := a.fields(t)["token"].(string)
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no token in %s", a.body)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// refused asserts the one form of every refusal.
func (a answer) refused(t *testing.T, status int, code, oauth string) {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("status %d, want %d: %s", a.StatusCode, status, a.body)
	}
	if got := a.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	var body struct {
		Errors []struct {
			Code, Message string
			Detail        any
		}
		Error       string
		Description string `json:"error_description"`
		Token       string
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(a.body, &body); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	if len(body.Errors) != 1 || body.Errors[0].Code != code || body.Error != oauth {
		t.Errorf("body %s, want %s and %s", a.body, code, oauth)
	}
	if body.Errors[0].Message == "" || body.Errors[0].Message != body.Description {
		t.Errorf("messages in %s", a.body)
	}
	if body.Token != "" || body.AccessToken != "" {
		t.Errorf("a refusal with a token: %s", a.body)
	}
	if got := a.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	challenge := a.Header.Get("WWW-Authenticate")
	if (status == http.StatusUnauthorized) != (challenge == `Basic realm="authserver", charset="UTF-8"`) {
		t.Errorf("WWW-Authenticate %q with status %d", challenge, status)
	}
}

func (a answer) unauthorized(t *testing.T) {
	t.Helper()
	a.refused(t, http.StatusUnauthorized, "UNAUTHORIZED", "invalid_grant")
}

func password(user, pass string, more ...string) url.Values {
	form := url.Values{"grant_type": {"password"}, "username": {user}, "password": {pass}, "service": {"registry.local"}, "client_id": {"test"}}
	for i := 0; i+1 < len(more); i += 2 {
		form.Add(more[i], more[i+1])
	}
	return form
}

func TestEveryAnswerHasItsOwnRequestID(t *testing.T) {
	f := newFace(t)
	forge := header("X-Request-Id", "forged")
	one, two := f.get("/token", forge), f.get("/nowhere", forge)
	a, b := one.Header.Get("X-Request-Id"), two.Header.Get("X-Request-Id")
	if len(a) != 24 || len(b) != 24 || a == b {
		t.Errorf("ids %q and %q", a, b)
	}
	for _, line := range strings.Split(strings.TrimSpace(f.log.String()), "\n") {
		if !strings.Contains(line, `"id":"`+a) && !strings.Contains(line, `"id":"`+b) {
			t.Errorf("no request id in %s", line)
		}
	}
	if !strings.Contains(f.audit.String(), `"id":"`+a) {
		t.Errorf("no request id in %s", f.audit)
	}
}

func TestUnknownPathsAndMethodsAreRefusedInJSON(t *testing.T) {
	f := newFace(t)
	f.get("/").refused(t, http.StatusNotFound, "NOT_FOUND", "invalid_request")
	f.get("/metrics").refused(t, http.StatusNotFound, "NOT_FOUND", "invalid_request")
	f.get("/debug/pprof/").refused(t, http.StatusNotFound, "NOT_FOUND", "invalid_request")
	for path, allow := range map[string]string{"/token": "GET, POST", "/auth/token": "GET, POST", "/.well-known/jwks.json": "GET, HEAD"} {
		a := f.do(httptest.NewRequest(http.MethodDelete, path, nil))
		a.refused(t, http.StatusMethodNotAllowed, "UNSUPPORTED", "invalid_request")
		if got := a.Header.Get("Allow"); got != allow {
			t.Errorf("%s: Allow %q", path, got)
		}
	}
}

func TestJWKS(t *testing.T) {
	a := newFace(t).get("/.well-known/jwks.json")
	if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d, %s", a.StatusCode, a.Header.Get("Content-Type"))
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(a.body, &set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("%s: %v", a.body, err)
	}
	if _, private := set.Keys[0]["d"]; private || set.Keys[0]["kid"] == "" || set.Keys[0]["use"] != "sig" {
		t.Errorf("key %v", set.Keys[0])
	}
}

// stub answers as it is told.
type stub struct {
	result issuer.Result
	err    error
	panics any
}

func (s stub) Issue(context.Context, issuer.Request) (issuer.Result, error) {
	if s.panics != nil {
		panic(s.panics)
	}
	return s.result, s.err
}

func (s stub) Revoke(context.Context, issuer.Request, string) error { return s.err }

func (s stub) Introspect(context.Context, issuer.Request, string) (issuer.Introspection, error) {
	return issuer.Introspection{}, s.err
}

func with(s stub) func(*server.Config) {
	return func(c *server.Config) { c.Issuer = s }
}

func TestAnOutageIs503WithRetryAfter(t *testing.T) {
	f := newFace(t, with(stub{err: errors.Join(issuer.ErrUnavailable, errors.New("ldap://dc1: secret detail")), result: issuer.Result{Outcome: audit.Unavailable}}))
	a := f.get("/token", basic("alice", "x"))
	a.refused(t, http.StatusServiceUnavailable, "UNAVAILABLE", "temporarily_unavailable")
	if a.Header.Get("Retry-After") != "5" {
		t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
	}
	if bytes.Contains(a.body, []byte("secret detail")) || !strings.Contains(f.log.String(), "secret detail") {
		t.Error("the detail belongs into the log and not into the answer")
	}
}

func TestAnUndecidedRequestIs503WithRetryAfter(t *testing.T) {
	f := newFace(t, with(stub{err: errors.Join(issuer.ErrUndecided, errors.New("opa: secret detail")), result: issuer.Result{Outcome: audit.Unavailable}}))
	a := f.get("/token", basic("alice", "x"))
	a.refused(t, http.StatusServiceUnavailable, "UNAVAILABLE", "temporarily_unavailable")
	if a.Header.Get("Retry-After") != "5" || !bytes.Contains(a.body, []byte("cannot be decided")) || bytes.Contains(a.body, []byte("secret detail")) {
		t.Errorf("Retry-After %q, %s", a.Header.Get("Retry-After"), a.body)
	}
}

func TestOurOwnFaultIs500WithoutDetail(t *testing.T) {
	f := newFace(t, with(stub{err: errors.New("disk full at /var"), result: issuer.Result{Outcome: audit.Failed}}))
	a := f.get("/token")
	a.refused(t, http.StatusInternalServerError, "UNKNOWN", "server_error")
	if bytes.Contains(a.body, []byte("disk")) || !strings.Contains(f.log.String(), "disk full") {
		t.Error("the detail belongs into the log and not into the answer")
	}
}

func TestAPanicIsAnsweredAndLogged(t *testing.T) {
	f := newFace(t, with(stub{panics: "boom"}))
	f.get("/token").refused(t, http.StatusInternalServerError, "UNKNOWN", "server_error")
	if !strings.Contains(f.log.String(), `"msg":"panic"`) || !strings.Contains(f.log.String(), "boom") {
		t.Errorf("log %s", f.log)
	}
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("an aborted handler must stay aborted")
		}
	}()
	newFace(t, with(stub{panics: http.ErrAbortHandler})).get("/token")
}

func TestParametersThatContradictThemselvesAreRefused(t *testing.T) {
	f := newFace(t)
	for _, query := range []string{"service=registry.local&service=other", "account=a&account=b", "offline_token=true&offline_token=false"} {
		f.get("/token?"+query, basic("alice", "secret:1")).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
	}
	f.get("/token?service=other&service=other").claims(t)
	for _, name := range []string{"grant_type", "username", "password", "service", "account"} {
		f.post(password("alice", "secret:1", name, "another", name, "a third")).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
		form := password("alice", "secret:1")
		if name != "account" {
			form.Add(name, form.Get(name))
		}
		f.post(form).claims(t)
	}
}

func TestRequestsThatCannotBeReadAreRefused(t *testing.T) {
	f := newFace(t)
	f.get("/token?service=%zz").refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
	f.post(nil).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request") // no grant_type
	f.post(url.Values{"grant_type": {""}}).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")

	send := func(contentType, body string) answer {
		r := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(body))
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		return f.do(r)
	}
	send("application/x-www-form-urlencoded", "grant_type=%zz").refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
	for _, contentType := range []string{"", "application/json", "multipart/form-data; boundary=x", "text/plain", ";"} {
		send(contentType, password("alice", "secret:1").Encode()).refused(t, http.StatusUnsupportedMediaType, "UNSUPPORTED", "invalid_request")
	}
	large := "grant_type=password&x=" + strings.Repeat("x", server.MaxBodyBytes)
	send("application/x-www-form-urlencoded", large).refused(t, http.StatusRequestEntityTooLarge, "SIZE_INVALID", "invalid_request")
	r := httptest.NewRequest(http.MethodPost, "/token", io.MultiReader(strings.NewReader("grant_type"), failing{}))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	f.do(r).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection lost") }

func TestAQueryDoesNotStandInForAForm(t *testing.T) {
	f := newFace(t)
	r := httptest.NewRequest(http.MethodPost, "/token?"+password("alice", "secret:1").Encode(), nil)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	f.do(r).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
}

func TestTwoDifferentCredentialsAreNone(t *testing.T) {
	f := newFace(t)
	f.post(password("alice", "secret:1"), basic("alice", "secret:1")).claims(t)
	f.post(password("alice", "secret:1"), basic("admin", "hunter2")).unauthorized(t)
	f.post(password("alice", "secret:1"), header("Authorization", "Bearer x")).unauthorized(t)
	f.get("/token", basic("alice", "secret:1"), header("Authorization", "Basic x")).unauthorized(t)
}

func TestMetricsCountWhatWasAnswered(t *testing.T) {
	f := newFace(t)
	f.get("/token?scope=repository:alice/a:pull", basic("alice", "secret:1"))
	f.get("/token?scope=repository:alice/a:pull+x", basic("alice", "wrong"))
	f.get("/token?service=evil&scope=weird-type:a:scan")
	f.get("/token?scope=weird-type:a:scan")
	f.post(url.Values{"grant_type": {"evil"}})
	f.post(password("alice", "secret:1", "scope", "repository:alice/a:pull repository:bob/a:pull"))
	w := httptest.NewRecorder()
	f.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		`authserver_token_requests_total{grant="basic",outcome="granted",service="registry.local"} 1`,
		`authserver_token_requests_total{grant="basic",outcome="refused",service="registry.local"} 1`,
		`authserver_token_requests_total{grant="anonymous",outcome="invalid",service="unknown"} 1`,
		`authserver_token_requests_total{grant="anonymous",outcome="denied",service="registry.local"} 1`,
		`authserver_token_requests_total{grant="unknown",outcome="invalid",service="unknown"} 1`,
		`authserver_token_requests_total{grant="password",outcome="partial",service="registry.local"} 1`,
		`authserver_token_request_duration_seconds_count{grant="basic",outcome="granted"} 1`,
		`authserver_access_total{action="pull",decision="granted",type="repository"} 2`,
		`authserver_access_total{action="other",decision="denied",type="other"} 1`,
		`authserver_authentications_total{backend="htpasswd",outcome="refused"} 1`,
		`authserver_scopes_dropped_total 1`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if strings.Contains(w.Body.String(), "evil") || strings.Contains(w.Body.String(), "weird") {
		t.Error("a client chose a label")
	}
}

func TestOpsAreReadyWhenTheProgramIs(t *testing.T) {
	ready := false
	h := server.NewOps(metrics.New("1.2.3", "abc", "go"), func() bool { return ready })
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, _ := get("/livez"); code != http.StatusOK {
		t.Errorf("livez %d", code)
	}
	if code, _ := get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("readyz %d", code)
	}
	ready = true
	if code, _ := get("/readyz"); code != http.StatusOK {
		t.Errorf("readyz %d", code)
	}
	if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, `authserver_build_info{goversion="go",revision="abc",version="1.2.3"} 1`) || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics %d", code)
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/cmdline", "/debug/pprof/symbol"} {
		if code, _ := get(path); code != http.StatusOK {
			t.Errorf("%s %d", path, code)
		}
	}
	if code, _ := get("/token"); code != http.StatusNotFound {
		t.Errorf("tokens on the ops listener: %d", code)
	}
}

func TestOnlyListedOriginsAreAnswered(t *testing.T) {
	const ui = "https://ui.example.com"
	f := newFace(t, func(c *server.Config) { c.CORSOrigins = []string{ui} })
	preflight := func(origin string) answer {
		r := httptest.NewRequest(http.MethodOptions, "/token", nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", "GET")
		r.Header.Set("Access-Control-Request-Headers", "authorization")
		return f.do(r)
	}
	for _, origin := range []string{ui, "https://evil.example", "http://ui.example.com", "https://ui.example.com.evil", "null"} {
		want := ""
		if origin == ui {
			want = ui
		}
		for name, a := range map[string]answer{"preflight": preflight(origin), "request": f.get("/token", header("Origin", origin)),
			"refusal": f.get("/token", header("Origin", origin), basic("alice", "wrong"))} {
			if got := a.Header.Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("%s from %s: allowed %q", name, origin, got)
			}
		}
	}
	if a := preflight(ui); a.StatusCode != http.StatusOK || a.Header.Get("Access-Control-Allow-Methods") == "" || !strings.EqualFold(a.Header.Get("Access-Control-Allow-Headers"), "authorization") {
		t.Errorf("preflight: %d %v", a.StatusCode, a.Header)
	}
	if a := newFace(t).get("/token", header("Origin", ui)); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("without a list everybody is allowed")
	}
}

func TestClientAddress(t *testing.T) {
	trust := func(c *server.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("fd00::/8")}
	}
	trustUnix := func(c *server.Config) { trust(c); c.TrustUnix = true }
	const proxy, stranger = "172.16.0.1:1234", "198.51.100.9:1234"
	tests := []struct {
		name    string
		config  func(*server.Config)
		peer    string
		headers []string // name, value, …
		want    string
	}{
		{"no proxy: the peer, whatever the headers say", nil, stranger, []string{"X-Forwarded-For", "10.0.0.1", "Forwarded", "for=10.0.0.1", "X-Real-Ip", "10.0.0.1"}, "198.51.100.9"},
		{"a stranger is no proxy", trust, stranger, []string{"X-Forwarded-For", "10.0.0.1"}, "198.51.100.9"},
		{"a proxy without headers", trust, proxy, nil, "172.16.0.1"},
		{"one hop", trust, proxy, []string{"X-Forwarded-For", "10.0.0.1"}, "10.0.0.1"},
		{"what the client wrote stands further left", trust, proxy, []string{"X-Forwarded-For", "10.0.0.1, 198.51.100.9"}, "198.51.100.9"},
		{"over trusted hops", trust, proxy, []string{"X-Forwarded-For", "10.0.0.1, 198.51.100.9, 172.16.0.2, 172.17.0.3"}, "198.51.100.9"},
		{"over several headers", trust, proxy, []string{"X-Forwarded-For", "10.0.0.1", "X-Forwarded-For", "198.51.100.9, 172.16.0.2"}, "198.51.100.9"},
		{"all hops are trusted", trust, proxy, []string{"X-Forwarded-For", "172.16.0.5, 172.16.0.2"}, "172.16.0.5"},
		{"a hop that is no address hides the client", trust, proxy, []string{"X-Forwarded-For", "10.0.0.1, unknown, 172.16.0.2"}, ""},
		{"an empty header hides the client", trust, proxy, []string{"X-Forwarded-For", ""}, ""},
		{"a port", trust, proxy, []string{"X-Forwarded-For", "198.51.100.9:443"}, "198.51.100.9"},
		{"IPv6", trust, "[fd00::1]:1", []string{"X-Forwarded-For", "2001:db8::7"}, "2001:db8::7"},
		{"IPv6 with a port", trust, proxy, []string{"X-Forwarded-For", "[2001:db8::7]:443"}, "2001:db8::7"},
		{"IPv4 in IPv6", trust, "[::ffff:172.16.0.1]:1", []string{"X-Forwarded-For", "::ffff:198.51.100.9"}, "198.51.100.9"},
		{"Forwarded", trust, proxy, []string{"Forwarded", `for=10.0.0.1;proto=http, For="[2001:db8::7]:4711";by=172.16.0.1`}, "2001:db8::7"},
		{"Forwarded over a trusted hop", trust, proxy, []string{"Forwarded", "for=198.51.100.9, for=172.16.0.2"}, "198.51.100.9"},
		{"Forwarded without for", trust, proxy, []string{"Forwarded", "for=10.0.0.1, proto=https"}, ""},
		{"Forwarded by an obfuscated name", trust, proxy, []string{"Forwarded", "for=_hidden"}, ""},
		{"a host that holds an address", trust, proxy, []string{"Forwarded", `for=198.51.100.9;host="a,for=10.0.0.1";proto=http`}, "198.51.100.9"},
		{"a host with a quote in it", trust, proxy, []string{"Forwarded", `for=198.51.100.9;host="a\",for=10.0.0.1"`}, "198.51.100.9"},
		{"a host that holds a pair", trust, proxy, []string{"Forwarded", `host="a;for=10.0.0.1";for=198.51.100.9`}, "198.51.100.9"},
		{"an address within an obfuscated name", trust, proxy, []string{"Forwarded", `for="_hidden,for=10.0.0.1"`}, ""},
		{"two addresses in one element", trust, proxy, []string{"Forwarded", "for=10.0.0.1;for=10.0.0.2"}, ""},
		{"a quote that does not close", trust, proxy, []string{"Forwarded", `for="10.0.0.1, for=10.0.0.2`}, ""},
		{"a comma within quotes", trust, proxy, []string{"Forwarded", `for="10.0.0.1,for=10.0.0.2", for=198.51.100.9`}, "198.51.100.9"},
		{"both headers, of one mind", trust, proxy, []string{"Forwarded", "for=198.51.100.9", "X-Forwarded-For", "198.51.100.9"}, "198.51.100.9"},
		{"a unix socket is not trusted by itself", trust, "@", []string{"X-Forwarded-For", "10.0.0.1"}, ""},
		{"a unix socket that is trusted", trustUnix, "@", []string{"X-Forwarded-For", "198.51.100.9"}, "198.51.100.9"},
		{"trusting unix sockets trusts no addresses", trustUnix, stranger, []string{"X-Forwarded-For", "10.0.0.1"}, "198.51.100.9"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var f *face
			if test.config == nil {
				f = newFace(t)
			} else {
				f = newFace(t, test.config)
			}
			f.get("/token?scope=repository:office/a:push", func(r *http.Request) {
				r.RemoteAddr = test.peer
				for i := 0; i < len(test.headers); i += 2 {
					r.Header.Add(test.headers[i], test.headers[i+1])
				}
			})
			var event audit.Event
			if err := json.Unmarshal([]byte(f.audit.String()), &event); err != nil {
				t.Fatalf("%q: %v", f.audit, err)
			}
			if event.Client != test.want {
				t.Errorf("client %q, want %q", event.Client, test.want)
			}
			// The policy sees the same address.
			if inside := strings.HasPrefix(test.want, "10."); inside != (event.Granted != "") {
				t.Errorf("granted %q", event.Granted)
			}
		})
	}
}

// A proxy writes one of the headers and passes on the other as the client sent it.
func TestForwardedHeadersThatDisagreeAreRefused(t *testing.T) {
	f := newFace(t, func(c *server.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")} })
	a := f.get("/token", func(r *http.Request) {
		r.RemoteAddr = "172.16.0.1:1"
		r.Header.Set("Forwarded", "for=10.0.0.1")
		r.Header.Set("X-Forwarded-For", "198.51.100.9")
	})
	a.refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
}
