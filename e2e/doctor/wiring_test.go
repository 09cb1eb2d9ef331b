package doctor_test

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"authserver/e2e/harness"
)

// A wiring is one that is broken in one way, and what doctor is to say of it.
type wiring struct {
	name     string
	versions []string // of the registry; 2.8.3 and 3.1.2 when empty
	options  harness.Options
	broken   func(w *world) // before the registry starts
	after    func(w *world) // after it has started
	live     []want         // with --registry
	file     []want         // with --registry-config
	both     []want         // with both
	// mended are fixes of the first finding, each of which makes all well by itself.
	mended []string
	pulls  bool // all the same: it works for now; or how it fails takes a client long
	shutUp bool // the registry does not run
}

func (c wiring) world(t *testing.T, version string) *world {
	t.Helper()
	w := newWorld(t, version, c.options)
	if c.broken != nil {
		c.broken(w)
	}
	if !c.shutUp {
		w.registry.start()
	}
	if c.after != nil {
		c.after(w)
	}
	return w
}

// table is what was broken and what was said, for people.
var table struct {
	sync.Mutex
	lines []string
}

// perishable is what is different in each run.
var perishable = regexp.MustCompile(`/tmp/[^ :]+/|(localhost|127\.0\.0\.1):\d\d+|[A-Z2-7]{4}(:[A-Z2-7]{4}){11}`)

func row(wiring string, f finding) {
	said := perishable.ReplaceAllStringFunc(f.What, func(s string) string {
		switch {
		case s[0] == '/':
			return ""
		case strings.HasPrefix(s, "localhost"):
			return "localhost:PORT"
		case strings.HasPrefix(s, "127"):
			return "127.0.0.1:PORT"
		}
		return "KEY"
	})
	if len(said) > 160 {
		said = said[:160] + "…"
	}
	line := fmt.Sprintf("| %s | %s | %s | %s |", wiring, f.Check, f.Severity, strings.ReplaceAll(said, "|", "\\|"))
	table.Lock()
	defer table.Unlock()
	if !slices.Contains(table.lines, line) {
		table.lines = append(table.lines, line)
	}
}

func TestMain(m *testing.M) {
	status := m.Run()
	if testing.Verbose() && len(table.lines) > 0 {
		fmt.Println("| wiring | check | severity | what doctor said |\n|---|---|---|---|")
		fmt.Println(strings.Join(table.lines, "\n"))
	}
	os.Exit(status)
}

// run examines the wiring in each way, and mends it in each way that is named.
func (c wiring) run(t *testing.T) {
	versions := c.versions
	if versions == nil {
		versions = []string{"2.8.3", "3.1.2"}
	}
	for _, version := range versions {
		t.Run(c.name+"/"+version, func(t *testing.T) {
			t.Parallel()
			w := c.world(t, version)
			said := map[string]report{}
			for _, way := range []struct {
				name  string
				args  []string
				wants []want
			}{
				{"live", []string{"--registry", w.at()}, c.live},
				{"file", []string{"--registry-config", w.registry.file}, c.file},
				{"both", []string{"--registry", w.at(), "--registry-config", w.registry.file}, c.both},
			} {
				if way.wants == nil {
					continue
				}
				r := w.doctor(append(way.args, w.args...)...)
				said[way.name] = r
				r.says(t, way.wants...)
				if len(way.wants) > 0 { // what is expected first
					for _, f := range r.worstFindings() {
						if way.wants[0].fits(f) == nil {
							row(c.name+" ("+way.name+")", f)
						}
					}
				}
			}
			if !c.pulls && !c.shutUp {
				if err := w.pulls(); err == nil {
					t.Error("it works, and should be broken")
				}
			}
			for i, named := range c.mended {
				if i > 0 {
					if version != versions[len(versions)-1] {
						break // the same on both sides
					}
					w = c.world(t, version)
				}
				c.mend(w, said, named)
			}
		})
	}
}

// mend does what the fix says, and expects that all is well.
func (c wiring) mend(w *world, said map[string]report, named string) {
	w.Helper()
	way, wants := "both", c.both
	if wants == nil {
		way, wants = "live", c.live
	}
	if wants == nil {
		way, wants = "file", c.file
	}
	args := map[string][]string{"both": {"--registry", w.at(), "--registry-config", w.registry.file}, "live": {"--registry", w.at()}, "file": {"--registry-config", w.registry.file}}[way]
	if rest, ok := strings.CutPrefix(named, "live: "); ok {
		way, wants, named, args = "live", c.live, rest, []string{"--registry", w.at()}
	}
	r := w.doctor(append(args, w.args...)...)
	for _, f := range r.Findings {
		if wants[0].fits(f) != nil {
			continue
		}
		x, ok := f.fix(named)
		if !ok {
			w.Errorf("no fix %q:\n%s", named, r)
			return
		}
		w.mend(x)
		r := w.doctor("--registry", w.at())
		for _, left := range r.worstFindings() { // other warnings are other matters
			if !slices.ContainsFunc(wants[1:], func(v want) bool { return v.severity == "warning" && v.fits(left) == nil }) {
				w.Errorf("after %q at %q doctor still says\n%s", x.Do, cmp.Or(x.Where, "-"), r)
			}
		}
		if err := w.pulls(); err != nil {
			w.Errorf("after %q: %v", x.Do, err)
		}
		return
	}
	w.Errorf("nothing to mend:\n%s", r)
}
