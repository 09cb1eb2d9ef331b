package server_test

import (
	"net/http"
	"testing"

	"authserver/internal/issuer"
	"authserver/internal/server"
)

// programs is an API that fails.
type programs struct{}

func (programs) Serve(http.ResponseWriter, *http.Request, issuer.Request) { panic("oops") }

// problem checks an answer below /api/ (RFC 9457).
func (a answer) problem(t *testing.T, status int, detail string) {
	t.Helper()
	fields := a.fields(t)
	if a.StatusCode != status || fields["status"] != float64(status) || fields["detail"] != detail || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.body)
	}
}

func TestErrorsBelowAPIAreProblems(t *testing.T) {
	f := newFace(t)
	for _, path := range []string{"/api/", "/api/v1/users", "/api/v1/openapi.json"} {
		f.get(path, basic("alice", "secret:1")).problem(t, http.StatusNotFound, "there is no API here: it needs a database, and database.url is none")
	}
	f = newFace(t, func(c *server.Config) { c.API = programs{} })
	f.get("/api/v1/users", basic("alice", "secret:1")).problem(t, http.StatusInternalServerError, "something went wrong here; the operator finds it in the log under this request's id")
	f = newFace(t, func(c *server.Config) { c.API, c.TrustUnix = programs{}, true })
	f.get("/api/v1/users", func(r *http.Request) {
		r.RemoteAddr = "@"
		r.Header.Set("X-Forwarded-For", "192.0.2.1")
		r.Header.Set("Forwarded", "for=192.0.2.2")
	}).problem(t, http.StatusBadRequest, "X-Forwarded-For and Forwarded name different clients; the proxy must remove the one it does not write")
}
