package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Machine is a copy of this machine that systemd has booted, in namespaces of its own: what is installed and written there is
// gone with it, its ports are its own, and it reaches nobody. Nothing that is enabled here is started there.
type Machine struct {
	*Process
}

// StartMachine boots a machine. It needs root, and systemd to be installed.
func StartMachine(t testing.TB) *Machine {
	t.Helper()
	dir := ShortTempDir(t)
	group := filepath.Join(unifiedCgroups(t), filepath.Base(dir))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, group) })
	m := &Machine{startAs(t, &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET,
	}, nil, "/bin/sh", filepath.Join(Root(t), "harness", "machine.sh"), dir, group)}
	t.Cleanup(m.Kill) // before Process asks it to stop: its first process ends for nothing less
	m.Await(t, func() error {
		out, err := m.enter("systemctl is-system-running --wait").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return m
}

// enter is a command of a shell in the machine, in root's home.
func (m *Machine) enter(command string) *exec.Cmd {
	cmd := exec.Command("nsenter", "--target", fmt.Sprint(m.PID()), "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--root", "--wd",
		"/bin/bash", "-c", "cd\n"+command)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "SYSTEMD_PAGER="}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Try runs a command of a shell as root, and returns what it has written to both outputs.
func (m *Machine) Try(t testing.TB, command string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := m.enter(command)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	return out.String(), err
}

// Type is Try for a command that has to succeed.
func (m *Machine) Type(t testing.TB, command string) string {
	t.Helper()
	out, err := m.Try(t, command)
	if err != nil {
		t.Fatalf("$ %s\n%s%v", command, out, err)
	}
	return out
}

// Path is where this machine has a file of that one.
func (m *Machine) Path(name string) string {
	return filepath.Join("/proc", fmt.Sprint(m.PID()), "root", name)
}

// Put copies a file into the machine.
func (m *Machine) Put(t testing.TB, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.Path(to), ReadFile(t, from), info.Mode().Perm()); err != nil {
		t.Fatal(err)
	}
}

// unifiedCgroups is where cgroups of version 2 are mounted, on machines of either version.
func unifiedCgroups(t testing.TB) string {
	t.Helper()
	for line := range strings.SplitSeq(string(ReadFile(t, "/proc/self/mountinfo")), "\n") {
		mount, kind, _ := strings.Cut(line, " - ")
		if strings.HasPrefix(kind, "cgroup2 ") {
			return strings.Fields(mount)[4]
		}
	}
	t.Fatal("cgroups of version 2 are not mounted")
	return ""
}

// removeCgroup removes a cgroup and those below it, once the last process has left.
func removeCgroup(t testing.TB, group string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := exec.Command("find", group, "-depth", "-type", "d", "-delete").Run()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("cgroup %s: %v", group, err)
			return
		}
	}
}
