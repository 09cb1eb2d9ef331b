package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"authserver/internal/audit"
)

var event = audit.Event{
	Time: time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC), Event: "token", RequestID: "r1", Outcome: audit.Partial, Reason: "why",
	Grant: "basic", Principal: "alice", Kind: "user", Backend: "htpasswd", Client: "10.0.0.1", Service: "registry.local",
	Asked: "repository:a:pull,push", Dropped: 2, Granted: "repository:a:pull", AllowedBy: []string{"own"}, DeniedBy: []string{"freeze"},
	TokenID: "j1", KeyID: "k1",
}

const line = `{"time":"2026-01-02T03:04:05.0000006Z","event":"token","id":"r1","outcome":"partial","reason":"why","grant":"basic",` +
	`"principal":"alice","kind":"user","backend":"htpasswd","client":"10.0.0.1","service":"registry.local","asked":"repository:a:pull,push",` +
	`"dropped":2,"granted":"repository:a:pull","allowed_by":["own"],"denied_by":["freeze"],"jti":"j1","kid":"k1"}` + "\n"

// writes keeps each Write apart.
type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

func TestAnEventIsOneLineInOneWrite(t *testing.T) {
	var out writes
	l := audit.New(&out)
	for range 2 {
		if err := l.Record(event); err != nil {
			t.Fatal(err)
		}
	}
	if len(out) != 2 || out[0] != line || out[1] != line {
		t.Errorf("got %q\nwant %q twice", out, line)
	}
}

func TestWhatIsNotKnownIsLeftOutOrEmpty(t *testing.T) {
	var out bytes.Buffer
	if err := audit.New(&out).Record(audit.Event{Event: "token", Outcome: audit.Refused}); err != nil {
		t.Fatal(err)
	}
	want := `{"time":"0001-01-01T00:00:00Z","event":"token","id":"","outcome":"refused","grant":"","principal":"","client":"","service":"","asked":"","granted":""}` + "\n"
	if out.String() != want {
		t.Errorf("got %s\nwant %s", out.String(), want)
	}
}

func TestNoTextBreaksALine(t *testing.T) {
	var out bytes.Buffer
	hostile := "a\n{\"outcome\":\"granted\"}\r\u2028\x00\xff</script>"
	if err := audit.New(&out).Record(audit.Event{Principal: hostile, Asked: hostile, Reason: hostile}); err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSuffix(out.String(), "\n")
	if strings.ContainsAny(text, "\n\r\x00\u2028") {
		t.Errorf("the line is broken: %q", text)
	}
	var back audit.Event
	if err := json.Unmarshal([]byte(text), &back); err != nil {
		t.Fatal(err)
	}
	if want := strings.ToValidUTF8(hostile, "\ufffd"); back.Principal != want || back.Outcome != "" {
		t.Errorf("read back: %+q", back.Principal)
	}
}

func TestLinesOfManyDoNotMix(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.json")
	l, err := audit.Open("file:"+file, os.Stdout, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := l.Record(event); err != nil {
				t.Error(err)
			}
			if i%5 == 0 { // a rotation in the midst of it
				if err := l.Reopen(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile(file)
	if err != nil || string(data) != strings.Repeat(line, 20) {
		t.Errorf("%v, %q", err, data)
	}
}

func TestAFileIsMadeForItsOwnerAndAppendedTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.json")
	for range 2 { // as after a restart
		l, err := audit.Open("file:"+file, os.Stdout, os.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Record(event); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil || string(data) != line+line {
		t.Errorf("%v, %q", err, data)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestReopenLetsARotatedFileGo(t *testing.T) {
	dir := t.TempDir()
	file, rotated := filepath.Join(dir, "audit.json"), filepath.Join(dir, "audit.json.1")
	l, err := audit.Open("file:"+file, os.Stdout, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	record := func() {
		t.Helper()
		if err := l.Record(event); err != nil {
			t.Fatal(err)
		}
	}
	record()
	if err := os.Rename(file, rotated); err != nil {
		t.Fatal(err)
	}
	record() // still to the old one
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	record()
	for name, want := range map[string]string{rotated: line + line, file: line} {
		if data, err := os.ReadFile(name); err != nil || string(data) != want {
			t.Errorf("%s: %v, %q", filepath.Base(name), err, data)
		}
	}
}

func TestAFailedReopenKeepsTheOldFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open("file:"+filepath.Join(dir, "audit.json"), os.Stdout, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	moved := dir + ".moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "opening the audit log: ") {
		t.Errorf("reopening in a missing folder: %v", err)
	}
	if err := l.Record(event); err != nil {
		t.Errorf("the old file is lost: %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(moved, "audit.json")); err != nil || string(data) != line {
		t.Errorf("%v, %q", err, data)
	}
}

func TestAFileThatCannotBeOpenedIsAnError(t *testing.T) {
	if _, err := audit.Open("file:"+filepath.Join(t.TempDir(), "missing", "audit.json"), os.Stdout, os.Stderr); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestALineThatIsNotWrittenIsAnError(t *testing.T) {
	err := audit.New(broken{}).Record(event)
	if want := "writing the audit log: no space left on device"; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
	// JSON has no year 10000.
	err = audit.New(&bytes.Buffer{}).Record(audit.Event{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err == nil || !strings.HasPrefix(err.Error(), "writing the audit log: ") {
		t.Errorf("an event that is no JSON: %v", err)
	}
}

func TestWhoObservesIsToldOfEveryLine(t *testing.T) {
	var told []error
	observe := func(err error) { told = append(told, err) }
	good, bad := audit.New(&bytes.Buffer{}), audit.New(broken{})
	good.Observe, bad.Observe = observe, observe
	if err := good.Record(event); err != nil {
		t.Fatal(err)
	}
	if err := bad.Record(event); err == nil {
		t.Fatal("no error")
	}
	if len(told) != 2 || told[0] != nil || told[1] == nil {
		t.Errorf("told %v", told)
	}
}

func TestStandardOutputsAreTakenByName(t *testing.T) {
	dir := t.TempDir()
	for name, stream := range map[string]**os.File{"stdout": &os.Stdout, "stderr": &os.Stderr} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		was := *stream
		*stream = file
		l, err := audit.Open(name, os.Stdout, os.Stderr)
		*stream = was
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.Record(event), l.Reopen(), l.Record(event), file.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if data, err := os.ReadFile(file.Name()); err != nil || string(data) != line+line {
			t.Errorf("%s: %v, %q", name, err, data)
		}
	}
}

// full is a disk that fills up in the middle of a line, and has room again later.
type full struct {
	written strings.Builder
	room    int // of the next write; negative = enough
}

func (f *full) Write(p []byte) (int, error) {
	if f.room < 0 || f.room >= len(p) {
		return f.written.Write(p)
	}
	n, _ := f.written.Write(p[:f.room])
	return n, errors.New("no space left on device")
}

func TestATornLineSpoilsNoOther(t *testing.T) {
	disk := &full{room: 10}
	log := audit.New(disk)
	for range 2 { // torn, and then not even begun
		if err := log.Record(audit.Event{RequestID: "lost"}); err == nil {
			t.Error("a line that was not written was acknowledged")
		}
		disk.room = 0
	}
	disk.room = -1
	for _, id := range []string{"a", "b"} {
		if err := log.Record(audit.Event{RequestID: id}); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSuffix(disk.written.String(), "\n"), "\n")
	if len(lines) != 3 || !strings.Contains(lines[1], `"id":"a"`) || !strings.Contains(lines[2], `"id":"b"`) {
		t.Errorf("lines %q", lines)
	}
}

// A file takes back the half of a line that a full disk let through.
func TestHalfALineIsTakenBackFromAFile(t *testing.T) {
	if os.Getenv("AUDIT_LIMITED") == "" {
		// The limit is the process's, so it is another one's.
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "AUDIT_LIMITED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	file := filepath.Join(t.TempDir(), "audit.log")
	l, err := audit.Open("file:"+file, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := syscall.Rlimit{Cur: uint64(len(line) + len(line)/2), Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	for n, fails := range []bool{false, true, true} {
		if err := l.Record(event); (err != nil) != fails {
			t.Errorf("line %d: %v", n, err)
		}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(event); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != line+line {
		t.Errorf("%v\n%s", err, got)
	}
}
