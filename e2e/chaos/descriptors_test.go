package chaos_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// More connections than the process may have files: it lives, idles, and serves again when they are gone.
func TestDescriptorsRunOut(t *testing.T) {
	const limit = 100
	for _, way := range []struct {
		name    string
		options harness.Options
		// limit lowers the limit of a running process. nil: it has known its limit from the start.
		limit func(*testing.T, *harness.Authserver)
	}{
		{"low from the start", harness.Options{Policy: generation("a"), Under: []string{harness.Program(t, "prlimit"), fmt.Sprintf("--nofile=%d", limit)}}, nil},
		{"lowered while it runs", harness.Options{Policy: generation("a")}, func(t *testing.T, a *harness.Authserver) {
			harness.MustRun(t, nil, "", harness.Program(t, "prlimit"), fmt.Sprintf("--pid=%d", a.PID()), fmt.Sprintf("--nofile=%d", limit))
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			a := open(t, way.options)
			ordeal{
				servers: []*harness.Authserver{a}, clients: clients(t, a),
				allowed: func(r result) bool { return r.err != nil || r.busy() },
			}.run(t, func() {
				if way.limit != nil {
					way.limit(t, a)
				}
				cpu, start := cpuTime(t, a), time.Now()
				var flood []net.Conn
				for range 4 * limit {
					conn, err := dial(a)
					must(t, err)
					flood = append(flood, conn)
				}
				time.Sleep(2 * time.Second) // and what says nothing is closed after five
				if used, lasted := cpuTime(t, a)-cpu, time.Since(start); used > lasted/2 {
					t.Errorf("while it could take no connections it computed for %s of %s", used, lasted)
				}
				if way.limit == nil {
					get(t, a.Ops+"/livez")
					c := at(a.URL, a.Service, []client{{name: "nobody", fresh: true}})[0]
					if r := c.ask(c.transport()); !r.well() || r.took > 2*time.Second {
						t.Errorf("among connections that say nothing: %s after %s", r, r.took)
					}
				}
				select {
				case <-a.Ended():
					t.Error("it has ended")
				default:
				}
				rename(t, a.Dir, map[string]string{"policy.yaml": generation("b")})
				time.Sleep(2 * time.Second) // which it cannot read
				for _, conn := range flood {
					conn.Close()
				}
			})
			inUse(t, a, "b")
		})
	}
}

// cpuTime is what a process has computed so far.
func cpuTime(t *testing.T, a *harness.Authserver) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.PID()))
	must(t, err)
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):])) // ") S ppid …"
	var user, system int64
	_, err = fmt.Sscan(fields[12]+" "+fields[13], &user, &system)
	must(t, err)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}
