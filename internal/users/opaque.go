package users

import (
	"context"
	"errors"
	"time"
)

// OpaqueToken is what can be said of an access or refresh token that is good now.
type OpaqueToken struct {
	Kind    string // "access_token" or "refresh_token"
	ID      string
	Owner   string
	Scopes  []string // of an access token; nil = whatever its owner may
	Service string   // of a refresh token
	Client  string   // of a refresh token: its client_id
	Created time.Time
	Expires time.Time // zero = never
}

// TokenStore is where both kinds are kept.
type TokenStore interface {
	AccessTokenStore
	RefreshTokenStore
	RevokeAccessToken(ctx context.Context, id string) error
	RevokeRefreshToken(ctx context.Context, id string) error
}

// OpaqueTokens answers RFC 7009 and RFC 7662 about both kinds: who has a token in hand may end it, and who may ask is
// told what it is.
type OpaqueTokens struct {
	store   TokenStore
	access  *AccessTokens
	refresh *RefreshTokens
}

// NewOpaqueTokens returns what is known of the tokens of access and refresh; nil = refresh tokens are not taken.
func NewOpaqueTokens(store TokenStore, access *AccessTokens, refresh *RefreshTokens) *OpaqueTokens {
	return &OpaqueTokens{store, access, refresh}
}

// Revoke ends a token, and returns what it was; ErrNotFound when it is none.
func (o *OpaqueTokens) Revoke(ctx context.Context, token string) (OpaqueToken, error) {
	switch {
	case wellFormed(accessPrefix, token):
		t, err := o.store.AccessToken(ctx, secretHash(token))
		if err == nil {
			err = o.store.RevokeAccessToken(ctx, t.ID)
		}
		return OpaqueToken{Kind: "access_token", ID: t.ID, Owner: t.Owner}, err
	case wellFormed(refreshPrefix, token):
		t, err := o.store.RefreshToken(ctx, secretHash(token))
		if err == nil {
			err = o.store.RevokeRefreshToken(ctx, t.ID)
		}
		return OpaqueToken{Kind: "refresh_token", ID: t.ID, Owner: t.Owner}, err
	}
	return OpaqueToken{}, ErrNotFound
}

// Describe says what a token is that would be taken now; ErrNotFound when it would not. It is no use of the token.
func (o *OpaqueTokens) Describe(ctx context.Context, token string, now time.Time) (OpaqueToken, error) {
	described, err := o.describe(ctx, token, now)
	if errors.Is(err, ErrRefused) {
		err = ErrNotFound
	}
	return described, err
}

func (o *OpaqueTokens) describe(ctx context.Context, token string, now time.Time) (OpaqueToken, error) {
	switch {
	case wellFormed(accessPrefix, token):
		t, err := o.store.AccessToken(ctx, secretHash(token))
		if err != nil {
			return OpaqueToken{}, err
		}
		if !t.Expires.IsZero() && !now.Before(t.Expires) {
			return OpaqueToken{}, ErrRefused
		}
		if _, _, err := o.access.chain.LookupIn(ctx, t.Backend, t.Owner); err != nil {
			return OpaqueToken{}, err
		}
		return OpaqueToken{Kind: "access_token", ID: t.ID, Owner: t.Owner, Scopes: t.Scopes, Created: t.Created, Expires: t.Expires}, nil
	case wellFormed(refreshPrefix, token) && o.refresh != nil:
		t, err := o.store.RefreshToken(ctx, secretHash(token))
		if err != nil {
			return OpaqueToken{}, err
		}
		if _, err := o.refresh.owner(ctx, t, now); err != nil {
			return OpaqueToken{}, err
		}
		expires := t.LastUsed.Add(o.refresh.idle)
		if end := t.Created.Add(o.refresh.most); end.Before(expires) {
			expires = end
		}
		return OpaqueToken{Kind: "refresh_token", ID: t.ID, Owner: t.Owner, Service: t.Service, Client: t.Client, Created: t.Created, Expires: expires}, nil
	}
	return OpaqueToken{}, ErrNotFound
}
