// Package pages_test types what docs/clients and docs/migrating tell their readers to type, with the real programs, a real
// registry and a real authserver, and compares what is printed with what the pages say is printed.
package pages_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// A reader types commands, in a home and a folder of their own.
type reader struct {
	t           *testing.T
	home        string
	environment []string
	typed       *strings.Replacer // from the page's words to this machine's
	printed     *strings.Replacer // and back
}

// newReader reads "registry.example.com", unless it is the name of the service, as the registry's address, and "auth.example.com" as authserver's.
func newReader(t *testing.T, auth *harness.Authserver, registry string) *reader {
	t.Helper()
	home := harness.ShortTempDir(t)
	r := &reader{t: t, home: home}
	authHost := strings.TrimPrefix(auth.URL, "http://")
	r.typed = strings.NewReplacer("service=registry.example.com", "service=registry.example.com",
		"https://registry.example.com", "http://"+registry, "registry.example.com", registry,
		"https://auth.example.com", auth.URL, "auth.example.com", authHost, "/etc/authserver", auth.Dir)
	r.printed = strings.NewReplacer("http://"+registry, "https://registry.example.com", registry, "registry.example.com",
		auth.URL, "https://auth.example.com", authHost, "auth.example.com", auth.Dir, "/etc/authserver", home, "/home/alice")
	bin := filepath.Join(home, "bin")
	r.set("HOME="+home, "XDG_RUNTIME_DIR="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"), "XDG_DATA_HOME="+home, "DOCKER_CONFIG="+filepath.Join(home, ".docker"),
		"PATH="+strings.Join([]string{bin, filepath.Join(harness.Root(t), ".cache", "bin"), os.Getenv("PATH"), "/usr/sbin:/sbin"}, ":"))
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	r.link("authserver", harness.Program(t, "authserver"))
	return r
}

// link has the reader run this program under that name.
func (r *reader) link(name, program string) {
	r.t.Helper()
	if err := os.Symlink(program, filepath.Join(r.home, "bin", name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) set(environment ...string) { r.environment = append(r.environment, environment...) }

// file writes a file below the reader's home and returns its path.
func (r *reader) file(name, format string, args ...any) string {
	r.t.Helper()
	path := filepath.Join(r.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// program has the reader run a shell script before the program of that name.
func (r *reader) program(name, before string) {
	r.t.Helper()
	path := r.file(filepath.Join("bin", name), "#!/bin/sh\n%s\nexec %q \"$@\"\n", before, harness.Program(r.t, name))
	if err := os.Chmod(path, 0o700); err != nil {
		r.t.Fatal(err)
	}
}

// types types one command as it stands on a page, and returns what it printed in the page's words.
func (r *reader) types(command string) (string, error) {
	r.t.Helper()
	cmd := exec.Command("bash", "-o", "pipefail", "-c", r.typed.Replace(command))
	cmd.Dir = r.home
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

// follows types all the commands of a page. Those of the part "refused" have to fail, the others to succeed, and all to print
// what the page says.
func (r *reader) follows(steps []harness.Step) {
	r.t.Helper()
	for _, step := range steps {
		out, err := r.types(step.Command)
		r.t.Logf("$ %s\n%s", step.Command, out)
		if refused := step.Part == "refused"; (err != nil) != refused {
			r.t.Errorf("refused: %t, want %t (%v)\n$ %s\n%s", err != nil, refused, err, step.Command, out)
		} else if refused && step.Prints == "" {
			r.t.Errorf("the page does not say what is printed by\n$ %s\n%s", step.Command, out)
		}
		wantLines(r.t, step, out)
	}
}

// wantLines checks that the lines that a page shows are printed, in this order. On the page "…" stands for anything.
func wantLines(t *testing.T, step harness.Step, out string) {
	t.Helper()
	rest := out
	for line := range strings.Lines(step.Prints) {
		line = strings.TrimSpace(line)
		if line == "" || line == "…" {
			continue
		}
		pattern := strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*")
		at := regexp.MustCompile(pattern).FindStringIndex(rest)
		if at == nil {
			t.Errorf("$ %s\nthe page says\n%s\nand not there is %q in\n%s", step.Command, step.Prints, line, out)
			return
		}
		rest = rest[at[1]:]
	}
}
