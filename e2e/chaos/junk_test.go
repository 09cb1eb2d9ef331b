package chaos_test

import (
	"crypto/rand"
	"encoding/base64"
	"io"
	"strconv"

	"strings"
	"sync"
	"testing"
	"time"

	"authserver/e2e/harness"
)

const host = "Host: auth\r\nConnection: close\r\n"

// What is no request gets no token, costs nothing that lasts, and disturbs nobody.
func TestFloodsOfJunk(t *testing.T) {
	const flood = 5 * time.Second
	random := make([]byte, 4096)
	rand.Read(random)
	junk := map[string]string{
		"random bytes":              string(random),
		"TLS hello":                 "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + string(random[:512]),
		"HTTP/0.9":                  "GET /token\r\n",
		"HTTP/2 preface":            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"HTTP/9.9":                  "GET /token HTTP/9.9\r\n" + host + "\r\n",
		"a method that is none":     "B@D /token HTTP/1.1\r\n" + host + "\r\n",
		"a method that is not ours": "PROPFIND /token HTTP/1.1\r\n" + host + "\r\n",
		"percent in the path":       "GET /to%zzken HTTP/1.1\r\n" + host + "\r\n",
		"percent in the query":      "GET /token?scope=%zz HTTP/1.1\r\n" + host + "\r\n",
		"NUL in the request line":   "GET /to\x00ken HTTP/1.1\r\n" + host + "\r\n",
		"NUL in a header":           "GET /token HTTP/1.1\r\n" + host + "A: \x00\r\n\r\n",
		"NUL in a header's name":    "GET /token HTTP/1.1\r\n" + host + "A\x00: b\r\n\r\n",
		"NUL in the service":        "GET /token?service=%00 HTTP/1.1\r\n" + host + "\r\n",
		"NUL in the name":           post("grant_type=password&username=a%00b&password=x"),
		"no host":                   "GET /token HTTP/1.1\r\n\r\n",
		"two lengths":               "POST /token HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"a negative length":         "POST /token HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n",
		"length and chunks":         "POST /token HTTP/1.1\r\n" + host + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunks of junk":            "POST /token HTTP/1.1\r\n" + host + "Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"a form that is none":       post("grant_type=%zz"),
		"Basic of junk":             "GET /token HTTP/1.1\r\n" + host + "Authorization: Basic \xff\xfe\r\n\r\n",
		"Bearer of junk":            "GET /token HTTP/1.1\r\n" + host + "Authorization: Bearer " + strings.Repeat("x.", 1000) + "\r\n\r\n",
	}
	a := open(t, harness.Options{})
	ordeal{servers: []*harness.Authserver{a}, clients: clients(t, a)}.run(t, func() {
		end := time.Now().Add(flood)
		var all sync.WaitGroup
		for name, text := range junk {
			all.Go(func() {
				for time.Now().Before(end) {
					if answer := say(t, a, text); answer != "" && !strings.HasPrefix(answer, "HTTP/1.1 4") && !strings.HasPrefix(answer, "HTTP/1.1 505") {
						t.Errorf("%s: %.100q", name, answer)
						return
					}
				}
			})
		}
		all.Wait()
	})
}

// What is larger than anybody needs is refused in the way that is documented.
func TestEverythingTooLarge(t *testing.T) {
	const flood = 3 * time.Second
	a := open(t, harness.Options{})
	basic := func(user, password string) string {
		return "GET /token HTTP/1.1\r\n" + host + "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n\r\n"
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	large := []struct{ name, text, status string }{
		{"a header of 64 KiB", "GET /token HTTP/1.1\r\n" + host + "A: " + long(64<<10) + "\r\n\r\n", "431"},
		{"headers of 64 KiB", "GET /token HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 64<<10/6) + "\r\n", "431"},
		{"a query of 64 KiB", "GET /token?scope=" + long(64<<10) + " HTTP/1.1\r\n" + host + "\r\n", "431"},
		{"a body of 1 MB", post("grant_type=password&username=" + long(1e6)), "413"},
		{"10 000 scopes", post("grant_type=password&username=alice&password=" + strings.ReplaceAll(alicePassword, " ", "+") + "&scope=" + strings.Repeat("a:b:c+", 10000)), "400"},
		{"a scope with a long name", "GET /token?scope=repository:" + long(1000) + ":pull HTTP/1.1\r\n" + host + "\r\n", "400"},
		{"a long user name", basic(long(10000), "x"), "401"},
		{"a long password", basic("alice", long(10000)), "401"},
		{"a password with a long tail", basic("alice", alicePassword+long(72)), "401"},
		{"a long user name by POST", post("grant_type=password&password=x&username=" + long(10000)), "401"},
		{"a long password by POST", post("grant_type=password&username=alice&password=" + long(10000)), "401"},
		{"a long refresh token", post("grant_type=refresh_token&refresh_token=" + long(10000)), "401"},
	}
	ordeal{servers: []*harness.Authserver{a}, clients: clients(t, a)}.run(t, func() {
		end := time.Now().Add(flood)
		var all sync.WaitGroup
		for _, l := range large {
			all.Go(func() {
				for time.Now().Before(end) {
					if answer := say(t, a, l.text); !strings.HasPrefix(answer, "HTTP/1.1 "+l.status+" ") {
						t.Errorf("%s: %.100q, want %s", l.name, answer, l.status)
						return
					}
				}
			})
		}
		all.Wait()
	})
}

// Thousands of connections that are broken off, before, within and after the request.
func TestConnectionsComeAndGo(t *testing.T) {
	const each = 1500
	a := open(t, harness.Options{})
	ordeal{servers: []*harness.Authserver{a}, clients: clients(t, a)}.run(t, func() {
		var all sync.WaitGroup
		form := post("grant_type=password&username=alice&password=wrong")
		for _, text := range []string{"", "GET /tok", "GET /token HTTP/1.1\r\n" + host + "\r\n", form[:len(form)-5]} {
			all.Go(func() {
				for range each {
					conn, err := dial(a)
					if err != nil {
						t.Error(err)
						return
					}
					conn.SetLinger(0) // RST
					io.WriteString(conn, text)
					conn.Close()
				}
			})
		}
		all.Wait()
	})
}

// post is a token request with a form.
func post(form string) string {
	return "POST /token HTTP/1.1\r\n" + host + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: " + strconv.Itoa(len(form)) + "\r\n\r\n" + form
}

// say sends text on a new connection and returns what is answered.
func say(t *testing.T, a *harness.Authserver, text string) string {
	t.Helper()
	conn, err := dial(a)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer conn.Close()
	conn.SetLinger(0)
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	go io.WriteString(conn, text) // it may be answered before it was read
	answer, err := answered(conn)
	if err != nil {
		t.Error(err)
	}
	return answer
}
