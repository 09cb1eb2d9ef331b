package deploy_test

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"authserver/e2e/harness"
)

// image is the name that the tests give to the image.
const image = "authserver:e2e"

// docker is the docker CLI with a daemon of the test's own.
type docker struct {
	t       *testing.T
	program string
	env     []string
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
		code, err := status(url)
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

// registryImage makes an image like registry:3 of the registry that the tests have built: same paths, same command, same
// configuration file, but no shell.
func (d docker) registryImage(name string) {
	d.t.Helper()
	dir := d.t.TempDir()
	write(d.t, filepath.Join(dir, "registry"), harness.ReadFile(d.t, harness.Program(d.t, "registry-3.1.2")), 0o755)
	write(d.t, filepath.Join(dir, "config.yml"), []byte(`version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
`), 0o644)
	write(d.t, filepath.Join(dir, "Dockerfile"), []byte(`FROM scratch
COPY registry /bin/registry
COPY config.yml /etc/distribution/config.yml
VOLUME /var/lib/registry
EXPOSE 5000
ENTRYPOINT ["/bin/registry"]
CMD ["serve", "/etc/distribution/config.yml"]
`), 0o644)
	d.must("", "build", "--tag", name, dir)
}

// The image is built and run by a real dockerd, which all these share.
func TestContainers(t *testing.T) {
	daemon := harness.StartDockerd(t)
	on := func(t *testing.T) docker {
		return docker{t, harness.Program(t, "docker"), []string{
			"DOCKER_HOST=" + daemon.Host,
			"DOCKER_CONFIG=" + t.TempDir(),
			"DOCKER_BUILDKIT=0", // every client has the classic builder; BuildKit needs a plugin in newer ones
		}}
	}
	on(t).must("", "build", "--file", shipped(t, "Dockerfile"), "--tag", image, filepath.Join(harness.Root(t), ".."))
	t.Cleanup(func() {
		d := on(t)
		if names := strings.Fields(d.output("ps", "--all", "--quiet")); len(names) > 0 {
			d.must("", append([]string{"rm", "--force", "--volumes"}, names...)...)
		}
	})

	t.Run("Image", func(t *testing.T) { imageIsAsSmallAsCanBe(t, on(t)) })
	t.Run("WithoutConfiguration", func(t *testing.T) {
		out, err := on(t).try("", "run", "--rm", "--network", "none", image)
		if err == nil || !strings.Contains(out, "/etc/authserver/authserver.yaml") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("Kustomize", func(t *testing.T) { kustomizeFlow(t, on(t)) })
	t.Run("Chart", func(t *testing.T) { chartFlow(t, on(t)) })
	t.Run("Compose", func(t *testing.T) { composeFlow(t, on(t)) })
}

func imageIsAsSmallAsCanBe(t *testing.T, d docker) {
	var inspected []struct {
		Size   int64
		Config struct {
			User         string
			ExposedPorts map[string]struct{}
			Entrypoint   []string
			Cmd          []string
			Volumes      map[string]struct{}
			Env          []string
		}
	}
	if err := json.Unmarshal([]byte(d.output("image", "inspect", image)), &inspected); err != nil || len(inspected) != 1 {
		t.Fatal(err)
	}
	config := inspected[0].Config
	if config.User != fmt.Sprintf("%d:%d", user, user) {
		t.Errorf("user %q", config.User)
	}
	if _, ok := config.ExposedPorts["5001/tcp"]; !ok || len(config.ExposedPorts) != 1 {
		t.Errorf("ports %v", config.ExposedPorts)
	}
	if !slices.Equal(config.Entrypoint, []string{"/usr/local/bin/authserver"}) || !slices.Equal(config.Cmd, []string{"serve", "--config", "/etc/authserver/authserver.yaml"}) {
		t.Errorf("entrypoint %q, command %q", config.Entrypoint, config.Cmd)
	}
	if len(config.Volumes) != 0 {
		t.Errorf("volumes %v", config.Volumes)
	}

	archive := filepath.Join(t.TempDir(), "image.tar")
	d.must("", "save", "--output", archive, image)
	files, layers := contents(t, archive)
	want := []string{"usr/local/bin/authserver", "var/lib/authserver/.keep"}
	if !slices.Equal(files, want) {
		t.Errorf("files %q, want %q", files, want)
	}
	t.Logf("image: %d bytes, %d layers, %d files", inspected[0].Size, layers, len(files))
	if inspected[0].Size > 40<<20 {
		t.Errorf("%d bytes is more than 40 MiB", inspected[0].Size)
	}
}

// contents are the files of an image, from what "docker save" has written.
func contents(t *testing.T, archive string) (files []string, layers int) {
	t.Helper()
	walk := func(r io.Reader, each func(*tar.Header, io.Reader)) {
		for in := tar.NewReader(r); ; {
			header, err := in.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			each(header, in)
		}
	}
	read := func(each func(*tar.Header, io.Reader)) {
		file, err := os.Open(archive)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		walk(file, each)
	}
	var manifest []struct{ Layers []string }
	read(func(h *tar.Header, r io.Reader) {
		if h.Name == "manifest.json" {
			if err := json.NewDecoder(r).Decode(&manifest); err != nil || len(manifest) != 1 {
				t.Fatal(err)
			}
		}
	})
	read(func(h *tar.Header, r io.Reader) {
		if len(manifest) == 1 && slices.Contains(manifest[0].Layers, h.Name) {
			layers++
			walk(r, func(h *tar.Header, _ io.Reader) {
				if h.Typeflag == tar.TypeReg {
					files = append(files, path.Clean(h.Name))
				}
				if h.Typeflag == tar.TypeDir && path.Clean(h.Name) == "var/lib/authserver" && (h.Uid != user || h.Gid != user) {
					t.Errorf("the data folder belongs to %d:%d", h.Uid, h.Gid)
				}
			})
		}
	})
	slices.Sort(files)
	return files, layers
}

func mustYAML(t testing.TB, v interface{ MarshalYAML() (any, error) }) any {
	t.Helper()
	made, err := v.MarshalYAML()
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func toYAML(t testing.TB, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
