package harness

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// OPA is a running Open Policy Agent.
type OPA struct {
	*Process
	Host string // localhost:PORT
}

// StartOPA runs opa with args as they are typed, but for the address with port 8181: it listens on port, for this machine.
func StartOPA(t testing.TB, port int, args ...string) *OPA {
	t.Helper()
	for i, arg := range args {
		if strings.HasSuffix(arg, ":8181") {
			args[i] = fmt.Sprintf("127.0.0.1:%d", port)
		}
	}
	o := &OPA{Host: fmt.Sprintf("localhost:%d", port)}
	// Without the flag it asks GitHub for newer versions.
	o.Process = Start(t, nil, Program(t, "opa"), append(args, "--skip-version-check", "--log-level=error")...)
	o.Await(t, func() error {
		connection, err := net.Dial("tcp", o.Host)
		if err != nil {
			return err
		}
		return connection.Close()
	})
	return o
}

// Policy replaces the policy that was put there before.
func (o *OPA) Policy(t testing.TB, rego string) {
	t.Helper()
	request, err := http.NewRequest("PUT", "http://"+o.Host+"/v1/policies/test", strings.NewReader(rego))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
		t.Fatalf("OPA does not take the policy: %s\n%s\n%s", response.Status, body, rego)
	}
}
