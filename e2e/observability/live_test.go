package observability_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"authserver/e2e/harness"
)

const policy = `rules:
  - name: own
    subjects: [authenticated]
    repositories: ["{user}/**"]
    actions: [pull, push]
  - name: public
    subjects: [anyone]
    repositories: ["public/**"]
    actions: [pull]
  - name: odd
    subjects: [authenticated]
    repositories: ["odd/**"]
    actions: [pull]
    when: 'claims.team == "odd"'
`

const password = "alice in wonderland"

// scene is two authservers on one PostgreSQL, with everything that has metrics: b speaks TLS, with a certificate that ends in
// an hour; a keeps its audit log in a file, behind a link. Both ask a webhook.
type scene struct {
	a, b     *harness.Authserver
	database *harness.Postgres
	webhook  atomic.Int32 // the status that it answers with, as a collector of traces does
	audit    string       // the link
	login    string       // refresh token
	access   string       // access token
}

func setScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{audit: filepath.Join(t.TempDir(), "audit.log"), database: harness.StartPostgres(t)}
	s.webhook.Store(http.StatusOK)
	webhook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(s.webhook.Load()))
		io.WriteString(w, `{"result": true}`)
	}))
	t.Cleanup(webhook.Close)
	s.logTo(t, s.audit+".1")
	s.a = harness.StartAuthserver(t, harness.Options{
		Policy: policy, Database: s.database.URL, RefreshTokens: true,
		Set: []string{
			"audit.output=file:" + s.audit, "acl.webhook.url=" + webhook.URL, "acl.webhook.timeout=8s", "acl.webhook.pause=100ms", "tracing.endpoint=" + webhook.URL + "/v1/traces", "tracing.sample_one_in=1",
			"passwords.parallel=1", "passwords.bcrypt_cost=10", "throttle.account_failures=5", "throttle.network_failures=1000000",
		},
	})
	s.a.AddUser(t, "alice", password)
	s.access, _ = s.a.AccessToken(t, "alice", "laptop")
	cert, key := harness.NewCA(t).Issue(t, "localhost")
	s.b = s.a.Replica(t, "database.url="+s.database.URL, "server.tls.cert_file="+cert, "server.tls.key_file="+key, "server.max_connections=16")
	s.login = s.a.Get(t, "alice", password, url.Values{"service": {s.a.Service}, "offline_token": {"true"}}).RefreshToken
	if s.login == "" {
		t.Fatal("no refresh token")
	}
	return s
}

// logTo lets the link of the audit log lead elsewhere.
func (s *scene) logTo(t *testing.T, file string) {
	t.Helper()
	_ = os.Remove(s.audit)
	if err := os.Symlink(file, s.audit); err != nil {
		t.Fatal(err)
	}
}

// load asks for tokens in all ways that work, until the test ends or stop is called.
func (s *scene) load(t *testing.T) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var all sync.WaitGroup
	scopes := func(list ...string) url.Values { return url.Values{"service": {s.a.Service}, "scope": list} }
	for _, ask := range []func(){
		func() { s.try("alice", password, scopes("repository:alice/app:pull,push")) },
		func() { s.try("alice", password, scopes("repository:bob/app:pull,push")) },
		func() { s.try("alice", s.access, scopes("repository:alice/app:pull")) },
		func() { s.try("", "", scopes("repository:public/app:pull", "registry:catalog:*")) },
		func() {
			s.post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.login}, "service": {s.a.Service}})
		},
		func() {
			s.post(url.Values{"grant_type": {"password"}, "username": {"alice"}, "password": {password}, "service": {s.a.Service}, "scope": {"repository:alice/app:pull"}})
		},
	} {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(50 * time.Millisecond):
					ask()
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { close(done); all.Wait() })
	t.Cleanup(stop)
	return stop
}

// try is a GET whose answer does not matter.
func (s *scene) try(user, password string, query url.Values) {
	request, err := http.NewRequest(http.MethodGet, s.a.URL+"/token?"+query.Encode(), nil)
	if err != nil {
		panic(err)
	}
	if user != "" {
		request.SetBasicAuth(user, password)
	}
	if response, err := impatient.Do(request); err == nil {
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}

func (s *scene) post(form url.Values) {
	if response, err := impatient.PostForm(s.a.URL+"/token", form); err == nil {
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}

var impatient = &http.Client{Timeout: 2 * time.Second}

// many calls f n times, so many at once.
func many(n, atOnce int, f func(i int)) {
	var all sync.WaitGroup
	next := make(chan int)
	for range atOnce {
		all.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}

// guess sends wrong passwords, past what an account may have.
func (s *scene) guess() {
	many(400, 40, func(i int) { s.try("alice", fmt.Sprint("wrong ", i), url.Values{}) })
}

// rush sends more first logins than can wait for their turn. A refusal costs what a hash in the database would, 60 ms.
func (s *scene) rush() {
	many(100, 100, func(i int) { s.try(fmt.Sprint("user", i), fmt.Sprint("wrong ", i), url.Values{}) })
}

// crowd keeps more connections of b at work than there may be.
func (s *scene) crowd(t *testing.T) (leave func()) {
	t.Helper()
	host := strings.TrimPrefix(s.b.URL, "http://")
	var open []*tls.Conn
	for range 20 {
		c, err := tls.Dial("tcp", host, &tls.Config{InsecureSkipVerify: true})
		if err != nil { // turned away
			continue
		}
		open = append(open, c)
		io.WriteString(c, "POST /token HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\n")
		time.Sleep(20 * time.Millisecond) // until it is at work
	}
	return func() {
		for _, c := range open {
			c.Close()
		}
	}
}

func TestPrometheus(t *testing.T) {
	s := setScene(t)
	p := startPrometheus(t, s.a, s.b)
	stop := s.load(t)

	// Nothing is broken but a certificate that ends in an hour. This machine may be slow, and its disk full.
	p.awaitFiring(t, "AuthserverTLSCertificateExpires", "AuthserverTLSCertificateExpiresNow")
	time.Sleep(5 * time.Second)
	machine := []string{"AuthserverDiskFull", "AuthserverSlow", "AuthserverDatabaseSlow"}
	p.Await(t, func() error { // a hiccup of the machine passes
		for _, name := range p.firing(t) {
			if !strings.HasPrefix(name, "AuthserverTLSCertificate") && !slices.Contains(machine, name) {
				return fmt.Errorf("%s fires, and nothing is broken", name)
			}
		}
		return nil
	})

	// One fault after the other.
	if err := s.b.Stop(); err != nil {
		t.Error(err)
	}
	s.b.Restart(t)
	for range 5 {
		s.try("alice", password, url.Values{"scope": {"repository:odd/app:pull"}})
		s.try("", "", url.Values{"scope": {"nonsense"}})
		s.try("", "", url.Values{"service": {"elsewhere"}})
		time.Sleep(300 * time.Millisecond)
	}
	s.guess()
	s.rush()
	leave := s.crowd(t)
	p.awaitFiring(t, "AuthserverPolicyConditionFails", "AuthserverGuessing", "AuthserverPasswordQueueFull", "AuthserverOverloaded")
	leave()

	s.webhook.Store(http.StatusInternalServerError)
	p.awaitFiring(t, "AuthserverWebhookFails", "AuthserverErrors")
	s.webhook.Store(http.StatusOK)

	s.database.Stop(t)
	p.awaitFiring(t, "AuthserverDatabaseDown", "AuthserverBackendUnavailable", "AuthserverErrorsMany")
	s.database.Start(t)
	p.awaitQuiet(t, "AuthserverDatabaseDown")

	rules := filepath.Join(s.a.Dir, "policy.yaml")
	save(t, rules, "rules: [nonsense]\n")
	p.awaitFiring(t, "AuthserverReloadFailed")
	save(t, rules, policy)
	p.awaitQuiet(t, "AuthserverReloadFailed")

	s.logTo(t, "/dev/full")
	s.a.Signal(syscall.SIGHUP)
	p.awaitFiring(t, "AuthserverAuditFails")
	s.logTo(t, s.audit+".2")
	s.a.Signal(syscall.SIGHUP)
	time.Sleep(2 * time.Second)

	t.Run("dashboard", func(t *testing.T) { everyPanelHasData(t, s, p) })
	t.Run("metrics", func(t *testing.T) { everyMetricIsKnown(t, s) })

	if err := s.b.Stop(); err != nil {
		t.Error(err)
	}
	p.awaitFiring(t, "AuthserverDown")
	p.awaitQuiet(t, "AuthserverNoneReady") // one is
	stop()
	if err := s.a.Stop(); err != nil {
		t.Error(err)
	}
	p.awaitFiring(t, "AuthserverNoneReady")
	t.Logf("%s; at the end fire %v", time.Since(p.began).Round(time.Second), p.firing(t))
}

// still are lines that stay at 0 on a machine that has enough of everything.
var still = []string{"Turned away: requests", "Database connections: waits/s"}

// Every query of every panel has data: a number, and not 0 all the time. So it has with all of each variable, and with one.
func everyPanelHasData(t *testing.T, s *scene, p *prometheus) {
	for _, values := range []map[string]string{
		{"__rate_interval": "5s", "job": ".*", "instance": ".*", "service": ".*"},
		{"__rate_interval": "1m", "job": "authserver", "instance": "(" + regexp.QuoteMeta(strings.TrimPrefix(s.a.Ops, "http://")) + "|" + regexp.QuoteMeta(strings.TrimPrefix(s.b.Ops, "http://")) + ")", "service": regexp.QuoteMeta(s.a.Service)},
	} {
		values["instance"] = strings.ReplaceAll(values["instance"], `\`, `\\`) // as Grafana does
		values["service"] = strings.ReplaceAll(values["service"], `\`, `\\`)
		all := readDashboard(t).queries(values)
		for legend, expr := range all {
			var points []float64
			for _, line := range p.graph(t, expr) {
				points = append(points, line.points(t)...)
			}
			if len(points) == 0 {
				t.Errorf("%s has no data: %s", legend, expr)
			} else if slices.Max(points) == 0 && slices.Min(points) == 0 && !slices.Contains(still, legend) {
				t.Errorf("%s is always 0: %s", legend, expr)
			}
		}
		t.Logf("%d queries", len(all))
	}
}

var metricName = regexp.MustCompile(`\b(?:authserver|process|go|up)(?:_[a-z]+)+\b`)

// What dashboard, alerts and documentation name is there, and what is there they name.
func everyMetricIsKnown(t *testing.T, s *scene) {
	there := exposed(t, s.a)
	for name := range exposed(t, s.b) {
		there[name] = true
	}
	used := map[string]bool{}
	use := func(where, expr string) {
		for _, name := range metricName.FindAllString(expr, -1) {
			used[name] = true
			if !there[name] {
				t.Errorf("%s: there is no %s", where, name)
			}
		}
	}
	for legend, expr := range readDashboard(t).queries(nil) {
		use(legend, expr)
	}
	for _, r := range rules(t) {
		use(r.Alert, r.Expr)
	}
	page := string(harness.ReadFile(t, filepath.Join(harness.Root(t), "..", "docs", "reference", "metrics.md")))
	family := regexp.MustCompile(`_(bucket|count|sum)$`)
	documented := map[string]bool{}
	for _, name := range regexp.MustCompile("authserver_[a-z_]+").FindAllString(page, -1) {
		documented[name] = true
		if !there[name] && !there[name+"_count"] {
			t.Errorf("docs/reference/metrics.md: there is no %s", name)
		}
	}
	for name := range there {
		base := name
		if there[family.ReplaceAllString(name, "_bucket")] {
			base = family.ReplaceAllString(name, "")
		}
		if !strings.HasPrefix(base, "authserver_") {
			continue
		}
		if !documented[base] {
			t.Errorf("docs/reference/metrics.md does not have %s is", base)
		}
		if !used[name] && !used[base+"_bucket"] {
			t.Errorf("neither the dashboard nor an alert shows %s", name)
		}
	}
}
