package flows_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// engines are the databases that accounts and tokens are kept in: what database.url is.
var engines = []struct {
	name string
	url  func(testing.TB) string
}{
	{"sqlite", func(testing.TB) string { return "" }},
	{"postgres", harness.Database},
}

func setAccountStage(t *testing.T, database string) stage {
	t.Helper()
	auth := harness.StartAuthserver(t, harness.Options{Policy: policy, Database: database, RefreshTokens: true})
	return stage{auth, harness.StartRegistry(t, "3.1.2", auth)}
}

// Every client logs in with the password of an account, with an access token in its place, and with a refresh token; and
// what ends any of these ends it for the client.
func TestEveryClientUsesAccountsAndTokens(t *testing.T) {
	clients := append(tools(t), tool{"helm", newHelm, "(?i)unauthorized", "(?i)unauthorized", "(?i)unauthorized"})
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			s := setAccountStage(t, engine.url(t))
			for _, client := range clients {
				t.Run(client.name, func(t *testing.T) {
					user, image := client.name, s.ref(client.name+"/app:1.0.0")
					becomes := func(t *testing.T, status int, user, password string) {
						t.Helper()
						becomes(t, "the change", status, func() harness.Answer { return s.auth.Ask(t, user, password, s.auth.Service) })
					}
					s.auth.AddUser(t, user, "first password")
					works := func(t *testing.T, c interface {
						push(string) (string, error)
						pull(string) (string, error)
					}) {
						t.Helper()
						succeeds(t, "push")(c.push(image))
						succeeds(t, "pull")(c.pull(image))
					}

					t.Run("password", func(t *testing.T) {
						c := client.make(t, s.registry.Host)
						succeeds(t, "login")(c.login(user, "first password"))
						works(t, c)
						s.auth.Command(t, "second password\n", "user", "passwd", user, "--password-stdin")
						becomes(t, http.StatusUnauthorized, user, "first password")
						fails(t, "pull with a password that was changed", client.wrongPassword)(c.pull(image))
					})

					t.Run("access token", func(t *testing.T) {
						c := client.make(t, s.registry.Host)
						token, id := s.auth.AccessToken(t, user, "wide")
						succeeds(t, "login")(c.login(user, token))
						works(t, c)
						s.auth.Command(t, "", "token", "revoke", id)
						becomes(t, http.StatusUnauthorized, user, token)
						fails(t, "pull with a token that was revoked", client.wrongPassword)(c.pull(image))

						narrow, _ := s.auth.AccessToken(t, user, "narrow", "--scope", "repository:"+user+"/**:pull")
						c.forget()
						succeeds(t, "login")(c.login(user, narrow))
						succeeds(t, "pull with a token for pulls")(c.pull(image))
						fails(t, "push with a token for pulls", client.refusedPush)(c.push(s.ref(user + "/app:2.0.0")))
					})

					t.Run("refresh token", func(t *testing.T) {
						c := client.make(t, s.registry.Host)
						keep := func() {
							t.Helper()
							c.forget()
							succeeds(t, "login")(c.keep(user, "second password"))
							if auth, token := c.kept(); strings.TrimSuffix(auth, ":") != user || !strings.HasPrefix(token, "asrt_") {
								t.Fatalf("docker has kept %q and the identity token %q", auth, token)
							}
						}
						keep()
						works(t, c)
						_, login := c.kept()
						s.auth.Command(t, "", "user", "disable", user)
						becomes(t, http.StatusUnauthorized, "", login)
						fails(t, "pull of who is locked out", client.wrongPassword)(c.pull(image))
						s.auth.Command(t, "", "user", "enable", user)
						becomes(t, http.StatusOK, user, "second password")
						fails(t, "pull with a login from before the lock", client.wrongPassword)(c.pull(image))
						keep()
						succeeds(t, "pull after a new login")(c.pull(image))
						_, login = c.kept()
						s.auth.Command(t, "", "user", "remove", user)
						becomes(t, http.StatusUnauthorized, "", login)
						fails(t, "pull of who was removed", client.wrongPassword)(c.pull(image))
					})
				})
			}
		})
	}
}

// docker keeps an access token as it keeps a password: it is no login that could be refreshed.
func TestDockerKeepsAnAccessToken(t *testing.T) {
	s := setAccountStage(t, "")
	s.auth.AddUser(t, "alice", alicePassword)
	token, _ := s.auth.AccessToken(t, "alice", "laptop")
	c := newBase(t, "docker", s.registry.Host)
	succeeds(t, "login")(c.keep("alice", token))
	if auth, identity := c.kept(); auth != "alice:"+token || identity != "" {
		t.Errorf("docker has kept %q and the identity token %q", auth, identity)
	}
}

// A credential is a way to ask for a token.
type credential struct {
	name string
	ask  func() harness.Answer
}

// What ends what, asked in every way in which clients ask.
func TestLoginsEnd(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			a := harness.StartAuthserver(t, harness.Options{Policy: policy, Database: engine.url(t), RefreshTokens: true})
			service, scope := url.Values{"service": {a.Service}}, "repository:alice/app:pull,push"
			with := func(more url.Values) url.Values {
				v := url.Values{"scope": {scope}, "service": service["service"]}
				for name, values := range more {
					v[name] = values
				}
				return v
			}
			// The login of docker, and that of nerdctl.
			dockerLogin := func(password string) harness.Answer {
				return a.Get(t, "alice", password, url.Values{"service": {a.Service}, "account": {"alice"}, "client_id": {"docker"}, "offline_token": {"true"}})
			}
			nerdctlLogin := func(password string) harness.Answer {
				return a.Post(t, url.Values{"grant_type": {"password"}, "service": {a.Service}, "client_id": {"nerdctl"}, "access_type": {"offline"}, "username": {"alice"}, "password": {password}})
			}
			login := func(by func(string) harness.Answer, password string) string {
				t.Helper()
				answer := by(password)
				if answer.Status != http.StatusOK || !strings.HasPrefix(answer.RefreshToken, "asrt_") {
					t.Fatalf("no refresh token: status %d: %s", answer.Status, answer.Body)
				}
				return answer.RefreshToken
			}
			byPassword := func(password string) []credential {
				return []credential{
					{"password, GET", func() harness.Answer { return a.Get(t, "alice", password, with(nil)) }},
					{"password, POST", func() harness.Answer {
						return a.Post(t, with(url.Values{"grant_type": {"password"}, "username": {"alice"}, "password": {password}, "client_id": {"containerd-client"}}))
					}},
				}
			}
			byRefresh := func(token string) []credential {
				return []credential{
					{"refresh token, POST", func() harness.Answer {
						return a.Post(t, with(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {"docker"}}))
					}},
					{"refresh token, Basic without a user name", func() harness.Answer { return a.Get(t, "", token, with(nil)) }}, // BuildKit
				}
			}
			expect := func(when string, status int, credentials ...[]credential) {
				t.Helper()
				for _, list := range credentials {
					for _, c := range list {
						answer := becomes(t, when+": "+c.name, status, c.ask)
						if (answer.Token != "") != (status == http.StatusOK) {
							t.Errorf("%s: %s: status %d: %s", when, c.name, answer.Status, answer.Body)
						}
					}
				}
			}
			const good, bad = http.StatusOK, http.StatusUnauthorized

			a.Command(t, "one\n", "user", "add", "alice", "--group", "dev", "--password-stdin")
			secret, id := a.AccessToken(t, "alice", "laptop")
			old, access := byPassword("one"), byPassword(secret)
			first, second := byRefresh(login(dockerLogin, "one")), byRefresh(login(nerdctlLogin, "one"))
			expect("at first", good, old, access, first, second)
			expect("a wrong password", bad, byPassword("two"))
			for _, by := range []func(string) harness.Answer{dockerLogin, nerdctlLogin} {
				if answer := by(secret); answer.Status != http.StatusOK || answer.RefreshToken != "" {
					t.Errorf("a login with an access token: status %d, refresh token %q", answer.Status, answer.RefreshToken)
				}
			}
			if answer := a.Get(t, "alice", "one", service); answer.RefreshToken != "" {
				t.Error("a refresh token for somebody who did not ask for it")
			}
			// A token is nobody else's.
			a.AddUser(t, "bob", "one")
			if answer := a.Get(t, "bob", secret, with(nil)); answer.Status != bad {
				t.Errorf("alice's token as bob's password: status %d", answer.Status)
			}

			a.Command(t, "two\n", "user", "passwd", "alice", "--password-stdin")
			expect("a new password", bad, old, first, second)
			changed := byPassword("two")
			expect("a new password", good, changed, access)

			first = byRefresh(login(dockerLogin, "two"))
			a.Command(t, "", "user", "disable", "alice")
			expect("locked out", bad, changed, access, first)
			a.Command(t, "", "user", "enable", "alice")
			expect("let in again", bad, first)
			expect("let in again", good, changed, access)

			a.Command(t, "", "token", "revoke", id)
			expect("revoked", bad, access)
			expect("revoked", good, changed)

			secret, _ = a.AccessToken(t, "alice", "laptop")
			access, first = byPassword(secret), byRefresh(login(nerdctlLogin, "two"))
			expect("before the removal", good, changed, access, first)
			a.Command(t, "", "user", "remove", "alice")
			expect("removed", bad, changed, access, first)
			a.Command(t, "two\n", "user", "add", "alice", "--password-stdin")
			expect("somebody else of that name", bad, access, first)
			expect("somebody else of that name", good, changed)
			if groups := a.Command(t, "", "group", "list", "dev"); groups != "" {
				t.Errorf("somebody else of that name is in a group: %s", groups)
			}
		})
	}
}

func TestTokensAreNarrow(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			s := setAccountStage(t, engine.url(t))
			s.auth.AddUser(t, "alice", alicePassword)
			s.auth.Command(t, "", "user", "add", "alice-ci", "--robot")
			image := s.ref("alice/app:1")
			succeeds(t, "push")(s.craneAs(t, "alice", alicePassword).push(image))

			here, _ := s.auth.AccessToken(t, "alice", "here", "--from-cidr", "127.0.0.0/8", "--from-cidr", "10.0.0.0/8")
			succeeds(t, "pull from where the token can be used")(s.craneAs(t, "alice", here).pull(image))
			elsewhere, _ := s.auth.AccessToken(t, "alice", "elsewhere", "--from-cidr", "10.0.0.0/8")
			c := s.craneAs(t, "alice", elsewhere)
			fails(t, "pull from elsewhere", "UNAUTHORIZED")(c.pull(image))

			// Not more than its owner: a token cannot give what the policy does not.
			wide, _ := s.auth.AccessToken(t, "alice-ci", "wide", "--scope", "repository:**:pull,push,delete")
			c = s.craneAs(t, "alice-ci", wide)
			fails(t, "push of a robot to somebody else's repository", "(?i)unauthorized")(c.push(image))
			succeeds(t, "push of a robot to its own")(c.push(s.ref("alice-ci/app:1")))

			other, _ := s.auth.AccessToken(t, "alice", "other", "--scope", "repository:alice/other:pull,push")
			c = s.craneAs(t, "alice", other)
			succeeds(t, "push to the one repository")(c.push(s.ref("alice/other:1")))
			fails(t, "pull of another one", "UNAUTHORIZED")(c.pull(image))
			fails(t, "catalog", "UNAUTHORIZED")(c.run("", "catalog", s.registry.Host))
		})
	}
}
