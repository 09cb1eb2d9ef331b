package main

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// The webhook behind a running server: it takes away, an outage of it is 503, and its token is read again when it changes.
func TestServeAsksTheWebhook(t *testing.T) {
	config, s := initialised(t)
	var token atomic.Value
	token.Store("first")
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var question struct {
			Input struct {
				User struct{ Groups []string }
			}
		}
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &question); err != nil || len(question.Input.User.Groups) != 1 || question.Input.User.Groups[0] != "admins" {
			t.Errorf("asked %s", body)
		}
		if r.Header.Get("Authorization") != "Bearer "+token.Load().(string) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"result": {"access": [{"type": "repository", "name": "a", "actions": ["pull"]}]}}`)
	}))
	defer hook.Close()
	dir := filepath.Dir(config)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("token", "first\n")
	write("policy.yaml", "groups: {admins: [admin]}\nrules: [{name: all, subjects: [\"group:admins\"], repositories: [\"**\"], actions: [pull, push]}]\n")
	sets := []string{"--set", "acl.webhook.url=" + hook.URL, "--set", "acl.webhook.token_file=token", "--set", "acl.webhook.timeout=8s"}
	must(t, "", append([]string{"config", "check", "--config", config}, sets...)...)
	p := startProgram(t, config, sets...)
	ask := func() (int, string) { return p.get(p.url+"/token?scope=repository:a:pull,push", "admin", s.Password) }
	if code, body := ask(); code != http.StatusOK || granted(t, body) != "repository:a:pull" {
		t.Fatalf("%d %s", code, body)
	}
	token.Store("second")
	if code, body := ask(); code != http.StatusServiceUnavailable || !strings.Contains(body, "cannot be decided") {
		t.Errorf("a token that is not good: %d %s", code, body)
	}
	write("token", "second\n")
	p.eventually("the new token is used", func() bool { code, _ := ask(); return code == http.StatusOK })
	if code := p.status("admin", s.Password); code != http.StatusOK {
		t.Errorf("docker login: %d", code)
	}
	hook.Close()
	if code, _ := ask(); code != http.StatusServiceUnavailable {
		t.Errorf("nobody there: %d", code)
	}
	if code := p.status("admin", s.Password); code != http.StatusOK {
		t.Errorf("docker login while nobody is there: %d", code)
	}
	if _, body := p.get(p.ops + "/metrics"); !strings.Contains(body, `authserver_webhook_requests_total{outcome="answered"}`) || !strings.Contains(body, `authserver_webhook_requests_total{outcome="failed"}`) {
		t.Error("the webhook is not in the metrics")
	}
	p.stop()

	out, _, status := call(t, "", append([]string{"acl", "explain", "--config", config, "--as", "admin", "--scope", "repository:a:pull"}, sets...)...)
	if status != exitOK || !strings.HasSuffix(out, "acl.webhook has the last word and may take away from it; explain does not ask it\n") {
		t.Errorf("explain: %d %s", status, out)
	}
	for _, bad := range []string{"token_file=missing", "token_file=" + config} {
		if _, stderr, status := call(t, "", append([]string{"config", "check", "--config", config}, append(sets, "--set", "acl.webhook."+bad)...)...); status != exitNo || !strings.Contains(stderr, "acl.webhook: ") {
			t.Errorf("%s: %d %s", bad, status, stderr)
		}
	}
}

// granted reads what an answer's token grants.
func granted(t *testing.T, answer string) string {
	t.Helper()
	var a struct{ Token string }
	if err := json.Unmarshal([]byte(answer), &a); err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Access []struct {
			Type, Name string
			Actions    []string
		}
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(a.Token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	var scopes []string
	for _, a := range claims.Access {
		scopes = append(scopes, a.Type+":"+a.Name+":"+strings.Join(a.Actions, ","))
	}
	return strings.Join(scopes, " ")
}
