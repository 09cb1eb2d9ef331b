package contract_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// All kinds of verifiers with all algorithms that they take.
var services = []service{
	{"chain", "ES256"}, {"chain", "ES384"}, {"chain", "RS256"}, {"chain", "RS384"}, {"chain", "RS512"},
	{"pinned", "ES256"}, {"pinned", "ES384"}, {"pinned", "RS256"}, {"pinned", "RS384"}, {"pinned", "RS512"}, {"pinned", "EdDSA"},
	{"jwks", "ES256"}, {"jwks", "ES384"}, {"jwks", "RS256"}, {"jwks", "RS384"}, {"jwks", "RS512"}, {"jwks", "EdDSA"},
}

// versions are the Distribution versions that can verify for the service.
func (s service) versions() []string {
	if s.verifier == "jwks" || s.algorithm == "EdDSA" {
		return []string{"3.0.0", "3.1.2"} // the older ones know neither
	}
	return []string{"2.5.2", "2.8.3", "3.0.0", "3.1.2"}
}

// trust is the auth.token section of a registry of the service.
func (s service) trust(t *testing.T, a *harness.Authserver) harness.VerifierOptions {
	t.Helper()
	o := harness.VerifierOptions{Realm: a.URL + "/token", Service: s.name(), Issuer: issuer}
	if s.verifier == "jwks" {
		o.JWKS = a.Export(t, "jwks", s.name())
	} else {
		o.RootCertBundle = a.Export(t, "pem", s.name())
	}
	return o
}

func TestDistribution(t *testing.T) {
	a := startAuthserver(t, services)
	stranger := startAuthserver(t, services) // the same in everything but its keys
	for _, s := range services {
		t.Run(s.name(), func(t *testing.T) {
			questions := genuine(t, a, s)
			forgeries := forged(t, a, s)
			trust := s.trust(t, a)
			strangers := s.trust(t, stranger)
			for _, version := range s.versions() {
				t.Run(version, func(t *testing.T) {
					verifier := harness.StartVerifier(t, version, trust)
					for _, q := range append(questions, forgeries...) {
						t.Run(q.name, func(t *testing.T) { q.ask(t, verifier) })
					}

					// Now registries that differ from ours in one thing.
					q := questions[0]
					q.wantOK, q.wantSubject, q.wantError = false, "", ""

					other := trust
					other.Issuer = issuer + "/" // compared byte by byte
					t.Run("wrong issuer", func(t *testing.T) { q.ask(t, harness.StartVerifier(t, version, other)) })

					other = trust
					other.Service = "another.test"
					t.Run("wrong service", func(t *testing.T) { q.ask(t, harness.StartVerifier(t, version, other)) })

					t.Run("trusts another key", func(t *testing.T) { q.ask(t, harness.StartVerifier(t, version, strangers)) })
				})
			}
		})
	}
}

// A question is a token held against what a request demands.
type question struct {
	name   string
	token  string
	access []harness.Access

	wantOK      bool
	wantSubject string
	wantError   string // the challenge's error; any when empty
}

func (q question) ask(t *testing.T, v *harness.Verifier) {
	t.Helper()
	verdict := v.Check(t, q.token, q.access...)
	if verdict.OK != q.wantOK {
		t.Fatalf("accepted: %v, want %v; %s; %s", verdict.OK, q.wantOK, verdict.Error, verdict.Challenge)
	}
	if verdict.Subject != q.wantSubject {
		t.Errorf("subject %q, want %q", verdict.Subject, q.wantSubject)
	}
	if !q.wantOK && !strings.HasPrefix(verdict.Challenge, "Bearer realm=") {
		t.Errorf("no challenge: %s", verdict.Error)
	}
	if q.wantError != "" && !strings.Contains(verdict.Challenge, `error="`+q.wantError+`"`) {
		t.Errorf("challenge %s, want error %q", verdict.Challenge, q.wantError)
	}
}

func repository(name string, actions ...string) []harness.Access {
	var access []harness.Access
	for _, action := range actions {
		access = append(access, harness.Access{Type: "repository", Name: name, Action: action})
	}
	return access
}

// genuine asks authserver for tokens and says what they must be good for.
// The first one is for a simple push.
func genuine(t *testing.T, a *harness.Authserver, s service) []question {
	const app = "alice/app"
	tokenOf := map[string]func(scopes ...string) string{
		"":      func(scopes ...string) string { return a.Token(t, "", "", s.name(), scopes...) },
		"alice": func(scopes ...string) string { return a.Token(t, "alice", alicePassword, s.name(), scopes...) },
		"bob":   func(scopes ...string) string { return a.Token(t, "bob", bobPassword, s.name(), scopes...) },
		"root":  func(scopes ...string) string { return a.Token(t, "root", rootPassword, s.name(), scopes...) },
	}
	var questions []question
	accepted := func(name, user string, access []harness.Access, scopes ...string) {
		questions = append(questions, question{name, tokenOf[user](scopes...), access, true, user, ""})
	}
	refused := func(name, user string, access []harness.Access, scopes ...string) {
		questions = append(questions, question{name, tokenOf[user](scopes...), access, false, "", "insufficient_scope"})
	}
	catalog := []harness.Access{{Type: "registry", Name: "catalog", Action: "*"}}

	accepted("push", "alice", repository(app, "pull", "push"), "repository:alice/app:pull,push")
	accepted("login", "alice", nil)
	accepted("anonymous login", "", nil)
	accepted("anonymous pull", "", repository("public/app", "pull"), "repository:public/app:pull")
	accepted("pull by a plugin's scope", "alice", repository(app, "pull"), "repository(plugin):alice/app:pull")
	accepted("mount", "bob", append(repository("bob/copy", "pull", "push"), repository(app, "pull")...),
		"repository:bob/copy:push,pull", "repository:alice/app:pull")
	accepted("catalog", "root", catalog, "registry:catalog:*")

	refused("push with a pull token", "alice", repository(app, "pull", "push"), "repository:alice/app:pull")
	refused("push by a reader", "bob", repository(app, "pull", "push"), "repository:alice/app:pull,push")
	refused("pull with a login token", "alice", repository(app, "pull"))
	refused("pull of another repository", "alice", repository("alice/other", "pull"), "repository:alice/app:pull")
	refused("anonymous pull of a private repository", "", repository(app, "pull"), "repository:alice/app:pull")
	refused("catalog by a user", "alice", catalog, "registry:catalog:*")
	refused("mount from what is not granted", "alice", append(repository(app, "pull", "push"), repository("bob/app", "pull")...),
		"repository:alice/app:push,pull", "repository:bob/app:pull")

	// Registries up to 2.6 demand "*" for a delete, later ones "delete".
	accepted("delete, asked as delete", "alice", repository(app, "delete"), "repository:alice/app:delete")
	accepted("delete, asked as *", "alice", repository(app, "delete"), "repository:alice/app:*")
	refused("old delete, asked as delete", "alice", repository(app, "*"), "repository:alice/app:delete")
	refused("old delete by who has not all rights", "alice", repository(app, "*"), "repository:alice/app:*")
	accepted("delete by who has all rights", "root", repository(app, "delete"), "repository:alice/app:*")
	accepted("old delete by who has all rights", "root", repository(app, "*"), "repository:alice/app:*")
	refused("delete by a reader", "bob", repository(app, "delete"), "repository:alice/app:*")
	return questions
}

// forged makes tokens that authserver would not make, with its own key where
// that is not the point.
func forged(t *testing.T, a *harness.Authserver, s service) []question {
	token := a.Token(t, "alice", alicePassword, s.name(), "repository:alice/app:pull")
	pull := repository("alice/app", "pull")
	key := readKey(t, s.keyFile(a))

	// Beyond the leeway of 60 seconds that versions from 2.6 on have.
	late := time.Now().Add(90 * time.Second).Unix()
	early := time.Now().Add(-90 * time.Second).Unix()

	var questions []question
	refused := func(name, token, reason string) {
		questions = append(questions, question{name, token, pull, false, "", reason})
	}
	// The forgery itself is good: what is refused below is refused for its change.
	unchanged := forge(t, token, key, func(map[string]any) {})
	questions = append(questions, question{"forged, unchanged", unchanged, pull, true, "alice", ""})

	refused("expired", forge(t, token, key, func(c map[string]any) { c["exp"] = early }), "invalid_token")
	refused("not yet valid", forge(t, token, key, func(c map[string]any) { c["nbf"] = late }), "invalid_token")
	refused("issued by another", forge(t, token, key, func(c map[string]any) { c["iss"] = "another" }), "invalid_token")
	refused("for another service", forge(t, token, key, func(c map[string]any) { c["aud"] = "another" }), "invalid_token")
	refused("signed with another key", forge(t, token, anotherKey(t, key), func(map[string]any) {}), "")

	// The claims of one genuine token under the signature of another.
	parts := strings.Split(token, ".")
	parts[1] = strings.Split(a.Token(t, "alice", alicePassword, s.name(), "repository:alice/app:pull,push"), ".")[1]
	refused("tampered with", strings.Join(parts, "."), "")
	return questions
}

// anotherKey makes a key of the same kind.
func anotherKey(t *testing.T, like crypto.Signer) crypto.PrivateKey {
	t.Helper()
	var key crypto.PrivateKey
	var err error
	switch k := like.Public().(type) {
	case *rsa.PublicKey:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case *ecdsa.PublicKey:
		key, err = ecdsa.GenerateKey(elliptic.Curve(k.Curve), rand.Reader)
	case ed25519.PublicKey:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		t.Fatalf("unknown key type %T", k)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A registry may also be given what authserver publishes.
func TestDistributionTakesThePublishedKeySet(t *testing.T) {
	var published []service
	for _, s := range services {
		if s.verifier == "jwks" {
			published = append(published, s)
		}
	}
	a := startAuthserver(t, published)
	response, err := http.Get(a.URL + "/.well-known/jwks.json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	set, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %v", response.StatusCode, err)
	}
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, set, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range published {
		for _, version := range s.versions() {
			t.Run(s.name()+"/"+version, func(t *testing.T) {
				trust := s.trust(t, a)
				trust.JWKS = path
				token := a.Token(t, "alice", alicePassword, s.name(), "repository:alice/app:pull")
				question{"pull", token, repository("alice/app", "pull"), true, "alice", ""}.ask(t, harness.StartVerifier(t, version, trust))
			})
		}
	}
}

// An Ed25519 certificate in its bundle keeps a registry up to 2.8 from starting.
func TestEdDSAIsRefusedForAChain(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "authserver.yaml")
	text := "services: [{name: registry.test, verifier: chain, algorithm: EdDSA}]\n" +
		"users: [{kind: htpasswd, file: users.htpasswd}]\nacl: {files: [policy.yaml]}\n"
	for name, content := range map[string]string{"authserver.yaml": text, "users.htpasswd": "", "policy.yaml": policy} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := harness.Run(t, nil, "", harness.Program(t, "authserver"), "config", "check", "--config", config)
	if err == nil || !strings.Contains(out, "services[0].algorithm") {
		t.Errorf("want a complaint about services[0].algorithm, got %v:\n%s", err, out)
	}
}
