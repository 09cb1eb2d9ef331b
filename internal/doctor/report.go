// Package doctor says what is wrong between a registry and authserver. A registry that does not like a token answers
// 401 and no more, so the reasons are found from outside: by what is configured on both sides, and by what the registry
// makes of tokens that differ from ours in one thing each. It changes nothing.
package doctor

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Severity is how bad a finding is.
type Severity int

// Severities, from the best to the worst.
const (
	OK      Severity = iota // looked at, and right
	Note                    // worth knowing; or it could not be looked at
	Warning                 // works, for some or for now
	Error                   // does not work, or is open to whom it should not be
)

func (s Severity) String() string { return [...]string{"ok", "note", "warning", "error"}[s] }

// MarshalText makes it a word in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Finding is one thing that was looked at.
type Finding struct {
	Check    string   `json:"check"` // a heading of docs/doctor.md
	Severity Severity `json:"severity"`
	What     string   `json:"what"`            // what is the case
	Why      string   `json:"why,omitempty"`   // what comes of it
	Fixes    []Fix    `json:"fixes,omitempty"` // any one of them will do
	Docs     string   `json:"docs,omitempty"`
}

// A Fix is what to change, on which side.
type Fix struct {
	Side  string `json:"side"`            // authserver, registry, or who else
	Where string `json:"where,omitempty"` // file:line
	Do    string `json:"do"`              // the line as it should be, or a command
}

// Sides of a fix.
const (
	Ours    = "authserver"
	Theirs  = "registry"
	Between = "proxy"
	Machine = "machine"
)

// A Prediction is what a kind of registry will make of the tokens of a service, by the configuration at hand.
type Prediction struct {
	Verifier string   `json:"verifier"`
	Verdict  string   `json:"verdict"`
	Because  []string `json:"because,omitempty"` // checks, the findings of which say more
}

// Verdicts of a prediction.
const (
	Accepts = "accepts"
	Unknown = "cannot be told"
	Refuses = "refuses"
	Down    = "does not start"
	Open    = "asks for no tokens"
)

// verdicts are ordered: of several, the last stands.
var verdicts = []string{Accepts, Unknown, Refuses, Down, Open}

// Report is all that was found.
type Report struct {
	Findings    []Finding    `json:"findings"`
	Predictions []Prediction `json:"predictions,omitempty"`
}

// Worst is the severity of the worst finding.
func (r *Report) Worst() Severity {
	worst := OK
	for _, f := range r.Findings {
		worst = max(worst, f.Severity)
	}
	return worst
}

// Count is how many findings have a severity.
func (r *Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// MarshalJSON adds the worst severity.
func (r Report) MarshalJSON() ([]byte, error) {
	type plain Report
	return json.Marshal(struct {
		Worst Severity `json:"worst"`
		plain
	}{r.Worst(), plain(r)})
}

// Add notes findings. The same is said once, and as badly as it is: what is found by looking at the registry may be found
// again in its file.
func (r *Report) Add(findings ...Finding) {
	for _, f := range findings {
		f.What, f.Why, f.Fixes = printable(f.What), printable(f.Why), slices.Clone(f.Fixes)
		for i, fix := range f.Fixes {
			f.Fixes[i].Where, f.Fixes[i].Do = printable(fix.Where), printable(fix.Do)
		}
		if f.Severity > OK {
			f.Docs = "docs/doctor.md#" + f.Check
		}
		i := slices.IndexFunc(r.Findings, func(g Finding) bool { return g.Check == f.Check && g.What == f.What })
		if i < 0 {
			r.Findings = append(r.Findings, f)
		} else if f.Severity > r.Findings[i].Severity {
			r.Findings[i] = f
		}
	}
}

// maxText bounds what is said at once, in characters.
const maxText = 1500

// printable is text as it may come to a terminal. What registries say is among it, and might steer one.
func printable(text string) string {
	var out strings.Builder
	n := 0
	for _, c := range text {
		if n++; n > maxText {
			return out.String() + "…"
		}
		if unicode.IsPrint(c) {
			out.WriteRune(c)
		} else {
			out.WriteString(strings.Trim(strconv.QuoteRuneToASCII(c), "'"))
		}
	}
	return out.String()
}

func found(check string, severity Severity, what, why string, fixes ...Fix) Finding {
	return Finding{Check: check, Severity: severity, What: what, Why: why, Fixes: fixes}
}

func fine(check, format string, args ...any) Finding {
	return Finding{Check: check, What: fmt.Sprintf(format, args...)}
}
