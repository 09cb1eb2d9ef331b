package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/scope"
	"authserver/internal/tracing"
	"authserver/internal/users"
)

// token answers GET (Distribution's token.md) and POST (its oauth.md, RFC 6749): they differ in how the request is
// read and in the fields of the answer, in nothing else.
func (s *server) token(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	request, p := s.decode(w, r)
	if p != nil {
		s.Metrics.TokenRequest(request.Grant, "", audit.Invalid, time.Since(start))
		s.fail(w, r, p.status, *p)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	result, err := s.Issuer.Issue(ctx, request)
	s.Metrics.TokenRequest(request.Grant, result.Service, result.Outcome, time.Since(start))
	s.Metrics.Access(result.Verdicts)
	span := tracing.From(ctx)
	span.Set("authserver.grant", request.Grant)
	span.Set("authserver.service", result.Service)
	span.Set("authserver.outcome", result.Outcome)
	for _, v := range result.Verdicts {
		if len(v.Failed) > 0 {
			s.log(r).Warn("the condition of a rule could not be evaluated, so it granted nothing", "rules", v.Failed, "type", v.Type, "name", v.Name, "action", v.Action)
		}
	}
	if err != nil {
		p := refusal(request, err)
		s.fail(w, r, p.status, p)
		return
	}
	if result.RefreshErr != nil {
		s.log(r).Warn("no refresh token could be given; the login holds without", "error", result.RefreshErr.Error())
	}
	answer := tokenAnswer{RefreshToken: result.RefreshToken, Token: result.Token, AccessToken: result.Token, ExpiresIn: int(result.ExpiresIn.Seconds())}
	if r.Method == http.MethodPost {
		granted := result.Granted.String()
		answer.Scope, answer.TokenType = &granted, "Bearer"
	}
	s.Log.Debug("token issued", "id", request.ID, "outcome", result.Outcome, "grant", request.Grant, "service", result.Service, "jti", result.ID)
	write(w, http.StatusOK, answer)
}

// tokenAnswer carries the token under both names: containerd, oras, helm and docker's POST read access_token;
// libvirt-sandbox, watchtower and crane's `auth token` read token. issued_at is left out, so that every client counts
// from its own clock. A client takes a missing expires_in for 60 s.
type tokenAnswer struct {
	Token       string  `json:"token"`
	AccessToken string  `json:"access_token"`
	ExpiresIn   int     `json:"expires_in"`           // seconds
	Scope       *string `json:"scope,omitempty"`      // POST: a string, present even when empty
	TokenType   string  `json:"token_type,omitempty"` // POST: RFC 6749 §5.1
	// RefreshToken only when it was asked for: crane takes one that it did not ask for, and changes its ways.
	RefreshToken string `json:"refresh_token,omitempty"`
}

// refusal is what a client is told about an error of Issue. The error itself goes to the log.
func refusal(r issuer.Request, err error) problem {
	if p, ok := oauthRefusal(err); ok {
		return p
	}
	switch {
	case errors.Is(err, issuer.ErrUnknownService):
		return problem{status: http.StatusBadRequest, code: "UNSUPPORTED", oauth: "invalid_target", err: err,
			message: fmt.Sprintf("service %.64q is not served here; its name must be one of services[].name in authserver.yaml", r.Service)}
	case errors.Is(err, issuer.ErrTooLarge):
		return problem{status: http.StatusBadRequest, code: "UNSUPPORTED", oauth: "invalid_scope", err: err,
			message: "the token would be larger than clients read; ask for fewer scopes at once"}
	case errors.Is(err, issuer.ErrAccount):
		return problem{status: http.StatusUnauthorized, code: "UNAUTHORIZED", oauth: "invalid_grant", err: err,
			message: "the account parameter names somebody else than the credentials"}
	case errors.Is(err, users.ErrRefused) && r.Grant == issuer.GrantAnonymous:
		return problem{status: http.StatusUnauthorized, code: "UNAUTHORIZED", oauth: "invalid_grant", err: err, message: issuer.NotLoggedIn}
	case errors.Is(err, users.ErrRefused):
		// The same words for a wrong password, an unknown user and what is no credential at all.
		return problem{status: http.StatusUnauthorized, code: "UNAUTHORIZED", oauth: "invalid_grant", err: err,
			message: "the user name or password is not correct"}
	case errors.Is(err, issuer.ErrThrottled):
		return problem{status: http.StatusTooManyRequests, code: "TOOMANYREQUESTS", oauth: "temporarily_unavailable", err: err, retry: retryAfter(err),
			message: "too many wrong passwords; try again later"}
	case errors.Is(err, issuer.ErrUndecided):
		return problem{status: http.StatusServiceUnavailable, code: "UNAVAILABLE", oauth: "temporarily_unavailable", err: err,
			message: "what you may do cannot be decided at the moment; try again"}
	case retryAfter(err) > 0:
		return problem{status: http.StatusServiceUnavailable, code: "UNAVAILABLE", oauth: "temporarily_unavailable", err: err, retry: retryAfter(err),
			message: "too many passwords are being checked at the moment; try again"}
	case errors.Is(err, issuer.ErrUnavailable):
		return problem{status: http.StatusServiceUnavailable, code: "UNAVAILABLE", oauth: "temporarily_unavailable", err: err,
			message: "the user directory cannot be asked at the moment; try again"}
	}
	return problem{status: http.StatusInternalServerError, code: "UNKNOWN", oauth: "server_error", err: err,
		message: "something went wrong here; the operator finds it in the log under this request's id"}
}

// retryAfter is what a *users.Later asks for; the zero Duration when there is none.
func retryAfter(err error) time.Duration {
	var later *users.Later
	if errors.As(err, &later) {
		return later.After
	}
	return 0
}

// decode reads a token request. What it returns on a problem has its Grant set.
func (s *server) decode(w http.ResponseWriter, r *http.Request) (issuer.Request, *problem) {
	request := issuer.Request{ID: requestID(r.Context()), Grant: issuer.GrantUnknown}
	client, err := s.clientAddr(r)
	if err != nil {
		return request, badRequest("invalid_request", err.Error())
	}
	request.Client = client
	var params params
	var p *problem
	if r.Method == http.MethodPost {
		if params, p = readForm(w, r); p == nil {
			p = formCredentials(&request, r, params)
		}
	} else {
		if params, p = readQuery(r); p == nil {
			p = basicCredentials(&request, r, params)
		}
		if p == nil && request.Grant == issuer.GrantAnonymous && hasBody(r) { // curl -X GET -d, or what a redirect left of a POST
			request.BadCredentials = "a body, which is not read on GET; credentials belong into the Authorization header"
		}
	}
	if p != nil {
		return request, p
	}
	if request.Service, p = params.one("service"); p != nil {
		return request, p
	}
	if request.Account, p = params.one("account"); p != nil {
		return request, p
	}
	if request.ClientName, p = params.one("client_id"); p != nil {
		return request, p
	}
	request.ClientName = printable(cut(request.ClientName))
	asked, dropped, err := scope.Parse(params["scope"])
	if err != nil {
		return request, badRequest("invalid_scope", err.Error())
	}
	request.Asked, request.Dropped = asked, len(dropped)
	if len(dropped) > 0 {
		s.Metrics.ScopesDropped(len(dropped))
		s.log(r).Info("scopes dropped that cannot be read", "count", len(dropped), "first", cut(dropped[0]))
	}
	return request, nil
}

// cut bounds what a client wrote before it is logged.
func cut(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// printable is text that can be kept: PostgreSQL takes neither NUL nor what is not UTF-8, and nobody reads control characters.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r // utf8.RuneError for each byte that is not UTF-8
	}, s)
}

type params url.Values

// one returns a parameter that may stand once (RFC 6749 §3.2). Two different values are refused: the registry, a proxy
// and we must not each believe another one.
func (p params) one(name string) (string, *problem) {
	values := p[name]
	for _, v := range values {
		if v != values[0] {
			return "", badRequest("invalid_request", "the parameter "+name+" was sent with different values")
		}
	}
	if len(values) == 0 {
		return "", nil
	}
	return values[0], nil
}

// hasBody tells whether anything follows the headers. HTTP/2 and proxies send bodies of unknown length that are empty.
func hasBody(r *http.Request) bool {
	if r.ContentLength == 0 {
		return false
	}
	_, err := io.ReadFull(r.Body, make([]byte, 1))
	return !errors.Is(err, io.EOF)
}

func readQuery(r *http.Request) (params, *problem) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("invalid_request", "the query cannot be read")
	}
	return params(values), nil
}

// readForm reads a form of bounded size, with or without Content-Length (podman and skopeo send it chunked).
func readForm(w http.ResponseWriter, r *http.Request) (params, *problem) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return nil, &problem{status: http.StatusUnsupportedMediaType, code: "UNSUPPORTED", oauth: "invalid_request",
			message: "the body must be application/x-www-form-urlencoded"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &problem{status: http.StatusRequestEntityTooLarge, code: "SIZE_INVALID", oauth: "invalid_request",
			message: fmt.Sprintf("the body is larger than %d bytes", MaxBodyBytes)}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &problem{status: http.StatusRequestTimeout, code: "UNSUPPORTED", oauth: "invalid_request", message: "the body did not arrive in time"}
	case err != nil:
		return nil, badRequest("invalid_request", "the body cannot be read")
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, badRequest("invalid_request", "the body cannot be read as a form")
	}
	return params(values), nil
}

// credentialParameters are where a client that misunderstood us could put a credential on GET.
var credentialParameters = []string{"username", "password", "refresh_token", "access_token", "grant_type"}

// basicCredentials reads a GET. Only a request without any trace of credentials is anonymous. One that asks for a refresh
// token is not: it is a login whose header got lost on the way.
func basicCredentials(request *issuer.Request, r *http.Request, p params) *problem {
	offline, problem := p.one("offline_token")
	if problem != nil {
		return problem
	}
	if len(r.Header.Values("Authorization")) == 0 {
		request.Grant = issuer.GrantAnonymous
		if asked, err := strconv.ParseBool(offline); offline != "" && (asked || err != nil) {
			request.BadCredentials = "offline_token without credentials"
		}
		for _, name := range credentialParameters {
			if len(p[name]) > 0 {
				request.BadCredentials = "credentials in the query; they belong into the Authorization header"
			}
		}
		if r.URL.User != nil {
			request.BadCredentials = "credentials in the address; they belong into the Authorization header"
		}
		return nil
	}
	request.Grant = issuer.GrantBasic
	username, password, ok := r.BasicAuth() // splits at the first colon, RFC 7617 §2
	if !ok || len(r.Header.Values("Authorization")) > 1 {
		request.BadCredentials = "the Authorization header is not Basic"
		return nil
	}
	// BuildKit's first try and containerd's fallback: a refresh token as the password of nobody.
	if username == "" && users.IsRefreshToken(password) {
		request.Grant = issuer.GrantRefresh
		setRefreshToken(request, password)
		return nil
	}
	if asked, err := strconv.ParseBool(offline); err == nil {
		request.Offline = asked
	}
	setCredentials(request, username, password)
	return nil
}

// maxRefreshToken bounds what is taken for a refresh token, in bytes; ours have 54.
const maxRefreshToken = 256

func setRefreshToken(request *issuer.Request, token string) {
	switch {
	case token == "":
		request.BadCredentials = "the refresh token is missing"
	case len(token) > maxRefreshToken:
		request.BadCredentials = "the refresh token is too long to be one"
	default:
		request.RefreshToken = token
	}
}

// formCredentials reads a POST by its grant_type. No grant falls back to anonymous.
func formCredentials(request *issuer.Request, r *http.Request, p params) *problem {
	grant, problem := p.one("grant_type")
	if problem != nil {
		return problem
	}
	switch grant {
	case "password":
		request.Grant = issuer.GrantPassword
	case "refresh_token":
		request.Grant = issuer.GrantRefresh
		token, problem := p.one("refresh_token")
		if problem != nil {
			return problem
		}
		setRefreshToken(request, token)
		return nil
	case "":
		return badRequest("invalid_request", "grant_type is missing")
	default:
		return badRequest("unsupported_grant_type", "the grant type must be password or refresh_token")
	}
	access, problem := p.one("access_type")
	if problem != nil {
		return problem
	}
	request.Offline = access == "offline"
	username, problem := p.one("username")
	if problem != nil {
		return problem
	}
	password, problem := p.one("password")
	if problem != nil {
		return problem
	}
	if len(r.Header.Values("Authorization")) > 0 { // RFC 6749 §2.3: not more than one way to authenticate
		if headerName, headerPassword, ok := r.BasicAuth(); !ok || headerName != username || headerPassword != password || len(r.Header.Values("Authorization")) > 1 {
			request.BadCredentials = "the Authorization header and the form disagree"
			return nil
		}
	}
	setCredentials(request, username, password)
	return nil
}

func setCredentials(request *issuer.Request, username, password string) {
	name, err := users.ParseName(username)
	switch {
	case err != nil:
		request.BadCredentials = err.Error()
	case password == "":
		request.BadCredentials = "the password is empty"
	default:
		request.Credentials = &users.Credentials{Username: name, Password: password}
	}
}

func write(w http.ResponseWriter, status int, body any) { writeAs(w, status, "application/json", body) }

func writeAs(w http.ResponseWriter, status int, media string, body any) {
	data, err := json.Marshal(body)
	if err != nil { // our own types do not fail
		status, data = http.StatusInternalServerError, []byte("{}")
	}
	send(w, status, media, data)
}

func send(w http.ResponseWriter, status int, media string, data []byte) {
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Content-Length", strconv.Itoa(len(data)))
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache") // RFC 6749 §5.1
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}
