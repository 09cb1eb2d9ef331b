package deploy_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// A fault is something that people get wrong.
type fault struct {
	file        string   // in deploy/registry
	environment []string // over it
	starts      bool     // whether the registry starts with it
	token       string
}

// Whatever docs/registries says that a registry writes to its log, one of its versions does, for one of these faults.
func TestRegistriesSayWhatIsWrong(t *testing.T) {
	i, other := serveRegistries(t), serveRegistries(t)
	const service, scope = "registry.example.com", "repository:admin/app:pull"
	good := i.token(t, service, scope)
	expired := ""
	if runtime.GOARCH == "amd64" {
		clock := harness.ClockOf(t, i.process)
		clock.Set(t, -10*time.Minute)
		expired = i.token(t, service, scope)
		clock.Set(t, 0)
	}
	bundle := func(path string) string { return "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE=" + path }
	root := bundle(i.export(t))
	chain := []fault{
		{environment: []string{root, "REGISTRY_AUTH_TOKEN_ISSUER=other"}, starts: true, token: good},
		{environment: []string{root, "REGISTRY_AUTH_TOKEN_SERVICE=other"}, starts: true, token: good},
		{environment: []string{root}, starts: true, token: i.token(t, service, "repository:admin/other:pull")},
		{environment: []string{root}, starts: true},
		{environment: []string{bundle(other.export(t))}, starts: true, token: good},
		{environment: []string{bundle("/nowhere/token-bundle.pem")}},
		{environment: []string{bundle(filepath.Join(i.data, "root.key"))}},
	}
	if expired != "" {
		chain = append(chain, fault{environment: []string{root}, starts: true, token: expired})
	}
	for n := range chain {
		chain[n].file = "distribution.yml"
	}
	const jwksService = "registry-jwks.example.com"
	jwks := func(i issuer) string {
		return "REGISTRY_AUTH_TOKEN_JWKS=" + i.export(t, "--service", jwksService, "--format", "jwks")
	}
	for _, page := range []struct {
		name     string
		versions []string
		faults   []fault
	}{
		{"distribution-2", []string{"2.5.2", "2.8.3", "debian"},
			append(chain[:len(chain):len(chain)], fault{file: "distribution.yml", environment: []string{bundle(ed25519Certificate(t))}})},
		{"distribution-3", []string{"3.0.0", "3.1.2"}, append(chain[:len(chain):len(chain)],
			fault{"distribution-jwks.yml", []string{jwks(other)}, true, i.token(t, jwksService, scope)},
			fault{"distribution-jwks.yml", []string{jwks(i), "REGISTRY_AUTH_TOKEN_SERVICE=" + service}, true, good},
			fault{file: "distribution-jwks.yml", environment: []string{"REGISTRY_AUTH_TOKEN_JWKS=" + i.export(t)}},
		)},
		{"gitlab", []string{"2.8.3"}, chain},
	} {
		t.Run(page.name, func(t *testing.T) {
			logs := ""
			for _, version := range page.versions {
				for _, f := range page.faults {
					logs += f.log(t, version)
				}
			}
			text := string(harness.ReadFile(t, filepath.Join(harness.Root(t), "..", "docs", "registries", page.name+".md")))
			_, table, ok := strings.Cut(text, "| in the log |")
			if !ok {
				t.Fatal("the page has no table that begins with | in the log |")
			}
			table, _, _ = strings.Cut(table, "\n\n")
			said := regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(table, -1)
			if len(said) == 0 {
				t.Fatal("the table is empty")
			}
			for _, message := range said {
				if expired == "" && strings.Contains(message[1], "not to be used") {
					continue
				}
				pattern := strings.ReplaceAll(regexp.QuoteMeta(message[1]), "…", ".*")
				if !regexp.MustCompile(pattern).MatchString(logs) {
					t.Errorf("no log has %q", message[1])
				}
			}
			if t.Failed() {
				for line := range strings.Lines(logs) {
					if strings.Contains(line, "token") && !strings.Contains(line, "response completed") {
						t.Log(line)
					}
				}
			}
		})
	}
}

// log is what the registry writes when it is started with the fault and asked once.
func (f fault) log(t *testing.T, version string) string {
	t.Helper()
	host := fmt.Sprintf("localhost:%d", harness.FreePort(t))
	environment := append([]string{
		"REGISTRY_HTTP_ADDR=" + host,
		"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=" + t.TempDir(),
		"OTEL_TRACES_EXPORTER=none",
		"REGISTRY_HTTP_DRAINTIMEOUT=5s", // without it the stock program does not end by itself
	}, f.environment...)
	program, file := registryProgram(t, version), shipped(t, "registry", f.file)
	if !f.starts {
		out, err := harness.Run(t, environment, "", program, "serve", file)
		if err == nil {
			t.Errorf("registry %s starts with %q", version, f.environment)
		}
		return out
	}
	r := harness.Start(t, environment, program, "serve", file)
	request, err := http.NewRequest("GET", "http://"+host+"/v2/admin/app/tags/list", nil)
	if err != nil {
		t.Fatal(err)
	}
	if f.token != "" {
		request.Header.Set("Authorization", "Bearer "+f.token)
	}
	r.Await(t, func() error {
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("registry %s with %q: status %d", version, f.environment, response.StatusCode)
		}
		return nil
	})
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	return r.Log()
}

// ed25519Certificate is the path of a certificate with a key that old registries do not know.
func ed25519Certificate(t *testing.T) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ed25519"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ed25519.crt")
	write(t, path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	return path
}
