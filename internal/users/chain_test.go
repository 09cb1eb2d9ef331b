package users_test

import (
	"context"
	"errors"
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

// decoyBackend also spends time on unknown users.
type decoyBackend struct {
	backend
	decoys []string
}

func (b *decoyBackend) Decoy(_ context.Context, password string) {
	b.decoys = append(b.decoys, password)
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
	}, func(backend, outcome string) { answers = append(answers, backend+" "+outcome) })

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
	}, func(backend, outcome string) { answers = append(answers, backend+" "+outcome) })

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
	chain := users.NewChain([]users.Authenticator{&backend{name: "a", down: one}, &backend{name: "b", down: two}}, nil)
	_, err := ask(t, chain, "carol", "c")
	if !errors.Is(err, one) || !errors.Is(err, two) || errors.Is(err, users.ErrRefused) {
		t.Errorf("got %v", err)
	}
}

func TestARefusalBeforeAnOutageIsFinal(t *testing.T) {
	last := &backend{name: "ldap", down: errors.New("down")}
	chain := users.NewChain([]users.Authenticator{&backend{name: "htpasswd", known: map[string]string{"alice": "a"}}, last}, nil)
	if _, err := ask(t, chain, "alice", "wrong"); err != users.ErrRefused || last.asked != 0 {
		t.Errorf("%v, the next backend was asked %d times", err, last.asked)
	}
}

func TestUnknownNeverLeavesTheChain(t *testing.T) {
	for name, backends := range map[string][]users.Authenticator{
		"no backend":   nil,
		"one":          {&backend{name: "a"}},
		"two":          {&backend{name: "a"}, &backend{name: "b"}},
		"one with one": {&decoyBackend{backend: backend{name: "a"}}},
	} {
		_, err := ask(t, users.NewChain(backends, nil), "carol", "c")
		if err != users.ErrRefused || errors.Is(err, users.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefusalDoesNotNameTheUser(t *testing.T) {
	chain := users.NewChain([]users.Authenticator{&backend{name: "a", known: map[string]string{"alice": "a"}}}, nil)
	_, unknown := ask(t, chain, "carol", "hunter2")
	_, wrong := ask(t, chain, "alice", "hunter2")
	if unknown.Error() != wrong.Error() || strings.Contains(wrong.Error(), "alice") || strings.Contains(wrong.Error(), "hunter2") {
		t.Errorf("unknown user: %q, wrong password: %q", unknown, wrong)
	}
}

func TestAnUnknownUserCostsOneDecoy(t *testing.T) {
	first, second := &decoyBackend{backend: backend{name: "a", known: map[string]string{"alice": "a"}}}, &decoyBackend{backend: backend{name: "b"}}
	chain := users.NewChain([]users.Authenticator{&backend{name: "other"}, first, second}, nil)
	if _, err := ask(t, chain, "carol", "hunter2"); err != users.ErrRefused {
		t.Fatal(err)
	}
	if !slices.Equal(first.decoys, []string{"hunter2"}) || len(second.decoys) != 0 {
		t.Errorf("decoys %q and %q", first.decoys, second.decoys)
	}
	for _, password := range []string{"a", "wrong"} { // a known user pays for itself
		_, _ = ask(t, chain, "alice", password)
	}
	if len(first.decoys)+len(second.decoys) != 1 {
		t.Errorf("a known user cost a decoy: %q and %q", first.decoys, second.decoys)
	}
}
