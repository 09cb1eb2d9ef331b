package deploy_test

import (
	stdjson "encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// sorted is a challenge with its actions in order; Notary's come in any.
func sorted(challenge string) string {
	return strings.ReplaceAll(challenge, ":push,pull", ":pull,push")
}

// The real Notary server with the shipped key auth; the rest of its configuration is the least that it starts with.
func TestNotary(t *testing.T) {
	i := serveRegistries(t)
	var config struct {
		Auth struct {
			Type    string                  `json:"type"`
			Options harness.VerifierOptions `json:"options"`
		} `json:"auth"`
	}
	strict(t, harness.ReadFile(t, shipped(t, "registry", "notary-server.json")), &config)
	o := &config.Auth.Options
	i.agree(t, o.Realm, o.Service, o.Issuer, "chain")
	if o.RootCertBundle == "" {
		t.Errorf("%+v", config.Auth)
	}
	o.RootCertBundle = i.export(t)

	host := fmt.Sprintf("localhost:%d", harness.FreePort(t))
	text, err := stdjson.Marshal(map[string]any{
		"server":        map[string]any{"http_addr": host},
		"trust_service": map[string]any{"type": "local"},
		"storage":       map[string]any{"backend": "memory"},
		"logging":       map[string]any{"level": "info"},
		"auth":          config.Auth,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "server-config.json")
	write(t, file, text, 0o600)
	server := harness.Start(t, nil, harness.Program(t, "notary-server"), "-config", file)
	t.Cleanup(server.Kill) // it does not end by itself
	server.Await(t, func() error {
		response, err := http.Get("http://" + host + "/v2/")
		if err == nil {
			response.Body.Close()
		}
		return err
	})

	// ask answers with the status and the scope that the server asks for.
	ask := func(method, path, token string) (int, string) {
		t.Helper()
		request, err := http.NewRequest(method, "http://"+host+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode, response.Header.Get("WWW-Authenticate")
	}
	const name = "registry.example.com:5000/team/app"
	const tuf = "/v2/" + name + "/_trust/tuf/"
	challenge := fmt.Sprintf("Bearer realm=%q,service=%q,scope=", i.realm(), o.Service)
	publish := i.token(t, o.Service, "repository:"+name+":pull,push")
	for _, c := range []struct {
		method, path, scope string
		token               string
		status              int // with the token
	}{
		{"GET", tuf + "root.json", "repository:" + name + ":pull", publish, http.StatusNotFound}, // let in, and nothing is there
		{"POST", tuf, "repository:" + name + ":pull,push", publish, http.StatusBadRequest},       // let in, and nothing is sent
		{"DELETE", tuf, "repository:" + name + ":*", publish, http.StatusUnauthorized},
		{"DELETE", tuf, "repository:" + name + ":*", i.token(t, o.Service, "repository:"+name+":*"), http.StatusOK},
		{"GET", "/v2/", "registry:catalog:*", publish, http.StatusUnauthorized},
		{"GET", "/v2/", "registry:catalog:*", i.token(t, o.Service, "registry:catalog:*"), http.StatusOK},
		{"GET", tuf + "root.json", "repository:" + name + ":pull", i.token(t, "registry.example.com", "repository:"+name+":pull"), http.StatusUnauthorized}, // another service's
	} {
		if status, asked := ask(c.method, c.path, ""); status != http.StatusUnauthorized || sorted(asked) != challenge+fmt.Sprintf("%q", c.scope) {
			t.Errorf("%s %s without a token: status %d, %s", c.method, c.path, status, asked)
		}
		if status, asked := ask(c.method, c.path, c.token); status != c.status {
			t.Errorf("%s %s: status %d, want %d: %s\n%s", c.method, c.path, status, c.status, asked, server.Log())
		}
	}

	harness.NewReader(t, "https://notary.example.com", "http://"+host).Follow(harness.Documented(t, "docs/registries/notary.md", ""))
}
