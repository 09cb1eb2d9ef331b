package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"authserver/internal/issuer"
	"authserver/internal/users"
)

// problem is an answer other than success (RFC 9457). What the log reads is never in it.
func problem(status int, detail string) *huma.ErrorModel {
	return &huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail}
}

var (
	errNoSuchName = problem(http.StatusNotFound, "there is none of that name")
	errNarrow     = problem(http.StatusForbidden, "an access token with scopes or networks sets no passwords")
)

const somethingWrong = "something went wrong here; the operator finds it in the log under this request's id"

// problemOf is what a client is told about an error; otherwise is the status of one that is not known.
func (a *API) problemOf(ctx context.Context, err error, otherwise int) *huma.ErrorModel {
	var p *huma.ErrorModel
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, issuer.ErrForbidden):
		return problem(http.StatusForbidden, "the policy does not grant this to you")
	case errors.Is(err, users.ErrRefused) && requestOf(ctx).Grant == issuer.GrantAnonymous:
		return problem(http.StatusUnauthorized, issuer.NotLoggedIn)
	case errors.Is(err, users.ErrRefused):
		return problem(http.StatusUnauthorized, "the user name or password is not correct")
	case errors.Is(err, issuer.ErrThrottled):
		return problem(http.StatusTooManyRequests, "too many wrong passwords; try again later")
	case errors.Is(err, users.ErrNotFound):
		return errNoSuchName
	case errors.Is(err, users.ErrChanged):
		return problem(http.StatusPreconditionFailed, "it has been changed meanwhile; read it again")
	}
	a.Log.Error("the API could not answer", "id", requestOf(ctx).ID, "operation", requestOf(ctx).Operation, "error", err.Error())
	if errors.Is(err, issuer.ErrUnavailable) || otherwise == http.StatusServiceUnavailable {
		return problem(http.StatusServiceUnavailable, "this cannot be answered at the moment; try again")
	}
	return problem(otherwise, somethingWrong)
}

// finish completes every answer of an operation.
func (a *API) finish(ctx huma.Context, _ string, v any) (any, error) {
	p, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	finished := *p
	finished.Errors = nil
	for _, e := range p.Errors {
		if e != nil { // what was sent is not sent back: it may hold a password
			finished.Errors = append(finished.Errors, &huma.ErrorDetail{Message: e.Message, Location: e.Location})
		}
	}
	a.headers(ctx.SetHeader, p.Status)
	return &finished, nil
}

func (a *API) headers(set func(name, value string), status int) {
	switch status {
	case http.StatusUnauthorized:
		set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q, charset=\"UTF-8\"", a.Realm))
	case http.StatusTooManyRequests:
		set("Retry-After", "30") // one of ten tries in the five minutes of the defaults
	case http.StatusServiceUnavailable:
		set("Retry-After", "5")
	}
}

// answer writes a problem outside of an operation.
func (a *API) answer(w http.ResponseWriter, _ *http.Request, p *huma.ErrorModel) {
	a.headers(w.Header().Set, p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}
