package webhook_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
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
		URL: url, Timeout: time.Minute, Parallel: 4, Pause: time.Hour,
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
				for _, header := range []string{"Authorization", "Idempotency-Key", "Accept-Encoding", "Traceparent"} {
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
		`{"result": false, "Result": true}`:            "",
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
		`{"RESULT": true}`:              cannot,
		`{"result": {"access": [{"type": "repository", "name": "team/app", "actions": "pull"}]}}`:                                cannot,
		`{"result": {"access": [{"type": "registry", "name": "catalog", "actions": [" repository:x:push"]}]}}`:                   cannot,
		`{"result": {"access": [{"type": "repository", "name": "team/app", "actions": ["pull,push"]}]}}`:                         cannot,
		`{"result": {"access": [{"type": "repository", "name": 1, "actions": ["pull"]}]}}`:                                       cannot,
		`{"result": {"access": [{"type": "repository", "name": "team/app", "actions": ["pull"], "Actions": ["pull", "push"]}]}}`: "repository:team/app:pull",
		`{"result": true, "pad": "` + strings.Repeat("x", 1<<20) + `"}`:                                                          cannot,
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

// Answers that net/http hands over as they come, or quotes.
func TestAnswersThatAreNoneEndInTimeAndInAFewWords(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for _, answer := range []string{
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 599 " + strings.Repeat("A", 30_000) + "\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1" + strings.Repeat("A", 30_000) + "\r\n\r\n",
		strings.Repeat("A", 30_000) + "\r\n\r\n",
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, answer)
			<-release
		})
		w, _ := client(t, s.URL, nil)
		if left, err := w.Review(t.Context(), question()); err == nil || len(err.Error()) > 250 {
			t.Errorf("%.40q: %s, %v", answer, left, err)
		}
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
	w, seen := client(t, s.URL, nil)
	for range 8 {
		if _, err := w.Review(t.Context(), question()); err == nil {
			t.Fatal("granted")
		}
	}
	list, states := seen.list()
	if n := asked.Load(); n != 5 || !slices.Equal(list, []string{"failed", "failed", "failed", "failed", "failed", "skipped", "skipped", "skipped"}) || !slices.Equal(states, []string{"open"}) {
		t.Fatalf("asked %d times, observed %v, states %v", n, list, states)
	}
	w, seen = client(t, s.URL, func(c *webhook.Config) { c.Pause = time.Millisecond })
	for range 5 {
		if _, err := w.Review(t.Context(), question()); err == nil {
			t.Fatal("granted")
		}
	}
	good.Store(true)
	eventually(t, "somebody is asked again", func() bool { _, err := w.Review(t.Context(), question()); return err == nil })
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
	three := make(chan struct{})
	reached := sync.OnceFunc(func() { close(three) })
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == 3 {
			reached()
		}
		_, _ = io.Copy(io.Discard, r.Body) // until then nobody tells r.Context that the client is gone
		select {
		case <-three:
		case <-r.Context().Done():
		}
		time.Sleep(5 * time.Millisecond) // in which a fourth could come
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

// A far side that takes the connection and then says nothing costs no more than the questions that are asked.
func TestAHandshakeThatNeverEndsIsGivenUp(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var taken, ended atomic.Int32
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			taken.Add(1)
			go func() {
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
				ended.Add(1)
			}()
		}
	}()
	w, _ := client(t, "https://"+listener.Addr().String(), func(c *webhook.Config) { c.Timeout, c.Pause = 50*time.Millisecond, time.Millisecond })
	var asked int32
	eventually(t, "three connections are taken", func() bool {
		asked++
		if _, err := w.Review(t.Context(), question()); err == nil {
			t.Fatal("granted")
		}
		return taken.Load() >= 3
	})
	eventually(t, "all connections are closed", func() bool { return ended.Load() == taken.Load() })
	if n := taken.Load(); n > asked {
		t.Errorf("%d connections for %d questions", n, asked)
	}
}

// A host that is gone without a word (power, a firewall, a moved address) leaves connections that look alive. The first
// question after the pause gets through to who is there now, over HTTP/2 or not and however many connections were kept.
func TestConnectionsThatHaveDiedSilentlyAreLeft(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 %t", http2), func(t *testing.T) {
			dir := t.TempDir()
			ca := newCA(t, "ca")
			caFile := filepath.Join(dir, "ca.crt")
			writeTo(t, caFile, ca.pem())
			var asking atomic.Int32
			together := make(chan struct{})
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asking.Add(1)
				<-together
				_, _ = io.WriteString(w, `{"result": true}`)
			}))
			s.Config.ErrorLog, s.EnableHTTP2 = nobody, http2
			s.TLS = ca.server(t, dir)
			s.TLS.ClientAuth = tls.NoClientCert
			s.StartTLS()
			t.Cleanup(s.Close)
			wire := newWire(t, s.Listener.Addr().String())

			const kept = 20
			w, seen := client(t, "https://"+strings.Replace(wire.address, "127.0.0.1", "localhost", 1), func(c *webhook.Config) {
				c.CAFile, c.Parallel, c.Pause = caFile, kept, time.Millisecond
			})
			var all sync.WaitGroup
			for range kept {
				all.Go(func() {
					if _, err := w.Review(context.Background(), question()); err != nil {
						t.Error(err)
					}
				})
			}
			eventually(t, "all are asking", func() bool { return asking.Load() == kept })
			close(together)
			all.Wait()

			wire.silence()
			for range 5 {
				all.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
					defer cancel()
					if _, err := w.Review(ctx, question()); err == nil {
						t.Error("an answer from nowhere")
					}
				})
			}
			all.Wait()
			if _, states := seen.list(); !slices.Equal(states, []string{"open"}) {
				t.Fatalf("states %v", states)
			}
			eventually(t, "somebody is asked again", func() bool { _, err := w.Review(t.Context(), question()); return err == nil })
			if _, states := seen.list(); !slices.Equal(states, []string{"open", "half-open", "closed"}) {
				t.Errorf("states %v: not the first one got through", states)
			}
		})
	}
}

// wire is a way to a server that can be cut so that nobody notices.
type wire struct {
	address string
	mu      sync.Mutex
	cut     *atomic.Bool // for the connections of now
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	w := &wire{address: listener.Addr().String(), cut: &atomic.Bool{}}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			w.mu.Lock()
			cut := w.cut
			w.mu.Unlock()
			carry := func(to, from net.Conn) {
				buffer := make([]byte, 4096)
				for {
					n, err := from.Read(buffer)
					if err != nil {
						_ = to.Close()
						return
					}
					if !cut.Load() {
						_, _ = to.Write(buffer[:n])
					}
				}
			}
			go carry(near, far)
			go carry(far, near)
		}
	}()
	return w
}

// silence swallows what is said on the connections of now; later ones work.
func (w *wire) silence() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut.Store(true)
	w.cut = &atomic.Bool{}
}

func TestALargeAnswerIsNotRead(t *testing.T) {
	var zeros bytes.Buffer
	bomb := gzip.NewWriter(&zeros)
	_, _ = io.WriteString(bomb, `{"result": true, "pad": "`)
	_, _ = bomb.Write(bytes.Repeat([]byte{'x'}, 8<<20))
	_, _ = io.WriteString(bomb, `"}`)
	_ = bomb.Close()
	for name, handler := range map[string]http.HandlerFunc{
		"header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			_, _ = io.WriteString(w, `{"result": true}`)
		},
		"compressed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zeros.Bytes())
		},
		"without end": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write(bytes.Repeat([]byte{' '}, 64<<10))
			}
		},
	} {
		s := serve(t, handler)
		w, _ := client(t, s.URL, nil)
		if _, err := w.Review(t.Context(), question()); err == nil || strings.Contains(err.Error(), "no answer in") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
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
