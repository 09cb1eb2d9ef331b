package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A Reader types what a page tells its readers to type, in a home of their own.
type Reader struct {
	t              testing.TB
	Home           string
	environment    []string
	typed, printed *strings.Replacer
}

// NewReader makes a reader. What a page calls words[0] is words[1] on this machine, and so on: commands are typed with the
// second, and what they print is read with the first.
func NewReader(t testing.TB, words ...string) *Reader {
	t.Helper()
	r := &Reader{t: t, Home: ShortTempDir(t)}
	back := []string{r.Home, "/home/alice"}
	for i := 0; i < len(words); i += 2 {
		back = append(back, words[i+1], words[i])
	}
	r.typed, r.printed = strings.NewReplacer(words...), strings.NewReplacer(back...)
	bin := filepath.Join(r.Home, "bin")
	r.Set("HOME="+r.Home, "XDG_RUNTIME_DIR="+r.Home, "XDG_CONFIG_HOME="+filepath.Join(r.Home, ".config"), "XDG_DATA_HOME="+r.Home, "DOCKER_CONFIG="+filepath.Join(r.Home, ".docker"),
		"PATH="+strings.Join([]string{bin, filepath.Join(Root(t), ".cache", "bin"), os.Getenv("PATH"), "/usr/sbin:/sbin"}, ":"))
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	r.Link("authserver", Program(t, "authserver"))
	return r
}

// Set sets variables of the environment, NAME=value.
func (r *Reader) Set(environment ...string) { r.environment = append(r.environment, environment...) }

// File writes a file below the reader's home and returns its path.
func (r *Reader) File(name, format string, args ...any) string {
	r.t.Helper()
	path := filepath.Join(r.Home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	write(r.t, path, format, args...)
	return path
}

// Link has the reader run this program under that name.
func (r *Reader) Link(name, program string) {
	r.t.Helper()
	if err := os.Symlink(program, filepath.Join(r.Home, "bin", name)); err != nil {
		r.t.Fatal(err)
	}
}

// Before has the reader run lines of a shell script before the program of that name.
func (r *Reader) Before(name, lines string) {
	r.t.Helper()
	path := r.File(filepath.Join("bin", name), "#!/bin/sh\n%s\nexec %q \"$@\"\n", lines, Program(r.t, name))
	if err := os.Chmod(path, 0o700); err != nil {
		r.t.Fatal(err)
	}
}

// Type types one command as it stands on a page, and returns what it printed in the page's words.
func (r *Reader) Type(command string) (string, error) {
	r.t.Helper()
	cmd := exec.Command("bash", "-o", "pipefail", "-c", r.typed.Replace(command))
	cmd.Dir = r.Home
	cmd.Env = append(os.Environ(), r.environment...)
	cmd.WaitDelay = 5 * time.Second
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	return r.printed.Replace(out.String()), err
}

// Follow types all these commands. Those of the part "refused" have to fail, and the page to say with which words; the others
// have to succeed. All have to print what the page says they print.
func (r *Reader) Follow(steps []Step) {
	r.t.Helper()
	for _, step := range steps {
		out, err := r.Type(step.Command)
		r.t.Logf("$ %s\n%s", step.Command, out)
		if refused := step.Part == "refused"; (err != nil) != refused {
			r.t.Errorf("refused: %t, want %t (%v)", err != nil, refused, err)
		} else if refused && strings.Trim(step.Prints, "… \n") == "" {
			r.t.Error("the page does not say what is printed")
		}
		if line := step.missing(out); line != "" {
			r.t.Errorf("the page says that this is printed, and it is not there, or not in that order:\n%s", line)
		}
	}
}

// missing is the first of the lines the page shows that is not in out, in their order. On the page "…" stands for anything.
func (s Step) missing(out string) string {
	for line := range strings.Lines(s.Prints) {
		line = strings.TrimSpace(line)
		if line == "" || line == "…" {
			continue
		}
		pattern := strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*")
		at := regexp.MustCompile(pattern).FindStringIndex(out)
		if at == nil {
			return line
		}
		out = out[at[1]:]
	}
	return ""
}
