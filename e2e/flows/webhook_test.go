package flows_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// What the policy grants before Open Policy Agent is asked: alice everything, bob pushes, too, but deletes nothing.
const webhookPolicy = `
groups:
  backend: [alice]
rules:
  - name: backend
    subjects: ["group:backend"]
    repositories: ["**"]
    actions: [pull, push, delete]
  - name: team
    subjects: [authenticated]
    repositories: ["team/**", "prod/**"]
    actions: [pull, push]
  - name: public
    subjects: [anyone]
    repositories: ["public/**"]
    actions: [pull]
`

// askOPA starts an authserver that asks at url, and waits as long as it may; sets are further settings.
func askOPA(t testing.TB, url string, sets ...string) *harness.Authserver {
	t.Helper()
	return harness.StartAuthserver(t, harness.Options{
		Policy: webhookPolicy,
		Users:  map[string]string{"alice": alicePassword, "bob": bobPassword},
		Set:    append([]string{"acl.webhook.url=" + url, "acl.webhook.timeout=8s"}, sets...),
	})
}

// documented finds the block of docs/webhook.md that begins with start.
func documented(t testing.TB, language, start string) string {
	t.Helper()
	page := string(harness.ReadFile(t, filepath.Join(harness.Root(t), "..", "docs", "webhook.md")))
	for _, block := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(page, -1) {
		if strings.HasPrefix(block[1], start) {
			return block[1]
		}
	}
	t.Fatalf("docs/webhook.md has no block of %s that begins with %q", language, start)
	return ""
}

// documentedOPA runs the command of docs/webhook.md that contains all of words; files are by the names that it gives them.
func documentedOPA(t testing.TB, words string, files map[string]string) *harness.OPA {
	t.Helper()
	page := string(harness.ReadFile(t, filepath.Join(harness.Root(t), "..", "docs", "webhook.md")))
	for line := range strings.Lines(page) {
		if line = strings.TrimPrefix(line, "$ "); !strings.HasPrefix(line, "opa run ") || !strings.Contains(line, words) {
			continue
		}
		args := strings.Fields(line)[1:]
		for i, arg := range args {
			if file, ok := files[arg]; ok {
				args[i] = file
			}
		}
		return harness.StartOPA(t, harness.FreePort(t), args...)
	}
	t.Fatalf("docs/webhook.md has no opa run with %s", words)
	return nil
}

// emptyOPA is one without a policy.
func emptyOPA(t testing.TB) *harness.OPA {
	t.Helper()
	return harness.StartOPA(t, harness.FreePort(t), "run", "--server", "--addr", "127.0.0.1:8181")
}

func saved(t testing.TB, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	replace(t, file, text)
	return file
}

// replace replaces a file as a whole.
func replace(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// wantUnavailable checks that a request was answered 503, in a way that clients understand, and without a token.
func wantUnavailable(t testing.TB, what string, answer harness.Answer) {
	t.Helper()
	if answer.Status != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" || answer.Token != "" || answer.AccessToken != "" {
		t.Errorf("%s: status %d, Retry-After %q: %s", what, answer.Status, answer.Header.Get("Retry-After"), answer.Body)
	}
}

// audited finds the newest line of the audit log on an answer.
func audited(t testing.TB, a *harness.Authserver, answer harness.Answer) (line struct {
	ID        string
	Outcome   string
	Asked     string
	Granted   string
	AllowedBy []string `json:"allowed_by"`
	DeniedBy  []string `json:"denied_by"`
	Reason    string
}) {
	t.Helper()
	for text := range strings.Lines(a.Log()) {
		if strings.Contains(text, `"event":"token"`) && strings.Contains(text, answer.Header.Get("X-Request-Id")) {
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			return line
		}
	}
	t.Fatalf("no audit line on %s", answer.Header.Get("X-Request-Id"))
	return line
}

// The policy that docs/webhook.md shows, run as it says, in front of a registry: with the day of today, and with every
// day and no day put in the place of the weekend.
func TestWebhookOfTheDocumentationFreezes(t *testing.T) {
	const weekend = `{"Saturday", "Sunday"}`
	rego := documented(t, "rego", "package registry")
	if strings.Count(rego, weekend) != 1 {
		t.Fatalf("%s is not once in\n%s", weekend, rego)
	}
	everyDay := `{"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}`
	for name, c := range map[string]struct {
		days   string
		frozen func(time.Weekday) bool
	}{
		"as it is":  {weekend, func(d time.Weekday) bool { return d == time.Saturday || d == time.Sunday }},
		"every day": {everyDay, func(time.Weekday) bool { return true }},
		"no day":    {"set()", func(time.Weekday) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			opa := documentedOPA(t, "127.0.0.1:8181 registry.rego", map[string]string{"registry.rego": saved(t, "registry.rego", strings.Replace(rego, weekend, c.days, 1))})
			a := askOPA(t, "http://"+opa.Host+"/v1/data/registry/access")
			ask := func() (time.Weekday, harness.Answer) {
				return time.Now().UTC().Weekday(), a.Ask(t, "alice", alicePassword, a.Service, "repository:prod/app:delete,pull,push", "repository:team/app:pull,push")
			}
			today, answer := ask()
			if time.Now().UTC().Weekday() != today { // midnight
				today, answer = ask()
			}
			want, denied := "repository:prod/app:delete,pull,push repository:team/app:pull,push", ""
			if c.frozen(today) {
				want, denied = "repository:prod/app:pull repository:team/app:pull,push", "acl.webhook"
			}
			line := audited(t, a, answer)
			if got := answer.Granted(t); got != want || line.Granted != want || strings.Join(line.DeniedBy, " ") != denied {
				t.Errorf("on a %s %q, want %q; audit %+v", today, got, want, line)
			}
		})
	}
}

func TestWebhookNarrowsWhatClientsDo(t *testing.T) {
	opa := emptyOPA(t)
	a := askOPA(t, "http://"+opa.Host+"/v1/data/registry/access")
	s := stage{a, harness.StartRegistry(t, "3.1.2", a)}
	ref := s.ref("team/app:1")

	// user.groups are those of policy.yaml.
	opa.Policy(t, `package registry

access := {"access": [entry |
	some granted in input.access
	entry := object.union(granted, {"actions": [action | some action in granted.actions; may(action)]})
]}

may("pull")

may("push") if "backend" in input.user.groups
`)
	alice, bob := s.craneAs(t, "alice", alicePassword), s.craneAs(t, "bob", bobPassword)
	succeeds(t, "push by a member of the group")(alice.push(ref))
	succeeds(t, "pull by somebody else")(bob.pull(ref))
	fails(t, "push by somebody else", "UNAUTHORIZED")(bob.push(ref))
	answer := a.Ask(t, "bob", bobPassword, a.Service, "repository:team/app:pull,push,delete")
	line := audited(t, a, answer)
	if got := answer.Granted(t); got != "repository:team/app:pull" || line.Outcome != "partial" || strings.Join(line.DeniedBy, " ") != "acl.webhook" || strings.Join(line.AllowedBy, " ") != "team" {
		t.Errorf("%q, audit %+v", got, line)
	}

	opa.Policy(t, `package registry

default access := false

access if input.user.name == "alice"
`)
	succeeds(t, "pull by whom the rule allows")(alice.pull(ref))
	fails(t, "pull by whom it does not", "UNAUTHORIZED")(bob.pull(ref))

	// Not asked: nothing is granted, or nothing was asked for.
	before := metric(t, a, `authserver_webhook_requests_total{outcome="answered"}`)
	if got := a.Ask(t, "bob", bobPassword, a.Service, "repository:secret/app:pull").Granted(t); got != "" {
		t.Errorf("the policy grants nothing, the token %s", got)
	}
	succeeds(t, "docker login")(docker{newBase(t, "docker", s.registry.Host), "unix:///nonexistent"}.login("bob", bobPassword))
	if after := metric(t, a, `authserver_webhook_requests_total{outcome="answered"}`); after != before {
		t.Errorf("asked %s times, %s before", after, before)
	}
}

// Everything that a rule can come to.
func TestWebhookAnswers(t *testing.T) {
	const cannot = "503"
	opa := emptyOPA(t)
	a := askOPA(t, "http://"+opa.Host+"/v1/data/registry/access")
	ask := func(user, password string) (harness.Answer, string) {
		t.Helper()
		answer := a.Ask(t, user, password, a.Service, "repository:team/app:delete,pull,push", "repository:secret/app:pull,push")
		if answer.Status == http.StatusServiceUnavailable {
			wantUnavailable(t, user, answer)
			if line := audited(t, a, answer); line.Outcome != "unavailable" || line.Granted != "" || line.Reason == "" {
				t.Errorf("audit %+v", line)
			}
			return answer, cannot
		}
		return answer, answer.Granted(t)
	}
	const all = "repository:team/app:pull,push" // that the policy grants to bob
	for _, c := range []struct{ name, rules, want, reason string }{
		{"yes", `access := true`, all, ""},
		{"no", `access := false`, "", ""},
		{"the default", "default access := false\naccess if input.user.name == \"alice\"", "", ""},
		{"nothing", `access := {"access": []}`, "", ""},
		{"all actions by their sign", `access := {"access": [{"type": "repository", "name": "team/app", "actions": ["*"]}]}`, all, ""},
		{"what was asked", `access := {"access": input.asked}`, all, ""},
		{"more actions", `access := {"access": [{"type": "repository", "name": "team/app", "actions": ["delete", "pull", "admin"]}]}`, "repository:team/app:pull", ""},
		{"others, and signs for all", `access := {"access": [
			{"type": "repository", "name": "secret/app", "actions": ["*"]}, {"type": "repository", "name": "team/other", "actions": ["pull"]},
			{"type": "repository", "name": "*", "actions": ["*"]}, {"type": "repository", "name": "**", "actions": ["*"]},
			{"type": "registry", "name": "catalog", "actions": ["*"]}, {"type": "*", "name": "*", "actions": ["*"]}]}`, "", ""},
		{"a set", `access := {"access": {e | some e in input.access}}`, all, ""},

		{"no rule", `other := true`, cannot, "no result"},
		{"undefined for bob", `access if input.user.name == "alice"`, cannot, "no result"},
		{"an error of a function", `access := time.parse_rfc3339_ns("yesterday") > 0`, cannot, "no result"},
		{"a conflict", "access := true if input.user.name != \"\"\naccess := false if input.user.kind == \"user\"", cannot, "answered 500"},
		{"between", `access := true`, all, ""}, // five failures in a row would open the breaker
		{"a word", `access := "yes"`, cannot, "neither true, false nor"},
		{"null", `access := null`, cannot, ""},
		{"another form", `access := {"allow": true}`, cannot, "neither true, false nor"},
		{"more than is read", `access := {"access": [], "pad": [n | some n in numbers.range(1, 300000)]}`, cannot, "more than 1048576 bytes"},
	} {
		opa.Policy(t, "package registry\n\n"+c.rules+"\n")
		answer, got := ask("bob", bobPassword)
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if line := audited(t, a, answer); !strings.Contains(line.Reason, c.reason) {
			t.Errorf("%s: reason %q, want %q", c.name, line.Reason, c.reason)
		}
	}
}

func TestWebhookWithAToken(t *testing.T) {
	const token = "s3cret.of-OPA/and+us="
	ca := harness.NewCA(t)
	cert, key := ca.Issue(t, "opa")
	opa := documentedOPA(t, "--authentication=token", map[string]string{
		"opa.crt": cert, "opa.key": key,
		"registry.rego": saved(t, "registry.rego", documented(t, "rego", "package registry")),
		"authz.rego":    saved(t, "authz.rego", documented(t, "rego", "package system.authz")),
		"callers.json":  saved(t, "callers.json", `{"callers": {"authserver": "`+token+`"}}`),
	})
	file := saved(t, "token", token+"\n")
	a := askOPA(t, "https://"+opa.Host+"/v1/data/registry/access", "acl.webhook.token_file="+file, "acl.webhook.tls.ca_file="+ca.File)
	ask := func() harness.Answer {
		return a.Ask(t, "bob", bobPassword, a.Service, "repository:team/app:pull,push")
	}
	becomes := func(status int) {
		t.Helper()
		a.Await(t, func() error {
			if answer := ask(); answer.Status != status {
				return fmt.Errorf("status %d, want %d: %s", answer.Status, status, answer.Body)
			}
			return nil
		})
	}
	if got := ask().Granted(t); got != "repository:team/app:pull,push" {
		t.Errorf("granted %q", got)
	}
	replace(t, file, token+"x\n")
	becomes(http.StatusServiceUnavailable)
	answer := ask()
	wantUnavailable(t, "a wrong token", answer)
	replace(t, file, token+"\n")
	becomes(http.StatusOK)
	if strings.Contains(a.Log(), token) {
		t.Error("the token is in the log")
	}

	// The same OPA is not for others, nor for other things.
	elsewhere := askOPA(t, "https://"+opa.Host+"/v1/data/registry", "acl.webhook.token_file="+file, "acl.webhook.tls.ca_file="+ca.File)
	wantUnavailable(t, "another path", elsewhere.Ask(t, "bob", bobPassword, a.Service, "repository:team/app:pull"))
	nobody := askOPA(t, "https://"+opa.Host+"/v1/data/registry/access", "acl.webhook.tls.ca_file="+ca.File)
	wantUnavailable(t, "no token", nobody.Ask(t, "bob", bobPassword, a.Service, "repository:team/app:pull"))
	stranger := askOPA(t, "https://"+opa.Host+"/v1/data/registry/access", "acl.webhook.token_file="+file, "acl.webhook.tls.ca_file="+harness.NewCA(t).File)
	wantUnavailable(t, "an OPA of another CA", stranger.Ask(t, "bob", bobPassword, a.Service, "repository:team/app:pull"))
}

func TestWebhookWithAClientCertificate(t *testing.T) {
	ca, clients, others := harness.NewCA(t), harness.NewCA(t), harness.NewCA(t)
	cert, key := ca.Issue(t, "opa")
	opa := documentedOPA(t, "--authentication=tls", map[string]string{
		"opa.crt": cert, "opa.key": key, "clients-ca.crt": clients.File,
		"registry.rego": saved(t, "registry.rego", documented(t, "rego", "package registry")),
		"authz.rego":    saved(t, "authz.rego", documented(t, "rego", "package system.authz")),
		"callers.json":  saved(t, "callers.json", `{"callers": {"authserver": "CN=authserver"}}`),
	})
	for _, c := range []struct {
		name   string
		ca     *harness.CA
		client string
		good   bool
	}{
		{"the right one", &clients, "authserver", true},
		{"another of the same CA", &clients, "somebody", false},
		{"the same name of another CA", &others, "authserver", false},
		{"none", nil, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			sets := []string{"acl.webhook.tls.ca_file=" + ca.File}
			if c.ca != nil {
				cert, key := c.ca.Issue(t, c.client)
				sets = append(sets, "acl.webhook.tls.cert_file="+cert, "acl.webhook.tls.key_file="+key)
			}
			a := askOPA(t, "https://"+opa.Host+"/v1/data/registry/access", sets...)
			answer := a.Ask(t, "bob", bobPassword, a.Service, "repository:team/app:pull,push")
			if !c.good {
				wantUnavailable(t, c.name, answer)
			} else if got := answer.Granted(t); got != "repository:team/app:pull,push" {
				t.Errorf("granted %q", got)
			}
		})
	}
}

// OPA is killed, and hangs; users still log in; it comes back, and nobody has to do anything.
func TestWebhookOutage(t *testing.T) {
	rego := saved(t, "registry.rego", documented(t, "rego", "package registry"))
	port := harness.FreePort(t)
	start := func() *harness.OPA {
		return harness.StartOPA(t, port, "run", "--server", "--addr", "127.0.0.1:8181", rego)
	}
	opa := start()
	a := askOPA(t, "http://"+opa.Host+"/v1/data/registry/access", "acl.webhook.pause=20s") // longer than it takes to see that it is not asked
	s := stage{a, harness.StartRegistry(t, "3.1.2", a)}
	c := s.craneAs(t, "bob", bobPassword)
	login := docker{newBase(t, "docker", s.registry.Host), "unix:///nonexistent"}
	ref := s.ref("team/app:1")
	succeeds(t, "push")(c.push(ref))
	ask := func() harness.Answer {
		return a.Ask(t, "bob", bobPassword, a.Service, "repository:team/app:pull,push")
	}
	outcome := func(name string) string {
		return metric(t, a, `authserver_webhook_requests_total{outcome="`+name+`"}`)
	}
	back := func() {
		t.Helper()
		a.Await(t, func() error {
			if answer := ask(); answer.Status != http.StatusOK {
				return fmt.Errorf("status %d: %s", answer.Status, answer.Body)
			}
			return nil
		})
		succeeds(t, "pull")(c.pull(ref))
		succeeds(t, "push")(c.push(ref))
	}

	if err := opa.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for n := range 8 {
		answer := ask()
		wantUnavailable(t, fmt.Sprint("request ", n), answer)
		if line := audited(t, a, answer); strings.Contains(line.Reason, "not asked") != (n >= 5) {
			t.Errorf("request %d: reason %q", n, line.Reason)
		}
	}
	if failed, skipped := outcome("failed"), outcome("skipped"); failed != "5" || skipped != "3" {
		t.Errorf("failed %s, skipped %s, want 5 and 3", failed, skipped)
	}
	fails(t, "pull during the outage", "(?i)(unavailable|cannot be decided|503)")(c.pull(ref))
	out := succeeds(t, "docker login during the outage")(login.login("bob", bobPassword))
	if !strings.Contains(out, "Login Succeeded") {
		t.Errorf("login: %s", out)
	}
	if _, err := login.login("bob", wrongPassword); err == nil {
		t.Error("a wrong password is good enough during an outage")
	}
	opa.Stop()
	opa = start()
	back()

	// It takes connections and says nothing.
	if err := opa.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	answer := ask()
	wantUnavailable(t, "OPA hangs", answer)
	if line := audited(t, a, answer); !strings.Contains(line.Reason, "no answer in 8s") {
		t.Errorf("reason %q", line.Reason)
	}
	if err := opa.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	back()
}

// metric is the value of one line of the metrics; 0 when it is not there yet.
func metric(t testing.TB, a *harness.Authserver, name string) string {
	t.Helper()
	for line := range strings.Lines(a.Metrics(t)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "0"
}

// BenchmarkWebhook is what a question to an OPA on the same machine costs a token, both sides and the asker on the same cores.
func BenchmarkWebhook(b *testing.B) {
	for name, ask := range map[string]func(b *testing.B) *harness.Authserver{
		"none": func(b *testing.B) *harness.Authserver {
			return harness.StartAuthserver(b, harness.Options{Policy: webhookPolicy})
		},
		"opa": func(b *testing.B) *harness.Authserver {
			rego := saved(b, "registry.rego", documented(b, "rego", "package registry"))
			opa := documentedOPA(b, "127.0.0.1:8181 registry.rego", map[string]string{"registry.rego": rego})
			return askOPA(b, "http://"+opa.Host+"/v1/data/registry/access")
		},
	} {
		b.Run(name, func(b *testing.B) {
			a := ask(b)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					// Nobody: a password would be most of the time.
					response, err := client.Get(a.URL + "/token?service=" + a.Service + "&scope=repository:public/app:pull")
					if err != nil {
						b.Error(err)
						return
					}
					io.Copy(io.Discard, response.Body)
					response.Body.Close()
					if response.StatusCode != http.StatusOK {
						b.Errorf("status %d", response.StatusCode)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
