package observability_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// prometheus is a running one, from Debian, which scrapes and evaluates every second.
type prometheus struct {
	*harness.Process
	url   string
	began time.Time
}

// deployed is a file below deploy/observability.
func deployed(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(harness.Root(t), "..", "deploy", "observability", filepath.FromSlash(name))
}

// startPrometheus starts it as deploy/observability/prometheus says, in a hurry: alerts fire after a second.
func startPrometheus(t testing.TB, targets ...*harness.Authserver) *prometheus {
	t.Helper()
	dir := t.TempDir()
	rules := regexp.MustCompile(`(?m)^(\s+for:).*$`).ReplaceAll(harness.ReadFile(t, deployed(t, "prometheus/rules.yaml")), []byte("$1 1s"))
	save(t, filepath.Join(dir, "rules.yaml"), string(rules))
	var hosts []string
	for _, a := range targets {
		hosts = append(hosts, strconv.Quote(strings.TrimPrefix(a.Ops, "http://")))
	}
	config := string(harness.ReadFile(t, deployed(t, "prometheus/prometheus.yml")))
	for old, replacement := range map[string]string{"_interval: 30s": "_interval: 1s", `"127.0.0.1:5002"`: strings.Join(hosts, ", ")} {
		if !strings.Contains(config, old) {
			t.Fatalf("prometheus.yml has no %s", old)
		}
		config = strings.ReplaceAll(config, old, replacement)
	}
	file := filepath.Join(dir, "prometheus.yml")
	save(t, file, config)
	harness.MustRun(t, nil, "", harness.Program(t, "promtool"), "check", "config", file)

	listen := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	p := &prometheus{url: "http://" + listen, began: time.Now()}
	p.Process = harness.Start(t, nil, harness.Program(t, "prometheus"), "--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", listen, "--log.level", "warn")
	p.Await(t, func() error {
		response, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", response.StatusCode)
		}
		return nil
	})
	return p
}

func save(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// series is one line of a graph.
type series struct {
	Metric map[string]string
	Values [][2]any // time, and the value as text
}

// points are the values that are numbers.
func (s series) points(t testing.TB) []float64 {
	t.Helper()
	var list []float64
	for _, v := range s.Values {
		n, err := strconv.ParseFloat(v[1].(string), 64)
		if err != nil {
			t.Fatal(err)
		}
		if !math.IsNaN(n) {
			list = append(list, n)
		}
	}
	return list
}

// graph asks for an expression from the start of p until now, as a panel does.
func (p *prometheus) graph(t testing.TB, expr string) []series {
	t.Helper()
	var data struct{ Result []series }
	p.get(t, "/api/v1/query_range", url.Values{"query": {expr}, "start": {stamp(p.began)}, "end": {stamp(time.Now())}, "step": {"1"}}, &data)
	return data.Result
}

func stamp(at time.Time) string { return strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64) }

// firing are the names of the alerts that fire, each once.
func (p *prometheus) firing(t testing.TB) []string {
	t.Helper()
	var data struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	p.get(t, "/api/v1/alerts", nil, &data)
	var names []string
	for _, a := range data.Alerts {
		if a.State == "firing" {
			names = append(names, a.Labels["alertname"])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// awaitFiring waits until all of these fire.
func (p *prometheus) awaitFiring(t testing.TB, names ...string) {
	t.Helper()
	p.Await(t, func() error {
		have := p.firing(t)
		for _, name := range names {
			if !slices.Contains(have, name) {
				return fmt.Errorf("%s does not fire; %v do", name, have)
			}
		}
		return nil
	})
}

// awaitQuiet waits until none of these fires.
func (p *prometheus) awaitQuiet(t testing.TB, names ...string) {
	t.Helper()
	p.Await(t, func() error {
		for _, name := range p.firing(t) {
			if slices.Contains(names, name) {
				return fmt.Errorf("%s still fires", name)
			}
		}
		return nil
	})
}

func (p *prometheus) get(t testing.TB, path string, query url.Values, into any) {
	t.Helper()
	response, err := http.Get(p.url + path + "?" + query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s %s: %v %s", path, query.Get("query"), err, answer.Error)
	}
	if err := json.Unmarshal(answer.Data, into); err != nil {
		t.Fatal(err)
	}
}

// exposed are the names of all samples that an authserver shows.
func exposed(t testing.TB, a *harness.Authserver) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for line := range strings.Lines(a.Metrics(t)) {
		if name := strings.FieldsFunc(line, func(r rune) bool { return r == '{' || r == ' ' })[0]; name != "#" {
			names[name] = true
		}
	}
	return names
}
