package server_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"authserver/internal/acl"
	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/scope"
	"authserver/internal/server"
	"authserver/internal/store"
	"authserver/internal/users"
)

// accounts is a face before a database with the user alice (password "secret:1") and the robot ci.
type accounts struct {
	*face
	db     *store.Store
	mint   *issuer.Issuer
	guard  *users.Guard
	events *buffer // the audit log
}

// swap is a policy that can be changed.
type swap struct{ *acl.Policy }

func newAccounts(t *testing.T, policy *swap) *accounts {
	t.Helper()
	dir := t.TempDir()
	x := &accounts{events: &buffer{}}
	var err error
	if x.db, err = store.Open(t.Context(), store.Config{URL: "sqlite:authserver.db", Dir: dir, Timeout: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.db.Close() })
	hash, err := bcrypt.GenerateFromPassword([]byte("secret:1"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []users.Account{{Name: "alice", Kind: users.KindUser, Password: string(hash), Created: time.Now()}, {Name: "ci", Kind: users.KindRobot, Created: time.Now()}} {
		if err := x.db.AddAccount(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if policy == nil {
		p, err := acl.Parse("policy.yaml", []byte(testPolicy))
		if err != nil {
			t.Fatal(err)
		}
		policy = &swap{p}
	}
	services := []issuer.Service{
		{Name: "registry.local", Issuer: "authserver", Verifier: issuer.VerifierChain, Algorithm: issuer.ES256, Lifetime: 5 * time.Minute},
		{Name: "other", Issuer: "authserver", Verifier: issuer.VerifierChain, Algorithm: issuer.ES256, Lifetime: time.Hour},
	}
	ring, err := issuer.OpenKeyring(issuer.KeyConfig{DataDir: filepath.Join(dir, "data"), Name: "test", Services: services, RotateEvery: time.Hour, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	x.face = newFace(t, func(c *server.Config) {
		x.guard = users.NewGuard(users.GuardEvents{Recalled: c.Metrics.Recalled, HeldBack: c.Metrics.HeldBack})
		chain := users.NewChain([]users.Authenticator{users.NewDatabase(x.db, x.guard, bcrypt.MinCost)}, x.guard, c.Metrics.Authentication)
		x.mint, err = issuer.New(issuer.Config{
			Services: services, Keyring: ring, Users: users.NewAccessTokens(x.db, chain, time.Now), Policy: policy, Audit: audit.New(x.events),
			Logins: users.NewRefreshTokens(x.db, chain, time.Hour, 2*time.Hour),
		})
		c.Issuer = x.mint
	})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// accessToken makes a token of an owner.
func (x *accounts) accessToken(owner, id string, scopes ...string) string {
	x.t.Helper()
	secret, hash, shown := users.NewAccessToken()
	if err := x.db.AddAccessToken(x.t.Context(), hash, users.AccessToken{ID: id, Owner: owner, Backend: "database", Name: id, Shown: shown, Scopes: scopes, Created: time.Now()}); err != nil {
		x.t.Fatal(err)
	}
	return secret
}

// refreshToken is that in an answer, "" when there is none.
func refreshToken(t *testing.T, a answer) string {
	t.Helper()
	a.claims(t)
	token, given := a.fields(t)["refresh_token"].(string)
	if given != (token != "") || given && !users.IsRefreshToken(token) {
		t.Errorf("refresh token %q: %s", token, a.body)
	}
	return token
}

func refreshForm(token string, more ...string) url.Values {
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "service": {"registry.local"}, "client_id": {"test"}}
	for i := 0; i+1 < len(more); i += 2 {
		form.Add(more[i], more[i+1])
	}
	return form
}

func TestARefreshTokenIsGivenOnlyWhenAsked(t *testing.T) {
	x := newAccounts(t, nil)
	login := basic("alice", "secret:1")
	robot := basic("ci", x.accessToken("ci", "t1"))
	for query, given := range map[string]bool{
		"": false, "?offline_token=true": true, "?offline_token=1": true, "?offline_token=false": false, "?offline_token=0": false, "?offline_token=": false,
		"?offline_token=maybe": false, "?offline_token=yes": false, "?access_type=offline": false, "?offline_token=true&offline_token=true": true,
		"?offline_token=true&account=alice&client_id=docker&scope=repository:alice/a:pull": true,
	} {
		if got := refreshToken(t, x.get("/token"+query, login)); (got != "") != given {
			t.Errorf("GET %s: refresh token %q", query, got)
		}
		if got := refreshToken(t, x.get("/token"+strings.Replace(query, "alice", "ci", 1), robot)); got != "" {
			t.Errorf("GET %s with an access token: refresh token %q", query, got)
		}
	}
	for access, given := range map[string]bool{"": false, "offline": true, "online": false, "Offline": false, "true": false} {
		if got := refreshToken(t, x.post(password("alice", "secret:1", "access_type", access))); (got != "") != given {
			t.Errorf("POST access_type=%s: refresh token %q", access, got)
		}
	}
	if got := refreshToken(t, x.post(password("alice", "secret:1", "offline_token", "true"))); got != "" {
		t.Errorf("POST offline_token=true: refresh token %q", got)
	}
	if got := refreshToken(t, x.post(password("ci", x.accessToken("ci", "t2"), "access_type", "offline"))); got != "" {
		t.Errorf("POST with an access token: refresh token %q", got)
	}
	// Nobody gets one: who asks for one is somebody whose credentials got lost.
	for query, status := range map[string]int{"": 200, "?offline_token=false": 200, "?offline_token=": 200, "?access_type=offline": 200, "?offline_token=true": 401, "?offline_token=maybe": 401} {
		a := x.get("/token" + query)
		if a.StatusCode != status || strings.Contains(string(a.body), "refresh_token") || status == 401 && !strings.Contains(string(a.body), issuer.NotLoggedIn) {
			t.Errorf("anonymous GET %s: %d %s", query, a.StatusCode, a.body)
		}
	}
	for _, a := range []answer{x.get("/token?offline_token=true", basic("alice", "wrong")), x.post(password("alice", "wrong", "access_type", "offline"))} {
		a.unauthorized(t)
		if strings.Contains(string(a.body), "refresh_token") {
			t.Errorf("%s", a.body)
		}
	}
	for _, a := range []answer{x.get("/token?offline_token=true&offline_token=false", login), x.post(password("alice", "secret:1", "access_type", "offline", "access_type", "online"))} {
		a.refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
	}
}

func TestARefreshTokenIsTakenInBothForms(t *testing.T) {
	x := newAccounts(t, nil)
	token := refreshToken(t, x.get("/token?offline_token=true&service=registry.local", basic("alice", "secret:1")))
	const query = "/token?service=registry.local&scope=repository:alice/a:pull"
	for range 3 { // it is used again and again
		for name, a := range map[string]answer{
			"POST":                   x.post(refreshForm(token, "scope", "repository:alice/a:pull")),
			"POST, offline":          x.post(refreshForm(token, "scope", "repository:alice/a:pull", "access_type", "offline")),
			"POST, twice the same":   x.post(refreshForm(token, "scope", "repository:alice/a:pull", "refresh_token", token)),
			"GET (BuildKit)":         x.get(query, basic("", token)),
			"GET, offline":           x.get(query+"&offline_token=true", basic("", token)),
			"GET, with the account":  x.get(query+"&account=alice", basic("", token)),
			"POST, with the account": x.post(refreshForm(token, "scope", "repository:alice/a:pull", "account", "alice")),
		} {
			if c := a.claims(t); c.Subject != "alice" || c.Access.String() != "repository:alice/a:pull" || c.Audience != "registry.local" {
				t.Errorf("%s: %+v", name, c)
			}
			if got := refreshToken(t, a); got != "" { // clients keep the one they have
				t.Errorf("%s: refresh token %q", name, got)
			}
		}
	}
	if a := x.post(refreshForm(token, "scope", "")); a.claims(t).Access == nil || a.fields(t)["scope"] != "" || a.fields(t)["token_type"] != "Bearer" { // docker login
		t.Errorf("%s", a.body)
	}
}

// A bad one is a bad password: the same status, the same words.
func TestABadRefreshTokenIsARefusal(t *testing.T) {
	x := newAccounts(t, nil)
	token := refreshToken(t, x.get("/token?offline_token=true&service=registry.local", basic("alice", "secret:1")))
	access := x.accessToken("alice", "t1")
	missing := refreshForm("")
	missing.Del("refresh_token")
	elsewhere := refreshForm(token)
	elsewhere.Set("service", "other")
	bad := map[string]answer{
		"missing":                            x.post(missing),
		"empty":                              x.post(refreshForm("")),
		"too long":                           x.post(refreshForm(strings.Repeat("x", 257))),
		"a token, and too long":              x.post(refreshForm(token + strings.Repeat("x", 300))),
		"not one":                            x.post(refreshForm("x")),
		"one of nobody":                      x.post(refreshForm("asrt_" + strings.Repeat("0", 49))),
		"a typing error":                     x.post(refreshForm(token[:53] + "_")),
		"an access token":                    x.post(refreshForm(access)),
		"a password":                         x.post(refreshForm("secret:1")),
		"of another service":                 x.post(elsewhere),
		"of another service, GET":            x.get("/token?service=other", basic("", token)),
		"as the password of its owner":       x.get("/token", basic("alice", token)),
		"as the password of its owner, POST": x.post(password("alice", token)),
		"as the password of nobody, POST":    x.post(password("", token)),
		"as the password of somebody else":   x.get("/token", basic("ci", token)),
		"an access token without a name":     x.get("/token", basic("", access)),
		"an access token of somebody else":   x.get("/token", basic("ci", access)),
		"a password without a name":          x.get("/token", basic("", "secret:1")),
		"too long, without a name":           x.get("/token", basic("", token+strings.Repeat("x", 300))),
		"as a bearer token":                  x.get("/token", header("Authorization", "Bearer "+token)),
		"a wrong password":                   x.get("/token", basic("alice", "wrong")),
	}
	for name, a := range bad {
		t.Run(name, func(t *testing.T) {
			a.unauthorized(t)
			if string(a.body) != string(bad["a wrong password"].body) {
				t.Errorf("other words: %s", a.body)
			}
		})
	}
	inQuery := x.get("/token?grant_type=refresh_token&refresh_token=" + token)
	if inQuery.unauthorized(t); !strings.Contains(string(inQuery.body), issuer.NotLoggedIn) {
		t.Errorf("in the query: %s", inQuery.body)
	}
	x.post(refreshForm(token, "refresh_token", "asrt_other")).refused(t, http.StatusBadRequest, "UNSUPPORTED", "invalid_request")
	x.post(refreshForm(token, "account", "ci")).unauthorized(t)
	x.get("/token?account=ci", basic("", token)).unauthorized(t)
	x.post(refreshForm(token)).claims(t) // after all of this it is as good as before

	if err := x.db.SetDisabled(t.Context(), "alice", true, time.Now()); err != nil {
		t.Fatal(err)
	}
	x.post(refreshForm(token)).unauthorized(t)
	x.get("/token", basic("alice", access)).unauthorized(t)
	_ = x.db.Close()
	for _, a := range []answer{x.post(refreshForm(token)), x.get("/token", basic("", token)), x.get("/token", basic("alice", access)), x.get("/token", basic("alice", "secret:1"))} {
		a.refused(t, http.StatusServiceUnavailable, "UNAVAILABLE", "temporarily_unavailable")
	}
	x.get("/token").claims(t)
}

func TestALoginHoldsWithoutItsRefreshToken(t *testing.T) {
	f := newFace(t, with(stub{result: issuer.Result{Token: "a.b.c", RefreshErr: fmt.Errorf("disk full"), ExpiresIn: time.Minute, Outcome: audit.Granted}}))
	a := f.get("/token?offline_token=true", basic("alice", "x"))
	if a.StatusCode != http.StatusOK || strings.Contains(string(a.body), "refresh") || strings.Contains(string(a.body), "disk full") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if !strings.Contains(f.log.String(), `"level":"WARN","msg":"no refresh token could be given; the login holds without"`) || !strings.Contains(f.log.String(), "disk full") {
		t.Errorf("log: %s", f.log)
	}
}

func TestTokensAreWrittenNowhere(t *testing.T) {
	x := newAccounts(t, nil)
	access := x.accessToken("alice", "t1")
	token := refreshToken(t, x.get("/token?offline_token=true", basic("alice", "secret:1")))
	x.get("/token", basic("alice", access)).claims(t)
	x.get("/token", basic("ci", access)).unauthorized(t)
	x.get("/token", basic("", token)).claims(t)
	x.get("/token", basic("alice", token)).unauthorized(t)
	x.post(refreshForm(token + "x")).unauthorized(t)
	for _, secret := range []string{access, token} {
		if strings.Contains(x.log.String()+x.events.String(), secret[11:]) {
			t.Error("a token was written down")
		}
	}
	for _, want := range []string{`"credential":"access token t1"`, `"credential":"refresh token `, `"refresh_token":true`, `"grant":"refresh_token"`} {
		if !strings.Contains(x.events.String(), want) {
			t.Errorf("no %s in %s", want, x.events)
		}
	}
	if n := strings.Count(x.events.String(), `"refresh_token":true`); n != 1 {
		t.Errorf("%d refresh tokens are recorded", n)
	}
}

// seen notes what clients call themselves.
type seen struct {
	names *[]string
	server.Issuer
}

func (s seen) Issue(ctx context.Context, r issuer.Request) (issuer.Result, error) {
	*s.names = append(*s.names, r.ClientName)
	return s.Issuer.Issue(ctx, r)
}

// What a client calls itself is kept, so it must be text that any database takes.
func TestAnyClientIDGetsItsRefreshToken(t *testing.T) {
	var got []string
	f := newFace(t, func(c *server.Config) { c.Issuer = seen{&got, c.Issuer} })
	for id, want := range map[string]string{
		"docker": "docker", "": "", "regclient/regctl (v0.11.7)": "regclient/regctl (v0.11.7)", "d\u00f6cker": "d\u00f6cker", "a\x00b\n\x7f": "ab", "a\xffb": "a\ufffdb",
		strings.Repeat("x", 127) + "\u00e9": strings.Repeat("x", 127) + "\ufffd\u2026", strings.Repeat("x", 200): strings.Repeat("x", 128) + "\u2026",
	} {
		f.get("/token?client_id="+url.QueryEscape(id), basic("alice", "secret:1")).claims(t)
		if last := got[len(got)-1]; last != want {
			t.Errorf("%q: %q, want %q", id, last, want)
		}
	}
}

// Whatever the policy says: an access token may do what its owner may and its scopes allow; a refresh token what its owner may.
func TestACredentialMayNeverDoMoreThanItsOwner(t *testing.T) {
	policy := &swap{}
	nobody, err := acl.Parse("policy.yaml", []byte("rules: [{name: x, subjects: [anonymous], repositories: [x], actions: [pull]}]"))
	if err != nil {
		t.Fatal(err)
	}
	policy.Policy = nobody
	x := newAccounts(t, policy)
	refresh := refreshToken(t, x.get("/token?offline_token=true", basic("alice", "secret:1")))
	r := rand.New(rand.NewPCG(15, 16))
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	name := func() string { return pick("a", "b", "alice") + pick("", "/a", "/b", "/a/b") }
	less, same, none := 0, 0, 0
	for round := range 40 {
		var text strings.Builder
		fmt.Fprintf(&text, "combining: %s\nrules:\n", pick("deny-overrides", "first-applicable"))
		for i := range 1 + r.IntN(6) {
			fmt.Fprintf(&text, "  - {name: r%d, effect: %s, subjects: [%q], repositories: [%q], resources: [%q], actions: [%q]}\n", i, pick("allow", "allow", "allow", "deny"),
				pick("anyone", "authenticated", "user:alice"), pick("**", "{user}/**", "*", "a/**", name()), pick("registry:catalog", "registry:**", "other:a"), pick("pull", "push", "*"))
		}
		if policy.Policy, err = acl.Parse("policy.yaml", []byte(text.String())); err != nil {
			t.Fatalf("%v\n%s", err, text.String())
		}
		scopes := []string{}
		for range r.IntN(4) {
			scopes = append(scopes, pick("repository:**:*", "registry:catalog:*", "repository:"+pick("a/**", "*", "alice/*", name())+":"+pick("pull", "push", "*", "pull,push")))
		}
		if round%10 == 0 {
			scopes = nil
		}
		access := x.accessToken("alice", fmt.Sprint("t", round), scopes...)
		for range 6 {
			var texts []string
			for range 1 + r.IntN(3) {
				texts = append(texts, pick("repository:"+name()+pick("", "", "/*")+":"+pick("pull", "push", "*", "delete,pull", "pull,push,*"), "registry:catalog:*", "repository::pull", "repository::*"))
			}
			asked, _, err := scope.Parse(texts)
			if err != nil {
				t.Fatal(err)
			}
			issue := func(change func(r *issuer.Request)) scope.Set {
				t.Helper()
				request := issuer.Request{Grant: issuer.GrantBasic, Service: "registry.local", Asked: asked, Client: netip.MustParseAddr("192.0.2.1")}
				change(&request)
				result, err := x.mint.Issue(t.Context(), request)
				if err != nil {
					t.Fatal(err)
				}
				return result.Granted
			}
			owner := issue(func(r *issuer.Request) { r.Credentials = &users.Credentials{Username: "alice", Password: "secret:1"} })
			login := issue(func(r *issuer.Request) { r.Grant, r.RefreshToken = issuer.GrantRefresh, refresh })
			token := issue(func(r *issuer.Request) { r.Credentials = &users.Credentials{Username: "alice", Password: access} })
			if login.String() != owner.String() {
				t.Fatalf("asked %q: with the password %q, with a refresh token %q\n%s", asked, owner, login, text.String())
			}
			if !token.Within(owner) || !token.Within(asked) || scopes == nil && token.String() != owner.String() || scopes != nil && len(scopes) == 0 && len(token) > 0 {
				t.Fatalf("asked %q: with the password %q, with an access token %q of %q\n%s", asked, owner, token, scopes, text.String())
			}
			for _, a := range token {
				for _, action := range a.Actions {
					if scopes != nil && !slices.ContainsFunc(scopes, func(s string) bool { return scopeAllows(s, a, action) }) {
						t.Fatalf("asked %q: %s on %s:%s with an access token of %q", asked, action, a.Type, a.Name, scopes)
					}
				}
			}
			switch {
			case len(owner) == 0:
			case token.String() == owner.String():
				same++
			case len(token) == 0:
				none++
			default:
				less++
			}
		}
	}
	if min(less, same, none) < 10 {
		t.Errorf("%d less, %d the same, %d nothing: the test says nothing", less, same, none)
	}
}

// scopeAllows is the plain reading of the few scopes above.
func scopeAllows(s string, a scope.Access, action string) bool {
	parts := strings.Split(s, ":")
	if actions := strings.Split(parts[2], ","); !slices.Contains(actions, action) && !slices.Contains(actions, "*") {
		return a.Name == "" && s == "registry:catalog:*"
	}
	switch {
	case a.Type == "repository" && a.Name == "": // zot's catalog
		return s == "registry:catalog:*"
	case parts[0] != a.Type:
		return false
	case strings.HasSuffix(parts[1], "**"):
		return strings.HasPrefix(a.Name, strings.TrimSuffix(parts[1], "**"))
	case strings.HasSuffix(parts[1], "*"):
		rest, ok := strings.CutPrefix(a.Name, strings.TrimSuffix(parts[1], "*"))
		return ok && rest != "" && rest != "*" && !strings.Contains(rest, "/")
	}
	return parts[1] == a.Name
}
