package flows_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// A client is a real program that talks to a registry for one user at a time.
// Its methods answer with everything that the program has printed.
type client interface {
	// login may or may not contact the registry.
	login(user, password string) (string, error)
	logout() (string, error)
	// push uploads a small image of the client's own under ref.
	push(ref string) (string, error)
	// pull downloads ref, and not from what the client has kept of earlier runs.
	pull(ref string) (string, error)
	// keep logs in so that the client has a refresh token and no password.
	keep(user, password string) (string, error)
	kept() (auth, identityToken string)
	forget()
}

// A base is what all clients have: a home of their own, so that no credentials
// come from or go to the machine's, and an image to push that nobody else has.
type base struct {
	t       *testing.T
	program string
	host    string // localhost:PORT of the registry
	home    string
	image   harness.Image
}

func newBase(t *testing.T, program, host string) base {
	t.Helper()
	home := harness.ShortTempDir(t)
	b := base{
		t:       t,
		program: harness.Program(t, program),
		host:    host,
		home:    home,
		image:   harness.MakeImage(t, t.Name()+home),
	}
	// Podman wants a file that it is pointed to to exist.
	if err := os.WriteFile(b.authFile(), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b base) authFile() string { return filepath.Join(b.home, "auth.json") }

// run runs the program in its home.
func (b base) run(stdin string, args ...string) (string, error) {
	b.t.Helper()
	return b.runOther(stdin, b.program, args...)
}

// runOther is run for another program.
func (b base) runOther(stdin, program string, args ...string) (string, error) {
	b.t.Helper()
	return harness.Run(b.t, []string{
		"HOME=" + b.home,
		"XDG_RUNTIME_DIR=" + b.home,
		"XDG_CONFIG_HOME=" + b.home,
		"XDG_DATA_HOME=" + b.home,
		"DOCKER_CONFIG=" + b.home,
		"REGISTRY_AUTH_FILE=" + b.authFile(),
	}, stdin, program, args...)
}

// must is run for a step that has to succeed.
func (b base) must(args ...string) {
	b.t.Helper()
	if out, err := b.run("", args...); err != nil {
		b.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// fresh is the path of something that does not exist yet.
func (b base) fresh() string { return filepath.Join(b.t.TempDir(), "out") }

// keep logs in with docker, which keeps the refresh token that it gets in a file
// where the other clients find it.
func (b base) keep(user, password string) (string, error) {
	b.t.Helper()
	out, err := b.runOther(password, harness.Program(b.t, "docker"), "-H", "unix:///nonexistent", "login", "-u", user, "--password-stdin", b.host)
	if err != nil {
		return out, err
	}
	// Podman and skopeo read another file.
	return out, os.WriteFile(b.authFile(), harness.ReadFile(b.t, b.dockerFile()), 0o600)
}

func (b base) dockerFile() string { return filepath.Join(b.home, "config.json") }

// kept is what docker has kept of a login.
func (b base) kept() (auth, identityToken string) {
	b.t.Helper()
	var file struct {
		Auths map[string]struct{ Auth, IdentityToken string }
	}
	data := harness.ReadFile(b.t, b.dockerFile())
	if err := json.Unmarshal(data, &file); err != nil {
		b.t.Fatalf("%v\n%s", err, data)
	}
	login := file.Auths[b.host]
	plain, err := base64.StdEncoding.DecodeString(login.Auth)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(plain), login.IdentityToken
}

// forget removes all that is kept of logins.
func (b base) forget() {
	b.t.Helper()
	for _, file := range []string{b.authFile(), b.dockerFile()} {
		if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

// docker is the docker CLI, with a daemon.
type docker struct {
	base
	daemon string
}

func newDocker(t *testing.T, host string, d *harness.Dockerd) client {
	c := docker{newBase(t, "docker", host), d.Host}
	c.must("-H", d.Host, "load", "-i", c.image.Archive)
	return c
}

func (c docker) login(user, password string) (string, error) {
	return c.run(password, "-H", c.daemon, "login", "-u", user, "--password-stdin", c.host)
}

func (c docker) logout() (string, error) { return c.run("", "-H", c.daemon, "logout", c.host) }

func (c docker) push(ref string) (string, error) {
	c.must("-H", c.daemon, "load", "-i", c.image.Archive)
	c.must("-H", c.daemon, "tag", "localhost/made:1", ref)
	return c.run("", "-H", c.daemon, "push", ref)
}

func (c docker) pull(ref string) (string, error) {
	// Without the last of an image's names the layers go, too.
	c.run("", "-H", c.daemon, "rmi", ref)
	c.run("", "-H", c.daemon, "rmi", "localhost/made:1")
	return c.run("", "-H", c.daemon, "pull", ref)
}

// podman keeps its images in its home.
type podman struct{ base }

func newPodman(t *testing.T, host string) client { return podman{newBase(t, "podman", host)} }

func (c podman) podman(stdin string, args ...string) (string, error) {
	return c.run(stdin, append([]string{
		"--root", filepath.Join(c.home, "root"), "--runroot", filepath.Join(c.home, "runroot"),
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
	}, args...)...)
}

func (c podman) login(user, password string) (string, error) {
	return c.podman(password, "login", "--tls-verify=false", "-u", user, "--password-stdin", c.host)
}

func (c podman) logout() (string, error) { return c.podman("", "logout", c.host) }

func (c podman) push(ref string) (string, error) {
	if out, err := c.podman("", "load", "-i", c.image.Archive); err != nil {
		return out, err
	}
	return c.podman("", "push", "--tls-verify=false", "--format", "v2s2", "localhost/made:1", ref)
}

func (c podman) pull(ref string) (string, error) {
	c.podman("", "rmi", "--all", "--force")
	return c.podman("", "pull", "--tls-verify=false", ref)
}

// skopeo copies from and to files.
type skopeo struct{ base }

func newSkopeo(t *testing.T, host string) client { return skopeo{newBase(t, "skopeo", host)} }

func (c skopeo) login(user, password string) (string, error) {
	return c.run(password, "login", "--tls-verify=false", "-u", user, "--password-stdin", c.host)
}

func (c skopeo) logout() (string, error) { return c.run("", "logout", c.host) }

func (c skopeo) push(ref string) (string, error) {
	return c.run("", "copy", "--dest-tls-verify=false", "docker-archive:"+c.image.Archive, "docker://"+ref)
}

func (c skopeo) pull(ref string) (string, error) {
	return c.run("", "copy", "--src-tls-verify=false", "docker://"+ref, "dir:"+c.fresh())
}

// ctr has no login: it is given the credentials with each command.
type ctr struct {
	base
	daemon    string
	userFlags *[]string
}

func newCtr(t *testing.T, host string, d *harness.Containerd) client {
	return ctr{newBase(t, "ctr", host), d.Address, new([]string)}
}

func (c ctr) ctr(args ...string) (string, error) {
	// A namespace of its own, so that no image is there from another test.
	namespace := strings.NewReplacer("/", "-", ".", "-").Replace(c.t.Name())
	return c.run("", append([]string{"-a", c.daemon, "-n", namespace, "images"}, args...)...)
}

func (c ctr) login(user, password string) (string, error) {
	*c.userFlags = []string{"--user", user + ":" + password}
	return "", nil
}

// keep takes the refresh token from where docker has put it: ctr reads no file.
func (c ctr) keep(user, password string) (string, error) {
	out, err := c.base.keep(user, password)
	if err != nil {
		return out, err
	}
	_, token := c.kept()
	*c.userFlags = []string{"--refresh", token}
	return out, nil
}

func (c ctr) forget() {
	c.base.forget()
	*c.userFlags = nil
}

func (c ctr) logout() (string, error) {
	*c.userFlags = nil
	return "", nil
}

func (c ctr) push(ref string) (string, error) {
	if out, err := c.ctr("import", "--snapshotter", "native", c.image.Archive); err != nil {
		return out, err
	}
	if out, err := c.ctr("tag", "--force", "localhost/made:1", ref); err != nil {
		return out, err
	}
	return c.ctr(append(append([]string{"push", "--plain-http"}, *c.userFlags...), ref)...)
}

func (c ctr) pull(ref string) (string, error) {
	c.ctr("rm", "--sync", ref, "localhost/made:1")
	return c.ctr(append(append([]string{"pull", "--plain-http", "--snapshotter", "native"}, *c.userFlags...), ref)...)
}

// crane's login only stores what it is given.
type crane struct{ base }

func newCrane(t *testing.T, host string) client { return crane{newBase(t, "crane", host)} }

func (c crane) login(user, password string) (string, error) {
	return c.run(password, "auth", "login", c.host, "-u", user, "--password-stdin")
}

func (c crane) logout() (string, error) { return c.run("", "auth", "logout", c.host) }

func (c crane) push(ref string) (string, error) {
	return c.run("", "append", "--new_layer", c.image.Layer, "--new_tag", ref)
}

func (c crane) pull(ref string) (string, error) { return c.run("", "pull", ref, c.fresh()) }

type oras struct{ base }

func newOras(t *testing.T, host string) client { return oras{newBase(t, "oras", host)} }

func (c oras) login(user, password string) (string, error) {
	return c.run(password, "login", "--plain-http", "-u", user, "--password-stdin", c.host)
}

func (c oras) logout() (string, error) { return c.run("", "logout", c.host) }

func (c oras) push(ref string) (string, error) {
	return c.run("", "cp", "--from-oci-layout", "--to-plain-http", c.image.Layout+":1", ref)
}

func (c oras) pull(ref string) (string, error) {
	return c.run("", "cp", "--from-plain-http", "--to-oci-layout", ref, c.fresh()+":1")
}

type regctl struct{ base }

func newRegctl(t *testing.T, host string) client {
	c := regctl{newBase(t, "regctl", host)}
	c.must("registry", "set", host, "--tls", "disabled", "--skip-check")
	return c
}

func (c regctl) login(user, password string) (string, error) {
	return c.run(password, "registry", "login", "-u", user, "--pass-stdin", c.host)
}

func (c regctl) logout() (string, error) { return c.run("", "registry", "logout", c.host) }

func (c regctl) push(ref string) (string, error) {
	return c.run("", "image", "import", ref, c.image.Archive)
}

func (c regctl) pull(ref string) (string, error) {
	return c.run("", "image", "export", ref, c.fresh())
}

// helm pushes and pulls a chart of the name and the version that stand in ref.
type helm struct{ base }

func newHelm(t *testing.T, host string) client { return helm{newBase(t, "helm", host)} }

func (c helm) login(user, password string) (string, error) {
	return c.run(password, "registry", "login", "--plain-http", "-u", user, "--password-stdin", c.host)
}

func (c helm) logout() (string, error) { return c.run("", "registry", "logout", c.host) }

func (c helm) push(ref string) (string, error) {
	repository, version := ref[:strings.LastIndexByte(ref, ':')], ref[strings.LastIndexByte(ref, ':')+1:]
	chart := filepath.Join(c.t.TempDir(), filepath.Base(repository))
	if err := os.Mkdir(chart, 0o700); err != nil {
		c.t.Fatal(err)
	}
	about := "apiVersion: v2\nname: " + filepath.Base(repository) + "\nversion: " + version + "\n"
	if err := os.WriteFile(filepath.Join(chart, "Chart.yaml"), []byte(about), 0o600); err != nil {
		c.t.Fatal(err)
	}
	packed := c.fresh()
	if out, err := c.run("", "package", chart, "-d", packed); err != nil {
		return out, err
	}
	return c.run("", "push", "--plain-http", filepath.Join(packed, filepath.Base(repository)+"-"+version+".tgz"), "oci://"+filepath.Dir(repository))
}

func (c helm) pull(ref string) (string, error) {
	repository, version := ref[:strings.LastIndexByte(ref, ':')], ref[strings.LastIndexByte(ref, ':')+1:]
	return c.run("", "pull", "--plain-http", "-d", c.t.TempDir(), "oci://"+repository, "--version", version)
}
