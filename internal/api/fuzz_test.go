package api_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/store"
	"authserver/internal/users"
)

// changes are the records of changes.
func (w *world) changes() []audit.Event {
	return slices.DeleteFunc(slices.Clone(w.audit.events), func(e audit.Event) bool { return e.Event != "change" })
}

// FuzzAPI sends bodies, names and versions to every operation. Whatever comes: an answer that is one of the documented, with
// nothing of a password in it; a token that is made says of itself what its body said, by the very names of the document, and
// what comes with a narrow token makes none that is wider; who may only read has changed nothing.
func FuzzAPI(f *testing.F) {
	ids := make([]string, 0, len(operations))
	for id := range operations {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	at := func(id string) uint8 { return uint8(slices.Index(ids, id)) }
	for _, body := range []string{
		`{"name": "x"}`, `{"name": "x", "scopes": ["repository:team/**:pull"], "networks": ["192.0.2.0/24"], "lifetime": "1h"}`, `{"name": "x", "scopes": null}`, `{"name": "x", "Scopes": ["repository:a:pull"]}`,
		"{\"name\": \"x\", \"\u017fcopes\": null}", "{\"name\": \"x\", \"networ\u212as\": [\"10.0.0.0/8\"]}", `{"name": "x", "scopes": ["repository:a:pull"], "scopes": ["repository:**:*"]}`,
		`{"name": "x", "scopes": [], "lifetime": "never"}`, `{"name": "x", "scopes": ["repository:{user}:pull"]}`, `{"name": "x", "networks": ["192.0.2.0/25", "192.0.2.1"], "scopes": ["authserver:tokens/bob:write"], "lifetime": "1h"}`,
		`{"name": "x\u0000y"}`, `{"name": "\ud800"}`, `{"name": 1}`, `[]`, ``, `{"name": "x"} {"name": "y"}`, `{"name": "x", "lifetime": "99999d"}`, `{"name": "x", "lifetime": "0h"}`, "\xef\xbb\xbf{\"name\": \"x\"}",
		`{"$schema": "x", "name": "x"}`, `{"name": "x", "scopes": ["repository:team/**:pull"], "lifetime": "1h", "networks": ["10.0.0.0/8"]}`,
	} {
		for actor := range uint8(3) {
			f.Add(at("create-token"), actor, body, "bob", "*", "application/json")
		}
	}
	for _, body := range []string{`{"name": "new"}`, `{"name": "new", "kind": "robot"}`, `{"name": "new", "password": "longenough-secret"}`, `{"name": "new", "kind": "robot", "password": "longenough-secret"}`, `{"name": "alice", "password": "longenough-secret"}`,
		`{"name": "NEW", "password": "asat_longenough-secret"}`, `{"name": "new", "kind": "admin"}`, `{"name": "new", "Password": "longenough-secret"}`} {
		f.Add(at("add-user"), uint8(0), body, "", "", "application/json")
		f.Add(at("add-user"), uint8(1), body, "", "", "application/json")
	}
	f.Add(at("set-password"), uint8(1), `{"password": "longenough-secret"}`, "bob", "", "application/json; charset=utf-8")
	f.Add(at("set-password"), uint8(2), `{"password": "longenough-secret", "password": null}`, "bob", "", "application/json")
	f.Add(at("set-password"), uint8(0), `{"password": ["longenough-secret"]}`, "alice", "", "text/plain")
	f.Add(at("change-user"), uint8(0), `{"disabled": true}`, "bob", `"x", W/"y", *`, "application/json")
	f.Add(at("change-user"), uint8(0), `{"disabled": null, "Disabled": true}`, "bob", "*", "application/json")
	f.Add(at("show-user"), uint8(1), "", "alice%2f..%2fbob", "", "")
	f.Add(at("list-tokens"), uint8(2), "", "bob?limit=0&after=\x00&x=y", "", "")
	f.Add(at("make-group"), uint8(0), "", "a%20b", "", "")
	// A world is used until something in it has changed.
	dir, worlds := f.TempDir(), 0
	var w *world
	var bob as
	f.Cleanup(func() {
		if w != nil {
			_ = w.db.Close()
		}
	})
	f.Fuzz(func(t *testing.T, operation, actor uint8, body, name, ifMatch, media string) {
		id := ids[int(operation)%len(ids)]
		narrow := func(token *users.AccessToken) {
			token.Scopes = []string{"authserver:tokens/bob:write", "repository:team/**:pull"}
			token.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		if w == nil || len(w.changes()) > 0 {
			if w != nil {
				must(t, errors.Join(w.db.Close(), os.RemoveAll(filepath.Join(dir, strconv.Itoa(worlds)))))
			}
			worlds++
			folder := filepath.Join(dir, strconv.Itoa(worlds))
			must(t, os.Mkdir(folder, 0o700))
			w = worldIn(t, folder, store.Config{URL: "sqlite:authserver.db", Dir: folder, Timeout: 5 * time.Second})
			bob = w.token("database", "bob", narrow)
		}
		w.t = t
		w.log.Reset()
		w.audit.events = nil
		who := []as{user("admin"), user("bob"), bob}[actor%3]
		method, path := operations[id].method, "/api/v1"+strings.NewReplacer("OTHER", name, "ID", "theid", "/dev", "/"+name).Replace(operations[id].path)
		r := httptest.NewRequest(method, "/", strings.NewReader(body))
		path, r.URL.RawQuery, _ = strings.Cut(path, "?")
		if u, err := url.PathUnescape(path); err == nil {
			r.URL.Path, r.URL.RawPath = u, path
		} else {
			r.URL.Path = path
		}
		r.Header["Content-Type"], r.Header["If-Match"] = []string{media}, []string{ifMatch}
		r.SetBasicAuth(who.name, who.password)
		recorder := httptest.NewRecorder()
		w.handler.ServeHTTP(recorder, r)
		code, answer := recorder.Code, recorder.Body.String()

		switch code {
		case 200, 201, 204, 400, 403, 404, 405, 409, 412, 413, 415, 422, 428:
		case 401: // bob's password is another by now
		default:
			t.Fatalf("%s %q as %s: %d %s\n%s", method, path, who.name, code, answer, w.log)
		}
		if code == 204 && answer != "" || code != 204 && !json.Valid([]byte(answer)) {
			t.Fatalf("%s %q: %d %q", method, path, code, answer)
		}
		if code >= 400 && recorder.Header().Get("Content-Type") != "application/problem+json" {
			t.Fatalf("%s %q: %d %v %s", method, path, code, recorder.Header(), answer)
		}
		for where, text := range map[string]string{"answer": answer, "log": w.log.String()} {
			if strings.Contains(body, "longenough-secret") && strings.Count(body+name, "longenough-secret") == 1 && strings.Contains(body, `"password": "longenough-secret"`) && strings.Contains(text, "longenough-secret") ||
				strings.Contains(text, who.password) {
				t.Fatalf("%s %q: a password in the %s: %s", method, path, where, text)
			}
		}
		changes := len(w.changes())
		if changes > 0 && (code >= 400 || method == http.MethodGet) || changes == 0 && code == 201 {
			t.Fatalf("%s %q: %d, and %d changes", method, path, code, changes)
		}
		if id != "create-token" || code != 201 {
			return
		}
		var made struct {
			Owner    string         `json:"owner"`
			Name     string         `json:"name"`
			Scopes   []string       `json:"scopes"`
			Networks []netip.Prefix `json:"networks"`
			Expires  *string        `json:"expires"`
			Token    string         `json:"token"`
		}
		var sent map[string]any
		must(t, json.Unmarshal([]byte(answer), &made))
		must(t, json.Unmarshal([]byte(body), &sent))
		for key := range sent {
			if !slices.Contains([]string{"name", "scopes", "networks", "lifetime", "$schema"}, key) {
				t.Fatalf("%q was taken: %q", key, body)
			}
		}
		list := func(key string) []string {
			items, there := sent[key].([]any)
			if _, named := sent[key]; named && !there {
				t.Fatalf("%s is no list: %q", key, body)
			}
			var texts []string
			for _, item := range items {
				text, ok := item.(string)
				if !ok {
					t.Fatalf("%s: %q", key, body)
				}
				texts = append(texts, text)
			}
			return texts
		}
		if want := list("scopes"); !slices.Equal(made.Scopes, want) || (made.Scopes == nil) != (want == nil) || len(made.Networks) != len(list("networks")) || made.Name != sent["name"] {
			t.Fatalf("sent %q, made %s", body, answer)
		}
		if lifetime, _ := sent["lifetime"].(string); (lifetime == "never") != (made.Expires == nil) {
			t.Fatalf("sent %q, made %s", body, answer)
		}
		if actor%3 == 2 {
			if made.Owner != "bob" || made.Scopes == nil || len(made.Networks) == 0 {
				t.Fatalf("a narrow token makes %s", answer)
			}
			for _, s := range made.Scopes {
				if s != "authserver:tokens/bob:write" && s != "repository:team/**:pull" {
					t.Fatalf("a narrow token makes %s", answer)
				}
			}
			for _, n := range made.Networks {
				if n.Bits() < 24 || !netip.MustParsePrefix("192.0.2.0/24").Contains(n.Addr()) {
					t.Fatalf("a narrow token makes %s", answer)
				}
			}
		}
		// It is good for its owner, as far as its networks go.
		if a := w.do(as{made.Owner, made.Token}, "GET", "/api/v1/whoami", ""); a.code == http.StatusOK && (a.field(t, "name") != made.Owner || (a.field(t, "scopes") == nil) != (made.Scopes == nil)) || a.code != http.StatusOK && len(made.Networks) == 0 {
			t.Fatalf("the token made by %q: %d %s", body, a.code, a.body)
		}
	})
}
