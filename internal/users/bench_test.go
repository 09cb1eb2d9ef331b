package users_test

import (
	"net/netip"
	"testing"
	"time"

	"authserver/internal/users"
)

func BenchmarkRemembered(b *testing.B) {
	guard := users.NewGuard(users.GuardEvents{})
	guard.Limit(users.Limits{Remember: time.Hour, Throttle: users.Throttle{Account: 10, Network: 300, Window: 5 * time.Minute}})
	kept := newShelf(users.Account{Name: "alice", Kind: users.KindUser, Password: rightHash()})
	chain := users.NewChain([]users.Authenticator{users.NewDatabase(kept, guard, 4)}, guard, nil)
	c := users.Credentials{Username: "alice", Password: "right", From: netip.MustParseAddr(home)}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := chain.Authenticate(b.Context(), c); err != nil {
				b.Fatal(err)
			}
		}
	})
}
