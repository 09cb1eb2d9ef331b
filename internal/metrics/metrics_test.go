package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/metrics"
	"authserver/internal/scope"
)

// scrape returns the samples of our own metrics as lines, without buckets and sums.
func scrape(t *testing.T, m *metrics.Metrics) []string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d", w.Code)
	}
	var samples []string
	for line := range strings.Lines(w.Body.String()) {
		name, _, _ := strings.Cut(line, "{")
		if strings.HasPrefix(line, "authserver_") && !strings.HasSuffix(name, "_bucket") && !strings.Contains(line, "_sum") {
			samples = append(samples, strings.TrimSpace(line))
		}
	}
	return samples
}

func wantSamples(t *testing.T, m *metrics.Metrics, want ...string) {
	t.Helper()
	got := scrape(t, m)
	for _, sample := range want {
		if !slices.Contains(got, sample) {
			t.Errorf("no sample %s among\n%s", sample, strings.Join(got, "\n"))
		}
	}
}

func TestEveryRequestIsCountedWithWhatItWasAndHowItEnded(t *testing.T) {
	m := metrics.New("v1", "abc", "go1")
	m.TokenRequest("basic", "registry.local", "granted", 2*time.Millisecond)
	m.TokenRequest("basic", "registry.local", "granted", 2*time.Millisecond)
	m.TokenRequest("anonymous", "", "invalid", time.Millisecond)
	wantSamples(t, m,
		`authserver_token_requests_total{grant="basic",outcome="granted",service="registry.local"} 2`,
		`authserver_token_requests_total{grant="anonymous",outcome="invalid",service="unknown"} 1`,
		`authserver_token_request_duration_seconds_count{grant="basic",outcome="granted"} 2`,
		`authserver_token_request_duration_seconds_count{grant="anonymous",outcome="invalid"} 1`,
	)
}

func TestLabelsThatClientsChooseAreCountedTogether(t *testing.T) {
	m := metrics.New("", "", "")
	verdict := func(typ, action string, granted bool) scope.Verdict {
		return scope.Verdict{Type: typ, Name: "secret/project", Action: action, Granted: granted}
	}
	m.Access([]scope.Verdict{
		verdict("repository", "pull", true), verdict("repository", "push", false), verdict("repository", "delete", false),
		verdict("repository", "*", true), verdict("registry", "*", false),
		verdict("x1", "pull", false), verdict("x2", "y1", false), verdict("x3", "y2", false), verdict("repository", "y3", true),
	})
	want := []string{
		`authserver_access_total{action="*",decision="denied",type="registry"} 1`,
		`authserver_access_total{action="*",decision="granted",type="repository"} 1`,
		`authserver_access_total{action="delete",decision="denied",type="repository"} 1`,
		`authserver_access_total{action="other",decision="denied",type="other"} 2`,
		`authserver_access_total{action="other",decision="granted",type="repository"} 1`,
		`authserver_access_total{action="pull",decision="denied",type="other"} 1`,
		`authserver_access_total{action="pull",decision="granted",type="repository"} 1`,
		`authserver_access_total{action="push",decision="denied",type="repository"} 1`,
	}
	var got []string
	for _, sample := range scrape(t, m) {
		if strings.HasPrefix(sample, "authserver_access_total") {
			got = append(got, sample)
		}
		if strings.Contains(sample, "secret") {
			t.Errorf("a name is a label: %s", sample)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhatBackendsAnswerAndScopesThatWereDroppedAreCounted(t *testing.T) {
	m := metrics.New("", "", "")
	m.Authentication("htpasswd", "known")
	m.Authentication("htpasswd", "refused")
	m.Authentication("htpasswd", "refused")
	m.ScopesDropped(3)
	m.ScopesDropped(0)
	wantSamples(t, m,
		`authserver_authentications_total{backend="htpasswd",outcome="known"} 1`,
		`authserver_authentications_total{backend="htpasswd",outcome="refused"} 2`,
		`authserver_scopes_dropped_total 3`,
	)
}

func TestAPasswordCheckIsInFlightUntilItIsDone(t *testing.T) {
	m := metrics.New("", "", "")
	first, second := m.PasswordCheck(12), m.PasswordCheck(12)
	wantSamples(t, m, "authserver_password_checks_in_flight 2", "authserver_password_check_duration_seconds_count 0")
	first()
	wantSamples(t, m, "authserver_password_checks_in_flight 1", "authserver_password_check_duration_seconds_count 1")
	second()
	wantSamples(t, m, "authserver_password_checks_in_flight 0", "authserver_password_check_duration_seconds_count 2")
}

func TestARefusedReloadKeepsTheTimeOfTheLastGoodOne(t *testing.T) {
	stamp := func(m *metrics.Metrics) string {
		for _, sample := range scrape(t, m) {
			if value, ok := strings.CutPrefix(sample, "authserver_config_reload_success_timestamp_seconds "); ok {
				return value
			}
		}
		return ""
	}
	m := metrics.New("", "", "")
	if got := stamp(m); got != "0" {
		t.Errorf("before any configuration: %q", got)
	}
	m.Reloaded(true)
	wantSamples(t, m, "authserver_config_reload_success 1")
	loaded := stamp(m)
	if loaded == "" || loaded == "0" {
		t.Errorf("after a good one: %q", loaded)
	}
	m.Reloaded(false)
	wantSamples(t, m, "authserver_config_reload_success 0")
	if got := stamp(m); got != loaded {
		t.Errorf("after a bad one: %q, want %q", got, loaded)
	}
}

func TestKeysThatAreGoneAreNoLongerReported(t *testing.T) {
	m := metrics.New("", "", "")
	m.SigningKeys(map[string]time.Time{"A": time.Unix(1000, 0), "B": time.Unix(2000, 0)})
	m.SigningKeys(map[string]time.Time{"B": time.Unix(3000, 0)})
	m.Roots(map[string]time.Time{"C": time.Unix(4000, 0)})
	m.Roots(map[string]time.Time{"D": time.Unix(5000, 0)})
	wantSamples(t, m,
		`authserver_signing_key_expiry_timestamp_seconds{kid="B"} 3000`,
		`authserver_root_certificate_expiry_timestamp_seconds{kid="D"} 5000`,
	)
	for _, sample := range scrape(t, m) {
		if strings.Contains(sample, `kid="A"`) || strings.Contains(sample, `kid="C"`) {
			t.Errorf("still there: %s", sample)
		}
	}
}

func TestTheBuildIsALabel(t *testing.T) {
	wantSamples(t, metrics.New("v1.2.3", "abcdef", "go1.26"), `authserver_build_info{goversion="go1.26",revision="abcdef",version="v1.2.3"} 1`)
}

func TestEveryMetricsHasARegistryOfItsOwn(t *testing.T) {
	first, second := metrics.New("", "", ""), metrics.New("", "", "") // no panic
	first.Authentication("htpasswd", "known")
	for _, sample := range scrape(t, second) {
		if strings.Contains(sample, "htpasswd") {
			t.Errorf("shared: %s", sample)
		}
	}
}
