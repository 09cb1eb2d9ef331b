package chaos_test

import (
	"testing"
	"time"

	"authserver/e2e/harness"
)

// Three replicas behind a proxy are restarted one after another, and no client notices.
func TestRollingRestart(t *testing.T) {
	for _, proxy := range []string{"haproxy", "nginx"} {
		t.Run(proxy, func(t *testing.T) {
			a := open(t, harness.Options{Database: harness.Database(t)})
			servers := []*harness.Authserver{a, a.Replica(t, auditIn(t)), a.Replica(t, auditIn(t))}
			ordeal{
				servers: servers,
				clients: at(harness.StartProxy(t, proxy, servers...), a.Service, clients(t, a)),
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
