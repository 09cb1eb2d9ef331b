package pages_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"authserver/e2e/harness"
)

// A move is a machine on which somebody follows a page of docs/migrating: its folders are below root, one address stays the
// registry's, and authserver runs as its page has set it up.
type move struct {
	t        *testing.T
	root     string
	host     string // localhost:PORT that clients know as the registry
	auth     string // http://localhost:PORT
	server   *harness.Process
	settings []string
	page     string
	*harness.Reader
}

func newMove(t *testing.T, page string) *move {
	t.Helper()
	m := &move{t: t, root: t.TempDir(), page: page}
	m.host = fmt.Sprintf("localhost:%d", harness.FreePort(t))
	port := harness.FreePort(t)
	m.auth = fmt.Sprintf("http://localhost:%d", port)
	m.settings = []string{fmt.Sprintf("AUTHSERVER_SERVER__LISTEN=127.0.0.1:%d", port), fmt.Sprintf("AUTHSERVER_SERVER__OPS_LISTEN=127.0.0.1:%d", harness.FreePort(t)), "AUTHSERVER_AUDIT__OUTPUT=file:" + m.path("/var/log/authserver/audit.log")}
	for _, dir := range []string{"/etc/registry", "/etc/nginx", "/var/log/authserver", "/var/lib/registry"} {
		if err := os.MkdirAll(m.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m.Reader = m.newReader()
	return m
}

// newReader is another person at the same machine.
func (m *move) newReader(words ...string) *harness.Reader {
	r := harness.NewReader(m.t, append(words, "https://registry.example.com", "http://"+m.host, "registry.example.com", m.host, "https://auth.example.com", m.auth,
		"/etc/authserver", m.path("/etc/authserver"), "/etc/registry", m.path("/etc/registry"), "/etc/nginx", m.path("/etc/nginx"), "/var/", m.path("/var")+"/")...)
	r.Set(m.settings...)
	return r
}

func (m *move) path(name string) string { return filepath.Join(m.root, filepath.FromSlash(name)) }

func (m *move) follow(part string) {
	m.t.Helper()
	m.Follow(harness.Documented(m.t, m.page, part))
}

func (m *move) must(r *harness.Reader, command string) string {
	m.t.Helper()
	out, err := r.Type(command)
	if err != nil {
		m.t.Fatalf("$ %s\n%v\n%s", command, err, out)
	}
	return out
}

// serve starts authserver.
func (m *move) serve() {
	m.t.Helper()
	m.server = harness.Start(m.t, m.settings, harness.Program(m.t, "authserver"), "serve", "--config", m.path("/etc/authserver/authserver.yaml"))
	m.server.Await(m.t, func() error { return answers(m.auth+"/.well-known/jwks.json", http.StatusOK) })
}

// registry starts a registry at this address with this auth section.
func (m *move) registry(host, auth string) *harness.Process {
	m.t.Helper()
	words := strings.NewReplacer("https://auth.example.com", m.auth, "registry.example.com", m.host, "/etc/registry", m.path("/etc/registry"))
	config := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp: {addr: %q, secret: shared}\n%s", m.path("/var/lib/registry"), host, words.Replace(auth))
	file := m.path("/etc/registry/config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		m.t.Fatal(err)
	}
	p := harness.Start(m.t, nil, harness.Program(m.t, "registry-2.8.3"), "serve", file)
	p.Await(m.t, func() error { return answers("http://"+host+"/v2/", http.StatusUnauthorized) })
	return p
}

// nginx is configured as the page shows, for these registries. It starts with the first, when the page has not switched yet.
func (m *move) nginx(first, second string) *harness.Process {
	m.t.Helper()
	first, second = strings.Replace(first, "localhost", "127.0.0.1", 1), strings.Replace(second, "localhost", "127.0.0.1", 1) // nginx looks names up elsewhere
	shown := m.shown("nginx", "# registry.conf")
	config := strings.NewReplacer("127.0.0.1:5005", first, "127.0.0.1:5006", second, "listen 443 ssl", "listen "+strings.TrimPrefix(m.host, "localhost:"), "server_name registry.example.com;", "").Replace(shown)
	if config == shown {
		m.t.Fatal("the page's nginx configuration has nothing to replace")
	}
	write := func(text string) {
		if err := os.WriteFile(m.path("/etc/nginx/registry.conf"), []byte(text), 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	write(strings.Replace(config, second, first, 1))
	dir := m.path("/etc/nginx")
	main := m.File("nginx.conf", `daemon off;
pid %s/nginx.pid;
error_log stderr error;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  include %s/registry.conf;
}
`, dir, dir)
	m.Before("nginx", fmt.Sprintf(`set -- -p %q -c %q "$@"`, dir, main))
	p := harness.Start(m.t, nil, harness.Program(m.t, "nginx"), "-p", dir, "-c", main)
	p.Await(m.t, func() error { return answers("http://"+m.host+"/v2/", http.StatusUnauthorized) })
	write(config)
	return p
}

func answers(address string, status int) error {
	response, err := http.Get(address)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != status {
		return fmt.Errorf("%s: status %d", address, response.StatusCode)
	}
	return nil
}

// shown is the block of the page that begins with this line.
func (m *move) shown(language, first string) string {
	m.t.Helper()
	text := string(harness.ReadFile(m.t, filepath.Join(harness.Root(m.t), "..", m.page)))
	block := regexp.MustCompile("(?s)```" + language + "\n" + regexp.QuoteMeta(first) + "[^\n]*\n(.*?)```").FindStringSubmatch(text)
	if block == nil {
		m.t.Fatalf("the page shows no %s that begins with %q", language, first)
	}
	return block[1]
}

// Who has logged in with a registry's own htpasswd goes on, through the move and after it, without a request refused.
func TestFromHTPasswd(t *testing.T) {
	m := newMove(t, "docs/migrating/htpasswd.md")
	dockerd := harness.StartDockerd(t)
	alice := m.newReader()
	for _, r := range []*harness.Reader{m.Reader, alice} {
		r.Set("PASSWORD=correct horse", "DOCKER_HOST="+dockerd.Host)
	}

	// Before: a registry's file with comments, as it is allowed to have.
	scratch := harness.NewReader(t)
	m.must(scratch, `authserver init s -o json >/dev/null && for u in alice bob; do echo "correct horse" | authserver user add $u --backend htpasswd --password-stdin --config s/authserver.yaml --set passwords.bcrypt_cost=5; done`)
	users := m.must(scratch, `echo "# who may push"; echo; grep -v ^admin: s/users.htpasswd`)
	if err := os.WriteFile(m.path("/etc/registry/htpasswd"), []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	first, second := fmt.Sprintf("localhost:%d", harness.FreePort(t)), fmt.Sprintf("localhost:%d", harness.FreePort(t))
	old := m.registry(first, m.shown("yaml", "# config.yml of the registry, before"))
	nginx := m.nginx(first, second)
	image := harness.MakeImage(t, t.Name())
	for _, r := range []*harness.Reader{m.Reader, alice} {
		m.must(r, `echo "$PASSWORD" | docker login -u alice --password-stdin registry.example.com`)
	}
	m.must(alice, "crane push "+image.Archive+" registry.example.com/team/app:1 && docker pull registry.example.com/team/app:1")

	// Somebody works all the time.
	stop, done := make(chan bool), make(chan bool)
	var pulls atomic.Int32
	go func() {
		defer close(done)
		for ; ; pulls.Add(1) {
			select {
			case <-stop:
				return
			default:
			}
			if out, err := alice.Type("crane manifest registry.example.com/team/app:1"); err != nil {
				t.Errorf("a pull during the move: %v\n%s", err, out)
			}
		}
	}()
	m.follow("prepare")
	m.serve()
	m.follow("check")
	m.registry(second, m.shown("yaml", "# config.yml of the registry, after"))
	m.newReader("localhost:5006", second).Follow(harness.Documented(t, "docs/migrating/htpasswd.md", "second"))
	before := nginx.Children(t)
	m.follow("switch")
	m.follow("after")
	// The first registry is needed until the last process of before the switch has ended, and with it the pull of that time.
	nginx.Await(t, func() error {
		for _, worker := range nginx.Children(t) {
			if slices.Contains(before, worker) {
				return errors.New("it still serves with the configuration of before the switch")
			}
		}
		return nil
	})
	begun := pulls.Load()
	nginx.Await(t, func() error {
		if pulls.Load() == begun {
			return errors.New("a pull does not end")
		}
		return nil
	})
	m.follow("finish")
	close(stop)
	<-done
	if n := pulls.Load(); n < 5 {
		t.Errorf("only %d pulls during the move", n)
	}
	if err := old.Stop(); err != nil {
		t.Error(err)
	}

	bob := m.newReader()
	bob.Set("PASSWORD=correct horse")
	m.must(bob, `echo "$PASSWORD" | crane auth login -u bob --password-stdin registry.example.com && crane copy registry.example.com/team/app:1 registry.example.com/team/bob:1`)
	m.follow("tighten")
	m.follow("narrow")
	tries := 1
	m.server.Await(t, func() error {
		tries++
		if out, err := bob.Type(fmt.Sprintf("crane copy registry.example.com/team/app:1 registry.example.com/team/bob:%d", tries)); err == nil || !strings.Contains(out, "UNAUTHORIZED") {
			return fmt.Errorf("bob still pushes: %v\n%s", err, out)
		}
		return nil
	})
	m.must(bob, "crane manifest registry.example.com/team/app:2")
	m.must(alice, "crane copy registry.example.com/team/app:1 registry.example.com/team/app:3")
}

// Robots of Harbor, in the form of its API, are robots here, and may what they might.
func TestFromHarbor(t *testing.T) {
	m := newMove(t, "docs/migrating/harbor.md")
	m.must(m.Reader, "authserver init /etc/authserver --admin root --service registry.example.com --public-url https://auth.example.com -o json > made.json")
	m.File("robots.json", "%s", harness.ReadFile(t, filepath.Join("testdata", "harbor-robots.json")))
	m.follow("convert")
	m.follow("tokens")
	m.serve()
	m.must(m.Reader, "authserver key export --config /etc/authserver/authserver.yaml > /etc/registry/token-bundle.pem")
	m.registry(m.host, "auth:\n  token: {realm: \"https://auth.example.com/token\", service: \"registry.example.com\", issuer: authserver, rootcertbundle: /etc/registry/token-bundle.pem}\n")
	image := harness.MakeImage(t, t.Name())
	m.must(m.Reader, "jq -r .password made.json | crane auth login -u root --password-stdin registry.example.com && crane push "+image.Archive+" registry.example.com/web/app:1 && crane auth logout registry.example.com")
	m.follow("clients")
	m.follow("refused")

	// Those who are left out have no account, and the mirror reads everything and writes nothing.
	if out := m.must(m.Reader, "authserver user list --config /etc/authserver/authserver.yaml"); strings.Contains(out, "retired") || strings.Contains(out, "off") {
		t.Errorf("robots that are at their end, or disabled, were made:\n%s", out)
	}
	m.must(m.Reader, "crane auth login -u mirror --password-stdin registry.example.com < tokens/mirror && crane manifest registry.example.com/web/app:2")
	if out, err := m.Type("crane copy registry.example.com/web/app:1 registry.example.com/web/app:9"); err == nil {
		t.Errorf("the mirror pushes:\n%s", out)
	}
}
