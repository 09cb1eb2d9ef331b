// Package harness starts what the end-to-end tests talk to: authserver, real
// registries, dockerd, containerd. Everything lives in the test's temporary
// directory, listens on a free port, and is stopped when the test ends.
package harness

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Root is the directory of the e2e module.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(data, []byte("module authserver/e2e\n")) {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("not inside the e2e module")
		}
		dir = parent
	}
}

// Program is the path of a program that the e2e scripts have built or installed.
// A missing one fails the test: nothing is skipped. The environment variable
// AUTHSERVER names another authserver than bin/authserver.
func Program(t testing.TB, name string) string {
	t.Helper()
	if name == "authserver" {
		path := os.Getenv("AUTHSERVER")
		if path == "" {
			path = filepath.Join(Root(t), "..", "bin", "authserver")
		}
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%v; run make build", err)
		}
		return path
	}
	path := filepath.Join(Root(t), ".cache", "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o111 != 0 {
			return path
		}
	}
	t.Fatalf("%s is not installed; run e2e/run.sh", name)
	return ""
}

// firstPort and ports are a range below those that the system gives out by itself, and that of postgres/with.sh: what is not
// bound yet is not given to a client meanwhile.
const firstPort, ports = 11000, 9000

// port counts from somewhere, for what another test process has taken.
var port atomic.Uint32

func init() { port.Store(rand.Uint32N(ports)) }

// FreePort is a TCP port that nobody listens on at the moment, and that no other call is given.
func FreePort(t testing.TB) int {
	t.Helper()
	for range ports {
		free := firstPort + int(port.Add(1)%ports)
		if listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", free)); err == nil {
			listener.Close()
			return free
		}
	}
	t.Fatal("no port is free")
	return 0
}

// Run runs a program to its end and returns what it wrote to both outputs.
// environment is added to the test's own. It is killed after two minutes.
func Run(t testing.TB, environment []string, stdin string, program string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	return out.String(), err
}

// MustRun is Run for a program that has to succeed.
func MustRun(t testing.TB, environment []string, stdin string, program string, args ...string) string {
	t.Helper()
	out, err := Run(t, environment, stdin, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return out
}

// A Process is a server that runs until the test ends.
type Process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // valid after done

	asked atomic.Bool // to end
}

// Start starts a server, which has to run until it is told to end. The end of its log is shown when the test has failed.
func Start(t testing.TB, environment []string, program string, args ...string) *Process {
	t.Helper()
	return start(t, nil, environment, program, args...)
}

// start is Start as somebody else, unless who is nil.
func start(t testing.TB, who *syscall.Credential, environment []string, program string, args ...string) *Process {
	t.Helper()
	// When go test itself is killed (its -timeout, Ctrl-C), no cleanup runs.
	return startAs(t, &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Credential: who}, environment, program, args...)
}

// startAs is Start with attributes of the process.
func startAs(t testing.TB, attributes *syscall.SysProcAttr, environment []string, program string, args ...string) *Process {
	t.Helper()
	p := &Process{name: filepath.Base(program), done: make(chan struct{})}
	p.log = filepath.Join(t.TempDir(), p.name+".log")
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()

	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), environment...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = attributes
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig comes when the thread ends that has started the process
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("stopping %s: %v", p.name, err)
		}
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", p.name, p.tail(15))
		}
	})
	return p
}

// Stop asks the process to stop and waits. A second call does nothing; that it has ended unasked is an error.
func (p *Process) Stop() error {
	select {
	case <-p.done:
		if !p.asked.Load() {
			return fmt.Errorf("it has ended by itself: %v", p.err)
		}
		return nil
	default:
	}
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
		return errors.New("did not stop within 20s of SIGTERM")
	}
}

// Kill ends the process without a warning.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.done }

// PID is its number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Children are the numbers of the processes that its first thread has started.
func (p *Process) Children(t testing.TB) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p.PID()))
	if err != nil {
		t.Error(err)
	}
	for _, child := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(child); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Freeze stops the process as it is; Thaw lets it go on.
func (p *Process) Freeze(t testing.TB) { p.mustSignal(t, syscall.SIGSTOP) }

// Thaw ends Freeze.
func (p *Process) Thaw(t testing.TB) { p.mustSignal(t, syscall.SIGCONT) }

func (p *Process) mustSignal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error {
	err := p.cmd.Process.Signal(s)
	if err == nil && s != syscall.SIGHUP && s != syscall.SIGSTOP && s != syscall.SIGCONT {
		p.asked.Store(true)
	}
	return err
}

// Log is everything that the process has written so far.
func (p *Process) Log() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func (p *Process) tail(lines int) string {
	all := strings.Split(strings.TrimSpace(p.Log()), "\n")
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		if len(line) > 400 { // registries are talkative
			all[i] = line[:400] + "…"
		}
	}
	return strings.Join(all, "\n")
}

// Await polls until ready reports no error, the process has died, or a minute is over.
func (p *Process) Await(t testing.TB, ready func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-p.done:
			t.Fatalf("%s has stopped: %v", p.name, p.err)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready after a minute: %v", p.name, err)
		}
	}
}

func write(t testing.TB, path, format string, args ...any) {
	t.Helper()
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// output runs a short command and returns its standard output.
func output(program, stdin string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.String(), nil
}
