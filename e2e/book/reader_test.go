package book_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// reader is somebody who types what a page says, at a terminal in a folder of their own, and compares what they see with
// what the page shows.
type reader struct {
	t       *testing.T
	dir     string
	env     []string
	put     []string          // what a page says and what that is here, in turn
	seen    map[string]string // what a page shows of what is different each time, and what it was here
	answers []string          // to questions for passwords, one after the other
}

func newReader(t *testing.T, put ...string) *reader {
	t.Helper()
	home := harness.ShortTempDir(t)
	r := &reader{t: t, dir: home, put: put, seen: map[string]string{}}
	path := filepath.Dir(harness.Program(t, "authserver")) + ":" + filepath.Dir(harness.Program(t, "crane")) + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin"
	r.env = []string{"PATH=" + path, "HOME=" + home, "DOCKER_CONFIG=" + home, "TERM=dumb"}
	return r
}

// here is what a page says, as it is here.
func (r *reader) here(text string) string {
	pairs := slices.Clone(r.put)
	for _, shown := range slices.SortedFunc(maps.Keys(r.seen), func(a, b string) int { return len(b) - len(a) }) {
		pairs = append(pairs, shown, r.seen[shown])
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// follows types the commands of a page that are marked as run by this test.
func (r *reader) follows(page, part string) {
	r.t.Helper()
	for _, step := range harness.Documented(r.t, page, part) {
		r.types(page, step)
	}
}

// types runs one command. What fails without a word on the page fails the test.
func (r *reader) types(page string, step harness.Step) string {
	r.t.Helper()
	printed, err := r.terminal(r.here(step.Command))
	if err != nil && step.Prints == "" {
		r.t.Fatalf("%s: %s: %v\n%s", page, step.Command, err, printed)
	}
	if step.Prints != "" {
		r.compare(page, step, printed)
	}
	return printed
}

var asks = regexp.MustCompile(`(?:assword[^\n]*|Once more): ?$`)

// terminal runs a command as at a terminal, and answers when it asks for a password.
func (r *reader) terminal(command string) (string, error) {
	r.t.Helper()
	file := filepath.Join(r.t.TempDir(), "command")
	if err := os.WriteFile(file, []byte("set -euo pipefail\nstty -onlcr\n"+command+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command("script", "-qec", "bash "+file, "/dev/null")
	cmd.Dir, cmd.Env, cmd.WaitDelay = r.dir, append(os.Environ(), r.env...), 5*time.Second
	keyboard, err := cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	var given []string
	screen := &screen{answer: func() {
		answer := "nobody told me"
		if len(r.answers) > 0 {
			answer, r.answers = r.answers[0], r.answers[1:]
		}
		given = append(given, answer, "") // who types before the echo is off sees it
		fmt.Fprintln(keyboard, answer)
	}}
	cmd.Stdout, cmd.Stderr = screen, screen
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	keyboard.Close()
	text := bold.ReplaceAllString(strings.ReplaceAll(screen.String(), "\r", ""), "")
	return strings.NewReplacer(given...).Replace(moves.ReplaceAllString(text, "\n")), err
}

// moves are what a terminal does beside letters: docker draws its progress over what stands there.
var (
	bold  = regexp.MustCompile(`\x1b\[[0-9;]*m`)
	moves = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)
)

// screen is what stands on a terminal.
type screen struct {
	mu     sync.Mutex
	text   bytes.Buffer
	answer func()
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	if asks.Match(s.text.Bytes()) {
		s.answer()
	}
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// differs is what is different each time, the longest kinds first: times, days, secrets, and ids and the like, which have a digit.
var differs = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z|\d{4}-\d\d-\d\d(?: \d\d:\d\d)?|as[ar]t_(?:[0-9A-Za-z]+|…)|\b[a-z]*[0-9][0-9a-z]{7,24}\b`)

var kinds = []string{`\d{4}-\d\d-\d\dT[\d:.]+Z`, `\d{4}-\d\d-\d\d(?: \d\d:\d\d)?`, `as[ar]t_[0-9A-Za-z]+`, `[0-9a-z]{7,25}`}

// compare holds what was printed against the page. There "…" is anything, on a line of its own any number of lines; widths
// of columns and empty lines do not count.
func (r *reader) compare(page string, step harness.Step, printed string) {
	r.t.Helper()
	blanks := regexp.MustCompile(`[ \t]+`)
	tidy := func(text string) string {
		var lines []string
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(blanks.ReplaceAllString(line, " ")); line != "" {
				lines = append(lines, line)
			}
		}
		return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
	}
	var samples []string
	pattern := ""
	for line := range strings.Lines(tidy(strings.NewReplacer(r.put...).Replace(step.Prints))) {
		line = strings.TrimSuffix(line, "\n")
		if line == "…" {
			pattern += `(?:.*\n)*?`
			continue
		}
		at := 0
		for _, m := range differs.FindAllStringIndex(line, -1) {
			sample := line[m[0]:m[1]]
			pattern += regexp.QuoteMeta(line[at:m[0]])
			at = m[1]
			if was, known := r.seen[sample]; known && !strings.Contains(sample, "…") {
				pattern += regexp.QuoteMeta(was)
				continue
			}
			kind := slices.IndexFunc(kinds, func(k string) bool {
				return regexp.MustCompile("^(?:" + k + ")$").MatchString(strings.ReplaceAll(sample, "…", "x"))
			})
			pattern += "(" + kinds[kind] + ")"
			samples = append(samples, sample)
		}
		pattern += regexp.QuoteMeta(line[at:]) + "\n"
	}
	pattern = strings.ReplaceAll(pattern, "…", ".*")
	m := regexp.MustCompile("^" + pattern + "$").FindStringSubmatch(tidy(printed))
	if m == nil {
		r.t.Fatalf("%s: %s\nthe page shows\n%s\nprinted was\n%s", page, step.Command, r.here(step.Prints), printed)
	}
	for i, sample := range samples {
		r.seen[sample] = m[i+1]
	}
}
