package users_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"authserver/internal/users"
)

// backend is a far side that answers from a table.
type backend struct {
	name  string
	known map[string]string // name -> password
	down  error
	asked int
}

func (b *backend) Name() string { return b.name }

func (b *backend) Authenticate(_ context.Context, c users.Credentials) (users.Principal, error) {
	b.asked++
	if b.down != nil {
		return users.Principal{}, b.down
	}
	password, ok := b.known[c.Username]
	switch {
	case !ok:
		return users.Principal{}, users.ErrUnknown
	case password != c.Password:
		return users.Principal{}, users.ErrRefused
	}
	return users.Principal{Name: c.Username, Kind: users.KindUser, Groups: []string{b.name}, Backend: "what it says itself"}, nil
}

func ask(t *testing.T, chain *users.Chain, name, password string) (users.Principal, error) {
	t.Helper()
	return chain.Authenticate(t.Context(), users.Credentials{Username: name, Password: password})
}

func TestTheFirstBackendThatKnowsTheNameDecides(t *testing.T) {
	var answers []string
	chain := users.NewChain([]users.Authenticator{
		&backend{name: "first", known: map[string]string{"alice": "a"}},
		&backend{name: "second", known: map[string]string{"alice": "other", "bob": "b"}},
		&backend{name: "third", known: map[string]string{"bob": "other"}},
	}, users.NewGuard(users.GuardEvents{}), func(backend, outcome string) { answers = append(answers, backend+" "+outcome) })

	for _, c := range []struct {
		name, password string
		vouches        string // "" = refused
		answers        []string
	}{
		{"alice", "a", "first", []string{"first known"}},
		{"alice", "other", "", []string{"first refused"}}, // an account of the same name cannot stand in
		{"bob", "b", "second", []string{"first unknown", "second known"}},
		{"bob", "other", "", []string{"first unknown", "second refused"}},
		{"carol", "c", "", []string{"first unknown", "second unknown", "third unknown"}},
	} {
		answers = nil
		p, err := ask(t, chain, c.name, c.password)
		if c.vouches == "" {
			if err != users.ErrRefused || p.Name != "" || p.Kind != "" {
				t.Errorf("%s/%s: %+v, %v; want ErrRefused itself and nobody", c.name, c.password, p, err)
			}
		} else if err != nil || p.Name != c.name || p.Backend != c.vouches || !slices.Equal(p.Groups, []string{c.vouches}) {
			t.Errorf("%s/%s: %+v, %v; want %s to vouch", c.name, c.password, p, err, c.vouches)
		}
		if !slices.Equal(answers, c.answers) {
			t.Errorf("%s/%s: answers %q, want %q", c.name, c.password, answers, c.answers)
		}
	}
}

func TestAnOutageStopsItsOwnUsersOnly(t *testing.T) {
	down := errors.New("connection refused")
	var answers []string
	chain := users.NewChain([]users.Authenticator{
		&backend{name: "ldap", down: down},
		&backend{name: "htpasswd", known: map[string]string{"admin": "a"}},
	}, users.NewGuard(users.GuardEvents{}), func(backend, outcome string) { answers = append(answers, backend+" "+outcome) })

	if p, err := ask(t, chain, "admin", "a"); err != nil || p.Backend != "htpasswd" {
		t.Errorf("break-glass user: %+v, %v", p, err)
	}
	if _, err := ask(t, chain, "admin", "wrong"); err != users.ErrRefused {
		t.Errorf("wrong password of a user whose backend is up: %v", err)
	}
	answers = nil
	_, err := ask(t, chain, "carol", "c")
	if err == nil || errors.Is(err, users.ErrRefused) || !errors.Is(err, down) {
		t.Errorf("a user who may be the silent backend's: %v; want an outage and no refusal", err)
	}
	if want := "users backend ldap: connection refused"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if want := []string{"ldap unavailable", "htpasswd unknown"}; !slices.Equal(answers, want) {
		t.Errorf("answers %q, want %q", answers, want)
	}
}

func TestEveryOutageIsNamed(t *testing.T) {
	one, two := errors.New("timeout"), errors.New("no route")
	chain := users.NewChain([]users.Authenticator{&backend{name: "a", down: one}, &backend{name: "b", down: two}}, users.NewGuard(users.GuardEvents{}), nil)
	_, err := ask(t, chain, "carol", "c")
	if !errors.Is(err, one) || !errors.Is(err, two) || errors.Is(err, users.ErrRefused) {
		t.Errorf("got %v", err)
	}
}

func TestARefusalBeforeAnOutageIsFinal(t *testing.T) {
	last := &backend{name: "ldap", down: errors.New("down")}
	chain := users.NewChain([]users.Authenticator{&backend{name: "htpasswd", known: map[string]string{"alice": "a"}}, last}, users.NewGuard(users.GuardEvents{}), nil)
	if _, err := ask(t, chain, "alice", "wrong"); err != users.ErrRefused || last.asked != 0 {
		t.Errorf("%v, the next backend was asked %d times", err, last.asked)
	}
}

func TestUnknownNeverLeavesTheChain(t *testing.T) {
	for name, backends := range map[string][]users.Authenticator{
		"no backend": nil,
		"one":        {&backend{name: "a"}},
		"two":        {&backend{name: "a"}, &backend{name: "b"}},
	} {
		_, err := ask(t, users.NewChain(backends, users.NewGuard(users.GuardEvents{}), nil), "carol", "c")
		if err != users.ErrRefused || errors.Is(err, users.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefusalDoesNotNameTheUser(t *testing.T) {
	chain := users.NewChain([]users.Authenticator{&backend{name: "a", known: map[string]string{"alice": "a"}}}, users.NewGuard(users.GuardEvents{}), nil)
	_, unknown := ask(t, chain, "carol", "hunter2")
	_, wrong := ask(t, chain, "alice", "hunter2")
	if unknown.Error() != wrong.Error() || strings.Contains(wrong.Error(), "alice") || strings.Contains(wrong.Error(), "hunter2") {
		t.Errorf("unknown user: %q, wrong password: %q", unknown, wrong)
	}
}

// Costs differ from backend to backend, and a name is known to one of them: neither may show in the work.
func TestEveryRefusalIsAsMuchWorkAsOneAtTheHighestCostOfTheChain(t *testing.T) {
	guard, count := counted()
	first := loadUsers(t, guard, "bot:"+hash(t, "a", 4))
	second := loadUsers(t, guard, "bob:"+hash(t, "a", 6))
	chain := users.NewChain([]users.Authenticator{&backend{name: "other"}, first, second}, guard, nil)
	for _, c := range []struct {
		name string
		work int64
	}{
		{"bot", 4},    // 4, 4, 5
		{"bob", 4},    // 6
		{"nobody", 4}, // 6
	} {
		count.Store(0)
		if _, err := ask(t, chain, c.name, "wrong"); err != users.ErrRefused {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := count.Load(); got != c.work {
			t.Errorf("%s: work %d, want %d", c.name, got, c.work)
		}
	}
	// Another chain of the same process has its own highest cost.
	other := guard.ForChain()
	chain = users.NewChain([]users.Authenticator{loadUsers(t, other, "bot:"+hash(t, "a", 4))}, other, nil)
	count.Store(0)
	if _, err := ask(t, chain, "bot", "wrong"); err != users.ErrRefused || count.Load() != 1 {
		t.Errorf("%v after %d comparisons", err, count.Load())
	}
}

// Who waits in vain is told the same thing, known or not: 401 for the one and 503 for the other would list our users.
func TestARequestThatIsOutOfTimeTellsNobodyApart(t *testing.T) {
	guard := users.NewGuard(users.GuardEvents{})
	second := &backend{name: "second", known: map[string]string{"alice": "a"}}
	chain := users.NewChain([]users.Authenticator{loadUsers(t, guard, "alice:"+hash(t, "a"), "bob:"+hash(t, "a", 5)), second}, guard, nil)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 200 { // a choice among ready channels would go either way
		for _, name := range []string{"alice", "bob", "nobody"} {
			p, err := chain.Authenticate(gone, users.Credentials{Username: name, Password: "a"})
			if !errors.Is(err, context.Canceled) || errors.Is(err, users.ErrRefused) || p.Name != "" {
				t.Fatalf("%s: %+v, %v", name, p, err)
			}
		}
	}
	if second.asked != 200 { // for nobody alone: an account of the same name does not answer for one that is out of time
		t.Errorf("the second backend was asked %d times", second.asked)
	}
}

// directory is a backend that can be looked up. A name that it knows without a password is disabled.
type directory struct{ backend }

func (d *directory) Lookup(_ context.Context, name string) (users.Principal, string, error) {
	d.asked++
	password, ok := d.known[name]
	switch {
	case d.down != nil:
		return users.Principal{Name: "what comes with an error"}, "mark", d.down
	case !ok:
		return users.Principal{}, "", users.ErrUnknown
	case password == "":
		return users.Principal{}, "", fmt.Errorf("%w: disabled", users.ErrRefused)
	}
	return users.Principal{Name: name, Kind: users.KindUser, Backend: "what it says itself"}, "mark of " + password, nil
}

func TestLookup(t *testing.T) {
	down := errors.New("down")
	one := &directory{backend{name: "one", known: map[string]string{"alice": "1", "locked": ""}}}
	two := &directory{backend{name: "two", known: map[string]string{"alice": "2", "locked": "2", "bob": "2"}}}
	again := &directory{backend{name: "one", known: map[string]string{"alice": "3", "carol": "3"}}} // a second block of a kind
	sick := &directory{backend{name: "sick", down: down, known: map[string]string{"bob": "4"}}}
	deaf := &backend{name: "deaf", known: map[string]string{"alice": "5", "dave": "5"}} // cannot be looked up
	chain := users.NewChain([]users.Authenticator{deaf, one, two, again}, users.NewGuard(users.GuardEvents{}), nil)
	ill := users.NewChain([]users.Authenticator{one, sick, two, sick}, users.NewGuard(users.GuardEvents{}), nil)
	for _, c := range []struct {
		chain      *users.Chain
		kind, name string
		vouches    string // "" = nobody
		mark       string
		err        error
	}{
		{chain, "", "alice", "one", "mark of 1", nil},
		{chain, "", "bob", "two", "mark of 2", nil},
		{chain, "", "carol", "one", "mark of 3", nil},
		{chain, "", "dave", "", "", users.ErrUnknown},
		{chain, "", "Alice", "", "", users.ErrUnknown},
		{chain, "", "", "", "", users.ErrUnknown},
		{chain, "", "locked", "", "", users.ErrRefused}, // the second's does not stand in
		{chain, "one", "alice", "one", "mark of 1", nil},
		{chain, "one", "carol", "one", "mark of 3", nil},
		{chain, "one", "bob", "", "", users.ErrUnknown},
		{chain, "two", "alice", "two", "mark of 2", nil},
		{chain, "two", "locked", "two", "mark of 2", nil},
		{chain, "deaf", "dave", "", "", users.ErrUnknown},
		{chain, "none", "alice", "", "", users.ErrUnknown},
		{ill, "", "alice", "one", "mark of 1", nil}, // before the outage
		{ill, "", "bob", "two", "mark of 2", nil},   // after it
		{ill, "", "nobody", "", "", down},
		{ill, "", "locked", "", "", users.ErrRefused},
		{ill, "sick", "bob", "", "", down},
		{ill, "two", "nobody", "", "", users.ErrUnknown}, // whose outage is not theirs
	} {
		who, mark, err := c.chain.LookupIn(t.Context(), c.kind, c.name)
		if c.kind == "" {
			var third error
			if who, mark, third = c.chain.Lookup(t.Context(), c.name); (third == nil) != (err == nil) {
				t.Errorf("%s: Lookup %v, LookupIn all %v", c.name, third, err)
			}
		}
		if c.vouches != "" {
			if err != nil || who.Name != c.name || who.Kind != users.KindUser || who.Backend != c.vouches || mark != c.mark {
				t.Errorf("%s in %q: %+v, %q, %v", c.name, c.kind, who, mark, err)
			}
			continue
		}
		if !errors.Is(err, c.err) || errors.Is(err, users.ErrRefused) != errors.Is(c.err, users.ErrRefused) || errors.Is(err, users.ErrUnknown) != (c.err == users.ErrUnknown) || who.Name != "" || mark != "" {
			t.Errorf("%s in %q: %+v, %q, %v; want %v", c.name, c.kind, who, mark, err, c.err)
		}
	}
	if deaf.asked != 0 {
		t.Error("a backend was asked that cannot be looked up")
	}
	_, _, err := ill.Lookup(t.Context(), "nobody")
	if want := "users backend sick: down\nusers backend sick: down"; err.Error() != want {
		t.Errorf("%v", err)
	}
}
