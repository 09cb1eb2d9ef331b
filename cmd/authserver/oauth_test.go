package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// post sends a form, with credentials if two are given.
func (p *process) post(path string, form url.Values, credentials ...string) (int, string) {
	p.t.Helper()
	r, err := http.NewRequest(http.MethodPost, p.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(credentials) == 2 {
		r.SetBasicAuth(credentials[0], credentials[1])
	}
	return p.do(r)
}

func field(t *testing.T, body, name string) any {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(body), &fields); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return fields[name]
}

// The life of tokens over HTTP: given, used, asked about, ended.
func TestServeAccessAndRefreshTokens(t *testing.T) {
	config, s := initialised(t)
	policy := `groups: {admins: [admin], tools: [gateway]}
rules:
  - {name: own, subjects: [authenticated], repositories: ["{user}/**"], actions: [pull, push]}
  - {name: introspect, subjects: ["group:tools"], resources: ["authserver:introspect"], actions: [read]}
`
	if err := os.WriteFile(filepath.Join(filepath.Dir(config), "policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	cheap := []string{"--config", config, "--set", "passwords.bcrypt_cost=4"}
	for _, name := range []string{"alice", "gateway"} {
		must(t, name+"-secret\n", append([]string{"user", "add", name, "--password-stdin"}, cheap...)...)
	}
	access := strings.TrimSpace(must(t, "", append([]string{"token", "create", "--user", "alice", "--name", "ci", "--scope", "repository:alice/**:pull"}, cheap...)...))
	p := startProgram(t, config, "--set", "refresh_tokens.enabled=true")
	form := func(pairs ...string) url.Values {
		v := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	const scopes = "repository:alice/x:pull,push repository:bob/x:pull"

	// What each may do.
	code, body := p.post("/token", form("grant_type", "password", "username", "alice", "password", "alice-secret", "access_type", "offline", "client_id", "docker", "scope", scopes))
	refresh, _ := field(t, body, "refresh_token").(string)
	if code != http.StatusOK || granted(t, body) != "repository:alice/x:pull,push" || refresh == "" {
		t.Fatalf("%d %s", code, body)
	}
	signed := field(t, body, "access_token").(string)
	for name, c := range map[string]struct {
		form    url.Values
		granted string
	}{
		"access token":  {form("grant_type", "password", "username", "alice", "password", access, "access_type", "offline", "scope", scopes), "repository:alice/x:pull"},
		"refresh token": {form("grant_type", "refresh_token", "refresh_token", refresh, "access_type", "offline", "scope", scopes), "repository:alice/x:pull,push"},
	} {
		if code, body := p.post("/token", c.form); code != http.StatusOK || granted(t, body) != c.granted || field(t, body, "refresh_token") != nil {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	// One is not the other.
	for name, f := range map[string]url.Values{
		"an access token where a refresh token is due": form("grant_type", "refresh_token", "refresh_token", access),
		"a refresh token where a password is due":      form("grant_type", "password", "username", "alice", "password", refresh),
		"the token of somebody else":                   form("grant_type", "password", "username", "gateway", "password", access),
		"for another account":                          form("grant_type", "refresh_token", "refresh_token", refresh, "account", "gateway"),
	} {
		if code, body := p.post("/token", f); code != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}

	// Who may ask what a token is.
	for name, c := range map[string]struct {
		credentials []string
		want        int
	}{
		"nobody":            {nil, http.StatusUnauthorized},
		"a wrong password":  {[]string{"gateway", "wrong"}, http.StatusUnauthorized},
		"an unknown user":   {[]string{"nobody", "wrong"}, http.StatusUnauthorized},
		"a user":            {[]string{"alice", "alice-secret"}, http.StatusForbidden},
		"an administrator":  {[]string{"admin", s.Password}, http.StatusForbidden},
		"a token of a user": {[]string{"alice", access}, http.StatusForbidden},
		"a refresh token":   {[]string{"", refresh}, http.StatusUnauthorized},
		"who may":           {[]string{"gateway", "gateway-secret"}, http.StatusOK},
	} {
		if code, body := p.post("/introspect", form("token", access), c.credentials...); code != c.want || code != http.StatusOK && strings.Contains(body, "alice") {
			t.Errorf("introspect by %s: %d %s", name, code, body)
		}
	}
	introspect := func(token string) string {
		t.Helper()
		code, body := p.post("/introspect", form("token", token), "gateway", "gateway-secret")
		if code != http.StatusOK {
			t.Fatalf("introspect: %d %s", code, body)
		}
		return body
	}
	for token, want := range map[string]map[string]any{
		access:  {"active": true, "username": "alice", "sub": "alice", "token_type": "access_token", "scope": "repository:alice/**:pull"},
		refresh: {"active": true, "username": "alice", "sub": "alice", "token_type": "refresh_token", "aud": "registry.local", "client_id": "docker", "scope": nil},
		signed:  {"active": true, "username": "alice", "sub": "alice", "token_type": "Bearer", "aud": "registry.local", "iss": "authserver", "scope": "repository:alice/x:pull,push"},
		"":      nil, "asat_x": {"active": false}, signed[:len(signed)-4] + "AAAA": {"active": false}, "a.b.c": {"active": false}, access[:len(access)-1] + "_": {"active": false},
	} {
		if token == "" {
			if code, body := p.post("/introspect", form(), "gateway", "gateway-secret"); code != http.StatusBadRequest {
				t.Errorf("no token: %d %s", code, body)
			}
			continue
		}
		body := introspect(token)
		for name, value := range want {
			if got := field(t, body, name); got != value {
				t.Errorf("%.12s: %s = %v, want %v: %s", token, name, got, value, body)
			}
		}
		if want["active"] == false && strings.TrimSpace(body) != `{"active":false}` {
			t.Errorf("%.12s: %s", token, body)
		}
	}

	// Ended by who has it in hand; the answer is the same whether there was one.
	for _, token := range []string{access, access, "asat_unknown", "nonsense"} {
		if code, body := p.post("/revoke", form("token", token, "token_type_hint", "refresh_token")); code != http.StatusOK || body != "{}" {
			t.Errorf("revoke: %d %s", code, body)
		}
	}
	if code, body := p.post("/revoke", form("token", signed)); code != http.StatusBadRequest || field(t, body, "error") != "unsupported_token_type" {
		t.Errorf("revoke a signed token: %d %s", code, body)
	}
	if code := p.status("alice", access); code != http.StatusUnauthorized {
		t.Errorf("a revoked access token: %d", code)
	}
	if body := introspect(access); field(t, body, "active") != false {
		t.Errorf("a revoked access token: %s", body)
	}
	must(t, "new\n", append([]string{"user", "passwd", "alice", "--password-stdin"}, cheap...)...)
	if code, body := p.post("/token", form("grant_type", "refresh_token", "refresh_token", refresh)); code != http.StatusUnauthorized {
		t.Errorf("a refresh token after a new password: %d %s", code, body)
	}
	if body := introspect(refresh); field(t, body, "active") != false {
		t.Errorf("a refresh token after a new password: %s", body)
	}

	code, body = p.get(p.url + "/.well-known/oauth-authorization-server")
	if code != http.StatusOK || field(t, body, "issuer") != "http://localhost:5001" || field(t, body, "token_endpoint") != "http://localhost:5001/token" || !strings.Contains(body, "refresh_token") {
		t.Errorf("metadata: %d %s", code, body)
	}
	for path, allow := range map[string]string{"/revoke": "POST", "/introspect": "POST"} {
		if code, _ := p.get(p.url + path); code != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d, %s is allowed", path, code, allow)
		}
	}
	_, body = p.get(p.ops + "/metrics")
	for _, want := range []string{"authserver_database_up 1", `authserver_database_request_duration_seconds_count{operation="read"}`, `authserver_database_request_duration_seconds_count{operation="write"}`,
		`authserver_authentications_total{backend="access_token",outcome="known"}`, `authserver_authentications_total{backend="refresh_token",outcome="refused"}`} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.log {
		if text := line["raw"].(string); strings.Contains(text, access) || strings.Contains(text, refresh) || strings.Contains(text, "alice-secret") {
			t.Errorf("a secret is logged: %s", text)
		}
	}
}
