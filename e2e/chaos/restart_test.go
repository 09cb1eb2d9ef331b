package chaos_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// Three replicas behind a proxy are restarted one after another, and no client notices.
func TestRollingRestart(t *testing.T) {
	for _, proxy := range []struct {
		name  string
		start func(*testing.T, int, []*harness.Authserver)
	}{{"haproxy", haproxy}, {"nginx", nginx}} {
		t.Run(proxy.name, func(t *testing.T) {
			a := open(t, harness.Options{Database: harness.Database(t)})
			servers := []*harness.Authserver{a, a.Replica(t, auditIn(t)), a.Replica(t, auditIn(t))}
			port := harness.FreePort(t)
			proxy.start(t, port, servers)
			ordeal{
				servers: servers,
				clients: at(fmt.Sprintf("http://127.0.0.1:%d", port), a.Service, clients(t, a)),
			}.run(t, func() {
				for range 2 {
					for i, s := range servers {
						if err := s.Stop(); err != nil {
							t.Errorf("server %d: %v", i, err)
						}
						s.Restart(t)                // and wait for /readyz
						time.Sleep(2 * time.Second) // until the proxy has seen it: see minReadySeconds
					}
				}
			})
		})
	}
}

// haproxy asks for /readyz, and repeats what cannot connect or gets no answer: to ask for a token twice does no harm.
func haproxy(t *testing.T, port int, servers []*harness.Authserver) {
	t.Helper()
	var list strings.Builder
	for i, s := range servers {
		fmt.Fprintf(&list, "  server s%d %s check port %s\n", i, "127.0.0.1:"+portOf(s.URL), portOf(s.Ops))
	}
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 30s
  retries 3
  option redispatch 1
  retry-on conn-failure empty-response
  option httpchk GET /readyz
  default-server inter 500ms fall 1 rise 1
frontend public
  bind 127.0.0.1:%d
  http-request disable-l7-retry if METH_POST !{ path /token /auth/token }
  default_backend authserver
backend authserver
%s`, port, list.String()), 0o600))
	p := harness.Start(t, nil, harness.Program(t, "haproxy"), "-db", "-f", config)
	t.Cleanup(p.Kill)
	awaitProxy(t, p, port)
}

// nginx learns from failures alone.
func nginx(t *testing.T, port int, servers []*harness.Authserver) {
	t.Helper()
	dir := t.TempDir()
	var list strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&list, "    server %s max_fails=1 fail_timeout=1s;\n", "127.0.0.1:"+portOf(s.URL))
	}
	config := filepath.Join(dir, "nginx.conf")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `
daemon off;
pid nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream authserver {
%s    keepalive 16;
  }
  server {
    listen 127.0.0.1:%d;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_connect_timeout 2s;
    location / { proxy_pass http://authserver; }
    location ~ ^(/auth)?/token$ {
      proxy_pass http://authserver;
      proxy_next_upstream error timeout non_idempotent;
    }
  }
}
`, list.String(), port), 0o600))
	p := harness.Start(t, nil, harness.Program(t, "nginx"), "-p", dir, "-c", config)
	awaitProxy(t, p, port)
}

func awaitProxy(t *testing.T, p *harness.Process, port int) {
	t.Helper()
	p.Await(t, func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func portOf(url string) string { return url[strings.LastIndex(url, ":")+1:] }
