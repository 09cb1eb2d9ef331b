package observability_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"authserver/e2e/harness"
)

const teamPolicy = `rules:
  - name: team
    subjects: ["user:alice"]
    repositories: ["team/**"]
    actions: [pull, push]
  - name: freeze
    effect: deny
    subjects: [anyone]
    repositories: ["prod/**"]
    actions: [push]
  - name: odd
    subjects: [authenticated]
    repositories: ["odd/**"]
    actions: [pull]
    when: 'claims.team == "odd"'
  - name: administrators
    subjects: ["user:admin"]
    resources: ["authserver:**"]
    actions: ["*"]
`

// event is what of a line is needed to ask for it.
type event struct {
	Event, Outcome, ID, JTI, KID, Principal string
}

// What the page asks of an audit log it gets from a real one, whose lines are as the schema says.
func TestLogsPage(t *testing.T) {
	log := filepath.Join(t.TempDir(), "audit.log")
	a := harness.StartAuthserver(t, harness.Options{
		Policy: teamPolicy, RefreshTokens: true,
		Set: []string{"audit.output=file:" + log, "throttle.account_failures=3"},
	})
	a.AddUser(t, "alice", password)
	laptop, id := a.AccessToken(t, "alice", "laptop")
	all := "repository:team/app:pull,push repository:prod/app:push repository:odd/app:pull nonsense"
	for _, secret := range []string{password, laptop} {
		a.Ask(t, "alice", secret, a.Service, all)
	}
	login := a.Get(t, "alice", password, url.Values{"service": {a.Service}, "offline_token": {"true"}}).RefreshToken
	a.Post(t, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {login}, "service": {a.Service}, "scope": {"repository:team/app:pull"}})
	a.Ask(t, "", "", a.Service, "repository:team/app:pull")
	a.Ask(t, "", "", "elsewhere")
	for _, wrong := range []string{"a", "b", "c", "d", "e"} {
		a.Ask(t, "mallory", wrong, a.Service)
	}
	request, err := http.NewRequest(http.MethodPut, a.URL+"/api/v1/groups/backend", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth("admin", a.Password)
	if response, err := http.DefaultClient.Do(request); err != nil || response.StatusCode >= 300 {
		t.Fatalf("a group cannot be made: %v %v", err, response)
	}
	a.Revoke(t, laptop)

	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile(filepath.Join(harness.Root(t), "..", "docs", "audit.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	seen, last := map[string]bool{}, event{}
	text := string(harness.ReadFile(t, log))
	for line := range strings.Lines(text) {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err == nil {
			err = schema.Validate(value)
		}
		var e event
		if err != nil || json.Unmarshal([]byte(line), &e) != nil {
			t.Errorf("%s is not of the schema: %v", line, err)
		}
		for name := range value.(map[string]any) {
			seen[name] = true
		}
		seen[e.Event+" "+e.Outcome] = true
		if e.JTI != "" {
			last = e
		}
	}
	for _, want := range []string{"token granted", "token partial", "token denied", "token refused", "token throttled", "token invalid", "api granted", "change granted", "revoke granted",
		"credential", "dropped", "allowed_by", "denied_by", "failed", "refresh_token", "operation", "target", "reason"} {
		if !seen[want] {
			t.Errorf("no line has %s", want)
		}
	}
	if strings.Contains(text, laptop) || strings.Contains(text, login) || strings.Contains(text, password) {
		t.Error("the audit log holds a secret")
	}
	if !strings.Contains(text, "access token "+id) {
		t.Error("no line names the access token")
	}

	dir := filepath.Dir(log)
	save(t, filepath.Join(dir, "authserver.log"), a.Log()+text)
	for _, printed := range follow(t, "docs/logs.md", "", dir, "9f3c52a1c5d1f2ab90d4e6f7", last.ID, "u5cQ…", last.JTI, "ABCD:…:WXYZ", last.KID) {
		if strings.TrimSpace(printed) == "" {
			t.Error("a question has no answer")
		}
	}
}
