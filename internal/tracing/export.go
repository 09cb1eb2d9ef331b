package tracing

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	queueLength = 4096            // spans that wait
	batchLength = 512             // spans of one export
	exportEvery = 2 * time.Second // what waits goes out, however few they are
	exportTime  = 5 * time.Second // for one export
	maxAnswer   = 64 << 10
)

// New returns a tracer that is at work until it is closed.
func New(c Config) *Tracer {
	t := &Tracer{config: c, queue: make(chan *Span, queueLength), closed: make(chan struct{}), done: make(chan struct{})}
	go t.run()
	return t
}

// take never waits.
func (t *Tracer) take(s *Span) {
	select {
	case t.queue <- s:
	default:
		t.config.Observe(Dropped, 1)
	}
}

// Close sends what waits, as long as ctx allows.
func (t *Tracer) Close(ctx context.Context) {
	close(t.closed)
	select {
	case <-t.done:
	case <-ctx.Done():
	}
}

func (t *Tracer) run() {
	defer close(t.done)
	transport := http.DefaultTransport.(*http.Transport).Clone() // with the environment's proxy: the collector may be somebody's service
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: exportTime,
		// A redirect would carry the headers somewhere that nobody configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var instance [8]byte
	_, _ = rand.Read(instance[:])
	resource := []otlpAttribute{
		attribute{key: "service.name", text: t.config.Service}.otlp(),
		attribute{key: "service.version", text: t.config.Version}.otlp(),
		attribute{key: "service.instance.id", text: hex.EncodeToString(instance[:])}.otlp(),
	}
	tick := time.NewTicker(exportEvery)
	defer tick.Stop()
	var batch []*Span
	failing := false
	send := func() {
		if len(batch) == 0 {
			return
		}
		rejected, err := t.export(client, resource, batch)
		if err != nil {
			rejected = len(batch)
		}
		if rejected > 0 {
			t.config.Observe(Dropped, rejected)
		}
		if rejected < len(batch) {
			t.config.Observe(Exported, len(batch)-rejected)
		}
		batch = batch[:0]
		if failing != (err != nil) {
			failing = err != nil
			t.config.Report(err)
		}
	}
	for {
		select {
		case s := <-t.queue:
			if batch = append(batch, s); len(batch) == batchLength {
				send()
			}
		case <-tick.C:
			send()
		case <-t.closed:
			for {
				select {
				case s := <-t.queue:
					if batch = append(batch, s); len(batch) == batchLength {
						send()
					}
					continue
				default:
				}
				send()
				return
			}
		}
	}
}

// export sends a batch once, and tells how many of it the collector did not take.
func (t *Tracer) export(client *http.Client, resource []otlpAttribute, batch []*Span) (rejected int, err error) {
	body, err := encode(resource, t.config.Version, batch)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequest(http.MethodPost, t.config.Endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	for name, value := range t.config.Headers {
		request.Header.Set(name, value)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("answered %d %s", response.StatusCode, http.StatusText(response.StatusCode))
	}
	if err != nil {
		return 0, err
	}
	var partial struct {
		PartialSuccess struct {
			RejectedSpans json.RawMessage `json:"rejectedSpans"` // a 64-bit number is text
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(answer, &partial) == nil {
		n, _ := strconv.Atoi(string(bytes.Trim(partial.PartialSuccess.RejectedSpans, `"`)))
		rejected = max(0, min(n, len(batch)))
	}
	return rejected, nil
}
