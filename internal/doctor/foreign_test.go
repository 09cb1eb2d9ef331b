package doctor_test

import (
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/go-jose/go-jose/v4"

	"authserver/internal/doctor"
	"authserver/internal/issuer"
)

func TestShell(t *testing.T) {
	for word, want := range map[string]string{
		"/etc/registry/root.pem": "/etc/registry/root.pem", "My Registry": "'My Registry'", "it's": `'it'\''s'`, "$(id)": "'$(id)'", "a;b": "'a;b'", "": "''",
	} {
		if got := doctor.Shell(word); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// What others say comes to a terminal as text, and not at any length.
func TestForeignWords(t *testing.T) {
	var r doctor.Report
	r.Add(doctor.Finding{Check: "config", What: "a\x1b[31m\u009bb\u202ec\xff" + strings.Repeat("d", 1<<20), Why: "\a", Fixes: []doctor.Fix{{Where: "\r", Do: "\n"}}})
	f := r.Findings[0]
	for _, text := range []string{f.What, f.Why, f.Fixes[0].Where, f.Fixes[0].Do} {
		if strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) || len(text) > 2000 {
			t.Errorf("%.100q", text)
		}
	}
	if !strings.HasPrefix(f.What, `a\x1b[31m\u009bb\u202ec`) {
		t.Errorf("%.100q", f.What)
	}
}

func TestAFindingIsSaidOnceAndAsBadlyAsItIs(t *testing.T) {
	var r doctor.Report
	for _, s := range []doctor.Severity{doctor.Note, doctor.Error, doctor.Warning} {
		r.Add(doctor.Finding{Check: "config", What: "the same", Severity: s})
	}
	if len(r.Findings) != 1 || r.Worst() != doctor.Error {
		t.Errorf("%+v", r.Findings)
	}
}

// A server that is not ours, as far as can be told, is told no password; nor is anybody over http across a network.
func TestNoPasswordForOthers(t *testing.T) {
	stranger := newWorld(t)
	for name, c := range map[string]struct {
		bend  func(w *world)
		check string
		s     doctor.Severity
	}{
		"another token server": {func(w *world) {
			token, err := issuer.Probe(stranger.services[0], stranger.ring.For("registry.test"), issuer.Variant{}, stranger.subject.Now())
			if err != nil {
				t.Fatal(err)
			}
			w.subject.Client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/jwks.json") {
					r.URL.Path = "/none"
				}
				return http.DefaultTransport.RoundTrip(r)
			})
			w.auth = func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(`{"token":"` + token + `"}`)) }
		}, "other-keys", doctor.Error},
		"no keys here": {func(w *world) { w.subject.Ring, w.subject.NoKeys = nil, true }, "other-keys", doctor.Error},
		"http": {func(w *world) {
			real := strings.TrimPrefix(w.subject.PublicURL, "http://")
			w.subject.PublicURL = "http://auth.test"
			w.subject.Client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				r.URL.Host = strings.Replace(r.URL.Host, "auth.test", real, 1)
				return http.DefaultTransport.RoundTrip(r)
			})
		}, "login", doctor.Warning},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.subject.User, w.subject.Password, w.subject.Registry = "alice", "secret", ""
			c.bend(w)
			answer := w.auth
			w.auth = func(rw http.ResponseWriter, r *http.Request) {
				if _, password, _ := r.BasicAuth(); password != "" {
					t.Error("it was told the password")
				}
				answer(rw, r)
			}
			want(t, w.examine(), c.check, c.s)
		})
	}
}

// A realm that is no address of the web, or has a password in it, is not asked.
func TestRealmsThatAreNotAsked(t *testing.T) {
	for _, realm := range []string{"file:///etc/passwd", "unix:///run/docker.sock", "https://alice:pw@auth.test/token", ":"} {
		w := newWorld(t)
		w.registry.realm = realm
		w.subject.Client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Hostname() != "localhost" {
				t.Errorf("%s was asked", r.URL)
			}
			return http.DefaultTransport.RoundTrip(r)
		})
		r := w.examine()
		want(t, r, "realm", doctor.Error)
		if strings.Contains(show(r), "pw") {
			t.Error("its password is in the report")
		}
	}
}

// A registry does not choose what is signed.
func TestTheIssuerOfAProbeIsNotTheRegistrysWord(t *testing.T) {
	w := newWorld(t)
	w.registry.service = "https://sts.test"
	tried := 0
	w.registry.refuses = func(c claims, _ jose.Header) bool {
		tried++
		if strings.Contains(c.Iss, "sts.test") {
			t.Errorf("a token from %s was signed", c.Iss)
		}
		return true
	}
	w.registry.issuer = "auth"
	w.examine()
	w.registry.service = strings.Repeat("x", 1000)
	before := tried
	w.examine()
	if before == 0 || tried != before {
		t.Errorf("%d tokens were tried, then %d", before, tried-before)
	}
}
