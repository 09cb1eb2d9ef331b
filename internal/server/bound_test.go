package server_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"authserver/internal/issuer"
	"authserver/internal/metrics"
	"authserver/internal/server"
)

// stuck answers nobody until it is let go.
type stuck struct {
	server.Issuer
	entered sync.WaitGroup
	release chan struct{}
}

func (s *stuck) Issue(context.Context, issuer.Request) (issuer.Result, error) {
	s.entered.Done()
	<-s.release
	return issuer.Result{}, issuer.ErrUnavailable
}

func TestRequestsUnderWayAreBoundedAndCounted(t *testing.T) {
	const most = 2048
	s, m := &stuck{release: make(chan struct{})}, metrics.New("", "", "")
	handler := server.New(server.Config{Issuer: s, Log: slog.New(slog.DiscardHandler), Metrics: m})
	ask := func() int {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/token", nil))
		return w.Code
	}
	s.entered.Add(most)
	var all sync.WaitGroup
	for range most {
		all.Go(func() { ask() })
	}
	s.entered.Wait()
	if got := ask(); got != http.StatusServiceUnavailable {
		t.Errorf("one more is answered %d", got)
	}
	close(s.release)
	all.Wait()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if !strings.Contains(w.Body.String(), "\nauthserver_requests_turned_away_total 1\n") {
		t.Error("the one that was turned away is not counted")
	}
}
