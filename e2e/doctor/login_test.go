package doctor_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"authserver/e2e/harness"
)

const secret = "correct horse battery staple"

// as runs doctor with a login, and a password from the environment.
func (w *world) as(user, password string, args ...string) outcome {
	w.Helper()
	return w.runAs(func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "AUTHSERVER_PASSWORD="+password) }, append([]string{"--as", user}, args...)...)
}

func TestLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "3.1.2", harness.Options{Users: map[string]string{"alice": secret}, Set: []string{"throttle.account_failures=10"}})
	w.registry.start()

	r := w.read(w.as("alice", secret, "--registry", w.at(), "-o", "json"))
	r.says(t)
	if !slices.ContainsFunc(r.Findings, func(f finding) bool {
		return f.Check == "login" && f.Severity == "ok" && f.What == "alice can log in"
	}) {
		t.Errorf("no login:\n%v", r.Findings)
	}
	wrong := want{"login", "error", "alice cannot log in: the user name or the password is not correct", []string{"authserver authserver user list; authserver user passwd alice"}}
	r = w.read(w.as("alice", "wrong "+secret, "-o", "json"))
	r.says(t, wrong)
	row("a wrong password (--as)", r.worstFindings()[0])
	// What the fix names gives her a password.
	w.auth.Command(t, "another "+secret+"\n", "user", "passwd", "alice", "--password-stdin")
	for range 50 {
		if r = w.read(w.as("alice", "another "+secret, "-o", "json")); r.exit == 0 {
			break
		}
	}
	r.says(t)
	nobody := w.read(w.as("mallory", secret, "-o", "json"))
	nobody.says(t, want{"login", "error", "mallory cannot log in", nil})

	for i := range 12 { // whoever guesses is held back
		w.as("alice", fmt.Sprint("guess ", i))
	}
	held := w.read(w.as("alice", "guess", "-o", "json"))
	held.says(t, want{"login", "error", "alice cannot log in now: 429", []string{"authserver the log of authserver"}})
	row("too many wrong passwords (--as)", held.worstFindings()[0])
}

// No password is printed, whatever becomes of it, and none comes by the command line.
func TestPasswordIsNotPrinted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "3.1.2", harness.Options{Users: map[string]string{"alice": secret}})
	w.registry.start()
	for _, args := range [][]string{{}, {"-o", "json"}, {"--registry", w.at()}, {"--registry", "http://localhost:1"}, {"--fail-on", "warning"}, {"--set", "server.public_url=http://localhost:1"}, {"--registry-config", "/none"}} {
		for _, password := range []string{secret, "wrong " + secret} {
			o := w.as("alice", password, args...)
			if strings.Contains(o.stdout+o.stderr, secret) {
				t.Errorf("%v: the password is printed:\n%s%s", args, o.stdout, o.stderr)
			}
		}
	}
	if log := w.auth.Log() + w.registry.process.Log(); strings.Contains(log, secret) {
		t.Error("the password is in a log")
	}
	o := w.run("--as", "alice") // no terminal, no variable
	if o.exit != 2 || !strings.Contains(o.stderr, "AUTHSERVER_PASSWORD") {
		t.Errorf("exit status %d: %s", o.exit, o.stderr)
	}
}

// A thief is a server that keeps what it is sent.
type thief struct {
	sync.Mutex
	seen []string
}

func (s *thief) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	s.Lock()
	defer s.Unlock()
	s.seen = append(s.seen, fmt.Sprint(r.Method, r.URL, r.Header, r.Form))
	fmt.Fprint(rw, "{}")
}

func (s *thief) has(words ...string) string {
	s.Lock()
	defer s.Unlock()
	for _, text := range s.seen {
		for _, word := range words {
			if strings.Contains(text, word) {
				return text
			}
		}
	}
	return ""
}

// A password goes to our own address and to nobody else's: not to the realm that a registry names, not to where somebody
// redirects, not to a server that is not ours, and not over http across a network.
func TestPasswordStaysHere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steal func(w *world, thief string)
		asked bool // the thief is
		wants string
	}{
		"realm of the registry": {func(w *world, thief string) { w.registry.set("realm", thief+"/token") }, true, "login"},
		"realm with a name in it": {func(w *world, thief string) {
			w.registry.set("realm", strings.Replace(thief, "://", "://alice:pass@", 1)+"/token")
		}, false, "login"},
		"realm that redirects": {func(w *world, thief string) {
			w.registry.set("realm", w.listen(http.RedirectHandler(thief+"/token", http.StatusTemporaryRedirect))+"/token")
		}, false, "login"},
		"public address that redirects": {func(w *world, thief string) {
			w.set("public_url", w.listen(http.RedirectHandler(thief+"/token", http.StatusTemporaryRedirect)))
		}, false, ""},
		"public address of somebody else": {func(w *world, thief string) { w.set("public_url", thief) }, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "3.1.2", harness.Options{Users: map[string]string{"alice": secret}})
			s := &thief{}
			c.steal(w, w.listen(s))
			w.registry.start()
			o := w.as("alice", secret, "--registry", w.at(), "-o", "json")
			r := w.read(o)
			if got := s.has("Basic", "alice", secret, "Authorization"); got != "" {
				t.Errorf("the thief was told %s", got)
			}
			if c.asked != (s.has("/token") != "") {
				t.Errorf("the thief was asked: %v", s.seen)
			}
			if r.exit != 1 {
				t.Errorf("exit status %d\n%s", r.exit, r)
			}
			if c.wants != "" && !slices.ContainsFunc(r.Findings, func(f finding) bool { return f.Check == c.wants && f.Severity == "ok" }) {
				t.Errorf("%s was not looked at\n%s", c.wants, r)
			}
		})
	}
}

// A proxy of the environment has what is sent in clear. For localhost none is asked; for a name below it, one is.
func TestPasswordIsNotForAProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", harness.Options{Users: map[string]string{"alice": secret}})
	_, upstream, _ := strings.Cut(w.auth.URL, "://")
	s := &thief{}
	proxy := w.listen(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(httptest.NewRecorder(), &http.Request{Method: r.Method, URL: r.URL, Header: r.Header}) // not the body
		(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.Out.URL.Host = upstream }}).ServeHTTP(rw, r)
	}))
	w.env = []string{"HTTP_PROXY=" + proxy, "NO_PROXY=", "no_proxy="}
	w.set("public_url", strings.Replace(w.auth.URL, "localhost", "auth.localhost", 1))
	r := w.read(w.as("alice", secret, "-o", "json"))
	r.says(t, want{"login", "warning", "the login was not tried: the password would be sent in clear to http://auth.localhost:", []string{"authserver server.public_url: https://auth.localhost:"}},
		want{"realm-scheme", "warning", "the realm http://auth.localhost:…/token is http", nil})
	if s.has("/token") == "" {
		t.Error("the proxy was not asked")
	}
	if got := s.has("Basic YWxpY2", secret); got != "" {
		t.Errorf("the proxy was told %s", got)
	}
}

// What the audit log has of all this: anonymous tokens without access, refusals, and of --as one login.
func TestAudit(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "audit.log")
	w := newWorld(t, "3.1.2", harness.Options{Users: map[string]string{"alice": secret}, Set: []string{"audit.output=file:" + log}})
	w.registry.set("issuer", "somebody")
	w.registry.start()
	lines := func() (events []map[string]any) {
		for line := range strings.Lines(string(harness.ReadFile(t, log))) {
			event := map[string]any{}
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatal(err)
			}
			events = append(events, event)
		}
		return events
	}
	before := len(lines())
	w.doctor("--registry", w.at(), "--registry-config", w.registry.file)
	events := lines()[before:]
	if len(events) < 2 || len(events) > 6 {
		t.Errorf("%d lines: %v", len(events), events)
	}
	for _, e := range events {
		if e["granted"] != "" || e["outcome"] != "refused" && (e["outcome"] != "granted" || e["kind"] != "anonymous") || e["principal"] != "" {
			t.Errorf("unexpected: %v", e)
		}
	}
	before = len(lines())
	w.as("alice", secret)
	logins := 0
	for _, e := range lines()[before:] {
		if e["principal"] == "alice" {
			logins++
		}
		if e["granted"] != "" {
			t.Errorf("unexpected: %v", e)
		}
	}
	if logins != 1 {
		t.Errorf("%d logins of alice in the audit log", logins)
	}
}

// The exit status, the two forms of the output, and misuse.
func TestOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "3.1.2", harness.Options{})
	w.registry.start()
	if o := w.run("--registry", w.at()); o.exit != 0 || !strings.HasSuffix(o.stdout, "\n0 errors, 0 warnings\n") || o.stderr != "" {
		t.Errorf("well: %d\n%s%s", o.exit, o.stdout, o.stderr)
	}
	if err := os.Chmod(filepath.Join(w.auth.Dir, "users.htpasswd"), 0o644); err != nil {
		t.Fatal(err)
	}
	if o := w.run(); o.exit != 0 || !strings.HasSuffix(o.stdout, "\n0 errors, 1 warning\n") {
		t.Errorf("a warning: %d\n%s", o.exit, o.stdout)
	}
	if o := w.run("--fail-on", "warning"); o.exit != 1 || !strings.Contains(o.stderr, "0 errors, 1 warning") {
		t.Errorf("a warning, with --fail-on warning: %d\n%s", o.exit, o.stderr)
	}
	w.registry.set("issuer", "somebody")
	args := []string{"--registry", w.at(), "--registry-config", w.registry.file}
	w.registry.start()
	text, r := w.run(args...), w.read(w.run(append(slices.Clone(args), "-o", "json")...))
	if text.exit != 1 || !strings.Contains(text.stdout, "1 error, 1 warning") {
		t.Errorf("%d\n%s", text.exit, text.stdout)
	}
	for _, f := range r.Findings { // both forms say the same
		for _, words := range append([]string{f.What, f.Why, f.Docs, f.Check + ": "}, fixes(f)...) {
			if f.Check != "database" && !strings.Contains(text.stdout, words) { // how long it took
				t.Errorf("%q is not in\n%s", words, text.stdout)
			}
		}
	}
	for _, p := range r.Predictions {
		if !strings.Contains(text.stdout, p.Verifier) || !strings.Contains(text.stdout, p.Verdict) {
			t.Errorf("no %s: %s in\n%s", p.Verifier, p.Verdict, text.stdout)
		}
	}
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--fail-on", "note"}, 2, "it is error or warning"},
		{[]string{"registry.example.com"}, 2, "unknown command"},
		{[]string{"--registry-config", "/none"}, 1, "/none"},
		{[]string{"--registry-config", w.config()}, 1, "no configuration of a registry"},
		{[]string{"--registry", "registry.example.com"}, 1, "is no address of a registry; would be right: https://"},
		{[]string{"--registry", "https://alice:hidden@registry.example.com"}, 1, `"https://alice:xxxxx@registry.example.com" is no address of a registry`},
		{[]string{"--registry", "https://alice:hid%zen@registry.example.com"}, 1, `registry: "registry.example.com" is no address of a registry`},
		{[]string{"--registry", "ftp://registry.example.com"}, 1, "is no address of a registry"},
		{[]string{"--config", "/none.yaml"}, 1, "/none.yaml"},
	} {
		o := w.run(c.args...)
		if o.exit != c.status || !strings.Contains(o.stdout+o.stderr, c.says) {
			t.Errorf("%v: %d\n%s%s", c.args, o.exit, o.stdout, o.stderr)
		}
	}
}

func fixes(f finding) (words []string) {
	for _, x := range f.Fixes {
		words = append(words, x.Do, x.Side)
	}
	return words
}
