package observability_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// follow types what a page says, in a folder, with the programs of the tests. Where the page shows what is printed, so it must be. It
// returns what each printed.
func follow(t *testing.T, page, part, dir string, replace ...string) (printed []string) {
	t.Helper()
	path := "PATH=" + filepath.Dir(harness.Program(t, "authserver")) + ":" + filepath.Dir(harness.Program(t, "promtool")) + ":" + os.Getenv("PATH")
	for _, step := range harness.Documented(t, page, part) {
		command := strings.NewReplacer(replace...).Replace(step.Command)
		out, err := harness.Run(t, []string{path}, "", "bash", "-euo", "pipefail", "-c", "cd '"+dir+"'; "+command)
		if err != nil {
			t.Errorf("%s: $ %s: %v\n%s", page, command, err, out)
		} else if step.Prints != "" && out != step.Prints {
			t.Errorf("%s: $ %s prints\n%s\nand the page says\n%s", page, command, out, step.Prints)
		} else {
			t.Logf("$ %s\n%s", command, out)
		}
		printed = append(printed, out)
	}
	return printed
}

func TestReadme(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(deployed(t, "."))); err != nil {
		t.Fatal(err)
	}
	follow(t, "deploy/observability/README.md", "", dir)
	if rules := string(harness.ReadFile(t, filepath.Join(dir, "prometheus", "rules.yaml"))); strings.Contains(rules, "runbook_url: docs/") {
		t.Error("runbooks are still where they were")
	}
}

func TestAlertsPage(t *testing.T) {
	a := harness.StartAuthserver(t, harness.Options{})
	a.Ask(t, "admin", "wrong", a.Service)
	save(t, filepath.Join(a.Dir, "authserver.log"), a.Log()+"a line of somebody else\n")
	follow(t, "docs/alerts.md", "", a.Dir, "http://127.0.0.1:5002", a.Ops, "/etc/authserver/", a.Dir+"/")
}
