// Package observability_test tries deploy/observability: the alerts, the dashboard and the pages on them, with a real
// Prometheus that scrapes real authservers.
package observability_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"authserver/e2e/harness"
)

// rule is one alert.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

// rules are those of deploy/observability/prometheus.
func rules(t testing.TB) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	if err := yaml.UnmarshalStrict(harness.ReadFile(t, deployed(t, "prometheus/rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	var list []rule
	for _, g := range file.Groups {
		list = append(list, g.Rules...)
	}
	if len(list) < 20 {
		t.Fatalf("only %d rules", len(list))
	}
	return list
}

func TestEveryAlertSaysWhatItIs(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert == "" || seen[r.Alert] {
			t.Errorf("%q: each rule is an alert, with a name of its own", r.Alert)
		}
		seen[r.Alert] = true
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
		}
		if want := "docs/alerts.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
		}
		for _, text := range []string{r.Annotations["summary"], r.Annotations["description"]} {
			if len(text) < 15 || !strings.HasSuffix(text, ".") {
				t.Errorf("%s: no sentence: %q", r.Alert, text)
			}
		}
	}
}

// promtool runs the tests themselves, in TestReadme; here it is seen to that none is missing.
func TestEveryAlertIsShownToFireAndNotToFire(t *testing.T) {
	type alertTest struct {
		EvalTime  string `json:"eval_time"`
		AlertName string `json:"alertname"`
		Expected  []any  `json:"exp_alerts"`
	}
	var file struct {
		Tests []struct {
			Alerts []alertTest `json:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal(harness.ReadFile(t, deployed(t, "prometheus/rules.test.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, group := range file.Tests {
		for _, a := range group.Alerts {
			if len(a.Expected) > 0 {
				fires[a.AlertName] = true
			} else {
				quiet[a.AlertName] = true
			}
		}
	}
	for _, r := range rules(t) {
		if !fires[r.Alert] || !quiet[r.Alert] {
			t.Errorf("rules.test.yaml shows %s to fire: %t, not to fire: %t", r.Alert, fires[r.Alert], quiet[r.Alert])
		}
	}
}

// Whoever is woken by an alert finds what to do.
func TestEveryAlertHasItsRunbook(t *testing.T) {
	page := string(harness.ReadFile(t, filepath.Join(harness.Root(t), "..", "docs", "alerts.md")))
	var headings []string
	for _, m := range regexp.MustCompile(`(?m)^### (Authserver\w+)$`).FindAllStringSubmatch(page, -1) {
		headings = append(headings, m[1])
	}
	var alerts []string
	for _, r := range rules(t) {
		alerts = append(alerts, r.Alert)
	}
	if !slices.Equal(headings, alerts) {
		t.Errorf("docs/alerts.md explains, in this order,\n%v\nand there are\n%v", headings, alerts)
	}
	for _, section := range strings.Split(page, "\n### ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		for _, part := range []string{"**Means.**", "**Users see.**", "**Look.**", "**Mend.**"} {
			if strings.Count(text, part) != 1 {
				t.Errorf("docs/alerts.md, %s: %s stands there %d times", name, part, strings.Count(text, part))
			}
		}
	}
}
