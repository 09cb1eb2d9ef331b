package server_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"authserver/internal/scope"
)

// FuzzToken sends arbitrary bytes where clients send theirs, and holds what comes back against what must always hold.
func FuzzToken(f *testing.F) {
	f.Add(true, "service=registry.local&scope=repository:alice/a:pull", "Basic YWxpY2U6c2VjcmV0OjE=", "", "")
	f.Add(false, "grant_type=password&username=alice&password=secret%3A1&scope=repository:alice/a:*", "", "application/x-www-form-urlencoded", "198.51.100.9")
	f.Add(false, "grant_type=refresh_token&refresh_token=x", "Bearer x", "application/x-www-form-urlencoded; charset=utf-8", "for=x, 1")
	f.Add(true, "offline_token=true&account=alice&scope=%zz", "basic", "", "[::1]:80,")
	var face *face
	f.Fuzz(func(t *testing.T, get bool, text, authorization, contentType, forwarded string) {
		if face == nil {
			face = newFace(t)
		}
		face.t = t
		r := httptest.NewRequest(http.MethodGet, "/token", nil)
		if get {
			r.URL.RawQuery = text
		} else {
			r = httptest.NewRequest(http.MethodPost, "/auth/token", strings.NewReader(text))
			r.Header["Content-Type"] = []string{contentType}
		}
		if authorization != "" {
			r.Header["Authorization"] = []string{authorization}
		}
		r.Header["X-Forwarded-For"] = []string{forwarded}
		r.Header["Forwarded"] = []string{forwarded}
		a := face.do(r)
		var body map[string]any
		if err := json.Unmarshal(a.body, &body); err != nil {
			t.Fatalf("%d %q: %v", a.StatusCode, a.body, err)
		}
		switch a.StatusCode {
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
			if body["token"] != nil || body["access_token"] != nil || body["error"] == "" {
				t.Fatalf("%d %s", a.StatusCode, a.body)
			}
			return
		case http.StatusOK:
		default:
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		c := a.claims(t)
		if authorization != "" && c.Subject == "" || !get && c.Subject == "" {
			t.Fatalf("credentials became anonymous: %q %q", authorization, text)
		}
		values, err := url.ParseQuery(text)
		if err != nil {
			t.Fatalf("%q was answered", text)
		}
		asked, _, err := scope.Parse(values["scope"])
		if err != nil || !c.Access.Within(asked) {
			t.Fatalf("asked %q, granted %q, %v", asked, c.Access, err)
		}
	})
}
