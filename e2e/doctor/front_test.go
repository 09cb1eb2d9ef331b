package doctor_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// before puts a proxy before the registry, which changes its answers.
func before(change func(*http.Response)) func(*world) {
	return func(w *world) {
		target, err := url.Parse("http://" + w.registry.host)
		if err != nil {
			w.Fatal(err)
		}
		w.address = w.listen(&httputil.ReverseProxy{
			Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host; r.SetXForwarded() },
			ModifyResponse: func(r *http.Response) error { change(r); return nil },
			ErrorHandler:   func(rw http.ResponseWriter, _ *http.Request, _ error) { rw.WriteHeader(http.StatusBadGateway) },
		})
	}
}

func status(code int) func(*http.Response) {
	return func(r *http.Response) {
		r.StatusCode, r.Header, r.Body = code, http.Header{}, io.NopCloser(bytes.NewReader(nil))
	}
}

// auth writes the auth section of the registry's configuration anew.
func auth(text string) func(*world) {
	return func(w *world) {
		config, _, _ := strings.Cut(string(harness.ReadFile(w, w.registry.file)), "auth:\n")
		w.write(w.registry.file, config+text)
	}
}

// Registries that send nobody to authserver, and what stands before them.
func TestGreeting(t *testing.T) {
	t.Parallel()
	for _, c := range []wiring{
		{
			name: "without auth", broken: auth(""), pulls: true,
			live: one(want{"registry-open", "error", "asks nobody for anything", []string{"registry auth.token with realm, service, issuer and rootcertbundle"}}),
			file: one(want{"not-token", "error", "registry.yml asks for nothing, not for tokens", []string{"registry auth.token with realm"}}),
		},
		{
			name: "with htpasswd", broken: func(w *world) {
				auth(fmt.Sprintf("auth:\n  htpasswd:\n    realm: basic\n    path: %q\n", w.auth.Dir+"/users.htpasswd"))(w)
			}, pulls: true,
			live: one(want{"not-token", "error", "asks for basic, not for a token", []string{"registry auth.token with realm"}}),
			file: one(want{"not-token", "error", "registry.yml asks for htpasswd, not for tokens", []string{"registry auth.token with realm"}}),
		},
		{
			name: "a proxy that drops WWW-Authenticate", after: before(func(r *http.Response) { r.Header.Del("WWW-Authenticate") }),
			live: one(want{"challenge", "error", "/v2/ answers 401 without WWW-Authenticate", []string{"proxy pass WWW-Authenticate on"}}),
		},
		{
			name: "a proxy without /v2/", after: before(status(404)),
			live: one(want{"registry", "error", "/v2/ is not there (404)", []string{"proxy pass /v2/ on"}}),
		},
		{
			name: "a proxy that reaches nobody", pulls: true, after: before(status(502)),
			live: one(want{"registry", "error", "/v2/ answers 502", []string{"registry the log of the registry"}}),
		},
		{
			name: "a proxy with a page of its own", after: before(func(r *http.Response) {
				status(200)(r)
				r.Header.Set("Content-Type", "text/html")
				r.Body = io.NopCloser(strings.NewReader("<html>welcome</html>"))
			}),
			live: one(want{"registry", "error", "/v2/ answers 200, and no registry answers there", []string{"proxy pass /v2/ on"}}),
		},
		{
			name: "a proxy with little room for headers", versions: []string{"3.1.2"}, after: before(func(r *http.Response) {
				if len(r.Request.Header.Get("Authorization")) > 1<<9 {
					status(431)(r)
				}
			}),
			live: one(want{"registry", "error", "/v2/ answers 431 to a token", []string{"registry its log", "proxy room for headers of 8 KB"}}),
		},
		{
			name: "a proxy that redirects", pulls: true, after: before(func(r *http.Response) {
				status(301)(r)
				r.Header.Set("Location", "http://localhost:1/v2/")
			}),
			live: one(want{"registry", "error", "/v2/ redirects to http://localhost:1/v2/", []string{"authserver --registry http://localhost:1", "proxy no redirect below /v2/"}}),
		},
		{
			name: "a proxy that names two schemes", pulls: true, after: before(func(r *http.Response) {
				if challenge := r.Header.Get("WWW-Authenticate"); challenge != "" {
					r.Header.Set("WWW-Authenticate", `Basic realm="staff", `+challenge)
				}
			}),
			live: []want{},
		},
		{
			name: "a proxy with a password of its own", after: before(func(r *http.Response) {
				status(401)(r)
				r.Header.Set("WWW-Authenticate", `Basic realm="staff"`)
			}),
			live: one(want{"not-token", "error", "asks for basic, not for a token", []string{"registry auth.token"}}),
		},
		{
			name: "down", shutUp: true,
			live: one(want{"registry", "error", "nobody listens at localhost:", []string{"registry start it, or publish its port"}}),
			both: one(want{"registry", "error", "nobody listens at localhost:", []string{"registry start it, or publish its port"}}),
		},
		{
			name: "down with a realm elsewhere", shutUp: true, broken: func(w *world) { w.registry.set("realm", "https://auth.example.com/token") },
			both: one(want{"registry", "error", "nobody listens at localhost:", nil}, want{"realm", "error", "the registry sends clients to https://auth.example.com/token", []string{"registry " + key + "realm: http://localhost:"}}),
		},
		{
			name: "down for a private key in the bundle", shutUp: true, versions: []string{"2.5.2"},
			broken: func(w *world) {
				w.write(w.registry.trust, string(harness.ReadFile(w, w.auth.Root))+string(harness.ReadFile(w, w.auth.Dir+"/data/root.key")))
			},
			file:   one(want{"bundle", "warning", "token-root.pem holds a private key", []string{export}}, want{"bundle-blocks", "note", `has a block "PRIVATE KEY"`, []string{export}}),
			mended: []string{export},
		},
		{
			name: "down without rootcertbundle", shutUp: true, broken: func(w *world) { w.registry.set("rootcertbundle", "") },
			file: one(want{"bundle", "error", "registry.yml names no rootcertbundle", []string{"registry " + key + "rootcertbundle: FILE, made by: authserver key export"}}), mended: []string{"registry " + key + "rootcertbundle: FILE"},
		},
		{
			name: "down without an issuer", shutUp: true, broken: func(w *world) { w.registry.set("issuer", "") },
			file: one(want{"issuer", "error", "registry.yml names no issuer", []string{"registry " + key + "issuer: authserver"}}), mended: []string{"registry " + key + "issuer"},
		},
		{
			name: "down without a service", shutUp: true, broken: func(w *world) { w.registry.set("service", "") },
			file: one(want{"service", "error", "registry.yml names no service", []string{"registry " + key + "service: registry.test"}}), mended: []string{"registry " + key + "service"},
		},
		{
			name: "down without a realm", shutUp: true, broken: func(w *world) { w.registry.set("realm", "") },
			file: one(want{"realm", "error", "registry.yml names no realm", []string{"registry " + key + "realm: http://localhost:"}}), mended: []string{"registry " + key + "realm"},
		},
		{
			name: "down for an algorithm that is none", shutUp: true, versions: []string{"3.1.2"}, broken: func(w *world) { w.registry.set("signingalgorithms", "[es256]") },
			file: one(want{"algorithm", "error", `signingalgorithms has "es256", which is not known`, []string{"registry " + key + "signingalgorithms: [ES256]"}}), mended: []string{"registry " + key + "signingalgorithms"},
		},
	} {
		c.run(t)
	}
}

// An https registry, behind a proxy that speaks TLS, with a realm that is http: modern clients send no password there.
func TestHTTPSRegistryWithAnHTTPRealm(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, c := range []struct {
		name, host string
		days       int
		wants      []want
	}{
		{"http realm", "localhost", 90, one(want{"realm-scheme", "error", "/token is http, the registry https", []string{"registry " + key + "realm", "authserver server.public_url"}})},
		{"certificate of the registry ended", "localhost", -1, one(want{"registry", "error", "certificate has expired", []string{"registry renew the certificate"}})},
		{"certificate of the registry ends soon", "localhost", 5, one(want{"tls", "warning", "ends 20", []string{"registry renew the certificate"}}, want{"realm-scheme", "error", "is http, the registry https", nil})},
		{"certificate of the registry for another name", "registry.example.com", 90, one(want{"registry", "error", "the certificate of localhost:… is not for that name", []string{"registry a certificate with the name localhost"}})},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "3.1.2", harness.Options{})
			w.registry.start()
			before(func(*http.Response) {})(w)
			plain := strings.TrimPrefix(w.address, "http://")
			certificate, secret := ca.issue(c.host, time.Now().AddDate(0, 0, c.days))
			pair, err := tls.LoadX509KeyPair(certificate, secret)
			if err != nil {
				t.Fatal(err)
			}
			listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { listener.Close() })
			go func() {
				for {
					from, err := listener.Accept()
					if err != nil {
						return
					}
					go func() {
						defer from.Close()
						to, err := net.Dial("tcp", plain)
						if err != nil {
							return
						}
						defer to.Close()
						go io.Copy(to, from)
						io.Copy(from, to)
					}()
				}
			}()
			w.env = []string{"SSL_CERT_FILE=" + ca.file}
			w.address = fmt.Sprintf("https://localhost:%d", listener.Addr().(*net.TCPAddr).Port)
			r := w.doctor("--registry", w.at())
			r.says(t, c.wants...)
			for _, f := range r.worstFindings() {
				row("https registry: "+c.name, f)
			}
			if c.wants[0].check != "realm-scheme" {
				return // a client tries again and again
			}
			if err := w.pulls(); err == nil {
				t.Error("the client sends a password to an http realm")
			}
		})
	}
}
