package users

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// AccessToken is a credential that its owner made: it is used as the owner's password, and may do what both the owner
// and its own scopes allow.
type AccessToken struct {
	ID       string
	Owner    string // the name of a user or robot
	Backend  string // of the owner: somebody of that name elsewhere is somebody else
	Name     string // unique for the owner
	Shown    string // its beginning, to tell it from others
	Scopes   []string
	Networks []netip.Prefix // from which it can be used; none = from everywhere
	Created  time.Time
	Expires  time.Time // zero = never
	LastUsed time.Time // zero = never; to the minute
	LastFrom string    // address; "" when it was not known
}

// NewAccessToken makes the secret of a token: what its owner is shown once, and the hash to keep.
func NewAccessToken() (secret, hash, shown string) { return newSecret(accessPrefix) }

// IsAccessToken tells whether a password is meant to be an access token.
func IsAccessToken(password string) bool { return strings.HasPrefix(password, accessPrefix) }

// AccessTokenStore is where access tokens are kept. ErrNotFound when there is none with that hash.
type AccessTokenStore interface {
	AccessToken(ctx context.Context, hash string) (AccessToken, error)
	// AccessTokenUsed notes the use of a token.
	AccessTokenUsed(ctx context.Context, id string, at time.Time, from string) error
}

// AccessTokens lets access tokens stand in for passwords, before a chain of backends.
type AccessTokens struct {
	store   AccessTokenStore
	chain   *Chain
	now     func() time.Time
	observe func(backend, outcome string)
	notes   notes
}

// NewAccessTokens returns an authenticator that knows access tokens and asks chain about everything else.
func NewAccessTokens(store AccessTokenStore, chain *Chain, now func() time.Time) *AccessTokens {
	return &AccessTokens{store: store, chain: chain, now: now, observe: chain.observe, notes: make(notes, notesAtOnce)}
}

// accessTokenBackend labels metrics.
const accessTokenBackend = "access_token"

// unnoted is the outcome of a note that could not be written.
const unnoted = "unnoted"

// noteEvery is how often the use of a token is written down.
const noteEvery = time.Minute

// Authenticate implements the contract of an Authenticator. What looks like an access token is never tried as a
// password, so a revoked one cannot be good anywhere else.
func (t *AccessTokens) Authenticate(ctx context.Context, c Credentials) (Principal, error) {
	if !IsAccessToken(c.Password) {
		return t.chain.Authenticate(ctx, c)
	}
	who, err := t.authenticate(ctx, c)
	switch {
	case err == nil:
		t.observe(accessTokenBackend, "known")
	case errors.Is(err, ErrRefused):
		t.observe(accessTokenBackend, "refused")
	default:
		t.observe(accessTokenBackend, "unavailable")
	}
	return who, err
}

func (t *AccessTokens) authenticate(ctx context.Context, c Credentials) (Principal, error) {
	if !wellFormed(accessPrefix, c.Password) {
		return Principal{}, refusal("access token", "it is damaged")
	}
	// The store finds it by its hash: how long that takes says nothing about other tokens.
	token, err := t.store.AccessToken(ctx, secretHash(c.Password))
	switch {
	case errors.Is(err, ErrNotFound):
		return Principal{}, refusal("access token", "there is none, or no longer")
	case err != nil:
		return Principal{}, err
	}
	now := t.now()
	switch {
	case token.Owner != c.Username:
		return Principal{}, refusal("access token "+token.ID, "it is somebody else's")
	case !token.Expires.IsZero() && !now.Before(token.Expires):
		return Principal{}, refusal("access token "+token.ID, "it has expired")
	case !token.usableFrom(c.From):
		return Principal{}, refusal("access token "+token.ID, "it cannot be used from this network")
	}
	// The owner is asked for at every use: who is disabled or gone has no tokens.
	who, _, err := t.chain.LookupIn(ctx, token.Backend, token.Owner)
	if err != nil {
		return Principal{}, err
	}
	if now.Sub(token.LastUsed) >= noteEvery {
		from := "" // not known
		if c.From.IsValid() {
			from = c.From.String()
		}
		// A note, and no reason to lock anybody out: when it cannot be written (a full disk), tokens are good all the same.
		if err := t.notes.write(ctx, func(ctx context.Context) error { return t.store.AccessTokenUsed(ctx, token.ID, now, from) }); err != nil {
			t.observe(accessTokenBackend, unnoted)
		}
	}
	who.Credential, who.Scopes, who.Networks, who.Expires = "access token "+token.ID, token.Scopes, token.Networks, token.Expires
	return who, nil
}

// usableFrom fails closed when the address is not known.
func (t AccessToken) usableFrom(from netip.Addr) bool {
	return len(t.Networks) == 0 || from.IsValid() && slices.ContainsFunc(t.Networks, func(n netip.Prefix) bool { return n.Contains(from) })
}

// notes bounds how many notes are written at once, and how long a request waits for its own: when the database takes no
// writes, they must not hold all connections that others need for reading.
type notes chan struct{}

const (
	notesAtOnce = 4
	noteWithin  = 500 * time.Millisecond
)

func (n notes) write(ctx context.Context, note func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, noteWithin)
	defer cancel()
	select {
	case n <- struct{}{}:
		defer func() { <-n }()
		return note(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}
