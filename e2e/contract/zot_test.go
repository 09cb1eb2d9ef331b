package contract_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	chartmuseum "github.com/chartmuseum/auth"
	"github.com/golang-jwt/jwt/v5"

	"authserver/e2e/harness"
)

// newZot checks like zot from 2.1.3 on (pkg/api/bearer.go): one key, neither iss
// nor aud, no leeway, a future iat refused, exact match of name and action.
type newZot struct {
	key    any
	delete string // the action that DELETE demands: push up to 2.1.17, delete from 2.1.18 on
}

func (z newZot) authorize(token, method, name string) error {
	claims := struct {
		jwt.RegisteredClaims
		Access []struct {
			Type    string   `json:"type"`
			Name    string   `json:"name"`
			Actions []string `json:"actions"`
		} `json:"access"`
	}{}
	_, err := jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return z.key, nil },
		jwt.WithValidMethods([]string{"EdDSA", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"}),
		jwt.WithIssuedAt())
	if err != nil {
		return err
	}
	action := zotAction(method, z.delete)
	for _, entry := range claims.Access {
		if entry.Type == "repository" && entry.Name == name && slices.Contains(entry.Actions, action) {
			return nil
		}
	}
	return fmt.Errorf("insufficient scope: %v", claims.Access)
}

// zotAction is the one action that zot demands; for DELETE versions differ.
func zotAction(method, delete string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return "pull"
	case http.MethodDelete:
		return delete
	}
	return "push"
}

// oldZot is zot up to 2.1.2, which uses ChartMuseum's library: RSA only.
type oldZot struct{ authorizer *chartmuseum.Authorizer }

func newOldZot(t *testing.T, pem []byte) oldZot {
	t.Helper()
	authorizer, err := chartmuseum.NewAuthorizer(&chartmuseum.AuthorizerOptions{
		PublicKey: pem, AccessEntryType: "repository", EmptyDefaultNamespace: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return oldZot{authorizer}
}

func (z oldZot) authorize(token, method, name string) error {
	permission, err := z.authorizer.Authorize("Bearer "+token, zotAction(method, "push"), name)
	if err == nil && !permission.Allowed {
		err = fmt.Errorf("not allowed: %s", permission.WWWAuthenticateHeader)
	}
	return err
}

func TestZot(t *testing.T) {
	pinned := []service{{"pinned", "RS256"}, {"pinned", "RS384"}, {"pinned", "RS512"}, {"pinned", "ES256"}, {"pinned", "ES384"}, {"pinned", "EdDSA"}}
	a := startAuthserver(t, pinned)
	other := startAuthserver(t, pinned)
	for _, s := range pinned {
		t.Run(s.name(), func(t *testing.T) {
			path := a.Export(t, "pem", s.name())
			zots := map[string]interface {
				authorize(token, method, name string) error
			}{
				"2.1.3":  newZot{readCertificate(t, path).PublicKey, "push"},
				"2.1.18": newZot{readCertificate(t, path).PublicKey, "delete"},
			}
			if strings.HasPrefix(s.algorithm, "RS") {
				zots["2.1.2"] = newOldZot(t, harness.ReadFile(t, path))
			}
			alice := func(scopes ...string) string { return a.Token(t, "alice", alicePassword, s.name(), scopes...) }
			root := func(scopes ...string) string { return a.Token(t, "root", rootPassword, s.name(), scopes...) }
			pull := alice("repository:alice/app:pull")
			key := readKey(t, s.keyFile(a))

			for version, zot := range zots {
				t.Run(version, func(t *testing.T) {
					for _, c := range []struct {
						name, token, method, repository string
						want                            bool
					}{
						{"pull", pull, "GET", "alice/app", true},
						{"push with a pull token", pull, "PUT", "alice/app", false},
						{"pull of another", pull, "GET", "alice/apps", false},
						{"push", alice("repository:alice/app:push"), "POST", "alice/app", true},
						{"push after pull", alice("repository:alice/app:pull", "repository:alice/app:push"), "PATCH", "alice/app", true},
						{"delete", alice("repository:alice/app:delete,push"), "DELETE", "alice/app", true},
						{"delete asked with a star", alice("repository:alice/app:*"), "DELETE", "alice/app", true},
						{"all rights asked with a star", root("repository:alice/app:*"), "PUT", "alice/app", true},
						{"login token", alice(), "GET", "alice/app", false},
						{"anonymous", a.Token(t, "", "", s.name(), "repository:public/app:pull"), "GET", "public/app", true},
						{"the list of everything", root("repository::pull"), "GET", "", true},
						{"the list of everything by a user", alice("repository::pull"), "GET", "", false},
						{"the key of another", other.Token(t, "alice", alicePassword, s.name(), "repository:alice/app:pull"), "GET", "alice/app", false},
						{"forged, unchanged", forge(t, pull, key, func(map[string]any) {}), "GET", "alice/app", true},
						{"expired", forge(t, pull, key, func(c map[string]any) { c["exp"] = time.Now().Unix() - 5 }), "GET", "alice/app", false},
						{"not yet valid", forge(t, pull, key, func(c map[string]any) { c["nbf"] = time.Now().Unix() + 3600 }), "GET", "alice/app", false},
						{"issued in the future", forge(t, pull, key, func(c map[string]any) { c["iat"] = time.Now().Unix() + 3600 }), "GET", "alice/app", false},
					} {
						if err := zot.authorize(c.token, c.method, c.repository); (err == nil) != c.want {
							t.Errorf("%s: %v", c.name, err)
						}
					}
				})
			}
		})
	}
}

// These verifiers check neither iss nor aud, so a key must be good for one
// service alone.
func TestPinnedServicesDoNotShareAKey(t *testing.T) {
	a := startAuthserver(t, services)
	ids := map[string]string{}
	for _, s := range services {
		if s.verifier != "pinned" {
			continue
		}
		var h header
		decode(t, a.Token(t, "", "", s.name()), 0, &h)
		if other, taken := ids[h.KeyID]; taken {
			t.Errorf("%s and %s share a key", s.name(), other)
		}
		ids[h.KeyID] = s.name()
	}
}
