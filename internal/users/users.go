// Package users is the noun of who asks: Principal, Credentials, the contract of an identity backend, the ordered chain
// of them, and the backends that need no service of their own (htpasswd).
//
// It knows nothing of repositories or tokens. bcrypt lives here and nowhere else.
package users

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Kind tells apart the principals that policy subjects tell apart.
type Kind string

const (
	KindAnonymous Kind = "anonymous" // sent no credentials at all
	KindUser      Kind = "user"
	KindRobot     Kind = "robot"
)

// Principal is an authenticated subject, or Anonymous. The name is in NFC and obeys ParseName; it is compared byte by byte.
type Principal struct {
	Name    string
	Kind    Kind
	Groups  []string       // as the backend reports them; policy may add more
	Claims  map[string]any // of a federated identity, else nil
	Backend string         // which backend vouches, as in Authenticator.Name

	// Mark is that of the password it came with, as Directory.Lookup returns it; "" when it came with none.
	Mark string

	// Credential says what it came with when that was not its password, as in "access token 4F…". Scopes are what that
	// credential may do at most, as scope patterns; nil = whatever the principal may.
	// Networks and Expires are where and until when it is good; none and the zero time = everywhere, for ever.
	Credential string
	Scopes     []string
	Networks   []netip.Prefix
	Expires    time.Time
}

// Anonymous is who sent no credentials. It is never the answer to bad ones.
func Anonymous() Principal { return Principal{Kind: KindAnonymous} }

// Credentials are a user name and a password as a client presents them, the name canonical (ParseName). They hold a
// secret: never log or format them.
type Credentials struct {
	Username string
	Password string
	From     netip.Addr // where they came from; the zero Addr when it is not known
}

// The three answers of a backend are a Principal (known), an error that is ErrRefused (refused), and any other error
// (cannot say: the backend is down or overloaded). An outage therefore lets nobody in.
var (
	// ErrRefused says that the credentials are not good.
	ErrRefused = errors.New("credentials refused")
	// ErrUnknown is the refusal of a backend that has no such user, so that another one may. The chain turns it into
	// ErrRefused: a client cannot tell the two apart.
	ErrUnknown = fmt.Errorf("%w: no such user", ErrRefused)
)

// Authenticator is an identity backend.
type Authenticator interface {
	// Name is the backend's kind, as in users[].kind; it labels logs and metrics.
	Name() string
	// Authenticate checks the credentials. Errors are ErrUnknown, ErrRefused, or else mean that the backend cannot say.
	Authenticate(ctx context.Context, c Credentials) (Principal, error)
}

// MaxNameLength bounds a user name, in bytes of its NFC form.
const MaxNameLength = 255

// ParseName returns the canonical form (NFC) of a user name, or an error that says which rule it breaks: UTF-8, 1 to
// MaxNameLength bytes, no colon (Basic authentication ends the name there, RFC 7617 §2), no control or invisible
// format characters (log forging, look-alikes), no blanks at the ends.
func ParseName(s string) (string, error) {
	if s == "" {
		return "", errors.New("a user name cannot be empty")
	}
	if len(s) > 2*MaxNameLength { // bound the work of normalising
		return "", fmt.Errorf("a user name has at most %d bytes", MaxNameLength)
	}
	if !utf8.ValidString(s) {
		return "", errors.New("a user name must be UTF-8")
	}
	s = norm.NFC.String(s)
	if len(s) > MaxNameLength {
		return "", fmt.Errorf("a user name has at most %d bytes", MaxNameLength)
	}
	for _, r := range s {
		switch {
		case r == ':':
			return "", errors.New("a user name cannot hold a colon")
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			return "", errors.New("a user name cannot hold control or format characters")
		}
	}
	if strings.TrimSpace(s) != s {
		return "", errors.New("a user name cannot begin or end with a blank")
	}
	return s, nil
}
