package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"authserver/internal/issuer"
	"authserver/internal/server"
	"authserver/internal/users"
)

// form posts a form to a path.
func (f *face) form(path string, form url.Values, change ...func(*http.Request)) answer {
	f.t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range change {
		c(r)
	}
	return f.do(r)
}

func TestRevokeAndIntrospectAnswerByTheirRFCs(t *testing.T) {
	token := url.Values{"token": {"asat_x"}}
	for _, path := range []string{"/revoke", "/introspect"} {
		good := newFace(t, with(stub{}))
		if a := good.form(path, token, basic("alice", "x")); a.StatusCode != http.StatusOK || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %s", path, a.StatusCode, a.Header, a.body)
		}
		good.form(path, url.Values{}, basic("alice", "x")).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
		good.form(path, url.Values{"token": {"a", "b"}}).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
		good.form(path, url.Values{"token": {strings.Repeat("x", 33<<10)}}).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
		good.form(path, url.Values{"token": {strings.Repeat("x", 65<<10)}}).refused(t, http.StatusRequestEntityTooLarge, "SIZE_INVALID", "invalid_request")
		good.form(path, token, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }).refused(t, http.StatusUnsupportedMediaType, "UNSUPPORTED", "invalid_request")
		for _, c := range []struct {
			err         error
			status      int
			code, oauth string
		}{
			{issuer.ErrForbidden, http.StatusForbidden, "DENIED", "access_denied"},
			{issuer.ErrCannotRevoke, http.StatusBadRequest, "UNSUPPORTED", "unsupported_token_type"},
			{users.ErrRefused, http.StatusUnauthorized, "UNAUTHORIZED", "invalid_grant"},
			{issuer.ErrUnavailable, http.StatusServiceUnavailable, "UNAVAILABLE", "temporarily_unavailable"},
			{errors.New("disk full at /var"), http.StatusInternalServerError, "UNKNOWN", "server_error"},
		} {
			f := newFace(t, with(stub{err: c.err}))
			a := f.form(path, token, basic("alice", "x"))
			a.refused(t, c.status, c.code, c.oauth)
			if bytes.Contains(a.body, []byte("disk")) {
				t.Errorf("%s: %s", path, a.body)
			}
		}
	}
	// No answer about a token without a trace of who asks.
	newFace(t).form("/introspect", token).refused(t, http.StatusUnauthorized, "UNAUTHORIZED", "invalid_grant")
	newFace(t).form("/introspect", token, func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }).refused(t, http.StatusUnauthorized, "UNAUTHORIZED", "invalid_grant")
}

func TestMetadata(t *testing.T) {
	for _, refresh := range []bool{false, true} {
		a := newFace(t, func(c *server.Config) { c.PublicURL, c.Refresh = "https://auth.example.com", refresh }).get("/.well-known/oauth-authorization-server")
		var m map[string]any
		if err := json.Unmarshal(a.body, &m); err != nil || a.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		if m["issuer"] != "https://auth.example.com" || m["token_endpoint"] != "https://auth.example.com/token" || m["revocation_endpoint"] != "https://auth.example.com/revoke" ||
			m["introspection_endpoint"] != "https://auth.example.com/introspect" || m["jwks_uri"] != "https://auth.example.com/.well-known/jwks.json" {
			t.Errorf("%s", a.body)
		}
		if bytes.Contains(a.body, []byte(`"refresh_token"`)) != refresh {
			t.Errorf("refresh tokens %v: %s", refresh, a.body)
		}
	}
}
