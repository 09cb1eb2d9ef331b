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
	guard    *Guard
	observe  func(backend, outcome string)
}

// NewChain returns a chain over backends. guard is the one that they were made with. observe is told every backend's answer: "known", "refused", "unknown",
// "held_back" or "unavailable"; nil means nobody listens.
func NewChain(backends []Authenticator, guard *Guard, observe func(backend, outcome string)) *Chain {
	if observe == nil {
		observe = func(string, string) {}
	}
	return &Chain{backends: backends, guard: guard, observe: observe}
}

// Lookup asks about a name without its password: the first backend that can be asked and knows the name decides, as in
// Authenticate. ErrUnknown when none does.
func (c *Chain) Lookup(ctx context.Context, name string) (Principal, string, error) {
	return c.LookupIn(ctx, "", name)
}

// LookupIn is Lookup in the backends of one kind; "" is all.
func (c *Chain) LookupIn(ctx context.Context, kind, name string) (Principal, string, error) {
	var outage error
	for _, b := range c.backends {
		directory, ok := b.(Directory)
		if !ok || kind != "" && b.Name() != kind {
			continue
		}
		who, mark, err := directory.Lookup(ctx, name)
		switch {
		case err == nil:
			who.Backend = b.Name()
			return who, mark, nil
		case errors.Is(err, ErrUnknown):
		case errors.Is(err, ErrRefused):
			return Principal{}, "", ErrRefused
		default:
			outage = errors.Join(outage, fmt.Errorf("users backend %s: %w", b.Name(), err))
		}
	}
	if outage != nil {
		return Principal{}, "", outage
	}
	return Principal{}, "", ErrUnknown
}

// Authenticate returns the principal, ErrRefused, or the error of a backend that could not say.
func (c *Chain) Authenticate(ctx context.Context, creds Credentials) (Principal, error) {
	began := c.guard.elapsed()
	who, err := c.authenticate(ctx, creds)
	if errors.Is(err, ErrRefused) || errors.As(err, new(*Later)) {
		c.guard.blur(ctx, began)
	}
	return who, err
}

func (c *Chain) authenticate(ctx context.Context, creds Credentials) (Principal, error) {
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
		case errors.As(err, new(*Later)): // it knows the name, or could: nobody else is to answer for it
			c.observe(b.Name(), "held_back")
			return Principal{}, err
		default:
			c.observe(b.Name(), "unavailable")
			outage = errors.Join(outage, fmt.Errorf("users backend %s: %w", b.Name(), err))
			if ctx.Err() != nil { // not the backend is out of time but the request: nobody else is to answer for it
				return Principal{}, outage
			}
		}
	}
	if outage != nil {
		return Principal{}, outage
	}
	// Nobody has this user. Spend what a wrong password costs, or the clock would list our accounts to anyone who asks.
	if err := c.guard.Refuse(ctx, creds); err != nil {
		return Principal{}, fmt.Errorf("checking a password: %w", err)
	}
	return Principal{}, ErrRefused
}
