package users

import (
	"errors"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// A decoy that bcrypt cannot read would be refused at once, and the clock would tell who is known.
func TestADecoyIsAHashOfItsCostThatNoPasswordHas(t *testing.T) {
	for cost := MinCost; cost <= MaxCost; cost++ {
		if got, err := hashCost(string(decoy(cost))); err != nil || got != cost {
			t.Errorf("at cost %d: %d, %v", cost, got, err)
		}
	}
	for _, password := range []string{"", "a", "u"} {
		if err := bcrypt.CompareHashAndPassword(decoy(MinCost), []byte(password)); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			t.Errorf("%q: %v, want the comparison to have been made", password, err)
		}
	}
}
