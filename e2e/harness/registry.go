package harness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Registry is a running Distribution registry that believes an authserver.
type Registry struct {
	*Process
	Host string // localhost:PORT, as in an image's name
}

// StartRegistry starts the registry of a version with deletion enabled. It takes tokens of a for the service that a was made with.
func StartRegistry(t testing.TB, version string, a *Authserver) *Registry {
	t.Helper()
	return StartRegistryTrusting(t, version, a, a.Service, "rootcertbundle", a.Root)
}

// StartRegistryTrusting is StartRegistry for another service, and for another file to believe: a rootcertbundle or a jwks.
func StartRegistryTrusting(t testing.TB, version string, a *Authserver, service, key, file string) *Registry {
	t.Helper()
	port := FreePort(t)
	config := filepath.Join(t.TempDir(), "registry.yml")
	write(t, config, `version: 0.1
log: {level: info}
storage:
  filesystem: {rootdirectory: %q} # the in-memory driver of old versions can deadlock
  delete: {enabled: true}
http: {addr: "127.0.0.1:%d"}
auth:
  token:
    realm: %q
    service: %q
    issuer: %q
    %s: %q
`, t.TempDir(), port, a.URL+"/token", service, a.Issuer, key, file)

	r := &Registry{Host: fmt.Sprintf("localhost:%d", port)}
	// Without the variable version 3 sends traces to localhost:4318.
	r.Process = Start(t, []string{"OTEL_TRACES_EXPORTER=none"}, Program(t, "registry-"+version), "serve", config)
	r.Await(t, func() error { return expect("http://"+r.Host+"/v2/", http.StatusUnauthorized) })
	return r
}

// Access is one thing that a registry demands of a token.
type Access struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Action string `json:"action"`
}

// A Verdict is what a verifier says of a token.
type Verdict struct {
	OK        bool   `json:"ok"`
	Subject   string `json:"subject"`
	Error     string `json:"error"`
	Challenge string `json:"challenge"`
}

// A Verifier is the token access controller of one Distribution version.
type Verifier struct {
	in  *json.Encoder
	out *bufio.Reader
}

// VerifierOptions are the keys of auth.token in the configuration of a registry.
type VerifierOptions struct {
	Realm          string `json:"realm"`
	Service        string `json:"service"`
	Issuer         string `json:"issuer"`
	RootCertBundle string `json:"rootcertbundle,omitempty"`
	JWKS           string `json:"jwks,omitempty"`
}

// StartVerifier starts the access controller of a version on its own.
func StartVerifier(t testing.TB, version string, o VerifierOptions) *Verifier {
	t.Helper()
	path := filepath.Join(t.TempDir(), "options.json")
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, "%s", data)

	cmd := exec.Command(Program(t, "registry-"+version), "verify", path)
	log, err := os.Create(filepath.Join(t.TempDir(), "verifier.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // it ends with its input
		if err := cmd.Wait(); err != nil {
			t.Errorf("verifier %s: %v\n%s", version, err, ReadFile(t, log.Name()))
		}
		log.Close()
	})
	return &Verifier{in: json.NewEncoder(in), out: bufio.NewReader(out)}
}

// Check asks whether the token covers all of access.
func (v *Verifier) Check(t testing.TB, token string, access ...Access) Verdict {
	t.Helper()
	question := struct {
		Token  string   `json:"token"`
		Access []Access `json:"access"`
	}{token, access}
	if err := v.in.Encode(question); err != nil {
		t.Fatal(err)
	}
	line, err := v.out.ReadBytes('\n')
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	var verdict Verdict
	if err := json.Unmarshal(line, &verdict); err != nil {
		t.Fatalf("the verifier has not answered: %v", err)
	}
	return verdict
}
