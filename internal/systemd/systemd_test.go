package systemd_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"authserver/internal/systemd"
)

// child is this program once more, started the way systemd starts a service: with sockets from descriptor 3 on.
func child(t *testing.T, listen string, names string, sockets ...*os.File) string {
	t.Helper()
	// The shell's process id is the child's: exec replaces it.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestChild$'`, os.Args[0])
	cmd.Env = append(os.Environ(), "CHILD="+listen, fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES="+names)
	cmd.ExtraFiles = sockets
	var left strings.Builder
	cmd.Stderr = &left
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, &left)
	}
	if others := slices.DeleteFunc(strings.FieldsFunc(names, func(r rune) bool { return r == ':' }), func(name string) bool { return name == listen }); names != "" && left.String() != fmt.Sprintf("left %q\n", others) {
		t.Errorf("%s of %s: %s", listen, names, &left)
	}
	text, _, _ := strings.Cut(string(out), "PASS")
	return strings.TrimSpace(text)
}

func TestChild(t *testing.T) {
	name, ok := os.LookupEnv("CHILD")
	if !ok {
		t.Skip("it is started by TestSocketsAreTakenOverByName")
	}
	manager := systemd.FromEnvironment(os.Environ())
	ln, err := manager.Listener(name)
	fmt.Fprintf(os.Stderr, "left %q\n", manager.Left(name))
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "hello from %s", name); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	fmt.Println(ln.Addr())
}

func TestSocketsAreTakenOverByName(t *testing.T) {
	var sockets []*os.File
	var addresses []string
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		file, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, ln.Addr().String())
		sockets = append(sockets, file)
		_ = ln.Close() // the child alone listens
	}
	// A connection that comes before the service does is kept for it.
	conn, err := net.Dial("tcp", addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	if got := child(t, "ops", "public:ops", sockets...); got != addresses[1] {
		t.Errorf("listens on %q, want %q", got, addresses[1])
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello from ops" {
		t.Errorf("%q, %v", got, err)
	}
	for _, c := range []struct{ listen, names, says string }{
		{"private", "public:ops", "no socket of this name; there are: public, ops"},
		{"public", "public:public", "several sockets named public"},
		{"public", "", "there are: unknown, unknown"},
	} {
		if got := child(t, c.listen, c.names, sockets...); !strings.Contains(got, c.says) {
			t.Errorf("%s of %s: %q, want %q", c.listen, c.names, got, c.says)
		}
	}
	if got := child(t, "public", ""); !strings.Contains(got, "handed over no socket; is the .socket unit started?") {
		t.Errorf("no sockets: %q", got)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if got := child(t, "public", "public", file); !strings.Contains(got, "socket public: ") {
		t.Errorf("no socket at all: %q", got)
	}
}

func TestSocketsOfTheParentAreNotOurs(t *testing.T) {
	m := systemd.FromEnvironment([]string{fmt.Sprintf("LISTEN_PID=%d", os.Getppid()), "LISTEN_FDS=1", "LISTEN_FDNAMES=public"})
	if _, err := m.Listener("public"); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("taken over: %v", err)
	}
}

// A manager that has stopped reading is waited for a moment: the process has to attend to its signals.
func TestAManagerThatDoesNotReadStopsNobody(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	m := systemd.FromEnvironment([]string{"NOTIFY_SOCKET=" + name})
	for range 10_000 { // more than there is room for
		if err := m.Notify("STATUS=serving"); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
			return
		}
	}
	t.Error("there is room for everything")
}

func TestTheManagerIsTold(t *testing.T) {
	abstract := fmt.Sprintf("@authserver-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), abstract} {
		if strings.HasPrefix(name, "@") && runtime.GOOS != "linux" {
			continue
		}
		ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		if err := systemd.FromEnvironment([]string{"NOTIFY_SOCKET=" + name}).Notify("READY=1", "STATUS=serving"); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 100)
		n, err := ln.Read(text)
		if err != nil || string(text[:n]) != "READY=1\nSTATUS=serving" {
			t.Errorf("%q, %v", text[:n], err)
		}
		_ = ln.Close()
		if err := systemd.FromEnvironment([]string{"NOTIFY_SOCKET=" + name}).Notify("READY=1"); err == nil {
			t.Error("nobody listens, and it is no error")
		}
	}
	if err := (systemd.Manager{}).Notify("READY=1"); err != nil {
		t.Errorf("without a manager: %v", err)
	}
}

// systemd takes no notice of a message that is longer than 4096 bytes, whatever else is in it.
func TestALongStatusDoesNotHideTheState(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if err := systemd.FromEnvironment([]string{"NOTIFY_SOCKET=" + name}).Notify("READY=1", "STATUS="+strings.Repeat("ü", 5000)); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 20_000)
	n, err := ln.Read(text)
	if err != nil || n > 4096 || !strings.HasPrefix(string(text[:n]), "READY=1\nSTATUS=üü") || !utf8.Valid(text[:n]) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
