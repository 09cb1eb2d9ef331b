package chaos_test

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// A new signing key every second, under the root that registries trust: they take every token, also of keys that are
// used no more.
func TestKeysRotate(t *testing.T) {
	const rotations = 8
	folder := func(*testing.T) harness.Options { return harness.Options{} }
	for _, stage := range []struct {
		name     string
		options  func(*testing.T) harness.Options
		replicas int
	}{{"one server", folder, 0}, {"two that share a folder", folder, 1}, {"two with keys in PostgreSQL", keysInPostgres, 1}} {
		t.Run(stage.name, func(t *testing.T) {
			a := open(t, stage.options(t))
			first := clients(t, a)
			o := ordeal{servers: []*harness.Authserver{a}, clients: first}
			for range stage.replicas {
				b := a.Replica(t, auditIn(t))
				o.servers = append(o.servers, b)
				o.clients = append(o.clients, at(b.URL, b.Service, first)...)
			}
			a.Root = a.Export(t, "pem", a.Service)
			var registries []*harness.Registry
			for _, version := range []string{"2.8.3", "3.1.2"} {
				registries = append(registries, harness.StartRegistry(t, version, a))
			}
			var bad complaints
			taken := func(r result) {
				for _, registry := range registries {
					if status, err := list(registry, r); err != nil || status != http.StatusNotFound { // it may pull what is not there
						bad.add("%s, key %s: %s answers %d, %v", r.client, r.claims.KeyID, registry.Host, status, err)
					}
				}
			}
			var mu sync.Mutex
			keys := map[string]result{}
			o.each = func(r result) {
				mu.Lock()
				keys[r.claims.KeyID] = r
				mu.Unlock()
				taken(r)
			}
			o.run(t, func() {
				for range rotations {
					time.Sleep(time.Second)
					a.Command(t, "", "key", "rotate")
				}
			})
			for _, r := range keys {
				taken(r)
			}
			bad.report(t)
			if len(keys) < rotations/2 { // two may fall into one look
				t.Errorf("%d rotations, and %d keys in use", rotations, len(keys))
			}
			t.Logf("%d keys", len(keys))
		})
	}
}

// keysInPostgres holds for all commands of the test.
func keysInPostgres(t *testing.T) harness.Options {
	key := make([]byte, 32)
	rand.Read(key)
	file := filepath.Join(t.TempDir(), "encryption.key")
	must(t, os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(key)), 0o600))
	t.Setenv("AUTHSERVER_ISSUER__KEYS__STORE", "database")
	t.Setenv("AUTHSERVER_ISSUER__KEYS__ENCRYPTION_KEY_FILE", file)
	return harness.Options{Database: harness.Database(t)}
}

// registryClient keeps as many connections as there are askers.
var registryClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 50}, Timeout: 20 * time.Second}

// list asks a registry for the tags of what a token was given for.
func list(registry *harness.Registry, r result) (status int, err error) {
	request, err := http.NewRequest("GET", "http://"+registry.Host+"/v2/"+r.client.own()+"/tags/list", nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+r.token)
	response, err := registryClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
