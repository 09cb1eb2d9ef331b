package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"authserver/internal/issuer"
)

const requestIDHeader = "X-Request-Id"

type contextKey int

const requestIDKey contextKey = 0

// identify gives every request an id of our own making: what a client sends cannot forge a log line.
func (s *server) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var random [12]byte
		_, _ = rand.Read(random[:]) // does not fail (Go 1.24)
		id := hex.EncodeToString(random[:])
		w.Header().Set(requestIDHeader, id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestIDKey, id)))
	})
}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey).(string)
	return id
}

func (s *server) log(r *http.Request) *slog.Logger {
	return s.Log.With("id", requestID(r.Context()))
}

// bound answers 503 past a number of requests under way: memory and goroutines are bounded, whatever they wait for.
func (s *server) bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.inFlight.Add(-1)
		if s.inFlight.Add(1) > maxInFlight {
			s.Metrics.RequestTurnedAway()
			s.fail(w, r, http.StatusServiceUnavailable, problem{code: "UNAVAILABLE", oauth: "temporarily_unavailable", message: "too many requests are under way; try again"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// recover answers 500 when a handler panics, and serves on.
func (s *server) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler {
				panic(v)
			}
			s.log(r).Error("panic", "stack", string(debug.Stack()))
			p := refusal(issuer.Request{}, fmt.Errorf("panic: %v", v))
			s.fail(w, r, p.status, p)
		}()
		next.ServeHTTP(w, r)
	})
}
