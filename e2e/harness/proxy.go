package harness

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// StartProxy starts "haproxy" or "nginx" as docs/operations.md sets it up, before these servers, and returns its address. Unlike on
// the page it speaks plain HTTP, on a port of its own.
func StartProxy(t testing.TB, program string, servers ...*Authserver) string {
	t.Helper()
	page := ReadFile(t, filepath.Join(Root(t), "..", "docs", "operations.md"))
	sample := regexp.MustCompile("(?s)```\\w*\n# " + program + "\n(.*?)```").FindSubmatch(page)
	if sample == nil {
		t.Fatalf("docs/operations.md has no block that begins with # %s", program)
	}
	config := string(sample[1])
	change := func(pattern, to string) {
		t.Helper()
		changed := regexp.MustCompile("(?m)"+pattern).ReplaceAllLiteralString(config, to)
		if changed == config {
			t.Fatalf("docs/operations.md: %s has no %s", program, pattern)
		}
		config = changed
	}
	replica := regexp.MustCompile(`(?m)^.*10\.0\.0\.1:5001.*\n`).FindString(config)
	var replicas strings.Builder
	for i, s := range servers {
		replicas.WriteString(strings.NewReplacer("server a ", fmt.Sprintf("server s%d ", i), "10.0.0.1:5001", "127.0.0.1:"+portOf(s.URL), "5002", portOf(s.Ops)).Replace(replica))
	}
	change(`^.*10\.0\.0\.1:5001.*\n`, replicas.String())
	change(`^.*10\.0\.0\.2:5001.*\n`, "")
	dir, address := t.TempDir(), fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	file := filepath.Join(dir, program+".conf")
	args := []string{"-db", "-f", file}
	switch program {
	case "haproxy":
		change(`bind :443 ssl .*$`, "bind "+address)
	case "nginx":
		change(`listen 443 ssl;`, "listen "+address+";")
		change(`^ *ssl_.*\n`, "")
		config = `daemon off;
pid nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
access_log off;
client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
` + config + "}\n"
		args = []string{"-p", dir, "-c", file}
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Start(t, nil, Program(t, program), args...)
	t.Cleanup(p.Kill)
	p.Await(t, func() error {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return "http://" + address
}

func portOf(url string) string { return url[strings.LastIndex(url, ":")+1:] }
