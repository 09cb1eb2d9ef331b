package pages_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"authserver/e2e/harness"
)

// A dockerAuth gives tokens as cesanta/docker_auth does: RS256, the key named by libtrust's fingerprint, no certificate. It
// knows one user, who may do everything. (The program itself cannot be had.)
type dockerAuth struct {
	url         string
	certificate []byte // PEM
}

func startDockerAuth(t *testing.T, issuer, user, password string) dockerAuth {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: issuer}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(spki)
	var id []string
	for text := base32.StdEncoding.EncodeToString(sum[:30]); text != ""; text = text[4:] {
		id = append(id, text[:4])
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", strings.Join(id, ":")))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			http.Error(w, "Auth failed.", http.StatusUnauthorized)
			return
		}
		access := []any{}
		for _, scope := range r.URL.Query()["scope"] {
			if parts := strings.Split(scope, ":"); len(parts) == 3 {
				access = append(access, map[string]any{"type": parts[0], "name": parts[1], "actions": strings.Split(parts[2], ",")})
			}
		}
		now := time.Now().Unix()
		token, err := jwt.Signed(signer).Claims(map[string]any{
			"iss": issuer, "sub": user, "aud": r.URL.Query().Get("service"), "exp": now + 900, "nbf": now - 10, "iat": now, "jti": fmt.Sprint(now), "access": access,
		}).Serialize()
		if err != nil {
			t.Error(err)
		}
		json.NewEncoder(w).Encode(map[string]string{"token": token, "access_token": token})
	}))
	t.Cleanup(server.Close)
	return dockerAuth{strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/auth", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// Who has logged in while docker_auth was there goes on, and so do the tokens that it has given.
func TestFromDockerAuth(t *testing.T) {
	m := newMove(t, "docs/docker-auth.md")
	const issuer = "Acme auth server"
	before := startDockerAuth(t, issuer, "alice", "correct horse")
	if err := os.WriteFile(m.path("/etc/registry/token-bundle.pem"), before.certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	stanza := func(realm string) string {
		return fmt.Sprintf("auth:\n  token: {realm: %q, service: \"registry.example.com\", issuer: %q, rootcertbundle: /etc/registry/token-bundle.pem}\n", realm, issuer)
	}
	registry := m.registry(m.host, stanza(before.url))
	m.Set("PASSWORD=correct horse")
	m.must(m.Reader, `echo "$PASSWORD" | crane auth login -u alice --password-stdin registry.example.com && crane push `+harness.MakeImage(t, t.Name()).Archive+" registry.example.com/team/app:1")
	token := m.must(m.Reader, "crane auth token registry.example.com/team/app | jq -r .token")

	// The page's first command reads a configuration whose passwords are known here.
	scratch := harness.NewReader(t)
	hash := strings.TrimSpace(m.must(scratch, `authserver init s -o json >/dev/null && echo "correct horse" | authserver user add alice --backend htpasswd --password-stdin --config s/authserver.yaml --set passwords.bcrypt_cost=5 && grep ^alice: s/users.htpasswd | cut -d: -f2`))
	m.File("auth_config.yml", `server: {addr: ":5001"}
token: {issuer: %q, expiration: 900}
users:
  alice: {password: %q}
acl:
  - {match: {account: alice, name: "team/*"}, actions: ["*"]}
`, issuer, hash)
	m.follow("import")
	m.serve()
	m.follow("bundle")
	if err := registry.Stop(); err != nil {
		t.Fatal(err)
	}
	m.registry(m.host, stanza(m.auth+"/token"))

	request, err := http.NewRequest("GET", "http://"+m.host+"/v2/team/app/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("a token of docker_auth, after the switch: status %d", response.StatusCode)
	}
	m.follow("after")
	m.must(m.Reader, "crane copy registry.example.com/team/app:1 registry.example.com/team/app:2")
	if out, err := m.Type("crane copy registry.example.com/team/app:1 registry.example.com/other/app:1"); err == nil {
		t.Errorf("what the configuration does not allow:\n%s", out)
	}
	if log := string(harness.ReadFile(t, filepath.Join(m.root, "var", "log", "authserver", "audit.log"))); !strings.Contains(log, `"principal":"alice"`) {
		t.Errorf("authserver was not asked:\n%s", log)
	}
}
