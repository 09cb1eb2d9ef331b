package tracing

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"
)

// Headers of W3C Trace Context.
const (
	traceparent = "Traceparent"
	tracestate  = "Tracestate"
)

// maxState bounds tracestate, in bytes; the standard asks for as much.
const maxState = 512

// Parent is the span, somewhere else, that a request belongs to. The zero Parent is none.
type Parent struct {
	valid   bool
	trace   [16]byte
	span    [8]byte
	sampled bool
	state   string
}

// ParseParent reads the headers of a request. It is for requests of those who are trusted only: whoever is believed decides
// what is traced. What cannot be read is no parent.
func ParseParent(h http.Header) (p Parent) {
	values := h[traceparent]
	if len(values) != 1 {
		return Parent{}
	}
	fields := strings.Split(values[0], "-")
	if len(fields) < 4 || len(fields[0]) != 2 || fields[0] == "ff" || fields[0] == "00" && len(fields) > 4 {
		return Parent{}
	}
	var version, flags [1]byte
	if !read(version[:], fields[0]) || !read(p.trace[:], fields[1]) || !read(p.span[:], fields[2]) || !read(flags[:], fields[3]) || p.trace == [16]byte{} || p.span == [8]byte{} {
		return Parent{}
	}
	p.valid, p.sampled = true, flags[0]&1 == 1
	if state := strings.Join(h[tracestate], ","); len(state) <= maxState && !strings.ContainsFunc(state, func(r rune) bool { return r < ' ' || r > '~' }) {
		p.state = state
	}
	return p
}

// read reads lower-case hexadecimal digits, exactly as many as into has.
func read(into []byte, digits string) bool {
	if len(digits) != 2*len(into) || strings.ToLower(digits) != digits {
		return false
	}
	_, err := hex.Decode(into, []byte(digits))
	return err == nil
}

// Inject writes the headers of a request that is part of what ctx is about.
func Inject(ctx context.Context, h http.Header) {
	s, ok := ctx.Value(contextKey{}).(*Span)
	if !ok {
		return
	}
	flags := "00"
	if s.recorded {
		flags = "01"
	}
	h.Set(traceparent, "00-"+hex.EncodeToString(s.trace[:])+"-"+hex.EncodeToString(s.id[:])+"-"+flags)
	if s.state != "" {
		h.Set(tracestate, s.state)
	}
}
