// Package issuer mints: authenticate, decide, record, sign, in one function. It also keeps the signing keys, their
// certificates and the JWKS.
//
// It knows no HTTP and no policy language. Whoever decides and whoever authenticates is handed in.
package issuer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"authserver/internal/audit"
	"authserver/internal/scope"
	"authserver/internal/users"
)

// Authenticator says who presents credentials. Its errors are users.ErrRefused, or mean that it cannot say.
type Authenticator interface {
	Authenticate(ctx context.Context, c users.Credentials) (users.Principal, error)
}

// Decider says what a principal may do of what is asked. The issuer intersects its answer with what was asked.
type Decider interface {
	Decide(who users.Principal, from netip.Addr, service string, now time.Time, asked scope.Set) (scope.Set, []scope.Verdict)
}

// Reviewer has the last word on what a policy grants: it can take away, not add.
type Reviewer interface {
	// Review returns what of r.Granted may be granted. An error means that it cannot say.
	Review(ctx context.Context, r Review) (scope.Set, error)
}

// Review is what a Reviewer is asked.
type Review struct {
	ID      string // of the HTTP request
	Time    time.Time
	Who     users.Principal
	From    netip.Addr // the zero Addr when it is not known
	Service string
	Asked   scope.Set
	Granted scope.Set
}

// ReviewerName stands in verdicts and records among the rules that deny.
const ReviewerName = "acl.webhook"

// Logins are what clients keep instead of a password: refresh tokens.
type Logins interface {
	// Begin gives a token to who has just logged in, or "" when there is none for such a login.
	Begin(ctx context.Context, who users.Principal, service, client string, now time.Time) (string, error)
	// Redeem tells who a token stands for. Its errors are those of an Authenticator.
	Redeem(ctx context.Context, token, service string, now time.Time) (users.Principal, error)
}

// Recorder keeps the record of decisions. When it fails there is no token.
type Recorder interface {
	Record(audit.Event) error
}

// Grants: how a request was made. They label logs and metrics.
const (
	GrantAnonymous = "anonymous"
	GrantBasic     = "basic"    // GET with Basic authentication (Distribution's token.md)
	GrantPassword  = "password" // POST, RFC 6749 §4.3
	GrantRefresh   = "refresh_token"
	GrantUnknown   = "unknown"
)

// Request asks for one token.
type Request struct {
	ID      string // of the HTTP request
	Grant   string
	Service string // "" = the first service
	// Credentials nil means that none were sent: the anonymous principal. BadCredentials says why what was sent cannot
	// be credentials; then the answer is a refusal, never anonymous.
	Credentials    *users.Credentials
	RefreshToken   string // instead of Credentials
	BadCredentials string
	Offline        bool   // it asks for a refresh token
	ClientName     string // client_id, as the client says
	Account        string // whom the client says it is; must be who it is when not empty
	Asked          scope.Set
	Dropped        int // scopes that could not be read
	Client         netip.Addr
	Operation      string // of the API, for the record
}

// Result is what became of a request. Without a token it still says what is known of the request.
type Result struct {
	Token     string
	ID        string // jti
	ExpiresIn time.Duration
	Granted   scope.Set
	Verdicts  []scope.Verdict
	Service   string // "" when it is not one of ours
	Outcome   string // one of audit's

	RefreshToken string // "" = none
	RefreshErr   error  // why there is none although it was asked for: the login holds without
}

// NotLoggedIn is what somebody is told who has to log in and sent no Authorization header.
const NotLoggedIn = "log in: no user name and password came in the Authorization header"

// Errors of Issue beside users.ErrRefused. Anything else is our own fault.
var (
	ErrUnknownService = errors.New("unknown service")
	ErrAccount        = fmt.Errorf("%w: account is not who the credentials are", users.ErrRefused)
	ErrBadCredentials = fmt.Errorf("%w: not credentials", users.ErrRefused)
	ErrTooLarge       = errors.New("the token would be too large")
	ErrThrottled      = errors.New("held back")                          // a *users.Later says for how long
	ErrUnavailable    = errors.New("cannot say")                         // who it is
	ErrUndecided      = fmt.Errorf("%w what is granted", ErrUnavailable) // what it may do
)

// Config is what an Issuer is made of. All fields but Reviewer, Logins, Opaque, Now and Random must be set.
type Config struct {
	Services []Service // the first is meant when a request names none
	Keyring  *Keyring
	Users    Authenticator
	Policy   Decider
	Reviewer Reviewer     // nil = the policy has the last word
	Logins   Logins       // nil = there are no refresh tokens
	Opaque   OpaqueTokens // nil = there are no access and refresh tokens
	Audit    Recorder
	Now      func() time.Time // nil = time.Now
	Random   io.Reader        // nil = crypto/rand
}

// Issuer is immutable and safe for concurrent use; a reload makes a new one.
type Issuer struct {
	services map[string]Service
	order    []string
	ring     *Keyring
	users    Authenticator
	policy   Decider
	reviewer Reviewer
	logins   Logins
	opaque   OpaqueTokens
	audit    Recorder
	now      func() time.Time
	random   io.Reader
}

// New returns an issuer whose tokens its services' registries accept: one of each was minted and verified.
func New(c Config) (*Issuer, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	i := &Issuer{services: map[string]Service{}, ring: c.Keyring, users: c.Users, policy: c.Policy, reviewer: c.Reviewer, logins: c.Logins, opaque: c.Opaque, audit: c.Audit, now: c.Now, random: c.Random}
	for _, s := range c.Services {
		if c.Keyring.For(s.Name) == nil {
			return nil, fmt.Errorf("service %q has no key", s.Name)
		}
		i.services[s.Name] = s
		i.order = append(i.order, s.Name)
	}
	if len(i.order) == 0 {
		return nil, errors.New("an issuer needs a service")
	}
	if err := i.selfCheck(); err != nil {
		return nil, err
	}
	return i, nil
}

// Keyring returns the keys that tokens are signed with.
func (i *Issuer) Keyring() *Keyring { return i.ring }

// Issue is the one way to a token. It authenticates, decides, intersects with what was asked, records, and signs, in
// this order; whatever goes wrong on the way, there is no token, and the record says so.
func (i *Issuer) Issue(ctx context.Context, r Request) (Result, error) {
	event := i.event(r, "token")
	now := event.Time
	var result Result
	fail := func(outcome string, err error) (Result, error) {
		result.Outcome, event.Outcome, event.Reason = outcome, outcome, err.Error()
		// The answer is no already; a record that fails cannot make it more so.
		return result, errors.Join(err, i.record(ctx, event))
	}

	service, err := i.service(r.Service)
	if err != nil {
		return fail(audit.Invalid, fmt.Errorf("%w %.128q", err, r.Service)) // quoted: a client wrote it
	}
	result.Service, event.Service = service.Name, service.Name

	who, err := i.authenticate(ctx, r, service.Name, now)
	if err != nil {
		return fail(outcomeOf(err), err)
	}
	event.Principal, event.Kind, event.Backend, event.Using = who.Name, string(who.Kind), who.Backend, who.Credential

	granted, verdicts, err := i.decide(ctx, r, who, service.Name, now)
	if err != nil {
		return fail(audit.Unavailable, fmt.Errorf("%w: %w", ErrUndecided, err))
	}
	result.Granted, result.Verdicts = granted, verdicts

	key := i.ring.For(service.Name)
	token, jti, err := i.sign(ctx, service, key, who.Name, granted, now)
	switch {
	case err != nil:
		return fail(audit.Failed, err)
	case len(token) > maxToken:
		return fail(audit.Invalid, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(token), maxToken))
	}
	result.Outcome = outcome(r.Asked, granted)
	event.Outcome, event.Granted, event.TokenID, event.KeyID = result.Outcome, granted.String(), jti, key.ID
	event.AllowedBy, event.DeniedBy, event.Failed = rules(verdicts)
	refresh := ""
	if r.Offline && i.logins != nil {
		if refresh, result.RefreshErr = i.logins.Begin(ctx, who, service.Name, r.ClientName, now); result.RefreshErr != nil {
			refresh = ""
		}
		event.Refresh = refresh != ""
	}
	// A token that nobody knows of is not handed out.
	if err := i.record(ctx, event); err != nil {
		result.Outcome = audit.Failed
		return result, err
	}
	result.Token, result.ID, result.ExpiresIn, result.RefreshToken = token, jti, service.Lifetime, refresh
	return result, nil
}

// event begins the record of a request: what the client says.
func (i *Issuer) event(r Request, kind string) audit.Event {
	event := audit.Event{
		Time: i.now(), Event: kind, RequestID: r.ID, Grant: r.Grant,
		Asked: r.Asked.String(), Dropped: r.Dropped, Operation: r.Operation,
	}
	if r.Client.IsValid() {
		event.Client = r.Client.String()
	}
	if r.Credentials != nil {
		event.Principal = r.Credentials.Username
		if users.IsAccessToken(event.Principal) || users.IsRefreshToken(event.Principal) { // typed into the wrong field: the record is no place for it
			event.Principal = event.Principal[:5] + "…"
		}
	}
	return event
}

// service returns the audience; only those listed can be named. A registry whose verifier ignores aud (zot) would
// otherwise take a token that was asked for a registry of the asker's own.
func (i *Issuer) service(name string) (Service, error) {
	if name == "" {
		name = i.order[0]
	}
	s, ok := i.services[name]
	if !ok {
		return Service{}, ErrUnknownService
	}
	return s, nil
}

// outcomeOf is what the record calls an error.
func outcomeOf(err error) string {
	switch {
	case errors.Is(err, users.ErrRefused):
		return audit.Refused
	case errors.Is(err, ErrForbidden):
		return audit.Denied
	case errors.Is(err, ErrThrottled):
		return audit.Throttled
	}
	return audit.Unavailable
}

// principal is who asks.
func (i *Issuer) principal(ctx context.Context, r Request, service string, now time.Time) (users.Principal, error) {
	who, err := i.identity(ctx, r, service, now)
	var later *users.Later
	switch {
	case err == nil || errors.Is(err, users.ErrRefused):
		return who, err
	case errors.As(err, &later) && later.Throttled():
		return users.Principal{}, fmt.Errorf("%w: %w", ErrThrottled, err)
	}
	return users.Principal{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// identity tells who asks. Only a request without any trace of credentials is anonymous.
func (i *Issuer) identity(ctx context.Context, r Request, service string, now time.Time) (users.Principal, error) {
	if r.BadCredentials != "" {
		return users.Principal{}, fmt.Errorf("%w: %s", ErrBadCredentials, r.BadCredentials)
	}
	who := users.Anonymous()
	if r.Credentials != nil || r.RefreshToken != "" {
		var err error
		switch {
		case r.RefreshToken == "":
			given := *r.Credentials
			given.From = r.Client
			who, err = i.users.Authenticate(ctx, given)
		case i.logins == nil:
			err = fmt.Errorf("%w: refresh tokens are not given out here", ErrBadCredentials)
		default:
			who, err = i.logins.Redeem(ctx, r.RefreshToken, service, now)
		}
		if err != nil {
			return users.Principal{}, err
		}
		if who.Name == "" || who.Kind == users.KindAnonymous { // a backend's mistake must not make one of ours
			return users.Principal{}, users.ErrRefused
		}
	}
	if r.Account != "" {
		if account, err := users.ParseName(r.Account); err != nil || account != who.Name {
			return users.Principal{}, ErrAccount
		}
	}
	return who, nil
}

// verdict is what the policy, and then the reviewer, grant of what was asked.
func (i *Issuer) verdict(ctx context.Context, r Request, who users.Principal, service string, now time.Time) (scope.Set, []scope.Verdict, error) {
	granted, verdicts := i.policy.Decide(who, r.Client, service, now, r.Asked)
	granted = r.Asked.Intersect(granted)
	if i.reviewer == nil || len(granted) == 0 {
		return granted, verdicts, nil
	}
	left, err := i.reviewer.Review(ctx, Review{
		ID: r.ID, Time: now, Who: who, From: r.Client, Service: service, Asked: r.Asked, Granted: granted,
	})
	if err != nil {
		return nil, nil, err
	}
	left = granted.Intersect(left)
	for n := range verdicts {
		v := &verdicts[n]
		if v.Granted && !slices.Contains(left.Find(v.Type, v.Name), v.Action) {
			v.Granted, v.DeniedBy = false, append(v.DeniedBy, ReviewerName)
		}
	}
	return left, verdicts, nil
}

// outcome compares what was asked with what was granted.
func outcome(asked, granted scope.Set) string {
	switch {
	case asked.Within(granted):
		return audit.Granted
	case len(granted) == 0:
		return audit.Denied
	}
	return audit.Partial
}

// mostRules bounds each list of rules in a record: a line must fit into what collects logs. "…" stands for the others.
const mostRules = 32

// rules lists the names of the rules that decided, each once.
func rules(verdicts []scope.Verdict) (allowed, denied, failed []string) {
	add := func(list, names []string) []string {
		for _, n := range names {
			switch {
			case slices.Contains(list, n):
			case len(list) < mostRules:
				list = append(list, n)
			case len(list) == mostRules:
				list = append(list, "…")
			}
		}
		return list
	}
	for _, v := range verdicts {
		allowed, denied, failed = add(allowed, v.AllowedBy), add(denied, v.DeniedBy), add(failed, v.Failed)
	}
	return allowed, denied, failed
}
