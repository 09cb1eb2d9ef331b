package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is the program, running.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	config string
	url    string
	ops    string

	mu   sync.Mutex
	log  []map[string]any
	read chan struct{} // closed when it has said its last
}

// startProgram runs serve on free ports and waits until it is ready.
func startProgram(t *testing.T, config string, flags ...string) *process {
	t.Helper()
	p := &process{t: t, config: config, read: make(chan struct{})}
	args := append([]string{"serve", "--config", config, "--set", "server.listen=127.0.0.1:0", "--set", "server.ops_listen=127.0.0.1:0", "--set", "passwords.bcrypt_cost=4"}, flags...)
	p.cmd = exec.Command(os.Args[0], args...)
	p.cmd.Env = append(os.Environ(), "BE_THE_PROGRAM=1")
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.read; _ = p.cmd.Wait() })
	go func() {
		defer close(p.read)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			fields := map[string]any{"raw": lines.Text()}
			_ = json.Unmarshal(lines.Bytes(), &fields)
			p.mu.Lock()
			p.log = append(p.log, fields)
			p.mu.Unlock()
		}
	}()
	serving := p.logged("serving")
	p.url, p.ops = "http://"+serving["listen"].(string), "http://"+serving["ops_listen"].(string)
	p.eventually("ready", func() bool { code, _ := p.get(p.ops + "/readyz"); return code == http.StatusOK })
	return p
}

// eventually polls: what is waited for is caused by another process.
func (p *process) eventually(what string, holds func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.t.Fatalf("never: %s\n%v", what, p.log)
}

// logged waits for a log line with a message and takes it out of the log.
func (p *process) logged(message string) map[string]any {
	p.t.Helper()
	var found map[string]any
	p.eventually("log line "+message, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, line := range p.log {
			if line["msg"] == message {
				found = line
				p.log = append(p.log[:i:i], p.log[i+1:]...)
				return true
			}
		}
		return false
	})
	return found
}

func (p *process) get(url string, credentials ...string) (int, string) {
	p.t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(credentials) == 2 {
		r.SetBasicAuth(credentials[0], credentials[1])
	}
	return p.do(r)
}

// do sends a request; status 0 is no answer.
func (p *process) do(r *http.Request) (int, string) {
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

// patiently asks again while the answer is 503: hashing gives way to whatever else runs here, which may be all other tests.
func (p *process) patiently(r *http.Request) (code int, body string) {
	p.t.Helper()
	p.eventually("an answer other than 503", func() bool {
		code, body = p.do(r)
		return code != http.StatusServiceUnavailable
	})
	return code, body
}

func (p *process) status(credentials ...string) int {
	p.t.Helper()
	r, err := http.NewRequest(http.MethodGet, p.url+"/token", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(credentials) == 2 {
		r.SetBasicAuth(credentials[0], credentials[1])
	}
	code, _ := p.patiently(r)
	return code
}

// stop sends SIGTERM and wants exit status 0.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	<-p.read // Wait closes the pipe, whatever is still in it
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("SIGTERM: %v", err)
	}
}

func TestServeFromInitToToken(t *testing.T) {
	config, s := initialised(t)
	p := startProgram(t, config)
	if code := p.status("admin", s.Password); code != http.StatusOK {
		t.Errorf("admin: %d", code)
	}
	if code := p.status("admin", "wrong"); code != http.StatusUnauthorized {
		t.Errorf("wrong password: %d", code)
	}
	if code, body := p.get(p.ops + "/metrics"); code != http.StatusOK || !strings.Contains(body, "authserver_signing_key_expiry_timestamp_seconds{kid=") {
		t.Errorf("metrics: %d", code)
	}
	if code, _ := p.get(p.url + "/metrics"); code != http.StatusNotFound {
		t.Errorf("metrics on the public listener: %d", code)
	}
	p.logged("request refused")
	p.stop()
	p.logged("shutting down")
}

func TestServeSeesChangedFiles(t *testing.T) {
	config, s := initialised(t)
	p := startProgram(t, config)
	cheap := []string{"--config", config, "--set", "passwords.bcrypt_cost=4"}
	must(t, "first\n", append([]string{"user", "add", "alice", "--password-stdin"}, cheap...)...)
	p.eventually("alice is known", func() bool { return p.status("alice", "first") == http.StatusOK })
	must(t, "second\n", append([]string{"user", "passwd", "alice", "--password-stdin"}, cheap...)...)
	p.eventually("the old password is out", func() bool { return p.status("alice", "first") == http.StatusUnauthorized })
	must(t, "", append([]string{"user", "remove", "alice"}, cheap...)...)
	p.eventually("alice is gone", func() bool { return p.status("alice", "second") == http.StatusUnauthorized })

	// A policy with a fault is refused, and the old one serves on.
	policy := filepath.Join(filepath.Dir(config), "policy.yaml")
	good, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(policy, []byte("rules: [{name: x}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	line := p.logged("the new configuration is refused, the old one stays in use")
	if !strings.Contains(fmt.Sprint(line["error"]), "rules[0].subjects: missing") {
		t.Errorf("logged %v", line)
	}
	if code := p.status("admin", s.Password); code != http.StatusOK {
		t.Errorf("admin, after a bad policy: %d", code)
	}
	p.eventually("the metric says so", func() bool {
		_, body := p.get(p.ops + "/metrics")
		return strings.Contains(body, "authserver_config_reload_success 0\n")
	})
	if err := os.WriteFile(policy, good, 0o600); err != nil {
		t.Fatal(err)
	}
	p.eventually("the metric says so again", func() bool {
		_, body := p.get(p.ops + "/metrics")
		return strings.Contains(body, "authserver_config_reload_success 1\n")
	})
	p.stop()
}

func TestServeReloadsOnSIGHUPWithoutDroppingARequest(t *testing.T) {
	config, s := initialised(t, "--admin", "admin")
	audit := filepath.Join(t.TempDir(), "audit.log")
	p := startProgram(t, config, "--set", "audit.output=file:"+audit)
	ctx, cancel := context.WithCancel(context.Background())
	failures := make(chan string, 1000)
	var asked sync.WaitGroup
	for range 4 {
		asked.Go(func() {
			for ctx.Err() == nil {
				if code, body := p.get(p.url + "/token?scope=repository:public/a:pull"); code != http.StatusOK {
					failures <- fmt.Sprint(code, body)
				}
			}
		})
	}
	for range 5 {
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if line := p.logged("configuration in use"); line["why"] != "SIGHUP" {
			t.Errorf("why: %v", line["why"])
		}
	}
	cancel()
	asked.Wait()
	close(failures)
	for f := range failures {
		t.Errorf("during reload: %s", f)
	}
	// A rotated audit log is let go, and a new one begun.
	if err := os.Rename(audit, audit+".1"); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.logged("configuration in use")
	if code := p.status("admin", s.Password); code != http.StatusOK {
		t.Errorf("admin: %d", code)
	}
	if text, err := os.ReadFile(audit); err != nil || strings.Count(string(text), "\n") != 1 || !strings.Contains(string(text), `"principal":"admin"`) {
		t.Errorf("new audit log: %q, %v", text, err)
	}
	p.stop()
}

func TestServeFinishesWhatIsUnderWay(t *testing.T) {
	config, _ := initialised(t)
	p := startProgram(t, config)
	address := strings.TrimPrefix(p.url, "http://")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	answers := bufio.NewReader(c)
	answered := func(want int) {
		t.Helper()
		r, err := http.ReadResponse(answers, nil)
		if err != nil || r.StatusCode != want {
			t.Fatalf("answered %v, %v; want %d", r, err, want)
		}
	}
	const form = "grant_type=password&username=admin&password=wrong"
	fmt.Fprintf(c, "POST /token HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", len(form))
	answered(http.StatusContinue) // it is being read
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.eventually("nobody else is let in", func() bool {
		other, err := net.Dial("tcp", address)
		if err == nil {
			_ = other.Close()
		}
		return err != nil
	})
	_ = p.cmd.Process.Signal(syscall.SIGHUP) // log rotation comes at any time, and must not end it
	fmt.Fprint(c, form)
	answered(http.StatusUnauthorized)
	p.stop()
}

// A profile takes as long as it is asked to; it must not keep the program from ending well.
func TestAProfileUnderWayDoesNotSpoilTheExit(t *testing.T) {
	config, _ := initialised(t)
	p := startProgram(t, config)
	begun := make(chan struct{})
	go func() {
		r, err := http.Get(p.ops + "/debug/pprof/trace?seconds=100") // its header comes at once
		close(begun)
		if err == nil {
			_, _ = io.Copy(io.Discard, r.Body)
			_ = r.Body.Close()
		}
	}()
	<-begun
	p.stop()
}

func TestServeSaysWhatKeepsItFromStarting(t *testing.T) {
	config, _ := initialised(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	taken := ln.Addr().String()
	for says, flags := range map[string][]string{
		"flag --set: server.listen: listen tcp " + taken:     {"--set", "server.listen=" + taken, "--set", "server.ops_listen="},
		"flag --set: server.ops_listen: listen tcp " + taken: {"--set", "server.listen=127.0.0.1:0", "--set", "server.ops_listen=" + taken},
		"opening the audit log":                              {"--set", "audit.output=file:/nowhere/audit.log", "--set", "server.listen=127.0.0.1:0"},
		"server.tls":                                         {"--set", "server.tls.cert_file=x", "--set", "server.tls.key_file=x", "--set", "server.listen=127.0.0.1:0", "--set", "server.ops_listen="},
		"policy.yml: cannot be read":                         {"--set", "acl.files=policy.yml"},
		"unknown key":                                        {"--set", "server.lisen=x"},
		"cannot be read: no such file or directory":          {"--config", "/nowhere/authserver.yaml"},
	} {
		_, stderr, status := call(t, "", append([]string{"serve", "--config", config}, flags...)...)
		if status != exitNo || !strings.Contains(stderr, says) {
			t.Errorf("%v: status %d: %s", flags, status, stderr)
		}
	}
}

func TestServeWarnsOfARealmThatClientsRefuse(t *testing.T) {
	for url, warning := range map[string]string{
		"http://10.0.0.1:5001":     "server.public_url is a private address: crane and oras refuse such a realm unless the registry has the same one; use a host name",
		"http://auth.example.com":  "server.public_url is not https: passwords cross the network in clear, and clients refuse it when the registry is https",
		"https://auth.example.com": "",
		"http://localhost:5001":    "",
	} {
		config, _ := initialised(t, "--public-url", url)
		p := startProgram(t, config)
		if warning != "" {
			p.logged(warning)
		}
		p.stop()
		for _, line := range p.log {
			if line["level"] == "WARN" {
				t.Errorf("%s: %v", url, line)
			}
		}
	}
}
