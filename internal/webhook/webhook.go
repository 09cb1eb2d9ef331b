// Package webhook asks somebody else: an external decision, over HTTP, on what the policy grants. It can only take away.
//
// The question is {"input": …} and the answer {"result": …}, so an Open Policy Agent's data API answers it as it is. Whatever
// is not a clear answer in time (an outage, another status, a result that is missing or of another form) is an error:
// it cannot say, and the caller must refuse.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sony/gobreaker/v2"

	"authserver/internal/scope"
	"authserver/internal/tracing"
	"authserver/internal/users"
)

// Outcomes of a call, as Config.Observe is told them.
const (
	Answered = "answered"
	Failed   = "failed"  // no clear answer in time
	Skipped  = "skipped" // not asked: it failed again and again a moment ago
	Busy     = "busy"    // not asked: too many questions are under way
)

// maxAnswer bounds an answer, in bytes: more than the largest question that can be granted as a whole.
const maxAnswer = 1 << 20

// maxHeader bounds the header of an answer, in bytes.
const maxHeader = 64 << 10

// breakAfter failures in a row, nobody is asked for a while: an outage is answered at once, and not made worse.
const breakAfter = 5

// Config says whom to ask and how.
type Config struct {
	URL               string // http or https
	TokenFile         string // holds a bearer token, RFC 6750; "" = none
	CAFile            string // trusted instead of the system's certificates; "" = the system's
	CertFile, KeyFile string // client certificate; "" = none
	Timeout           time.Duration
	Parallel          int           // questions under way at once
	Pause             time.Duration // for which nobody is asked after breakAfter failures in a row
	Observe           func(outcome string, took time.Duration)
	OnChange          func(state string) // of the circuit breaker: closed, open or half-open
}

// Client asks. It is safe for concurrent use.
type Client struct {
	config  Config
	token   string
	http    *http.Client
	slots   chan struct{}
	breaker *gobreaker.CircuitBreaker[scope.Set]
}

// Errors that tell nothing about who is asked.
var (
	errGone = errors.New("the client went away")
	errBusy = errors.New("not asked, too many questions are under way")
)

// unclearError is an answer in time that says nothing clear. It refuses one question and breaks no circuit: who asks chooses
// the question, and must not be able to keep others from an answer.
type unclearError struct{ error }

// New reads the files that the configuration names.
func New(c Config) (*Client, error) {
	client := &Client{config: c, slots: make(chan struct{}, c.Parallel)}
	if c.TokenFile != "" {
		text, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return nil, err
		}
		client.token = strings.TrimSpace(string(text))
		if client.token == "" || strings.ContainsFunc(client.token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return nil, fmt.Errorf("%s does not hold a bearer token: one line, without blanks", c.TokenFile)
		}
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", c.CertFile, c.KeyFile, err)
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	client.http = &http.Client{
		// No proxy from the environment: a decision is not for somebody in between.
		// HTTP/1.1 only: there a question that gets no answer takes its connection with it. One connection of HTTP/2 serves all
		// questions, and would fail all of them for as long as the kernel takes to find that the other side is gone.
		Transport: &http.Transport{
			TLSClientConfig: settings, MaxResponseHeaderBytes: maxHeader,
			DisableCompression:  true, // endless nothing can be compressed, too
			MaxIdleConnsPerHost: c.Parallel, IdleConnTimeout: 90 * time.Second,
			// net/http goes on connecting when the question is given up.
			DialContext: (&net.Dialer{Timeout: c.Timeout}).DialContext, TLSHandshakeTimeout: c.Timeout,
		},
		// A redirect would carry the question, and its answer, somewhere that nobody configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	client.breaker = gobreaker.NewCircuitBreaker[scope.Set](gobreaker.Settings{
		Timeout:     c.Pause,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= breakAfter },
		IsExcluded: func(err error) bool {
			return errors.Is(err, errGone) || errors.Is(err, errBusy) || errors.As(err, &unclearError{})
		},
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				// They may all be dead; the one request that tries again must not find that out one by one.
				client.http.CloseIdleConnections()
			}
			c.OnChange(to.String())
		},
	})
	return client, nil
}

// Question is what is to be decided on.
type Question struct {
	ID      string // of the HTTP request
	Time    time.Time
	Who     users.Principal
	From    netip.Addr // the zero Addr when it is not known
	Service string
	Asked   scope.Set
	Granted scope.Set // by the policy
}

// Review returns what of q.Granted may be granted. An error means that it cannot say.
func (c *Client) Review(ctx context.Context, q Question) (scope.Set, error) {
	body, err := json.Marshal(map[string]input{"input": newInput(q)})
	if err != nil {
		return nil, err
	}
	ctx, span := tracing.StartClient(ctx, "acl.webhook")
	defer span.End()
	start := time.Now()
	answer, err := c.breaker.Execute(func() (scope.Set, error) { return c.ask(ctx, q, body) })
	outcome := Answered
	switch {
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		outcome, err = Skipped, fmt.Errorf("not asked, it failed %d times in a row: %w", breakAfter, err)
	case errors.Is(err, errBusy):
		outcome = Busy
	case err != nil:
		outcome = Failed
	}
	c.config.Observe(outcome, time.Since(start))
	span.Set("authserver.answer", outcome)
	if err != nil {
		span.Fail("no clear answer")
		return nil, err
	}
	return q.Granted.Intersect(answer), nil
}

func (c *Client) ask(asker context.Context, q Question, body []byte) (scope.Set, error) {
	ctx, cancel := context.WithTimeout(asker, c.config.Timeout)
	defer cancel()
	answer, err := c.post(ctx, q.ID, body)
	switch {
	case err == nil:
		set, err := read(answer, q.Granted)
		if err != nil {
			return nil, unclearError{err}
		}
		return set, nil
	case errors.Is(asker.Err(), context.Canceled):
		return nil, errGone
	case errors.Is(err, errBusy):
		return nil, err
	case ctx.Err() != nil:
		return nil, fmt.Errorf("no answer in %s", c.config.Timeout)
	}
	return nil, fmt.Errorf("%.200s", err) // net/http quotes what it cannot read
}

// post sends the question and returns the answer's body.
func (c *Client) post(ctx context.Context, id string, body []byte) ([]byte, error) {
	// A turn that is free is taken, whatever the time: select picks at random, and after a stall the wait could be over as well.
	select {
	case c.slots <- struct{}{}:
	default:
		// Half of the time at most goes to waiting for a turn. Who gets one with little time left would take it from the next, to no
		// avail, and under steady overload nobody would get an answer.
		turn, cancel := context.WithTimeout(ctx, c.config.Timeout/2)
		defer cancel()
		select {
		case c.slots <- struct{}{}:
		case <-turn.Done(): // by the asker's own time, too: what was not asked is not held against who is asked
			return nil, errBusy
		}
	}
	defer func() { <-c.slots }()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.config.URL, bytes.NewReader(body))
	if err != nil {
		return nil, withoutURL(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("X-Request-Id", id)
	tracing.Inject(ctx, request.Header)
	// A decision can be asked for twice, so net/http may try again on a connection that the other side has just closed.
	request.Header["Idempotency-Key"] = nil
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }()
	tracing.From(ctx).SetInt("http.response.status_code", response.StatusCode)
	// Before anything is read: what follows a 101 has no end, and no time.
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered %d %s", response.StatusCode, http.StatusText(response.StatusCode))
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("answered with more than %d bytes", maxAnswer)
	}
	return answer, nil
}

// withoutURL keeps the address out of an error: a query in it may be a secret.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// input is the question as it is sent. Its names are those of a policy's conditions.
type input struct {
	ID      string         `json:"id"`
	Now     time.Time      `json:"now"`
	User    user           `json:"user"`
	Claims  map[string]any `json:"claims"`
	Request request        `json:"request"`
	Asked   scope.Set      `json:"asked"`
	Access  scope.Set      `json:"access"`
}

type user struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Groups  []string `json:"groups"`
	Backend string   `json:"backend"`
}

type request struct {
	Service string `json:"service"`
	IP      string `json:"ip"`
}

func newInput(q Question) input {
	in := input{
		ID: q.ID, Now: q.Time.UTC(), Claims: q.Who.Claims,
		User:    user{q.Who.Name, string(q.Who.Kind), q.Who.Groups, q.Who.Backend},
		Request: request{Service: q.Service},
		Asked:   q.Asked, Access: q.Granted,
	}
	// Never null: a rule that looks into a list or a map must find one.
	if in.User.Groups == nil {
		in.User.Groups = []string{}
	}
	if in.Claims == nil {
		in.Claims = map[string]any{}
	}
	if q.From.IsValid() {
		in.Request.IP = q.From.String()
	}
	return in
}

// read reads an answer: true is all of granted, false nothing, {"access": […]} what it lists.
func read(text []byte, granted scope.Set) (scope.Set, error) {
	// Maps, because the fields of a struct are also found by names in other letters: "Result" is another field.
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("the answer is no JSON object: %w", err)
	}
	result := answer["result"]
	var yes *bool
	var object map[string]json.RawMessage
	var list *[]map[string]json.RawMessage
	switch {
	case len(result) == 0:
		return nil, errors.New("the answer has no result (OPA answers so when the rule that is asked for is not defined)")
	case json.Unmarshal(result, &yes) == nil && yes != nil:
		if *yes {
			return granted, nil
		}
		return scope.Set{}, nil
	case json.Unmarshal(result, &object) == nil && json.Unmarshal(object["access"], &list) == nil && list != nil:
		if set, ok := entries(*list); ok {
			return set, nil
		}
	}
	return nil, errors.New(`the answer's result is neither true, false nor {"access": [{"type": …, "name": …, "actions": […]}]}`)
}

// entries reads the list of an answer, and tells whether all of it is what it should be. An action that is none would be
// kept where everything is granted, and read as something else in a scope's text: "pull repository:x:push".
func entries(list []map[string]json.RawMessage) (scope.Set, bool) {
	accesses := make([]scope.Access, len(list))
	for i, entry := range list {
		a := &accesses[i]
		for key, into := range map[string]any{"type": &a.Type, "name": &a.Name, "actions": &a.Actions} {
			if text, ok := entry[key]; ok && json.Unmarshal(text, into) != nil {
				return nil, false
			}
		}
		if slices.ContainsFunc(a.Actions, func(action string) bool { return !scope.ValidAction(action) }) {
			return nil, false
		}
	}
	return scope.Canonical(accesses...), true
}
