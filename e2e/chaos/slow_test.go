package chaos_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// Who sends a byte a second, or nothing, is sent away in time, and keeps nobody else waiting.
func TestSlowClients(t *testing.T) {
	const each = 150
	const slack = 3 * time.Second
	a := open(t, harness.Options{})
	head := "POST /token HTTP/1.1\r\nHost: auth\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\n"
	const netHTTP = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain" // it takes the half of a line for a line
	kinds := []struct {
		name  string
		first string // is sent at once
		drip  string // is sent a byte a second
		limit time.Duration
		lazy  string // what may be answered besides nothing and 408
	}{
		{"silent", "", "", 5 * time.Second, ""},
		{"slow header", "GET /token?service=", strings.Repeat("x", 60), 5 * time.Second, netHTTP},
		{"no end of the header", "GET /token HTTP/1.1\r\nHost: auth\r\n", strings.Repeat("A: b\r\n", 10), 5 * time.Second, netHTTP},
		{"slow body", head, strings.Repeat("x", 60), 10 * time.Second, ""},
		{"no body", head, "", 10 * time.Second, ""},
	}
	ordeal{servers: []*harness.Authserver{a}, clients: clients(t, a)}.run(t, func() {
		var all sync.WaitGroup
		var bad complaints
		for _, kind := range kinds {
			for range each {
				all.Go(func() {
					start := time.Now()
					answer, err := drip(a, kind.first, kind.drip)
					took := time.Since(start)
					well := answer == "" || strings.HasPrefix(answer, "HTTP/1.1 408 ") || kind.lazy != "" && strings.HasPrefix(answer, kind.lazy)
					if err != nil || !well {
						bad.add("%s: answer %.60q, %v", kind.name, answer, err)
					}
					if took > kind.limit+slack {
						bad.add("%s: was kept for %s", kind.name, took.Round(time.Second))
					}
				})
			}
		}
		all.Wait()
		bad.report(t)
	})
}

// drip sends first at once and rest slowly, until the connection is closed from the other side, and returns what was answered.
func drip(a *harness.Authserver, first, rest string) (string, error) {
	conn, err := dial(a)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, first); err != nil {
		return "", err
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for i := range rest {
			select {
			case <-done:
				return
			case <-time.After(time.Second):
				io.WriteString(conn, rest[i:i+1])
			}
		}
	}()
	return answered(conn)
}

// answered reads until the other side closes. That it does so before it has read everything is no error.
func answered(conn net.Conn) (string, error) {
	answer, err := io.ReadAll(conn)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return string(answer), fmt.Errorf("the connection was not closed: %w", err)
	}
	return string(answer), nil
}

func dial(a *harness.Authserver) (*net.TCPConn, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(a.URL, "http://"))
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}
