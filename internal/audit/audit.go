// Package audit is the record of decisions: one JSON line for every token that was granted or refused, to be kept.
//
// It never holds a secret: a token is named by its jti, a password not at all.
package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Outcomes of a token request.
const (
	Granted     = "granted"     // everything that was asked, or nothing was asked
	Partial     = "partial"     // some of what was asked
	Denied      = "denied"      // nothing of what was asked; the client still gets a token, without access
	Refused     = "refused"     // bad credentials (401)
	Invalid     = "invalid"     // a request that cannot be answered (400)
	Throttled   = "throttled"   // too many wrong passwords: not checked (429)
	Unavailable = "unavailable" // a backend cannot say (503)
	Failed      = "failed"      // our own fault (500)
)

// Event is one decision.
type Event struct {
	Time      time.Time `json:"time"`
	Event     string    `json:"event"` // "token", "revoke", "api" or "change"
	RequestID string    `json:"id"`
	Outcome   string    `json:"outcome"`
	Reason    string    `json:"reason,omitempty"` // why there is no token
	Grant     string    `json:"grant"`
	Principal string    `json:"principal"` // who it is, or, when refused, who it claimed to be
	Kind      string    `json:"kind,omitempty"`
	Backend   string    `json:"backend,omitempty"`
	Using     string    `json:"credential,omitempty"` // what it came with instead of its password
	Client    string    `json:"client"`               // address
	Service   string    `json:"service"`
	Asked     string    `json:"asked"`
	Dropped   int       `json:"dropped,omitempty"` // scopes that could not be read
	Granted   string    `json:"granted"`
	AllowedBy []string  `json:"allowed_by,omitempty"` // names of rules
	DeniedBy  []string  `json:"denied_by,omitempty"`
	Failed    []string  `json:"failed,omitempty"` // rules whose condition could not be evaluated
	TokenID   string    `json:"jti,omitempty"`
	KeyID     string    `json:"kid,omitempty"`
	Refresh   bool      `json:"refresh_token,omitempty"` // one was given
	Operation string    `json:"operation,omitempty"`     // of the API
	Target    string    `json:"target,omitempty"`        // what a change was made to
}

// Log writes events to one place. Those who record at the same time share one write: each waits until its own line is
// written, and nobody for a queue of others' writes.
type Log struct {
	// Observe is told of every line, with the error when it was not written; nil means that nobody listens. To be set before
	// the first one.
	Observe func(error)

	file string // "" when out is not a file of ours

	mu    sync.Mutex // of next
	next  *batch     // lines that wait to be written
	write sync.Mutex // of what follows; taken before mu
	out   io.Writer
	torn  bool // the last write ended within a line
}

// batch is lines that are written together. done and err are those of Log.write.
type batch struct {
	lines []byte
	done  bool
	err   error
}

// Open opens an output: "stderr", "stdout" or "file:/path" (made with mode 0600, appended to).
func Open(output string, stdout, stderr io.Writer) (*Log, error) {
	switch output {
	case "stderr":
		return New(stderr), nil
	case "stdout":
		return New(stdout), nil
	}
	l := &Log{next: &batch{}, file: strings.TrimPrefix(output, "file:")}
	return l, l.Reopen()
}

// New returns a log that writes to out.
func New(out io.Writer) *Log { return &Log{out: out, next: &batch{}} }

// Reopen opens the file again, so that a rotated one is let go. On an error the old one stays in use.
func (l *Log) Reopen() error {
	if l.file == "" {
		return nil
	}
	f, err := os.OpenFile(l.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	l.write.Lock()
	defer l.write.Unlock()
	if old, ok := l.out.(io.Closer); ok {
		_ = old.Close()
	}
	l.out = f
	return nil
}

// File is the path of the file that it is written to, "" when there is none.
func (l *Log) File() string { return l.file }

// Record writes one line, whole or not at all. The caller must not hand out a token when it fails.
func (l *Log) Record(e Event) error {
	err := l.record(e)
	if l.Observe != nil {
		l.Observe(err)
	}
	return err
}

func (l *Log) record(e Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("writing the audit log: %w", err)
	}
	l.mu.Lock()
	mine := l.next
	mine.lines = append(append(mine.lines, line...), '\n')
	l.mu.Unlock()

	l.write.Lock()
	defer l.write.Unlock()
	if !mine.done { // by somebody who had waited for the same write
		l.flush()
	}
	return mine.err
}

// flush writes what waits.
func (l *Log) flush() {
	l.mu.Lock()
	b := l.next
	l.next = &batch{}
	l.mu.Unlock()
	lines := b.lines
	if l.torn { // a full disk, for example: what is left of that line must not spoil this one
		lines = append([]byte{'\n'}, lines...)
	}
	n, err := l.out.Write(lines)
	b.done, b.lines = true, nil
	if err != nil {
		if half := lines[bytes.LastIndexByte(lines[:n], '\n')+1 : n]; len(half) > 0 {
			l.torn = !l.takeBack(half)
		} else if n > 0 {
			l.torn = false
		}
		b.err = fmt.Errorf("writing the audit log: %w", err)
		return
	}
	l.torn = false
}

// takeBack cuts off the half of a line that was written last. It tells whether that half is gone: not from a pipe, and not
// when somebody else has written behind it.
func (l *Log) takeBack(half []byte) bool {
	f, ok := l.out.(*os.File)
	if !ok || l.file == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() { // a named pipe would wait for its other end
		return false
	}
	// Read by its name, because f only writes: a pipe that is open for reading too never says that nobody reads it.
	written, err := os.Open(l.file)
	if err != nil {
		return false
	}
	defer func() { _ = written.Close() }()
	if same, err := written.Stat(); err != nil || !os.SameFile(info, same) { // rotated away
		return false
	}
	begin := info.Size() - int64(len(half))
	end := make([]byte, len(half))
	if _, err := written.ReadAt(end, begin); err != nil || !bytes.Equal(end, half) {
		return false
	}
	return f.Truncate(begin) == nil
}
