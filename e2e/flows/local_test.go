package flows_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"authserver/e2e/harness"
)

// What "make run" starts works as it says, keeps everything for the next run,
// and ends without an error.
func TestMakeRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	local := buildLocal(t)
	start := func() (*harness.Process, string) {
		registry := harness.FreePort(t)
		p := harness.Start(t, nil, local, localArguments(t, dir, registry)...)
		p.Await(t, func() error {
			if !strings.Contains(p.Log(), "Ctrl-C stops both") {
				return fmt.Errorf("not told what to do next: %s", p.Log())
			}
			return nil
		})
		return p, fmt.Sprintf("localhost:%d", registry)
	}

	p, host := start()
	if want := "docker login " + host + " -u admin"; !strings.Contains(p.Log(), want) {
		t.Errorf("%q is not among what is printed:\n%s", want, p.Log())
	}
	file := filepath.Join(dir, "admin-password")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("password file: %v, %v", info, err)
	}
	password := strings.TrimSpace(string(harness.ReadFile(t, file)))

	c := newCrane(t, host)
	succeeds(t, "login")(c.login("admin", password))
	succeeds(t, "push")(c.push(host + "/admin/app:1"))
	fails(t, "a wrong password", "UNAUTHORIZED")(func() (string, error) {
		c.login("admin", wrongPassword)
		return c.pull(host + "/admin/app:1")
	}())

	// A new user is known without a restart.
	harness.MustRun(t, nil, alicePassword+"\n", harness.Program(t, "authserver"),
		"user", "add", "alice", "--password-stdin", "--config", filepath.Join(dir, "authserver.yaml"))
	succeeds(t, "login")(c.login("alice", alicePassword))
	p.Await(t, func() error {
		out, err := c.push(host + "/alice/app:1")
		if err != nil {
			return fmt.Errorf("push by the new user: %w\n%s", err, out)
		}
		return nil
	})
	p.Signal(os.Interrupt)
	if err := p.Stop(); err != nil {
		t.Fatalf("after Ctrl-C: %v\n%s", err, p.Log())
	}

	// Other ports, the same users and images.
	_, host = start()
	c = newCrane(t, host)
	succeeds(t, "login")(c.login("admin", password))
	succeeds(t, "pull")(c.pull(host + "/admin/app:1"))
}

func TestMakeRunSaysWhichPortIsTaken(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	taken := listener.Addr().(*net.TCPAddr).Port

	dir := filepath.Join(t.TempDir(), "run")
	out, err := harness.Run(t, nil, "", buildLocal(t), localArguments(t, dir, taken)...)
	fails(t, "a port that is taken", fmt.Sprintf("port %d, meant for the registry, is taken .* make run PORT=", taken))(out, err)
	if _, err := os.Stat(dir); err == nil {
		t.Error("set up all the same")
	}
}

func TestMakeRunShowsWhyAServerDied(t *testing.T) {
	local := buildLocal(t)
	dir := filepath.Join(t.TempDir(), "run")
	p := harness.Start(t, nil, local, localArguments(t, dir, harness.FreePort(t))...)
	p.Await(t, func() error {
		if !strings.Contains(p.Log(), "Ctrl-C stops both") {
			return fmt.Errorf("not ready: %s", p.Log())
		}
		return nil
	})
	p.Signal(syscall.SIGTERM)
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "registry.yml"), []byte("version: 99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := harness.Run(t, nil, "", local, localArguments(t, dir, harness.FreePort(t))...)
	fails(t, "a broken configuration", `(?s)registry has stopped: exit status 1.*registry\.log.*invalid syntax`)(out, err)
}

func buildLocal(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "local")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/local")
	cmd.Dir = harness.Root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building local: %v\n%s", err, out)
	}
	return path
}

func localArguments(t *testing.T, dir string, registryPort int) []string {
	t.Helper()
	return []string{
		"-dir", dir,
		"-authserver", harness.Program(t, "authserver"),
		"-registry", harness.Program(t, "registry-3.1.2"),
		"-registry-port", fmt.Sprint(registryPort),
		"-auth-port", fmt.Sprint(harness.FreePort(t)),
		"-ops-port", fmt.Sprint(harness.FreePort(t)),
	}
}
