package users

import (
	"context"
	"errors"
	"fmt"
)

// Chain asks backends in order. The first that knows the name decides: a wrong password there is not tried elsewhere,
// so that a second account of the same name cannot stand in for the first. A backend that cannot say is passed over,
// so that its outage stops its own users only; but when nobody knows the name and one could not say, neither can the chain.
type Chain struct {
	backends []Authenticator
	observe  func(backend, outcome string)
}

// NewChain returns a chain over backends. observe is told every backend's answer: "known", "refused", "unknown" or
// "unavailable"; nil means nobody listens.
func NewChain(backends []Authenticator, observe func(backend, outcome string)) *Chain {
	if observe == nil {
		observe = func(string, string) {}
	}
	return &Chain{backends: backends, observe: observe}
}

// decoy is a backend whose refusals cost a password hash.
type decoy interface {
	// Decoy takes the time that refusing a known user takes.
	Decoy(ctx context.Context, password string)
}

// Authenticate returns the principal, ErrRefused, or the error of a backend that could not say.
func (c *Chain) Authenticate(ctx context.Context, creds Credentials) (Principal, error) {
	var outage error
	for _, b := range c.backends {
		p, err := b.Authenticate(ctx, creds)
		switch {
		case err == nil:
			c.observe(b.Name(), "known")
			p.Backend = b.Name()
			return p, nil
		case errors.Is(err, ErrUnknown):
			c.observe(b.Name(), "unknown")
		case errors.Is(err, ErrRefused):
			c.observe(b.Name(), "refused")
			return Principal{}, ErrRefused
		default:
			c.observe(b.Name(), "unavailable")
			outage = errors.Join(outage, fmt.Errorf("users backend %s: %w", b.Name(), err))
		}
	}
	if outage != nil {
		return Principal{}, outage
	}
	// Nobody has this user. Spend what a wrong password costs, or the clock would list our accounts to anyone who asks.
	for _, b := range c.backends {
		if d, ok := b.(decoy); ok {
			d.Decoy(ctx, creds.Password)
			break
		}
	}
	return Principal{}, ErrRefused
}
