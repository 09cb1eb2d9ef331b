package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"authserver/internal/issuer"
	"authserver/internal/users"
)

// backend is where the accounts are that the API can change.
const backend = "database"

// account is what is shown of an account; never its password's hash.
type account struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind" enum:"user,robot"`
	Disabled bool      `json:"disabled"`
	Groups   []string  `json:"groups" nullable:"false" doc:"of the database"`
	Created  time.Time `json:"created"`
	Changed  time.Time `json:"changed" doc:"of anything but groups"`
}

func show(a users.Account) account {
	return account{Name: a.Name, Kind: string(a.Kind), Disabled: a.Disabled, Groups: append([]string{}, a.Groups...), Created: a.Created, Changed: a.Changed}
}

type oneAccount struct {
	ETag     string `header:"ETag" doc:"for If-Match; groups are not a part of it"`
	Location string `header:"Location"`
	Body     account
}

// etag names a version of an account.
func etag(a users.Account) string { return `"` + strconv.FormatInt(a.Changed.UnixMicro(), 36) + `"` }

// Named is a request about an account.
type Named struct {
	Name string `path:"name" maxLength:"255"`
}

// Version is a request about one version of an account.
type Version struct {
	Named
	IfMatch string `header:"If-Match" maxLength:"1024" doc:"ETag of the account, or *; needed"`
}

type done struct{}

func (a *API) userOperations() {
	register(a, operation{id: "list-users", method: http.MethodGet, path: "/users", summary: "Accounts of the database, by name", resource: "users", action: "read"}, a.listUsers)
	register(a, operation{id: "add-user", method: http.MethodPost, path: "/users", summary: "Make a user, or a robot", status: http.StatusCreated}, a.addUser)
	register(a, operation{id: "show-user", method: http.MethodGet, path: "/users/{name}", summary: "One account", resource: "users/{name}", action: "read"},
		func(ctx context.Context, in *Named) (*oneAccount, error) {
			account, err := a.account(ctx, in.Name)
			return &oneAccount{ETag: etag(account), Body: show(account)}, err
		})
	register(a, operation{id: "change-user", method: http.MethodPatch, path: "/users/{name}", summary: "Lock an account out, or let it in again", resource: "users/{name}", action: "write"}, a.changeUser)
	register(a, operation{id: "remove-user", method: http.MethodDelete, path: "/users/{name}", summary: "Remove an account and its tokens", resource: "users/{name}", action: "write", status: http.StatusNoContent}, a.removeUser)
	register(a, operation{id: "set-password", method: http.MethodPut, path: "/users/{name}/password", summary: "Change the password of a user", resource: "users/{name}", action: "write", status: http.StatusNoContent}, a.setPassword)
}

func (a *API) listUsers(ctx context.Context, p *Page) (*list[account], error) {
	accounts, err := a.Store.Accounts(ctx, p.After, p.Limit+1)
	if err != nil || len(accounts) == 0 {
		return paged(*p, nil, nil, show), err
	}
	groups, err := a.Store.GroupsOf(ctx, accounts[0].Name, accounts[len(accounts)-1].Name)
	if err != nil {
		return nil, err
	}
	for i := range accounts {
		accounts[i].Groups = groups[accounts[i].Name]
	}
	return paged(*p, accounts, func(a users.Account) string { return a.Name }, show), nil
}

// account returns the account of the database that a name in a path means. A caller of that name from another backend is
// somebody else, whom a rule about {user} must not take for its owner.
func (a *API) account(ctx context.Context, name string) (users.Account, error) {
	if who := caller(ctx); who.Name == name && who.Backend != backend {
		return users.Account{}, problem(http.StatusNotFound, "your account is not in the database; it is changed where it is")
	}
	return a.Store.Account(ctx, name)
}

// matching is account, for a change that was asked for one version of it.
func (a *API) matching(ctx context.Context, v Version) (users.Account, error) {
	account, err := a.account(ctx, v.Name)
	if err != nil {
		return account, err
	}
	if strings.TrimSpace(v.IfMatch) == "" {
		return account, problem(http.StatusPreconditionRequired, "If-Match is missing: read the account first, and send its ETag")
	}
	for tag := range strings.SplitSeq(v.IfMatch, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || tag == etag(account) {
			return account, nil
		}
	}
	return account, users.ErrChanged
}

var errOneself = problem(http.StatusConflict, "it is your own account; somebody else has to do this")

type newUser struct {
	Body struct {
		Name     string `json:"name" minLength:"1" maxLength:"128" doc:"lower-case letters and digits, joined by single . _ @ or -"`
		Kind     string `json:"kind,omitempty" enum:"user,robot" default:"user" doc:"a robot has no password, only access tokens"`
		Password string `json:"password,omitempty" maxLength:"72" doc:"of a user: at most 72 bytes"`
	}
}

func (a *API) addUser(ctx context.Context, in *newUser) (*oneAccount, error) {
	name, err := users.ParseAccountName(in.Body.Name)
	if err != nil {
		return nil, problem(http.StatusUnprocessableEntity, err.Error())
	}
	who, err := a.Issuer.Authorize(ctx, requestOf(ctx), "users/"+name, "write")
	switch {
	case err != nil:
		return nil, err
	case who.Name == name: // somebody of another backend
		return nil, problem(http.StatusConflict, "the name is taken")
	}
	now := a.Now().UTC().Truncate(time.Microsecond) // as it is stored
	account := users.Account{Name: name, Kind: users.Kind(in.Body.Kind), Created: now, Changed: now}
	if account.Kind == users.KindRobot {
		if in.Body.Password != "" {
			return nil, problem(http.StatusUnprocessableEntity, "a robot has no password")
		}
	} else if err := newPassword(who, in.Body.Password); err != nil {
		return nil, err
	}
	// Whoever has the name in another backend would be, or become, somebody else.
	switch _, _, err := a.Chain.Lookup(ctx, name); {
	case err == nil || errors.Is(err, users.ErrRefused) && !errors.Is(err, users.ErrUnknown):
		return nil, problem(http.StatusConflict, "the name is taken")
	case !errors.Is(err, users.ErrUnknown):
		return nil, fmt.Errorf("%w: %w", issuer.ErrUnavailable, err)
	}
	if account.Kind == users.KindUser {
		if account.Password, err = a.Guard.Hash(ctx, in.Body.Password, a.Cost); err != nil {
			return nil, err
		}
	}
	switch err := a.Store.AddAccount(ctx, account); {
	case errors.Is(err, users.ErrConflict):
		return nil, problem(http.StatusConflict, "the name is taken")
	case err != nil:
		return nil, err
	}
	return &oneAccount{ETag: etag(account), Location: Prefix + "/users/" + url.PathEscape(name), Body: show(account)}, a.changed(ctx, who, "add-user", "users/"+name)
}

// newPassword tells whether who may set such a password. A token that is narrower than its owner must not make what is
// not: a password does all, from everywhere.
func newPassword(who users.Principal, password string) error {
	switch {
	case who.Scopes != nil || len(who.Networks) > 0:
		return errNarrow
	case password == "" || len(password) > users.MaxPasswordLength:
		return problem(http.StatusUnprocessableEntity, fmt.Sprintf("a password has 1 to %d bytes", users.MaxPasswordLength))
	case users.IsAccessToken(password):
		return problem(http.StatusUnprocessableEntity, "a password cannot look like an access token: it would be taken for one")
	}
	return nil
}

type change struct {
	Version
	Body struct {
		Disabled *bool `json:"disabled,omitempty" doc:"true locks it out at once and ends its logins"`
	}
}

func (a *API) changeUser(ctx context.Context, in *change) (*oneAccount, error) {
	who := caller(ctx)
	account, err := a.matching(ctx, in.Version)
	switch {
	case err != nil:
		return nil, err
	case in.Body.Disabled == nil:
		return &oneAccount{ETag: etag(account), Body: show(account)}, nil
	case *in.Body.Disabled && who.Name == in.Name:
		return nil, errOneself
	}
	if err := a.Store.SetDisabledIf(ctx, in.Name, account.Changed, *in.Body.Disabled, a.Now()); err != nil {
		return nil, err
	}
	what := "enable-user"
	if *in.Body.Disabled {
		what = "disable-user"
	}
	if err := a.changed(ctx, who, what, "users/"+in.Name); err != nil {
		return nil, err
	}
	account, err = a.Store.Account(ctx, in.Name)
	return &oneAccount{ETag: etag(account), Body: show(account)}, err
}

func (a *API) removeUser(ctx context.Context, in *Version) (*done, error) {
	who := caller(ctx)
	account, err := a.matching(ctx, *in)
	switch {
	case err != nil:
		return nil, err
	case who.Name == in.Name:
		return nil, errOneself
	}
	if err := a.Store.RemoveAccountIf(ctx, in.Name, account.Changed); err != nil {
		return nil, err
	}
	return nil, a.changed(ctx, who, "remove-user", "users/"+in.Name)
}

type password struct {
	Named
	Body struct {
		Password string `json:"password" minLength:"1" maxLength:"72" doc:"at most 72 bytes"`
	}
}

func (a *API) setPassword(ctx context.Context, in *password) (*done, error) {
	who := caller(ctx)
	own := who.Name == in.Name
	if own && who.Credential != "" {
		return nil, problem(http.StatusForbidden, "your own password is changed with the password that it has, not with an access token")
	}
	if err := newPassword(who, in.Body.Password); err != nil {
		return nil, err
	}
	account, err := a.account(ctx, in.Name)
	switch {
	case err != nil:
		return nil, err
	case account.Kind != users.KindUser:
		return nil, problem(http.StatusConflict, "a robot has no password")
	}
	if own { // an old password that was good when the request came must not undo a new one
		switch _, mark, err := a.Chain.LookupIn(ctx, backend, in.Name); {
		case err != nil:
			return nil, err
		case mark != who.Mark:
			return nil, users.ErrRefused
		}
	}
	hash, err := a.Guard.Hash(ctx, in.Body.Password, a.Cost)
	if err != nil {
		return nil, err
	}
	switch err := a.Store.SetPasswordIf(ctx, in.Name, account.Changed, hash, a.Now()); {
	case errors.Is(err, users.ErrChanged):
		return nil, problem(http.StatusConflict, "the account has been changed meanwhile")
	case err != nil:
		return nil, err
	}
	return nil, a.changed(ctx, who, "set-password", "users/"+in.Name)
}
