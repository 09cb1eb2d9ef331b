package users_test

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/users"
)

// tokens is a shelf with the accounts alice and ci (a robot), a users file with bob, and what is made of them.
type tokens struct {
	*shelf
	chain   *users.Chain
	auth    *users.AccessTokens
	logins  *users.RefreshTokens
	at      time.Time
	answers []string // of backends
}

const idle, most = 24 * time.Hour, 100 * time.Hour

func newTokens(t *testing.T) *tokens {
	t.Helper()
	x := &tokens{at: now, shelf: newShelf(
		users.Account{Name: "alice", Kind: users.KindUser, Password: hash(t, "a"), Groups: []string{"dev"}},
		users.Account{Name: "ci", Kind: users.KindRobot, Groups: []string{"bots"}},
	)}
	x.use(loadUsers(t, nil, "bob:"+hash(t, "b"), "jos\u00e9:"+hash(t, "j")))
	return x
}

// use makes the chain anew, as a reload does, with another users file.
func (x *tokens) use(file *users.HTPasswd) {
	guard := users.NewGuard(users.GuardEvents{})
	x.chain = users.NewChain([]users.Authenticator{users.NewDatabase(x.shelf, guard, 4), file}, guard, func(backend, outcome string) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.answers = append(x.answers, backend+" "+outcome)
	})
	x.auth = users.NewAccessTokens(x.shelf, x.chain, func() time.Time { return x.at })
	x.logins = users.NewRefreshTokens(x.shelf, x.chain, idle, most)
}

// give makes an access token and returns its secret.
func (x *tokens) give(token users.AccessToken) string {
	secret, hash, _ := users.NewAccessToken()
	x.access[hash] = token
	return secret
}

func (x *tokens) login(t *testing.T, name, password string, from ...string) (users.Principal, error) {
	t.Helper()
	c := users.Credentials{Username: name, Password: password}
	if len(from) > 0 {
		c.From = netip.MustParseAddr(from[0])
	}
	x.answers = nil
	who, err := x.auth.Authenticate(t.Context(), c)
	if err != nil && (who.Name != "" || who.Kind != "" || who.Scopes != nil || who.Credential != "") {
		t.Errorf("an error came with %+v", who)
	}
	return who, err
}

// wantRefused wants ErrRefused: clients read the same words whatever is wrong.
func (x *tokens) wantRefused(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, users.ErrRefused) {
		t.Errorf("%s: %v", what, err)
	}
}

func TestAnAccessTokenStandsInForItsOwnersPassword(t *testing.T) {
	x := newTokens(t)
	scopes := []string{"repository:team/**:pull"}
	alice := x.give(users.AccessToken{ID: "t1", Owner: "alice", Backend: "database", Scopes: scopes})
	ci := x.give(users.AccessToken{ID: "t2", Owner: "ci", Backend: "database", Scopes: []string{}})
	bob := x.give(users.AccessToken{ID: "t3", Owner: "bob", Backend: "htpasswd"})
	jose := x.give(users.AccessToken{ID: "t4", Owner: "jos\u00e9", Backend: "htpasswd"})
	for _, c := range []struct {
		name, secret string
		want         users.Principal
	}{
		{"alice", alice, users.Principal{Name: "alice", Kind: users.KindUser, Groups: []string{"dev"}, Backend: "database", Credential: "access token t1", Scopes: scopes}},
		{"ci", ci, users.Principal{Name: "ci", Kind: users.KindRobot, Groups: []string{"bots"}, Backend: "database", Credential: "access token t2", Scopes: []string{}}},
		{"bob", bob, users.Principal{Name: "bob", Kind: users.KindUser, Backend: "htpasswd", Credential: "access token t3"}},
		{"jos\u00e9", jose, users.Principal{Name: "jos\u00e9", Kind: users.KindUser, Backend: "htpasswd", Credential: "access token t4"}},
	} {
		who, err := x.login(t, c.name, c.secret)
		if err != nil || !reflect.DeepEqual(who, c.want) {
			t.Errorf("%s: %+v, %v\nwant %+v", c.name, who, err, c.want)
		}
		if !slices.Equal(x.answers, []string{"access_token known"}) {
			t.Errorf("%s: %v", c.name, x.answers)
		}
	}
	// And the owner's own password is as good as ever.
	if who, err := x.login(t, "alice", "a"); err != nil || who.Credential != "" || who.Scopes != nil || who.Mark == "" {
		t.Errorf("%+v, %v", who, err)
	}
	x.wantRefused(t, "a robot's password", second(x.login(t, "ci", "a")))
}

func second[A any](_ A, err error) error { return err }

func TestAnAccessTokenIsItsOwnersAlone(t *testing.T) {
	x := newTokens(t)
	secret := x.give(users.AccessToken{ID: "t1", Owner: "alice", Backend: "database"})
	jose := x.give(users.AccessToken{ID: "t2", Owner: "jos\u00e9", Backend: "htpasswd"})
	for _, name := range []string{"bob", "ci", "Alice", "ALICE", "alice ", "", "nobody", "<token>", "al\u0131ce"} {
		x.wantRefused(t, name, second(x.login(t, name, secret)))
		if !slices.Equal(x.answers, []string{"access_token refused"}) {
			t.Errorf("%s: %v", name, x.answers)
		}
	}
	x.wantRefused(t, "another Unicode form", second(x.login(t, "jose\u0301", jose))) // who decodes a request makes it canonical
	for what, wrong := range map[string]string{
		"another secret":      x.give(users.AccessToken{Owner: "bob", Backend: "htpasswd"}),
		"one of nobody":       first(users.NewAccessToken()),
		"cut":                 secret[:53],
		"longer":              secret + "0",
		"another case":        "ASAT_" + secret[5:],
		"a typing error":      secret[:20] + "_" + secret[21:],
		"no more than prefix": "asat_",
	} {
		x.wantRefused(t, what, second(x.login(t, "alice", wrong)))
	}
}

func first(a, _, _ string) string { return a }

// What looks like an access token goes nowhere else: not to a directory of somebody else's, and if it is no token, not to our database.
func TestWhatLooksLikeAnAccessTokenIsNeverAPassword(t *testing.T) {
	x := newTokens(t)
	far := &backend{name: "ldap", known: map[string]string{}}
	revoked, _, _ := users.NewAccessToken()
	for _, password := range []string{"asat_", "asat_x", "asat_" + strings.Repeat("0", 49), revoked} {
		far.known["carol"] = password
		x.chain = users.NewChain([]users.Authenticator{far}, users.NewGuard(users.GuardEvents{}), nil)
		auth := users.NewAccessTokens(x.shelf, x.chain, func() time.Time { return now })
		x.asked = 0
		_, err := auth.Authenticate(t.Context(), users.Credentials{Username: "carol", Password: password})
		x.wantRefused(t, password, err)
		if well := password == revoked; far.asked != 0 || (x.asked == 1) != well {
			t.Errorf("%s: the backend was asked %d times, the database %d times", password, far.asked, x.asked)
		}
	}
	far.known["carol"] = "Asat_x"
	auth := users.NewAccessTokens(x.shelf, x.chain, func() time.Time { return now })
	if who, err := auth.Authenticate(t.Context(), users.Credentials{Username: "carol", Password: "Asat_x"}); err != nil || who.Backend != "ldap" {
		t.Errorf("a password: %+v, %v", who, err)
	}
}

func TestAnAccessTokenEndsAtTheVeryInstant(t *testing.T) {
	x := newTokens(t)
	secret := x.give(users.AccessToken{ID: "t1", Owner: "alice", Backend: "database", Expires: now})
	for offset, good := range map[time.Duration]bool{-time.Hour: true, -time.Nanosecond: true, 0: false, time.Nanosecond: false, time.Hour: false} {
		x.at = now.Add(offset)
		if err := second(x.login(t, "alice", secret)); (err == nil) != good || err != nil && !errors.Is(err, users.ErrRefused) {
			t.Errorf("%s after its end: %v", offset, err)
		}
	}
	x.at = now.AddDate(100, 0, 0)
	if err := second(x.login(t, "alice", x.give(users.AccessToken{Owner: "alice", Backend: "database"}))); err != nil {
		t.Errorf("one that never ends: %v", err)
	}
}

func TestAnAccessTokenIsGoodFromItsNetworksOnly(t *testing.T) {
	x := newTokens(t)
	secret := x.give(users.AccessToken{ID: "t1", Owner: "alice", Backend: "database", Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}})
	for from, good := range map[string]bool{"10.1.2.3": true, "10.255.255.255": true, "11.0.0.0": false, "2001:db8::1": true, "2001:db9::1": false, "::ffff:10.1.2.3": false, "127.0.0.1": false} {
		if err := second(x.login(t, "alice", secret, from)); (err == nil) != good || err != nil && !errors.Is(err, users.ErrRefused) {
			t.Errorf("from %s: %v", from, err)
		}
	}
	x.wantRefused(t, "from an address that is not known", second(x.login(t, "alice", secret)))
	if err := second(x.login(t, "alice", x.give(users.AccessToken{Owner: "alice", Backend: "database"}))); err != nil {
		t.Errorf("one for everywhere: %v", err)
	}
}

// The owner is asked for at every use.
func TestAnAccessTokenEndsWithItsOwner(t *testing.T) {
	x := newTokens(t)
	alice := x.give(users.AccessToken{ID: "t1", Owner: "alice", Backend: "database"})
	bob := x.give(users.AccessToken{ID: "t2", Owner: "bob", Backend: "htpasswd"})
	good := func(what, name, secret string) {
		t.Helper()
		if err := second(x.login(t, name, secret)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	good("at first", "alice", alice)
	x.change("alice", func(a *users.Account) { a.Password, a.Groups = hash(t, "new"), nil })
	good("with a new password", "alice", alice)
	if who, _ := x.login(t, "alice", alice); len(who.Groups) > 0 {
		t.Errorf("groups of yesterday: %v", who.Groups)
	}
	x.change("alice", func(a *users.Account) { a.Disabled = true })
	x.wantRefused(t, "disabled", second(x.login(t, "alice", alice)))
	x.change("alice", func(a *users.Account) { a.Disabled = false })
	good("enabled again", "alice", alice)
	delete(x.accounts, "alice")
	x.wantRefused(t, "removed", second(x.login(t, "alice", alice)))
	good("of a file", "bob", bob)
	// Somebody of that name in another backend is somebody else.
	x.use(loadUsers(t, nil, "alice:"+hash(t, "a")))
	x.wantRefused(t, "moved to the file", second(x.login(t, "alice", alice)))
	x.accounts["bob"] = users.Account{Name: "bob", Kind: users.KindUser, Password: hash(t, "b")}
	x.wantRefused(t, "moved to the database", second(x.login(t, "bob", bob)))
	// Revoked.
	x.use(loadUsers(t, nil, "bob:"+hash(t, "b")))
	good("back again", "bob", bob)
	clear(x.access)
	x.wantRefused(t, "revoked", second(x.login(t, "bob", bob)))
}

func TestADatabaseThatIsDownRefusesNoAccessToken(t *testing.T) {
	x := newTokens(t)
	secret := x.give(users.AccessToken{ID: "t1", Owner: "alice", Backend: "database"})
	bob := x.give(users.AccessToken{ID: "t2", Owner: "bob", Backend: "htpasswd"})
	unavailable := func(name, secret string, want error) {
		t.Helper()
		if _, err := x.login(t, name, secret); !errors.Is(err, want) || errors.Is(err, users.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.Equal(x.answers, []string{"access_token unavailable"}) {
			t.Errorf("%s: %v", name, x.answers)
		}
	}
	x.down = errDown
	unavailable("alice", secret, errDown)
	unavailable("bob", bob, errDown)
	if who, err := x.login(t, "bob", "b"); err != nil || who.Backend != "htpasswd" {
		t.Errorf("the password of a user of the file: %+v, %v", who, err)
	}
	x.wantRefused(t, "what is no token at all", second(x.login(t, "alice", "asat_x")))
	x.down, x.readOnly = nil, errors.New("read-only")
	// A use that cannot be written down is a use all the same.
	if who, err := x.login(t, "alice", secret); err != nil || who.Name != "alice" || !slices.Equal(x.answers, []string{"access_token unnoted", "access_token known"}) {
		t.Errorf("read-only: %+v, %v, %v", who, err, x.answers)
	}
	x.readOnly = nil
	far := &backend{name: "database"} // cannot be looked up
	auth := users.NewAccessTokens(x.shelf, users.NewChain([]users.Authenticator{far}, users.NewGuard(users.GuardEvents{}), nil), func() time.Time { return now })
	_, err := auth.Authenticate(t.Context(), users.Credentials{Username: "alice", Password: secret})
	x.wantRefused(t, "a backend that cannot be looked up", err)
}

func TestTheUseOfAnAccessTokenIsWrittenDownOnceAMinute(t *testing.T) {
	x := newTokens(t)
	secret := x.give(users.AccessToken{ID: "t1", Owner: "alice", Backend: "database"})
	for _, step := range []struct {
		at   time.Duration
		from string
	}{
		{0, "192.0.2.1"}, {time.Second, "192.0.2.2"}, {time.Minute - 1, "192.0.2.3"}, {time.Minute, "192.0.2.4"}, {time.Minute + 1, "192.0.2.5"},
		{10 * time.Minute, "2001:db8::1"}, {10*time.Minute - time.Second, "192.0.2.6"}, // another replica's clock
	} {
		x.at = now.Add(step.at)
		if err := second(x.login(t, "alice", secret, step.from)); err != nil {
			t.Error(err)
		}
	}
	x.at = now.Add(time.Hour)
	if err := second(x.login(t, "alice", secret)); err != nil { // a socket has no address
		t.Error(err)
	}
	want := []string{"07:08:09 192.0.2.1", "07:09:09 192.0.2.4", "07:18:09 2001:db8::1", "08:08:09 "}
	if !slices.Equal(x.notes, want) {
		t.Errorf("written down %q, want %q", x.notes, want)
	}
	// What is refused is no use.
	x.wantRefused(t, "another name", second(x.login(t, "bob", secret)))
	x.at = now.Add(2 * time.Hour)
	x.change("alice", func(a *users.Account) { a.Disabled = true })
	x.wantRefused(t, "disabled", second(x.login(t, "alice", secret)))
	if !slices.Equal(x.notes, want) {
		t.Errorf("written down %q, want %q", x.notes, want)
	}
}

func TestOneKindOfTokenIsRefusedAsTheOther(t *testing.T) {
	x := newTokens(t)
	access := x.give(users.AccessToken{ID: "t1", Owner: "alice", Backend: "database"})
	who, err := x.login(t, "alice", "a")
	if err != nil {
		t.Fatal(err)
	}
	refresh, err := x.logins.Begin(t.Context(), who, "s", "docker", now)
	if err != nil || refresh == "" {
		t.Fatal(refresh, err)
	}
	x.wantRefused(t, "a refresh token as a password", second(x.login(t, "alice", refresh)))
	_, err = x.logins.Redeem(t.Context(), access, "s", now)
	x.wantRefused(t, "an access token as a refresh token", err)
	// Not even when their rest is the same.
	x.asked = 0
	x.wantRefused(t, "a changed prefix", second(x.login(t, "alice", "asat_"+refresh[5:])))
	_, err = x.logins.Redeem(t.Context(), "asrt_"+access[5:], "s", now)
	x.wantRefused(t, "a changed prefix", err)
	if x.asked != 0 {
		t.Error("the database was asked for what is no token")
	}
}
