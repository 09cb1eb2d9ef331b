package book_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

func TestOperations(t *testing.T) {
	a := harness.StartAuthserver(t, harness.Options{Service: "registry.example.com"})
	a.Token(t, "admin", a.Password, a.Service)
	newReader(t, "http://127.0.0.1:5002", a.Ops).follows("docs/operations.md", "")
}

// Who guesses is held back as docs/passwords.md says, also with the right password.
func TestPasswords(t *testing.T) {
	a := harness.StartAuthserver(t, harness.Options{Users: map[string]string{"alice": "alice's own"}})
	r := newReader(t, "https://auth.example.com", a.URL)
	r.answers = []string{"alice's own"}
	r.follows("docs/passwords.md", "")
}

// Behind the proxies of docs/operations.md nobody chooses their own address, which policies and the throttle go by.
func TestProxiesWriteTheAddress(t *testing.T) {
	a := harness.StartAuthserver(t, harness.Options{Set: []string{"server.trusted_proxies=127.0.0.1"}})
	for where, url := range map[string]string{"no proxy": a.URL, "haproxy": harness.StartProxy(t, "haproxy", a), "nginx": harness.StartProxy(t, "nginx", a)} {
		for _, header := range []string{"X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9"} {
			request, err := http.NewRequest("GET", url+"/token", nil)
			if err != nil {
				t.Fatal(err)
			}
			name, value, _ := strings.Cut(header, ": ")
			request.Header.Set(name, value)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			want := map[bool]string{true: "203.0.113.9", false: "127.0.0.1"}[where == "no proxy"]
			line := regexp.MustCompile(`(?m)^.*"event":"token","id":"` + response.Header.Get("X-Request-Id") + `".*$`).FindString(a.Log())
			if !strings.Contains(line, `"client":"`+want+`"`) {
				t.Errorf("%s, %s: want the client %s: %d, %s", where, header, want, response.StatusCode, line)
			}
		}
	}
}
