package users

import (
	"context"
	"errors"
	"strings"
	"time"
)

// RefreshToken is a login that a client keeps instead of the password (RFC 6749 §1.5, Distribution's oauth.md): it is
// bound to an account, its password and one service, and ends with any of them.
type RefreshToken struct {
	ID       string
	Owner    string
	Backend  string // of the owner
	Mark     string // of the owner's password when it was given
	Service  string
	Client   string // client_id, as the client says
	Created  time.Time
	LastUsed time.Time // to the minute
}

// RefreshTokenStore is where refresh tokens are kept. ErrNotFound when there is none with that hash.
type RefreshTokenStore interface {
	AddRefreshToken(ctx context.Context, hash string, t RefreshToken) error
	RefreshToken(ctx context.Context, hash string) (RefreshToken, error)
	// RefreshTokenUsed notes the use of a token.
	RefreshTokenUsed(ctx context.Context, id string, at time.Time) error
}

// RefreshTokens gives refresh tokens and takes them. Clients use one token in parallel and keep it for ever, so it is
// not replaced at each use.
type RefreshTokens struct {
	store      RefreshTokenStore
	chain      *Chain
	idle, most time.Duration // lifetimes since the last use, and at all
	observe    func(backend, outcome string)
	notes      notes
}

// NewRefreshTokens returns the refresh tokens of the users of chain. A token ends when it was not used for idle, and most
// after it was given.
func NewRefreshTokens(store RefreshTokenStore, chain *Chain, idle, most time.Duration) *RefreshTokens {
	return &RefreshTokens{store: store, chain: chain, idle: idle, most: most, observe: chain.observe, notes: make(notes, notesAtOnce)}
}

// refreshTokenBackend labels metrics.
const refreshTokenBackend = "refresh_token"

// IsRefreshToken tells whether a password is meant to be a refresh token.
func IsRefreshToken(password string) bool { return strings.HasPrefix(password, refreshPrefix) }

// Begin gives a token to who has just logged in with a password. Who came with anything else, or is of a backend that
// cannot be asked again, gets none: "". The token is bound to the password that was given, not to the one that is in
// force by now: who logs in with an old one while it is changed must not keep the login.
func (t *RefreshTokens) Begin(ctx context.Context, who Principal, service, client string, now time.Time) (string, error) {
	if who.Kind != KindUser || who.Credential != "" || who.Mark == "" {
		return "", nil
	}
	token, hash, _ := newSecret(refreshPrefix)
	err := t.store.AddRefreshToken(ctx, hash, RefreshToken{
		ID: NewID(), Owner: who.Name, Backend: who.Backend, Mark: who.Mark, Service: service, Client: client, Created: now, LastUsed: now,
	})
	if err != nil {
		return "", err // a client that is given one keeps it instead of the password
	}
	return token, nil
}

// Redeem tells who a refresh token stands for. Errors are those of Authenticate.
func (t *RefreshTokens) Redeem(ctx context.Context, token, service string, now time.Time) (Principal, error) {
	who, err := t.redeem(ctx, token, service, now)
	switch {
	case err == nil:
		t.observe(refreshTokenBackend, "known")
	case errors.Is(err, ErrRefused):
		t.observe(refreshTokenBackend, "refused")
	default:
		t.observe(refreshTokenBackend, "unavailable")
	}
	return who, err
}

func (t *RefreshTokens) redeem(ctx context.Context, token, service string, now time.Time) (Principal, error) {
	if !wellFormed(refreshPrefix, token) {
		return Principal{}, refusal("refresh token", "it is damaged")
	}
	kept, err := t.store.RefreshToken(ctx, secretHash(token))
	switch {
	case errors.Is(err, ErrNotFound):
		return Principal{}, refusal("refresh token", "there is none, or no longer")
	case err != nil:
		return Principal{}, err
	}
	if kept.Service != service {
		return Principal{}, refusal("refresh token "+kept.ID, "it is for another service")
	}
	who, err := t.owner(ctx, kept, now)
	if err != nil {
		return Principal{}, err
	}
	if now.Sub(kept.LastUsed) >= noteEvery {
		if err := t.notes.write(ctx, func(ctx context.Context) error { return t.store.RefreshTokenUsed(ctx, kept.ID, now) }); err != nil { // at worst it ends early
			t.observe(refreshTokenBackend, unnoted)
		}
	}
	who.Credential = "refresh token " + kept.ID
	return who, nil
}

// owner is whose a token is now. A new password, a lock or a removal ends it, so the owner is asked for at every use.
func (t *RefreshTokens) owner(ctx context.Context, kept RefreshToken, now time.Time) (Principal, error) {
	if now.Sub(kept.LastUsed) > t.idle || now.Sub(kept.Created) > t.most {
		return Principal{}, refusal("refresh token "+kept.ID, "it has ended")
	}
	who, mark, err := t.chain.LookupIn(ctx, kept.Backend, kept.Owner)
	switch {
	case err != nil:
		return Principal{}, err
	case mark != kept.Mark || who.Kind != KindUser:
		return Principal{}, refusal("refresh token "+kept.ID, "its owner has changed since")
	}
	return who, nil
}
