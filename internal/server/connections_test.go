package server_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"authserver/internal/metrics"
	"authserver/internal/server"
)

// limited is a server with room for most connections, whose handler waits until release is closed when asked for /wait.
func limited(t *testing.T, most int) (address string, ln *server.Connections, entered, release chan struct{}) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered, release = make(chan struct{}, 100), make(chan struct{})
	srv := server.NewHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			entered <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "ok")
	}), slog.New(slog.DiscardHandler))
	ln = server.LimitConnections(inner, most)
	srv.ConnState = ln.State
	srv.ReadHeaderTimeout, srv.ReadTimeout = 0, 0 // who is silent is closed for another, or not at all
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return inner.Addr().String(), ln, entered, release
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends a request and returns the status of the answer, 0 when the connection is closed.
func ask(c net.Conn, path string) int {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, r.Body)
	_ = r.Body.Close()
	return r.StatusCode
}

// closed waits for the other side to close.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || isTimeout(err) {
		t.Errorf("the connection is still open: %d, %v", n, err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

func TestPastTheBoundTheConnectionThatDidNothingForLongestGoes(t *testing.T) {
	address, ln, _, _ := limited(t, 3)
	silent := dial(t, address)
	used := dial(t, address)
	if ask(used, "/") != 200 {
		t.Fatal("no answer")
	}
	third := dial(t, address)
	if ask(third, "/") != 200 {
		t.Fatal("no answer")
	}
	if got := ask(dial(t, address), "/"); got != 200 {
		t.Errorf("the newest is answered %d", got)
	}
	closed(t, silent)
	for name, c := range map[string]net.Conn{"used": used, "third": third} {
		if got := ask(c, "/"); got != 200 {
			t.Errorf("%s: %d, want it kept", name, got)
		}
	}
	if got, want := ln.Count(), (metrics.Connections{Open: 3, Limit: 3, ClosedIdle: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestAConnectionAtWorkIsNeverClosedForAnother(t *testing.T) {
	address, ln, entered, release := limited(t, 2)
	answers := make(chan int, 2)
	for range 2 {
		c := dial(t, address)
		go func() { answers <- ask(c, "/wait") }()
	}
	<-entered
	<-entered
	closed(t, dial(t, address)) // there is no room for it
	if got, want := ln.Count(), (metrics.Connections{Open: 2, Limit: 2, ClosedNew: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	close(release)
	for range 2 {
		if got := <-answers; got != 200 {
			t.Errorf("a request under way is answered %d", got)
		}
	}
	// A client has its answer a moment before the server knows that the connection is idle.
	for until := time.Now().Add(time.Minute); ask(dial(t, address), "/") != 200; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("nobody is served afterwards")
		}
	}
}

func TestManyConnectionsThatSendNothingDoNotKeepOthersOut(t *testing.T) {
	address, _, _, _ := limited(t, 50)
	for range 500 {
		dial(t, address)
	}
	for range 20 {
		if got := ask(dial(t, address), "/"); got != 200 {
			t.Fatalf("answered %d", got)
		}
	}
}
