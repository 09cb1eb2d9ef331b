package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"authserver/internal/metrics"
	"authserver/internal/server"
)

// opsOn serves the ops listener's real handler on an address.
func opsOn(t *testing.T, address string) (ready *atomic.Bool, port string) {
	t.Helper()
	ln, err := server.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	ready = new(atomic.Bool)
	srv := &http.Server{Handler: server.NewOps(metrics.New("", "", ""), ready.Load)}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
		_, port, _ = net.SplitHostPort(tcp.String())
	}
	return ready, port
}

// healthy asks once, and fails the test when there is more or less to read than a line.
func healthy(t *testing.T, environ []string, args ...string) (line string, status int) {
	t.Helper()
	stdout, stderr, status := callWith(t, environ, append([]string{"health", "--timeout", "1m"}, args...)...)
	line = strings.TrimSuffix(stdout+stderr, "\n")
	if line == "" || status != exitMisuse && strings.Contains(line, "\n") {
		t.Errorf("health %v does not say one line:\n%s", args, line)
	}
	if (status == exitOK) != (stderr == "") {
		t.Errorf("health %v: status %d, on standard error %q", args, status, stderr)
	}
	return line, status
}

func TestHealthIsWhatReadyzSays(t *testing.T) {
	file, _ := initialised(t)
	ready, port := opsOn(t, "127.0.0.1:0")
	at := "server.ops_listen=127.0.0.1:" + port
	if line, status := healthy(t, nil, "--config", file, "--set", at); status != exitNo || line != "authserver: not ready: /readyz on 127.0.0.1:"+port+" answers 503 Service Unavailable: not ready" {
		t.Errorf("status %d: %s", status, line)
	}
	if line, status := healthy(t, nil, "--config", file, "--set", at, "--live"); status != exitOK || line != "alive" {
		t.Errorf("status %d: %s", status, line)
	}
	ready.Store(true)
	if line, status := healthy(t, nil, "--config", file, "--set", at); status != exitOK || line != "ready" {
		t.Errorf("status %d: %s", status, line)
	}
}

func TestHealthFindsTheListenerWhereverItIs(t *testing.T) {
	file, _ := initialised(t)
	for _, listen := range []string{":0", "0.0.0.0:0", "[::]:0", "localhost:0", "[::1]:0"} {
		ready, port := opsOn(t, listen)
		ready.Store(true)
		address := strings.TrimSuffix(listen, "0") + port
		if line, status := healthy(t, []string{"AUTHSERVER_SERVER__OPS_LISTEN=" + address}, "--config", file); status != exitOK {
			t.Errorf("%s: status %d: %s", address, status, line)
		}
	}
	// A socket, found from the folder of the file.
	ready, _ := opsOn(t, "unix:"+filepath.Join(filepath.Dir(file), "ops.sock"))
	ready.Store(true)
	if line, status := healthy(t, nil, "--config", file, "--set", "server.ops_listen=unix:ops.sock"); status != exitOK {
		t.Errorf("status %d: %s", status, line)
	}
	if line, status := healthy(t, nil, "--config", file, "--set", "server.ops_listen=systemd:ops"); status != exitNo || !strings.Contains(line, "whose address systemd alone knows") {
		t.Errorf("status %d: %s", status, line)
	}
	// No proxy stands between: this one would not even answer.
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	if line, status := healthy(t, nil, "--config", file, "--set", "server.ops_listen=unix:ops.sock"); status != exitOK {
		t.Errorf("with a proxy in the environment: status %d: %s", status, line)
	}
}

func TestHealthSaysWhy(t *testing.T) {
	file, _ := initialised(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	elsewhere := httptest.NewServer(http.RedirectHandler("https://example.com/", http.StatusFound))
	defer elsewhere.Close()
	// Not authserver: when it is down, the port is anybody's.
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "\x1b]0;x\a\x1b[2J\u202eready")
	}))
	defer stranger.Close()
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--set", "server.ops_listen=" + strings.TrimPrefix(stranger.URL, "http://")}, exitNo, "answers 418 I'm a teapot: ?]0;x??[2J?ready"},
		{[]string{"--set", "server.ops_listen=127.0.0.1:1"}, exitNo, "connection refused"},
		{[]string{"--set", "server.ops_listen=unix:none.sock"}, exitNo, "no such file or directory"},
		{[]string{"--set", "server.ops_listen=" + silent.Addr().String(), "--timeout", "50ms"}, exitNo, "does not answer within 50ms"},
		{[]string{"--set", "server.ops_listen=" + strings.TrimPrefix(elsewhere.URL, "http://")}, exitNo, "answers 302 Found"},
		{[]string{"--set", "server.ops_listen="}, exitNo, "server.ops_listen is empty, so there is nobody to ask; set it"},
		{[]string{"--set", "server.ops_listen=127.0.0.1:0"}, exitNo, "give it a number"},
		{[]string{"--timeout", "0s"}, exitMisuse, "--timeout 0s is no time to wait"},
		{[]string{"--timeout", "3"}, exitMisuse, "missing unit"},
		{[]string{"now"}, exitMisuse, "now"},
	} {
		if line, status := healthy(t, nil, append([]string{"--config", file}, c.args...)...); status != c.status || !strings.Contains(line, c.want) {
			t.Errorf("%v: status %d: %s", c.args, status, line)
		}
	}
}

// A server that has refused a changed configuration serves on: its container must not be called unhealthy for that.
func TestHealthDoesNotMindFaultsElsewhereInTheConfiguration(t *testing.T) {
	file, _ := initialised(t)
	ready, port := opsOn(t, "127.0.0.1:0")
	ready.Store(true)
	address := "127.0.0.1:" + port
	for _, text := range []string{
		"server: {ops_listen: \"" + address + "\", liste: 1}\nnonsense: [1]\nissuer: {token_lifetime: 5}\n",
		"server:\n  ops_listen: " + address + "\n  ops_listen2: x\nissuer:\n  name: a\n  name: b\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if line, status := healthy(t, nil, "--config", file); status != exitOK {
			t.Errorf("status %d: %s", status, line)
		}
	}
	for what, spoil := range map[string]func() error{
		"did not find expected": func() error { return os.WriteFile(file, []byte("server: [\nx"), 0o600) },
		"the file is empty":     func() error { return os.WriteFile(file, nil, 0o600) },
		"no such file":          func() error { return os.Remove(file) },
	} {
		if err := spoil(); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if line, status := healthy(t, []string{"AUTHSERVER_SERVER__OPS_LISTEN=" + address}, "--config", file); status != exitOK {
			t.Errorf("%s: status %d: %s", what, status, line)
		}
		ready.Store(false)
		line, status := healthy(t, []string{"AUTHSERVER_SERVER__OPS_LISTEN=" + address}, "--config", file)
		if status != exitNo || !strings.Contains(line, "answers 503") || !strings.Contains(line, "server.ops_listen could not be looked up: "+file) || !strings.Contains(line, what) {
			t.Errorf("%s: status %d: %s", what, status, line)
		}
		ready.Store(true)
	}
}
