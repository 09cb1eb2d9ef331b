package metrics

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"authserver/internal/scope"
)

var update = flag.Bool("update", false, "write docs/reference/metrics.md anew")

type nowhere struct{}

func (nowhere) Connect(context.Context) (driver.Conn, error) { return nil, errors.New("nowhere") }
func (nowhere) Driver() driver.Driver                        { return nil }

// The reference of metrics is what a scrape says of each: every one is touched, so that it shows.
func TestReferenceOfMetricsIsThatOfTheCode(t *testing.T) {
	m := New("v", "r", "go")
	db := sql.OpenDB(nowhere{})
	defer db.Close()
	watched := map[string]func(){
		"WatchDatabase":    func() { m.WatchDatabase(db, func(context.Context) error { return nil }) },
		"WatchReady":       func() { m.WatchReady(func() bool { return true }) },
		"WatchCertificate": func() { m.WatchCertificate(time.Now) },
		"WatchWaiting":     func() { m.WatchWaiting(func() int { return 0 }) },
		"WatchConnections": func() { m.WatchConnections(func() Connections { return Connections{} }) },
		"WatchDisks":       func() { m.WatchDisks(map[string]string{"data": t.TempDir()}) },
	}
	for method := range reflect.TypeFor[*Metrics]().Methods() {
		if strings.HasPrefix(method.Name, "Watch") {
			if watched[method.Name] == nil {
				t.Fatalf("%s is not called here", method.Name)
			}
			watched[method.Name]()
		}
	}
	m.RequestTurnedAway()
	m.Spans("exported", 1)
	m.TokenRequest("basic", "registry", "granted", time.Second)
	m.Access([]scope.Verdict{{Type: "repository", Action: "pull"}})
	m.Authentication("htpasswd", "known")
	m.Review("answered", time.Second)
	m.Database("read", time.Second)
	m.PasswordCheck(1)()
	m.Recalled("hit")
	m.HeldBack("account")
	m.Reloaded(true)
	m.SigningKeys(map[string]time.Time{"kid": time.Now()})
	m.Roots(map[string]time.Time{"root": time.Now()})
	m.Audited(errors.New("no room"))

	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Metrics\n\nMade from the program; what the labels say stands in [operations](../operations.md#health-and-metrics). Beside these are the `go_*` and `process_*` metrics\n" +
		"of every program in Go, and `go_sql_*` of the connections to the database.\n\n| metric | type | labels | |\n|---|---|---|---|\n")
	shown := map[string]bool{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), namespace+"_") {
			continue
		}
		shown[strings.TrimPrefix(f.GetName(), namespace+"_")] = true
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		slices.Sort(labels)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, " "), f.GetHelp())
	}
	for _, name := range names(m) {
		if !shown[name] {
			t.Errorf("%s was not touched above", name)
		}
	}
	const file = "../../docs/reference/metrics.md"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if stands, err := os.ReadFile(file); err != nil || string(stands) != b.String() {
		t.Errorf("%s is not what the program measures (%v); go test ./internal/metrics -run Reference -update", file, err)
	}
}

// names are those of all metrics of ours that are registered, touched or not.
func names(m *Metrics) (all []string) {
	descriptions := make(chan *prometheus.Desc)
	go func() {
		m.registry.Describe(descriptions)
		close(descriptions)
	}()
	for d := range descriptions {
		if _, rest, ok := strings.Cut(d.String(), `fqName: "`+namespace+"_"); ok {
			name, _, _ := strings.Cut(rest, `"`)
			all = append(all, name)
		}
	}
	return all
}
