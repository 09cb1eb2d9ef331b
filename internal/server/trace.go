package server

import (
	"net/http"
	"slices"

	"github.com/go-chi/chi/v5"

	"authserver/internal/tracing"
)

// trace makes a span of every request. Only a trusted proxy may say that a request belongs to a trace of its own, and so decide
// that it is recorded.
func (s *server) trace(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var parent tracing.Parent
		if s.fromProxy(r) {
			parent = tracing.ParseParent(r.Header)
		}
		ctx, span := s.Tracer.Begin(r.Context(), "", parent)
		r = r.WithContext(ctx)
		if span == nil {
			next.ServeHTTP(w, r)
			return
		}
		status := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			method := r.Method
			if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, method) { // a client chose it
				method = "_OTHER"
			}
			name := method
			if route := chi.RouteContext(r.Context()).RoutePattern(); route != "" {
				span.Set("http.route", route)
				name += " " + route
			}
			span.Rename(name)
			span.Set("http.request.method", method)
			span.SetInt("http.response.status_code", status.status)
			span.Set("authserver.request_id", requestID(ctx))
			if status.status >= http.StatusInternalServerError {
				span.Fail(http.StatusText(status.status))
			}
			span.End()
		}()
		next.ServeHTTP(status, r)
	})
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
