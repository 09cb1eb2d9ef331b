package deploy_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"authserver/e2e/harness"
)

// compose reads a compose file as docker compose does: its loader, its schema.
func compose(t testing.TB, file string, env ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{file}, cli.WithWorkingDirectory(filepath.Dir(file)), cli.WithEnv(env), cli.WithDefaultProfiles())
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// env is a variable of a service.
func env(s types.ServiceConfig, name string) string {
	if value := s.Environment[name]; value != nil {
		return *value
	}
	return ""
}

// What compose itself reads in the file, without the profile and with it.
func TestComposeFile(t *testing.T) {
	file := shipped(t, "compose", "compose.yaml")
	postgres := strings.Fields(string(regexp.MustCompile(`(?m)^#.*$`).ReplaceAll(harness.ReadFile(t, shipped(t, "compose", "postgres.env")), nil)))
	alone, with := compose(t, file), compose(t, file, postgres...)
	if names := alone.ServiceNames(); !slices.Equal(names, []string{"administrator", "authserver", "registry", "root-certificate"}) {
		t.Fatalf("services %q", names)
	}
	if names := with.ServiceNames(); !slices.Equal(names, []string{"administrator", "authserver", "postgres", "registry", "root-certificate"}) {
		t.Fatalf("with %q: services %q", postgres, names)
	}
	auth, registry := alone.Services["authserver"], alone.Services["registry"]
	if registry.Image != "registry:3" || with.Services["postgres"].Image != "postgres:17" {
		t.Errorf("images %q, %q", registry.Image, with.Services["postgres"].Image)
	}
	build := alone.Services["root-certificate"].Build
	if build == nil {
		t.Fatal("authserver is not built")
	}
	if want, err := filepath.Abs(shipped(t, "Dockerfile")); err != nil || filepath.Join(build.Context, build.Dockerfile) != want {
		t.Errorf("builds %s in %s, want %s", build.Dockerfile, build.Context, want)
	}
	if grace := auth.StopGracePeriod; grace == nil || time.Duration(*grace) <= drain*time.Second {
		t.Errorf("stop_grace_period is not more than %d s", drain)
	}
	sees := map[string][]string{} // volume to services
	for name, s := range with.Services {
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || (name != "postgres" && (!s.ReadOnly || len(s.CapAdd) > 0)) {
			t.Errorf("%s may do more than it needs to", name)
		}
		for _, port := range s.Ports { // passwords in plain HTTP
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s is published on %q", name, port.HostIP)
			}
		}
		for _, volume := range s.Volumes {
			if volume.Type == types.VolumeTypeVolume {
				if _, ok := with.Volumes[volume.Source]; !ok {
					t.Errorf("%s: no volume %q", name, volume.Source)
				}
				sees[volume.Source] = append(sees[volume.Source], name)
			} else if info, err := os.Stat(volume.Source); err != nil || !info.IsDir() {
				t.Errorf("%s mounts %s, which is no folder: %v", name, volume.Source, err)
			}
		}
	}
	for volume, want := range map[string][]string{ // secrets
		"authserver-data": {"administrator", "authserver", "root-certificate"},
		"database-login":  {"administrator", "authserver", "postgres", "root-certificate"},
		"registry-data":   {"registry"}, "postgres-data": {"postgres"},
	} {
		if slices.Sort(sees[volume]); !slices.Equal(sees[volume], want) {
			t.Errorf("volume %s is seen by %q, want %q", volume, sees[volume], want)
		}
	}
	if _, reaches := with.Services["registry"].Networks["database"]; reaches || !with.Networks["database"].Internal || with.Services["root-certificate"].NetworkMode != "none" {
		t.Error("the database is reached by who does not need it")
	}

	// The values of both sides.
	config := composeFolder(t).show(t)
	if len(config.Services) != 1 || env(registry, "REGISTRY_AUTH_TOKEN_SERVICE") != config.Services[0].Name || config.Services[0].Verifier != "chain" {
		t.Errorf("services %+v", config.Services)
	}
	if env(registry, "REGISTRY_AUTH") != "token" || env(registry, "REGISTRY_AUTH_TOKEN_ISSUER") != config.Issuer.Name {
		t.Errorf("issuer %q", config.Issuer.Name)
	}
	if realm := env(registry, "REGISTRY_AUTH_TOKEN_REALM"); realm != config.realm() || env(auth, "AUTHSERVER_SERVER__PUBLIC_URL") != config.Server.PublicURL {
		t.Errorf("realm %q, authserver's is %q", realm, config.realm())
	}
	if config.Server.Listen != ":5001" || len(auth.Ports) != 1 || auth.Ports[0].Target != 5001 {
		t.Errorf("listens on %s", config.Server.Listen)
	}
	for variable, realm := range map[string]string{
		"PUBLIC_URL=https://auth.example.com": "https://auth.example.com/token", "AUTH_PORT=6001": "http://localhost:6001/token",
	} {
		elsewhere := compose(t, file, variable)
		if got := env(elsewhere.Services["registry"], "REGISTRY_AUTH_TOKEN_REALM"); got != realm || env(elsewhere.Services["authserver"], "AUTHSERVER_SERVER__PUBLIC_URL")+"/token" != realm {
			t.Errorf("%s does not reach both: %s", variable, got)
		}
	}
}

// composeFolder is compose's configuration with a data folder of the test's.
func composeFolder(t testing.TB) folder {
	t.Helper()
	text := harness.ReadFile(t, shipped(t, "compose", "authserver", "authserver.yaml"))
	const inVolume = "data_dir: /var/lib/authserver "
	if !bytes.Contains(text, []byte(inVolume)) {
		t.Fatalf("no %s", inVolume)
	}
	text = bytes.ReplaceAll(text, []byte(inVolume), []byte("data_dir: data "))
	return newFolder(t, text, harness.ReadFile(t, shipped(t, "compose", "authserver", "policy.yaml")))
}

func TestComposeConfigurationPassesConfigCheck(t *testing.T) {
	composeFolder(t).check(t)
}

// checkout is a copy of what compose builds and runs, so that files may be edited in it.
func checkout(t *testing.T) string {
	t.Helper()
	root, dir := filepath.Join(harness.Root(t), ".."), t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", ".dockerignore"} {
		write(t, filepath.Join(dir, name), harness.ReadFile(t, filepath.Join(root, name)), 0o644)
	}
	for _, name := range []string{"cmd", "internal", "deploy"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(root, name))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What README.md in deploy/compose tells to type, from nothing to accounts in PostgreSQL.
func composeFlow(t *testing.T, d docker) {
	dir := filepath.Join(checkout(t), "deploy", "compose")
	documented := func(part string) {
		t.Helper()
		for _, step := range harness.Documented(t, "deploy/compose/README.md", part) {
			d.sh(dir, "", strings.TrimPrefix(step.Command, "cd deploy/compose && "))
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := d.try("", "compose", "--project-directory", dir, "--profile", "postgres", "logs", "--tail", "20")
			t.Logf("the logs:\n%s", out)
		}
		d.try("", "compose", "--project-directory", dir, "--profile", "postgres", "down", "--volumes")
	})

	started := time.Now()
	documented("start")
	documented("push")
	t.Logf("from nothing to a pushed and pulled image: %s", time.Since(started).Round(time.Second))
	password := strings.TrimSpace(string(harness.ReadFile(t, filepath.Join(dir, "admin-password"))))
	if info, err := os.Stat(filepath.Join(dir, "admin-password")); err != nil || info.Mode().Perm() != 0o600 || len(password) < 26 {
		t.Errorf("the password's file: %v, %v", info, err)
	}
	if out, err := d.try("wrong\n", "login", "localhost:5000", "--username", "admin", "--password-stdin"); err == nil || !strings.Contains(strings.ToLower(out), "unauthorized") {
		t.Errorf("a wrong password: %v\n%s", err, out)
	}
	if logs := d.output("compose", "--project-directory", dir, "logs"); strings.Contains(logs, password) {
		t.Error("the password is in the logs")
	}
	d.restricted("authserver-authserver-1")

	// Again: nothing is made anew.
	before := d.output("compose", "--project-directory", dir, "exec", "authserver", "authserver", "key", "export")
	d.must("", "compose", "--project-directory", dir, "up", "--detach", "--wait")
	d.must(password+"\n", "login", "localhost:5000", "--username", "admin", "--password-stdin")
	if after := d.output("compose", "--project-directory", dir, "exec", "authserver", "authserver", "key", "export"); after != before {
		t.Error("a second up has made other keys")
	}

	// A policy that is edited.
	d.must("", "logout", "localhost:5000")
	const name = "localhost:5000/admin/hello"
	if out, err := d.try("", "pull", name); err == nil || !strings.Contains(out, "denied") {
		t.Errorf("pulled without logging in: %v\n%s", err, out)
	}
	policy := filepath.Join(dir, "authserver", "policy.yaml")
	write(t, policy, append(harness.ReadFile(t, policy), "\n  - name: hello-for-all\n    subjects: [anyone]\n    repositories: [admin/hello]\n    actions: [pull]\n"...), 0o644)
	edited := time.Now()
	for {
		out, err := d.try("", "pull", name)
		if err == nil {
			break
		}
		if time.Since(edited) > 20*time.Second {
			t.Fatalf("the edited policy is not taken up: %s", out)
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Logf("an edited policy: taken up in %s", time.Since(edited).Round(100*time.Millisecond))

	// The profile alone would start a database that nobody uses.
	out, err := d.try("", "compose", "--project-directory", dir, "--profile", "postgres", "up", "--detach", "--wait")
	if logs := d.output("compose", "--project-directory", dir, "--profile", "postgres", "logs", "postgres"); err == nil || !strings.Contains(logs, "cat postgres.env >>.env") {
		t.Errorf("--profile without postgres.env: %v\n%s%s", err, out, logs)
	}
	started = time.Now()
	documented("postgres")
	t.Logf("to accounts in PostgreSQL: %s", time.Since(started).Round(time.Second))
	accounts := func() string {
		t.Helper()
		return d.output("compose", "--project-directory", dir, "exec", "postgres", "psql", "--username=authserver", "--tuples-only", "--no-align", "--command=SELECT name FROM accounts ORDER BY name")
	}
	if got := accounts(); got != "admin\nalice\n" {
		t.Errorf("accounts in PostgreSQL: %q", got)
	}
	alice := harness.ReadFile(t, filepath.Join(dir, "alice-password"))
	d.must("", "compose", "--project-directory", dir, "down")
	d.must("", "compose", "--project-directory", dir, "up", "--detach", "--wait")
	if got := accounts(); got != "admin\nalice\n" {
		t.Errorf("accounts after down and up: %q", got)
	}
	d.must(string(alice), "login", "localhost:5000", "--username", "alice", "--password-stdin")
	d.must("", "tag", image, "localhost:5000/alice/hello")
	d.must("", "push", "localhost:5000/alice/hello")
}
