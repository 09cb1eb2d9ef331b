// Package chaos_test breaks what authserver lives on, one thing at a time, while well-behaved clients go on asking: what
// they are told meanwhile, and that all is as it was soon afterwards.
package chaos_test

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"authserver/e2e/harness"
)

func TestMain(m *testing.M) {
	if os.Getenv("CHAOS") == "" {
		fmt.Println("skipped, because it takes minutes: make chaos runs these tests, or CHAOS=1")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// soon is how long after the end of a fault full service may take.
const soon = 5 * time.Second

const (
	alicePassword = "alice in wonderland"
	bobPassword   = "bob: the builder"
)

// open starts an authserver with users of a file and of the database.
func open(t *testing.T, o harness.Options) *harness.Authserver {
	t.Helper()
	o.Set = append(o.Set, auditIn(t))
	o.Users = map[string]string{"alice": alicePassword, "bob": bobPassword}
	a := harness.StartAuthserver(t, o)
	// init hashes at the usual cost, and refusals take that of the highest.
	a.Command(t, a.Password+"\n", "user", "passwd", "admin", "--password-stdin")
	return a
}

// auditIn is the setting of an audit log of its own.
func auditIn(t *testing.T) string {
	return "audit.output=file:" + filepath.Join(t.TempDir(), "audit.log")
}

// auditOf is where the audit log of a is.
func auditOf(a *harness.Authserver) string {
	const key = "audit.output=file:"
	i := slices.IndexFunc(a.Sets, func(set string) bool { return strings.HasPrefix(set, key) })
	return strings.TrimPrefix(a.Sets[i], key)
}

// clients are well-behaved ones of all kinds: they know their passwords.
func clients(t *testing.T, a *harness.Authserver) []client {
	t.Helper()
	aliceToken, _ := a.AccessToken(t, "alice", "laptop")
	adminToken, _ := a.AccessToken(t, "admin", "laptop")
	list := []client{}
	for _, fresh := range []bool{false, true} {
		for _, post := range []bool{false, true} {
			list = append(list,
				client{name: "admin's password", user: "admin", password: a.Password, post: post, fresh: fresh}, // of the file
				client{name: "admin's token", user: "admin", password: adminToken, database: true, post: post, fresh: fresh},
				client{name: "alice's password", user: "alice", password: alicePassword, database: true, post: post, fresh: fresh},
				client{name: "alice's token", user: "alice", password: aliceToken, database: true, post: post, fresh: fresh},
				client{name: "bob's password", user: "bob", password: bobPassword, database: true, post: post, fresh: fresh},
			)
		}
		list = append(list, client{name: "nobody", fresh: fresh})
	}
	return at(a.URL, a.Service, list)
}

// at returns the clients as they ask at an address.
func at(url, service string, list []client) []client {
	moved := make([]client, len(list))
	for i, c := range list {
		c.url, c.service = strings.Replace(url, "//localhost:", "//127.0.0.1:", 1)+"/token", service
		moved[i] = c
	}
	return moved
}

// An ordeal is one fault under load.
type ordeal struct {
	servers []*harness.Authserver
	clients []client
	// allowed is what clients may be told instead of a token from the beginning of the fault until soon after its end.
	// nil: nothing but tokens.
	allowed func(result) bool
	// each, if set, is called with every token that is given, by many at once.
	each func(result)
}

// run brings a fault about, and ends it, while the load goes on; and looks whether anything is left of it.
func (o ordeal) run(t *testing.T, fault func()) {
	t.Helper()
	warm := begin(t, o)
	time.Sleep(time.Second)
	warm.end()
	var before []usage
	for _, a := range o.servers {
		before = append(before, measure(t, a))
	}

	l := begin(t, o)
	time.Sleep(time.Second / 2)
	start := time.Now()
	l.fault()
	fault()
	l.over()
	t.Logf("the fault lasted %s", time.Since(start).Round(time.Millisecond))
	l.end()

	for i, a := range o.servers {
		deadline := time.Now().Add(15 * time.Second) // what waits for its time-out
		for {
			after := measure(t, a)
			err := after.over(before[i])
			if err == nil {
				t.Logf("server %d: before %v, after %v", i, before[i], after)
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("server %d has not come back to where it was: %v; before %v, after %v", i, err, before[i], after)
				break
			}
			time.Sleep(500 * time.Millisecond)
		}
	}
}

// usage is what a process holds.
type usage struct {
	goroutines, descriptors int
	heap, goal, resident    int // MiB: in use, at which garbage is collected, of the whole process
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, heap %d MiB of at most %d MiB, resident %d MiB", u.goroutines, u.descriptors, u.heap, u.goal, u.resident)
}

// over tells how it is more than before by more than what comes and goes by itself. What is in use is exact; the
// runtime keeps what it will need before it collects garbage the next time, and gives back the rest at its leisure.
func (u usage) over(before usage) error {
	switch {
	case u.goroutines > before.goroutines+8:
		return fmt.Errorf("%d goroutines more", u.goroutines-before.goroutines)
	case u.descriptors > before.descriptors+12: // up to ten may be connections to PostgreSQL, which are kept
		return fmt.Errorf("%d descriptors more", u.descriptors-before.descriptors)
	case u.heap > before.heap+8:
		return fmt.Errorf("%d MiB of heap more", u.heap-before.heap)
	case u.resident > max(2*before.resident+32, u.goal*5/4+48):
		return fmt.Errorf("%d MiB of memory more", u.resident-before.resident)
	}
	return nil
}

func measure(t *testing.T, a *harness.Authserver) usage {
	t.Helper()
	get(t, a.Ops+"/debug/pprof/heap?gc=1")
	const mib = 1 << 20
	values := metrics(t, a)
	return usage{
		int(values["go_goroutines"]), descriptors(t, a),
		int(values["go_memstats_heap_inuse_bytes"]) / mib, int(values["go_memstats_next_gc_bytes"]) / mib, int(values["process_resident_memory_bytes"]) / mib,
	}
}

// descriptors are those that are open, but for the embedded database's: it keeps what it has opened once.
func descriptors(t *testing.T, a *harness.Authserver) (n int) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", a.PID()))
	must(t, err)
	for _, link := range links {
		if file, err := os.Readlink(link); err == nil && !strings.Contains(filepath.Base(file), "authserver.db") {
			n++
		}
	}
	return n
}

// metrics are those without labels.
func metrics(t *testing.T, a *harness.Authserver) map[string]float64 {
	t.Helper()
	values := map[string]float64{}
	for line := range strings.Lines(a.Metrics(t)) {
		if name, text, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			if value, err := strconv.ParseFloat(text, 64); err == nil {
				values[name] = value
			}
		}
	}
	return values
}

// ops asks on a new connection each time, so that asking changes nothing.
var ops = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := ops.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var text strings.Builder
	if _, err := bufio.NewReader(response.Body).WriteTo(&text); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, response.Status, err)
	}
	return text.String()
}

// reload asks for a reload, which has to be refused or taken.
func reload(t *testing.T, a *harness.Authserver, taken bool) {
	t.Helper()
	const success, when = "authserver_config_reload_success", "authserver_config_reload_success_timestamp_seconds"
	before := metrics(t, a)[when]
	if err := a.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	a.Await(t, func() error {
		m := metrics(t, a)
		if taken && m[when] == before || !taken && m[success] != 0 {
			return fmt.Errorf("%s is %v", success, m[success])
		}
		return nil
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
