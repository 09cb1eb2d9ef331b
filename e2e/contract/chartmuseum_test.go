package contract_test

import (
	"testing"
	"time"

	chartmuseum "github.com/chartmuseum/auth"

	"authserver/e2e/harness"
)

// ChartMuseum's own library decides: RSA only, exact name and action, a type
// with a hyphen in it.
func TestChartMuseum(t *testing.T) {
	for _, algorithm := range []string{"RS256", "RS384", "RS512"} {
		t.Run(algorithm, func(t *testing.T) {
			s := service{"pinned", algorithm}
			a := startAuthserver(t, []service{s})
			authorizer, err := chartmuseum.NewAuthorizer(&chartmuseum.AuthorizerOptions{
				Realm: a.URL + "/token", Service: s.name(), PublicKey: harness.ReadFile(t, a.Export(t, "pem", s.name())),
			})
			if err != nil {
				t.Fatal(err)
			}
			const push = "artifact-repository:org1/repo1:pull,push"
			alice := func(scopes ...string) string { return a.Token(t, "alice", alicePassword, s.name(), scopes...) }
			key := readKey(t, s.keyFile(a))

			for _, c := range []struct {
				name, token, action, namespace string
				want                           bool
			}{
				{"pull", alice("artifact-repository:org1/repo1:pull"), "pull", "org1/repo1", true},
				{"push", alice(push), "push", "org1/repo1", true},
				{"push with a pull token", alice("artifact-repository:org1/repo1:pull"), "push", "org1/repo1", false},
				{"push elsewhere", alice(push), "push", "org1/repo2", false},
				{"not granted", alice("artifact-repository:org1/repo2:pull"), "pull", "org1/repo2", false},
				{"login token", alice(), "pull", "org1/repo1", false},
				{"by bob", a.Token(t, "bob", bobPassword, s.name(), push), "pull", "org1/repo1", false},
				{"an image of the name", alice("repository:alice/app:pull"), "pull", "alice/app", false},
				{"forged, unchanged", forge(t, alice(push), key, func(map[string]any) {}), "push", "org1/repo1", true},
				{"expired", forge(t, alice(push), key, func(c map[string]any) { c["exp"] = time.Now().Unix() - 5 }), "push", "org1/repo1", false},
				{"signed with another key", forge(t, alice(push), anotherKey(t, key), func(map[string]any) {}), "push", "org1/repo1", false},
			} {
				permission, err := authorizer.Authorize("Bearer "+c.token, c.action, c.namespace)
				if err != nil || permission.Allowed != c.want {
					t.Errorf("%s: allowed %v, want %v; %v", c.name, permission != nil && permission.Allowed, c.want, err)
				}
			}
		})
	}
}
