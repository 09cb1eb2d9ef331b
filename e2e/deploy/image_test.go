package deploy_test

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// baseImage is what deploy/Dockerfile is built FROM.
func baseImage(t *testing.T) string {
	t.Helper()
	text := harness.ReadFile(t, shipped(t, "Dockerfile"))
	version := regexp.MustCompile(`(?m)^ARG GO_VERSION=(\S+)$`).FindSubmatch(text)
	module := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(harness.ReadFile(t, filepath.Join(harness.Root(t), "..", "go.mod")))
	if version == nil || module == nil || !bytes.HasPrefix(version[1], module[1]) || bytes.Count(text, []byte("FROM --platform=${BUILDPLATFORM:-linux} golang:${GO_VERSION} ")) != 1 {
		t.Fatalf("the Dockerfile's Go is %q, the module's %q", version, module)
	}
	return "golang:" + string(version[1])
}

// git is what git says of the project.
func git(t *testing.T, args ...string) string {
	t.Helper()
	return strings.TrimSpace(stdout(t, []string{"TZ=UTC"}, "git", append([]string{"-C", filepath.Join(harness.Root(t), "..")}, args...)...))
}

// What "make image" makes is as small as can be, and says what it is.
func imageFlow(t *testing.T, d docker) {
	root, version := filepath.Join(harness.Root(t), ".."), git(t, "describe", "--tags", "--always", "--dirty")
	for _, step := range harness.Documented(t, "deploy/README.md", "image") {
		d.sh(root, "", step.Command)
	}
	var inspected []struct {
		Size         int64
		Architecture string
		RepoTags     []string
		Config       struct {
			User         string
			ExposedPorts map[string]struct{}
			Entrypoint   []string
			Cmd          []string
			Volumes      map[string]struct{}
			Labels       map[string]string
			Healthcheck  struct{ Test []string }
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
	if want := []string{"CMD", "/usr/local/bin/authserver", "health"}; !slices.Equal(config.Healthcheck.Test, want) {
		t.Errorf("health check %q", config.Healthcheck.Test)
	}
	if len(config.Volumes) != 0 {
		t.Errorf("volumes %v", config.Volumes)
	}
	revision, created := git(t, "rev-parse", "HEAD"), git(t, "log", "-1", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "--format=%cd")
	for label, want := range map[string]string{
		"title": "authserver", "description": "Token server for container registries", "licenses": "Apache-2.0",
		"version": version, "revision": revision, "created": created,
	} {
		if got := config.Labels["org.opencontainers.image."+label]; got != want {
			t.Errorf("label %s is %q, want %q", label, got, want)
		}
	}
	if _, ok := config.Labels["org.opencontainers.image.source"]; !ok || !slices.Contains(inspected[0].RepoTags, "authserver:"+version) {
		t.Errorf("labels %q, tags %q", config.Labels, inspected[0].RepoTags)
	}
	if out := d.output("run", "--rm", "--network", "none", image, "version"); !strings.HasPrefix(out, "authserver "+version+" (revision "+revision+" of "+created+", ") {
		t.Errorf("version: %s", out)
	}

	files := d.contents(image)
	want := []string{"etc/ssl/certs/ca-certificates.crt", "usr/local/bin/authserver"}
	if names := regularFiles(files); !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	for name, want := range map[string]tar.Header{
		"usr/local/bin/authserver": {Mode: 0o755}, "etc/ssl/certs/ca-certificates.crt": {Mode: 0o644},
		"var/lib/authserver": {Mode: 0o700, Uid: user, Gid: user}, "run/authserver": {Mode: 0o755, Uid: user, Gid: user},
		"var/lib": {Mode: 0o755}, "run": {Mode: 0o755},
	} {
		if h := files[name].header; h == nil || h.Mode&0o7777 != want.Mode || h.Uid != want.Uid || h.Gid != want.Gid {
			t.Errorf("%s: %+v", name, h)
		}
	}
	if pool := x509.NewCertPool(); !pool.AppendCertsFromPEM(files["etc/ssl/certs/ca-certificates.crt"].data) {
		t.Error("no certificates of authorities")
	}
	t.Logf("image: %d bytes, %d files, user %s, health %q, %s", inspected[0].Size, len(want), config.User, config.Healthcheck.Test, inspected[0].Architecture)
	if inspected[0].Size > 40<<20 {
		t.Errorf("%d bytes is more than 40 MiB", inspected[0].Size)
	}

	// Rules name time zones, and there are none in the image but in the program.
	dir := t.TempDir()
	write(t, filepath.Join(dir, "authserver.yaml"), []byte("services: [{name: r}]\nusers: [{kind: database}]\nissuer: {data_dir: /var/lib/authserver}\nacl: {files: [policy.yaml]}\n"), 0o644)
	write(t, filepath.Join(dir, "policy.yaml"), []byte(`rules: [{name: zone, subjects: [anyone], repositories: ["**"], actions: [pull], when: 'now.getHours("Europe/Berlin") >= 0'}]`), 0o644)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out := d.output("run", "--rm", "--network", "none", "--volume", dir+":/etc/authserver:ro", image, "acl", "explain", "--as", "alice", "--scope", "repository:a/b:pull"); !strings.Contains(out, "zone") || strings.Contains(out, "denied") {
		t.Errorf("a rule with a time zone:\n%s", out)
	}
}

// Each builder and each architecture makes the program that Go makes here, to the byte.
func architecturesFlow(t *testing.T, d docker) {
	root := filepath.Join(harness.Root(t), "..")
	arguments := []string{"--file", shipped(t, "Dockerfile"), "--build-arg", "VERSION=1.2.3", root}
	builds := map[string][]string{"amd64": {"buildx", "build", "--platform", "linux/amd64"}, "arm64": {"buildx", "build", "--platform", "linux/arm64"}, "classic": {"build"}}
	for name, build := range builds {
		tag, architecture, on := "authserver:"+name, name, d
		if name == "classic" {
			architecture, on.env = harness.ThisArchitecture, append(slices.Clone(d.env), "DOCKER_BUILDKIT=0")
		}
		started := time.Now()
		on.must("", slices.Concat(build, []string{"--tag", tag}, arguments)...)
		took := time.Since(started).Round(time.Second)
		program := d.contents(tag)["usr/local/bin/authserver"].data
		want := filepath.Join(t.TempDir(), "authserver")
		harness.BuildProduct(t, harness.GolangImageCache(t), architecture, want, "1.2.3")
		if !bytes.Equal(program, harness.ReadFile(t, want)) {
			t.Errorf("%s: another program than Go makes outside of a container", name)
		}
		made, err := elf.NewFile(bytes.NewReader(program))
		if err != nil {
			t.Fatal(err)
		}
		if machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[architecture]; made.Machine != machine || d.inspect(tag, "{{.Architecture}}") != architecture {
			t.Errorf("%s: %s in an image for %s", name, made.Machine, d.inspect(tag, "{{.Architecture}}"))
		}
		if libraries, err := made.ImportedLibraries(); err != nil || len(libraries) > 0 {
			t.Errorf("%s: needs %q, %v", name, libraries, err)
		}
		t.Logf("%s: %s, %d bytes, equal to what Go makes on this machine; built in %s", name, made.Machine, len(program), took)
	}
}

// What docker says of the health of a container: ready; not, when authserver does not answer; and again.
func healthFlow(t *testing.T, d docker) {
	d.must("", "run", "--rm", "--network", "none", "--volume", "health:/var/lib/authserver", image, "init", "/var/lib/authserver")
	d.must("", "run", "--detach", "--name", "health", "--network", "none", "--read-only", "--cap-drop", "ALL", "--volume", "health:/var/lib/authserver",
		"--health-interval", "1s", "--health-retries", "1", // and not 10 s and three times, for a test; what is run is the image's
		image, "serve", "--config", "/var/lib/authserver/authserver.yaml")
	d.becomes("health", "healthy")
	t.Logf("docker inspect: %s", d.inspect("health", "{{json .State.Health}}"))
	if out := d.output("exec", "health", "authserver", "health", "--live"); out != "alive\n" {
		t.Errorf("health --live: %s", out)
	}
	var pid int
	if _, err := fmt.Sscan(d.inspect("health", "{{.State.Pid}}"), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	d.becomes("health", "unhealthy")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) { // a check that docker has given up says nothing
		log := d.inspect("health", "{{json .State.Health}}")
		if strings.Contains(log, "authserver: not ready: /readyz on 127.0.0.1:5002 does not answer within 3s") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("docker inspect: %s", log)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	d.becomes("health", "healthy")
	d.stop("health")
}

// From nothing to a pushed image with docker alone, as deploy/README.md has it.
func runFlow(t *testing.T, d docker) {
	dir := t.TempDir()
	started := time.Now()
	password := ""
	for _, step := range harness.Documented(t, "deploy/README.md", "run") {
		command, stdin := step.Command, ""
		if strings.HasPrefix(command, "docker login") { // which asks for it
			command, stdin = command+" --password-stdin", password+"\n"
		}
		if strings.HasPrefix(command, "docker login") {
			d.becomes("authserver", "healthy")
			d.await("registry", "http://localhost:5000/v2/", http.StatusUnauthorized)
		}
		out := d.sh(dir, stdin, command)
		if match := regexp.MustCompile(`(?m)^Password: +(\S+)`).FindStringSubmatch(out); match != nil {
			password = match[1]
		}
	}
	t.Logf("from nothing to a pushed image, with the image of authserver at hand: %s", time.Since(started).Round(time.Second))
	root := d.output("exec", "authserver", "authserver", "key", "export", "--config", "/var/lib/authserver/authserver.yaml")
	d.stop("authserver")
	d.must("", "rm", "authserver")
	// Another container of the same volume has the same keys.
	if again := d.output("run", "--rm", "--volume", "authserver:/var/lib/authserver", image, "key", "export", "--config", "/var/lib/authserver/authserver.yaml"); again != root || !strings.HasPrefix(root, "-----BEGIN CERTIFICATE-----") {
		t.Errorf("another root certificate:\n%s%s", root, again)
	}
	d.must("", "rm", "--force", "registry")
}

// An entry of an image.
type entry struct {
	header *tar.Header
	data   []byte
}

func regularFiles(files map[string]entry) (names []string) {
	for name, f := range files {
		if f.header.Typeflag == tar.TypeReg {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// contents is the file system of an image, from what "docker save" writes.
func (d docker) contents(image string) map[string]entry {
	d.t.Helper()
	cmd := exec.Command(d.program, "save", image)
	cmd.Env = append(os.Environ(), d.env...)
	archive, err := cmd.Output()
	if err != nil {
		d.t.Fatalf("docker save %s: %v", image, err)
	}
	saved := d.untar(archive)
	var manifest []struct{ Layers []string }
	if err := json.Unmarshal(saved["manifest.json"].data, &manifest); err != nil || len(manifest) != 1 {
		d.t.Fatalf("docker save %s: %v", image, err)
	}
	files := map[string]entry{}
	for _, layer := range manifest[0].Layers {
		for name, f := range d.untar(saved[layer].data) {
			files[name] = f
		}
	}
	return files
}

func (d docker) untar(data []byte) map[string]entry {
	d.t.Helper()
	files := map[string]entry{}
	for in := tar.NewReader(bytes.NewReader(data)); ; {
		header, err := in.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			d.t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			d.t.Fatal(err)
		}
		files[path.Clean(header.Name)] = entry{header, data}
	}
}
