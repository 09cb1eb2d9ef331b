package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"authserver/internal/server"
)

// What docker_auth gets wrong between the wire and the policy. What it gets wrong in the policy itself is in acl's
// tests, what it gets wrong in keys in issuer's.

// With real_ip_header and its default position, the leftmost address was believed, from anybody.
func TestDefect06ForwardedAddressesAreNotBelieved(t *testing.T) {
	asked := "/token?scope=repository:office/a:push"
	inside := header("X-Forwarded-For", "10.0.0.1, 192.0.2.1")
	if c := newFace(t).get(asked, inside).claims(t); len(c.Access) != 0 {
		t.Errorf("without trusted proxies: %s", c.Access)
	}
	trusting := newFace(t, func(c *server.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")} })
	if c := trusting.get(asked, inside, func(r *http.Request) { r.RemoteAddr = "172.16.0.1:1" }).claims(t); len(c.Access) != 0 {
		t.Errorf("leftmost: %s", c.Access)
	}
}

// A bogus refresh token got 200 and an anonymous token; grant_type was not looked at.
func TestDefect07NoGrantFallsBackToAnonymous(t *testing.T) {
	f := newFace(t)
	for _, form := range []url.Values{
		{"grant_type": {"refresh_token"}, "refresh_token": {"bogus"}},
		{"grant_type": {"password"}},
		{"grant_type": {"evil"}},
		{},
	} {
		form.Set("service", "registry.local")
		form.Set("scope", "repository:public/a:pull")
		if a := f.post(form); a.StatusCode == http.StatusOK {
			t.Errorf("%v: %s", form, a.body)
		}
	}
}

// A form that was sent with GET was not looked at, and the answer was a token for nobody.
func TestAFormWithGETIsNotAnonymous(t *testing.T) {
	f := newFace(t)
	for name, body := range map[string]io.Reader{"of known length": strings.NewReader("x"), "chunked": io.MultiReader(strings.NewReader(password("alice", "secret:1").Encode()))} {
		r := httptest.NewRequest(http.MethodGet, "/token?scope=repository:public/a:pull", body)
		if a := f.do(r); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/token", io.MultiReader()) // an empty body of unknown length, as over HTTP/2
	if a := f.do(r); r.ContentLength != -1 || a.StatusCode != http.StatusOK {
		t.Errorf("%d: %d %s", r.ContentLength, a.StatusCode, a.body)
	}
	// The second of two headers was not compared with the form.
	two := func(r *http.Request) {
		r.Header["Authorization"] = []string{"Basic YWxpY2U6c2VjcmV0OjE=", "Basic YWRtaW46aHVudGVyMg=="}
	}
	if a := f.post(password("alice", "secret:1"), two); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("two headers: %d %s", a.StatusCode, a.body)
	}
}

// Whatever service a client named was signed as aud.
func TestDefect09OnlyListedServicesAreSigned(t *testing.T) {
	f := newFace(t)
	for _, service := range []string{"evil", "registry.local.", "REGISTRY.LOCAL", "registry.local other", strings.Repeat("x", 10000)} {
		a := f.get("/token?scope=repository:public/a:pull&service=" + url.QueryEscape(service))
		a.refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_target")
		if !strings.Contains(string(a.body), "services[].name") {
			t.Errorf("the message does not name the key to set: %s", a.body)
		}
		if len(a.body) > 1000 {
			t.Errorf("%d bytes of answer", len(a.body))
		}
		f.post(password("alice", "secret:1", "service", service)).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
	}
}

// A line break in the Basic user name split the log line.
func TestDefect10LogLinesCannotBeForged(t *testing.T) {
	f := newFace(t)
	forged := "x\n{\"level\":\"INFO\",\"msg\":\"forged\"}\r\n"
	f.get("/token?scope="+url.QueryEscape("repository:"+forged+":pull")+"&service="+url.QueryEscape(forged), basic(forged, "secret"))
	f.get("/token?account="+url.QueryEscape(forged), basic(forged, "secret"))
	f.post(password(forged, "secret", "grant_type", "password"))
	r := httptest.NewRequest(http.MethodGet, "/x", nil)
	r.URL.Path = "/" + forged
	f.do(r)
	for name, text := range map[string]string{"log": f.log.String(), "audit": f.audit.String()} {
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		for _, line := range lines {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil || fields["msg"] == "forged" {
				t.Errorf("%s: %q", name, line)
			}
		}
	}
}

// Passwords, in whatever place they were sent, are in no log, no record and no answer.
func TestNoSecretIsWrittenAnywhere(t *testing.T) {
	f := newFace(t)
	const secret = "s3cr3t-Passw0rd"
	answers := []answer{
		f.get("/token", basic("alice", secret)),
		f.get("/token", basic("", secret)),
		f.get("/token", header("Authorization", "Bearer "+secret)),
		f.get("/token", header("Authorization", "Basic "+secret)),
		f.get("/token?password="+secret+"&service=evil", basic("alice", secret)),
		f.post(password("alice", secret)),
		f.post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {secret}}),
		f.post(url.Values{"grant_type": {secret}}),
		f.post(password("alice", "secret:1", "password", secret)),
	}
	good := f.get("/token", basic("alice", "secret:1"))
	token := good.fields(t)["token"].(string)
	for i, a := range answers {
		if strings.Contains(fmt.Sprint(a.Header)+string(a.body), secret) {
			t.Errorf("answer %d: %s", i, a.body)
		}
	}
	for name, text := range map[string]string{"log": f.log.String(), "audit": f.audit.String()} {
		for _, word := range []string{secret, "secret:1", token, "Basic "} {
			if strings.Contains(text, word) {
				t.Errorf("%s holds %q", name, word)
			}
		}
		if text == "" {
			t.Errorf("%s is empty; the test says nothing", name)
		}
	}
}

// Headers that are too large end with 431, and a connection costs no more than it says in the constants.
func TestOversizedHeadersAreRefused(t *testing.T) {
	f := newFace(t)
	s := httptest.NewUnstartedServer(nil)
	s.Config = server.NewHTTP(f.handler, f.config.Log)
	s.Start()
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "GET /token HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 2*server.MaxHeaderBytes))
	status, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(status, "431") {
		t.Errorf("%q, %v", status, err)
	}
	for name, limit := range map[string]any{
		"ReadHeaderTimeout": s.Config.ReadHeaderTimeout, "ReadTimeout": s.Config.ReadTimeout,
		"WriteTimeout": s.Config.WriteTimeout, "IdleTimeout": s.Config.IdleTimeout,
	} {
		if fmt.Sprint(limit) == "0s" {
			t.Errorf("no %s: a slow client would hold its connection for ever", name)
		}
	}
}

// Half-sent headers held their connections for ever.
func TestDefect11SlowClientsAreCutOff(t *testing.T) {
	f := newFace(t)
	s := httptest.NewUnstartedServer(nil)
	s.Config = server.NewHTTP(f.handler, f.config.Log)
	s.Start()
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprint(conn, "GET /token HTTP/1.1\r\nHost: x\r\n")
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadAll(conn); err != nil { // ends when the server hangs up, fails when it never does
		t.Errorf("the connection stays open: %v", err)
	}
}
