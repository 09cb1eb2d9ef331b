package doctor_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"authserver/internal/doctor"
	"authserver/internal/issuer"
)

// A world is authserver as it is configured, a server that answers for it, and a registry. Tests bend one thing each.
type world struct {
	subject  *doctor.Subject
	auth     func(http.ResponseWriter, *http.Request) // answers /token
	registry *registry
	services []issuer.Service
	ring     *issuer.Keyring
}

// registry believes what it was told; nil fields are what fits.
type registry struct {
	realm, service, issuer string
	refuses                func(claims claims, header jose.Header) bool
	answer                 func(http.ResponseWriter, *http.Request) bool // true: it has answered
	keysOf                 string                                        // the service whose key it trusts
	old                    bool                                          // says invalid_token of a wrong signature too
	ahead                  time.Duration
}

type claims struct {
	Iss, Aud      string
	Nbf, Iat, Exp int64
}

func newWorld(t *testing.T, services ...issuer.Service) *world {
	t.Helper()
	if len(services) == 0 {
		services = []issuer.Service{
			{Name: "registry.test", Issuer: "auth", Verifier: issuer.VerifierChain, Algorithm: issuer.ES256, Lifetime: 5 * time.Minute},
			{Name: "zot.test", Issuer: "auth", Verifier: issuer.VerifierPinned, Algorithm: issuer.RS256, Lifetime: 5 * time.Minute},
		}
	}
	w := &world{services: services, registry: &registry{service: services[0].Name, issuer: services[0].Issuer, keysOf: services[0].Name}}
	now := time.Now()
	clock := func() time.Time { return now } // no second begins between one look at it and the next
	var err error
	w.ring, err = issuer.OpenKeyring(issuer.KeyConfig{DataDir: t.TempDir(), Name: "auth", Services: services, RotateEvery: time.Hour, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := issuer.JWKS(w.ring.Published())
	if err != nil {
		t.Fatal(err)
	}
	w.auth = func(rw http.ResponseWriter, r *http.Request) {
		name, _, basic := r.BasicAuth()
		switch {
		case r.Method == http.MethodPost, basic && name != "alice":
			rw.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(rw, `{"errors":[{"code":"UNAUTHORIZED"}]}`)
		default:
			token, err := issuer.Probe(services[0], w.ring.For(services[0].Name), issuer.Variant{}, now)
			if err != nil {
				t.Error(err)
			}
			_ = json.NewEncoder(rw).Encode(map[string]string{"token": token})
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(rw http.ResponseWriter, r *http.Request) { w.auth(rw, r) })
	mux.HandleFunc("/.well-known/jwks.json", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(jwks) })
	auth := httptest.NewServer(mux)
	t.Cleanup(auth.Close)
	theirs := httptest.NewServer(http.HandlerFunc(w.greet))
	t.Cleanup(theirs.Close)
	public := strings.Replace(auth.URL, "127.0.0.1", "localhost", 1)
	w.registry.realm = public + "/token"
	w.subject = &doctor.Subject{
		PublicURL: public, Services: services, Ring: w.ring, Running: true, Where: func(key string) string { return "authserver.yaml:" + key },
		Registry: strings.Replace(theirs.URL, "127.0.0.1", "localhost", 1),
		Client:   &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		Resolve:  func(string) []string { return nil }, Now: clock,
	}
	return w
}

// greet is GET /v2/ of distribution 3.
func (w *world) greet(rw http.ResponseWriter, r *http.Request) {
	reg := w.registry
	rw.Header().Set("Date", w.subject.Now().Add(reg.ahead).UTC().Format(http.TimeFormat))
	if reg.answer != nil && reg.answer(rw, r) {
		return
	}
	refuse := func(suffix string) {
		rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service=%q%s`, reg.realm, reg.service, suffix))
		rw.WriteHeader(http.StatusUnauthorized)
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		refuse("")
		return
	}
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.RS256, jose.EdDSA})
	if err != nil {
		refuse(`,error="invalid_token"`)
		return
	}
	const invalid = `,error="invalid_token"`
	key := w.ring.For(reg.keysOf)
	if key == nil || parsed.Signatures[0].Header.KeyID != key.ID {
		refuse(invalid)
		return
	}
	payload, err := parsed.Verify(key.Public())
	switch {
	case err != nil && reg.old:
		refuse(invalid)
		return
	case err != nil:
		refuse("")
		return
	}
	var c claims
	_ = json.Unmarshal(payload, &c)
	now := w.subject.Now().Add(reg.ahead).Unix()
	if c.Iss != reg.issuer || c.Aud != reg.service || now < c.Nbf-60 || now > c.Exp+60 || reg.refuses != nil && reg.refuses(c, parsed.Signatures[0].Protected) {
		refuse(invalid)
		return
	}
	fmt.Fprint(rw, "{}")
}

func (w *world) examine() *doctor.Report {
	report := &doctor.Report{}
	w.subject.Wiring(context.Background(), report)
	return report
}

// want wants a finding of a check, with words in it and in its fixes.
func want(t *testing.T, r *doctor.Report, check string, severity doctor.Severity, words ...string) {
	t.Helper()
	for _, f := range r.Findings {
		text := fmt.Sprintf("%s %s %v", f.What, f.Why, f.Fixes)
		if f.Check == check && f.Severity == severity && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			if severity > doctor.OK && f.Docs != "docs/doctor.md#"+check {
				t.Errorf("it points to %q", f.Docs)
			}
			return
		}
	}
	t.Errorf("no %s %s with %q in\n%s", severity, check, words, show(r))
}

func show(r *doctor.Report) string {
	text, _ := json.MarshalIndent(r, "", "  ")
	return string(text)
}

func TestNothingIsWrong(t *testing.T) {
	w := newWorld(t)
	w.subject.User, w.subject.Password = "alice", "secret"
	r := w.examine()
	if r.Worst() != doctor.OK {
		t.Error(show(r))
	}
	want(t, r, "public-url", doctor.OK, "gives tokens")
	want(t, r, "login", doctor.OK, "alice")
	want(t, r, "trial", doctor.OK, `takes a token of ours for "registry.test"`)
}

func TestWhyARegistryRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		bend     func(*world)
		check    string
		severity doctor.Severity
		words    []string
	}{
		"issuer, guessed":       {func(w *world) { w.registry.issuer = w.subject.PublicURL + "/" }, "issuer", doctor.Error, []string{`{registry  auth.token.issuer: auth}`, "authserver.yaml:services[0].issuer"}},
		"issuer, not guessed":   {func(w *world) { w.registry.issuer = "nobody knows" }, "issuer", doctor.Error, []string{"trusts our key"}},
		"issuer or root":        {func(w *world) { w.registry.issuer, w.registry.old = "nobody knows", true }, "root", doctor.Error, []string{"does not trust the key", "or has another issuer"}},
		"root":                  {func(w *world) { w.registry.keysOf = "" }, "root", doctor.Error, []string{"authserver key export > FILE, then restart"}},
		"another service's key": {func(w *world) { w.registry.keysOf = "zot.test" }, "verifier-kind", doctor.Error, []string{`"zot.test"`, "services[0].verifier: pinned"}},
		"clock":                 {func(w *world) { w.registry.ahead = -3 * time.Minute }, "clock", doctor.Error, []string{"valid from an hour ago"}},
		"clock, far":            {func(w *world) { w.registry.ahead = -3 * time.Hour }, "clock", doctor.Error, []string{"refuses our tokens, and its clock is wrong"}},
		"clock, by the date":    {func(w *world) { w.registry.ahead = 25 * time.Second }, "clock", doctor.Warning, []string{"the registry is 25s ahead of"}},
		"JWKS alone": {func(w *world) {
			w.registry.refuses = func(_ claims, h jose.Header) bool {
				_, err := h.Certificates(x509.VerifyOptions{})
				return !errors.Is(err, jose.ErrMissingX5cHeader)
			}
		}, "verifier-kind", doctor.Error, []string{"without certificates only", "verifier: jwks"}},
		"service":         {func(w *world) { w.registry.service = "other" }, "service", doctor.Error, []string{`"other"`, `services has "registry.test", "zot.test"`, `- name: "other"`, "auth.token.service: registry.test"}},
		"realm, nobody":   {func(w *world) { w.registry.realm = "http://localhost:1/token" }, "realm", doctor.Error, []string{"nobody listens at localhost:1"}},
		"realm, alias":    {func(w *world) { w.registry.realm = strings.Replace(w.registry.realm, "localhost", "127.0.0.1", 1) }, "realm", doctor.Warning, []string{"answers there too"}},
		"realm, not HTTP": {func(w *world) { w.registry.realm = "file:///etc/passwd" }, "realm", doctor.Error, []string{"file:///etc/passwd"}},
		"open":            {func(w *world) { w.registry.answer = page("{}", "") }, "registry-open", doctor.Error, []string{"asks nobody"}},
		"open, no body":   {func(w *world) { w.registry.answer = page("", "registry/2.0") }, "registry-open", doctor.Error, []string{"asks nobody"}},
		"a page":          {func(w *world) { w.registry.answer = page("<html>welcome</html>", "") }, "registry", doctor.Error, []string{"no registry answers there", "pass /v2/ on"}},
		"nothing":         {func(w *world) { w.registry.answer = page("", "") }, "registry", doctor.Error, []string{"no registry answers there"}},
		"basic":           {func(w *world) { w.registry.answer = always(http.StatusUnauthorized, `Basic realm="x"`) }, "not-token", doctor.Error, []string{"basic"}},
		"basic, or bearer": {func(w *world) {
			w.registry.answer = func(rw http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Authorization") == "" {
					return always(http.StatusUnauthorized, fmt.Sprintf(`Basic realm="x", Bearer realm=%q,service=%q`, w.registry.realm, w.registry.service))(rw, r)
				}
				return false
			}
		}, "trial", doctor.OK, []string{"takes a token"}},
		"no challenge": {func(w *world) { w.registry.answer = always(http.StatusUnauthorized, "") }, "challenge", doctor.Error, nil},
		"no registry":  {func(w *world) { w.registry.answer = always(http.StatusNotFound, "") }, "registry", doctor.Error, []string{"404"}},
		"broken":       {func(w *world) { w.registry.answer = always(http.StatusInternalServerError, "") }, "registry", doctor.Error, []string{"500"}},
		"down":         {func(w *world) { w.subject.Registry = "http://localhost:1" }, "registry", doctor.Error, []string{"nobody listens"}},
		"no address":   {func(w *world) { w.subject.Registry = "registry.test" }, "registry", doctor.Error, []string{"https://"}},
		"redirect": {func(w *world) {
			w.registry.answer = func(rw http.ResponseWriter, r *http.Request) bool {
				http.Redirect(rw, r, "https://elsewhere.test/v2/", http.StatusMovedPermanently)
				return true
			}
		}, "registry", doctor.Error, []string{"--registry https://elsewhere.test"}},
		"redirect on its host": {func(w *world) {
			w.registry.answer = func(rw http.ResponseWriter, r *http.Request) bool {
				rw.Header()["Location"] = []string{"/base/v2/?a=b"}
				rw.WriteHeader(http.StatusMovedPermanently)
				return true
			}
		}, "registry", doctor.Error, []string{"redirects to http://localhost:", "/base}"}},
		"token not looked at": {func(w *world) { w.registry.answer = toTokens(http.StatusRequestHeaderFieldsTooLarge) }, "registry", doctor.Error, []string{"/v2/ answers 431 to a token", "8 KB", "its log"}},
		"held back":           {func(w *world) { w.registry.answer = toTokens(http.StatusTooManyRequests) }, "registry", doctor.Error, []string{"/v2/ answers 429 to a token"}},
		"held back later": {func(w *world) {
			w.registry.keysOf, w.registry.answer = "", nil
			n := 0
			w.registry.answer = func(rw http.ResponseWriter, r *http.Request) bool {
				if n++; n > 3 {
					return toTokens(http.StatusTooManyRequests)(rw, r)
				}
				return false
			}
		}, "registry", doctor.Error, []string{"/v2/ answers 429 to a token"}},
		"keys unknown": {func(w *world) { w.subject.Ring = nil }, "trial", doctor.Note, []string{"the keys cannot be read"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.bend(w)
			want(t, w.examine(), c.check, c.severity, c.words...)
		})
	}
}

// Keys below one root are believed by who has it, but for their algorithm.
func TestAnotherAlgorithmOfTheSameRoot(t *testing.T) {
	service := func(name, algorithm string) issuer.Service {
		return issuer.Service{Name: name, Issuer: "auth", Verifier: issuer.VerifierChain, Algorithm: algorithm, Lifetime: 5 * time.Minute}
	}
	w := newWorld(t, service("registry.test", issuer.ES256), service("other.test", issuer.ES384))
	w.registry.keysOf = "other.test"
	r := w.examine()
	want(t, r, "algorithm", doctor.Error, "takes tokens signed with ES384", "refuses those signed with ES256", "services[0].algorithm: ES384", "auth.token.signingalgorithms: with ES256 among them")
	if said := show(r); strings.Contains(said, "verifier") {
		t.Error(said)
	}
}

func always(status int, challenge string) func(http.ResponseWriter, *http.Request) bool {
	return func(rw http.ResponseWriter, _ *http.Request) bool {
		if challenge != "" {
			rw.Header().Set("WWW-Authenticate", challenge)
		}
		rw.WriteHeader(status)
		return true
	}
}

// toTokens answers who brings a token.
func toTokens(status int) func(http.ResponseWriter, *http.Request) bool {
	return func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" {
			return false
		}
		return always(status, "")(rw, r)
	}
}

func page(body, version string) func(http.ResponseWriter, *http.Request) bool {
	return func(rw http.ResponseWriter, _ *http.Request) bool {
		if version != "" {
			rw.Header().Set("Docker-Distribution-Api-Version", version)
		}
		fmt.Fprint(rw, body)
		return true
	}
}

// A password goes to our own address and to no other.
func TestAPasswordIsForUsAlone(t *testing.T) {
	w := newWorld(t)
	w.subject.User, w.subject.Password = "alice", "secret"
	asked := false
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked = true
		if r.Header.Get("Authorization") != "" {
			t.Errorf("the realm was told %q", r.Header.Get("Authorization"))
		}
	}))
	defer thief.Close()
	w.registry.realm = thief.URL + "/token"
	r := w.examine()
	if !asked {
		t.Error("the realm was not looked at")
	}
	if strings.Contains(show(r), "secret") {
		t.Error("the password stands in the report")
	}
}

// An address may have a password in it, which is nobody's business, and no part of a remedy.
func TestNoPasswordOfAnAddressIsPrinted(t *testing.T) {
	for name, bend := range map[string]func(*world){
		"registry":                        func(w *world) { w.subject.Registry = "https://bob:s3cret@registry.test" },
		"registry that is no address":     func(w *world) { w.subject.Registry = "https://bob:s3cret%t@registry.test" },
		"registry without a scheme":       func(w *world) { w.subject.Registry = "bob:s3cret@registry.test" },
		"registry with a slash":           func(w *world) { w.subject.Registry = "https:/bob:s3cret@registry.test" },
		"realm of a registry":             func(w *world) { w.registry.realm = "https://bob:s3cret@auth.test/token" },
		"realm of it that is no address":  func(w *world) { w.registry.realm = "https://bob:s3cret%t@auth.test/token" },
		"realm of a file":                 func(w *world) { w.subject.Registry, w.registry.realm = "", "https://bob:s3cret@auth.test/token" },
		"realm of one that is no address": func(w *world) { w.subject.Registry, w.registry.realm = "", "https://bob:s3cret%t@auth.test/token" },
		"redirect": func(w *world) {
			w.auth = func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, "https://bob:s3cret@auth.test/token", http.StatusFound)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ours := w.registry.realm
			bend(w)
			theirs := w.registry.realm
			for _, written := range []string{theirs, ours, strings.Replace(theirs, "https:", "http:", 1)} {
				w.registry.realm = written
				w.subject.Stanza = w.stanza(t, "registry.test", "auth", issuer.EncodeCertificates(w.ring.Roots()...))
				w.registry.realm = theirs
				r := w.examine()
				if said := show(r); strings.Contains(said, "s3cret") || theirs != ours && written == theirs && r.Worst() < doctor.Error {
					t.Error(said)
				}
			}
		})
	}
}

// Where a redirect leads is what public_url has to be, in the form that it takes, if it can be one.
func TestWhereARedirectLeads(t *testing.T) {
	for location, moved := range map[string]string{
		"https://auth.test/token":                        "https://auth.test",
		"https://auth.test/token?service=registry.test":  "https://auth.test",
		"https://auth.test/base/auth/token/?service=x#y": "https://auth.test/base",
		"//auth.test/token":                              "http://auth.test",
		"/base/token?service=registry.test":              "HERE/base",
		"base/token":                                     "HERE/base",
		"/token/":                                        "", // where we are
		"/login?next=/token":                             "",
	} {
		w := newWorld(t)
		w.subject.Registry = ""
		w.auth = func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Location"] = []string{location}
			rw.WriteHeader(http.StatusMovedPermanently)
		}
		r := w.examine()
		moved = strings.Replace(moved, "HERE", w.subject.PublicURL, 1)
		if said := show(r); strings.Contains(said, "server.public_url: ") != (moved != "") || !strings.Contains(said, `"do": "server.public_url: `+moved+`"`) && moved != "" {
			t.Errorf("%s: %s", location, said)
		}
		want(t, r, "redirect", doctor.Error, "no redirect below /token")
	}
}

// What is not surely this machine may be reached by a proxy, or be another machine.
func TestAPasswordIsNotSentInClear(t *testing.T) {
	w := newWorld(t)
	w.subject.User, w.subject.Password, w.subject.Registry = "alice", "secret", ""
	real := strings.TrimPrefix(w.subject.PublicURL, "http://")
	w.subject.PublicURL = strings.Replace(w.subject.PublicURL, "localhost", "auth.localhost", 1)
	w.subject.Client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		if _, password, _ := r.BasicAuth(); password != "" {
			t.Errorf("%s %s carries the password", r.Method, r.URL)
		}
		r.URL.Host = real
		return http.DefaultTransport.RoundTrip(r)
	})
	want(t, w.examine(), "login", doctor.Warning, "was not tried", "in clear to http://auth.localhost:")
}

// Who keeps Authorization for himself answers every password with a token; who takes POST has the place of authserver.
func TestAPasswordIsNotForWhatStandsBetween(t *testing.T) {
	for name, bend := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"authorization-header": func(_ http.ResponseWriter, r *http.Request) bool { r.Header.Del("Authorization"); return false },
		"post": func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				rw.WriteHeader(http.StatusForbidden)
			}
			return r.Method == http.MethodPost
		},
	} {
		w := newWorld(t)
		w.subject.User, w.subject.Password, w.subject.Registry = "mallory", "secret", ""
		before := w.auth
		w.auth = func(rw http.ResponseWriter, r *http.Request) {
			if _, password, _ := r.BasicAuth(); password != "" {
				t.Errorf("%s: it was told the password", name)
			}
			if !bend(rw, r) {
				before(rw, r)
			}
		}
		r := w.examine()
		want(t, r, name, doctor.Error)
		want(t, r, "login", doctor.Note, "was not tried")
	}
}

// What doctor signs is valid for no longer than it says; what is for somebody who is not listed, no longer than a token.
func TestHowLongProbesAreValid(t *testing.T) {
	for service, most := range map[string]time.Duration{"registry.test": 2*time.Hour + 30*time.Second, "other": 5*time.Minute + 30*time.Second} {
		w := newWorld(t)
		w.registry.service, w.registry.keysOf = service, ""
		longest := time.Duration(0)
		w.registry.answer = func(_ http.ResponseWriter, r *http.Request) bool {
			if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
				text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
				var c claims
				if err != nil || json.Unmarshal(text, &c) != nil {
					t.Fatal(token)
				}
				longest = max(longest, time.Duration(c.Exp-c.Nbf)*time.Second)
			}
			return false
		}
		w.examine()
		if longest != most {
			t.Errorf("for %s a token was valid for %s, want %s", service, longest, most)
		}
	}
}

// What a registry says is typed by somebody later.
func TestACommandOfAnAnswerIsOneWord(t *testing.T) {
	w := newWorld(t)
	w.registry.answer = func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Header()["Location"] = []string{"https://registry.test/$(touch)/v2/"}
		rw.WriteHeader(http.StatusFound)
		return true
	}
	want(t, w.examine(), "registry", doctor.Error, "--registry 'https://registry.test/$(touch)'")
}

// Names may be answered slowly, and with as many addresses as their owner likes.
func TestANameIsResolvedOnce(t *testing.T) {
	w := newWorld(t)
	w.subject.Registry = "https://registry.test"
	w.subject.PublicURL = "https://auth.test"
	w.registry.realm = "https://auth.test/token"
	asked := map[string]int{}
	w.subject.Resolve = func(host string) []string {
		asked[host]++
		return slices.Repeat([]string{"10.0.0.1"}, 1000)
	}
	w.subject.Client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		if !strings.HasSuffix(r.URL.Path, "/v2/") {
			return nil, fmt.Errorf("not here")
		}
		answer := httptest.NewRecorder()
		w.greet(answer, r)
		return answer.Result(), nil
	})
	w.examine()
	if asked["auth.test"] != 1 || asked["registry.test"] != 1 {
		t.Errorf("asked %v", asked)
	}
}

func TestTheWayToUs(t *testing.T) {
	for name, c := range map[string]struct {
		bend     func(w *world, before http.HandlerFunc) http.HandlerFunc
		check    string
		severity doctor.Severity
		words    []string
	}{
		"redirect": {func(_ *world, _ http.HandlerFunc) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, "https://auth.test/token", http.StatusMovedPermanently)
			}
		}, "redirect", doctor.Error, []string{"server.public_url: https://auth.test"}},
		"redirect of POST": {func(_ *world, before http.HandlerFunc) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					http.Redirect(rw, r, "/token/", http.StatusFound)
					return
				}
				before(rw, r)
			}
		}, "redirect", doctor.Error, []string{"POST"}},
		"no POST": {func(_ *world, before http.HandlerFunc) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					http.Error(rw, "no", http.StatusForbidden)
					return
				}
				before(rw, r)
			}
		}, "post", doctor.Error, []string{"403"}},
		"no Authorization": {func(_ *world, before http.HandlerFunc) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				r.Header.Del("Authorization")
				before(rw, r)
			}
		}, "authorization-header", doctor.Error, nil},
		"wants a password": {func(_ *world, _ http.HandlerFunc) http.HandlerFunc {
			return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusUnauthorized) }
		}, "public-url", doctor.Error, []string{"wants a password from everybody"}},
		"bad gateway": {func(_ *world, _ http.HandlerFunc) http.HandlerFunc {
			return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusBadGateway) }
		}, "public-url", doctor.Error, []string{"502"}},
		"somebody else": {func(_ *world, _ http.HandlerFunc) http.HandlerFunc {
			return func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>") }
		}, "public-url", doctor.Error, []string{"no token", "pass /token on"}},
		"wrong password": {func(w *world, before http.HandlerFunc) http.HandlerFunc {
			w.subject.User = "bob"
			return before
		}, "login", doctor.Error, []string{"not correct"}},
		"held back": {func(w *world, before http.HandlerFunc) http.HandlerFunc {
			w.subject.User = "bob"
			return func(rw http.ResponseWriter, r *http.Request) {
				if name, _, _ := r.BasicAuth(); name == "bob" {
					rw.WriteHeader(http.StatusTooManyRequests)
					return
				}
				before(rw, r)
			}
		}, "login", doctor.Error, []string{"429"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.auth = c.bend(w, w.auth)
			want(t, w.examine(), c.check, c.severity, c.words...)
		})
	}
}

func TestAServerWithOtherKeys(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	w.subject.Ring = other.ring
	want(t, w.examine(), "other-keys", doctor.Error, "issuer.data_dir")
}

func TestNobodyRuns(t *testing.T) {
	w := newWorld(t)
	w.subject.PublicURL, w.subject.Registry, w.subject.Running = "http://localhost:1", "", false
	want(t, w.examine(), "public-url", doctor.Note, "nobody listens")
	w.subject.Running = true
	want(t, w.examine(), "public-url", doctor.Error, "nobody listens")
}

// A proxy of the environment is no part of the server behind it.
func TestAProxyOfTheEnvironment(t *testing.T) {
	for proxy, words := range map[string][]string{
		"http://127.0.0.1:1":        {"auth.test is asked for by way of a proxy", "HTTPS_PROXY", "connection refused"},
		"http://bob:s3cret@[::1]:1": {"auth.test is asked for by way of a proxy", "NO_PROXY"},
	} {
		w := newWorld(t)
		w.subject.PublicURL, w.subject.Registry = "https://auth.test", ""
		address, err := url.Parse(proxy)
		if err != nil {
			t.Fatal(err)
		}
		w.subject.Client.Transport = &http.Transport{Proxy: http.ProxyURL(address)}
		r := w.examine()
		want(t, r, "public-url", doctor.Error, words...)
		if said := show(r); strings.Contains(said, "nobody listens") || strings.Contains(said, "start it") || strings.Contains(said, "s3cret") {
			t.Error(said)
		}
	}
}

func TestTLSAsClientsSeeIt(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	w.subject.PublicURL = server.URL
	want(t, w.examine(), "public-url", doctor.Error, "signed by nobody whom this machine trusts")
	client := *server.Client()
	w.subject.Client = &client
	w.subject.PublicURL = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	want(t, w.examine(), "public-url", doctor.Error, "is not for that name", "localhost")
	w.subject.PublicURL = strings.Replace(server.URL, "https:", "http:", 1)
	want(t, w.examine(), "public-url", doctor.Error, "400")
	w.subject.PublicURL = strings.Replace(w.registry.realm[:len(w.registry.realm)-len("/token")], "http:", "https:", 1)
	want(t, w.examine(), "public-url", doctor.Error, "does not speak TLS")
}

func TestRealmsThatClientsRefuse(t *testing.T) {
	for _, c := range []struct {
		realm, registry, check string
		severity               doctor.Severity
	}{
		{"http://auth.test/token", "https://registry.test", "realm-scheme", doctor.Error},
		{"http://auth.test/token", "http://registry.test", "realm-scheme", doctor.Warning},
		{"http://auth.localhost/token", "http://registry.test", "realm-scheme", doctor.Warning},
		{"https://10.0.0.1/token", "https://registry.test", "realm-address", doctor.Error},
		{"https://10.0.0.1:5001/token", "https://10.0.0.1", "realm-address", doctor.Warning},
		{"https://203.0.113.9/token", "https://registry.test", "realm-address", doctor.Warning},
		{"https://private.test/token", "https://registry.test", "realm-address", doctor.Warning},
		{"https://auth.test/Token", "https://registry.test", "realm-characters", doctor.Warning},
		{"https://auth.test/token?a=b", "https://registry.test", "realm-characters", doctor.Warning},
		{"https://auth.test/token", "https://registry.test", "", doctor.OK},
		{"https://private.test/token", "https://alsoprivate.test", "", doctor.OK},
		{"https://private.test/token", "https://private.test", "", doctor.OK},
		{"https://10.0.0.1/token", "https://10.0.0.1", "realm-address", doctor.Warning},
	} {
		t.Run(c.realm+" "+c.registry, func(t *testing.T) {
			w := newWorld(t)
			w.subject.Resolve = func(host string) []string {
				if strings.Contains(host, "private") {
					return []string{"192.168.1.1"}
				}
				return []string{"203.0.113.9"}
			}
			real := w.subject.Registry
			w.subject.Registry, w.subject.PublicURL = c.registry, strings.TrimSuffix(c.realm, "/token")
			w.registry.realm = c.realm
			w.subject.Client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/v2/") {
					r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(real, "http://")
				} else {
					return nil, fmt.Errorf("not here")
				}
				return http.DefaultTransport.RoundTrip(r)
			})
			report := w.examine()
			if c.check != "" {
				want(t, report, c.check, c.severity)
				return
			}
			for _, f := range report.Findings {
				if strings.HasPrefix(f.Check, "realm") {
					t.Errorf("%s: %s", f.Check, f.What)
				}
			}
		})
	}
}

// Our public address can become that of a realm which ends in /token; of another, the registry has to change.
func TestARealmOfAnotherPath(t *testing.T) {
	for realm, moved := range map[string]string{"https://new.test/auth/token": "server.public_url: https://new.test", "https://new.test/tokens": "", "https://new.test": ""} {
		w := newWorld(t)
		w.registry.realm, w.subject.Registry = realm, ""
		w.subject.Stanza = w.stanza(t, "registry.test", "auth", issuer.EncodeCertificates(w.ring.Roots()...))
		report := w.examine()
		want(t, report, "realm", doctor.Error, "the registry sends clients to "+realm)
		if said := show(report); strings.Contains(said, "server.public_url: ") != (moved != "") || !strings.Contains(said, moved) {
			t.Errorf("%s: %s", realm, said)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What the registry's files say and what it does are put together.
func TestARegistryThatWasNotRestarted(t *testing.T) {
	w := newWorld(t)
	w.registry.keysOf = ""
	w.subject.Stanza = w.stanza(t, "registry.test", "auth", issuer.EncodeCertificates(w.ring.Roots()...))
	want(t, w.examine(), "restart", doctor.Error, "not restarted", "config.yml")

	w.registry.keysOf, w.registry.ahead = "registry.test", -3*time.Hour
	want(t, w.examine(), "clock", doctor.Error, "refuses our tokens, and its clock is wrong")
	w.registry.ahead = 0

	w.subject.Stanza = w.stanza(t, "registry.test", "other", issuer.EncodeCertificates(w.ring.Roots()...))
	w.registry.issuer, w.registry.keysOf = "other", "registry.test"
	r := w.examine()
	want(t, r, "issuer", doctor.Error, "config.yml:6", "auth.token.issuer: auth")
	if n := strings.Count(show(r), `"check": "issuer"`); n != 1 {
		t.Errorf("the issuer is said %d times\n%s", n, show(r))
	}
	w.subject.Stanza = w.stanza(t, "registry.test", "auth", issuer.EncodeCertificates(newWorld(t).ring.Roots()...))
	w.registry.keysOf = ""
	want(t, w.examine(), "trial", doctor.Error, "as what stands above")
}

// stanza is a distribution's configuration, with its certificates beside it.
func (w *world) stanza(t *testing.T, service, name string, bundle []byte) *doctor.Stanza {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf("version: 0.1\nauth:\n  token:\n    realm: %s\n    service: %s\n    issuer: %s\n    rootcertbundle: /etc/registry/bundle.pem\n", w.registry.realm, service, name)
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bundle.pem"), bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := doctor.ReadStanza(filepath.Join(dir, "config.yml"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
