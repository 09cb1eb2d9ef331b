package doctor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// What docs/doctor.md tells its reader to type finds nothing wrong where nothing is.
func TestDoctorPage(t *testing.T) {
	a := harness.StartAuthserver(t, harness.Options{Users: map[string]string{"alice": "correct horse"}})
	r := harness.StartRegistry(t, "3.1.2", a)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token-bundle.pem"), harness.ReadFile(t, a.Export(t, "pem", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	stanza := fmt.Sprintf("version: 0.1\nauth:\n  token:\n    realm: %s/token\n    service: %s\n    issuer: %s\n    rootcertbundle: /etc/registry/token-bundle.pem\n", a.URL, a.Service, a.Issuer)
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(stanza), 0o600); err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("authserver doctor", fmt.Sprintf("cd %s && %s doctor --config %s/authserver.yaml", dir, harness.Program(t, "authserver"), a.Dir),
		"https://registry.example.com", "http://"+r.Host)
	steps := harness.Documented(t, "docs/doctor.md", "")
	for _, step := range steps {
		out := harness.MustRun(t, []string{"AUTHSERVER_PASSWORD=correct horse"}, "", "sh", "-c", here.Replace(step.Command))
		if strings.Contains(out, "ERROR") || !strings.Contains(out, "\n0 errors, 0 warnings\n") {
			t.Errorf("%s prints\n%s", step.Command, out)
		}
		for flag, line := range map[string]string{"--registry http": "takes a token of ours", "--as": "alice can log in", "--registry-config": "distribution 2.5 "} {
			if strings.Contains(here.Replace(step.Command), flag) != strings.Contains(out, line) {
				t.Errorf("%s: %q is or is not in\n%s", step.Command, line, out)
			}
		}
	}
	if len(steps) != 4 {
		t.Errorf("the page shows %d commands", len(steps))
	}
}
