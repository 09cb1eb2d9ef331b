package users_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/unicode/norm"

	"authserver/internal/users"
)

// What is a name is its own canonical form, fits where names stand, and is refused no second time; an account's name is a
// user's name, a component of a repository's, and itself.
func FuzzParseName(f *testing.F) {
	for _, seed := range []string{
		"alice", "jose\u0301", "jos\u00e9", "a:b", "a/b", "*", "<token>", "robot$ci", " a", "a\u00a0", "a\u200bb", "a\x00", "\xff", "a\u2028b", "\u212a", "\u1e9b\u0323", "a b",
		"alice@example.com", "a..b", "-a", "A", "a_b-c.d", strings.Repeat("a", 256), strings.Repeat("\u0344", 100), strings.Repeat("\U0001D15E", 60),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := users.ParseName(s)
		if (name == "") == (err == nil) {
			t.Fatalf("%q: %q and %v", s, name, err)
		}
		if err == nil {
			if again, err := users.ParseName(name); err != nil || again != name {
				t.Fatalf("%q: %q, once more %q, %v", s, name, again, err)
			}
			if name != norm.NFC.String(s) || len(name) > users.MaxNameLength || strings.ContainsAny(name, ":\r\n\x00") || strings.TrimSpace(name) != name {
				t.Fatalf("%q is the name %q", s, name)
			}
			if line, err := users.HTPasswdLine(s, "$2a$04$uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"); (err == nil) != (s[0] != '#') || err == nil && !strings.HasPrefix(line, name+":$2a$") {
				t.Fatalf("%q: line %q, %v", s, line, err)
			}
		}
		account, err := users.ParseAccountName(s)
		if err != nil {
			return
		}
		if account != s || name != s || len(s) > users.MaxAccountName || strings.ToLower(s) != s || strings.ContainsAny(s, "/*{}%?#&= ") {
			t.Fatalf("%q is the account %q, and the name %q", s, account, name)
		}
	})
}

// Whoever comes with whatever: a token is good for its owner, under the owner's name, as it was given, from where it may be
// used and until it ends, and for nothing else; and what looks like a token is never tried as a password.
func FuzzTokens(f *testing.F) {
	for _, name := range []string{"alice", "bob", "ci", "Alice", "", "alice\x00"} {
		f.Add(name, "a", uint8(0), uint(0), byte('x'), "192.0.2.1", int64(0))
	}
	for mode := range uint8(8) {
		f.Add("alice", "", mode, uint(10), byte('x'), "192.0.2.1", int64(time.Hour))
		f.Add("bob", "asat_", mode, uint(60), byte('_'), "10.1.2.3", int64(25*time.Hour))
	}
	const length = 54
	var fixed *tokens
	var secrets [3]string
	kept := []users.AccessToken{
		{ID: "t1", Owner: "alice", Backend: "database", Expires: now.Add(10 * time.Hour), Scopes: []string{"repository:a:pull"}},
		{ID: "t2", Owner: "bob", Backend: "htpasswd", Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	}
	f.Fuzz(func(t *testing.T, name, text string, mode uint8, at uint, b byte, from string, after int64) {
		if fixed == nil {
			x := newTokens(t)
			guard := users.NewGuard(users.GuardEvents{})
			guard.Limit(users.Limits{Remember: time.Hour}) // what is remembered is no other answer
			x.chain = users.NewChain([]users.Authenticator{users.NewDatabase(x.shelf, guard, 4), loadUsers(t, guard, "bob:"+hash(t, "b"), "jos\u00e9:"+hash(t, "j"))}, guard, func(backend, outcome string) {
				x.mu.Lock()
				defer x.mu.Unlock()
				x.answers = append(x.answers, backend+" "+outcome)
			})
			x.auth = users.NewAccessTokens(x.shelf, x.chain, func() time.Time { return x.at })
			x.logins = users.NewRefreshTokens(x.shelf, x.chain, idle, most)
			for i, token := range kept {
				secrets[i] = x.give(token)
			}
			secrets[2] = x.begin(t, "alice", "a")
			fixed = x
		}
		x := fixed
		x.at = now.Add(time.Duration(after) % (200 * time.Hour))
		for hash, login := range x.refresh { // as if nobody had used it
			login.LastUsed = now
			x.refresh[hash] = login
		}
		x.notes = nil
		// The fuzzer finds no token: it changes one.
		secret := secrets[mode%3]
		switch i := int(at % (length + 1)); mode / 3 % 4 {
		case 0:
			if i < length {
				secret = secret[:i] + string([]byte{b}) + secret[i+1:]
			}
		case 1:
			secret = secret[:i] + text + secret[i:]
		case 2:
			secret = secret[:i] + text
		default:
			secret = text
		}
		source, _ := netip.ParseAddr(from)

		x.answers = nil
		who, err := x.auth.Authenticate(t.Context(), users.Credentials{Username: name, Password: secret, From: source})
		good := -1
		for i := range kept {
			if secret == secrets[i] {
				good = i
			}
		}
		switch {
		case err != nil && !errors.Is(err, users.ErrRefused):
			t.Fatalf("%q %q: %v", name, secret, err)
		case err != nil && (who.Name != "" || who.Kind != ""):
			t.Fatalf("%q %q: an error came with %+v", name, secret, who)
		case users.IsAccessToken(secret) && (len(x.answers) != 1 || !strings.HasPrefix(x.answers[0], "access_token ")):
			t.Fatalf("%q was tried as a password: %v", secret, x.answers)
		case users.IsAccessToken(secret):
			may := good >= 0 && name == kept[good].Owner && (kept[good].Expires.IsZero() || x.at.Before(kept[good].Expires)) &&
				(len(kept[good].Networks) == 0 || source.IsValid() && kept[good].Networks[0].Contains(source))
			if may != (err == nil) || may && (who.Name != name || who.Credential != "access token "+kept[good].ID || len(who.Scopes) != len(kept[good].Scopes)) {
				t.Fatalf("%q %q from %v after %v: %+v, %v", name, secret, source, x.at.Sub(now), who, err)
			}
		default:
			passwords := map[string]string{"alice": "a", "bob": "b", "jos\u00e9": "j"}
			if may := secret != "" && passwords[name] == secret; may != (err == nil) || may && (who.Name != name || who.Credential != "" || who.Scopes != nil) {
				t.Fatalf("%q %q: %+v, %v", name, secret, who, err)
			}
		}

		for _, service := range []string{"registry", "other", text} {
			who, err := x.logins.Redeem(t.Context(), secret, service, x.at)
			may := secret == secrets[2] && service == "registry" && x.at.Sub(now) <= idle
			if may != (err == nil) || err != nil && !errors.Is(err, users.ErrRefused) || may && (who.Name != "alice" || who.Kind != users.KindUser || !strings.HasPrefix(who.Credential, "refresh token ")) {
				t.Fatalf("login %q for %q after %v: %+v, %v", secret, service, x.at.Sub(now), who, err)
			}
		}
		// Asking about a token is no other answer than using it.
		described, err := users.NewOpaqueTokens(x, x.auth, x.logins).Describe(t.Context(), secret, x.at)
		if err != nil && (!errors.Is(err, users.ErrNotFound) || described.Kind != "") || err == nil && secret != secrets[0] && secret != secrets[1] && secret != secrets[2] {
			t.Fatalf("%q is %+v, %v", secret, described, err)
		}
	})
}
