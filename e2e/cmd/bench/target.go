package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// password is every user's.
const password = "correct horse battery staple"

const service = "registry.bench"

// A setup says what an authserver is to be like.
type setup struct {
	algorithm string   // of signatures
	users     int      // in the htpasswd file, all with one hash
	cost      int      // of that hash
	rules     int      // in the policy
	database  bool     // a file in the data folder
	set       []string // key.path=value
}

// A target is an authserver in a folder of its own.
type target struct {
	*process
	setup
	dir     string
	binary  string
	address string // host:port
	ops     string
}

// The policy has a rule for each team and one for everybody. The first members are in the team in the middle.
const members = 1000

func (s setup) team() string { return numbered("team-", s.rules/2) }

// path is the request of a client for some repositories of its team.
func (s setup) path(scopes int) string {
	query := url.Values{"service": {service}}
	for i := range scopes {
		query.Add("scope", fmt.Sprintf("repository:%s/app-%03d:pull,push", s.team(), i))
	}
	return "/token?" + query.Encode()
}

const anonymousPath = "/token?service=" + service + "&scope=repository%3Apublic%2Fapp%3Apull"

const configuration = `server:
  listen: %[1]q
  public_url: "http://%[1]s"
  ops_listen: %[2]q
issuer:
  keys: {algorithm: %[3]s}
services:
  - name: %[4]s
    verifier: %[5]s
users:
  - {kind: htpasswd, file: users.htpasswd}
%[6]sacl: {files: [policy.yaml]}
audit: {output: "file:%[7]s"}
`

// prepare writes what an authserver needs into a folder.
func (b *bench) prepare(s setup) (*target, error) {
	s.set = append(s.set, b.set...)
	dir, err := os.MkdirTemp(b.dir, "authserver-")
	if err != nil {
		return nil, err
	}
	t := &target{setup: s, dir: dir, binary: b.binary}
	if t.address, err = freeAddress(); err != nil {
		return nil, err
	}
	if t.ops, err = freeAddress(); err != nil {
		return nil, err
	}
	verifier, database := "chain", "database: {url: none}\n"
	if s.algorithm == "EdDSA" {
		verifier = "jwks"
	}
	if s.database {
		database = "  - {kind: database}\n"
	}
	var policy strings.Builder
	fmt.Fprintf(&policy, "groups:\n  %q:", s.team())
	for n := range members {
		fmt.Fprintf(&policy, "\n    - %s\n    - %s", numbered("u", n), numbered("d", n))
	}
	policy.WriteString("\nrules:\n  - {name: public, subjects: [anyone], repositories: [public/**], actions: [pull]}\n")
	for n := range s.rules - 1 {
		team := numbered("team-", n+1)
		fmt.Fprintf(&policy, "  - {name: %[1]s, subjects: [\"group:%[1]s\"], repositories: [\"%[1]s/**\"], actions: [pull, push]}\n", team)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), s.cost)
	if err != nil {
		return nil, err
	}
	var accounts bytes.Buffer
	for n := range s.users {
		fmt.Fprintf(&accounts, "%s:%s\n", numbered("u", n), hash)
	}
	return t, errors.Join(
		os.WriteFile(t.config(), fmt.Appendf(nil, configuration, t.address, t.ops, s.algorithm, service, verifier, database, filepath.Join(dir, "audit.log")), 0o600),
		os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy.String()), 0o600),
		os.WriteFile(filepath.Join(dir, "users.htpasswd"), accounts.Bytes(), 0o600),
	)
}

func (t *target) config() string { return filepath.Join(t.dir, "authserver.yaml") }

// serve starts it; it need not listen yet.
func (t *target) serve(ctx context.Context) (err error) {
	args := []string{"serve", "--config", t.config()}
	for _, set := range t.set {
		args = append(args, "--set", set)
	}
	t.process, err = start(ctx, filepath.Join(t.dir, "authserver.log"), t.binary, args...)
	return err
}

// command runs another command of authserver's on the same folder, and returns what it prints.
func (t *target) command(stdin string, args ...string) ([]byte, error) {
	cmd := exec.Command(t.binary, append(args, "--config", t.config(), "--set", fmt.Sprintf("passwords.bcrypt_cost=%d", t.cost))...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("authserver %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

// stop stops it and removes its folder: a record of a million decisions is large.
func (t *target) stop() error { return errors.Join(t.process.stop(), os.RemoveAll(t.dir)) }

// token returns a token that was asked for on path, by the user of a job.
func (j job) token() (string, error) {
	request, err := http.NewRequest("GET", "http://"+j.Address+j.Target, nil)
	if err != nil {
		return "", err
	}
	if j.User != "" {
		name := j.User
		if j.Users > 0 {
			name = numbered(name, j.First)
		}
		request.SetBasicAuth(name, j.Password)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var body struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil || body.Token == "" {
		return "", fmt.Errorf("no token at %s: status %d", request.URL, response.StatusCode)
	}
	return body.Token, nil
}

// metric is the sum of a metric's values over all labels, after a garbage collection.
func (t *target) metric(name string) (float64, error) {
	for range 2 { // the second frees what pools still hold
		if _, err := get("http://" + t.ops + "/debug/pprof/heap?gc=1"); err != nil {
			return 0, err
		}
	}
	text, err := get("http://" + t.ops + "/metrics")
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(text)) {
		field, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if field, _, _ = strings.Cut(field, "{"); field != name {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	return sum, nil
}

func get(url string) ([]byte, error) {
	response, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d", url, response.StatusCode)
	}
	return io.ReadAll(response.Body)
}

// freeAddress is one that nobody listens on, on a loopback address of this process's own: whatever else is tested on this
// machine does not take it meanwhile. Clients have the address 127.0.0.1 all the same.
func freeAddress() (string, error) {
	pid := os.Getpid()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+pid>>16, pid>>8&255, pid&255))
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// A process is a server that this program has started.
type process struct {
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // valid after done
}

func start(ctx context.Context, log, program string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{log: log, cmd: exec.CommandContext(ctx, program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// await polls until ready reports no error.
func (p *process) await(ready func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.died()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after a minute: %w", p.cmd.Path, err)
		case <-time.After(time.Millisecond):
		}
	}
}

func (p *process) died() error {
	log, _ := os.ReadFile(p.log)
	return fmt.Errorf("%s has ended: %v\n%s", p.cmd.Path, p.err, log[max(0, len(log)-2000):])
}

// stop ends it. That it was not there any more is an error.
func (p *process) stop() error {
	select {
	case <-p.done:
		return p.died()
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(40 * time.Second): // longer than it takes to answer what is under way
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within 40s of SIGTERM", p.cmd.Path)
	}
}

// memory is a figure of /proc/PID/status in bytes: VmRSS is what it takes now, VmHWM what it took at most.
func (p *process) memory(field string) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if name, value, _ := strings.Cut(line, ":"); name == field {
			kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			return kb * 1024, err
		}
	}
	return 0, fmt.Errorf("there is no %s in /proc/%d/status", field, p.cmd.Process.Pid)
}

// cpu is the processor time that it has taken; of somebody else's process it is not known, and 0.
func (p *process) cpu() (time.Duration, error) {
	if p == nil {
		return 0, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third on
	sum := 0
	for _, ticks := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(ticks)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * 10 * time.Millisecond, nil // a tick; Linux shows no other
}
