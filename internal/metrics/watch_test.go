package metrics_test

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"authserver/internal/metrics"
)

func TestWhatIsWatchedIsAskedAtEveryScrape(t *testing.T) {
	m := metrics.New("", "", "")
	ready, waiting, end := true, 0, time.Unix(1000, 0)
	var connections metrics.Connections
	m.WatchReady(func() bool { return ready })
	m.WatchWaiting(func() int { return waiting })
	m.WatchCertificate(func() time.Time { return end })
	m.WatchConnections(func() metrics.Connections { return connections })
	wantSamples(t, m, "authserver_ready 1", "authserver_password_checks_waiting 0", "authserver_tls_certificate_expiry_timestamp_seconds 1000")

	ready, waiting, end = false, 3, time.Unix(2000, 0)
	connections = metrics.Connections{Open: 4, Limit: 10, ClosedIdle: 5, ClosedNew: 6}
	wantSamples(t, m, "authserver_ready 0", "authserver_password_checks_waiting 3", "authserver_tls_certificate_expiry_timestamp_seconds 2000",
		"authserver_connections 4", "authserver_connections_limit 10",
		`authserver_connections_turned_away_total{which="idle"} 5`, `authserver_connections_turned_away_total{which="new"} 6`)
}

func TestLinesOfTheAuditLogAndRequestsTurnedAwayAreCounted(t *testing.T) {
	m := metrics.New("", "", "")
	m.Audited(nil)
	m.Audited(nil)
	m.Audited(errors.New("disk full"))
	m.RequestTurnedAway()
	m.Spans("dropped", 3)
	wantSamples(t, m, `authserver_trace_spans_total{outcome="dropped"} 3`, `authserver_trace_spans_total{outcome="exported"} 0`, `authserver_audit_lines_total{outcome="written"} 2`, `authserver_audit_lines_total{outcome="failed"} 1`, "authserver_requests_turned_away_total 1")
}

// A rate sees no rise from a series that is not there to one that is 1.
func TestCountersThatAlertsNeedAreThereFromTheStart(t *testing.T) {
	wantSamples(t, metrics.New("", "", ""),
		`authserver_audit_lines_total{outcome="failed"} 0`, `authserver_throttled_total{reason="account"} 0`, `authserver_throttled_total{reason="network"} 0`,
		`authserver_throttled_total{reason="queue"} 0`, `authserver_credential_cache_total{result="hit"} 0`, "authserver_requests_turned_away_total 0")
}

func TestTheRoomOnADiskIsShown(t *testing.T) {
	m := metrics.New("", "", "")
	m.WatchDisks(map[string]string{"data": t.TempDir(), "audit": filepath.Join(t.TempDir(), "not there")}) // which is no fault, and no sample
	avail, size := sample(t, m, `authserver_filesystem_avail_bytes{of="data"}`), sample(t, m, `authserver_filesystem_size_bytes{of="data"}`)
	if size < 1<<20 || avail < 0 || avail > size {
		t.Errorf("%g bytes of %g", avail, size)
	}
	for _, line := range scrape(t, m) {
		if strings.Contains(line, `of="audit"`) {
			t.Error(line)
		}
	}
}

func TestTheClockIsShown(t *testing.T) {
	before := float64(time.Now().UnixNano()) / 1e9
	if got := sample(t, metrics.New("", "", ""), "authserver_time_seconds"); got < before-1 || got > before+60 {
		t.Errorf("%f, and it is %f", got, before)
	}
}

func sample(t *testing.T, m *metrics.Metrics, name string) float64 {
	t.Helper()
	for _, line := range scrape(t, m) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no sample %s", name)
	return 0
}
