package observability_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// dashboard is what of Grafana's own format is looked at.
type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Panels        []panel
	Templating    struct{ List []variable }
	Annotations   struct{ List []struct{ Name, Expr string } }
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               source
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []target
}

type target struct {
	RefID        string
	Datasource   source
	Expr         string
	LegendFormat string
}

type variable struct {
	Name, Type, Label, Description, Definition, AllValue string
	Datasource                                           source
	IncludeAll, Multi                                    bool
}

type source struct{ Type, UID string }

func readDashboard(t testing.TB) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal(harness.ReadFile(t, deployed(t, "grafana/authserver.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// queries are the panels' expressions by panel and legend, with variables in the place of which stands what Grafana puts there.
func (d dashboard) queries(values map[string]string) map[string]string {
	all := map[string]string{}
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			expr := q.Expr
			for name, value := range values {
				expr = strings.ReplaceAll(expr, "$"+name, value)
			}
			all[p.Title+": "+q.LegendFormat] = expr
		}
	}
	for _, a := range d.Annotations.List {
		expr := a.Expr
		for name, value := range values {
			expr = strings.ReplaceAll(expr, "$"+name, value)
		}
		all["annotation: "+a.Name] = expr
	}
	return all
}

// The units of Grafana that we use; a misspelt one is shown as text behind each number.
var units = []string{"none", "reqps", "ops", "s", "percentunit", "bytes"}

func TestTheDashboardIsInOrder(t *testing.T) {
	d := readDashboard(t)
	if d.UID != "authserver" || d.Title == "" || d.SchemaVersion < 39 {
		t.Errorf("uid %q, title %q, schema %d", d.UID, d.Title, d.SchemaVersion)
	}
	ids, legends, count := map[int]bool{}, map[string]bool{}, 0
	var taken [][24]string // by row
	for _, p := range d.Panels {
		if p.ID == 0 || ids[p.ID] {
			t.Errorf("%s: id %d is none of its own", p.Title, p.ID)
		}
		ids[p.ID] = true
		for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
			for len(taken) <= y {
				taken = append(taken, [24]string{})
			}
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				if x >= 24 || taken[y][x] != "" {
					t.Fatalf("%s lies over %s, or outside", p.Title, taken[y][min(x, 23)])
				}
				taken[y][x] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		count++
		if p.Title == "" || len(p.Description) < 10 || !strings.HasSuffix(p.Description, ".") {
			t.Errorf("panel %d %q: description %q", p.ID, p.Title, p.Description)
		}
		if !slices.Contains(units, p.FieldConfig.Defaults.Unit) {
			t.Errorf("%s: unit %q", p.Title, p.FieldConfig.Defaults.Unit)
		}
		if p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%s: data source %q, %d queries", p.Title, p.Datasource.UID, len(p.Targets))
		}
		for _, q := range p.Targets {
			legend := p.Title + ": " + q.LegendFormat
			if legends[legend] && p.Type == "timeseries" || q.RefID == "" || q.Datasource.UID != "${datasource}" {
				t.Errorf("%s: query %s", legend, q.RefID)
			}
			legends[legend] = true
			if !strings.Contains(q.Expr, `job=~"$job", instance=~"$instance"`) {
				t.Errorf("%s does not heed the variables: %s", legend, q.Expr)
			}
			if strings.Contains(q.Expr, "rate(") != strings.Contains(q.Expr, "[$__rate_interval]") {
				t.Errorf("%s: a rate is over $__rate_interval: %s", legend, q.Expr)
			}
		}
	}
	if count < 40 {
		t.Errorf("only %d panels", count)
	}
}

func TestTheDashboardsVariablesAreDefinedAndUsed(t *testing.T) {
	d := readDashboard(t)
	var defined []string
	for _, v := range d.Templating.List {
		defined = append(defined, v.Name)
		if v.Label == "" || v.Description == "" {
			t.Errorf("$%s has no label or description", v.Name)
		}
		if v.Type == "query" && (!v.IncludeAll || !v.Multi || v.AllValue != ".*" || v.Datasource.UID != "${datasource}" || !strings.HasPrefix(v.Definition, "label_values(authserver_")) {
			t.Errorf("$%s: %+v", v.Name, v)
		}
	}
	if want := []string{"datasource", "job", "instance", "service"}; !slices.Equal(defined, want) {
		t.Errorf("variables %v, want %v", defined, want)
	}
	used := map[string]bool{"datasource": true}
	for _, expr := range d.queries(nil) {
		for _, m := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(expr, -1) {
			used[m[1]] = true
			if m[1] != "__rate_interval" && !slices.Contains(defined, m[1]) {
				t.Errorf("nobody defines $%s: %s", m[1], expr)
			}
		}
	}
	for _, name := range defined {
		if !used[name] {
			t.Errorf("nobody uses $%s", name)
		}
	}
}
