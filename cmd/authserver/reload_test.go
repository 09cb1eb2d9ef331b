package main

import (
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Whatever a reload was refused for may pass by itself: a full disk, too many open files, a database that is away. Here it
// is the folder of keys, which is no file that is looked at.
func TestServeTriesAgainWhatItHasRefused(t *testing.T) {
	config, s := initialised(t)
	p := startProgram(t, config)
	dir := filepath.Dir(config)
	data := filepath.Join(dir, "data")
	if err := os.Chmod(data, 0o703); err != nil { // everybody can write: keys are not taken from there
		t.Fatal(err)
	}
	policy := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte("rules:\n  - {name: none, subjects: [user:nobody], repositories: [a], actions: [pull]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.logged("the new configuration is refused, the old one stays in use")
	if code := p.status("admin", s.Password); code != http.StatusOK {
		t.Errorf("meanwhile: %d", code)
	}
	if err := os.Chmod(data, 0o700); err != nil {
		t.Fatal(err)
	}
	for why := any("file change"); why != again; {
		why = p.logged("configuration in use")["why"]
	}
	p.stop()
}

// Proxies need a while to see that a process is to end; until then it answers as before.
func TestServeLingersForProxies(t *testing.T) {
	config, s := initialised(t)
	p := startProgram(t, config, "--set", "server.shutdown_delay=1s")
	start := time.Now()
	p.stop()
	if took := time.Since(start); took < time.Second {
		t.Errorf("it ended after %s", took)
	}
	p = startProgram(t, config, "--set", "server.shutdown_delay=1m") // nobody waits for its end
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.eventually("not ready", func() bool { code, _ := p.get(p.ops + "/readyz"); return code == http.StatusServiceUnavailable })
	http.DefaultClient.CloseIdleConnections()
	if code := p.status("admin", s.Password); code != http.StatusOK {
		t.Errorf("on a new connection: %d", code)
	}
}
