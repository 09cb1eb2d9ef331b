package users_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/users"
)

// now is when the tests play.
var now = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

// shelf is the far side that keeps accounts and tokens: internal/store without a database.
type shelf struct {
	mu       sync.Mutex
	accounts map[string]users.Account
	access   map[string]users.AccessToken  // by hash
	refresh  map[string]users.RefreshToken // by hash
	asked    int                           // for tokens
	notes    []string                      // uses that were written down
	down     error                         // of everything
	readOnly error                         // of what is written
}

func newShelf(accounts ...users.Account) *shelf {
	s := &shelf{accounts: map[string]users.Account{}, access: map[string]users.AccessToken{}, refresh: map[string]users.RefreshToken{}}
	for _, a := range accounts {
		s.accounts[a.Name] = a
	}
	return s
}

// change changes an account.
func (s *shelf) change(name string, change func(a *users.Account)) {
	a := s.accounts[name]
	change(&a)
	s.accounts[name] = a
}

func (s *shelf) Account(_ context.Context, name string) (users.Account, error) {
	a, ok := s.accounts[name]
	if s.down == nil && !ok {
		return users.Account{}, users.ErrNotFound
	}
	return a, s.down
}

func (s *shelf) PasswordForms(context.Context) ([]string, error) {
	var forms []string
	for _, a := range s.accounts {
		forms = append(forms, a.Password)
	}
	return forms, s.down
}

func (s *shelf) AccessToken(_ context.Context, hash string) (users.AccessToken, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	t, ok := s.access[hash]
	if s.down == nil && !ok {
		return users.AccessToken{}, users.ErrNotFound
	}
	return t, s.down
}

func (s *shelf) AccessTokenUsed(_ context.Context, id string, at time.Time, from string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.down, s.readOnly); err != nil {
		return err
	}
	for hash, t := range s.access {
		if t.ID == id {
			t.LastUsed, t.LastFrom = at, from
			s.access[hash] = t
		}
	}
	s.notes = append(s.notes, at.Format(time.TimeOnly)+" "+from)
	return nil
}

func (s *shelf) AddRefreshToken(_ context.Context, hash string, t users.RefreshToken) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.down, s.readOnly); err != nil {
		return err
	}
	s.refresh[hash] = t
	return nil
}

func (s *shelf) RefreshToken(_ context.Context, hash string) (users.RefreshToken, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	t, ok := s.refresh[hash]
	if s.down == nil && !ok {
		return users.RefreshToken{}, users.ErrNotFound
	}
	return t, s.down
}

func (s *shelf) RefreshTokenUsed(_ context.Context, id string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.down, s.readOnly); err != nil {
		return err
	}
	for hash, t := range s.refresh {
		if t.ID == id {
			t.LastUsed = at
			s.refresh[hash] = t
		}
	}
	s.notes = append(s.notes, at.Format(time.TimeOnly))
	return nil
}

var errDown = errors.New("connection refused")

func TestNamesOfAccounts(t *testing.T) {
	for _, name := range []string{
		"a", "0", "alice", "alice2", "2alice", "alice@example.com", "a.b_c-d@e", "ci-1", "0.0", strings.Repeat("a", users.MaxAccountName),
	} {
		if got, err := users.ParseAccountName(name); err != nil || got != name {
			t.Errorf("%q: %q, %v", name, got, err)
		}
		if got, err := users.ParseName(name); err != nil || got != name {
			t.Errorf("%q is a name of an account, but no name: %v", name, err)
		}
	}
	const characters = "cannot be a name; would be right: lower-case letters and digits, joined by single . _ @ or -"
	for name, want := range map[string]string{
		"": characters, "Alice": characters, "ALICE": characters, "alicE": characters, "a b": characters, " a": characters, "a ": characters,
		".a": characters, "a.": characters, "-a": characters, "a-": characters, "_a": characters, "@a": characters, "a@": characters,
		"a..b": characters, "a.-b": characters, "a__b": characters, "a/b": characters, "a:b": characters, "a*": characters, "*": characters,
		"{user}": characters, "a\n": characters, "a\x00": characters, "a\nb": characters, "rené": characters, "аlice": characters, // Cyrillic а
		"\xff": characters, "a+b": characters, "#a": characters, "$a": characters, "<token>": characters,
		strings.Repeat("a", users.MaxAccountName+1): "a name has at most 128 bytes",
		strings.Repeat("-", 10_000_000):             "a name has at most 128 bytes",
	} {
		if got, err := users.ParseAccountName(name); err == nil || !strings.HasSuffix(err.Error(), want) || got != "" {
			t.Errorf("%.200q: %q, %v; want %s", name, got, err, want)
		}
	}
}

func TestAnAccountIsKnownByItsPassword(t *testing.T) {
	guard, work := counted()
	kept := newShelf(
		users.Account{Name: "alice", Kind: users.KindUser, Password: hash(t, "a", 4), Groups: []string{"dev", "ops"}},
		users.Account{Name: "slow", Kind: users.KindUser, Password: hash(t, "s", 5)},
		users.Account{Name: "ci", Kind: users.KindRobot},
		users.Account{Name: "robot-with-password", Kind: users.KindRobot, Password: hash(t, "a", 4)},
		users.Account{Name: "locked", Kind: users.KindUser, Password: hash(t, "a", 4), Disabled: true},
		users.Account{Name: "nothing", Kind: users.KindUser},
		users.Account{Name: "damaged", Kind: users.KindUser, Password: "a"},
		users.Account{Name: "strange"},
	)
	db := users.NewDatabase(kept, guard, 5)
	if db.Name() != "database" {
		t.Errorf("name %q", db.Name())
	}
	for _, c := range []struct {
		name, password string
		want           error
		work           int64 // 2 is one hash of cost 5
	}{
		{"alice", "a", nil, 1},
		{"slow", "s", nil, 2},
		{"alice", "wrong", users.ErrRefused, 2},
		{"slow", "wrong", users.ErrRefused, 2},
		{"ci", "a", users.ErrRefused, 2},
		{"robot-with-password", "a", users.ErrRefused, 2},
		{"locked", "a", users.ErrRefused, 2},
		{"locked", "wrong", users.ErrRefused, 2},
		{"nothing", "a", users.ErrRefused, 2},
		{"damaged", "a", users.ErrRefused, 2},
		{"strange", "a", users.ErrRefused, 2},
		{"nobody", "a", users.ErrUnknown, 0}, // the chain does the work
		{"Alice", "a", users.ErrUnknown, 0},
		{"alice", "", users.ErrRefused, 0},
		{"nothing", "", users.ErrRefused, 0},
		{"ci", "", users.ErrRefused, 0},
		{"alice", strings.Repeat("a", 73), users.ErrRefused, 0},
	} {
		work.Store(0)
		who, err := db.Authenticate(t.Context(), users.Credentials{Username: c.name, Password: c.password})
		if err != c.want || work.Load() != c.work {
			t.Errorf("%s/%s: %v with work %d; want %v with %d", c.name, c.password, err, work.Load(), c.want, c.work)
		}
		if err != nil && (who.Name != "" || who.Kind != "" || who.Mark != "") {
			t.Errorf("%s/%s: an error came with %+v", c.name, c.password, who)
		}
		if err == nil && (who.Name != c.name || who.Kind != users.KindUser || who.Credential != "" || who.Scopes != nil) {
			t.Errorf("%s: %+v", c.name, who)
		}
	}
	if who, err := db.Authenticate(t.Context(), users.Credentials{Username: "alice", Password: "a"}); err != nil || !slices.Equal(who.Groups, []string{"dev", "ops"}) {
		t.Errorf("%+v, %v", who, err)
	}
	chain := users.NewChain([]users.Authenticator{db}, guard, nil)
	work.Store(0)
	if _, err := ask(t, chain, "nobody", "a"); err != users.ErrRefused || work.Load() != 2 {
		t.Errorf("nobody: %v with work %d", err, work.Load())
	}
}

func TestADatabaseThatIsDownRefusesNobody(t *testing.T) {
	kept := newShelf(users.Account{Name: "alice", Kind: users.KindUser, Password: hash(t, "a")})
	guard := users.NewGuard(users.GuardEvents{})
	db := users.NewDatabase(kept, guard, 4)
	kept.down = errDown
	for _, name := range []string{"alice", "nobody"} {
		who, err := db.Authenticate(t.Context(), users.Credentials{Username: name, Password: "a"})
		if !errors.Is(err, errDown) || errors.Is(err, users.ErrRefused) || errors.Is(err, users.ErrUnknown) || who.Name != "" {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
		who, mark, err := db.Lookup(t.Context(), name)
		if !errors.Is(err, errDown) || errors.Is(err, users.ErrRefused) || who.Name != "" || mark != "" {
			t.Errorf("looking up %s: %+v, %q, %v", name, who, mark, err)
		}
	}
	kept.down = nil
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, a := range []string{"alice", "nothing"} {
		kept.accounts["nothing"] = users.Account{Name: "nothing", Kind: users.KindUser}
		if _, err := db.Authenticate(gone, users.Credentials{Username: a, Password: "a"}); !errors.Is(err, context.Canceled) || errors.Is(err, users.ErrRefused) {
			t.Errorf("%s, out of time: %v", a, err)
		}
	}
}

// The mark tells a password from the next one, whatever the words: a hash has a salt.
func TestAMarkChangesWithThePassword(t *testing.T) {
	kept := newShelf(
		users.Account{Name: "alice", Kind: users.KindUser, Password: hash(t, "a"), Groups: []string{"dev"}},
		users.Account{Name: "ci", Kind: users.KindRobot, Groups: []string{"dev"}},
		users.Account{Name: "locked", Kind: users.KindUser, Password: hash(t, "a"), Disabled: true},
	)
	db := users.NewDatabase(kept, users.NewGuard(users.GuardEvents{}), 4)
	who, first, err := db.Lookup(t.Context(), "alice")
	if err != nil || who.Name != "alice" || who.Kind != users.KindUser || !slices.Equal(who.Groups, []string{"dev"}) || len(first) != 32 {
		t.Fatalf("%+v, %q, %v", who, first, err)
	}
	if _, again, _ := db.Lookup(t.Context(), "alice"); again != first {
		t.Errorf("the same password has the marks %q and %q", first, again)
	}
	if who, err := db.Authenticate(t.Context(), users.Credentials{Username: "alice", Password: "a"}); err != nil || who.Mark != first {
		t.Errorf("a login has the mark %q, want %q, %v", who.Mark, first, err)
	}
	kept.change("alice", func(a *users.Account) { a.Password = hash(t, "a") })
	if _, second, _ := db.Lookup(t.Context(), "alice"); second == first || second == "" {
		t.Errorf("the password set anew has the mark %q, before %q", second, first)
	}
	if who, mark, err := db.Lookup(t.Context(), "ci"); err != nil || who.Kind != users.KindRobot || mark != "" {
		t.Errorf("a robot: %+v, %q, %v", who, mark, err)
	}
	for name, want := range map[string]error{"locked": users.ErrRefused, "nobody": users.ErrUnknown, "Alice": users.ErrUnknown, "": users.ErrUnknown} {
		if who, mark, err := db.Lookup(t.Context(), name); err != want || who.Name != "" || mark != "" {
			t.Errorf("%s: %+v, %q, %v", name, who, mark, err)
		}
	}
	file := loadUsers(t, nil, "bob:"+hash(t, "b"))
	who, mark, err := file.Lookup(t.Context(), "bob")
	if err != nil || who.Name != "bob" || who.Kind != users.KindUser || len(mark) != 32 {
		t.Errorf("of a file: %+v, %q, %v", who, mark, err)
	}
	if who, err := file.Authenticate(t.Context(), users.Credentials{Username: "bob", Password: "b"}); err != nil || who.Mark != mark {
		t.Errorf("a login has the mark %q, want %q, %v", who.Mark, mark, err)
	}
	if _, _, err := file.Lookup(t.Context(), "Bob"); err != users.ErrUnknown {
		t.Error(err)
	}
}
