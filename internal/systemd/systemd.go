// Package systemd speaks with the service manager that has started the process: it takes over sockets that the manager has
// opened, and tells it when the service is ready. What the service is, and what it says, is its own business.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Manager is the service manager. The zero value is none: it hands over nothing, and nothing is told.
type Manager struct {
	notify  string   // its socket, sd_notify(3)
	sockets []string // names of what it has opened, by descriptor, sd_listen_fds(3)
}

// firstSocket is the descriptor of the first socket that is handed over.
const firstSocket = 3

// FromEnvironment is the manager that the environment of this process names.
func FromEnvironment(environ []string) Manager {
	value := func(name string) string {
		for _, entry := range environ {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value
			}
		}
		return ""
	}
	m := Manager{notify: value("NOTIFY_SOCKET")}
	// A process inherits its parent's environment, but not what was meant for the parent.
	if value("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return m
	}
	n, err := strconv.ParseUint(value("LISTEN_FDS"), 10, 10)
	if err != nil {
		return m
	}
	names := strings.Split(value("LISTEN_FDNAMES"), ":")
	for i := range int(n) {
		syscall.CloseOnExec(firstSocket + i)
		name := "unknown" // sd_listen_fds_with_names(3)
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		m.sockets = append(m.sockets, name)
	}
	return m
}

// Listener takes over the socket of a name: FileDescriptorName= of its unit, which is the unit's own name by default.
func (m Manager) Listener(name string) (net.Listener, error) {
	at := slices.Index(m.sockets, name)
	switch {
	case len(m.sockets) == 0:
		return nil, errors.New("the service manager has handed over no socket; is the .socket unit started? (systemctl enable --now authserver.socket)")
	case at < 0:
		return nil, fmt.Errorf("the service manager has handed over no socket of this name; there are: %s", strings.Join(m.sockets, ", "))
	case slices.Contains(m.sockets[at+1:], name):
		return nil, fmt.Errorf("the service manager has handed over several sockets named %s; one ListenStream= each", name)
	}
	file := os.NewFile(uintptr(firstSocket+at), name)
	defer func() { _ = file.Close() }() // the listener has a copy
	ln, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", name, err)
	}
	return ln, nil
}

// Left are the names of the sockets that have other names. The manager listens there itself: who connects to one that nobody has
// taken over is connected, and waits.
func (m Manager) Left(taken ...string) (names []string) {
	for _, name := range m.sockets {
		if !slices.Contains(taken, name) {
			names = append(names, name)
		}
	}
	return names
}

// maxLine bounds a line, in bytes: a message longer than 4096 is not read at all. A manager that does not read is waited for
// no longer than tellTimeout: the process has to attend to its signals.
const (
	maxLine     = 1000
	tellTimeout = time.Second
)

// Notify tells the manager what the lines say, as READY=1 or STATUS=serving do. Without a manager it does nothing.
func (m Manager) Notify(lines ...string) error {
	if m.notify == "" {
		return nil
	}
	address := &net.UnixAddr{Name: m.notify, Net: "unixgram"} // net knows what a leading @ means
	conn, err := net.DialUnix("unixgram", nil, address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetWriteDeadline(time.Now().Add(tellTimeout))
	var message []string
	for _, line := range lines {
		if len(line) > maxLine {
			line = strings.ToValidUTF8(line[:maxLine], "") + "…"
		}
		message = append(message, line)
	}
	_, err = conn.Write([]byte(strings.Join(message, "\n")))
	return err
}
