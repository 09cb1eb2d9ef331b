package tracing_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/tracing"
)

// collector takes what is sent to it.
type collector struct {
	mu     sync.Mutex
	spans  []span
	counts map[string]int
	said   []error
	header http.Header
	tracer *tracing.Tracer
}

type span struct {
	TraceID, SpanID, ParentSpanID, TraceState, Name string
	Kind, Flags                                     int
	Attributes                                      []struct {
		Key   string
		Value struct{ StringValue, IntValue string }
	}
	Status struct {
		Code    int
		Message string
	}
}

// start starts a tracer whose collector answers with handle, or takes all when that is nil.
func start(t *testing.T, oneIn int, handle http.HandlerFunc) *collector {
	t.Helper()
	c := &collector{counts: map[string]int{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request struct {
			ResourceSpans []struct{ ScopeSpans []struct{ Spans []span } }
		}
		if err := json.Unmarshal(body, &request); err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		c.header = r.Header
		for _, r := range request.ResourceSpans {
			for _, s := range r.ScopeSpans {
				c.spans = append(c.spans, s.Spans...)
			}
		}
		c.mu.Unlock()
		if handle != nil {
			handle(w, r)
		}
	}))
	t.Cleanup(server.Close)
	c.tracer = tracing.New(tracing.Config{
		Endpoint: server.URL + "/v1/traces", Headers: map[string]string{"Authorization": "Bearer secret"}, Service: "s", Version: "v", OneIn: oneIn,
		Observe: func(outcome string, n int) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.counts[outcome] += n
		},
		Report: func(err error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.said = append(c.said, err)
		},
	})
	return c
}

func (c *collector) close(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c.tracer.Close(ctx)
	if ctx.Err() != nil {
		t.Fatal("not closed in time")
	}
}

const remote = "00-0102030405060708090a0b0c0d0e0f10-1112131415161718-"

func headers(traceparent, tracestate string) http.Header {
	h := http.Header{}
	h.Set("traceparent", traceparent)
	if tracestate != "" {
		h.Set("tracestate", tracestate)
	}
	return h
}

func TestStepsOfARequestAreSpansOfOneTrace(t *testing.T) {
	c := start(t, 1, nil)
	ctx, request := c.tracer.Begin(t.Context(), "", tracing.ParseParent(headers(remote+"01", "vendor=x")))
	ctx, step := tracing.Start(ctx, "decide")
	inner, question := tracing.StartClient(ctx, "ask")
	out := http.Header{}
	tracing.Inject(inner, out)
	question.SetInt("http.response.status_code", 200)
	question.End()
	step.Fail("it went wrong")
	step.End()
	request.Rename("GET /token")
	request.Set("outcome", "granted")
	request.End()
	c.close(t)

	if len(c.spans) != 3 {
		t.Fatalf("%d spans", len(c.spans))
	}
	ask, decide, root := c.spans[0], c.spans[1], c.spans[2]
	for _, s := range c.spans {
		if s.TraceID != "0102030405060708090a0b0c0d0e0f10" || len(s.SpanID) != 16 || s.TraceState != "vendor=x" || s.Flags&1 != 1 {
			t.Errorf("%+v", s)
		}
	}
	if root.ParentSpanID != "1112131415161718" || decide.ParentSpanID != root.SpanID || ask.ParentSpanID != decide.SpanID {
		t.Errorf("parents %s, %s, %s", root.ParentSpanID, decide.ParentSpanID, ask.ParentSpanID)
	}
	if root.Kind != 2 || decide.Kind != 1 || ask.Kind != 3 || root.Flags&0x200 == 0 || decide.Flags&0x200 != 0 {
		t.Errorf("kinds and flags: %+v", c.spans)
	}
	if root.Name != "GET /token" || root.Attributes[0].Value.StringValue != "granted" || ask.Attributes[0].Value.IntValue != "200" {
		t.Errorf("%+v", c.spans)
	}
	if decide.Status.Code != 2 || decide.Status.Message != "it went wrong" || root.Status.Code != 0 {
		t.Errorf("status %+v", decide.Status)
	}
	if got, want := out.Get("traceparent"), "00-"+ask.TraceID+"-"+ask.SpanID+"-01"; got != want || out.Get("tracestate") != "vendor=x" {
		t.Errorf("handed on %s, want %s", got, want)
	}
	if c.header.Get("Authorization") != "Bearer secret" || c.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", c.header)
	}
	if c.counts[tracing.Exported] != 3 || c.counts[tracing.Dropped] != 0 {
		t.Errorf("counted %v", c.counts)
	}
}

func TestAParentDecidesWhatIsRecordedAndChanceOtherwise(t *testing.T) {
	c := start(t, 1_000_000, nil)
	_, yes := c.tracer.Begin(t.Context(), "", tracing.ParseParent(headers(remote+"01", "")))
	if yes == nil {
		t.Error("a parent that is recorded was not heeded")
	}
	ctx, no := c.tracer.Begin(t.Context(), "", tracing.ParseParent(headers(remote+"00", "")))
	_, step := tracing.Start(ctx, "x")
	out := http.Header{}
	tracing.Inject(ctx, out)
	if no != nil || step != nil || tracing.From(ctx) != nil {
		t.Error("a parent that is not recorded was not heeded")
	}
	if got := out.Get("traceparent"); !strings.HasPrefix(got, remote[:36]) || !strings.HasSuffix(got, "-00") || strings.Contains(got, "1112131415161718") {
		t.Errorf("handed on %q", got)
	}
	recorded := 0
	for range 1000 {
		if _, s := c.tracer.Begin(t.Context(), "", tracing.Parent{}); s != nil {
			recorded++
		}
	}
	if recorded > 5 {
		t.Errorf("%d of 1000 are recorded, and it should be one in a million", recorded)
	}
	c.close(t)
}

func TestTracestateAndTraceparentAsTheStandardHasThem(t *testing.T) {
	c := start(t, 1_000_000, nil)
	defer c.close(t)
	for text, good := range map[string]bool{
		remote + "01":                  true,
		remote + "03":                  true,
		"cc" + remote[2:] + "01":       true, // a later version
		"cc" + remote[2:] + "01-more":  true,
		remote + "01-more":             false,
		"ff" + remote[2:] + "01":       false,
		remote + "1":                   false,
		remote + "0g":                  false,
		strings.ToUpper(remote) + "01": false,
		"00-00000000000000000000000000000000-1112131415161718-01": false,
		"00-0102030405060708090a0b0c0d0e0f10-0000000000000000-01": false,
		"00-0102030405060708090a0b0c0d0e0f10-11121314151617-01":   false,
		"":  false,
		"-": false,
	} {
		if _, s := c.tracer.Begin(t.Context(), "", tracing.ParseParent(headers(text, ""))); (s != nil) != good {
			t.Errorf("%q: %t", text, s != nil)
		}
	}
	two := http.Header{"Traceparent": {remote + "01", remote + "01"}}
	if tracing.ParseParent(two) != (tracing.Parent{}) {
		t.Error("two of them are believed")
	}
	for _, state := range []string{strings.Repeat("a", 600), "a=\x01"} {
		ctx, _ := c.tracer.Begin(t.Context(), "", tracing.ParseParent(headers(remote+"01", state)))
		out := http.Header{}
		if tracing.Inject(ctx, out); out.Get("tracestate") != "" || out.Get("traceparent") == "" {
			t.Errorf("%.10q is handed on: %v", state, out)
		}
	}
}

// Nobody waits for a collector that hangs: what finds no room is dropped.
func TestACollectorThatHangsKeepsNobodyWaiting(t *testing.T) {
	release := make(chan struct{})
	c := start(t, 1, func(http.ResponseWriter, *http.Request) { <-release })
	const spans = 20_000
	for range spans {
		_, s := c.tracer.Begin(t.Context(), "x", tracing.Parent{})
		s.End()
	}
	c.mu.Lock()
	dropped := c.counts[tracing.Dropped]
	c.mu.Unlock()
	if dropped < spans/2 {
		t.Errorf("%d of %d were dropped, and there is room for some thousand", dropped, spans)
	}
	close(release)
	c.close(t)
	if c.counts[tracing.Dropped]+c.counts[tracing.Exported] != spans {
		t.Errorf("%v of %d", c.counts, spans)
	}
}

func TestWhatACollectorRefusesIsDroppedAndSaidOnce(t *testing.T) {
	var c *collector
	status, refused := http.StatusServiceUnavailable, 0
	c = start(t, 1, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		if status != http.StatusOK {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		half := len(c.spans) / 2 // of this export: a batch goes in two when it is time meanwhile
		c.spans, refused = nil, refused+half
		fmt.Fprintf(w, `{"partialSuccess":{"rejectedSpans":"%d","errorMessage":"too old"}}`, half)
	})
	send := func(n int) { // as many as make batches of themselves
		for range n {
			_, s := c.tracer.Begin(t.Context(), "x", tracing.Parent{})
			s.End()
		}
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			c.mu.Lock()
			done := c.counts[tracing.Dropped]+c.counts[tracing.Exported] >= n
			c.mu.Unlock()
			if done {
				return
			}
		}
		t.Fatal("not sent")
	}
	send(1024)
	c.mu.Lock()
	status, c.spans, c.counts = http.StatusOK, nil, map[string]int{}
	c.mu.Unlock()
	send(512)
	c.close(t)
	if c.counts[tracing.Exported] != 512-refused || c.counts[tracing.Dropped] != refused {
		t.Errorf("counted %v, refused %d", c.counts, refused)
	}
	if len(c.said) != 2 || c.said[0] == nil || c.said[0].Error() != "answered 503 Service Unavailable" || c.said[1] != nil {
		t.Errorf("said %v", c.said)
	}
}

func TestWhatIsNotTracedCostsNothing(t *testing.T) {
	type somebodys struct{}
	ctx := context.WithValue(t.Context(), somebodys{}, 1)
	if n := testing.AllocsPerRun(100, func() {
		ctx, s := tracing.Start(ctx, "x")
		s.Set("a", "b")
		s.SetInt("a", 1)
		s.Fail("c")
		s.Rename("d")
		tracing.From(ctx).Set("e", "f")
		_, q := tracing.StartClient(ctx, "y")
		q.End()
		s.End()
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
	h := http.Header{}
	if tracing.Inject(ctx, h); len(h) != 0 {
		t.Errorf("%v", h)
	}
}

func TestHeadersAreReadFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "headers")
	write := func(text string) (map[string]string, error) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return tracing.ReadHeaders(file)
	}
	got, err := write("\n# of the collector\nAuthorization: Bearer a:b\r\nX-Scope-OrgID:  1 \n")
	if err != nil || len(got) != 2 || got["Authorization"] != "Bearer a:b" || got["X-Scope-OrgID"] != "1" {
		t.Errorf("%v, %v", got, err)
	}
	for text, want := range map[string]string{
		"\nhunter2\n":       ":2: no header; would be right: Authorization: Bearer …",
		"a b: hunter2":      ":1: no header; would be right: Authorization: Bearer …",
		": hunter2":         ":1: no header; would be right: Authorization: Bearer …",
		"A:\n":              ":1: A has no value, or one that no header can have",
		"A: hunter2\x01yes": ":1: A has no value, or one that no header can have",
	} {
		if _, err := write(text); err == nil || err.Error() != file+want || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := tracing.ReadHeaders(file + "x"); err == nil {
		t.Error("a file that is not there")
	}
}
