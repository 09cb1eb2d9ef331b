package store

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"authserver/internal/users"
)

// fresh remembers, as if somebody watched.
func fresh() *recent {
	r := newRecent(lookEvery)
	r.until.Store(math.MaxInt64)
	return r
}

func TestWhatWasReadIsNotReadAgain(t *testing.T) {
	r, asked, fault := fresh(), 0, error(nil)
	ask := func() int {
		n, _ := recalled(r, &r.account, "alice", func() (users.Account, error) {
			asked++
			return users.Account{Password: fmt.Sprint(asked)}, fault
		})
		var got int
		_, _ = fmt.Sscan(n.Password, &got)
		return got
	}
	wants := func(what string, want int) {
		t.Helper()
		if got := ask(); got != want {
			t.Errorf("%s: reading %d was used, want %d", what, got, want)
		}
	}
	wants("at first", 1)
	wants("again", 1)
	r.forget()
	wants("after a change", 2)
	wants("again", 2)
	r.keep = 0
	wants("too old", 3)
	r.keep = keepFor
	wants("what took its place", 3)
	r.until.Store(0)
	wants("nobody has looked for changes", 4)
	wants("nor now", 5)
	r.until.Store(math.MaxInt64)
	wants("what was remembered before", 3) // Watch forgets it before it makes it good again
	r.forget()
	fault = errors.New("down")
	wants("an error", 6)
	wants("an error is not remembered", 7)
	fault = nil
	wants("after it", 8)
	wants("after it", 8)
}

// A change may come through between a reading and its being noted.
func TestAReadingThatRacedWithAChangeIsNotRemembered(t *testing.T) {
	r := fresh()
	reading := func(password string, meanwhile func()) string {
		a, _ := recalled(r, &r.account, "alice", func() (users.Account, error) {
			meanwhile()
			return users.Account{Password: password}, nil
		})
		return a.Password
	}
	if got := reading("old", r.forget); got != "old" {
		t.Error(got)
	}
	if got := reading("new", func() {}); got != "new" {
		t.Errorf("%s was remembered, from before the change", got)
	}
	if got := reading("none", func() {}); got != "new" {
		t.Errorf("%s: the next was not", got)
	}

	known, epoch := r.isNobody("bob")
	r.forget() // bob is made
	r.noteNobody("bob", epoch)
	if again, _ := r.isNobody("bob"); known || again {
		t.Error("a name was remembered to be free, from before it was taken")
	}
	_, epoch = r.isNobody("bob")
	r.noteNobody("bob", epoch)
	if known, _ := r.isNobody("bob"); !known {
		t.Error("a free name is not remembered")
	}
	r.until.Store(0)
	if known, _ := r.isNobody("bob"); known {
		t.Error("a name was remembered to be free while nobody looked for changes")
	}
	r.noteNobody("carol", epoch)
	r.until.Store(math.MaxInt64)
	if known, _ := r.isNobody("carol"); known {
		t.Error("a name was noted to be free while nobody looked for changes")
	}
	r.keep = 0
	if known, _ := r.isNobody("bob"); known {
		t.Error("too old")
	}
}

func TestTablesAreBoundedAndNamesOfNobodyDriveNobodyOut(t *testing.T) {
	r := fresh()
	_, _ = recalled(r, &r.account, "alice", func() (users.Account, error) { return users.Account{Name: "alice"}, nil })
	_, epoch := r.isNobody("")
	for i := range 3 * mostRecent {
		r.noteNobody(fmt.Sprint(i), epoch)
	}
	if len(r.nobody) != mostRecent || len(r.account) != 1 {
		t.Errorf("%d names of nobody, %d accounts", len(r.nobody), len(r.account))
	}
	if known, _ := r.isNobody(fmt.Sprint(3*mostRecent - 1)); !known {
		t.Error("the latest is not among them")
	}
	for i := range mostRecent + 10 {
		r.account.put(fmt.Sprint(i), users.Account{}, 0)
	}
	r.account.put("0", users.Account{}, 0)
	if len(r.account) != mostRecent {
		t.Errorf("%d accounts", len(r.account))
	}
}

func TestAUseIsNotedInWhatIsRemembered(t *testing.T) {
	r := fresh()
	for _, id := range []string{"a", "b"} {
		r.access.put("hash of "+id, users.AccessToken{ID: id, Owner: "alice"}, 5)
	}
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	for _, id := range []string{"b", "none"} {
		used(r, &r.access, func(t users.AccessToken) bool { return t.ID == id }, func(t *users.AccessToken) { t.LastUsed = at })
	}
	if a, b := r.access["hash of a"], r.access["hash of b"]; !a.v.LastUsed.IsZero() || !b.v.LastUsed.Equal(at) || b.v.Owner != "alice" || b.read != 5 || len(r.access) != 2 {
		t.Errorf("%+v", r.access)
	}
}
