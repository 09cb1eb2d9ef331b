package doctor_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	chartmuseum "github.com/chartmuseum/auth"
	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"authserver/e2e/harness"
)

// What doctor calls the versions of Distribution that are here.
var verifierOf = map[string]string{
	"2.5.2": "distribution 2.5", "2.8.3": "distribution 2.6 to 2.8, GitLab", "3.0.0": "distribution 3.0", "3.1.2": "distribution 3.1",
}

// verdict is what the access controller of a version makes of a token: it does not start, refuses, or accepts.
func verdict(t *testing.T, version, options, token string) string {
	t.Helper()
	question, err := json.Marshal(map[string]any{"token": token, "access": []any{}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := harness.Run(t, nil, string(question)+"\n", harness.Program(t, "registry-"+version), "verify", options)
	if err != nil {
		return "does not start"
	}
	var said harness.Verdict
	if err := json.Unmarshal([]byte(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]), &said); err != nil {
		t.Fatalf("registry verify: %v\n%s", err, out)
	}
	if said.OK {
		return "accepts"
	}
	return "refuses"
}

// A stanza is auth.token as it is given to a registry for a service: with what was exported for it, unless changed.
type stanza struct {
	name   string
	change func(s *setup)
}

type setup struct {
	*testing.T
	w       *world
	service string
	dir     string
	token   map[string]any // auth.token
}

func (s *setup) file(name, text string) string {
	s.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	return path
}

func (s *setup) export(args ...string) string {
	s.Helper()
	return s.w.auth.Command(s, "", append([]string{"key", "export"}, args...)...)
}

// certificates are what a registry that checks certificates of this service is given, or else the root.
func (s *setup) certificates() string {
	s.Helper()
	if strings.HasPrefix(s.service, "pinned") {
		return s.export("--service", s.service)
	}
	return s.export()
}

// bundle is given as rootcertbundle.
func (s *setup) bundle(text string) { s.token["rootcertbundle"] = s.file("bundle.pem", text) }

// keySet is given as jwks, and what it holds is changed.
func (s *setup) keySet(change func(keys []map[string]any) []map[string]any) {
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(harness.ReadFile(s, s.w.published), &set); err != nil {
		s.Fatal(err)
	}
	if change != nil {
		set.Keys = change(set.Keys)
	}
	text, err := json.Marshal(set)
	if err != nil {
		s.Fatal(err)
	}
	s.token["jwks"] = s.file("jwks.json", string(text))
}

func (s *setup) block(kind string, data []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
}

// stanzas are ways to set a registry up, right ones and wrong ones.
var stanzas = []stanza{
	{"certificates", func(s *setup) { s.bundle(s.certificates()) }},
	{"jwks", func(s *setup) { s.keySet(nil) }},
	{"certificates and jwks", func(s *setup) { s.bundle(s.certificates()); s.keySet(nil) }},
	{"nothing to trust", func(*setup) {}},
	{"another issuer", func(s *setup) { s.bundle(s.certificates()); s.keySet(nil); s.token["issuer"] = "authserver/" }},
	{"another service", func(s *setup) { s.bundle(s.certificates()); s.keySet(nil); s.token["service"] = "another" }},
	{"no issuer", func(s *setup) { s.bundle(s.certificates()); s.keySet(nil); delete(s.token, "issuer") }},
	{"no service", func(s *setup) { s.bundle(s.certificates()); s.keySet(nil); delete(s.token, "service") }},
	{"a null issuer", func(s *setup) { s.bundle(s.certificates()); s.keySet(nil); s.token["issuer"] = nil }},
	{"a jwks as certificates", func(s *setup) {
		s.keySet(nil)
		s.token["rootcertbundle"] = s.token["jwks"]
		delete(s.token, "jwks")
	}},
	{"no realm", func(s *setup) { s.bundle(s.certificates()); s.keySet(nil); delete(s.token, "realm") }},
	{"the leaf", func(s *setup) {
		file := filepath.Join(s.w.auth.Dir, "data", strings.Replace(s.service, "-", "/", 1)+".crt")
		text, err := os.ReadFile(file)
		if err != nil {
			text = []byte(s.certificates())
		}
		s.bundle(string(text))
	}},
	{"another root of the name", func(s *setup) { s.bundle(string(harness.ReadFile(s, s.w.stranger.Root))) }},
	{"two roots", func(s *setup) { s.bundle(string(harness.ReadFile(s, s.w.stranger.Root)) + s.certificates()) }},
	{"a private key beside", func(s *setup) { s.bundle(s.certificates() + s.block("PRIVATE KEY", []byte("no key"))) }},
	{"a public key beside", func(s *setup) { s.bundle(s.certificates() + s.block("PUBLIC KEY", []byte("no key"))) }},
	{"text before", func(s *setup) { s.bundle("Subject: CN=authserver\n" + s.certificates()) }},
	{"a public key alone", func(s *setup) { s.bundle(s.block("PUBLIC KEY", []byte("no key"))) }},
	{"a public key, and jwks", func(s *setup) { s.bundle(s.block("PUBLIC KEY", []byte("no key"))); s.keySet(nil) }},
	{"a damaged certificate", func(s *setup) { s.bundle(s.certificates() + s.block("CERTIFICATE", []byte("damaged"))); s.keySet(nil) }},
	{"an empty bundle", func(s *setup) { s.bundle("") }},
	{"an Ed25519 certificate beside", func(s *setup) { s.bundle(s.certificates() + s.export("--service", "pinned-eddsa")) }},
	{"jwks without our key", func(s *setup) {
		s.keySet(func(keys []map[string]any) []map[string]any { return keys[:0:0] })
		s.bundle(s.certificates())
	}},
	{"an empty jwks", func(s *setup) { s.keySet(func(keys []map[string]any) []map[string]any { return keys[:0:0] }) }},
	{"a jwks that is none", func(s *setup) { s.token["jwks"] = s.file("jwks.json", "<html>"); s.bundle(s.certificates()) }},
	{"kids of another kind", func(s *setup) {
		s.keySet(func(keys []map[string]any) []map[string]any {
			for i := range keys {
				keys[i]["kid"] = fmt.Sprint("key", i)
			}
			return keys
		})
	}},
	{"RS256 and EdDSA only", func(s *setup) {
		s.bundle(s.certificates())
		s.keySet(nil)
		s.token["signingalgorithms"] = []string{"RS256", "EdDSA"}
	}},
	{"ES256 only", func(s *setup) {
		s.bundle(s.certificates())
		s.keySet(nil)
		s.token["signingalgorithms"] = []string{"ES256"}
	}},
	{"an algorithm that is none", func(s *setup) {
		s.bundle(s.certificates())
		s.token["signingalgorithms"] = []string{"ES256", "RS256", "es384"}
	}},
	{"no algorithm", func(s *setup) { s.bundle(s.certificates()); s.keySet(nil); s.token["signingalgorithms"] = []string{} }},
	{"autoredirect", func(s *setup) { s.bundle(s.certificates()); s.keySet(nil); s.token["autoredirect"] = true }},
}

// What doctor predicts of a configuration is what the registry of that version does: 31 configurations for five kinds of
// services, each held against four real access controllers.
func TestPredictions(t *testing.T) {
	t.Parallel()
	names := []string{"chain-es256", "pinned-rs256", "pinned-eddsa", "jwks-rs256", "jwks-eddsa"}
	config := "services:\n"
	algorithms := map[string]string{"es256": "ES256", "es384": "ES384", "rs256": "RS256", "eddsa": "EdDSA"}
	for _, name := range names {
		verifier, algorithm, _ := strings.Cut(name, "-")
		config += fmt.Sprintf("  - {name: %s, verifier: %s, algorithm: %s}\n", name, verifier, algorithms[algorithm])
	}
	w := &world{T: t, auth: harness.StartAuthserver(t, harness.Options{Config: config + "users: [{kind: htpasswd, file: users.htpasswd}]\nacl: {files: [policy.yaml]}\n"})}
	w.stranger = harness.StartAuthserver(t, harness.Options{})
	w.published = filepath.Join(t.TempDir(), "published.json")
	w.write(w.published, w.get("/.well-known/jwks.json"))
	tally, cells := map[string]int{}, 0
	for _, name := range names {
		token := w.auth.Token(t, "", "", name)
		for _, c := range stanzas {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				s := &setup{t, w, name, t.TempDir(), map[string]any{"realm": w.auth.URL + "/token", "service": name, "issuer": "authserver"}}
				c.change(s)
				options, err := json.Marshal(s.token)
				if err != nil {
					t.Fatal(err)
				}
				var config bytes.Buffer // JSON is YAML
				if err := json.Indent(&config, fmt.Appendf(nil, `{"version":"0.1","auth":{"token":%s}}`, options), "", " "); err != nil {
					t.Fatal(err)
				}
				r := w.doctor("--registry-config", s.file("config.yml", config.String()))
				accepted := false // by a version that the configuration is written for
				for version, called := range verifierOf {
					real := verdict(t, version, s.file("options.json", string(options)), token)
					cells++
					tally[real]++
					accepted = accepted || real == "accepts" && (version[0] == '3' || s.token["jwks"] == nil && s.token["signingalgorithms"] == nil)
					if p := r.of(called); p.Verdict != real {
						t.Errorf("%s %s, and doctor says that it %s because of %v", version, real, p.Verdict, p.Because)
					}
				}
				if accepted == (r.Worst == "error") && c.name != "another service" && c.name != "no realm" {
					t.Errorf("a version that it is for takes it: %v; doctor's worst finding is %q\n%s", accepted, r.Worst, r)
				}
				if t.Failed() {
					t.Logf("%s\n%s", config.String(), r)
				}
			})
		}
	}
	t.Logf("%d cells: %v", cells, tally)
	if tally["accepts"] < 100 || tally["refuses"] < 100 || tally["does not start"] < 100 {
		t.Errorf("a matrix of one kind proves little: %v", tally)
	}
}

// What the file around auth.token does to a registry: none of these is seen by an access controller alone.
func TestPredictionsOfWholeFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", harness.Options{})
	const token = "{realm: REALM, service: registry.test, issuer: authserver, rootcertbundle: ROOT}"
	ours := w.auth.Token(t, "", "", "registry.test")
	for name, c := range map[string]struct {
		auth  string
		env   []string
		real  string // any of these
		says  string // verdict, "" = there is none
		check string
	}{
		"as it should be":       {"auth: {token: " + token + "}", nil, "accepts", "accepts", "stanza"},
		"passwords too":         {"auth: {htpasswd: {realm: x, path: /none}, token: " + token + "}", nil, "does not start", "does not start", "not-token"},
		"passwords, merged":     {"x: &x {htpasswd: {realm: x, path: /none}}\nauth: {<<: *x, token: " + token + "}", nil, "does not start", "does not start", "not-token"},
		"all of it merged":      {"x: &x " + token + "\nauth: {token: {<<: *x}}", nil, "accepts", "accepts", "stanza"},
		"merged under":          {"x: &x {issuer: other}\nauth: {token: {<<: *x, " + token[1:] + "}", nil, "accepts", "accepts", "stanza"},
		"merged over":           {"x: &x {issuer: other}\nauth: {token: " + token[:len(token)-1] + ", <<: *x}}", nil, "refuses", "cannot be told", "issuer"},
		"null":                  {"auth: {token: " + strings.Replace(token, "authserver", "null", 1) + "}", nil, "does not start", "does not start", "issuer"},
		"a second document":     {"auth: {token: " + token + "}\n---\nauth: {htpasswd: {realm: x, path: /none}}", nil, "accepts", "accepts", "stanza"},
		"none, by environment":  {"", []string{"REGISTRY_AUTH=none"}, "accepts, asks for no tokens, does not start", "", "not-token"}, // by chance
		"token, by environment": {"", []string{"REGISTRY_AUTH=token"}, "accepts", "accepts", "stanza"},
	} {
		for version, called := range verifierOf {
			t.Run(name+"/"+version, func(t *testing.T) {
				w := &world{T: t, auth: w.auth}
				dir := t.TempDir()
				fill := strings.NewReplacer("REALM", w.auth.URL+"/token", "ROOT", w.auth.Root)
				port := harness.FreePort(t)
				text := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: \"127.0.0.1:%d\"}\n", filepath.Join(dir, "images"), port)
				config, given := filepath.Join(dir, "config.yml"), filepath.Join(dir, "config.yml")
				w.write(config, text+fill.Replace(c.auth)+"\n")
				env := []string{"OTEL_TRACES_EXPORTER=none"}
				if c.env != nil {
					given = filepath.Join(dir, "registry.env")
					variables := append([]string{"REGISTRY_AUTH_TOKEN_REALM=" + w.auth.URL + "/token", "REGISTRY_AUTH_TOKEN_SERVICE=registry.test", "REGISTRY_AUTH_TOKEN_ISSUER=authserver", "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE=" + w.auth.Root}, c.env...)
					w.write(given, strings.Join(variables, "\n")+"\n")
					env = append(env, variables...)
				}
				if real := judged(t, version, config, port, env, ours); !strings.Contains(c.real, real) {
					t.Errorf("the registry: %s, want %s", real, c.real)
				}
				r := w.doctor("--registry-config", given)
				if p := r.of(called); c.says != "" && p.Verdict != c.says || c.says == "" && len(r.Predictions) > 0 {
					t.Errorf("doctor says that it %s because of %v, want %q\n%s", p.Verdict, p.Because, c.says, r)
				}
				if !slices.ContainsFunc(r.Findings, func(f finding) bool { return f.Check == c.check }) || (r.exit == 0) != (c.says == "accepts" || c.says == "cannot be told") {
					t.Errorf("exit status %d, want %s\n%s", r.exit, c.check, r)
				}
			})
		}
	}
}

// judged is what a whole registry makes of a token.
func judged(t *testing.T, version, config string, port int, env []string, token string) string {
	t.Helper()
	cmd := exec.Command(harness.Program(t, "registry-"+version), "serve", config)
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	address := fmt.Sprintf("http://127.0.0.1:%d/v2/", port)
	for range 600 {
		if response, err := http.Get(address); err == nil {
			response.Body.Close()
			with := bearer(t, "GET", address, token)
			cmd.Process.Kill()
			<-ended
			switch {
			case response.StatusCode == http.StatusOK:
				return "asks for no tokens"
			case with == http.StatusOK:
				return "accepts"
			}
			return "refuses"
		}
		select {
		case <-ended:
			return "does not start"
		case <-time.After(50 * time.Millisecond):
		}
	}
	cmd.Process.Kill()
	t.Fatal("it neither answers nor ends")
	return ""
}

// Before the keys are made, or where they cannot be read, nothing fits; what needs no key is compared all the same.
func TestPredictionsWithoutKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", harness.Options{}).aside()
	if err := os.RemoveAll(filepath.Join(w.auth.Dir, "data")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cannot be told", "refuses"} {
		if want == "refuses" {
			w.change(w.registry.file, "issuer: .*", "issuer: WRONG")
		}
		r := w.doctor("--registry-config", w.registry.file)
		for version, called := range verifierOf {
			if p := r.of(called); p.Verdict != want {
				t.Errorf("%s: %s because of %v, want %s", version, p.Verdict, p.Because, want)
			}
		}
		if slices.ContainsFunc(r.Findings, func(f finding) bool { return f.Check == "stanza" }) {
			t.Errorf("it is said to fit\n%s", r)
		}
	}
}

// zots are the checks of zot and ChartMuseum. ChartMuseum's own library is also that of zot up to 2.1.2; what later ones
// do was written down from their source: they take one key, by any of these ways, and look at its signature.
var zots = map[string]func(file []byte, token string) string{
	"zot up to 2.1.2":     byChartMuseum,
	"chartmuseum 0.16":    byChartMuseum,
	"zot 2.1.3 to 2.1.14": func(file []byte, token string) string { return byOneKey(firstKey(file), token) },
	"zot from 2.1.15": func(file []byte, token string) string {
		var set jose.JSONWebKeySet
		if json.Unmarshal(file, &set) == nil {
			if len(set.Keys) != 1 {
				return "does not start"
			}
			return byOneKey(set.Keys[0].Key, token)
		}
		return byOneKey(firstKey(file), token)
	},
}

func byChartMuseum(file []byte, token string) string {
	authorizer, err := chartmuseum.NewAuthorizer(&chartmuseum.AuthorizerOptions{PublicKey: file, AccessEntryType: "repository", EmptyDefaultNamespace: true})
	if err != nil {
		return "does not start"
	}
	if permission, err := authorizer.Authorize("Bearer "+token, "pull", "team/app"); err != nil || !permission.Allowed {
		return "refuses"
	}
	return "accepts"
}

func firstKey(file []byte) any {
	block, _ := pem.Decode(file)
	if block == nil {
		return nil
	}
	if c, err := x509.ParseCertificate(block.Bytes); err == nil {
		return c.PublicKey
	}
	if key, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
		return key
	}
	return nil
}

func byOneKey(key any, token string) string {
	if key == nil {
		return "does not start"
	}
	methods := jwt.WithValidMethods([]string{"EdDSA", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"})
	if _, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return key, nil }, methods, jwt.WithIssuedAt()); err != nil {
		return "refuses"
	}
	return "accepts"
}

// The same for registries that compare with one key.
func TestPredictionsForOneKey(t *testing.T) {
	t.Parallel()
	names := []string{"pinned ES256", "pinned RS256", "pinned EdDSA", "chain ES256", "chain RS256", "jwks ES256"}
	w := newWorld(t, "", harness.Options{Config: services(names...)})
	export := func(args ...string) string {
		return w.auth.Command(t, "", append([]string{"key", "export"}, args...)...)
	}
	public := func(certificate string) string {
		block, _ := pem.Decode([]byte(certificate))
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(c.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	tally, cells := map[string]int{}, 0
	for i, name := range names {
		service := "registry.test"
		if i > 0 {
			service = fmt.Sprintf("other%d.test", i)
		}
		token := w.auth.Token(t, "admin", w.auth.Password, service, "repository:team/app:pull")
		leaf := filepath.Join(w.auth.Dir, "data", strings.ToLower(strings.Replace(name, " ", "/", 1))+".crt")
		files := map[string]string{
			"root":           export(),
			"another's":      string(harness.ReadFile(t, harness.NewCA(t).File)),
			"no PEM":         "nothing",
			"a damaged one":  "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
			"JWKS":           export("--service", service, "--format", "jwks"),
			"JWKS of others": export("--service", "registry.test", "--format", "jwks"),
			"published JWKS": w.get("/.well-known/jwks.json"),
		}
		if strings.HasPrefix(name, "pinned") {
			files["certificate"] = export("--service", service)
			files["public key"] = public(files["certificate"])
			files["certificate and root"] = files["certificate"] + files["root"]
			files["root and certificate"] = files["root"] + files["certificate"]
		} else if strings.HasPrefix(name, "chain") {
			files["leaf"] = string(harness.ReadFile(t, leaf))
		}
		for kind, text := range files {
			t.Run(name+"/"+kind, func(t *testing.T) {
				w := &world{T: t, auth: w.auth}
				dir := t.TempDir()
				trust := filepath.Join(dir, "trust")
				w.write(trust, text)
				zot, chartmuseum := filepath.Join(dir, "zot.json"), filepath.Join(dir, "chartmuseum.env")
				w.write(zot, fmt.Sprintf(`{"http":{"auth":{"bearer":{"realm":%q,"service":%q,"cert":%q}}}}`, w.auth.URL+"/token", service, trust))
				w.write(chartmuseum, fmt.Sprintf("BEARER_AUTH=true\nAUTH_REALM=%s\nAUTH_SERVICE=%s\nAUTH_CERT_PATH=%s\n", w.auth.URL+"/token", service, trust))
				of := w.doctor("--registry-config", zot)
				if kind == "certificate" { // as it should be
					of.says(t)
				}
				of.Predictions = append(of.Predictions, w.doctor("--registry-config", chartmuseum).Predictions...)
				for called, check := range zots {
					real := check([]byte(text), token)
					cells++
					tally[real]++
					if p := of.of(called); p.Verdict != real {
						t.Errorf("%s %s, and doctor says that it %s because of %v\n%s", called, real, p.Verdict, p.Because, of)
					}
				}
			})
		}
	}
	t.Logf("%d cells: %v", cells, tally)
	if tally["accepts"] < 25 || tally["refuses"] < 25 || tally["does not start"] < 25 {
		t.Errorf("a matrix of one kind proves little: %v", tally)
	}
}

func (r report) of(verifier string) prediction {
	for _, p := range r.Predictions {
		if p.Verifier == verifier {
			return p
		}
	}
	return prediction{Verdict: "is not there"}
}
