package users_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/users"
)

// begin logs in with a password and asks for a refresh token.
func (x *tokens) begin(t *testing.T, name, password string) string {
	t.Helper()
	who, err := x.login(t, name, password)
	if err != nil {
		t.Fatal(err)
	}
	token, err := x.logins.Begin(t.Context(), who, "registry", "docker", now)
	if err != nil || !users.IsRefreshToken(token) {
		t.Fatalf("%q, %v", token, err)
	}
	return token
}

func (x *tokens) redeem(t *testing.T, token string, after time.Duration) (users.Principal, error) {
	t.Helper()
	x.answers = nil
	who, err := x.logins.Redeem(t.Context(), token, "registry", now.Add(after))
	if err != nil && (who.Name != "" || who.Kind != "" || who.Credential != "") {
		t.Errorf("an error came with %+v", who)
	}
	return who, err
}

func TestARefreshTokenStandsForWhoLoggedIn(t *testing.T) {
	x := newTokens(t)
	alice, bob := x.begin(t, "alice", "a"), x.begin(t, "bob", "b")
	for secret, want := range map[string]users.Principal{
		alice: {Name: "alice", Kind: users.KindUser, Groups: []string{"dev"}, Backend: "database"},
		bob:   {Name: "bob", Kind: users.KindUser, Backend: "htpasswd"},
	} {
		who, err := x.redeem(t, secret, time.Hour)
		for _, kept := range x.refresh {
			if kept.Owner == want.Name {
				want.Credential = "refresh token " + kept.ID
				if kept.Backend != want.Backend || kept.Service != "registry" || kept.Client != "docker" || kept.Mark == "" || !kept.Created.Equal(now) {
					t.Errorf("kept is %+v", kept)
				}
			}
		}
		if err != nil || !reflect.DeepEqual(who, want) {
			t.Errorf("%+v, %v\nwant %+v", who, err, want)
		}
		if !slices.Equal(x.answers, []string{"refresh_token known"}) {
			t.Errorf("%v", x.answers)
		}
	}
	if _, kept := x.refresh[alice]; kept {
		t.Error("the token itself is kept")
	}
	// It is the owner of now: a group is gained and lost without a new login.
	x.change("alice", func(a *users.Account) { a.Groups = []string{"ops"} })
	if who, err := x.redeem(t, alice, time.Hour); err != nil || !slices.Equal(who.Groups, []string{"ops"}) {
		t.Errorf("%+v, %v", who, err)
	}
}

func TestARefreshTokenIsForOneService(t *testing.T) {
	x := newTokens(t)
	token := x.begin(t, "alice", "a")
	for _, service := range []string{"other", "", "Registry", "registry "} {
		_, err := x.logins.Redeem(t.Context(), token, service, now)
		x.wantRefused(t, service, err)
	}
	if _, err := x.redeem(t, token, 0); err != nil { // a wrong try does not end it
		t.Error(err)
	}
	for _, wrong := range []string{"", "asrt_", "x", token + "0", token[:53], token[:30] + "_" + token[31:], "ASRT_" + token[5:]} {
		x.asked = 0
		_, err := x.redeem(t, wrong, 0)
		x.wantRefused(t, wrong, err)
		if x.asked != 0 || !slices.Equal(x.answers, []string{"refresh_token refused"}) {
			t.Errorf("%s: the database was asked %d times, %v", wrong, x.asked, x.answers)
		}
	}
}

func TestARefreshTokenEndsWhenItIsIdleOrOld(t *testing.T) {
	for _, c := range []struct {
		name string
		uses []time.Duration // since the login; all but the last are good
		good bool
	}{
		{"at once", []time.Duration{0}, true},
		{"idle to the instant", []time.Duration{idle}, true},
		{"idle past it", []time.Duration{idle + 1}, false},
		{"used in between", []time.Duration{idle - time.Hour, 2*idle - time.Hour}, true},
		{"used in between, idle past it", []time.Duration{idle - time.Hour, 2*idle - time.Hour + 1}, false},
		{"old to the instant", []time.Duration{idle, 2 * idle, 3 * idle, 4 * idle, most}, true},
		{"old past it", []time.Duration{idle, 2 * idle, 3 * idle, 4 * idle, most, most + 1}, false},
		{"from another replica's future", []time.Duration{-time.Minute}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTokens(t)
			token := x.begin(t, "alice", "a")
			for i, use := range c.uses {
				_, err := x.redeem(t, token, use)
				if good := c.good || i < len(c.uses)-1; (err == nil) != good || err != nil && !errors.Is(err, users.ErrRefused) {
					t.Errorf("after %s: %v", use, err)
				}
			}
		})
	}
}

func TestTheUseOfARefreshTokenIsWrittenDownOnceAMinute(t *testing.T) {
	x := newTokens(t)
	token := x.begin(t, "alice", "a")
	for _, after := range []time.Duration{0, time.Second, time.Minute - 1, time.Minute, time.Minute + time.Second, 3 * time.Minute} {
		if _, err := x.redeem(t, token, after); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"07:09:09", "07:11:09"}; !slices.Equal(x.notes, want) {
		t.Errorf("written down %q, want %q", x.notes, want)
	}
}

func TestARefreshTokenEndsWithTheLogin(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, x *tokens){
		"a new password": func(t *testing.T, x *tokens) {
			x.change("alice", func(a *users.Account) { a.Password = hash(t, "new") })
		},
		"the same password, anew": func(t *testing.T, x *tokens) { x.change("alice", func(a *users.Account) { a.Password = hash(t, "a") }) },
		"no password any more":    func(_ *testing.T, x *tokens) { x.change("alice", func(a *users.Account) { a.Password = "" }) },
		"disabled":                func(_ *testing.T, x *tokens) { x.change("alice", func(a *users.Account) { a.Disabled = true }) },
		"removed":                 func(_ *testing.T, x *tokens) { delete(x.accounts, "alice") },
		"removed and added": func(t *testing.T, x *tokens) {
			x.accounts["alice"] = users.Account{Name: "alice", Kind: users.KindUser, Password: hash(t, "a")}
		},
		"a robot": func(_ *testing.T, x *tokens) { x.change("alice", func(a *users.Account) { a.Kind = users.KindRobot }) },
		"moved to another backend": func(t *testing.T, x *tokens) {
			delete(x.accounts, "alice")
			x.use(loadUsers(t, nil, "alice:"+hash(t, "a")))
		},
		"moved with its hash": func(t *testing.T, x *tokens) {
			line := "alice:" + x.accounts["alice"].Password
			delete(x.accounts, "alice")
			x.use(loadUsers(t, nil, line))
		},
		"revoked": func(_ *testing.T, x *tokens) { clear(x.refresh) },
	} {
		t.Run(name, func(t *testing.T) {
			x := newTokens(t)
			token, bob := x.begin(t, "alice", "a"), x.begin(t, "bob", "b")
			if _, err := x.redeem(t, token, 0); err != nil {
				t.Fatal(err)
			}
			end(t, x)
			_, err := x.redeem(t, token, time.Second)
			x.wantRefused(t, name, err)
			if name == "revoked" || strings.HasPrefix(name, "moved") {
				return
			}
			if _, err := x.redeem(t, bob, time.Second); err != nil {
				t.Errorf("somebody else's ended too: %v", err)
			}
		})
	}
}

func TestARefreshTokenOfAUserOfAFileEndsWithItsLine(t *testing.T) {
	x := newTokens(t)
	line := "bob:" + hash(t, "b")
	x.use(loadUsers(t, nil, line))
	token := x.begin(t, "bob", "b")
	x.use(loadUsers(t, nil, "# a reload", line, "carol:"+hash(t, "c")))
	if _, err := x.redeem(t, token, 0); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	x.use(loadUsers(t, nil, "bob:"+hash(t, "b")))
	_, err := x.redeem(t, token, 0)
	x.wantRefused(t, "another hash", err)
	x.use(loadUsers(t, nil, "Bob:"+line[4:]))
	_, err = x.redeem(t, token, 0)
	x.wantRefused(t, "removed", err)
}

// Who knows a password that has leaked logs in while it is changed: the login is over with it, whichever is first.
func TestALoginWithThePasswordBeforeGivesNothingThatLasts(t *testing.T) {
	for name, change := range map[string]func(x *tokens){
		"database": func(x *tokens) { x.change("alice", func(a *users.Account) { a.Password = hash(t, "new") }) },
		"htpasswd": func(x *tokens) { x.use(loadUsers(t, nil, "bob:"+hash(t, "new"))) },
	} {
		x := newTokens(t)
		owner := map[string]string{"database": "alice", "htpasswd": "bob"}[name]
		who, err := x.login(t, owner, owner[:1])
		if err != nil {
			t.Fatal(err)
		}
		change(x)
		token, err := x.logins.Begin(t.Context(), who, "registry", "docker", now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.redeem(t, token, 0); !errors.Is(err, users.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnlyALoginWithAPasswordGivesARefreshToken(t *testing.T) {
	x := newTokens(t)
	access := x.give(users.AccessToken{ID: "t1", Owner: "alice", Backend: "database"})
	byAccessToken, err := x.login(t, "alice", access)
	if err != nil {
		t.Fatal(err)
	}
	byRefreshToken, err := x.redeem(t, x.begin(t, "alice", "a"), 0)
	if err != nil {
		t.Fatal(err)
	}
	robot, err := x.login(t, "ci", x.give(users.AccessToken{ID: "t2", Owner: "ci", Backend: "database"}))
	if err != nil {
		t.Fatal(err)
	}
	far := users.NewChain([]users.Authenticator{&backend{name: "ldap", known: map[string]string{"carol": "c"}}}, users.NewGuard(users.GuardEvents{}), nil)
	stranger, err := ask(t, far, "carol", "c")
	if err != nil {
		t.Fatal(err)
	}
	before := len(x.refresh)
	for name, who := range map[string]users.Principal{
		"an access token":                    byAccessToken,
		"a refresh token":                    byRefreshToken,
		"a robot":                            robot,
		"a token, whatever it says":          {Name: "alice", Kind: users.KindUser, Backend: "database", Mark: "m", Credential: "access token t1"},
		"a robot, whatever it says":          {Name: "ci", Kind: users.KindRobot, Backend: "database", Mark: "m"},
		"a backend that cannot be looked up": stranger,
		"anonymous":                          users.Anonymous(),
		"nobody":                             {},
	} {
		if token, err := x.logins.Begin(t.Context(), who, "registry", "docker", now); token != "" || err != nil {
			t.Errorf("%s: %q, %v", name, token, err)
		}
	}
	if len(x.refresh) != before {
		t.Error("something was kept")
	}
}

func TestARefreshTokenIsUsedInParallel(t *testing.T) {
	x := newTokens(t)
	token := x.begin(t, "alice", "a")
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			for range 10 {
				if who, err := x.logins.Redeem(t.Context(), token, "registry", now.Add(time.Duration(i)*time.Minute)); err != nil || who.Name != "alice" {
					t.Errorf("%+v, %v", who, err)
				}
			}
		})
	}
	all.Wait()
	if len(x.refresh) != 1 {
		t.Errorf("%d tokens are kept", len(x.refresh))
	}
}

func TestADatabaseThatIsDownRefusesNoRefreshToken(t *testing.T) {
	x := newTokens(t)
	token := x.begin(t, "alice", "a")
	bob := x.begin(t, "bob", "b")
	who, err := x.login(t, "alice", "a")
	if err != nil {
		t.Fatal(err)
	}
	for what, down := range map[string]*error{"down": &x.down, "read-only": &x.readOnly} {
		*down = errDown
		for _, secret := range []string{token, bob} {
			if what == "read-only" { // a use that cannot be written down is a use all the same
				if _, err := x.redeem(t, secret, time.Hour); err != nil || !slices.Equal(x.answers, []string{"refresh_token unnoted", "refresh_token known"}) {
					t.Errorf("%s: %v, %v", what, err, x.answers)
				}
				continue
			}
			if _, err := x.redeem(t, secret, time.Hour); !errors.Is(err, errDown) || errors.Is(err, users.ErrRefused) || !slices.Equal(x.answers, []string{"refresh_token unavailable"}) {
				t.Errorf("%s: %v, %v", what, err, x.answers)
			}
		}
		// A token that was not kept would be good for nothing, and its client would go by it.
		if given, err := x.logins.Begin(t.Context(), who, "registry", "docker", now); !errors.Is(err, errDown) || given != "" {
			t.Errorf("%s: given %q, %v", what, given, err)
		}
		*down = nil
	}
	x.wantRefused(t, "what is no token", second(x.redeem(t, "asrt_x", 0)))
}
