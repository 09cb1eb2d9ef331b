package main

import (
	"context"
	"log/slog"
	"time"

	"authserver/internal/config"
	"authserver/internal/metrics"
	"authserver/internal/tracing"
)

// lastSpans is how long the end of the process waits for the collector.
const lastSpans = 2 * time.Second

// openTracer begins to tell the collector of tracing; nil when there is none. close sends what waits.
func openTracer(c *config.Config, log *slog.Logger, m *metrics.Metrics) (tracer *tracing.Tracer, close func(), err error) {
	if !c.Tracing.Enabled() {
		return nil, func() {}, nil
	}
	headers, err := traceHeaders(c)
	if err != nil {
		return nil, nil, err
	}
	tracer = tracing.New(tracing.Config{
		Endpoint: c.Tracing.Endpoint, Headers: headers, Service: c.Tracing.ServiceName, Version: version, OneIn: c.Tracing.SampleOneIn, Observe: m.Spans,
		Report: func(err error) {
			if err != nil {
				log.Warn("traces cannot be delivered; requests are not affected", "error", err.Error())
			} else {
				log.Info("traces are delivered again")
			}
		},
	})
	return tracer, func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastSpans)
		defer cancel()
		tracer.Close(ctx)
	}, nil
}

// traceHeaders reads tracing.headers_file.
func traceHeaders(c *config.Config) (map[string]string, error) {
	if !c.Tracing.Enabled() || c.Tracing.HeadersFile == "" {
		return nil, nil
	}
	headers, err := tracing.ReadHeaders(c.Tracing.HeadersFile)
	if err != nil {
		return nil, c.Fault("tracing.headers_file", err)
	}
	return headers, nil
}
