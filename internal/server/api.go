package server

import (
	"context"
	"net/http"
	"strings"

	"authserver/internal/issuer"
)

const apiPath = "/api/"

// api hands a request to the room of that name.
func (s *server) api(w http.ResponseWriter, r *http.Request) {
	if s.API == nil {
		s.fail(w, r, http.StatusNotFound, problem{message: "there is no API here: it needs a database, and database.url is none"})
		return
	}
	request := issuer.Request{ID: requestID(r.Context()), Grant: issuer.GrantUnknown}
	client, err := s.clientAddr(r)
	if err != nil {
		s.fail(w, r, http.StatusBadRequest, problem{message: err.Error()})
		return
	}
	request.Client = client
	if p := basicCredentials(&request, r, nil); p != nil {
		s.fail(w, r, p.status, *p)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	s.API.Serve(w, r.WithContext(ctx), request)
}

// apiAnswer is the form of errors below /api/ (RFC 9457).
type apiAnswer struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

func isAPI(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, apiPath) }
