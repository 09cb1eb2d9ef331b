package harness

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Dockerd is a running Docker daemon of the test's own.
type Dockerd struct {
	*Process
	Host string // for docker -H
}

// StartDockerd starts dockerd. It needs root. Containers that it runs have no network but the host's (--network host) or none.
func StartDockerd(t testing.TB) *Dockerd {
	t.Helper()
	dir := ShortTempDir(t)
	return startDockerd(t, dir, Program(t, "dockerd"),
		"--storage-driver", "vfs",
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false")
}

// StartDockerdApart starts dockerd in a network of its own, with bridges, names and published ports as anywhere: on its
// localhost every port is free, and nobody else is. Client reaches it from the test.
func StartDockerdApart(t testing.TB) *Dockerd {
	t.Helper()
	Program(t, "ip")
	return startDockerd(t, ShortTempDir(t), Program(t, "unshare"), "--net", "/bin/sh", "-c", `ip link set lo up && exec "$0" "$@"`, Program(t, "dockerd"))
}

func startDockerd(t testing.TB, dir, program string, args ...string) *Dockerd {
	t.Helper()
	// dockerd leaves the host's network mounted there once a container has used it.
	t.Cleanup(func() { syscall.Unmount(filepath.Join(dir, "exec", "netns", "default"), syscall.MNT_DETACH) })
	d := &Dockerd{Host: "unix://" + filepath.Join(dir, "docker.sock")}
	config := filepath.Join(dir, "daemon.json")
	write(t, config, "{}") // nothing of the machine's own daemon
	d.Process = Start(t, nil, program, append(args,
		"--host", d.Host,
		"--config-file", config,
		"--data-root", filepath.Join(dir, "data"),
		"--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"))...)
	docker := Program(t, "docker")
	d.Await(t, func() error {
		_, err := output(docker, "", "-H", d.Host, "version")
		return err
	})
	return d
}

// Client is a client in the network of a daemon that is apart.
func (d *Dockerd) Client() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = d.inside(func() error {
				conn, err = (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address) // on this thread alone
				return err
			})
			return conn, err
		},
	}}
}

// inside runs what it is given in the daemon's network.
func (d *Dockerd) inside(do func() error) error {
	// Never unlocked: the thread ends with the goroutine, rather than serve another one from the wrong network.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", d.PID()))
		if err == nil {
			defer ns.Close()
			if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
				err = do()
			}
		}
		done <- err
	}()
	return <-done
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
