package server_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"authserver/internal/server"
	"authserver/internal/tracing"
)

// tracedSpan is what of a span is looked at.
type tracedSpan struct {
	TraceID, Name string
	Attributes    []struct {
		Key   string
		Value struct{ StringValue, IntValue string }
	}
	Status struct{ Code int }
}

func (s tracedSpan) value(key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.StringValue + a.Value.IntValue
		}
	}
	return ""
}

// traced is a face whose requests are traced, one in so many; spans ends that, and returns them and the text they came in.
func traced(t *testing.T, oneIn int) (f *face, spans func() ([]tracedSpan, string)) {
	t.Helper()
	var mu sync.Mutex
	var all []tracedSpan
	var text strings.Builder
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request struct {
			ResourceSpans []struct {
				ScopeSpans []struct{ Spans []tracedSpan }
			}
		}
		if err := json.Unmarshal(body, &request); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		text.Write(body)
		for _, r := range request.ResourceSpans {
			all = append(all, r.ScopeSpans[0].Spans...)
		}
	}))
	t.Cleanup(collector.Close)
	tracer := tracing.New(tracing.Config{Endpoint: collector.URL, OneIn: oneIn, Observe: func(string, int) {}, Report: func(error) {}})
	f = newFace(t, func(c *server.Config) {
		c.Tracer, c.TrustedProxies = tracer, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	})
	return f, func() ([]tracedSpan, string) {
		tracer.Close(context.Background())
		return all, text.String()
	}
}

const somebodysTrace = "0102030405060708090a0b0c0d0e0f10"

// A client that could say what is traced could flood the collector, or hide in another's trace.
func TestOnlyATrustedProxySaysWhatIsTraced(t *testing.T) {
	f, spans := traced(t, 1_000_000_000)
	for _, from := range []string{"192.0.2.1:1", "10.0.0.1:1"} {
		r := httptest.NewRequest(http.MethodGet, "/token?service=registry.local", nil)
		r.RemoteAddr = from
		r.Header.Set("traceparent", "00-"+somebodysTrace+"-1112131415161718-01")
		if a := f.do(r); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", from, a.StatusCode)
		}
	}
	all, _ := spans()
	requests := slices.DeleteFunc(all, func(s tracedSpan) bool { return s.Name != "GET /token" })
	if len(requests) != 1 || requests[0].TraceID != somebodysTrace {
		t.Errorf("%+v, want the proxy's alone", requests)
	}
}

func TestARequestIsTracedWithoutItsNamesAndSecrets(t *testing.T) {
	f, spans := traced(t, 1)
	r := httptest.NewRequest(http.MethodGet, "/token?service=registry.local&scope=repository:public/app:pull&account=alice", nil)
	r.SetBasicAuth("alice", "secret:1")
	r.Header.Set("traceparent", "00-"+somebodysTrace+"-1112131415161718-00") // nobody's whom we trust
	good := f.do(r)
	r = httptest.NewRequest(http.MethodGet, "/token", nil)
	r.SetBasicAuth("mallory", "guess")
	f.do(r)
	f.do(httptest.NewRequest("BREW", "/coffee/of/alice", nil))

	all, text := spans()
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
		if s.TraceID == somebodysTrace {
			t.Errorf("%s is in a trace of somebody who is not trusted", s.Name)
		}
	}
	want := []string{"authenticate", "decide", "sign", "record", "GET /token", "authenticate", "record", "GET /token", "_OTHER"}
	if !slices.Equal(names, want) {
		t.Fatalf("spans %v, want %v", names, want)
	}
	for i, values := range map[int]map[string]string{
		0: {"authserver.answer": "known", "authserver.backend": "htpasswd"},
		2: {"authserver.algorithm": "ES256"},
		4: {"http.route": "/token", "http.request.method": "GET", "http.response.status_code": "200", "authserver.grant": "basic", "authserver.service": "registry.local",
			"authserver.outcome": "granted", "authserver.request_id": good.Header.Get("X-Request-Id")},
		5: {"authserver.answer": "refused"},
		7: {"http.response.status_code": "401", "authserver.outcome": "refused"},
		8: {"http.response.status_code": "405"},
	} {
		for key, want := range values {
			if got := all[i].value(key); got != want {
				t.Errorf("%s: %s is %q, want %q", all[i].Name, key, got, want)
			}
		}
		if all[i].Status.Code != 0 {
			t.Errorf("%s is a fault", all[i].Name)
		}
	}
	for _, secret := range []string{"alice", "secret", "mallory", "guess", "public/app", "192.0.2.1", "coffee", "BREW"} {
		if strings.Contains(text, secret) {
			t.Errorf("the collector is told %q", secret)
		}
	}
}

func TestAFaultOfOursIsAFaultInItsTrace(t *testing.T) {
	f, spans := traced(t, 1)
	f.audit.full = true
	if a := f.do(httptest.NewRequest(http.MethodGet, "/token", nil)); a.StatusCode != http.StatusInternalServerError {
		t.Fatalf("status %d", a.StatusCode)
	}
	all, _ := spans()
	for _, s := range all {
		if want := map[string]int{"record": 2, "GET /token": 2}[s.Name]; s.Status.Code != want {
			t.Errorf("%s: status %d, want %d", s.Name, s.Status.Code, want)
		}
	}
	if len(all) != 5 {
		t.Errorf("%+v", all)
	}
}
