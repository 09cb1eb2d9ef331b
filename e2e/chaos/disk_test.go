package chaos_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// A decision that cannot be written down gives no token.
func TestAuditOnAFullDisk(t *testing.T) {
	a, disk := onSmallDisk(t)
	must(t, a.Stop())
	log := filepath.Join(disk, "audit.log")
	a.Sets = append(a.Sets, "audit.output=file:"+log)
	a.Restart(t)

	var full period
	var bad complaints
	given := &jtis{}
	ordeal{
		servers: []*harness.Authserver{a}, clients: clients(t, a),
		allowed: func(r result) bool { return r.busy() || r.status == http.StatusInternalServerError },
		each: func(r result) {
			given.add(r)
			if full.covers(r) {
				bad.add("%s: a token while nothing could be written down", r.client)
			}
		},
	}.run(t, func() {
		fill(t, disk)
		time.Sleep(time.Second) // what was left of the log's last block
		full.begin()
		time.Sleep(2 * time.Second)
		full.end()
		must(t, os.Remove(filepath.Join(disk, "filler")))
	})
	bad.report(t)
	given.audited(t, log)
}

// A database that cannot be written is read.
func TestDatabaseOnAFullDisk(t *testing.T) {
	a, disk := onSmallDisk(t)
	list := clients(t, a)
	ordeal{servers: []*harness.Authserver{a}, clients: list}.run(t, func() {
		fill(t, disk)
		for range 20 {
			if status := makeToken(t, a, "full"); status == http.StatusCreated {
				t.Error("a token was made, which there was no room for")
			}
			time.Sleep(100 * time.Millisecond)
		}
		reload(t, a, true)
		must(t, os.Remove(filepath.Join(disk, "filler")))
		start := time.Now()
		a.Await(t, func() error {
			if status := makeToken(t, a, "again"); status != http.StatusCreated {
				return fmt.Errorf("status %d", status)
			}
			return nil
		})
		if took := time.Since(start); took > soon {
			t.Errorf("the database can be written %s after there was room again", took)
		}
	})
}

// onSmallDisk starts an authserver whose data folder is a small disk of its own.
func onSmallDisk(t *testing.T) (a *harness.Authserver, disk string) {
	t.Helper()
	a = open(t, harness.Options{})
	must(t, a.Stop())
	disk = filepath.Join(a.Dir, "data")
	must(t, os.Rename(disk, disk+".old"))
	must(t, os.Mkdir(disk, 0o700))
	err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=16m,mode=0700")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this machine does not let us mount a tmpfs, so there is no full disk to try")
	}
	must(t, err)
	t.Cleanup(func() { must(t, syscall.Unmount(disk, syscall.MNT_DETACH)) })
	must(t, os.CopyFS(disk, os.DirFS(disk+".old")))
	must(t, exec.Command("chmod", "-R", "go=", disk).Run())
	a.Restart(t)
	return a, disk
}

// fill leaves no room.
func fill(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "filler"))
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// makeToken has alice make an access token, which is a write, and returns the status.
func makeToken(t *testing.T, a *harness.Authserver, name string) int {
	t.Helper()
	request, err := tokenRequest(a, name)
	must(t, err)
	response, err := ops.Do(request)
	must(t, err)
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// tokenRequest makes an access token of alice's, over the API.
func tokenRequest(a *harness.Authserver, name string) (*http.Request, error) {
	request, err := http.NewRequest("POST", a.URL+"/api/v1/users/alice/tokens", strings.NewReader(`{"name": "`+name+`"}`))
	if err == nil {
		request.SetBasicAuth("alice", alicePassword)
		request.Header.Set("Content-Type", "application/json")
	}
	return request, err
}

// A period is a time that a request may lie in as a whole.
type period struct {
	mu         sync.Mutex
	from, till time.Time
}

func (p *period) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.from, p.till = time.Now(), time.Now().Add(time.Hour)
}
func (p *period) end() { p.mu.Lock(); defer p.mu.Unlock(); p.till = time.Now() }

func (p *period) covers(r result) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.from.IsZero() && r.began.After(p.from) && r.began.Add(r.took).Before(p.till)
}

// jtis are the ids of tokens that clients have.
type jtis struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (j *jtis) add(r result) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ids == nil {
		j.ids = map[string]bool{}
	}
	j.ids[r.claims.ID] = true
}

// audited complains of lines that cannot be read and of tokens without a line, and returns the tokens that nobody has.
func (j *jtis) audited(t *testing.T, log string) (lost []string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	written := map[string]bool{}
	var bad complaints
	for line := range bytes.Lines(harness.ReadFile(t, log)) {
		var event struct {
			ID string `json:"jti"`
		}
		if err := json.Unmarshal(line, &event); err != nil || !bytes.HasSuffix(line, []byte("}\n")) {
			bad.add("a line of the audit log is %.60q…: %v", line, err)
			continue
		}
		if event.ID != "" {
			written[event.ID] = true
			if !j.ids[event.ID] {
				lost = append(lost, event.ID)
			}
		}
	}
	for id := range j.ids {
		if !written[id] {
			bad.add("a token that was given is not in the audit log")
		}
	}
	bad.report(t)
	t.Logf("%d tokens were given, %d are in the audit log", len(j.ids), len(written))
	return lost
}
