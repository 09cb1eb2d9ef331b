package api_test

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/users"
)

// operations are all that the document names: one use of each that an administrator may make, by what the policy is asked.
// OTHER and ID stand for an account and for one of its tokens or logins.
var operations = map[string]struct {
	method, path, body string
	ifMatch            bool
	scope              string // of a token that may do this and no more; "" = no scope is needed
	self               int    // the answer to bob himself, by password
	narrow             int    // the answer to a token with the scope, if not success
}{
	"whoami":        {method: "GET", path: "/whoami", self: 200},
	"list-users":    {method: "GET", path: "/users", scope: "authserver:users:read", self: 403},
	"add-user":      {method: "POST", path: "/users", body: `{"name": "new", "kind": "robot"}`, scope: "authserver:users/new:write", self: 403},
	"show-user":     {method: "GET", path: "/users/OTHER", scope: "authserver:users/bob:read", self: 200},
	"change-user":   {method: "PATCH", path: "/users/OTHER", body: `{"disabled": true}`, ifMatch: true, scope: "authserver:users/bob:write", self: 409},
	"remove-user":   {method: "DELETE", path: "/users/OTHER", ifMatch: true, scope: "authserver:users/bob:write", self: 409},
	"set-password":  {method: "PUT", path: "/users/OTHER/password", body: `{"password": "new"}`, scope: "authserver:users/bob:write", self: 204, narrow: 403},
	"list-tokens":   {method: "GET", path: "/users/OTHER/tokens", scope: "authserver:tokens/bob:read", self: 200},
	"create-token":  {method: "POST", path: "/users/OTHER/tokens", body: `{"name": "new", "scopes": ["authserver:tokens/bob:write"]}`, scope: "authserver:tokens/bob:write", self: 201},
	"revoke-token":  {method: "DELETE", path: "/users/OTHER/tokens/ID", scope: "authserver:tokens/bob:write", self: 204},
	"list-logins":   {method: "GET", path: "/users/OTHER/logins", scope: "authserver:tokens/bob:read", self: 200},
	"end-login":     {method: "DELETE", path: "/users/OTHER/logins/ID", scope: "authserver:tokens/bob:write", self: 204},
	"list-groups":   {method: "GET", path: "/groups", scope: "authserver:groups:read", self: 403},
	"make-group":    {method: "PUT", path: "/groups/new", scope: "authserver:groups/new:write", self: 403},
	"remove-group":  {method: "DELETE", path: "/groups/dev", scope: "authserver:groups/dev:write", self: 403},
	"list-members":  {method: "GET", path: "/groups/dev/members", scope: "authserver:groups/dev:read", self: 403},
	"add-member":    {method: "PUT", path: "/groups/dev/members/OTHER", scope: "authserver:groups/dev:write", self: 403},
	"remove-member": {method: "DELETE", path: "/groups/dev/members/alice", scope: "authserver:groups/dev:write", self: 403},
}

func TestEveryOperationOfTheDocumentIsTestedBelow(t *testing.T) {
	w := newWorld(t)
	var document struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			ID string `json:"operationId"`
		}
	}
	a := w.wants(http.StatusOK, as{}, "GET", "/api/v1/openapi.json", "")
	must(t, json.Unmarshal([]byte(a.body), &document))
	if !strings.HasPrefix(document.OpenAPI, "3.1") {
		t.Errorf("version %q", document.OpenAPI)
	}
	found := 0
	for path, methods := range document.Paths {
		for method, operation := range methods {
			found++
			if o, ok := operations[operation.ID]; !ok || !strings.EqualFold(o.method, method) {
				t.Errorf("%s %s (%s) has no test", method, path, operation.ID)
			}
		}
	}
	if found != len(operations) {
		t.Errorf("%d operations, tested are %d", found, len(operations))
	}
}

// use is one operation by somebody, on an account or on a name that nobody has.
func (w *world) use(who as, id, other string) answer {
	w.t.Helper()
	o := operations[id]
	path, header := o.path, []string(nil)
	if o.ifMatch {
		header = []string{"If-Match", "*"}
	}
	path = strings.NewReplacer("OTHER", other, "ID", "theid").Replace(path)
	return w.do(who, o.method, "/api/v1"+path, o.body, header...)
}

// prepared is a world in which bob has a token and a login with the id "theid".
func prepared(t *testing.T) *world {
	w := newWorld(t)
	now := time.Now()
	must(t, w.db.AddAccessToken(t.Context(), "h", users.AccessToken{ID: "theid", Owner: "bob", Backend: "database", Name: "it", Shown: "asat_x", Created: now}))
	must(t, w.db.AddRefreshToken(t.Context(), "h", users.RefreshToken{ID: "theid", Owner: "bob", Backend: "database", Mark: "themark", Created: now, LastUsed: now}))
	return w
}

func TestWhoMayAndWhoMayNot(t *testing.T) {
	for id, o := range operations {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			w := prepared(t)
			is := func(name string, who as, want int) {
				t.Helper()
				events := len(w.audit.events)
				a := w.use(who, id, "bob")
				if a.code != want {
					t.Errorf("%s: %d, want %d: %s", name, a.code, want, a.body)
				}
				if len(w.audit.events) == events {
					t.Errorf("%s: nothing was recorded", name)
				}
				changes := slices.ContainsFunc(w.audit.events[events:], func(e audit.Event) bool {
					return e.Event == "change" && e.Target != "" && e.Operation != "" && e.Principal == who.name
				})
				if write := o.method != "GET" && a.code < 300; changes != write {
					t.Errorf("%s: %d, and a change was recorded: %t", name, a.code, changes)
				}
			}
			denied := http.StatusForbidden
			if o.scope == "" {
				denied = http.StatusOK
			}
			is("nobody", as{}, 401)
			is("a wrong password", as{"boss", "wrong"}, 401)
			is("an unknown user", as{"nobody", "wrong"}, 401)
			is("somebody disabled", user("locked"), 401)
			is("a token of somebody disabled", w.token("database", "locked"), 401)
			is("an expired token", w.token("database", "boss", expires(-time.Hour)), 401)
			is("a token from elsewhere", w.token("database", "boss", networks("10.0.0.0/8")), 401)
			is("somebody else", user("alice"), denied)
			is("a token of somebody else", w.token("database", "alice"), denied)
			is("an administrator's token for the registry", w.token("database", "boss", scopes("repository:**:*")), denied)
			is("an administrator's token for nothing", w.token("database", "boss", scopes()), denied)
			if o.scope != "" {
				// Neither the other action nor another object.
				other := strings.NewReplacer(":read", ":write", ":write", ":read").Replace(o.scope)
				is("a token for the other action", w.token("database", "boss", scopes(other)), 403)
				other = strings.NewReplacer("bob", "alice", "dev", "ops", "users:", "users/x:", "groups:", "groups/x:", "new", "other").Replace(o.scope)
				is("a token for another object", w.token("database", "boss", scopes(other)), 403)
				for name, who := range map[string]as{"a user": user("alice"), "a narrow token": w.token("database", "boss", scopes("repository:**:*"))} {
					if there, missing := w.use(who, id, "bob"), w.use(who, id, "nobody"); there.code != missing.code || there.body != missing.body {
						t.Errorf("%s learns who there is: %d %s, %d %s", name, there.code, there.body, missing.code, missing.body)
					}
				}
			}
			if o.self != 200 && o.self < 300 {
				w = prepared(t)
			}
			is("oneself", user("bob"), o.self)
			for name, who := range map[string]func() as{
				"an administrator":                           func() as { return user("boss") },
				"an administrator of another backend":        func() as { return user("admin") },
				"an administrator's token":                   func() as { return w.token("database", "boss") },
				"an administrator's token for this":          func() as { return w.token("database", "boss", scopes(o.scope)) },
				"an administrator's token for this and more": func() as { return w.token("database", "boss", scopes("repository:**:*", o.scope)) },
			} {
				if o.method != "GET" {
					w = prepared(t)
				}
				want := map[string]int{"GET": 200, "POST": 201, "PATCH": 200, "PUT": 204, "DELETE": 204}[o.method]
				if o.narrow != 0 && strings.Contains(name, "for") {
					want = o.narrow
				}
				if o.scope != "" || !strings.Contains(name, "for") {
					is(name, who(), want)
				}
			}
			for _, secret := range []string{"$2a$", "themark", "-secret"} {
				if a := w.use(user("boss"), id, "bob"); strings.Contains(a.body, secret) || strings.Contains(w.log.String(), secret) {
					t.Errorf("%q is in %s or in the log", secret, a.body)
				}
			}
		})
	}
}

func TestEveryOperationIsInTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	must(t, err)
	var document struct {
		Paths map[string]map[string]any
	}
	must(t, json.Unmarshal([]byte(newWorld(t).do(as{}, "GET", "/api/v1/openapi.json", "").body), &document))
	for path, methods := range document.Paths {
		for method := range methods {
			if want := "`" + strings.ToUpper(method) + " " + strings.TrimPrefix(path, "/api/v1") + "`"; !strings.Contains(string(text), want) {
				t.Errorf("docs/api.md has no %s", want)
			}
		}
	}
}
