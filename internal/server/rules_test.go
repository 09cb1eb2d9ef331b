package server_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"authserver/internal/scope"
	"authserver/internal/server"
)

// The rules that clients of registries force on a token server, each with the clients that break without it.

// A 301 or 302 turns a POST into an anonymous GET: helm then says "Login Succeeded" to a wrong password.
func TestRule01OnePathNeverARedirect(t *testing.T) {
	f := newFace(t)
	for _, path := range []string{"/token", "/auth/token"} {
		f.get(path, basic("alice", "secret:1")).claims(t)
		f.post(password("alice", "secret:1"), func(r *http.Request) { r.URL.Path = path }).claims(t)
	}
	for _, path := range []string{"/token/", "//token", "/./token", "/x/../token", "/Token", "/auth", "/auth/", "/"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			r := httptest.NewRequest(method, "/", nil)
			r.URL.Path = path
			if a := f.do(r); a.StatusCode != http.StatusNotFound {
				t.Errorf("%s %s: %d %s", method, path, a.StatusCode, a.Header.Get("Location"))
			}
		}
	}
}

func TestRule02GetQuery(t *testing.T) {
	f := newFace(t)
	tests := []struct{ query, want string }{
		{"", ""},
		{"scope=", ""},
		{"scope=&scope=", ""},
		{"scope=repository:alice/a:pull", "repository:alice/a:pull"},
		{"scope=repository%3Aalice%2Fa%3Apull%2Cpush", "repository:alice/a:pull,push"},
		{"scope=repository:alice/a:pull&scope=repository:alice/b:pull", "repository:alice/a:pull repository:alice/b:pull"},
		{"scope=repository:alice/a:pull%20repository:alice/b:pull", "repository:alice/a:pull repository:alice/b:pull"},
		{"scope=repository:alice/a:pull+repository:alice/b:pull", "repository:alice/a:pull repository:alice/b:pull"},
		{"scope=repository:alice/a:pull&scope=repository:alice/a:push", "repository:alice/a:pull,push"},
		{"client_id=regclient%2Fregctl+%28v0.11.7%29&scope=repository:alice/a:pull", "repository:alice/a:pull"},
		{"account=alice&offline_token=true&unknown=x&scope=repository:alice/a:pull", "repository:alice/a:pull"},
		{"offline_token=maybe&grant_type=x&scope=repository:alice/a:pull", "repository:alice/a:pull"},
	}
	for _, test := range tests {
		c := f.get("/token?service=registry.local&"+test.query, basic("alice", "secret:1"), header("Service", "x"), header("X-Unknown", "y")).claims(t)
		if c.Access.String() != test.want || c.Subject != "alice" || c.Audience != "registry.local" {
			t.Errorf("%s: %+v", test.query, c)
		}
	}
	if c := f.get("/token?service=other").claims(t); c.Audience != "other" {
		t.Errorf("audience %q", c.Audience)
	}
}

func TestRule03PostForm(t *testing.T) {
	f := newFace(t)
	tests := []struct {
		name string
		form url.Values
		want string
	}{
		{"no scope (helm, nerdctl login)", password("alice", "secret:1"), ""},
		{"an empty scope", password("alice", "secret:1", "scope", ""), ""},
		{"a joined scope", password("alice", "secret:1", "scope", "repository:alice/a:pull repository:alice/b:push"), "repository:alice/a:pull repository:alice/b:push"},
		{"repeated scopes (podman)", password("alice", "secret:1", "scope", "repository:alice/a:pull", "scope", "repository:alice/b:push"), "repository:alice/a:pull repository:alice/b:push"},
		{"access_type", password("alice", "secret:1", "access_type", "offline"), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if c := f.post(test.form).claims(t); c.Access.String() != test.want || c.Subject != "alice" {
				t.Errorf("%+v", c)
			}
		})
	}
	if c := f.post(password("alice", "secret:1"), header("Content-Type", "")).claims(t); c.Subject != "alice" {
		t.Errorf("%+v", c)
	}
	f.post(password("alice", "secret:1"), func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}).claims(t)
	form := password("alice", "secret:1")
	form.Del("client_id")
	form.Set("service", "")
	if c := f.post(form).claims(t); c.Audience != "registry.local" {
		t.Errorf("an empty service means %q", c.Audience)
	}
}

func TestRule03ChunkedForm(t *testing.T) {
	f := newFace(t)
	s := httptest.NewServer(f.handler)
	defer s.Close()
	body, w := io.Pipe() // no length is known: the client sends it chunked, as podman and skopeo do
	go func() {
		_, err := io.WriteString(w, password("alice", "secret:1", "scope", "repository:alice/a:pull").Encode())
		w.CloseWithError(err)
	}()
	r, err := http.Post(s.URL+"/token", "application/x-www-form-urlencoded", body)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	if r.StatusCode != http.StatusOK {
		t.Errorf("status %d", r.StatusCode)
	}
}

func TestRule04Answer(t *testing.T) {
	f := newFace(t)
	for name, a := range map[string]answer{
		"GET":  f.get("/token?scope=repository:alice/a:pull", basic("alice", "secret:1")),
		"POST": f.post(password("alice", "secret:1", "scope", "repository:alice/b:push repository:alice/a:pull,push repository:bob/a:pull")),
	} {
		if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", name, a.StatusCode, a.Header)
		}
		fields := a.fields(t)
		if fields["token"] == "" || fields["token"] != fields["access_token"] {
			t.Errorf("%s: token and access_token differ: %s", name, a.body)
		}
		var exact struct {
			ExpiresIn json.Number `json:"expires_in"`
		}
		if err := json.Unmarshal(a.body, &exact); err != nil {
			t.Fatal(err)
		}
		if seconds, err := strconv.Atoi(exact.ExpiresIn.String()); err != nil || seconds != 300 {
			t.Errorf("%s: expires_in %s", name, exact.ExpiresIn)
		}
		want := []string{"access_token", "expires_in", "token"}
		if name == "POST" {
			want = append(want, "scope", "token_type")
			if fields["scope"] != "repository:alice/a:pull,push repository:alice/b:push" {
				t.Errorf("POST: scope %v", fields["scope"])
			}
		}
		for _, key := range want {
			if _, ok := fields[key]; !ok {
				t.Errorf("%s: no %s", name, key)
			}
		}
		if len(fields) != len(want) { // issued_at and refresh_token above all
			t.Errorf("%s: more than %v in %s", name, want, a.body)
		}
	}
	if scope, ok := f.post(password("alice", "secret:1")).fields(t)["scope"].(string); !ok || scope != "" {
		t.Error("POST: the scope must be a string even when nothing is granted")
	}
}

func TestRule05NoScopeAndTooLittlePermissionAreNoErrors(t *testing.T) {
	f := newFace(t)
	for _, query := range []string{"", "?scope=repository:bob/a:pull", "?scope=registry:catalog:*"} {
		for name, a := range map[string]answer{"anonymous": f.get("/token" + query), "alice": f.get("/token"+query, basic("alice", "secret:1"))} {
			c := a.claims(t)
			if c.Access == nil || len(c.Access) != 0 {
				t.Errorf("%s %s: access %v", name, query, c.Access)
			}
		}
	}
	c := f.get("/token?scope=repository:public/a:pull,push&scope=repository:bob/a:pull").claims(t)
	if c.Access.String() != "repository:public/a:pull" || c.Subject != "" {
		t.Errorf("anonymous: %+v", c)
	}
}

func TestRule06BadCredentialsAre401OnBothVerbs(t *testing.T) {
	f := newFace(t)
	// Public access is asked for each time: a fall-back to anonymous would show.
	const query = "/token?service=registry.local&scope=repository:public/a:pull"
	bad := []struct{ user, password string }{
		{"alice", "wrong"}, {"alice", "secret"}, {"alice", "secret:1 "}, {"alice", ""}, {"Alice", "secret:1"}, {"nobody", "secret:1"},
		{"", "secret:1"}, {"", ""}, {"alice\n", "secret:1"}, {"alice\x00", "secret:1"}, {"a\u200dlice", "secret:1"}, {"\xff", "secret:1"},
		{"alice", "secret:1" + strings.Repeat("x", 80)}, {strings.Repeat("a", 10000), "x"}, {"<token>", "secret:1"},
	}
	for _, c := range bad {
		f.get(query, basic(c.user, c.password)).unauthorized(t)
		f.post(password(c.user, c.password, "scope", "repository:public/a:pull")).unauthorized(t)
	}
	for _, h := range []string{"Basic", "Basic ", "Basic !!!", "Basic " + base64.StdEncoding.EncodeToString([]byte("alice")), "Digest x", "Bearer x", "Bearer", "", "x", "basic"} {
		f.get(query, header("Authorization", h)).unauthorized(t)
	}
	form := password("", "")
	form.Del("username")
	form.Del("password")
	f.post(form).unauthorized(t)
	refusals := map[string]bool{}
	for _, c := range bad {
		refusals[string(f.get(query, basic(c.user, c.password)).body)] = true
	}
	if len(refusals) != 1 {
		t.Errorf("the refusal tells users apart: %v", refusals)
	}
}

func TestRule07NoCredentialThatIsHalfOneIsAnonymous(t *testing.T) {
	f := newFace(t)
	// BuildKit and containerd send a refresh token as the password of an empty name, and go on only after a 401.
	f.get("/token", basic("", "refresh-token")).unauthorized(t)
	// A login whose header a redirect or a proxy has lost.
	f.get("/token?offline_token=true").unauthorized(t)
	f.get("/token?offline_token=1").unauthorized(t)
	f.get("/token?offline_token=yes").unauthorized(t)
	f.get("/token?offline_token=false").claims(t)
	// A client that puts its credentials elsewhere is not nobody.
	for _, query := range []string{"username=alice&password=secret:1", "password=x", "grant_type=password", "refresh_token=x", "access_token=x"} {
		f.get("/token?scope=repository:public/a:pull&" + query).unauthorized(t)
	}
	f.get("http://alice:secret%3A1@localhost/token").unauthorized(t)
	// Renovate.
	f.get("/token", header("Authorization", "Bearer abc")).unauthorized(t)
	// CRI-O and skopeo with an empty password: a name and nothing else.
	f.get("/token?account=alice").unauthorized(t)
	f.get("/token?account=").claims(t)
	// The password begins after the first colon.
	if c := f.get("/token", basic("alice", "secret:1")).claims(t); c.Subject != "alice" {
		t.Errorf("%+v", c)
	}
	// The scheme is written in any case; the name in any Unicode form.
	f.get("/token", header("Authorization", "bAsIc "+base64.StdEncoding.EncodeToString([]byte("alice:secret:1")))).claims(t)
	if c := f.get("/token?account=jose%CC%81", basic("jose\u0301", "p\u00e4ss")).claims(t); c.Subject != "jos\u00e9" {
		t.Errorf("%+v", c)
	}
}

func TestRule08NoRefreshTokenUnasked(t *testing.T) {
	f := newFace(t)
	for _, a := range []answer{
		f.get("/token", basic("alice", "secret:1")),
		f.get("/token?offline_token=true", basic("alice", "secret:1")),
		f.post(password("alice", "secret:1", "access_type", "offline")),
	} {
		if a.StatusCode != http.StatusOK {
			t.Errorf("status %d", a.StatusCode)
		}
		if _, given := a.fields(t)["refresh_token"]; given {
			t.Errorf("a refresh token: %s", a.body)
		}
	}
	for _, form := range []url.Values{
		{"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "service": {"registry.local"}, "scope": {"repository:public/a:pull"}},
		{"grant_type": {"refresh_token"}},
		{"grant_type": {"refresh_token"}, "username": {"alice"}, "password": {"secret:1"}},
	} {
		f.post(form).unauthorized(t)
	}
	for _, grant := range []string{"authorization_code", "client_credentials", "Password", "anonymous"} {
		form := password("alice", "secret:1")
		form.Set("grant_type", grant)
		f.post(form).refused(t, http.StatusBadRequest, "UNSUPPORTED", "unsupported_grant_type")
	}
}

func TestRule09Scopes(t *testing.T) {
	f := newFace(t)
	c := f.get("/token?scope="+url.QueryEscape("repository(plugin):alice/a:pull repository:alice/a:push !!x:y:z repository:host:5000/a:pull"), basic("alice", "secret:1")).claims(t)
	if c.Access.String() != "repository:alice/a:pull,push" {
		t.Errorf("access %s", c.Access)
	}
	if !strings.Contains(f.log.String(), `"count":1,"first":"!!x:y:z"`) {
		t.Errorf("the dropped scope is not in the log: %s", f.log)
	}
	f.get("/token?scope="+strings.Repeat("x", scope.MaxLength+1)).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_scope")
	f.post(password("alice", "secret:1", "scope", strings.Repeat("x", scope.MaxLength+1))).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_scope")
	var many url.Values = map[string][]string{}
	for i := range scope.MaxResources + 1 {
		many.Add("scope", fmt.Sprintf("repository:a%d:pull", i))
	}
	f.get("/token?"+many.Encode()).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_scope")
}

func TestRule10AllActions(t *testing.T) {
	f := newFace(t)
	tests := []struct{ user, password, asked, want string }{
		{"alice", "secret:1", "repository:alice/a:*", "repository:alice/a:*,delete,pull,push"}, // skopeo delete
		{"alice", "secret:1", "repository:public/a:*", "repository:public/a:pull"},
		{"alice", "secret:1", "registry:catalog:*", ""},
		{"admin", "hunter2", "registry:catalog:*", "registry:catalog:*"},
		{"admin", "hunter2", "repository::pull", "repository::pull"},                                        // zot
		{"alice", "secret:1", "repository:alice/a:push,pull,delete", "repository:alice/a:delete,pull,push"}, // crane
		{"alice", "secret:1", "repository:alice/a:delete,pull", "repository:alice/a:delete,pull"},           // oras
	}
	for _, test := range tests {
		c := f.get("/token?scope="+url.QueryEscape(test.asked), basic(test.user, test.password)).claims(t)
		if c.Access.String() != test.want {
			t.Errorf("%s asks %s: %s", test.user, test.asked, c.Access)
		}
	}
}

// crane reads 64 KiB of an answer; the token stands in it twice.
func TestRule11TheLargestAnswerFits(t *testing.T) {
	f := newFace(t)
	var scopes []string
	used := 0
	for i := 0; ; i++ {
		s := fmt.Sprintf("repository:alice/%s%03d:*", strings.Repeat("a", 58), i)
		if used += len(s) + 1; used > scope.MaxLength || i == scope.MaxResources {
			break
		}
		scopes = append(scopes, s)
	}
	a := f.get("/token?scope="+url.QueryEscape(strings.Join(scopes, " ")), basic("alice", "secret:1"))
	if c := a.claims(t); len(c.Access) != len(scopes) {
		t.Fatalf("%d of %d granted", len(c.Access), len(scopes))
	}
	if len(a.body) > 64<<10 {
		t.Errorf("%d bytes", len(a.body))
	}
	small := f.get("/token?scope=repository:alice/a:pull,push", basic("alice", "secret:1"))
	if token := small.fields(t)["token"].(string); len(token) > 7<<10 {
		t.Errorf("a usual token has %d bytes", len(token))
	}
}

// Clients that try POST and then GET fail twice on one wrong password; neither answer may keep them from the next try.
func TestRule12AFailureIsNotHeldAgainstTheNextTry(t *testing.T) {
	f := newFace(t)
	for range 20 {
		f.post(password("alice", "wrong")).unauthorized(t)
		f.get("/token", basic("alice", "wrong")).unauthorized(t)
		f.get("/token", basic("alice", "secret:1")).claims(t)
	}
}

// The realm itself is checked where it is configured; here: nothing of a request leads elsewhere.
func TestRule13NoAnswerNamesAnotherAddress(t *testing.T) {
	f := newFace(t)
	for _, a := range []answer{
		f.get("/token", header("Host", "evil.example"), header("X-Forwarded-Host", "evil.example")),
		f.get("/token", basic("a", "b"), func(r *http.Request) { r.Host = "evil.example" }),
		f.get("/.well-known/jwks.json", func(r *http.Request) { r.Host = "evil.example" }),
	} {
		if a.Header.Get("Location") != "" || strings.Contains(fmt.Sprint(a.Header)+string(a.body), "evil") {
			t.Errorf("%d %v %s", a.StatusCode, a.Header, a.body)
		}
	}
}

func TestRule14ConnectionCloseAndHTTP2(t *testing.T) {
	f := newFace(t)
	s := httptest.NewUnstartedServer(nil)
	s.Config = server.NewHTTP(f.handler, f.config.Log)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	for name, proto := range map[string]int{"HTTP/1.1, closing": 1, "HTTP/2": 2} {
		t.Run(name, func(t *testing.T) {
			transport := s.Client().Transport.(*http.Transport).Clone()
			defer transport.CloseIdleConnections()
			if proto == 1 {
				transport.ForceAttemptHTTP2 = false
				transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
				transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
			}
			r, err := http.NewRequest(http.MethodGet, s.URL+"/token", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Close = proto == 1
			response, err := (&http.Client{Transport: transport}).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK || response.ProtoMajor != proto {
				t.Errorf("%s %d", response.Proto, response.StatusCode)
			}
		})
	}
}
