package issuer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"authserver/internal/audit"
	"authserver/internal/scope"
	"authserver/internal/users"
)

// OpaqueTokens knows access and refresh tokens that are in somebody's hand.
type OpaqueTokens interface {
	Revoke(ctx context.Context, token string) (users.OpaqueToken, error)
	Describe(ctx context.Context, token string, now time.Time) (users.OpaqueToken, error)
}

// Errors of what is not a token request.
var (
	ErrForbidden = errors.New("the policy does not grant it")
	// ErrCannotRevoke is for tokens that registries verify by themselves: they end with their lifetime.
	ErrCannotRevoke = errors.New("a signed token cannot be called back")
)

// The resource that administration is about: authserver:NAME in a policy.
const administration = "authserver"

// Authorize tells who asks, and whether the policy grants an action on authserver:NAME. It records, as Issue does; there is
// nothing that nobody in particular may do.
func (i *Issuer) Authorize(ctx context.Context, r Request, name, action string) (users.Principal, error) {
	r.Asked = scope.Canonical(scope.Access{Type: administration, Name: name, Actions: []string{action}})
	event := i.event(r, "api")
	who, err := i.authorize(ctx, r, &event)
	return i.recorded(who, err, event, r.Asked.String())
}

// Identify tells who asks, and does not ask the policy. It records, as Authorize does.
func (i *Issuer) Identify(ctx context.Context, r Request) (users.Principal, error) {
	event := i.event(r, "api")
	who, err := i.identify(ctx, r, &event)
	return i.recorded(who, err, event, "")
}

func (i *Issuer) recorded(who users.Principal, err error, event audit.Event, granted string) (users.Principal, error) {
	if err == nil {
		event.Outcome, event.Granted = audit.Granted, granted
		return who, i.audit.Record(event)
	}
	event.Outcome, event.Reason = outcomeOf(err), err.Error()
	return users.Principal{}, errors.Join(err, i.audit.Record(event))
}

func (i *Issuer) identify(ctx context.Context, r Request, event *audit.Event) (users.Principal, error) {
	if r.Credentials == nil && r.BadCredentials == "" {
		return users.Principal{}, fmt.Errorf("%w: none were sent", ErrBadCredentials)
	}
	who, err := i.authenticate(ctx, r, "", event.Time)
	if err != nil {
		return users.Principal{}, err
	}
	event.Principal, event.Kind, event.Backend, event.Using = who.Name, string(who.Kind), who.Backend, who.Credential
	return who, nil
}

func (i *Issuer) authorize(ctx context.Context, r Request, event *audit.Event) (users.Principal, error) {
	who, err := i.identify(ctx, r, event)
	if err != nil {
		return users.Principal{}, err
	}
	granted, verdicts, err := i.decide(ctx, r, who, "", event.Time)
	if err != nil {
		return users.Principal{}, fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	event.AllowedBy, event.DeniedBy, event.Failed = rules(verdicts)
	if !r.Asked.Within(granted) {
		return users.Principal{}, ErrForbidden
	}
	return who, nil
}

// Revoke ends an access or refresh token (RFC 7009). To have it in hand is the right to end it. It is no error when there is
// no such token.
func (i *Issuer) Revoke(ctx context.Context, r Request, token string) error {
	if strings.Count(token, ".") == 2 {
		return ErrCannotRevoke
	}
	if i.opaque == nil {
		return nil
	}
	t, err := i.opaque.Revoke(ctx, token)
	switch {
	case errors.Is(err, users.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	event := i.event(r, "revoke")
	event.Outcome, event.Principal, event.Using = audit.Granted, t.Owner, strings.ReplaceAll(t.Kind, "_", " ")+" "+t.ID
	return i.audit.Record(event)
}

// Introspection is the answer of RFC 7662 §2.2; all but Active is left out for a token that is not good now.
type Introspection struct {
	Active    bool      `json:"active"`
	Scope     *string   `json:"scope,omitempty"` // left out where the owner's rights are the only limit
	ClientID  string    `json:"client_id,omitempty"`
	Username  string    `json:"username,omitempty"`
	TokenType string    `json:"token_type,omitempty"`
	Expiry    int64     `json:"exp,omitempty"`
	IssuedAt  int64     `json:"iat,omitempty"`
	NotBefore int64     `json:"nbf,omitempty"`
	Subject   string    `json:"sub,omitempty"`
	Audience  string    `json:"aud,omitempty"`
	Issuer    string    `json:"iss,omitempty"`
	ID        string    `json:"jti,omitempty"`
	Access    scope.Set `json:"access,omitempty"`
}

// Introspect says what a token is, to whom the policy grants read on authserver:introspect (RFC 7662).
func (i *Issuer) Introspect(ctx context.Context, r Request, token string) (Introspection, error) {
	if _, err := i.Authorize(ctx, r, "introspect", "read"); err != nil {
		return Introspection{}, err
	}
	now := i.now()
	if strings.Count(token, ".") == 2 {
		return i.introspectSigned(token, now), nil
	}
	if i.opaque == nil {
		return Introspection{}, nil
	}
	t, err := i.opaque.Describe(ctx, token, now)
	switch {
	case errors.Is(err, users.ErrNotFound):
		return Introspection{}, nil
	case err != nil:
		return Introspection{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	answer := Introspection{
		Active: true, ClientID: t.Client, Username: t.Owner, Subject: t.Owner, TokenType: t.Kind, IssuedAt: t.Created.Unix(), Audience: t.Service, ID: t.ID,
	}
	if t.Scopes != nil {
		text := strings.Join(t.Scopes, " ")
		answer.Scope = &text
	}
	if !t.Expires.IsZero() {
		answer.Expiry = t.Expires.Unix()
	}
	return answer, nil
}

func (i *Issuer) introspectSigned(token string, now time.Time) Introspection {
	for _, name := range i.order {
		c, err := verified(i.services[name], i.ring, token, "", now)
		if err != nil {
			continue
		}
		text := c.Access.String()
		return Introspection{
			Active: true, Scope: &text, Username: c.Subject, TokenType: "Bearer", Expiry: c.Expiry, IssuedAt: c.IssuedAt, NotBefore: c.NotBefore,
			Subject: c.Subject, Audience: c.Audience, Issuer: c.Issuer, ID: c.ID, Access: c.Access,
		}
	}
	return Introspection{}
}
