package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Database makes an empty database in the PostgreSQL that postgres/with.sh runs, and returns its address. It is dropped
// when the test ends.
func Database(t testing.TB) string {
	t.Helper()
	server := os.Getenv("TEST_POSTGRES")
	if server == "" {
		t.Fatal("TEST_POSTGRES is not set; run e2e/run.sh, or e2e/postgres/with.sh COMMAND")
	}
	name := fmt.Sprintf("e2e_%d", time.Now().UnixNano())
	sql(t, server, "CREATE DATABASE "+name)
	t.Cleanup(func() { sql(t, server, "DROP DATABASE "+name+" WITH (FORCE)") })
	return strings.Replace(server, "/postgres?", "/"+name+"?", 1)
}

// sql runs a statement and returns its rows, columns separated by "|".
func sql(t testing.TB, address, statement string) string {
	t.Helper()
	out, err := output(postgresProgram(t, "psql"), "", "-XAtq", "-d", address, "-c", statement)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func postgresProgram(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("TEST_POSTGRES_BIN")
	if dir == "" {
		t.Fatal("TEST_POSTGRES_BIN is not set; run e2e/run.sh, or e2e/postgres/with.sh COMMAND")
	}
	return filepath.Join(dir, name)
}

// Postgres is a PostgreSQL of the test's own, which can fail.
type Postgres struct {
	*Process
	URL       string
	dir, port string
}

// nobody runs PostgreSQL, which does not run as root.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

// StartPostgres starts one. It needs root.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	p := &Postgres{dir: ShortTempDir(t), port: fmt.Sprint(FreePort(t))}
	p.URL = "postgres://authserver@127.0.0.1:" + p.port + "/postgres?sslmode=disable"
	if err := os.Chown(p.dir, int(nobody.Uid), int(nobody.Gid)); err != nil {
		t.Fatal(err)
	}
	initdb := exec.Command(postgresProgram(t, "initdb"), "-D", p.data(), "-U", "authserver", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")
	initdb.Dir = p.dir
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.Start(t)
	return p
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// Start starts it (again), and waits until it answers.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	p.Process = start(t, nobody, nil, postgresProgram(t, "postgres"), "-D", p.data(), "-p", p.port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+p.dir)
	t.Cleanup(func() { p.Stop(t) }) // SIGTERM would wait for the clients
	psql := postgresProgram(t, "psql")
	p.Await(t, func() error {
		_, err := output(psql, "", "-X", "-d", p.URL, "-c", "SELECT 1")
		return err
	})
}

// Stop stops it and breaks off what is under way.
func (p *Postgres) Stop(t testing.TB) { p.end(t, syscall.SIGINT) }

// Crash ends it as a power cut would, as far as it can tell.
func (p *Postgres) Crash(t testing.TB) { p.end(t, syscall.SIGQUIT) }

// Kill ends the postmaster with SIGKILL, as the kernel does when memory runs out. Its children notice, and end.
func (p *Postgres) Kill(t testing.TB) {
	t.Helper()
	children := p.Children(t)
	p.Process.Kill()
	for _, child := range children {
		for syscall.Kill(child, 0) == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func (p *Postgres) end(t testing.TB, s syscall.Signal) {
	t.Helper()
	p.signalAll(t, syscall.SIGCONT)
	p.Signal(s)
	<-p.done
}

// Freeze stops all of its processes as they are: connections stay open, and nothing answers.
func (p *Postgres) Freeze(t testing.TB) {
	t.Helper()
	p.signalAll(t, syscall.SIGSTOP)
}

// Thaw ends Freeze.
func (p *Postgres) Thaw(t testing.TB) { p.signalAll(t, syscall.SIGCONT) }

// Connections is how many an authserver has.
func (p *Postgres) Connections(t testing.TB) int {
	t.Helper()
	n, err := strconv.Atoi(sql(t, p.URL, "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'authserver'"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// signalAll sends a signal to the server and all of its children.
func (p *Postgres) signalAll(t testing.TB, s syscall.Signal) {
	t.Helper()
	select {
	case <-p.done:
		return
	default:
	}
	if err := p.Signal(s); err != nil { // first: when it is stopped it has no more children
		t.Error(err)
	}
	for _, child := range p.Children(t) {
		_ = syscall.Kill(child, s) // may have ended
	}
}
