package users

import (
	"errors"
	"fmt"
	"strconv"
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
	form, rest := hash[:min(4, len(hash))], hash[min(4, len(hash)):]
	if form != "$2a$" && form != "$2b$" && form != "$2y$" {
		for prefix, name := range map[string]string{
			"$apr1$": "MD5 (apr1)", "{SHA}": "SHA-1", "$1$": "MD5-crypt", "$5$": "SHA-256-crypt", "$6$": "SHA-512-crypt",
			"$2x$": "a bcrypt variant that cannot be trusted ($2x$)", "$argon2": "Argon2", "$y$": "yescrypt",
		} {
			if strings.HasPrefix(hash, prefix) {
				return 0, fmt.Errorf("the password is hashed with %s, only bcrypt can be used", name)
			}
		}
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

// formCost is the cost in the beginning of a hash that hashCost takes: $2b$12….
func formCost(form string) (int, bool) {
	if len(form) < 6 || form[0] != '$' || form[3] != '$' {
		return 0, false
	}
	cost, err := strconv.Atoi(form[4:6])
	return cost, err == nil && cost >= MinCost && cost <= MaxCost
}

// decoy is a hash that no password has.
func decoy(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, strings.Repeat("u", 53))
}
