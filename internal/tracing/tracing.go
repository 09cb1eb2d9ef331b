// Package tracing tells an OpenTelemetry collector what became of single requests, and how long each step took: spans, as
// OTLP over HTTP, in JSON. It is small on purpose: docs/dependencies.md says why OpenTelemetry's library is not here.
//
// Nobody waits for it. A span that has ended waits in a queue of bounded length, a batch goes out in the background, and what
// finds no room, or no collector, is dropped and counted. A nil *Span is one that nobody looks at: its methods do nothing, so
// a request that is not traced pays for looks into its context, and for nothing where tracing is off.
package tracing

import (
	"context"
	"crypto/rand"
	randv2 "math/rand/v2"
	"time"
)

// Config says whom to tell, and how much.
type Config struct {
	Endpoint string            // http or https, with its path
	Headers  map[string]string // of every export
	Service  string            // service.name
	Version  string            // service.version
	OneIn    int               // requests, of which one is traced, unless a trusted proxy has decided already
	// Observe is told what became of spans: "exported" or "dropped".
	Observe func(outcome string, n int)
	// Report is told when exports begin to fail, and, with nil, when they are well again.
	Report func(error)
}

// What becomes of spans.
const (
	Exported = "exported"
	Dropped  = "dropped"
)

// Tracer takes spans until it is closed.
type Tracer struct {
	config Config
	queue  chan *Span
	closed chan struct{} // no more are to come
	done   chan struct{} // all that came were sent or dropped
}

// Kinds of spans, as OTLP numbers them.
const (
	kindInternal = 1
	kindServer   = 2
	kindClient   = 3
)

// Span is one step of a request. It belongs to one goroutine.
type Span struct {
	tracer     *Tracer
	trace      [16]byte
	id, parent [8]byte
	state      string // tracestate, handed on as it came
	recorded   bool
	remote     bool // its parent is somebody else's
	kind       int
	name       string
	start      time.Time
	took       time.Duration
	attributes []attribute
	failed     string
}

// attribute is a value by its name; text or number.
type attribute struct {
	key, text string
	number    int
	isNumber  bool
}

type contextKey struct{}

// Begin begins the span of a request. What parent decides about being traced holds; without one, chance does.
func (t *Tracer) Begin(ctx context.Context, name string, parent Parent) (context.Context, *Span) {
	s := &Span{tracer: t, kind: kindServer, name: name, start: time.Now(), trace: parent.trace, parent: parent.span, state: parent.state, remote: parent.valid, recorded: parent.sampled}
	if !parent.valid {
		_, _ = rand.Read(s.trace[:]) // does not fail (Go 1.24)
		s.recorded = randv2.IntN(t.config.OneIn) == 0
	}
	_, _ = rand.Read(s.id[:])
	return context.WithValue(ctx, contextKey{}, s), s.orNil()
}

// orNil is the span where it is recorded. Others stay in the context alone, for Inject.
func (s *Span) orNil() *Span {
	if !s.recorded {
		return nil
	}
	return s
}

// From is the span of a context, nil when nobody looks at it.
func From(ctx context.Context) *Span {
	if s, ok := ctx.Value(contextKey{}).(*Span); ok {
		return s.orNil()
	}
	return nil
}

// Start begins a step of what ctx is about; nil where nobody looks at that.
func Start(ctx context.Context, name string) (context.Context, *Span) {
	return start(ctx, name, kindInternal)
}

// StartClient is Start for a question to somebody else.
func StartClient(ctx context.Context, name string) (context.Context, *Span) {
	return start(ctx, name, kindClient)
}

func start(ctx context.Context, name string, kind int) (context.Context, *Span) {
	parent := From(ctx)
	if parent == nil {
		return ctx, nil
	}
	s := &Span{tracer: parent.tracer, kind: kind, name: name, start: time.Now(), trace: parent.trace, parent: parent.id, state: parent.state, recorded: true}
	_, _ = rand.Read(s.id[:])
	return context.WithValue(ctx, contextKey{}, s), s
}

// Rename gives it a name that was not known at its beginning.
func (s *Span) Rename(name string) {
	if s != nil {
		s.name = name
	}
}

// Set notes text.
func (s *Span) Set(key, text string) {
	if s != nil {
		s.attributes = append(s.attributes, attribute{key: key, text: text})
	}
}

// SetInt notes a number.
func (s *Span) SetInt(key string, number int) {
	if s != nil {
		s.attributes = append(s.attributes, attribute{key: key, number: number, isNumber: true})
	}
}

// Fail says that it went wrong, in words that hold nothing of a client's.
func (s *Span) Fail(why string) {
	if s != nil {
		s.failed = why
	}
}

// End ends it; it is not to be touched after that.
func (s *Span) End() {
	if s == nil {
		return
	}
	s.took = time.Since(s.start)
	s.tracer.take(s)
}
