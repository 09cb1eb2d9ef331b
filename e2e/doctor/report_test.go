package doctor_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// A report is what doctor prints with -o json.
type report struct {
	Worst       string       `json:"worst"`
	Findings    []finding    `json:"findings"`
	Predictions []prediction `json:"predictions"`
	exit        int
}

type finding struct {
	Check    string `json:"check"`
	Severity string `json:"severity"`
	What     string `json:"what"`
	Why      string `json:"why"`
	Fixes    []fix  `json:"fixes"`
	Docs     string `json:"docs"`
}

type fix struct {
	Side  string `json:"side"`
	Where string `json:"where"`
	Do    string `json:"do"`
}

type prediction struct {
	Verifier string   `json:"verifier"`
	Verdict  string   `json:"verdict"`
	Because  []string `json:"because"`
}

// An outcome is what a run of doctor has printed.
type outcome struct {
	exit           int
	stdout, stderr string
}

// run runs doctor on the world's configuration.
func (w *world) run(args ...string) outcome {
	w.Helper()
	return w.runAs(nil, args...)
}

// runAs is run with a change of how it is run.
func (w *world) runAs(change func(*exec.Cmd), args ...string) outcome {
	w.Helper()
	cmd := exec.Command(harness.Program(w, "authserver"), append([]string{"doctor", "--config", w.config()}, args...)...)
	cmd.Env = append(os.Environ(), w.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, 30*time.Second
	if change != nil {
		change(cmd)
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// doctor runs it, and reads what it says strictly.
func (w *world) doctor(args ...string) report {
	w.Helper()
	return w.read(w.run(append(slices.Clone(args), "-o", "json")...))
}

// doctorWith is doctor with a standard input.
func (w *world) doctorWith(input string, args ...string) report {
	w.Helper()
	return w.read(w.runAs(func(cmd *exec.Cmd) { cmd.Stdin = strings.NewReader(input) }, append(slices.Clone(args), "-o", "json")...))
}

func (w *world) read(o outcome) report {
	w.Helper()
	decoder := json.NewDecoder(strings.NewReader(o.stdout))
	decoder.DisallowUnknownFields()
	r := report{exit: o.exit}
	if err := decoder.Decode(&r); err != nil || decoder.More() {
		w.Fatalf("doctor -o json: %v\n%s%s", err, o.stdout, o.stderr)
	}
	r.isSound(w)
	return r
}

var severities = []string{"ok", "note", "warning", "error"}

// isSound holds a report against what is true of every one.
func (r report) isSound(t testing.TB) {
	t.Helper()
	worst := "ok"
	for _, f := range r.Findings {
		if slices.Index(severities, f.Severity) > slices.Index(severities, worst) {
			worst = f.Severity
		}
		if f.Check == "" || f.What == "" {
			t.Errorf("a finding without a check or a word: %+v", f)
		}
		if f.Severity != "ok" && f.Why == "" {
			t.Errorf("%s does not say what comes of it: %s", f.Check, f.What)
		}
		if f.Severity != "ok" && f.Docs != "docs/doctor.md#"+f.Check {
			t.Errorf("%s has docs %q", f.Check, f.Docs)
		}
		if slices.Index(severities, f.Severity) >= 2 && len(f.Fixes) == 0 && f.Check != "config" && f.Check != "trial" {
			t.Errorf("%s is a %s without a remedy: %s", f.Check, f.Severity, f.What)
		}
		for _, x := range f.Fixes {
			x.isThere(t)
		}
	}
	if worst != r.Worst {
		t.Errorf("worst is %q, and %q is among the findings", r.Worst, worst)
	}
	if (r.exit != 0) != (worst == "error") {
		t.Errorf("exit status %d with %q", r.exit, worst)
	}
}

// isThere holds the place of a fix against the file: on that line stands the key, or what is above it.
func (x fix) isThere(t testing.TB) {
	t.Helper()
	file, line, ok := x.place()
	if !ok {
		return
	}
	key, _, ok := strings.Cut(x.Do, ": ")
	if !ok || strings.ContainsAny(key, " ") {
		return // a command
	}
	lines := strings.Split(string(harness.ReadFile(t, file)), "\n")
	if line > len(lines) {
		t.Errorf("%s has no line %d", file, line)
		return
	}
	for _, part := range strings.FieldsFunc(key, func(r rune) bool { return strings.ContainsRune(".[]", r) }) {
		if _, err := strconv.Atoi(part); err != nil && strings.Contains(lines[line-1], part+`:`) || strings.Contains(lines[line-1], part+`":`) || strings.Contains(lines[line-1], part+"=") || err == nil && strings.Contains(lines[line-1], "- ") {
			return
		}
	}
	t.Errorf("%s is said to be at %s, where %q stands", key, x.Where, lines[line-1])
}

// place is the file and line of a fix.
func (x fix) place() (file string, line int, ok bool) {
	i := strings.LastIndexByte(x.Where, ':')
	if i < 0 {
		return "", 0, false
	}
	line, err := strconv.Atoi(x.Where[i+1:])
	return x.Where[:i], line, err == nil
}

// want is a finding that is expected.
type want struct {
	check, severity string
	what            string   // has these words, of which "…" stands for any
	fixes           []string // there is one of each, as in "registry auth.token.issuer: authserver"
}

func (v want) fits(f finding) error {
	if f.Check != v.check || f.Severity != v.severity {
		return fmt.Errorf("it is %s %s", f.Severity, f.Check)
	}
	rest := f.What
	for part := range strings.SplitSeq(v.what, "…") {
		_, after, ok := strings.Cut(rest, part)
		if !ok {
			return fmt.Errorf("%q does not say %q", f.What, v.what)
		}
		rest = after
	}
	for _, x := range v.fixes {
		if _, ok := f.fix(x); !ok {
			return fmt.Errorf("no fix %q among %+v", x, f.Fixes)
		}
	}
	return nil
}

// fix finds a fix by its side and the beginning of what it says.
func (f finding) fix(named string) (fix, bool) {
	i := slices.IndexFunc(f.Fixes, func(x fix) bool { return strings.HasPrefix(x.Side+" "+x.Do, named) })
	if i < 0 {
		return fix{}, false
	}
	return f.Fixes[i], true
}

// says expects all of wants, and beside them nothing that is a warning or an error.
func (r report) says(t testing.TB, wants ...want) {
	t.Helper()
	left := slices.Clone(r.Findings)
	status := 0
	for _, v := range wants {
		if v.severity == "error" {
			status = 1
		}
		var reasons []string
		i := slices.IndexFunc(left, func(f finding) bool {
			err := v.fits(f)
			if err != nil && f.Check == v.check {
				reasons = append(reasons, err.Error())
			}
			return err == nil
		})
		if i < 0 {
			t.Errorf("no %s %s %q; %s\n%s", v.severity, v.check, v.what, strings.Join(reasons, "; "), r)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, f := range left {
		if f.Severity == "warning" || f.Severity == "error" {
			t.Errorf("not expected: %s %s: %s", f.Severity, f.Check, f.What)
		}
	}
	if r.exit != status {
		t.Errorf("exit status %d, want %d\n%s", r.exit, status, r)
	}
}

// worst are the findings above note.
func (r report) worstFindings() (list []finding) {
	for _, f := range r.Findings {
		if f.Severity == "warning" || f.Severity == "error" {
			list = append(list, f)
		}
	}
	return list
}

func (r report) String() string {
	var text strings.Builder
	for _, f := range r.Findings {
		if f.Severity == "ok" || f.Check == "clock" && f.Severity == "note" {
			continue
		}
		fmt.Fprintf(&text, "  %s %s: %s\n", f.Severity, f.Check, f.What)
		for _, x := range f.Fixes {
			fmt.Fprintf(&text, "     %s %s: %s\n", x.Side, x.Where, x.Do)
		}
	}
	for _, p := range r.Predictions {
		fmt.Fprintf(&text, "  %s: %s %v\n", p.Verifier, p.Verdict, p.Because)
	}
	return text.String()
}
