package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"authserver/internal/issuer"
)

// The OAuth2 endpoints beside the token endpoint.
const (
	revokePath     = "/revoke"
	introspectPath = "/introspect"
	metadataPath   = "/.well-known/oauth-authorization-server"
)

// maxToken bounds a token that is asked about, in bytes: a signed one with a hundred resources fits.
const maxToken = 32 << 10

// revoke answers RFC 7009. Clients are not known here, so to have a token in hand is the right to end it; the answer is
// the same whether there was one.
func (s *server) revoke(w http.ResponseWriter, r *http.Request) {
	request, token, p := s.tokenInHand(w, r)
	if p == nil {
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		if err := s.Issuer.Revoke(ctx, request, token); err != nil {
			p = new(refusal(request, err))
		}
	}
	if p != nil {
		s.fail(w, r, p.status, *p)
		return
	}
	write(w, http.StatusOK, struct{}{})
}

// introspect answers RFC 7662, to whom the policy grants it.
func (s *server) introspect(w http.ResponseWriter, r *http.Request) {
	request, token, p := s.tokenInHand(w, r)
	if p == nil {
		p = basicCredentials(&request, r, nil)
	}
	if p != nil {
		s.fail(w, r, p.status, *p)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	answer, err := s.Issuer.Introspect(ctx, request, token)
	if err != nil {
		p := refusal(request, err)
		s.fail(w, r, p.status, p)
		return
	}
	write(w, http.StatusOK, answer)
}

// tokenInHand reads the form of both.
func (s *server) tokenInHand(w http.ResponseWriter, r *http.Request) (issuer.Request, string, *problem) {
	request := issuer.Request{ID: requestID(r.Context()), Grant: issuer.GrantUnknown}
	client, err := s.clientAddr(r)
	if err != nil {
		return request, "", badRequest("invalid_request", err.Error())
	}
	request.Client = client
	form, p := readForm(w, r)
	if p != nil {
		return request, "", p
	}
	token, p := form.one("token")
	switch {
	case p != nil:
		return request, "", p
	case token == "":
		return request, "", badRequest("invalid_request", "token is missing")
	case len(token) > maxToken:
		return request, "", badRequest("invalid_request", "token is longer than any that is given out here")
	}
	return request, token, nil
}

// metadata is RFC 8414 §2. issuer is our address, as the RFC wants it; iss in tokens is what registries are told.
func metadata(publicURL string, refresh bool) ([]byte, error) {
	grants := []string{"password"}
	if refresh {
		grants = append(grants, "refresh_token")
	}
	return json.MarshalIndent(map[string]any{
		"issuer":                                        publicURL,
		"token_endpoint":                                publicURL + tokenPaths[0],
		"jwks_uri":                                      publicURL + jwksPath,
		"revocation_endpoint":                           publicURL + revokePath,
		"introspection_endpoint":                        publicURL + introspectPath,
		"grant_types_supported":                         grants,
		"response_types_supported":                      []string{},
		"token_endpoint_auth_methods_supported":         []string{"none"},
		"revocation_endpoint_auth_methods_supported":    []string{"none"},
		"introspection_endpoint_auth_methods_supported": []string{"client_secret_basic"},
		"scopes_supported":                              []string{"repository:NAME:ACTIONS", "registry:catalog:*"},
	}, "", "  ")
}

func (s *server) metadata(w http.ResponseWriter, r *http.Request) {
	body, err := metadata(s.PublicURL, s.Refresh)
	if err != nil {
		p := refusal(issuer.Request{}, err)
		s.fail(w, r, p.status, p)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=60")
	_, _ = w.Write(body)
}

// refusals of what is not a token request.
func oauthRefusal(err error) (problem, bool) {
	switch {
	case errors.Is(err, issuer.ErrForbidden):
		return problem{status: http.StatusForbidden, code: "DENIED", oauth: "access_denied", err: err, message: "the policy does not grant this to you"}, true
	case errors.Is(err, issuer.ErrCannotRevoke):
		return problem{status: http.StatusBadRequest, code: "UNSUPPORTED", oauth: "unsupported_token_type", err: err,
			message: "a signed token cannot be called back; it ends with its lifetime"}, true
	}
	return problem{}, false
}
