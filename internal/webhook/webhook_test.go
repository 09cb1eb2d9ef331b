package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authserver/internal/scope"
	"authserver/internal/users"
	"authserver/internal/webhook"
)

var (
	app     = scope.Access{Type: "repository", Name: "team/app", Actions: []string{"pull", "push"}}
	catalog = scope.Access{Type: "registry", Name: "catalog", Actions: []string{"*"}}
	granted = scope.Canonical(app, catalog)
)

func question() webhook.Question {
	return webhook.Question{
		ID: "r1", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)), From: netip.MustParseAddr("192.0.2.7"), Service: "registry.local",
		Who:   users.Principal{Name: "alice", Kind: users.KindUser, Groups: []string{"backend"}, Claims: map[string]any{"ref": "main"}, Backend: "htpasswd"},
		Asked: scope.Canonical(app, catalog, scope.Access{Type: "repository", Name: "other", Actions: []string{"pull"}}), Granted: granted,
	}
}

// outcomes counts what a client observes.
type outcomes struct {
	mu     sync.Mutex
	seen   []string
	states []string
}

func (o *outcomes) list() (seen, states []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen), slices.Clone(o.states)
}

// client makes a webhook client; change alters its configuration.
func client(t *testing.T, url string, change func(*webhook.Config)) (*webhook.Client, *outcomes) {
	t.Helper()
	o := &outcomes{}
	c := webhook.Config{
		URL: url, Timeout: 5 * time.Second, Parallel: 4, Pause: time.Hour,
		Observe: func(outcome string, _ time.Duration) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.seen = append(o.seen, outcome)
		},
		OnChange: func(state string) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.states = append(o.states, state)
		},
	}
	if change != nil {
		change(&c)
	}
	w, err := webhook.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return w, o
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

func TestTheQuestionIsTheDocumentedOne(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*webhook.Question)
		want   string
	}{
		"a user": {func(*webhook.Question) {}, `{"input":{"id":"r1","now":"2026-01-02T02:04:05Z",
			"user":{"name":"alice","kind":"user","groups":["backend"],"backend":"htpasswd"},"claims":{"ref":"main"},
			"request":{"service":"registry.local","ip":"192.0.2.7"},
			"asked":[{"type":"registry","name":"catalog","actions":["*"]},{"type":"repository","name":"other","actions":["pull"]},{"type":"repository","name":"team/app","actions":["pull","push"]}],
			"access":[{"type":"registry","name":"catalog","actions":["*"]},{"type":"repository","name":"team/app","actions":["pull","push"]}]}}`},
		"anonymous, from nowhere": {func(q *webhook.Question) {
			q.Who, q.From, q.Granted = users.Anonymous(), netip.Addr{}, scope.Canonical(app)
			q.Asked = q.Granted
		}, `{"input":{"id":"r1","now":"2026-01-02T02:04:05Z","user":{"name":"","kind":"anonymous","groups":[],"backend":""},"claims":{},
			"request":{"service":"registry.local","ip":""},
			"asked":[{"type":"repository","name":"team/app","actions":["pull","push"]}],"access":[{"type":"repository","name":"team/app","actions":["pull","push"]}]}}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if got, want := canonical(t, body), canonical(t, []byte(c.want)); got != want {
					t.Errorf("sent\n%s\nwant\n%s", got, want)
				}
				if r.Method != http.MethodPost || r.URL.Path != "/v1/data/x" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Request-Id") != "r1" {
					t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
				}
				for _, header := range []string{"Authorization", "Idempotency-Key"} {
					if _, sent := r.Header[header]; sent {
						t.Errorf("%s was sent", header)
					}
				}
				_, _ = io.WriteString(w, `{"result": true}`)
			})
			q := question()
			c.change(&q)
			w, _ := client(t, s.URL+"/v1/data/x", nil)
			if left, err := w.Review(t.Context(), q); err != nil || left.String() != q.Granted.String() {
				t.Errorf("left %s, %v", left, err)
			}
		})
	}
}

// canonical is JSON with sorted keys and without blanks.
func canonical(t *testing.T, text []byte) string {
	t.Helper()
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestAnswers(t *testing.T) {
	const cannot = "cannot say"
	for answer, want := range map[string]string{
		`{"result": true}`:                             granted.String(),
		`{"result": true, "decision_id": "x"}`:         granted.String(),
		`{"result": false}`:                            "",
		`{"result": {"access": []}}`:                   "",
		`{"result": {"access": [], "reason": "late"}}`: "",
		`{"result": {"access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}]}}`: "repository:team/app:pull",
		`{"result": {"access": [{"type": "repository", "name": "team/app", "actions": ["*"]}]}}`:    "repository:team/app:pull,push",
		// More than the policy grants is not granted.
		`{"result": {"access": [{"type": "repository", "name": "team/app", "actions": ["pull", "delete"]}, {"type": "repository", "name": "other", "actions": ["pull"]}]}}`: "repository:team/app:pull",
		`{"result": {"access": [{"type": "repository", "name": "*", "actions": ["*"]}, {"type": "repository", "name": "**", "actions": ["pull"]}]}}`:                        "",
		`{"result": {"access": [{"type": "repository", "name": "team/app"}]}}`:                                                                                              "",
		`{"result": {"access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}, {"type": "repository", "name": "team/app", "actions": ["push"]}]}}`:        "repository:team/app:pull,push",

		``:                              cannot,
		`{}`:                            cannot,
		`null`:                          cannot,
		`true`:                          cannot,
		`[true]`:                        cannot,
		`{"result": null}`:              cannot,
		`{"result": "true"}`:            cannot,
		`{"result": 1}`:                 cannot,
		`{"result": []}`:                cannot,
		`{"result": {}}`:                cannot,
		`{"result": {"allow": true}}`:   cannot,
		`{"result": {"access": null}}`:  cannot,
		`{"result": {"access": true}}`:  cannot,
		`{"result": {"access": {}}}`:    cannot,
		`{"result": {"access": ["x"]}}`: cannot,
		`{"Result": true}`:              cannot,
		`{"result": {"Access": []}}`:    cannot,
		`{"result": true} {}`:           cannot,
		`{"result": true`:               cannot,
		`{"result": {"access": [{"type": "repository", "name": "team/app", "actions": "pull"}]}}`: cannot,
		`{"result": true, "pad": "` + strings.Repeat("x", 1<<20) + `"}`:                           cannot,
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })
		w, seen := client(t, s.URL, nil)
		left, err := w.Review(t.Context(), question())
		got, outcome := left.String(), webhook.Answered
		if err != nil {
			got, outcome = cannot, webhook.Failed
			if left != nil {
				t.Errorf("%.80s: an error, and %s", answer, left)
			}
		}
		if got != want {
			t.Errorf("%.80s: %q, %v; want %q", answer, got, err, want)
		}
		if list, _ := seen.list(); !slices.Equal(list, []string{outcome}) {
			t.Errorf("%.80s: observed %v, want %s", answer, list, outcome)
		}
	}
}

func TestAnotherStatusCannotSay(t *testing.T) {
	var elsewhere atomic.Int32
	target := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		elsewhere.Add(1)
		_, _ = io.WriteString(w, `{"result": true}`)
	})
	for _, status := range []int{201, 204, 301, 302, 307, 308, 400, 401, 403, 404, 429, 500, 503} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", target.URL)
			w.WriteHeader(status)
			if status != http.StatusNoContent {
				_, _ = io.WriteString(w, `{"result": true}`)
			}
		})
		w, _ := client(t, s.URL, nil)
		if left, err := w.Review(t.Context(), question()); err == nil || !strings.Contains(err.Error(), fmt.Sprint(status)) {
			t.Errorf("%d: %s, %v", status, left, err)
		}
	}
	if n := elsewhere.Load(); n > 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

func TestNoAnswerInTimeCannotSay(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for name, handler := range map[string]http.HandlerFunc{
		"no header": func(http.ResponseWriter, *http.Request) { <-release },
		"half a body": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"result": `)
			w.(http.Flusher).Flush()
			<-release
		},
	} {
		s := serve(t, handler)
		w, _ := client(t, s.URL, func(c *webhook.Config) { c.Timeout = 50 * time.Millisecond })
		if _, err := w.Review(t.Context(), question()); err == nil || !strings.Contains(err.Error(), "no answer in 50ms") {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	w, _ := client(t, gone.URL+"/secret-path", nil)
	if _, err := w.Review(t.Context(), question()); err == nil || strings.Contains(err.Error(), "secret-path") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestTheTokenIsSentAndNeverShown(t *testing.T) {
	const token = "s3cret-t0ken"
	file := write(t, token+"\n")
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"result": true}`)
	})
	w, _ := client(t, s.URL, func(c *webhook.Config) { c.TokenFile = file })
	if _, err := w.Review(t.Context(), question()); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "\n", "two words " + token, "two\n" + token, token + "\x00x", "schlüssel" + token} {
		_, err := webhook.New(webhook.Config{URL: s.URL, Parallel: 1, TokenFile: write(t, bad)})
		if err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("token file %q: %v", bad, err)
		}
	}
}

func TestTLSOnBothSides(t *testing.T) {
	dir := t.TempDir()
	ca, other := newCA(t, "ca"), newCA(t, "other")
	caFile, otherFile := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "other.crt")
	writeTo(t, caFile, ca.pem())
	writeTo(t, otherFile, other.pem())
	clientCert, clientKey := ca.issue(t, dir, "client")
	strangerCert, strangerKey := other.issue(t, dir, "stranger")
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name := r.TLS.PeerCertificates[0].Subject.CommonName; name != "client" {
			t.Errorf("client certificate of %q", name)
		}
		_, _ = io.WriteString(w, `{"result": true}`)
	}))
	s.Config.ErrorLog = nobody
	s.TLS = ca.server(t, dir)
	s.StartTLS()
	t.Cleanup(s.Close)
	url := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	for name, c := range map[string]struct {
		ca, cert, key string
		good          bool
	}{
		"both known":                {caFile, clientCert, clientKey, true},
		"a server of another CA":    {otherFile, clientCert, clientKey, false},
		"the system's certificates": {"", clientCert, clientKey, false},
		"no client certificate":     {caFile, "", "", false},
		"a client of another CA":    {caFile, strangerCert, strangerKey, false},
	} {
		w, _ := client(t, url, func(cfg *webhook.Config) { cfg.CAFile, cfg.CertFile, cfg.KeyFile = c.ca, c.cert, c.key })
		if left, err := w.Review(t.Context(), question()); (err == nil) != c.good {
			t.Errorf("%s: %s, %v", name, left, err)
		}
	}
	missing := filepath.Join(dir, "missing")
	for name, c := range map[string]webhook.Config{
		"no CA file":       {CAFile: missing},
		"not a CA file":    {CAFile: clientKey},
		"no certificate":   {CertFile: missing, KeyFile: clientKey},
		"a key of another": {CertFile: clientCert, KeyFile: strangerKey},
		"no token file":    {TokenFile: missing},
	} {
		c.URL, c.Parallel = url, 1
		if _, err := webhook.New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestFailuresInARowOpenTheBreakerAndOneGoodAnswerClosesIt(t *testing.T) {
	var asked atomic.Int32
	var good atomic.Bool
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if !good.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, `{"result": true}`)
	})
	const pause = 200 * time.Millisecond
	w, seen := client(t, s.URL, func(c *webhook.Config) { c.Pause = pause })
	for range 8 {
		if _, err := w.Review(t.Context(), question()); err == nil {
			t.Fatal("granted")
		}
	}
	list, states := seen.list()
	if n := asked.Load(); n != 5 || !slices.Equal(list, []string{"failed", "failed", "failed", "failed", "failed", "skipped", "skipped", "skipped"}) || !slices.Equal(states, []string{"open"}) {
		t.Fatalf("asked %d times, observed %v, states %v", n, list, states)
	}
	good.Store(true)
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := w.Review(t.Context(), question()); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never asked again")
		}
		time.Sleep(pause / 10)
	}
	if _, states := seen.list(); !slices.Equal(states, []string{"open", "half-open", "closed"}) {
		t.Errorf("states %v", states)
	}
}

func TestAClientThatGoesAwayDoesNotCountAsAFailure(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	w, seen := client(t, s.URL, nil)
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Millisecond, cancel)
		if _, err := w.Review(ctx, question()); err == nil {
			t.Fatal("granted")
		}
	}
	if _, states := seen.list(); len(states) > 0 {
		t.Errorf("states %v", states)
	}
}

// Who asks chooses the question. One that has no clear answer must not keep others from theirs.
func TestAnUnclearAnswerKeepsNobodyElseFromOne(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), `"name":"mallory"`) {
			_, _ = io.WriteString(w, `{}`) // OPA, where "access if …" has no default
			return
		}
		_, _ = io.WriteString(w, `{"result": true}`)
	})
	w, seen := client(t, s.URL, nil)
	evil := question()
	evil.Who.Name = "mallory"
	for range 10 {
		if _, err := w.Review(t.Context(), evil); err == nil {
			t.Fatal("granted")
		}
	}
	if left, err := w.Review(t.Context(), question()); err != nil || left.String() != granted.String() {
		t.Errorf("%v, %v", left, err)
	}
	if _, states := seen.list(); len(states) > 0 {
		t.Errorf("states %v", states)
	}
}

func TestNoMoreThanSoManyAtOnce(t *testing.T) {
	var now, most atomic.Int32
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
		now.Add(-1)
		_, _ = io.WriteString(w, `{"result": true}`)
	})
	w, _ := client(t, s.URL, func(c *webhook.Config) { c.Parallel = 3 })
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			if _, err := w.Review(context.Background(), question()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := most.Load(); n != 3 {
		t.Errorf("%d at once, want 3", n)
	}
}

// A server that restarts closes connections that we keep; the question is asked again on a new one.
func TestAConnectionThatWasClosedMeanwhileIsNoFailure(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"result": true}`) })
	w, _ := client(t, s.URL, nil)
	for range 50 {
		if _, err := w.Review(t.Context(), question()); err != nil {
			t.Fatal(err)
		}
		s.CloseClientConnections()
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	writeTo(t, file, []byte(text))
	return file
}

func writeTo(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
