package users

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// MaxPasswordLength is bcrypt's: it reads 72 bytes and no more, and CompareHashAndPassword quietly ignores the rest, so
// a longer password would be as good as its beginning. Longer ones are refused, not cut.
const MaxPasswordLength = 72

// Costs of bcrypt that are taken from a users file and for new hashes: below 4 there is none, above 16 one check takes
// seconds of a core, and a handful of logins would stop the service.
const (
	MinCost     = bcrypt.MinCost
	MaxCost     = 16
	DefaultCost = 12
)

// HashPassword returns the bcrypt hash of a new password.
func HashPassword(password string, cost int) (string, error) {
	switch {
	case password == "":
		return "", errors.New("a password cannot be empty")
	case IsAccessToken(password):
		return "", errors.New("a password cannot begin with " + accessPrefix + ": it would be taken for an access token")
	case len(password) > MaxPasswordLength:
		return "", fmt.Errorf("a password has at most %d bytes (bcrypt reads no more)", MaxPasswordLength)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	return string(hash), err
}

// hashCost returns the cost of a bcrypt hash in one of the forms that a registry's own htpasswd auth reads
// ($2a$, $2b$, $2y$), or an error that names what it is instead; never the hash.
func hashCost(hash string) (int, error) {
	known := map[string]string{
		"$apr1$": "MD5 (apr1)", "{SHA}": "SHA-1", "$1$": "MD5-crypt", "$5$": "SHA-256-crypt", "$6$": "SHA-512-crypt",
		"$2x$": "a bcrypt variant that cannot be trusted ($2x$)", "$argon2": "Argon2", "$y$": "yescrypt",
	}
	for prefix, name := range known {
		if strings.HasPrefix(hash, prefix) {
			return 0, fmt.Errorf("the password is hashed with %s, only bcrypt can be used", name)
		}
	}
	form, rest := hash[:min(4, len(hash))], hash[min(4, len(hash)):]
	if form != "$2a$" && form != "$2b$" && form != "$2y$" {
		return 0, errors.New("the password is not a bcrypt hash")
	}
	const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil || len(rest) != 56 || rest[2] != '$' || strings.Trim(rest[3:], alphabet) != "" {
		return 0, errors.New("the bcrypt hash is damaged")
	}
	if cost > MaxCost {
		return 0, fmt.Errorf("bcrypt cost %d would take seconds a login, at most %d can be used", cost, MaxCost)
	}
	return cost, nil
}

// Checker compares passwords with bcrypt hashes. One bound on the number of hashes computed at once holds for the whole
// process; one highest cost, which every refusal takes, for all backends of a chain.
type Checker struct {
	slots   chan struct{}
	observe func(cost int) (done func())
	cost    int // the highest that a backend of this chain has
}

// NewChecker returns a checker. observe is called with its cost when a comparison starts, what it returns when that ends;
// nil means nobody listens.
func NewChecker(observe func(cost int) (done func())) *Checker {
	if observe == nil {
		observe = func(int) func() { return func() {} }
	}
	// One core stays free for requests that need no hash.
	return &Checker{slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)), observe: observe}
}

// ForChain returns a checker for the backends of one chain: it shares the bound and knows no cost yet.
func (c *Checker) ForChain() *Checker {
	return &Checker{slots: c.slots, observe: c.observe}
}

// expect raises the highest cost. Backends call it while they load, before the chain is used.
func (c *Checker) expect(cost int) { c.cost = max(c.cost, cost) }

// check tells whether password is the one that was hashed, at a cost. An error means that it was not checked.
//
// A refusal takes as long as one at the highest cost: costs are powers of two, so one more comparison at each cost from
// the hash's own up to the highest but one adds up to exactly that. All are done in one turn, because waiting for
// several turns on a busy machine would tell users apart as well.
func (c *Checker) check(ctx context.Context, hash []byte, cost int, password string) (bool, error) {
	if password == "" || len(password) > MaxPasswordLength {
		return false, nil
	}
	if err := c.acquire(ctx); err != nil {
		return false, err
	}
	defer c.release()
	if c.compare(hash, cost, password) {
		return true, nil
	}
	for ; cost < c.cost; cost++ {
		c.compare(decoy(cost), cost, password)
	}
	return false, nil
}

// Refuse takes the time, and the turn, of refusing a known user. An error means what it means for a known user.
func (c *Checker) Refuse(ctx context.Context, password string) error {
	if c.cost == 0 { // no backend has hashes
		return nil
	}
	_, err := c.check(ctx, decoy(c.cost), c.cost, password)
	return err
}

// acquire waits for a turn. A context that is done never gets one.
func (c *Checker) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Hash is HashPassword within the bound on hashes computed at once.
func (c *Checker) Hash(ctx context.Context, password string, cost int) (string, error) {
	if err := c.acquire(ctx); err != nil {
		return "", err
	}
	defer c.release()
	return HashPassword(password, cost)
}

func (c *Checker) release() { <-c.slots }

func (c *Checker) compare(hash []byte, cost int, password string) bool {
	defer c.observe(cost)()
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
}

// decoy is a hash that no password has.
func decoy(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, strings.Repeat("u", 53))
}
