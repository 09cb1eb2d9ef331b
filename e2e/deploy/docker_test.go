package deploy_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// image is what "make image" makes.
const image = "authserver:latest"

// docker is the docker CLI with a daemon of the test's own, and with its plugins.
type docker struct {
	t       *testing.T
	daemon  *harness.Dockerd
	program string
	env     []string
	http    *http.Client // in the daemon's network
}

func (d docker) registryImage(name string) {
	d.t.Helper()
	d.daemon.MakeRegistryImage(d.t, name)
}

func (d docker) try(stdin string, args ...string) (string, error) {
	d.t.Helper()
	return harness.Run(d.t, d.env, stdin, d.program, args...)
}

// must runs docker, which has to succeed.
func (d docker) must(stdin string, args ...string) {
	d.t.Helper()
	harness.MustRun(d.t, d.env, stdin, d.program, args...)
}

// output is what docker prints, without its warnings.
func (d docker) output(args ...string) string {
	d.t.Helper()
	return stdout(d.t, d.env, d.program, args...)
}

// inspect is one value of a container.
func (d docker) inspect(container, format string) string {
	d.t.Helper()
	return strings.TrimSpace(d.output("inspect", "--format", format, container))
}

// logs is what a container has printed.
func (d docker) logs(container string) string {
	d.t.Helper()
	out, _ := d.try("", "logs", container)
	return out
}

// localhost is localhost:PORT, with a port that is free.
func localhost(t testing.TB) string { return fmt.Sprintf("localhost:%d", harness.FreePort(t)) }

// await waits until a server in a container answers with a status; a container that has ended fails the test.
func (d docker) await(container, url string, want int) {
	d.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		code, err := d.status(url)
		if err == nil && code == want {
			return
		}
		running := d.inspect(container, "{{.State.Running}}")
		if running != "true" || time.Now().After(deadline) {
			d.t.Fatalf("%s is not ready (status %d, %v); running: %s\n%s", container, code, err, running, d.logs(container))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// status is the status of a GET in the daemon's network.
func (d docker) status(url string) (int, error) {
	response, err := d.http.Get(url)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}

// becomes waits until docker calls a container healthy or unhealthy.
func (d docker) becomes(container, want string) {
	d.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for d.inspect(container, "{{.State.Health.Status}}") != want {
		if time.Now().After(deadline) {
			d.t.Fatalf("%s is not %s: %s\n%s", container, want, d.inspect(container, "{{json .State}}"), d.logs(container))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// sh runs what a page tells its reader to type, in a folder.
func (d docker) sh(dir, stdin, command string) string {
	d.t.Helper()
	environment := append([]string{"PATH=" + filepath.Dir(d.program) + ":" + os.Getenv("PATH")}, d.env...)
	started := time.Now()
	out := harness.MustRun(d.t, environment, stdin, "/bin/sh", "-euc", "cd \"$0\"\n"+command, dir)
	d.t.Logf("$ %s   # %s\n%s", command, time.Since(started).Round(10*time.Millisecond), out)
	return out
}

// restricted checks what the kernel says of a container's first process.
func (d docker) restricted(container string) {
	d.t.Helper()
	pid := d.inspect(container, "{{.State.Pid}}")
	process := map[string]string{}
	for _, line := range strings.Split(string(harness.ReadFile(d.t, "/proc/"+pid+"/status")), "\n") {
		key, value, _ := strings.Cut(line, ":")
		process[key] = strings.Join(strings.Fields(value), " ")
	}
	for key, want := range map[string]string{
		"Uid": "65532 65532 65532 65532", "Gid": "65532 65532 65532 65532", "CapEff": "0000000000000000", "NoNewPrivs": "1",
	} {
		if process[key] != want {
			d.t.Errorf("%s of the process is %q, want %q", key, process[key], want)
		}
	}
	if readOnly := d.inspect(container, "{{.HostConfig.ReadonlyRootfs}}"); readOnly != "true" {
		d.t.Errorf("read-only root: %s", readOnly)
	}
	d.t.Logf("the process: Uid %s, CapEff %s, NoNewPrivs %s, Seccomp %s, VmRSS %s", process["Uid"], process["CapEff"], process["NoNewPrivs"], process["Seccomp"], process["VmRSS"])
}

// stop is "docker stop" with the grace that is documented; it must be an orderly end.
func (d docker) stop(container string) {
	d.t.Helper()
	started := time.Now()
	d.must("", "stop", "-t", "45", container)
	took := time.Since(started).Round(10 * time.Millisecond)
	if code := d.inspect(container, "{{.State.ExitCode}}"); code != "0" {
		d.t.Errorf("%s: exit status %s\n%s", container, code, d.logs(container))
	}
	d.t.Logf("docker stop of %s took %s", container, took)
	if took > (drain+1)*time.Second {
		d.t.Errorf("it takes more than %d s to stop", drain)
	}
}

// The image is built by a real dockerd, and run by it and by another one.
func TestContainers(t *testing.T) {
	plugins := t.TempDir()
	if err := os.Symlink(harness.Plugins(t), filepath.Join(plugins, "cli-plugins")); err != nil {
		t.Fatal(err)
	}
	with := func(daemon *harness.Dockerd, client *http.Client) func(t *testing.T) docker {
		on := func(t *testing.T) docker {
			return docker{t, daemon, harness.Program(t, "docker"), []string{"DOCKER_HOST=" + daemon.Host, "DOCKER_CONFIG=" + plugins}, client}
		}
		t.Cleanup(func() {
			d := on(t)
			if names := strings.Fields(d.output("ps", "--all", "--quiet")); len(names) > 0 {
				d.must("", append([]string{"rm", "--force", "--volumes"}, names...)...)
			}
		})
		return on
	}
	builder := harness.StartDockerdApart(t)
	on := with(builder, builder.Client())
	started := time.Now()
	builder.MakeGolangImage(t, baseImage(t))
	builder.MakeRegistryImage(t, "registry:3")
	builder.MakePostgresImage(t, "postgres:17")
	t.Logf("images like those of Docker Hub: made in %s", time.Since(started).Round(time.Second))

	// In this order: what is built first is what the others run.
	if !t.Run("Image", func(t *testing.T) { imageFlow(t, on(t)) }) {
		return
	}
	t.Run("Architectures", func(t *testing.T) { architecturesFlow(t, on(t)) })
	t.Run("Health", func(t *testing.T) { healthFlow(t, on(t)) })
	t.Run("WithoutConfiguration", func(t *testing.T) {
		out, err := on(t).try("", "run", "--rm", "--network", "none", image)
		if err == nil || !strings.Contains(out, "/etc/authserver/authserver.yaml") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("Run", func(t *testing.T) { runFlow(t, on(t)) })
	t.Run("Compose", func(t *testing.T) { composeFlow(t, on(t)) })

	// What is made for pods runs in the network of the test, beside servers that it starts itself.
	host := with(harness.StartDockerd(t), http.DefaultClient)
	archive := filepath.Join(t.TempDir(), "image.tar")
	on(t).must("", "save", "--output", archive, image)
	host(t).must("", "load", "--input", archive)
	t.Run("Kustomize", func(t *testing.T) { kustomizeFlow(t, host(t)) })
	t.Run("Chart", func(t *testing.T) { chartFlow(t, host(t)) })
}
