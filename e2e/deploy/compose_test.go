package deploy_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
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
	options, err := cli.NewProjectOptions([]string{file}, cli.WithWorkingDirectory(filepath.Dir(file)), cli.WithEnv(env))
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

func TestComposeFile(t *testing.T) {
	file := shipped(t, "compose", "compose.yaml")
	project := compose(t, file)
	auth, registry := project.Services["authserver"], project.Services["registry"]
	if len(project.Services) != 2 || registry.Image != "registry:3" {
		t.Fatalf("services %q, image %q", project.ServiceNames(), registry.Image)
	}

	if auth.Build == nil {
		t.Fatal("authserver is not built")
	}
	dockerfile := filepath.Join(auth.Build.Context, auth.Build.Dockerfile)
	if want, err := filepath.Abs(shipped(t, "Dockerfile")); err != nil || dockerfile != want {
		t.Errorf("builds %s, want %s", dockerfile, want)
	}
	if grace := auth.StopGracePeriod; grace == nil || time.Duration(*grace) <= drain*time.Second {
		t.Errorf("stop_grace_period is not more than %d s", drain)
	}
	for name, s := range project.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may do more than it needs to", name)
		}
		for _, port := range s.Ports { // passwords in plain HTTP
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s is published on %q", name, port.HostIP)
			}
		}
		for _, volume := range s.Volumes {
			switch {
			case volume.Type == types.VolumeTypeVolume:
				if _, ok := project.Volumes[volume.Source]; !ok {
					t.Errorf("%s: no volume %q", name, volume.Source)
				}
			case filepath.Base(volume.Source) == "root.crt": // made by a command of README.md
				if volume.Bind == nil || volume.Bind.CreateHostPath {
					t.Errorf("%s: compose would make a folder in the place of a missing %s", name, volume.Source)
				}
			default:
				if info, err := os.Stat(volume.Source); err != nil || !info.IsDir() {
					t.Errorf("%s mounts %s, which is no folder: %v", name, volume.Source, err)
				}
			}
		}
	}
	if _, shared := project.Volumes["authserver-data"]; !shared || slices.ContainsFunc(registry.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Source == "authserver-data" }) {
		t.Error("the registry must not see private keys")
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
	elsewhere := compose(t, file, "PUBLIC_URL=https://auth.example.com")
	if realm := env(elsewhere.Services["registry"], "REGISTRY_AUTH_TOKEN_REALM"); realm != "https://auth.example.com/token" ||
		env(elsewhere.Services["authserver"], "AUTHSERVER_SERVER__PUBLIC_URL") != "https://auth.example.com" {
		t.Errorf("PUBLIC_URL does not reach both: %s", realm)
	}
}

// composeFolder is compose's configuration with the users file beside it; in the container that is in the data volume.
func composeFolder(t testing.TB) folder {
	t.Helper()
	text := harness.ReadFile(t, shipped(t, "compose", "authserver", "authserver.yaml"))
	const inVolume = "/var/lib/authserver/users.htpasswd"
	if !bytes.Contains(text, []byte(inVolume)) {
		t.Fatalf("no %s", inVolume)
	}
	text = bytes.ReplaceAll(text, []byte(inVolume), []byte("users.htpasswd"))
	return newFolder(t, text, harness.ReadFile(t, shipped(t, "compose", "authserver", "policy.yaml")))
}

func TestComposeConfigurationPassesConfigCheck(t *testing.T) {
	composeFolder(t).check(t)
}

// runArguments are what "docker run" is given to run a service as compose does, but in the host's network. Anything in
// the service that is not looked at here fails the test.
func runArguments(t testing.TB, project *types.Project, s types.ServiceConfig, more map[string]string) []string {
	t.Helper()
	args := []string{"--network", "host"}
	if s.ReadOnly {
		args = append(args, "--read-only")
	}
	for _, capability := range s.CapDrop {
		args = append(args, "--cap-drop", capability)
	}
	for _, option := range s.SecurityOpt {
		args = append(args, "--security-opt", option)
	}
	for name, value := range s.Environment {
		args = append(args, "--env", name+"="+*value)
	}
	for name, value := range more {
		args = append(args, "--env", name+"="+value)
	}
	for _, volume := range s.Volumes {
		source := volume.Source
		if volume.Type == types.VolumeTypeVolume {
			source = project.Volumes[source].Name
		}
		mount := "type=" + volume.Type + ",source=" + source + ",target=" + volume.Target
		if volume.ReadOnly {
			mount += ",readonly"
		}
		args = append(args, "--mount", mount)
	}

	rest := s
	rest.Name, rest.Image, rest.Build, rest.StopGracePeriod, rest.Restart, rest.DependsOn = "", "", nil, nil, "", nil
	rest.Networks, rest.Ports = nil, nil // the host's network instead
	rest.ReadOnly, rest.CapDrop, rest.SecurityOpt, rest.Environment, rest.Volumes = false, nil, nil, nil, nil
	text, err := rest.MarshalYAML()
	if err != nil {
		t.Fatal(err)
	}
	left := toYAML(t, text)
	if left != toYAML(t, mustYAML(t, types.ServiceConfig{})) {
		t.Fatalf("%s has more than this test knows how to run:\n%s", s.Name, left)
	}
	return append(args, s.Image)
}

// What README.md in deploy/compose tells to type, with "docker run" in the place of "docker compose run" and "up": dockerd
// here has no network but the host's, and registry:3 is the registry of that version that the tests have built.
func composeFlow(t *testing.T, d docker) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(shipped(t, "compose"))); err != nil {
		t.Fatal(err)
	}
	authPort, opsPort, registryPort := localhost(t), localhost(t), localhost(t)
	project := compose(t, filepath.Join(dir, "compose.yaml"), "PUBLIC_URL=http://"+authPort)
	auth := runArguments(t, project, project.Services["authserver"], map[string]string{
		"AUTHSERVER_SERVER__LISTEN": authPort, "AUTHSERVER_SERVER__OPS_LISTEN": opsPort,
	})
	registry := runArguments(t, project, project.Services["registry"], map[string]string{"REGISTRY_HTTP_ADDR": registryPort})
	d.must("", "tag", image, project.Services["authserver"].Image)
	d.registryImage(project.Services["registry"].Image)
	run := func(before []string, service []string, command ...string) []string {
		return slices.Concat([]string{"run"}, before, service, command)
	}

	// Started too early it says what is missing.
	if out, err := d.try("", run([]string{"--rm"}, auth)...); err == nil || !strings.Contains(out, "authserver user add NAME") {
		t.Errorf("without users: %v\n%s", err, out)
	}
	// And the registry's certificate is no folder.
	if out, err := d.try("", run([]string{"--rm"}, registry)...); err == nil || !strings.Contains(out, "root.crt") {
		t.Errorf("without a root certificate: %v\n%s", err, out)
	}

	const password = "correct horse battery staple"
	d.must(password+"\n", run([]string{"--rm", "--interactive"}, auth, "user", "add", "admin", "--password-stdin")...)
	root := d.output(run([]string{"--rm"}, auth, "key", "export")...)
	write(t, filepath.Join(dir, "root.crt"), []byte(root), 0o644)
	d.must("", run([]string{"--detach", "--name", "compose-authserver"}, auth)...)
	d.await("compose-authserver", "http://"+opsPort+"/readyz", 200)
	d.must("", run([]string{"--detach", "--name", "compose-registry"}, registry)...)
	d.await("compose-registry", "http://"+registryPort+"/v2/", 401)

	if out, err := d.try("wrong\n", "login", registryPort, "--username", "admin", "--password-stdin"); err == nil {
		t.Errorf("a wrong password is taken: %s", out)
	}
	d.must(password+"\n", "login", registryPort, "--username", "admin", "--password-stdin")
	name := registryPort + "/admin/hello"
	d.must("", "tag", image, name)
	d.must("", "push", name)
	d.must("", "rmi", name)
	d.must("", "pull", name)
	d.must("", "logout", registryPort)
	if out, err := d.try("", "pull", name); err == nil || !strings.Contains(out, "denied") {
		t.Errorf("pulled without logging in: %v\n%s", err, out)
	}

	// A user who is added while it runs.
	d.must("another password\n", "exec", "--interactive", "compose-authserver", "authserver", "user", "add", "alice", "--password-stdin")
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, err := d.try("another password\n", "login", registryPort, "--username", "alice", "--password-stdin")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("alice cannot log in: %s", out)
		}
		time.Sleep(200 * time.Millisecond)
	}
	d.must("", "rm", "--force", "compose-registry")
	d.stop("compose-authserver")
}
