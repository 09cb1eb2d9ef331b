package users

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync/atomic"
	"time"
)

// Account is somebody in a directory of ours: a user, who has a password, or a robot, which has access tokens only.
type Account struct {
	Name     string
	Kind     Kind     // KindUser or KindRobot
	Groups   []string // sorted
	Password string   // bcrypt hash; "" = nobody can log in with a password
	Disabled bool
	Created  time.Time
	Changed  time.Time // of anything but groups
}

// MaxAccountName bounds the name of an account or of a group of ours, in bytes.
const MaxAccountName = 128

var accountName = regexp.MustCompile(`^[a-z0-9]+([._@-][a-z0-9]+)*$`)

// ParseAccountName checks the name of an account or a group that is made here: lower-case letters and digits, in parts
// joined by single . _ @ or -. Such a name means the same in a shell, in a URL, in a policy and as a part of a
// repository's name, and no two look alike.
func ParseAccountName(s string) (string, error) {
	if len(s) > MaxAccountName {
		return "", fmt.Errorf("a name has at most %d bytes", MaxAccountName)
	}
	if !accountName.MatchString(s) {
		return "", fmt.Errorf("%q cannot be a name; would be right: lower-case letters and digits, joined by single . _ @ or -", s)
	}
	return s, nil
}

// Errors of directories that can be changed.
var (
	ErrConflict = errors.New("there already")
	ErrNotFound = errors.New("not found")
	ErrChanged  = errors.New("changed meanwhile")
)

// Directory is a backend that can be asked about a name without its password.
type Directory interface {
	// Lookup returns who has the name, and a mark of its password that changes when that does ("" when there is none).
	// Errors are those of Authenticate; who is disabled is refused.
	Lookup(ctx context.Context, name string) (who Principal, mark string, err error)
}

// Accounts is where the backend `kind: database` finds accounts.
type Accounts interface {
	// Account returns ErrNotFound when there is no such account.
	Account(ctx context.Context, name string) (Account, error)
	// PasswordForms returns how the passwords of all accounts begin, in at least 6 characters, each form once.
	PasswordForms(ctx context.Context) ([]string, error)
}

// Database is the backend `kind: database`: accounts in a database of ours.
type Database struct {
	accounts Accounts
	guard    *Guard
	learned  atomic.Bool // the highest cost that was there at the beginning
}

// DatabaseOptions is a users[] block of kind database.
type DatabaseOptions struct{}

// NewDatabase returns the backend. cost is that of the passwords that are made for it.
func NewDatabase(accounts Accounts, guard *Guard, cost int) *Database {
	guard.expect(cost)
	return &Database{accounts: accounts, guard: guard}
}

// learn sees to it that every refusal takes the time of the dearest password that is there: the cost that passwords are
// made with may have been higher once, and the first of those to be met would be slower than a name that nobody has.
func (d *Database) learn(ctx context.Context) error {
	if d.learned.Load() {
		return nil
	}
	forms, err := d.accounts.PasswordForms(ctx)
	if err != nil {
		return err
	}
	for _, form := range forms {
		if cost, ok := formCost(form); ok {
			d.guard.expect(cost)
		}
	}
	d.learned.Store(true)
	return nil
}

// Name implements Authenticator.
func (d *Database) Name() string { return "database" }

// Authenticate implements Authenticator. Robots, disabled accounts and those without a password are refused in the time
// of a wrong password.
func (d *Database) Authenticate(ctx context.Context, c Credentials) (Principal, error) {
	if err := d.learn(ctx); err != nil {
		return Principal{}, err
	}
	account, err := d.accounts.Account(ctx, c.Username)
	switch {
	case errors.Is(err, ErrNotFound):
		return Principal{}, ErrUnknown
	case err != nil:
		return Principal{}, err
	}
	cost, err := hashCost(account.Password)
	if err != nil || account.Kind != KindUser || account.Disabled {
		if err := d.guard.Refuse(ctx, c); err != nil {
			return Principal{}, err
		}
		return Principal{}, ErrRefused
	}
	d.guard.expect(cost) // it may be new, and made elsewhere
	ok, err := d.guard.check(ctx, c, []byte(account.Password), cost)
	switch {
	case err != nil:
		return Principal{}, err
	case !ok:
		return Principal{}, ErrRefused
	}
	who := account.principal()
	who.Mark = account.mark()
	return who, nil
}

func (a Account) principal() Principal {
	return Principal{Name: a.Name, Kind: a.Kind, Groups: a.Groups}
}

// mark changes with every change of the account, so that a login that was under way while it was locked or given a new
// password ends with that, however it came out.
func (a Account) mark() string {
	if a.Password == "" {
		return ""
	}
	return mark(a.Password + a.Changed.UTC().Format(time.RFC3339Nano))
}

// Lookup implements Directory.
func (d *Database) Lookup(ctx context.Context, name string) (Principal, string, error) {
	account, err := d.accounts.Account(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return Principal{}, "", ErrUnknown
	case err != nil:
		return Principal{}, "", err
	case account.Disabled:
		return Principal{}, "", ErrRefused
	}
	return account.principal(), account.mark(), nil
}
