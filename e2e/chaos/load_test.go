package chaos_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A client asks for the same thing again and again.
type client struct {
	name           string
	url, service   string
	user, password string   // none: anonymous
	database       bool     // the database has to be asked about it
	post           bool     // POST, else GET
	fresh          bool     // a new connection for each request
	more           []string // repositories that it asks for besides its own
	from           string   // X-Forwarded-For
}

func (c client) String() string {
	how := []string{c.name, "GET"}
	if c.post {
		how[1] = "POST"
	}
	if c.fresh {
		how = append(how, "fresh connection")
	}
	return strings.Join(how, ", ")
}

// own is the repository that a client asks for and gets.
func (c client) own() string {
	if c.user == "" {
		return "public/app"
	}
	return c.user + "/app"
}

// A result is what a client was told.
type result struct {
	client client
	began  time.Time
	took   time.Duration
	err    error // there was no answer
	status int
	retry  string // Retry-After
	token  string
	claims claims
}

type claims struct {
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	ExpiresAt int64  `json:"exp"`
	Access    []struct{ Type, Name string }
	KeyID     string `json:"-"`
}

func (c claims) grants(repository string) bool {
	return slices.ContainsFunc(c.Access, func(a struct{ Type, Name string }) bool { return a.Type == "repository" && a.Name == repository })
}

// well: it was given what it asked for.
func (r result) well() bool {
	return r.err == nil && r.status == http.StatusOK && r.claims.grants(r.client.own())
}

// busy: it was told to come again.
func (r result) busy() bool {
	return r.status == http.StatusServiceUnavailable && r.retry != ""
}

func (r result) String() string {
	switch {
	case r.err != nil:
		text := r.err.Error()
		return "no answer: " + text[strings.LastIndex(text, ": ")+1:]
	case r.well():
		return "token"
	case r.retry != "":
		return fmt.Sprintf("%d with Retry-After", r.status)
	}
	return fmt.Sprint(r.status)
}

// transport is how a client connects; each has one of its own.
func (c client) transport() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: c.fresh}, Timeout: 20 * time.Second}
}

// ask asks once.
func (c client) ask(h *http.Client) result {
	values := url.Values{"service": {c.service}}
	for _, repository := range append([]string{c.own()}, c.more...) {
		values.Add("scope", "repository:"+repository+":pull")
	}
	var request *http.Request
	if c.post {
		values.Set("grant_type", "password")
		values.Set("client_id", "chaos")
		values.Set("username", c.user)
		values.Set("password", c.password)
		request, _ = http.NewRequest("POST", c.url, strings.NewReader(values.Encode()))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		request, _ = http.NewRequest("GET", c.url+"?"+values.Encode(), nil)
		if c.user != "" {
			request.SetBasicAuth(c.user, c.password)
		}
	}
	if c.from != "" {
		request.Header.Set("X-Forwarded-For", c.from)
	}
	return send(c, h, request)
}

func send(c client, h *http.Client, request *http.Request) (r result) {
	r.client, r.began = c, time.Now()
	defer func() { r.took = time.Since(r.began) }()
	response, err := h.Do(request)
	if err != nil {
		r.err = err
		return r
	}
	defer response.Body.Close()
	r.status, r.retry = response.StatusCode, response.Header.Get("Retry-After")
	body, err := io.ReadAll(response.Body)
	if err != nil {
		r.err = fmt.Errorf("half an answer: %w", err)
		return r
	}
	var answer struct{ Token string }
	if err := json.Unmarshal(body, &answer); err != nil {
		r.err = fmt.Errorf("status %d with %.80q: %w", r.status, body, err)
		return r
	}
	if r.token = answer.Token; r.token != "" {
		r.claims, r.err = read(r.token)
	}
	return r
}

// read reads a token as it is.
func read(token string) (c claims, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, fmt.Errorf("no token: %.40q", token)
	}
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return c, err
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return c, err
	}
	var key struct {
		ID string `json:"kid"`
	}
	if err := json.Unmarshal(header, &key); err != nil {
		return c, err
	}
	c.KeyID = key.ID
	return c, json.Unmarshal(payload, &c)
}

// A load is clients that go on asking.
type load struct {
	t testing.TB
	ordeal
	done    chan struct{}
	askers  sync.WaitGroup
	mu      sync.Mutex
	strict  time.Time // what began later has to be well; zero: nothing has to
	counts  map[string]int
	bad     complaints
	lastBad time.Time     // the beginning of the last request that was not well
	ended   time.Time     // the fault
	slowest time.Duration // of those that were well
	good    map[int]bool  // clients that were served when they had to be
}

func begin(t testing.TB, o ordeal) *load {
	l := &load{t: t, ordeal: o, done: make(chan struct{}), strict: time.Now(), counts: map[string]int{}, good: map[int]bool{}}
	for i, c := range o.clients {
		l.askers.Go(func() {
			h := c.transport()
			defer h.CloseIdleConnections()
			for {
				select {
				case <-l.done:
					return
				case <-time.After(15*time.Millisecond + rand.N(10*time.Millisecond)):
				}
				l.note(i, c.ask(h))
			}
		})
	}
	return l
}

func (l *load) note(i int, r result) {
	if r.well() && l.each != nil {
		l.each(r)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[r.String()]++
	must := !l.strict.IsZero() && r.began.After(l.strict)
	if r.well() {
		l.slowest = max(l.slowest, r.took)
		l.good[i] = l.good[i] || must
		return
	}
	if r.began.After(l.lastBad) {
		l.lastBad = r.began
	}
	if must || l.allowed == nil || !l.allowed(r) {
		text := fmt.Sprintf("%s: %s", r.client, r)
		if r.err != nil {
			text = fmt.Sprintf("%s: no answer: %v", r.client, r.err)
		}
		if must && !l.ended.IsZero() {
			text += ", after the end of the fault"
		}
		l.bad.add("%s", text)
	}
}

// fault begins: from now on clients may be told what is allowed.
func (l *load) fault() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.allowed != nil {
		l.strict = time.Time{}
	}
}

// over is the end of the fault: soon all must be well.
func (l *load) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended, l.strict = time.Now(), time.Now()
	if l.allowed != nil {
		l.strict = l.ended.Add(soon)
	}
	clear(l.good)
}

// end waits until everybody had to be well for a while, ends the load, and says how it went.
func (l *load) end() {
	l.t.Helper()
	l.mu.Lock()
	rest := time.Until(l.strict) + 1500*time.Millisecond
	l.mu.Unlock()
	time.Sleep(max(rest, 0))
	close(l.done)
	l.askers.Wait()
	for i, c := range l.clients {
		if !l.good[i] {
			l.t.Errorf("%s: was not served at the end", c)
		}
	}
	l.bad.report(l.t)
	if l.ended.IsZero() {
		return
	}
	said := []string{}
	for _, text := range slices.Sorted(maps.Keys(l.counts)) {
		said = append(said, fmt.Sprintf("%d × %s", l.counts[text], text))
	}
	recovered := "nobody noticed"
	if !l.lastBad.IsZero() {
		recovered = fmt.Sprintf("full service %s after the end of the fault", max(0, l.lastBad.Sub(l.ended)).Round(time.Millisecond))
	}
	l.t.Logf("%s; the slowest token took %s; %s", strings.Join(said, ", "), l.slowest.Round(time.Millisecond), recovered)
}

// complaints are what many at once found wrong. The same words are one complaint.
type complaints struct {
	mu     sync.Mutex
	counts map[string]int
}

func (c *complaints) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	c.counts[fmt.Sprintf(format, args...)]++
}

func (c *complaints) report(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, text := range slices.Sorted(maps.Keys(c.counts)) {
		if i == 20 {
			t.Errorf("and %d more", len(c.counts)-i)
			return
		}
		t.Errorf("%d × %s", c.counts[text], text)
	}
}
