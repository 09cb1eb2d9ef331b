package server_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	"authserver/internal/scope"
	"authserver/internal/server"
)

// begin makes a face ready for one request of many: what was written down for the one before is forgotten, and was JSON.
func (f *face) begin(t *testing.T) {
	t.Helper()
	f.t = t
	for _, b := range []*buffer{f.log, f.audit} {
		b.mu.Lock()
		text := b.b.String()
		b.b.Reset()
		b.mu.Unlock()
		for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
			if line != "" && !json.Valid([]byte(line)) {
				t.Fatalf("a line of the log: %q", line)
			}
		}
	}
}

// people are the users of a face.
var people = map[string]string{"alice": "secret:1", "admin": "hunter2", "jos\u00e9": "p\u00e4ss"}

// who is whose name and password these are; "" = nobody's.
func who(name, password string) string {
	name = norm.NFC.String(name)
	if known := people[name]; known == "" || known != password {
		return ""
	}
	return name
}

// basicOf is whose the value of an Authorization header is (RFC 7617 §2).
func basicOf(value string) string {
	scheme, text, _ := strings.Cut(value, " ")
	decoded, err := base64.StdEncoding.DecodeString(text)
	name, password, ok := strings.Cut(string(decoded), ":")
	if !strings.EqualFold(scheme, "Basic") || err != nil || !ok {
		return ""
	}
	return who(name, password)
}

// expect is what must come of a token request, by the rules as they are written: a status, and for 200 a subject.
func expect(get bool, text, authorization, contentType string) (status int, subject string) {
	if !get {
		if media, _, err := mime.ParseMediaType(contentType); err != nil || media != "application/x-www-form-urlencoded" {
			return http.StatusUnsupportedMediaType, ""
		}
		if len(text) > server.MaxBodyBytes {
			return http.StatusRequestEntityTooLarge, ""
		}
	}
	values, err := url.ParseQuery(text)
	if err != nil {
		return http.StatusBadRequest, ""
	}
	single := []string{"service", "account", "client_id", "offline_token"}
	if grant := values.Get("grant_type"); !get {
		single = []string{"service", "account", "client_id", "grant_type", "access_type", "username", "password"}
		if grant == "refresh_token" {
			single = []string{"service", "account", "client_id", "grant_type", "refresh_token"}
		} else if grant != "password" {
			return http.StatusBadRequest, ""
		}
	}
	for _, name := range single {
		for _, v := range values[name] {
			if v != values.Get(name) {
				return http.StatusBadRequest, ""
			}
		}
	}
	if _, _, err := scope.Parse(values["scope"]); err != nil {
		return http.StatusBadRequest, ""
	}
	if s := values.Get("service"); s != "" && s != "registry.local" && s != "other" {
		return http.StatusBadRequest, ""
	}
	anonymous := false
	switch {
	case !get && values.Get("grant_type") == "password":
		if subject = who(values.Get("username"), values.Get("password")); authorization != "" && basicOf(authorization) != subject {
			subject = ""
		}
	case !get:
	case authorization != "":
		subject = basicOf(authorization)
	default:
		anonymous = true
		if offline := values.Get("offline_token"); offline != "" {
			asked, err := strconv.ParseBool(offline)
			anonymous = err == nil && !asked
		}
		for _, name := range []string{"username", "password", "refresh_token", "access_token", "grant_type"} {
			anonymous = anonymous && !values.Has(name)
		}
	}
	if account := values.Get("account"); account != "" && norm.NFC.String(account) != subject || subject == "" && !anonymous {
		return http.StatusUnauthorized, ""
	}
	return http.StatusOK, subject
}

// may tells whether the policy of a face grants all of it, from anywhere but the office.
func may(subject string, granted scope.Set) bool {
	for _, a := range granted {
		own := a.Type == scope.Repository && subject != "" && strings.HasPrefix(a.Name, subject+"/")
		public := a.Type == scope.Repository && strings.HasPrefix(a.Name, "public/") && strings.Join(a.Actions, "") == "pull"
		catalog := subject == "admin" && (a.Type == "registry" && a.Name == "catalog" || a.Type == scope.Repository && a.Name == "" && strings.Join(a.Actions, "") == "pull")
		if !own && !public && !catalog {
			return false
		}
	}
	return true
}

// holds checks an answer of the token endpoint against what must always hold of it, and returns the subject of its token.
func (a answer) holds(t *testing.T, post bool, asked []string) string {
	t.Helper()
	var body map[string]any
	if err := json.Unmarshal(a.body, &body); err != nil {
		t.Fatalf("%d %q: %v", a.StatusCode, a.body, err)
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d: it may be stored: %v", a.StatusCode, a.Header)
	}
	if a.StatusCode != http.StatusOK {
		if problems, _ := body["errors"].([]any); body["token"] != nil || body["access_token"] != nil || body["error"] == "" || len(problems) != 1 || len(a.body) > 1000 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		return ""
	}
	c := a.claims(t)
	set, _, err := scope.Parse(asked)
	if err != nil || !c.Access.Within(set) || !may(c.Subject, c.Access) {
		t.Fatalf("%q asked %q, granted %q, %v", c.Subject, set, c.Access, err)
	}
	if text, ok := body["scope"].(string); ok != post || ok && text != c.Access.String() {
		t.Fatalf("granted %q, told %v", c.Access, body["scope"])
	}
	return c.Subject
}

// FuzzToken sends arbitrary bytes where clients send theirs, and wants the answer that the rules say.
func FuzzToken(f *testing.F) {
	const form = "application/x-www-form-urlencoded"
	const alice, jose = "Basic YWxpY2U6c2VjcmV0OjE=", "Basic am9zZcyBOnDDpHNz" // alice:secret:1, and the other in NFD
	f.Add(true, "service=registry.local&scope=repository:alice/a:pull", alice, "", "")
	f.Add(true, "account=alice&client_id=docker&offline_token=true&service=registry.local", alice, "", "")
	f.Add(true, "account=jos%C3%A9&service=registry.local&scope=repository%3Apublic%2Fimg%3Apull", jose, "", "")
	f.Add(true, "account=alice&scope=repository%3Aalice%2Fdk%3Apush%2Cpull&scope=repository%3Apublic%2Fbase%3Apull&service=registry.local", alice, "", "")
	f.Add(true, "account=al%3Aice&service=registry.local", "Basic YWw6aWNlOng=", "", "")
	f.Add(true, "service=registry.local&scope=repository:public/img:pull", "", "", "")
	f.Add(true, "scope=registry%3Acatalog%3A%2A&service=registry.local", "basic YWRtaW46aHVudGVyMg==", "", "")
	f.Add(true, "scope=repository::pull", "BASIC YWRtaW46aHVudGVyMg==", "", "")
	f.Add(true, "scope=repository%3Aalice%2Fimg%3Apull", "Basic OmFzcnRfeA==", "", "") // a refresh token as nobody's password
	f.Add(true, "offline_token=true&service=registry.local", "", "", "")
	f.Add(true, "username=alice&password=secret%3A1", "", "", "")
	f.Add(true, "service=registry.local;scope=x", "", "", "")
	f.Add(true, "service=other&service=registry.local", alice, "", "")
	f.Add(true, "offline_token=true&account=alice&scope=%zz", "basic", "", "[::1]:80,")
	f.Add(false, "grant_type=password&username=alice&password=secret%3A1&scope=repository:alice/a:*", "", form, "198.51.100.9")
	f.Add(false, "access_type=offline&client_id=containerd-client&grant_type=password&password=secret%3A1&service=registry.local&username=alice", "", form+"; charset=utf-8", "")
	f.Add(false, "client_id=containerd-client&grant_type=password&password=secret%3A1&scope=repository%28plugin%29%3Aalice%2Fplug%3Apull+repository%3Aalice%2Fplug%3Apull&service=registry.local&username=alice", "", form, "")
	f.Add(false, "client_id=containers%2Fimage&grant_type=refresh_token&refresh_token=x&scope=repository%3Aalice%2Fa%3Apull&scope=repository%3Aalice%2Fb%3Apull%2Cpush&service=registry.local", "", form, "")
	f.Add(false, "grant_type=refresh_token&refresh_token=x", "Bearer x", form+"; charset=utf-8", "for=x, 1")
	f.Add(false, "grant_type=password&username=alice&password=secret%3A1", alice, form, "")
	f.Add(false, "grant_type=password&username=admin&password=hunter2", alice, form, "")
	f.Add(false, "grant_type=password", alice, "Application/X-WWW-Form-Urlencoded ;", "")
	f.Add(false, "{}", "", "application/json", "")
	var face *face
	f.Fuzz(func(t *testing.T, get bool, text, authorization, contentType, forwarded string) {
		if face == nil {
			face = newFace(t)
		}
		face.begin(t)
		r := httptest.NewRequest(http.MethodGet, "/token", nil)
		if get {
			r.URL.RawQuery = text
		} else {
			r = httptest.NewRequest(http.MethodPost, "/auth/token", strings.NewReader(text))
			r.Header["Content-Type"] = []string{contentType}
		}
		if authorization != "" {
			r.Header["Authorization"] = []string{authorization}
		}
		r.Header["X-Forwarded-For"] = []string{forwarded}
		r.Header["Forwarded"] = []string{forwarded}
		a := face.do(r)
		values, _ := url.ParseQuery(text)
		subject := a.holds(t, !get, values["scope"])
		if status, want := expect(get, text, authorization, contentType); a.StatusCode != status || subject != want {
			t.Fatalf("%q %q %q: %d for %q, want %d for %q: %s", text, authorization, contentType, a.StatusCode, subject, status, want, a.body)
		}
	})
}

var (
	headerName        = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	authorizationLine = regexp.MustCompile(`(?i)\n[ \t]*authorization[ \t]*:`)
)

// FuzzWire sends whole requests, as they are on the wire. Whatever is in one: an answer that clients can read, and no token
// for nobody where there is a trace of somebody.
func FuzzWire(f *testing.F) {
	for _, seed := range []string{
		"GET /token?account=alice&client_id=docker&offline_token=true&service=registry.local HTTP/1.1\nHost: x\nAuthorization: Basic YWxpY2U6c2VjcmV0OjE=\n\n",
		"GET /token?service=registry.local&scope=repository:public/img:pull HTTP/1.1\nHost: x\nAccept: application/json\n\n",
		"GET http://alice:secret%3A1@x/token?scope=repository:alice/a:pull HTTP/1.1\nHost: x\n\n",
		"GET /token HTTP/1.1\nHost: x\nauthorization: Basic YWxpY2U6c2VjcmV0OjE=\nAuthorization: Basic YWRtaW46aHVudGVyMg==\n\n",
		"GET /token HTTP/1.1\nHost: x\nAuthorization:\n\n",
		"GET /token HTTP/1.1\nHost: x\nX: y\n Authorization: Basic YWxpY2U6c2VjcmV0OjE=\n\n",
		"GET /token HTTP/1.1\nHost: x\nAuthorization : Basic YWxpY2U6c2VjcmV0OjE=\n\n",
		"GET /token HTTP/1.0\n\n",
		"GET /token HTTP/1.1\nHost: x\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 47\n\ngrant_type=password&username=alice&password=xyz",
		"GET /token HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n5\nscope\n0\n\n",
		"GET /token HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n0\n\n",
		"GET /token HTTP/1.1\nHost: x\nContent-Length: 0\n\n", "GET /token HTTP/1.1\nHost: x\nContent-Length: 1\n\nx", "GET /token HTTP/1.1\nHost: x\nContent-Length: 2\n\nx",
		"POST /token HTTP/1.1\nHost: x\nContent-Type: application/x-www-form-urlencoded\nTransfer-Encoding: chunked\n\n17\ngrant_type=password&use\n1c\nrname=alice&password=secret:\n1\n1\n0\n\n",
		"POST /token HTTP/1.1\nHost: x\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 56\nExpect: 100-continue\n\ngrant_type=password&username=alice&password=secret%3A1&x",
		"POST /token?grant_type=password&username=alice&password=secret%3A1 HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
		"POST /token HTTP/1.1\nHost: x\nContent-Type: application/x-www-form-urlencoded\nAuthorization: Basic YWxpY2U6c2VjcmV0OjE=\nAuthorization: Basic YWRtaW46aHVudGVyMg==\nContent-Length: 54\n\ngrant_type=password&username=alice&password=secret%3A1",
		"POST /introspect HTTP/1.1\nHost: x\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 11\n\ntoken=a.b.c",
		"POST /revoke HTTP/1.1\nHost: x\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 9\n\ntoken=abc",
		"HEAD /token HTTP/1.1\nHost: x\n\n", "OPTIONS * HTTP/1.1\nHost: x\n\n", "CONNECT x:1 HTTP/1.1\nHost: x\n\n", "GET /.well-known/jwks.json HTTP/1.1\nHost: x\n\n", "GET //token HTTP/1.1\nHost: x\n\n",
		"GET /token/../token?x HTTP/1.1\nHost: x\n\n", "GET /%74oken HTTP/1.1\nHost: x\n\n", "GET /api/v1/whoami HTTP/1.1\nHost: x\n\n",
	} {
		f.Add([]byte(strings.ReplaceAll(seed, "\n", "\r\n")))
	}
	var face *face
	f.Fuzz(func(t *testing.T, raw []byte) {
		if face == nil {
			face = newFace(t)
		}
		face.begin(t)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(raw))))
		if err != nil {
			return
		}
		for name := range r.Header { // net/http's server answers 400
			if !headerName.MatchString(name) {
				return
			}
		}
		r.RemoteAddr = "192.0.2.1:1234"
		var body strings.Builder
		r.Body = io.NopCloser(io.TeeReader(r.Body, &body))
		a := face.do(r)
		if r.Method == http.MethodHead || len(a.body) == 0 {
			return
		}
		if !json.Valid(a.body) {
			t.Fatalf("%d %q", a.StatusCode, a.body)
		}
		if a.StatusCode >= 500 || a.StatusCode/100 == 3 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		var token struct {
			Token string `json:"token"`
		}
		if path := r.URL.Path; path != "/token" && path != "/auth/token" {
			if _ = json.Unmarshal(a.body, &token); token.Token != "" {
				t.Fatalf("%s gives tokens", path)
			}
			return
		}
		rest, broken := io.ReadAll(r.Body)
		sent := body.Len() > 0 || len(rest) > 0
		query, queryErr := url.ParseQuery(r.URL.RawQuery)
		form := query
		if r.Method == http.MethodPost {
			form, queryErr = url.ParseQuery(body.String())
		}
		subject := a.holds(t, r.Method == http.MethodPost, form["scope"])
		if a.StatusCode != http.StatusOK {
			return
		}
		head, _, _ := strings.Cut(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n\n")
		headers := r.Header.Values("Authorization")
		switch {
		case queryErr != nil || broken != nil && !errors.Is(broken, io.EOF) && r.Method == http.MethodPost:
			t.Fatalf("answered what cannot be read: %v, %v", queryErr, broken)
		case subject == "" && (len(headers) > 0 || r.Method == http.MethodPost || r.URL.User != nil || sent || authorizationLine.MatchString("\n"+head) && !strings.Contains(head, "\n ") && !strings.Contains(head, "\n\t")):
			t.Fatalf("credentials became anonymous: %q", raw)
		case len(headers) > 1 || len(headers) == 1 && basicOf(headers[0]) != subject && form.Get("grant_type") != "refresh_token":
			t.Fatalf("a token for %q, the header says %q", subject, headers)
		}
	})
}
