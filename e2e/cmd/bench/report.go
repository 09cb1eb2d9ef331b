package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A report is what a run has found.
type report struct {
	Machine    string   `json:"machine"`
	Authserver string   `json:"authserver"`
	Seconds    float64  `json:"seconds"`
	Rows       []row    `json:"rows"`
	Errors     []string `json:"errors,omitempty"`
}

// A row is one figure, beside the one it is compared with.
type row struct {
	Case    string             `json:"case"`
	What    string             `json:"what"`
	Value   float64            `json:"value"`
	Unit    string             `json:"unit"`
	Against string             `json:"against,omitempty"`
	Base    float64            `json:"base,omitempty"`
	Ratio   float64            `json:"ratio,omitempty"` // Value / Base
	Bar     string             `json:"bar,omitempty"`
	Reached bool               `json:"reached"`          // where there is a bar
	CPU     float64            `json:"cpu_us,omitempty"` // of the server, each
	Detail  map[string]float64 `json:"detail,omitempty"`
	Note    string             `json:"note,omitempty"`
}

func (r row) named(letter, what string) row {
	r.Case, r.What = letter, what
	return r
}

func (r row) beside(what string, base float64) row {
	r.Against, r.Base = what, base
	if base > 0 {
		r.Ratio = r.Value / base
	}
	return r
}

func (r row) ratioAtLeast(bar float64) row {
	r.Bar, r.Reached = fmt.Sprintf("ratio ≥ %v", bar), r.Ratio >= bar
	return r
}

func (r row) ratioAtMost(bar float64) row {
	r.Bar, r.Reached = fmt.Sprintf("ratio ≤ %v", bar), r.Ratio <= bar
	return r
}

func (r row) atMost(bar float64) row {
	r.Bar, r.Reached = fmt.Sprintf("≤ %v %s", bar, r.Unit), r.Value <= bar
	return r
}

// number has three digits that count.
func number(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

var titles = []string{"", "what", "figure", "beside", "ratio", "bar", "", "note"}

func (r row) cells() []string {
	cells := []string{r.Case, r.What, "", "", "", r.Bar, "", r.Note}
	if r.Unit != "" {
		cells[2] = number(r.Value) + " " + r.Unit
	}
	if r.Against != "" {
		cells[3], cells[4] = r.Against+": "+number(r.Base)+" "+r.Unit, number(r.Ratio)
	}
	switch {
	case r.Bar == "":
	case r.Reached:
		cells[6] = "reached"
	default:
		cells[6] = "missed"
	}
	if r.CPU > 0 {
		cells[7] = number(r.CPU) + " µs of CPU each"
	}
	if r.Detail != nil {
		var parts []string
		for _, name := range []string{"p50", "p99", "p99.9"} {
			parts = append(parts, name+" "+number(r.Detail[name]))
		}
		cells[7] = strings.TrimPrefix(r.Note+"; "+strings.Join(parts, ", ")+" ms", "; ")
	}
	return cells
}

func (r report) head() string {
	return fmt.Sprintf("%s; %s; %.0f s", r.Machine, r.Authserver, r.Seconds)
}

func (r report) writeText(out io.Writer) {
	fmt.Fprintln(out, r.head())
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(titles, "\t"))
	for _, row := range r.Rows {
		fmt.Fprintln(table, strings.Join(row.cells(), "\t"))
	}
	_ = table.Flush()
	for _, e := range r.Errors {
		fmt.Fprintln(out, "error:", e)
	}
}

func (r report) writeMarkdown(out io.Writer) {
	line := func(cells []string) { fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | ")) }
	fmt.Fprintf(out, "%s\n\n", r.head())
	line(titles)
	line(slices.Repeat([]string{"---"}, len(titles)))
	for _, row := range r.Rows {
		line(row.cells())
	}
	for _, e := range r.Errors {
		fmt.Fprintf(out, "\nError: %s\n", e)
	}
}

func (r report) writeJSON(out io.Writer) {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(r) // plain figures
}
