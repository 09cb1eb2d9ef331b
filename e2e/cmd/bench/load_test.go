package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestParseAnswer(t *testing.T) {
	const token = `{"token":"eyJhbGciOi"}`
	for _, c := range []struct {
		text     string
		want     answer
		complete bool
		bad      bool
	}{
		{text: "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n" + token, want: answer{status: 200, token: true}, complete: true},
		{text: "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n" + token[:21], want: answer{status: 200, token: true}},
		{text: "HTTP/1.1 200 OK\r\nContent-Length: 2", want: answer{}},
		{text: "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", want: answer{status: 200}, complete: true},
		{text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n16\r\n" + token + "\r\n0\r\n\r\n", want: answer{status: 200, token: true}, complete: true},
		{text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n16\r\n" + token + "\r\n", want: answer{status: 200, token: true}},
		{text: "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", want: answer{status: 503, last: true}, complete: true},
		{text: "SSH-2.0-OpenSSH_9.9\r\n\r\n", bad: true},
		{text: "HTTP/1.1 999 What\r\n\r\n", bad: true},
	} {
		got, complete, err := parseAnswer([]byte(c.text))
		if (err != nil) != c.bad || complete != c.complete || !c.bad && got != c.want {
			t.Errorf("%.60q: %+v, complete %v, %v", c.text, got, complete, err)
		}
	}
}

func TestRequestsAreRead(t *testing.T) {
	j := job{Address: "127.0.0.1:1", Target: "/token?service=a", User: "u", Users: 10, First: 20, Password: "p:w", Guess: true}
	text, _ := j.appendRequest(nil, nil, 13)
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(text))))
	if err != nil {
		t.Fatal(err)
	}
	name, password, ok := request.BasicAuth()
	if !ok || name != "u000023" || password != "p:w000013" || request.RequestURI != j.Target || request.Host != j.Address {
		t.Errorf("%q %q %v %q %q", name, password, ok, request.RequestURI, request.Host)
	}
	j.User = ""
	if text, _ := j.appendRequest(nil, nil, 0); strings.Contains(string(text), "Authorization") {
		t.Errorf("anonymous: %s", text)
	}
}

func TestOpenScheduleKeepsItsTimesHoweverLateItIs(t *testing.T) {
	s := schedule{next: 1, step: 2, interval: float64(time.Millisecond), requests: 6, end: time.Second}
	for _, want := range []time.Duration{1, 3, 5} { // this thread's share of 0..5
		if at, more := s.due(900 * time.Millisecond); at != want*time.Millisecond || !more {
			t.Errorf("due at %v, %v; want %v ms", at, more, want)
		}
		s.next += s.step
	}
	if _, more := s.due(0); more {
		t.Error("goes on after its requests")
	}
	s = schedule{next: 1000, step: 1, interval: float64(time.Millisecond), end: time.Second}
	if _, more := s.due(0); more {
		t.Error("goes on after its end")
	}
	s.next = 999
	if at, more := s.due(time.Hour); at != 999*time.Millisecond || !more {
		t.Errorf("leaves out a request that was due before the end: %v, %v", at, more)
	}
}

func TestClosedScheduleIsDueAtOnce(t *testing.T) {
	s := schedule{step: 1, end: time.Second}
	if at, more := s.due(time.Millisecond); at != time.Millisecond || !more {
		t.Errorf("%v, %v", at, more)
	}
	if _, more := s.due(time.Second); more {
		t.Error("goes on after its end")
	}
}

// A server that stands still delays every request that is due meanwhile, not only the one that it was asked for.
func TestWaitingIsCountedFromWhenARequestWasDue(t *testing.T) {
	const stall = 300 * time.Millisecond
	var once sync.Once
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { time.Sleep(stall) })
		_, _ = io.WriteString(w, `{"token":"eyJ"}`)
	})
	o, err := load(job{Address: server, Target: "/", Connections: 1, Rate: 1000, Requests: 400})
	if err != nil {
		t.Fatal(err)
	}
	if o.Answers[200] != 400 || o.bad() != 0 {
		t.Errorf("answers: %v %v", o.Answers, o.Faults)
	}
	if o.Max < stall || o.P50 < stall/10 { // 300 of 400 were due while it stood still, half of these 150 ms before its end
		t.Errorf("p50 %v, max %v after a stall of %v", o.P50, o.Max, stall)
	}
}

func TestWhatIsNoTokenIsCounted(t *testing.T) {
	var n atomic.Int64
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) {
		case 1:
			w.WriteHeader(http.StatusTooManyRequests)
		case 2: // without a token
		case 3:
			panic(http.ErrAbortHandler)
		case 4:
			w.Header().Set("Connection", "close")
			fallthrough
		default:
			_, _ = io.WriteString(w, `{"token":"eyJ"}`)
		}
	})
	o, err := load(job{Address: server, Target: "/", Connections: 1, Requests: 10})
	if err != nil {
		t.Fatal(err)
	}
	if o.Answers[200] != 7 || o.Answers[429] != 1 || o.Faults["200 without a token"] != 1 || o.Faults["connection lost"] != 1 || o.bad() != 3 {
		t.Errorf("answers: %v %v", o.Answers, o.Faults)
	}
}

func TestAServerThatIsNotThereIsAnError(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	if _, err := load(job{Address: address, Target: "/", Connections: 1, Requests: 1}); err == nil {
		t.Error("no error")
	}
}

func serve(t *testing.T, h http.HandlerFunc) (address string) {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
