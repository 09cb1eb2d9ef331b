package harness

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Dockerd is a running Docker daemon of the test's own. Containers that it runs
// have no network but the host's (--network host) or none.
type Dockerd struct {
	*Process
	Host string // for docker -H
}

// StartDockerd starts dockerd. It needs root.
func StartDockerd(t testing.TB) *Dockerd {
	t.Helper()
	dir := ShortTempDir(t)
	// dockerd leaves the host's network mounted there once a container has used it.
	t.Cleanup(func() { syscall.Unmount(filepath.Join(dir, "exec", "netns", "default"), syscall.MNT_DETACH) })
	d := &Dockerd{Host: "unix://" + filepath.Join(dir, "docker.sock")}
	config := filepath.Join(dir, "daemon.json")
	write(t, config, "{}") // nothing of the machine's own daemon
	d.Process = Start(t, nil, Program(t, "dockerd"),
		"--host", d.Host,
		"--config-file", config,
		"--data-root", filepath.Join(dir, "data"),
		"--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"),
		"--storage-driver", "vfs",
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false")
	docker := Program(t, "docker")
	d.Await(t, func() error {
		_, err := output(docker, "", "-H", d.Host, "version")
		return err
	})
	return d
}

// Containerd is a running containerd of the test's own.
type Containerd struct {
	*Process
	Address string // for ctr -a
}

// StartContainerd starts containerd. It needs root.
func StartContainerd(t testing.TB) *Containerd {
	t.Helper()
	dir := ShortTempDir(t)
	c := &Containerd{Address: filepath.Join(dir, "containerd.sock")}
	config := filepath.Join(dir, "config.toml")
	write(t, config, `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), c.Address)
	c.Process = Start(t, nil, Program(t, "containerd"), "--config", config)
	ctr := Program(t, "ctr")
	c.Await(t, func() error {
		_, err := output(ctr, "", "-a", c.Address, "version")
		return err
	})
	return c
}

// ShortTempDir is t.TempDir with a name that leaves room for a unix socket (108
// bytes) and for podman (50).
func ShortTempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
