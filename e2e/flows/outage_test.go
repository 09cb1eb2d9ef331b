package flows_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authserver/e2e/harness"
)

const aStatement = 3 * time.Second // takes no longer: database.timeout

// outage is how long each lasts; E2E_OUTAGE is another time.
func outage(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("E2E_OUTAGE")
	if text == "" {
		return 2 * aStatement
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// PostgreSQL fails in three ways under load. Who needs it is told to come again, and nobody waits for long; who does not
// need it notices nothing; afterwards all is as it was, by itself.
func TestPostgresFails(t *testing.T) {
	const patience = 2*aStatement + 10*time.Second // nobody waits longer: at most two statements, on a busy machine
	database := harness.StartPostgres(t)
	a := harness.StartAuthserver(t, harness.Options{
		Policy: policy, Database: database.URL, RefreshTokens: true,
		Set: []string{fmt.Sprintf("database.timeout=%s", aStatement), "database.max_connections=5"},
	})
	// init hashes at the usual cost, and refusals take that of the highest.
	a.Command(t, a.Password+"\n", "user", "passwd", "admin", "--password-stdin")
	a.AddUser(t, "alice", alicePassword)
	a.Command(t, "file password\n", "user", "add", "file", "--backend", "htpasswd", "--password-stdin")
	aliceToken, _ := a.AccessToken(t, "alice", "laptop")
	service := url.Values{"service": {a.Service}, "scope": {"repository:alice/app:pull"}}
	a.Await(t, func() error { // the file is looked at twice a second
		if answer := a.Get(t, "file", "file password", service); answer.Status != http.StatusOK {
			return fmt.Errorf("status %d", answer.Status)
		}
		return nil
	})
	fileToken, _ := a.AccessToken(t, "file", "laptop")
	offline := url.Values{"service": {a.Service}, "offline_token": {"true"}}
	login := a.Get(t, "alice", alicePassword, offline).RefreshToken

	// What clients ask for all the time, and whether it needs the database.
	askers := []struct {
		name  string
		needs bool
		ask   func() harness.Answer
	}{
		{"password of an account", true, func() harness.Answer { return a.Get(t, "alice", alicePassword, service) }},
		{"access token of an account", true, func() harness.Answer { return a.Get(t, "alice", aliceToken, service) }},
		{"access token of a user of the file", true, func() harness.Answer { return a.Get(t, "file", fileToken, service) }},
		{"refresh token", true, func() harness.Answer {
			return a.Post(t, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {login}, "service": {a.Service}})
		}},
		{"user whom nobody knows", true, func() harness.Answer { return a.Get(t, "nobody", "x", service) }},
		{"password of a user of the file", false, func() harness.Answer { return a.Get(t, "file", "file password", service) }},
		{"login of a user of the file", false, func() harness.Answer { return a.Get(t, "file", "file password", offline) }},
		{"nobody", false, func() harness.Answer { return a.Get(t, "", "", service) }},
	}
	const usual, changing, down = 0, 1, 2
	// What was read before is good for two seconds, and what was asked then has its answer a little later.
	const remembered = 3 * time.Second
	var phase atomic.Int32
	var asked [3]atomic.Int64
	done := make(chan struct{})
	var load sync.WaitGroup
	begin := func() {
		for _, asker := range askers {
			for range 4 {
				load.Go(func() {
					for {
						select {
						case <-done:
							return
						case <-time.After(20 * time.Millisecond):
						}
						during, start := phase.Load(), time.Now()
						answer := asker.ask()
						took := time.Since(start)
						if phase.Load() != during { // it has seen two phases
							during = changing
						}
						asked[during].Add(1)
						well := http.StatusOK
						if asker.name == "user whom nobody knows" {
							well = http.StatusUnauthorized
						}
						switch {
						case answer.Status == well && (!asker.needs || during != down):
						case answer.Status == http.StatusServiceUnavailable && asker.needs && during != usual && answer.Header.Get("Retry-After") != "":
						default:
							t.Errorf("%s, phase %d: status %d, Retry-After %q: %s: %s", asker.name, during, answer.Status, answer.Header.Get("Retry-After"), answer.Body, audited(t, a, answer).Reason)
						}
						if took > patience {
							t.Errorf("%s, phase %d: the answer took %s", asker.name, during, took)
						}
					}
				})
			}
		}
	}
	well := func() error {
		for _, asker := range askers {
			if answer := asker.ask(); answer.Status == http.StatusServiceUnavailable {
				return fmt.Errorf("%s: status %d", asker.name, answer.Status)
			}
		}
		return nil
	}
	measure := func() (goroutines, connections int) {
		t.Helper()
		http.DefaultClient.CloseIdleConnections()
		response, err := http.Get(a.Ops + "/debug/pprof/goroutine?debug=1")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		if _, err := fmt.Sscanf(string(body), "goroutine profile: total %d", &goroutines); err != nil {
			t.Fatal(err)
		}
		return goroutines, database.Connections(t)
	}

	begin()
	time.Sleep(2 * time.Second)
	close(done)
	load.Wait()
	goroutines, connections := measure()
	t.Logf("before: %d goroutines, %d connections, %d answers", goroutines, connections, asked[usual].Load())

	done = make(chan struct{})
	begin()
	for _, way := range []struct {
		name     string
		down, up func(testing.TB)
	}{
		{"frozen", database.Freeze, database.Thaw},
		{"stopped", database.Stop, database.Start},
		{"crashed", database.Crash, database.Start},
	} {
		phase.Store(changing)
		way.down(t)
		time.Sleep(remembered)
		phase.Store(down)
		time.Sleep(outage(t))
		if up := metric(t, a, "authserver_database_up"); up != "0" {
			t.Errorf("%s: authserver_database_up is %s", way.name, up)
		}
		phase.Store(changing)
		way.up(t)
		start := time.Now()
		a.Await(t, well)
		t.Logf("%s: all well %s after the database was back; %d answers so far while it was not", way.name, time.Since(start).Round(time.Millisecond), asked[down].Load())
		time.Sleep(aStatement) // an attempt to connect that was begun before may still fail, for whoever waits for one
		phase.Store(usual)
		time.Sleep(time.Second)
		a.Await(t, func() error { // it waits for a connection, but not for long
			if up := metric(t, a, "authserver_database_up"); up != "1" {
				return fmt.Errorf("%s, and back: authserver_database_up is %s", way.name, up)
			}
			return nil
		})
	}
	close(done)
	load.Wait()

	// What waits for a dead connection may take its time to give it up.
	a.Await(t, func() error {
		g, c := measure()
		t.Logf("after: %d goroutines, %d connections", g, c)
		if g > goroutines+5 || c > 5 {
			return fmt.Errorf("%d goroutines, before %d; %d connections", g, goroutines, c)
		}
		return nil
	})
}

// What is started while PostgreSQL is away serves whom it can, and the others once it is there.
func TestPostgresIsAwayAtTheStart(t *testing.T) {
	database := harness.StartPostgres(t)
	first := harness.StartAuthserver(t, harness.Options{Policy: policy, Database: database.URL})
	first.AddUser(t, "alice", alicePassword)
	token, _ := first.AccessToken(t, "admin", "laptop")
	database.Stop(t)

	a := first.Replica(t)
	service := url.Values{"service": {a.Service}}
	if answer := a.Get(t, "admin", a.Password, service); answer.Status != http.StatusOK {
		t.Errorf("a user of the file: status %d: %s", answer.Status, answer.Body)
	}
	if answer := a.Get(t, "", "", service); answer.Status != http.StatusOK {
		t.Errorf("nobody: status %d: %s", answer.Status, answer.Body)
	}
	credentials := [][2]string{{"alice", alicePassword}, {"admin", token}}
	for _, c := range credentials {
		if answer := a.Get(t, c[0], c[1], service); answer.Status != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
			t.Errorf("%s: status %d: %s", c[0], answer.Status, answer.Body)
		}
	}

	database.Start(t)
	start := time.Now()
	a.Await(t, func() error {
		for _, c := range credentials {
			if answer := a.Get(t, c[0], c[1], service); answer.Status != http.StatusOK {
				return fmt.Errorf("%s: status %d: %s", c[0], answer.Status, answer.Body)
			}
		}
		return nil
	})
	t.Logf("all well %s after the database was there", time.Since(start).Round(time.Millisecond))
}
