package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/users"
)

// A token that is made with a token reaches no further than that: in what it may do, from where, and for how long.
func TestATokenMakesNoWiderOne(t *testing.T) {
	w := newWorld(t)
	const own, pull, push = "authserver:tokens/alice:read,write", "repository:alice/**:pull", "repository:alice/**:pull,push"
	narrow := w.token("database", "alice", scopes(own, pull))
	here := w.token("database", "alice", networks("192.0.2.0/24", "198.51.0.0/24", "2001:db8::/32"))
	brief := w.token("database", "alice", expires(24*time.Hour))
	quoted := func(list ...string) string { return `["` + strings.Join(list, `", "`) + `"]` }
	for i, c := range []struct {
		who  as
		body string
		want int
	}{
		{narrow, `"scopes": ` + quoted(pull), 201},
		{narrow, `"scopes": ` + quoted(pull, own), 201},
		{narrow, `"lifetime": "never"`, 403},
		{narrow, `"scopes": ` + quoted(push), 403},
		{narrow, `"scopes": ` + quoted(pull, push), 403},
		{narrow, `"scopes": ` + quoted("repository:alice/a:pull"), 403}, // it is within, but not as it is written there
		{narrow, `"scopes": ` + quoted("repository:**:*"), 403},
		{narrow, `"scopes": ` + quoted("authserver:tokens/**:write"), 403},
		{here, `"networks": ["192.0.2.0/25", "2001:db8:1::/48"]`, 201},
		{here, `"networks": ["192.0.2.0/24"]`, 201},
		{here, `"lifetime": "1h"`, 403},
		{here, `"networks": ["192.0.0.0/16"]`, 403},
		{here, `"networks": ["192.0.2.0/25", "198.51.100.0/24"]`, 403},
		{here, `"networks": ["0.0.0.0/0"]`, 403},
		{here, `"networks": ["198.51.0.0/16"]`, 403},
		{brief, `"lifetime": "23h"`, 201},
		{brief, `"lifetime": "2d"`, 403},
		{brief, `"lifetime": "never"`, 403},
		{brief, `"scopes": ` + quoted(pull), 403}, // 90 days, when nothing is said
		{user("alice"), `"lifetime": "never"`, 201},
		{w.token("database", "alice"), `"lifetime": "never"`, 201},
	} {
		w.wants(c.want, c.who, "POST", "/api/v1/users/alice/tokens", fmt.Sprintf(`{"name": "n%d", %s}`, i, c.body))
	}
	list, err := w.db.AccessTokens(t.Context(), "alice", "", 100)
	must(t, err)
	for _, token := range list {
		if strings.HasPrefix(token.Name, "n") && token.Backend != "database" {
			t.Errorf("%+v", token)
		}
	}
}

// What was made is what was asked for, is shown once, works, and can be ended.
func TestTheLifeOfAToken(t *testing.T) {
	w := newWorld(t)
	made := w.wants(201, user("alice"), "POST", "/api/v1/users/alice/tokens", `{"name": "laptop", "scopes": ["authserver:tokens/alice:read"], "networks": ["192.0.2.1"], "lifetime": "2d"}`)
	secret, id := made.field(t, "token").(string), made.field(t, "id").(string)
	if made.header.Get("Location") != "/api/v1/users/alice/tokens/"+id || made.field(t, "owner") != "alice" || made.field(t, "backend") != "database" {
		t.Errorf("%v %s", made.header, made.body)
	}
	token := as{"alice", secret}
	a := w.wants(200, token, "GET", "/api/v1/whoami", "")
	if a.field(t, "credential") != "access token "+id || fmt.Sprint(a.field(t, "scopes")) != "[authserver:tokens/alice:read]" || fmt.Sprint(a.field(t, "groups")) != "[dev engineering]" || a.field(t, "kind") != "user" {
		t.Error(a.body)
	}
	if a := w.wants(200, token, "GET", "/api/v1/users/alice/tokens", ""); !strings.Contains(a.body, `"`+id+`"`) || strings.Contains(a.body, secret) {
		t.Error(a.body)
	}
	w.wants(403, token, "DELETE", "/api/v1/users/alice/tokens/"+id, "")
	w.wants(409, user("alice"), "POST", "/api/v1/users/alice/tokens", `{"name": "laptop"}`)
	w.wants(404, user("bob"), "DELETE", "/api/v1/users/bob/tokens/"+id, "") // alice's, under another name
	w.wants(200, token, "GET", "/api/v1/whoami", "")
	w.wants(204, user("alice"), "DELETE", "/api/v1/users/alice/tokens/"+id, "")
	w.wants(404, user("alice"), "DELETE", "/api/v1/users/alice/tokens/"+id, "")
	w.wants(401, token, "GET", "/api/v1/whoami", "")
	for _, body := range []string{
		`{"name": ""}`, `{"name": "a\u0000"}`, `{"name": "a", "scopes": []}`, `{"name": "a", "scopes": ["repository:{user}/**:pull"]}`, `{"name": "a", "scopes": ["x"]}`,
		`{"name": "a", "scopes": ["repository:` + strings.Repeat("a", 600) + `:pull"]}`, `{"name": "a", "networks": ["x"]}`, `{"name": "a", "networks": []}`, `{"name": "a", "lifetime": "0d"}`,
		`{"name": "a", "lifetime": "99999d"}`, `{"name": "a", "lifetime": "-1d"}`, `{"name": "a", "owner": "bob"}`, `{"scopes": ["repository:a:pull"]}`,
	} {
		w.wants(422, user("alice"), "POST", "/api/v1/users/alice/tokens", body)
	}
	for owner, want := range map[string]int{"nobody": 404, "locked": 409, "ci": 201, "admin": 201} {
		if a := w.wants(want, user("boss"), "POST", "/api/v1/users/"+owner+"/tokens", `{"name": "made"}`); want == 201 && owner == "admin" && a.field(t, "backend") != "htpasswd" {
			t.Error(a.body)
		}
	}
}

// Everybody of a name in one backend is a stranger to who has that name in another, whatever a rule with {user} says.
func TestNamesakesOfAnotherBackendAreStrangers(t *testing.T) {
	w := newWorld(t)
	theirs := w.token("database", "shadow") // whose password is never asked for: htpasswd knows the name first
	mine := user("shadow")                  // of htpasswd
	id := w.wants(201, mine, "POST", "/api/v1/users/shadow/tokens", `{"name": "mine"}`)
	if id.field(t, "backend") != "htpasswd" {
		t.Error(id.body)
	}
	list, err := w.db.AccessTokens(t.Context(), "shadow", "", 10)
	must(t, err)
	for _, token := range list {
		who, stranger := mine, theirs
		if token.Backend == "database" {
			who, stranger = theirs, mine
		}
		w.wants(404, stranger, "DELETE", "/api/v1/users/shadow/tokens/"+token.ID, "")
		for who, seen := range map[as]bool{who: true, stranger: false} {
			if a := w.wants(200, who, "GET", "/api/v1/users/shadow/tokens", ""); strings.Contains(a.body, token.ID) != seen {
				t.Errorf("%s: %s", token.Backend, a.body)
			}
		}
		if a := w.wants(200, user("boss"), "GET", "/api/v1/users/shadow/tokens", ""); !strings.Contains(a.body, token.ID) {
			t.Errorf("an administrator sees both: %s", a.body)
		}
	}
	w.wants(404, mine, "GET", "/api/v1/users/shadow", "")
	w.wants(404, mine, "PUT", "/api/v1/users/shadow/password", `{"password": "taken-over"}`)
	w.wants(200, theirs, "GET", "/api/v1/users/shadow", "")
	// Nor does a name of a file become an account that its owner has the password of.
	w.wants(409, user("admin"), "POST", "/api/v1/users", `{"name": "admin", "password": "x"}`)
	w.wants(409, user("boss"), "POST", "/api/v1/users", `{"name": "admin", "password": "x"}`)
	w.wants(409, user("boss"), "POST", "/api/v1/users", `{"name": "locked", "password": "x"}`)
	// Nor one of a backend that cannot be looked up.
	w.wants(409, user("federated"), "POST", "/api/v1/users", `{"name": "federated", "password": "x"}`)
	w.wants(404, user("federated"), "POST", "/api/v1/users/federated/tokens", `{"name": "x"}`)
	w.wants(404, user("federated"), "GET", "/api/v1/users/federated", "")
}

func TestPasswords(t *testing.T) {
	w := newWorld(t)
	const path = "/api/v1/users/alice/password"
	w.wants(403, w.token("database", "alice"), "PUT", path, `{"password": "mine"}`)
	w.wants(403, w.token("database", "alice", scopes("authserver:users/alice:write")), "PUT", path, `{"password": "mine"}`)
	w.wants(403, w.token("database", "boss", scopes("authserver:**:*")), "PUT", path, `{"password": "mine"}`)
	for _, narrow := range []as{w.token("database", "boss", scopes("authserver:**:*")), w.token("database", "boss", networks("192.0.2.0/24"))} {
		w.wants(403, narrow, "PUT", path, `{"password": "mine"}`)
		w.wants(403, narrow, "POST", "/api/v1/users", `{"name": "new", "password": "mine"}`)
	}
	w.wants(200, user("alice"), "GET", "/api/v1/whoami", "")
	for _, bad := range []string{"", strings.Repeat("x", 73), strings.Repeat("ä", 37), "asat_x"} {
		w.wants(422, user("alice"), "PUT", path, `{"password": "`+bad+`"}`)
	}
	w.wants(204, user("alice"), "PUT", path, `{"password": "mine"}`)
	w.wants(401, user("alice"), "GET", "/api/v1/whoami", "")
	w.wants(200, as{"alice", "mine"}, "GET", "/api/v1/whoami", "")
	w.wants(204, w.token("database", "boss"), "PUT", path, `{"password": "given"}`)
	w.wants(200, as{"alice", "given"}, "GET", "/api/v1/whoami", "")
	w.wants(409, user("boss"), "PUT", "/api/v1/users/ci/password", `{"password": "x"}`)
	w.wants(404, user("boss"), "PUT", "/api/v1/users/nobody/password", `{"password": "x"}`)
	w.wants(404, user("boss"), "PUT", "/api/v1/users/admin/password", `{"password": "x"}`)
	if strings.Contains(w.log.String(), "mine") || strings.Contains(fmt.Sprint(w.audit.events), "mine") {
		t.Error("a password is in the log")
	}
	if a := w.wants(422, user("alice2"), "POST", "/api/v1/users", `{"name": "new", "passwort": "hunter2"}`); strings.Contains(a.body, "hunter2") {
		t.Errorf("what was sent is sent back: %s", a.body)
	}
}

func TestChangesAreOfTheVersionThatWasRead(t *testing.T) {
	w := newWorld(t)
	boss := user("boss")
	const path = "/api/v1/users/alice"
	read := w.wants(200, boss, "GET", path, "").header.Get("ETag")
	for _, method := range []string{"PATCH", "DELETE"} {
		body := map[string]string{"PATCH": `{"disabled": true}`}[method]
		w.wants(428, boss, method, path, body)
		for _, tag := range []string{`"x"`, "x", "W/" + read, `""`, read + "x"} {
			w.wants(412, boss, method, path, body, "If-Match", tag)
		}
	}
	a := w.wants(200, boss, "PATCH", path, `{"disabled": true}`, "If-Match", `"x", `+read)
	if a.field(t, "disabled") != true || a.header.Get("ETag") == read {
		t.Errorf("%v %s", a.header, a.body)
	}
	w.wants(401, user("alice"), "GET", "/api/v1/whoami", "")
	w.wants(412, boss, "DELETE", path, "", "If-Match", read)
	a = w.wants(200, boss, "PATCH", path, `{"disabled": false}`, "If-Match", a.header.Get("ETag"))
	w.wants(200, user("alice"), "GET", "/api/v1/whoami", "")
	if same := w.wants(200, boss, "PATCH", path, `{}`, "If-Match", "*"); same.header.Get("ETag") != a.header.Get("ETag") {
		t.Errorf("%v, %v", same.header, a.header)
	}
	w.wants(204, boss, "DELETE", path, "", "If-Match", a.header.Get("ETag"))
	w.wants(404, boss, "DELETE", path, "", "If-Match", a.header.Get("ETag"))
}

// Between a decision and what it was about, somebody else is faster.
func TestAnOldPasswordDoesNotUndoANewOne(t *testing.T) {
	for name, c := range map[string]struct {
		who  as
		want int
		code int // to the password that the other has set
	}{
		"oneself":          {user("alice"), 401, 200},
		"an administrator": {user("boss"), 204, 401}, // the last of two
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.audit.hook = func(e audit.Event) {
				if e.Event == "api" && e.Operation == "set-password" {
					must(t, w.db.SetPassword(t.Context(), "alice", hash("the-new-one"), time.Now()))
				}
			}
			w.wants(c.want, c.who, "PUT", "/api/v1/users/alice/password", `{"password": "mine"}`)
			w.wants(c.code, as{"alice", "the-new-one"}, "GET", "/api/v1/whoami", "")
		})
	}
}

func TestNobodyLocksThemselvesOut(t *testing.T) {
	w := newWorld(t)
	for _, who := range []as{user("boss"), w.token("database", "boss")} {
		w.wants(409, who, "PATCH", "/api/v1/users/boss", `{"disabled": true}`, "If-Match", "*")
		w.wants(409, who, "DELETE", "/api/v1/users/boss", "", "If-Match", "*")
	}
	w.wants(200, user("boss"), "GET", "/api/v1/whoami", "")
}

func TestAccounts(t *testing.T) {
	w := newWorld(t)
	boss := user("boss")
	made := w.wants(201, boss, "POST", "/api/v1/users", `{"name": "carol@example.com", "password": "carol-secret"}`)
	if made.header.Get("Location") != "/api/v1/users/carol@example.com" {
		t.Error(made.header)
	}
	for _, path := range []string{"/api/v1/users/carol@example.com", "/api/v1/users/carol%40example.com", "/api/v1/users/c%61rol%40example.com"} {
		a := w.wants(200, as{"carol@example.com", "carol-secret"}, "GET", path, "")
		if a.body != made.body || a.header.Get("ETag") != made.header.Get("ETag") {
			t.Errorf("%s: %s, made was %s", path, a.body, made.body)
		}
	}
	for _, body := range []string{
		`{"name": "carol"}`, `{"name": "Carol", "password": "x"}`, `{"name": "a/b", "password": "x"}`, `{"name": "x", "kind": "anonymous"}`, `{"name": "x", "kind": "robot", "password": "x"}`,
		`{"password": "x"}`, `{"name": "x", "password": "x", "groups": ["admins"]}`, `[]`, `null`, `{"name": "x", "password": "x", "disabled": true}`,
	} {
		w.wants(422, boss, "POST", "/api/v1/users", body)
	}
	// Names that nobody can have, and whatever stands in a path.
	for _, path := range []string{"/users/%00", "/users/a%0Ab", "/users/%FF", "/users/bob/tokens/%00", "/groups/dev/members/%00", "/users?after=%00", "/users?after=%FF"} {
		w.wants(400, boss, "GET", "/api/v1"+path, "")
	}
	for _, name := range []string{"%20a", "a:b", "jose%CC%81", strings.Repeat("a", 300), "x%2F..%2Fboss", "..%2Fboss", "*", "%2a", "**", "a%2Fb"} {
		w.wants(404, boss, "GET", "/api/v1/users/"+name, "")
		if a := w.do(user("bob"), "GET", "/api/v1/users/"+name, ""); a.code != 403 && a.code != 404 {
			t.Errorf("%s: %d %s", name, a.code, a.body)
		}
		w.wants(401, as{}, "GET", "/api/v1/users/"+name, "")
	}
}

func TestGroups(t *testing.T) {
	w := newWorld(t)
	boss := user("boss")
	w.wants(204, boss, "PUT", "/api/v1/groups/ops", "")
	w.wants(204, boss, "PUT", "/api/v1/groups/ops", "")
	w.wants(422, boss, "PUT", "/api/v1/groups/Ops", "")
	w.wants(204, boss, "PUT", "/api/v1/groups/ops/members/bob", "")
	w.wants(204, boss, "PUT", "/api/v1/groups/ops/members/bob", "")
	w.wants(404, boss, "PUT", "/api/v1/groups/ops/members/nobody", "")
	w.wants(404, boss, "PUT", "/api/v1/groups/none/members/bob", "")
	w.wants(404, boss, "GET", "/api/v1/groups/none/members", "")
	w.wants(404, boss, "DELETE", "/api/v1/groups/none", "")
	w.wants(404, boss, "DELETE", "/api/v1/groups/ops/members/alice", "")
	if a := w.wants(200, boss, "GET", "/api/v1/users/bob", ""); fmt.Sprint(a.field(t, "groups")) != "[ops]" {
		t.Error(a.body)
	}
	if a := w.wants(200, boss, "GET", "/api/v1/groups/ops/members", ""); strings.TrimSpace(a.body) != `{"items":[{"account":"bob"}]}` {
		t.Error(a.body)
	}
	if a := w.wants(200, boss, "GET", "/api/v1/groups", ""); strings.TrimSpace(a.body) != `{"items":[{"name":"dev"},{"name":"ops"}]}` {
		t.Error(a.body)
	}
	// Who gets into a group of the policy's administrators is one: that is what write on groups means.
	w.wants(204, boss, "PUT", "/api/v1/groups/admins", "")
	w.wants(403, user("bob"), "GET", "/api/v1/groups", "")
	w.wants(204, boss, "PUT", "/api/v1/groups/admins/members/bob", "")
	w.wants(200, user("bob"), "GET", "/api/v1/groups", "")
	w.wants(204, boss, "DELETE", "/api/v1/groups/admins", "")
	w.wants(403, user("bob"), "GET", "/api/v1/groups", "")
}

func TestPages(t *testing.T) {
	w := newWorld(t)
	boss := user("boss")
	for _, p := range []string{"/users", "/groups", "/groups/dev/members", "/users/bob/tokens", "/users/bob/logins"} {
		for _, query := range []string{"limit=0", "limit=501", "limit=-1", "limit=x", "limits=1", "after=" + strings.Repeat("a", 256)} {
			w.wants(422, boss, "GET", "/api/v1"+p+"?"+query, "")
		}
	}
	for i := range 3 {
		now := time.Now()
		name := fmt.Sprintf("g%d", i)
		must(t, w.db.AddGroup(t.Context(), name, now))
		must(t, w.db.AddMember(t.Context(), "dev", []string{"bob", "boss", "ci"}[i]))
		must(t, w.db.AddMember(t.Context(), name, "alice"))
		must(t, w.db.AddRefreshToken(t.Context(), name, users.RefreshToken{ID: name, Owner: "bob", Backend: "database", Created: now, LastUsed: now}))
		w.token("database", "bob")
	}
	for path, want := range map[string]int{"/users": 7, "/groups": 4, "/groups/dev/members": 4, "/users/bob/tokens": 3, "/users/bob/logins": 3} {
		for limit := 1; limit <= want+1; limit++ {
			seen, pages, after := "", 0, ""
			for {
				a := w.wants(200, boss, "GET", fmt.Sprintf("/api/v1%s?limit=%d&after=%s", path, limit, after), "")
				items := a.field(t, "items").([]any)
				if len(items) == 0 || len(items) > limit {
					t.Fatalf("%s, limit %d: %s", path, limit, a.body)
				}
				for _, item := range items {
					seen += fmt.Sprint(item)
				}
				pages++
				next, more := a.field(t, "next").(string)
				if !more {
					break
				}
				after = next
			}
			whole := fmt.Sprint(w.wants(200, boss, "GET", "/api/v1"+path, "").field(t, "items"))
			if pages != (want+limit-1)/limit || strings.ReplaceAll(seen, "] map", "]map") != strings.NewReplacer("[map", "map", "] map", "]map", "]]", "]").Replace(whole) {
				t.Errorf("%s, limit %d: %d pages with %s, all are %s", path, limit, pages, seen, whole)
			}
		}
	}
}

// What is refused before, beside and behind the operations.
func TestFormsOfARequest(t *testing.T) {
	w := newWorld(t)
	boss := user("boss")
	w.wants(404, boss, "GET", "/api/", "")
	w.wants(404, boss, "GET", "/api/v1", "")
	w.wants(404, boss, "GET", "/api/v1/", "")
	w.wants(404, boss, "GET", "/api/v1/users/", "")
	w.wants(404, boss, "GET", "/api/v2/users", "")
	w.wants(404, as{}, "GET", "/api/v1/nothing", "")
	if a := w.wants(405, boss, "DELETE", "/api/v1/users", ""); a.header.Get("Allow") != "GET, POST" {
		t.Errorf("Allow: %s", a.header.Get("Allow"))
	}
	if a := w.wants(405, boss, "POST", "/api/v1/users/a%2Fb", "{}"); a.header.Get("Allow") != "GET, PATCH, DELETE" {
		t.Errorf("Allow: %s", a.header.Get("Allow"))
	}
	const body = `{"name": "x", "kind": "robot"}`
	for _, media := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", "text/json", "application/merge-patch+json", "x"} {
		w.wants(415, boss, "POST", "/api/v1/users", body, "Content-Type", media)
		w.wants(415, boss, "PUT", "/api/v1/users/alice/password", `{"password": "x"}`, "Content-Type", media)
	}
	w.wants(413, boss, "POST", "/api/v1/users", `{"name": "`+strings.Repeat("x", 64<<10)+`"}`)
	for _, broken := range []string{"{", `{"name": "x"} {}`, "x", "\xff"} {
		w.wants(400, boss, "POST", "/api/v1/users", broken)
	}
	for _, broken := range []string{"{", `{}`, strings.Repeat("x", 65<<10)} { // not read for who cannot be anybody
		w.wants(401, as{}, "POST", "/api/v1/users", broken)
	}
	w.wants(400, boss, "POST", "/api/v1/users", "", "Content-Type", "application/json")
	w.wants(201, boss, "POST", "/api/v1/users", body, "Content-Type", "application/json; charset=utf-8")
	for _, header := range []string{"Bearer x", "Basic", "Basic !!!", "", "Basic " + "Og=="} {
		w.wants(401, as{}, "GET", "/api/v1/whoami", "", "Authorization", header)
	}
	secret, _, _ := users.NewAccessToken()
	w.wants(401, as{"", strings.Replace(secret, "asat_", "asrt_", 1)}, "GET", "/api/v1/whoami", "")
}

func TestWithoutARecordNothingIsGranted(t *testing.T) {
	w := newWorld(t)
	w.audit.failAt = 1
	w.wants(500, user("boss"), "GET", "/api/v1/users", "")
	w.wants(500, user("boss"), "PUT", "/api/v1/groups/ops", "")
	if _, err := w.db.Members(t.Context(), "ops"); err == nil {
		t.Error("a change was made that nobody recorded")
	}
	w.audit.failAt = len(w.audit.events) + 2 // the decision is recorded, the change is not
	a := w.wants(500, user("alice"), "POST", "/api/v1/users/alice/tokens", `{"name": "x"}`)
	if strings.Contains(a.body, "asat_") || strings.Contains(a.body, "disk") {
		t.Error(a.body)
	}
}

func TestADatabaseThatIsDownIsSaidSo(t *testing.T) {
	w := newWorld(t)
	must(t, w.db.Close())
	for who, path := range map[as]string{user("boss"): "/api/v1/whoami", user("admin"): "/api/v1/users"} {
		if a := w.wants(http.StatusServiceUnavailable, who, "GET", path, ""); a.header.Get("Retry-After") == "" || strings.Contains(a.body, "sql") {
			t.Errorf("%v %s", a.header, a.body)
		}
	}
}
