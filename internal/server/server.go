// Package server is the face: HTTP in, HTTP out. It decodes what clients of registries really send, hands it to the
// issuer, and encodes the answer in the one form that all of them read. It is the only room that knows status codes.
package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/cors"

	"authserver/internal/issuer"
	"authserver/internal/metrics"
	"authserver/internal/tracing"
)

// Bounds on what one connection may cost. Together with scope's they bound every input; past them the answer is 431,
// 413 or a closed connection.
const (
	MaxHeaderBytes    = 32 << 10 // request line and headers; a full scope takes 24 KiB percent-encoded
	MaxBodyBytes      = 64 << 10
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	answerTimeout     = 12 * time.Second // below the 15 s after which dockerd gives up
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxInFlight       = 2048 // requests under way; with the most that each may send, 200 MB
	maxStreams        = 100  // requests under way on one HTTP/2 connection
)

// Issuer turns a request into a token.
type Issuer interface {
	Issue(ctx context.Context, r issuer.Request) (issuer.Result, error)
	Revoke(ctx context.Context, r issuer.Request, token string) error
	Introspect(ctx context.Context, r issuer.Request, token string) (issuer.Introspection, error)
}

// API answers below /api/, once credentials and address have been read.
type API interface {
	Serve(w http.ResponseWriter, r *http.Request, request issuer.Request)
}

// Config is what the public face is made of. It belongs to one generation of the configuration.
type Config struct {
	Issuer         Issuer
	API            API    // nil = there is none
	JWKS           []byte // answer of /.well-known/jwks.json
	Realm          string // of the Basic challenge
	PublicURL      string
	Refresh        bool // refresh tokens are given
	TrustedProxies []netip.Prefix
	TrustUnix      bool // the peers of a unix socket are trusted proxies too
	CORSOrigins    []string
	Log            *slog.Logger
	Metrics        *metrics.Metrics
	Tracer         *tracing.Tracer // nil = nothing is traced
}

// Paths of the public listener. A registry with `autoredirect` sends clients to /auth/token on its own host.
var tokenPaths = []string{"/token", "/auth/token"}

const jwksPath = "/.well-known/jwks.json"

// New returns the public handler. It never redirects: a redirected POST comes back as an anonymous GET.
func New(c Config) http.Handler {
	s := &server{Config: c}
	r := chi.NewRouter()
	r.Use(s.identify)
	if c.Tracer != nil {
		r.Use(s.trace)
	}
	r.Use(s.recover, s.bound)
	if len(c.CORSOrigins) > 0 { // without a list the library would allow everybody
		r.Use(cors.Handler(cors.Options{
			AllowedOrigins:   c.CORSOrigins,
			AllowedMethods:   []string{http.MethodGet, http.MethodPost},
			AllowedHeaders:   []string{"Authorization", "Content-Type", "Accept"},
			ExposedHeaders:   []string{"WWW-Authenticate", "Retry-After", requestIDHeader},
			AllowCredentials: true,
			MaxAge:           600,
		}))
	}
	for _, path := range tokenPaths {
		r.Get(path, s.token)
		r.Post(path, s.token)
	}
	r.Post(revokePath, s.revoke)
	r.Post(introspectPath, s.introspect)
	r.HandleFunc(apiPath+"*", s.api)
	for path, handler := range map[string]http.HandlerFunc{jwksPath: s.jwks, metadataPath: s.metadata} {
		r.Get(path, handler)
		r.Head(path, handler)
	}
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, http.StatusNotFound, problem{code: "NOT_FOUND", oauth: "invalid_request", message: "there is nothing here; tokens are at /token"})
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		allow := "GET, POST"
		switch r.URL.Path {
		case jwksPath, metadataPath:
			allow = "GET, HEAD"
		case revokePath, introspectPath:
			allow = "POST"
		}
		w.Header().Set("Allow", allow)
		s.fail(w, r, http.StatusMethodNotAllowed, problem{code: "UNSUPPORTED", oauth: "invalid_request", message: "the method is not allowed; use " + strings.ReplaceAll(allow, ", ", " or ")})
	})
	return r
}

type server struct {
	Config
	inFlight atomic.Int64
}

func (s *server) jwks(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=60")
	_, _ = w.Write(s.JWKS)
}

// NewHTTP returns an HTTP server with the time and size limits of a public listener.
func NewHTTP(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // clients that hang up, bad TLS: noise
	}
}
