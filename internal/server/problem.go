package server

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"
)

// problem is an answer other than 200. message is what the client reads, err what the log reads; they never mix.
type problem struct {
	status  int
	code    string // Distribution's error codes (registry/api/errcode)
	oauth   string // RFC 6749 §5.2
	message string
	err     error
	retry   time.Duration // when a client may come again; 0 = the usual time, where the status has one
}

const usualRetry = 5 * time.Second

func badRequest(oauth, message string) *problem {
	return &problem{status: http.StatusBadRequest, code: "UNSUPPORTED", oauth: oauth, message: message}
}

// errorAnswer is both error forms in one body: clients of registries print errors[].message, OAuth2 libraries
// error_description.
type errorAnswer struct {
	Errors      []errorEntry `json:"errors"`
	Error       string       `json:"error"`
	Description string       `json:"error_description"`
}

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail"`
}

// fail writes every answer that is not 200.
func (s *server) fail(w http.ResponseWriter, r *http.Request, status int, p problem) {
	level := slog.LevelInfo
	switch {
	case status >= 500 && p.retry == 0:
		level = slog.LevelError
	case status >= 500: // busy, not broken
		level = slog.LevelWarn
	}
	attributes := []any{"status", status, "method", r.Method, "path", cut(r.URL.Path), "answer", p.message}
	if p.err != nil {
		attributes = append(attributes, "error", p.err.Error())
	}
	s.log(r).Log(r.Context(), level, "request refused", attributes...)
	switch status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q, charset=\"UTF-8\"", s.Realm))
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		retry := p.retry
		if retry == 0 {
			retry = usualRetry
		}
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(retry.Seconds()))))
	}
	if isAPI(r) {
		writeAs(w, status, "application/problem+json", apiAnswer{http.StatusText(status), status, p.message})
		return
	}
	write(w, status, errorAnswer{
		Errors:      []errorEntry{{Code: p.code, Message: p.message}},
		Error:       p.oauth,
		Description: p.message,
	})
}
