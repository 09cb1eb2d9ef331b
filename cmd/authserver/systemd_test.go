package main

import (
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What systemctl shows is what the program tells: ready, reloading, why a reload was refused, stopping.
func TestTheServiceManagerIsToldHowThingsAre(t *testing.T) {
	config, _ := initialised(t)
	socket := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	told := func(want string) {
		t.Helper()
		text := make([]byte, 4096)
		_ = manager.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := manager.Read(text)
		if got := string(text[:n]); err != nil || !strings.HasPrefix(got, want) {
			t.Fatalf("told %q, %v; want %q", got, err, want)
		}
	}
	t.Setenv("NOTIFY_SOCKET", socket)
	p := startProgram(t, config, "--set", "server.shutdown_delay=1s")
	told("READY=1\nSTATUS=serving")
	hangup := func() {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangup()
	told("RELOADING=1")
	told("READY=1\nSTATUS=serving")

	policy := filepath.Join(filepath.Dir(config), "policy.yaml")
	if err := os.WriteFile(policy, []byte("rules: [{name: x}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup()
	told("RELOADING=1")
	told("READY=1\nSTATUS=the new configuration is refused, the old one stays in use: " + policy)
	if code, _ := p.get(p.url + "/token?scope=repository:public/a:pull"); code != http.StatusOK {
		t.Errorf("it does not serve: %d", code)
	}

	// Nobody reads while it ends: there is room for what it tells.
	p.stop()
	for { // the refused policy may have been tried again meanwhile
		text := make([]byte, 4096)
		_ = manager.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := manager.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(text[:n]), "STOPPING=1") {
			if want := "EXTEND_TIMEOUT_USEC=36000000"; !strings.Contains(string(text[:n]), want) {
				t.Errorf("told %q, want %q", text[:n], want)
			}
			return
		}
	}
}

func TestASocketThatWasNotHandedOverIsNamed(t *testing.T) {
	config, _ := initialised(t)
	for _, key := range []string{"server.listen", "server.ops_listen"} {
		_, stderr, status := call(t, "", "serve", "--config", config, "--set", "server.listen=127.0.0.1:0", "--set", key+"=systemd:public")
		if want := "flag --set: " + key + ": the service manager has handed over no socket"; status != exitNo || !strings.Contains(stderr, want) {
			t.Errorf("status %d: %s; want %q", status, stderr, want)
		}
	}
}

// Root types the commands, and the service is another user, whose folder it is.
func TestWhatRootWritesBelongsToTheOwnerOfTheFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can write for others")
	}
	const service = 12345
	dir := t.TempDir()
	if err := os.Chown(dir, service, service); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "authserver.yaml")
	must(t, "", "init", dir, "--set", "passwords.bcrypt_cost=4")
	must(t, "pass word\n", "user", "add", "alice", "--password-stdin", "--config", config, "--set", "passwords.bcrypt_cost=4")
	must(t, "", "key", "rotate", "--config", config)
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files++
		if stat := info.Sys().(*syscall.Stat_t); stat.Uid != service || stat.Gid != service {
			t.Errorf("%s belongs to %d:%d", path, stat.Uid, stat.Gid)
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Errorf("%d files, %v", files, err)
	}
}

func TestInitPutsKeysWhereItIsTold(t *testing.T) {
	data := filepath.Join(t.TempDir(), "state")
	config, s := initialised(t, "--data-dir", data)
	if want := filepath.Join(data, "root.crt"); s.RootCertificate != want {
		t.Errorf("root certificate %s, want %s", s.RootCertificate, want)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(config), "data")); err == nil {
		t.Error("a data folder beside the configuration, too")
	}
	must(t, "", "config", "check", "--config", config)
}
