package tracing

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"
)

// The form of OTLP in JSON: opentelemetry-proto, docs/specification.md, "JSON Protobuf Encoding". Ids are hexadecimal, 64-bit
// numbers are text, and enumerations are numbers.
type (
	otlpRequest struct {
		ResourceSpans []otlpResourceSpans `json:"resourceSpans"`
	}
	otlpResourceSpans struct {
		Resource   otlpResource     `json:"resource"`
		ScopeSpans []otlpScopeSpans `json:"scopeSpans"`
	}
	otlpResource struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpScopeSpans struct {
		Scope otlpScope  `json:"scope"`
		Spans []otlpSpan `json:"spans"`
	}
	otlpScope struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
	}
	otlpSpan struct {
		TraceID    string          `json:"traceId"`
		SpanID     string          `json:"spanId"`
		TraceState string          `json:"traceState,omitempty"`
		ParentID   string          `json:"parentSpanId,omitempty"`
		Flags      int             `json:"flags"`
		Name       string          `json:"name"`
		Kind       int             `json:"kind"`
		Start      string          `json:"startTimeUnixNano"`
		End        string          `json:"endTimeUnixNano"`
		Attributes []otlpAttribute `json:"attributes,omitempty"`
		Status     otlpStatus      `json:"status"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String *string `json:"stringValue,omitempty"`
		Int    *string `json:"intValue,omitempty"`
	}
	otlpStatus struct {
		Message string `json:"message,omitempty"`
		Code    int    `json:"code,omitempty"`
	}
)

// Flags of a span beside the W3C's: whether it is known that its parent is remote, and whether it is.
const (
	flagSampled     = 0x1
	flagKnowsRemote = 0x100
	flagIsRemote    = 0x200
)

const statusError = 2

// encode writes a batch.
func encode(resource []otlpAttribute, version string, batch []*Span) ([]byte, error) {
	spans := make([]otlpSpan, len(batch))
	for i, s := range batch {
		spans[i] = s.otlp()
	}
	return json.Marshal(otlpRequest{[]otlpResourceSpans{{
		Resource:   otlpResource{resource},
		ScopeSpans: []otlpScopeSpans{{Scope: otlpScope{"authserver", version}, Spans: spans}},
	}}})
}

func (s *Span) otlp() otlpSpan {
	o := otlpSpan{
		TraceID: hex.EncodeToString(s.trace[:]), SpanID: hex.EncodeToString(s.id[:]), TraceState: s.state,
		Flags: flagSampled | flagKnowsRemote, Name: s.name, Kind: s.kind, Start: nano(s.start), End: nano(s.start.Add(s.took)),
	}
	if s.parent != [8]byte{} {
		o.ParentID = hex.EncodeToString(s.parent[:])
	}
	if s.remote {
		o.Flags |= flagIsRemote
	}
	if s.failed != "" {
		o.Status = otlpStatus{s.failed, statusError}
	}
	for _, a := range s.attributes {
		o.Attributes = append(o.Attributes, a.otlp())
	}
	return o
}

func (a attribute) otlp() otlpAttribute {
	if a.isNumber {
		number := strconv.Itoa(a.number)
		return otlpAttribute{a.key, otlpValue{Int: &number}}
	}
	return otlpAttribute{a.key, otlpValue{String: &a.text}}
}

func nano(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }
