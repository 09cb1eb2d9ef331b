package doctor_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// nginx stands between clients and authserver, at the public address.
type nginx struct {
	w    *world
	dir  string
	port int
}

// passes is what belongs into the location of a proxy that does no harm.
const passes = "proxy_pass http://UPSTREAM;\n      proxy_set_header Host $http_host;"

// behind puts nginx, with this in its location, before authserver.
func (w *world) behind(location string) *nginx {
	w.Helper()
	n := &nginx{w: w, dir: w.TempDir(), port: harness.FreePort(w)}
	w.set("public_url", n.url())
	w.restartAuth()
	w.registry.set("realm", n.url()+"/token")
	n.start(location)
	return n
}

func (n *nginx) url() string  { return fmt.Sprintf("http://localhost:%d", n.port) }
func (n *nginx) file() string { return filepath.Join(n.dir, "nginx.conf") }

// start starts it; in the location UPSTREAM is authserver.
func (n *nginx) start(location string) {
	n.w.Helper()
	_, upstream, _ := strings.Cut(n.w.auth.URL, "://localhost")
	n.w.write(n.file(), strings.ReplaceAll(fmt.Sprintf(`daemon off;
pid nginx.pid;
error_log stderr error;
events {}
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {
    listen 127.0.0.1:%d;
    location / {
      %s
    }
  }
}
`, n.port, location), "UPSTREAM", "127.0.0.1"+upstream))
	p := harness.Start(n.w, nil, harness.Program(n.w, "nginx"), "-p", n.dir, "-c", n.file())
	p.Await(n.w, func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", n.port))
		if err == nil {
			conn.Close()
		}
		return err
	})
	n.w.Cleanup(func() { p.Stop() })
	n.w.proxy = p
}

// restart starts it with another location.
func (n *nginx) restart(location string) {
	n.w.Helper()
	if err := n.w.proxy.Stop(); err != nil {
		n.w.Fatal(err)
	}
	n.start(location)
}

// What stands between clients and authserver, and what doctor says of it.
func TestPublicAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, location string
		wants          []want
		apply          string // what of the fix is for nginx, between these words
		works          bool   // the client finds its way all the same
		long           bool   // it takes a client long to give up
	}{
		{name: "a proxy that does no harm", location: passes, works: true},
		{name: "redirect to https", long: true, location: "return 301 https://localhost:1$request_uri;",
			wants: one(want{"redirect", "error", "/token redirects to https://localhost:1/token", []string{"authserver server.public_url: https://localhost:1", "proxy no redirect"}})},
		{name: "a slash too much", location: "absolute_redirect off; if ($uri = /token) { return 301 /token/$is_args$args; }\n      " + passes,
			wants: one(want{"redirect", "error", "/token redirects to http://localhost:…/token/", []string{"proxy no redirect"}})},
		{name: "redirect of POST", location: "if ($request_method = POST) { return 302 /login; }\n      " + passes, works: true,
			wants: one(want{"redirect", "error", "POST http://localhost:…/token redirects to http", []string{"proxy no redirect below /token"}})},
		{name: "without Authorization", location: passes + `proxy_set_header Authorization "";`,
			wants: one(want{"authorization-header", "error", "the header Authorization does not arrive", []string{"proxy pass Authorization on (nginx: proxy_set_header Authorization $http_authorization;"}}), apply: "nginx: ;"},
		{name: "without POST", location: "limit_except GET { deny all; }\n      " + passes, works: true,
			wants: one(want{"post", "error", "POST http://localhost:…/token does not arrive at authserver: 403", []string{"proxy pass POST on"}})},
		{name: "to where nobody is", long: true, location: "proxy_pass http://127.0.0.1:1;",
			wants: one(want{"public-url", "error", "/token answers 502", []string{"proxy server.listen as its upstream"}})},
		{name: "maintenance", long: true, location: "return 503;",
			wants: one(want{"public-url", "error", "/token answers 503", []string{"proxy server.listen as its upstream"}})},
		{name: "a password of its own", location: `auth_basic "staff"; auth_basic_user_file /dev/null;` + "\n      " + passes,
			wants: one(want{"public-url", "error", "/token wants a password from everybody", []string{"proxy no authentication of its own"}})},
		{name: "somebody else's page", location: "default_type text/html; return 200 '<html>welcome</html>';",
			wants: one(want{"public-url", "error", "/token answers 200 and no token", []string{"authserver server.public_url: ", "proxy pass /token on to authserver as /token"}})},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "3.1.2", harness.Options{})
			n := w.behind(c.location)
			w.registry.start()
			r := w.doctor()
			r.says(t, c.wants...)
			for _, f := range r.worstFindings() {
				row("proxy: "+c.name, f)
			}
			if c.long {
				// not tried
			} else if err := w.pulls(); (err == nil) != c.works {
				t.Errorf("the client: %v", err)
			}
			if len(c.wants) == 0 {
				return
			}
			mended := passes
			if before, after, ok := strings.Cut(c.apply, " "); ok { // to the letter
				x, _ := r.worstFindings()[0].fix("proxy")
				_, line, _ := strings.Cut(x.Do, before+" ")
				line, _, _ = strings.Cut(line, after)
				mended += line + ";"
			}
			n.restart(mended)
			w.isWell()
		})
	}
}

// Where a redirect leads, authserver may be: then public_url is what doctor says, to the letter.
func TestRedirectMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "3.1.2", harness.Options{})
	w.behind("return 301 " + w.auth.URL + "$request_uri;")
	w.registry.start()
	r := w.doctor()
	r.says(t, want{"redirect", "error", "/token redirects to " + w.auth.URL + "/token", nil})
	x, ok := r.worstFindings()[0].fix("authserver server.public_url: ")
	if !ok {
		t.Fatal(r)
	}
	w.set("public_url", strings.TrimPrefix(x.Do, "server.public_url: "))
	w.restartAuth()
	w.registry.set("realm", w.auth.URL+"/token")
	w.registry.start()
	w.isWell()
}

// isWell is after a mending: doctor finds nothing, and a client logs in, pushes and pulls.
func (w *world) isWell() {
	w.Helper()
	if r := w.doctor("--registry", w.at()); len(r.worstFindings()) > 0 {
		w.Errorf("after the mending doctor still says\n%s", r)
	}
	if err := w.pulls(); err != nil {
		w.Error(err)
	}
}

// A public address that is not where authserver is.
func TestPublicURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		broken func(w *world)
		wants  []want
	}{
		{"a path too much", func(w *world) { w.set("public_url", w.auth.URL+"/registry") },
			one(want{"public-url", "error", "/registry/token answers 404 and no token", []string{"authserver server.public_url: the address, with the path,", "proxy pass /registry/token on to authserver as /token"}})},
		{"nobody listens", func(w *world) { w.set("public_url", fmt.Sprintf("http://localhost:%d", harness.FreePort(w))) },
			one(want{"public-url", "error", "nobody listens at localhost:", []string{"authserver server.public_url"}})},
		{"https where http is spoken", func(w *world) { w.set("public_url", strings.Replace(w.auth.URL, "http:", "https:", 1)) },
			one(want{"public-url", "error", "localhost:… does not speak TLS", []string{"authserver http:// in the address"}}, want{"proxy", "warning", "server.trusted_proxies is empty", []string{"authserver server.trusted_proxies: "}})},
		{"a name that is none", func(w *world) { w.set("public_url", "http://auth.invalid") },
			one(want{"public-url", "error", "the name auth.invalid cannot be resolved", []string{"machine a DNS entry for auth.invalid"}}, want{"realm-scheme", "warning", "http://auth.invalid/token is http", []string{"authserver server.public_url"}})},
		{"capital letters", func(w *world) { w.set("public_url", w.auth.URL+"/Auth") },
			one(want{"config", "error", "authserver.yaml:…server.public_url: …has upper-case letters…; would be right: http://localhost:", nil})},
		{"another kind of token server", func(w *world) {
			token := elsewhere(w).Token(w, "", "", "registry.test")
			w.set("public_url", w.listen(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if name, password, _ := r.BasicAuth(); name != "" || password != "" {
					w.Error("it was told a password")
				}
				if r.URL.Path != "/token" {
					http.NotFound(rw, r)
					return
				}
				fmt.Fprintf(rw, `{"token":%q}`, token)
			})))
			w.args = []string{"--as", "admin", "--password-stdin"}
		}, one(want{"other-keys", "error", "gives tokens that none of our keys has signed", []string{"authserver server.public_url"}})},
		{"another token server", func(w *world) { w.set("public_url", elsewhere(w).URL) },
			one(want{"other-keys", "error", "does not have the key", []string{"authserver issuer.data_dir"}})},
		{"a folder with other keys", func(w *world) { w.set("data_dir", filepath.Join(elsewhere(w).Dir, "data")) },
			one(want{"other-keys", "error", "does not have the key … of this configuration", []string{"authserver issuer.data_dir: the folder that the server uses"}})},
		{"a folder without keys", func(w *world) { w.set("data_dir", filepath.Join(w.TempDir(), "none")) },
			one(want{"other-keys", "error", "gives tokens, and there are no keys in", []string{"authserver issuer.data_dir: the folder that the server uses"}})},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "", harness.Options{})
			w.doctor().says(t)
			w = w.aside()
			c.broken(w)
			r := w.doctorWith(w.auth.Password, w.args...)
			r.says(t, c.wants...)
			for _, f := range r.worstFindings() {
				row("public address: "+c.name, f)
			}
		})
	}
}

// A proxy of the environment that is not there is no fault of the registry's, nor of authserver's.
func TestProxyOfTheEnvironment(t *testing.T) {
	t.Parallel()
	for name, proxy := range map[string]string{"nobody there": "http://127.0.0.1:1", "no such name": "http://proxy.invalid:3128"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "", harness.Options{})
			w.env = []string{"HTTPS_PROXY=" + proxy, "HTTP_PROXY=" + proxy, "NO_PROXY=", "no_proxy="}
			w.doctor("--registry", "https://registry.example.com").says(t,
				want{"registry", "error", "registry.example.com is asked for by way of a proxy", []string{"machine HTTPS_PROXY in the environment"}})
			w.set("public_url", "http://auth.example.com")
			w.doctor().says(t, want{"public-url", "error", "auth.example.com is asked for by way of a proxy", []string{"machine HTTP_PROXY in the environment"}},
				want{"realm-scheme", "warning", "http://auth.example.com/token is http", nil})
		})
	}
}

// authority signs certificates as they should not be.
type authority struct {
	*testing.T
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{T: t, file: filepath.Join(t.TempDir(), "ca.pem")}
	var der []byte
	a.key, der = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	(&world{T: t}).write(a.file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return a
}

func (a *authority) sign(template *x509.Certificate) (*ecdsa.PrivateKey, []byte) {
	a.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().AddDate(-1, 0, 0)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.Fatal(err)
	}
	return key, der
}

// issue writes a certificate for a name, and its key.
func (a *authority) issue(name string, end time.Time) (certificate, key string) {
	a.Helper()
	private, der := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.Fatal(err)
	}
	dir, w := a.TempDir(), &world{T: a.T}
	w.write(filepath.Join(dir, "tls.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	w.write(filepath.Join(dir, "tls.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	return filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
}

// authserver speaks TLS itself, with certificates of all sorts.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, c := range []struct {
		name, host string
		days       int
		unknown    bool // who has signed it
		wants      []want
	}{
		{"fits", "localhost", 90, false, nil},
		{"signed by nobody known", "localhost", 90, true, one(want{"public-url", "error", "is signed by nobody whom this machine trusts", []string{"authserver serve the whole chain", "machine put its authority"}})},
		{"ended", "localhost", -3, false, one(want{"tls", "error", "tls.crt ended 20", []string{"authserver renew "}}, want{"public-url", "error", "certificate has expired", []string{"authserver renew the certificate"}})},
		{"ends soon", "localhost", 5, false, one(want{"tls", "warning", "tls.crt ends 20", []string{"authserver renew "}}, want{"tls", "warning", "the certificate of https://localhost:… ends 20", nil})},
		{"for another name", "auth.example.com", 90, false, one(want{"tls", "error", "tls.crt: x509: certificate is valid for auth.example.com, not localhost", nil}, want{"public-url", "error", "the certificate of localhost:… is not for that name", []string{"authserver a certificate with the name localhost"}})},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "3.1.2", harness.Options{})
			if !c.unknown {
				w.env = []string{"SSL_CERT_FILE=" + ca.file}
			}
			certificate, key := ca.issue(c.host, time.Now().AddDate(0, 0, c.days))
			w.set("public_url", fmt.Sprintf("%s\n  tls: {cert_file: %q, key_file: %q}", strings.Replace(w.auth.URL, "http:", "https:", 1), certificate, key))
			w.registry.set("realm", strings.Replace(w.auth.URL, "http:", "https:", 1)+"/token")
			w.restartAuth()
			w.registry.start()
			r := w.doctor()
			r.says(t, c.wants...)
			for _, f := range r.worstFindings() {
				row("TLS: certificate "+c.name, f)
			}
			if err := w.pulls(); (err == nil) != (r.exit == 0) {
				t.Errorf("doctor's exit status is %d, and the client: %v", r.exit, err)
			}
		})
	}
}
