package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"authserver/internal/acl"
	"authserver/internal/issuer"
	"authserver/internal/network"
	"authserver/internal/store"
	"authserver/internal/users"
)

// Token is what is shown of an access token; never its hash.
type Token struct {
	ID       string         `json:"id"`
	Owner    string         `json:"owner"`
	Backend  string         `json:"backend" doc:"where its owner is"`
	Name     string         `json:"name"`
	Shown    string         `json:"prefix" doc:"what it begins with"`
	Scopes   []string       `json:"scopes" doc:"null is whatever its owner may"`
	Networks []netip.Prefix `json:"networks" doc:"null is everywhere"`
	Created  time.Time      `json:"created"`
	Expires  *time.Time     `json:"expires" doc:"null is never"`
	LastUsed *time.Time     `json:"last_used" doc:"to the minute; null is never"`
	LastFrom string         `json:"last_used_from"`
}

func showToken(t users.AccessToken) Token {
	return Token{t.ID, t.Owner, t.Backend, t.Name, t.Shown, t.Scopes, t.Networks, t.Created, never(t.Expires), never(t.LastUsed), t.LastFrom}
}

// never is nil for the zero time.
func never(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// login is what is shown of a refresh token.
type login struct {
	ID       string    `json:"id"`
	Owner    string    `json:"owner"`
	Backend  string    `json:"backend"`
	Service  string    `json:"service"`
	Client   string    `json:"client" doc:"as it calls itself"`
	Created  time.Time `json:"created"`
	LastUsed time.Time `json:"last_used" doc:"to the minute"`
}

func showLogin(t users.RefreshToken) login {
	return login{t.ID, t.Owner, t.Backend, t.Service, t.Client, t.Created, t.LastUsed}
}

type pageOfName struct {
	Named
	Page
}

type oneOfName struct {
	Named
	ID string `path:"id" maxLength:"64"`
}

func (a *API) tokenOperations() {
	const tokens = "tokens/{name}"
	register(a, operation{id: "list-tokens", method: http.MethodGet, path: "/users/{name}/tokens", summary: "Access tokens of a user", resource: tokens, action: "read"},
		func(ctx context.Context, in *pageOfName) (*list[Token], error) {
			found, err := a.Store.AccessTokensOf(ctx, owner(ctx, in.Name), in.After, in.Limit+1)
			return paged(in.Page, found, func(t users.AccessToken) string { return t.ID }, showToken), err
		})
	register(a, operation{id: "create-token", method: http.MethodPost, path: "/users/{name}/tokens", summary: "Make an access token; it is shown this once", resource: tokens, action: "write", status: http.StatusCreated}, a.createToken)
	register(a, operation{id: "revoke-token", method: http.MethodDelete, path: "/users/{name}/tokens/{id}", summary: "End an access token", resource: tokens, action: "write", status: http.StatusNoContent},
		func(ctx context.Context, in *oneOfName) (*done, error) {
			if err := a.Store.RevokeAccessTokenOf(ctx, owner(ctx, in.Name), in.ID); err != nil {
				return nil, err
			}
			return nil, a.changed(ctx, caller(ctx), "revoke-token", "tokens/"+in.Name+"/"+in.ID)
		})
	register(a, operation{id: "list-logins", method: http.MethodGet, path: "/users/{name}/logins", summary: "Refresh tokens that clients of a user keep", resource: tokens, action: "read"},
		func(ctx context.Context, in *pageOfName) (*list[login], error) {
			found, err := a.Store.RefreshTokensOf(ctx, owner(ctx, in.Name), in.After, in.Limit+1)
			return paged(in.Page, found, func(t users.RefreshToken) string { return t.ID }, showLogin), err
		})
	register(a, operation{id: "end-login", method: http.MethodDelete, path: "/users/{name}/logins/{id}", summary: "End a refresh token", resource: tokens, action: "write", status: http.StatusNoContent},
		func(ctx context.Context, in *oneOfName) (*done, error) {
			if err := a.Store.RevokeRefreshTokenOf(ctx, owner(ctx, in.Name), in.ID); err != nil {
				return nil, err
			}
			return nil, a.changed(ctx, caller(ctx), "end-login", "logins/"+in.Name+"/"+in.ID)
		})
}

// owner is whose tokens a name in a path means: all of that name, except that somebody of that name in one backend has
// nothing to do with somebody of that name in another.
func owner(ctx context.Context, name string) store.Owner {
	if who := caller(ctx); who.Name == name {
		return store.Owner{Backend: who.Backend, Name: name}
	}
	return store.Owner{Name: name}
}

// some is a list that is there or left out. null is neither: a limit that a program meant to set, and lost, must not
// become none at all. huma takes null for left out.
type some[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *some[T]) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return errors.New("null is no list; leave it out")
	}
	return json.Unmarshal(text, (*[]T)(l))
}

type newToken struct {
	Named
	Body struct {
		Name     string       `json:"name" minLength:"1" maxLength:"128" doc:"unique for its owner"`
		Scopes   some[string] `json:"scopes,omitempty" minItems:"1" maxItems:"50" nullable:"false" example:"[\"repository:team/**:pull\"]" doc:"what it may do at most; left out = whatever its owner may"`
		Networks some[string] `json:"networks,omitempty" minItems:"1" maxItems:"50" nullable:"false" example:"[\"10.0.0.0/8\"]" doc:"where it can be used from; left out = everywhere"`
		Lifetime string       `json:"lifetime,omitempty" pattern:"^([1-9][0-9]{0,4}[dh]|never)$" default:"90d" doc:"in days or hours, or never"`
	}
}

// madeToken is the one answer that a token stands in.
type madeToken struct {
	Location string `header:"Location"`
	Body     struct {
		Token
		Secret string `json:"token" doc:"used as the password of its owner"`
	}
}

func (a *API) createToken(ctx context.Context, in *newToken) (*madeToken, error) {
	who, now := caller(ctx), a.Now().UTC().Truncate(time.Microsecond) // as it is stored
	expires, ok := lifetime(in.Body.Lifetime, now)
	if !ok {
		return nil, problem(http.StatusUnprocessableEntity, "lifetime is no time to come; would be right: 90d, 12h or never, at most ten years")
	}
	if _, err := users.ParseName(in.Body.Name); err != nil {
		return nil, problem(http.StatusUnprocessableEntity, "name: "+err.Error())
	}
	for _, s := range in.Body.Scopes {
		if len(s) > maxScope {
			return nil, problem(http.StatusUnprocessableEntity, fmt.Sprintf("scopes: at most %d bytes each", maxScope))
		}
	}
	if err := acl.CheckLimit(in.Body.Scopes); err != nil {
		return nil, problem(http.StatusUnprocessableEntity, "scopes: "+err.Error())
	}
	var networks []netip.Prefix
	for _, s := range in.Body.Networks {
		n, err := network.Parse(s)
		if err != nil {
			return nil, problem(http.StatusUnprocessableEntity, "networks: "+err.Error())
		}
		networks = append(networks, n)
	}
	t := users.AccessToken{ID: users.NewID(), Name: in.Body.Name, Scopes: in.Body.Scopes, Networks: networks, Created: now, Expires: expires}
	if err := within(t, who); err != nil {
		return nil, err
	}
	// A token is bound to the backend of its owner; the caller's own is known, anybody else's is found as at a login.
	switch o, _, err := a.Chain.LookupIn(ctx, owner(ctx, in.Name).Backend, in.Name); {
	case errors.Is(err, users.ErrUnknown):
		return nil, problem(http.StatusNotFound, "there is nobody of that name in a backend that can be looked up")
	case errors.Is(err, users.ErrRefused):
		return nil, problem(http.StatusConflict, "the account is disabled")
	case err != nil:
		return nil, fmt.Errorf("%w: %w", issuer.ErrUnavailable, err)
	default:
		t.Owner, t.Backend = o.Name, o.Backend
	}
	switch have, err := a.Store.AccessTokensOf(ctx, store.Owner{Backend: t.Backend, Name: t.Owner}, "", mostTokens); {
	case err != nil:
		return nil, err
	case len(have) == mostTokens:
		return nil, problem(http.StatusConflict, fmt.Sprintf("there are %d tokens already; end some first", mostTokens))
	}
	secret, hash, shown := users.NewAccessToken()
	t.Shown = shown
	switch err := a.Store.AddAccessToken(ctx, hash, t); {
	case errors.Is(err, users.ErrConflict):
		return nil, problem(http.StatusConflict, "there is a token of that name already")
	case err != nil:
		return nil, err
	}
	if err := a.changed(ctx, who, "create-token", "tokens/"+t.Owner+"/"+t.ID); err != nil {
		return nil, err
	}
	out := &madeToken{Location: Prefix + "/users/" + url.PathEscape(t.Owner) + "/tokens/" + t.ID}
	out.Body.Token, out.Body.Secret = showToken(t), secret
	return out, nil
}

// within tells whether a new token goes beyond the credential that it is made with: in what it may do, from where it can
// be used, and for how long. A password has no such limits.
func within(t users.AccessToken, who users.Principal) error {
	if who.Scopes != nil && (t.Scopes == nil || slices.ContainsFunc(t.Scopes, func(s string) bool { return !slices.Contains(who.Scopes, s) })) {
		return problem(http.StatusForbidden, "scopes: a token that is made with a token that has scopes has some of these, as they are written there")
	}
	covered := func(n netip.Prefix) bool {
		return slices.ContainsFunc(who.Networks, func(w netip.Prefix) bool { return w.Bits() <= n.Bits() && w.Contains(n.Addr()) })
	}
	if len(who.Networks) > 0 && (len(t.Networks) == 0 || slices.ContainsFunc(t.Networks, func(n netip.Prefix) bool { return !covered(n) })) {
		return problem(http.StatusForbidden, "networks: a token that is made with a token that has networks can be used from within these only")
	}
	if !who.Expires.IsZero() && (t.Expires.IsZero() || t.Expires.After(who.Expires)) {
		return problem(http.StatusForbidden, "lifetime: a token that is made with a token does not outlive it")
	}
	return nil
}

// lifetime reads 90d, 12h or never.
func lifetime(s string, now time.Time) (expires time.Time, ok bool) {
	if s == "never" {
		return time.Time{}, true
	}
	unit := time.Hour
	digits, days := strings.CutSuffix(s, "d")
	if days {
		unit = 24 * time.Hour
	} else {
		digits = strings.TrimSuffix(s, "h")
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	d := time.Duration(n) * unit
	return now.Add(d), err == nil && 0 < d && d <= maxLifetime
}
