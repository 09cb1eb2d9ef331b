package observability_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/collector/pdata/ptrace"

	"authserver/e2e/harness"
)

// receiver is a collector's OTLP receiver: what it is sent is read by the collector's own decoder.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	status  int // that it answers with; 0 = 200
	traces  []ptrace.Traces
	headers http.Header
}

func startReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			t.Error(err)
		}
		traces, err := new(ptrace.JSONUnmarshaler).UnmarshalTraces(body)
		if err != nil {
			t.Errorf("the collector cannot read it: %v\n%s", err, body)
			return
		}
		wantNothingLost(t, body, traces)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.status != 0 {
			w.WriteHeader(r.status)
			return
		}
		r.traces, r.headers = append(r.traces, traces), request.Header
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// wantNothingLost fails when the decoder has skipped a field, as it does with those that it does not know.
func wantNothingLost(t *testing.T, sent []byte, traces ptrace.Traces) {
	t.Helper()
	read, err := new(ptrace.JSONMarshaler).MarshalTraces(traces)
	if err != nil {
		t.Fatal(err)
	}
	var before, after any
	if json.Unmarshal(sent, &before) != nil || json.Unmarshal(read, &after) != nil {
		t.Fatalf("no JSON: %s", sent)
	}
	var within func(path string, a, b any)
	within = func(path string, a, b any) {
		switch a := a.(type) {
		case map[string]any:
			b, ok := b.(map[string]any)
			if !ok {
				t.Errorf("%s is lost", path)
			}
			for key, value := range a {
				within(path+"."+key, value, b[key])
			}
		case []any:
			b, ok := b.([]any)
			if !ok || len(a) != len(b) {
				t.Errorf("%s is lost", path)
				return
			}
			for i := range a {
				within(fmt.Sprintf("%s[%d]", path, i), a[i], b[i])
			}
		default:
			if !reflect.DeepEqual(a, b) {
				t.Errorf("%s: sent %v, read %v", path, a, b)
			}
		}
	}
	within("", before, after)
}

// of are the spans of a trace by name, and the attributes of who sent them.
func (r *receiver) of(trace string) (spans map[string]ptrace.Span, resource map[string]any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	spans = map[string]ptrace.Span{}
	for _, traces := range r.traces {
		for _, rs := range traces.ResourceSpans().All() {
			for _, ss := range rs.ScopeSpans().All() {
				for _, span := range ss.Spans().All() {
					if span.TraceID().String() == trace {
						spans[span.Name()] = span
						resource = rs.Resource().Attributes().AsRaw()
					}
				}
			}
		}
	}
	return spans, resource
}

// A trace of a proxy goes through authserver to the webhook; the collector is told of every step, and who has no collector
// still gets tokens.
func TestTraces(t *testing.T) {
	collector := startReceiver(t)
	var mu sync.Mutex
	var asked []string // traceparents
	decide := http.StatusOK
	webhook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Header.Get("Traceparent"))
		w.WriteHeader(decide)
		io.WriteString(w, `{"result": true}`)
	}))
	t.Cleanup(webhook.Close)
	headers := t.TempDir() + "/otel.headers"
	save(t, headers, "Authorization: Bearer of-the-collector\n")
	a := harness.StartAuthserver(t, harness.Options{
		Policy: policy, Users: map[string]string{"alice": password},
		Set: []string{
			"tracing.endpoint=" + collector.URL + "/v1/traces", "tracing.sample_one_in=1000000", "tracing.headers_file=" + headers, "tracing.service_name=token-server",
			"server.trusted_proxies=127.0.0.1", "acl.webhook.url=" + webhook.URL,
		},
	})
	// ask asks as a proxy does that has begun a trace.
	ask := func(trace string) int {
		request, err := http.NewRequest(http.MethodGet, a.URL+"/token?"+url.Values{"service": {a.Service}, "scope": {"repository:alice/app:pull"}}.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth("alice", password)
		request.Header.Set("traceparent", "00-"+trace+"-1112131415161718-01")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	const good, bad = "0af7651916cd43dd8448eb211c80319c", "0af7651916cd43dd8448eb211c80319d"
	if status := ask(good); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	mu.Lock()
	decide = http.StatusInternalServerError
	mu.Unlock()
	if status := ask(bad); status != http.StatusServiceUnavailable {
		t.Fatalf("status %d", status)
	}
	for _, trace := range []string{good, bad} {
		a.Await(t, func() error {
			if spans, _ := collector.of(trace); spans["GET /token"] == (ptrace.Span{}) {
				return fmt.Errorf("no span of the request has come, but %d others", len(spans))
			}
			return nil
		})
	}

	spans, resource := collector.of(good)
	root := spans["GET /token"]
	parents := map[string]string{"GET /token": "1112131415161718", "authenticate": root.SpanID().String(), "decide": root.SpanID().String(),
		"acl.webhook": spans["decide"].SpanID().String(), "sign": root.SpanID().String(), "record": root.SpanID().String()}
	if len(spans) != len(parents) {
		t.Fatalf("spans %v", spans)
	}
	for name, parent := range parents {
		s := spans[name]
		if s.ParentSpanID().String() != parent || s.Status().Code() != ptrace.StatusCodeUnset {
			t.Errorf("%s: parent %s, want %s; status %v", name, s.ParentSpanID(), parent, s.Status().Code())
		}
		if s.StartTimestamp() < root.StartTimestamp() || s.EndTimestamp() > root.EndTimestamp() || s.StartTimestamp() > s.EndTimestamp() {
			t.Errorf("%s: from %d to %d, in a request from %d to %d", name, s.StartTimestamp(), s.EndTimestamp(), root.StartTimestamp(), root.EndTimestamp())
		}
		t.Logf("%-12s %8s  %v", name, s.EndTimestamp().AsTime().Sub(s.StartTimestamp().AsTime()), s.Attributes().AsRaw())
	}
	if root.Kind() != ptrace.SpanKindServer || spans["acl.webhook"].Kind() != ptrace.SpanKindClient || spans["sign"].Kind() != ptrace.SpanKindInternal {
		t.Error("spans are of the wrong kinds")
	}
	if want := "00-" + good + "-" + spans["acl.webhook"].SpanID().String() + "-01"; asked[0] != want {
		t.Errorf("the webhook is part of %s, want %s", asked[0], want)
	}
	if resource["service.name"] != "token-server" || resource["service.version"] == "" || len(fmt.Sprint(resource["service.instance.id"])) != 16 {
		t.Errorf("resource %v", resource)
	}
	if collector.headers.Get("Authorization") != "Bearer of-the-collector" {
		t.Error("the collector is not told who we are")
	}

	spans, _ = collector.of(bad)
	for _, name := range []string{"GET /token", "decide", "acl.webhook"} {
		if s := spans[name]; s.Status().Code() != ptrace.StatusCodeError || s.Status().Message() == "" {
			t.Errorf("%s has status %v %q", name, s.Status().Code(), s.Status().Message())
		}
	}
	if spans["sign"] != (ptrace.Span{}) {
		t.Error("a token was signed")
	}

	// The collector refuses, and then it is gone.
	mu.Lock()
	decide = http.StatusOK
	mu.Unlock()
	collector.answer(http.StatusServiceUnavailable)
	tokens := func() {
		for range 20 {
			if status := ask(good); status != http.StatusOK {
				t.Errorf("status %d while nobody takes traces", status)
			}
		}
	}
	tokens()
	a.Await(t, func() error { return logged(a, "traces cannot be delivered; requests are not affected") })
	collector.Close()
	tokens()
	if err := a.Stop(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(a.Log(), "traces cannot be delivered"); n != 1 {
		t.Errorf("it was said %d times", n)
	}
	if strings.Contains(a.Log(), "of-the-collector") {
		t.Error("the log holds a secret")
	}
}

// logged reports that a text is not in the log of an authserver.
func logged(a *harness.Authserver, text string) error {
	if !strings.Contains(a.Log(), text) {
		return fmt.Errorf("the log does not say %q", text)
	}
	return nil
}
