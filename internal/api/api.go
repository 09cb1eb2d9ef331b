// Package api is the face for programs: accounts, groups, access tokens and logins over HTTP, in JSON, with an OpenAPI
// document that is made from the code. It decides nothing: whether somebody may do something is asked of the policy, as
// read or write on authserver:users/NAME, authserver:tokens/OWNER or authserver:groups/NAME.
//
// Who comes with an access token can do nothing here that the token does not allow, and get nothing that outreaches it.
package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/store"
	"authserver/internal/users"
)

// Prefix is what all paths begin with.
const Prefix = "/api/v1"

// Bounds of a request.
const (
	maxBody     = 64 << 10
	mostTokens  = 200 // of one owner
	maxScope    = 512 // bytes
	maxLifetime = 10 * 365 * 24 * time.Hour
)

// Authorizer says who asks and what the policy grants. Both record.
type Authorizer interface {
	Authorize(ctx context.Context, r issuer.Request, name, action string) (users.Principal, error)
	Identify(ctx context.Context, r issuer.Request) (users.Principal, error)
}

// Recorder keeps the record of changes.
type Recorder interface {
	Record(audit.Event) error
}

// Config is what the API is made of. All fields must be set.
type Config struct {
	Issuer    Authorizer
	Store     *store.Store
	Chain     *users.Chain
	Guard     *users.Guard // bounds hashing
	Cost      int          // of new passwords
	Groups    func(users.Principal) []string
	Audit     Recorder
	Realm     string // of the Basic challenge
	PublicURL string
	Log       *slog.Logger
	Now       func() time.Time
}

// API answers below Prefix.
type API struct {
	Config
	router   chi.Router
	huma     huma.API
	document []byte
}

var strict sync.Once

// New makes the API and its document.
func New(c Config) (*API, error) {
	strict.Do(func() { huma.ValidateStrictCasing = true }) // else {"scopes": […], "Scopes": []} is both, and the second counts
	a := &API{Config: c, router: chi.NewRouter()}
	a.router.NotFound(func(w http.ResponseWriter, r *http.Request) {
		a.answer(w, r, problem(http.StatusNotFound, "there is nothing here; "+Prefix+"/openapi.json says what there is"))
	})
	a.router.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", strings.Join(a.allowed(r), ", "))
		a.answer(w, r, problem(http.StatusMethodNotAllowed, "the method is not allowed here; Allow says which are"))
	})
	a.huma = humachi.New(a.router, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "authserver", Version: "1", Description: "Accounts, groups, access tokens and logins.",
				License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}},
			Servers: []*huma.Server{{URL: c.PublicURL}},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"basic": {Type: "http", Scheme: "basic", Description: "A user name with its password or one of its access tokens."},
				},
			},
			Security: []map[string][]string{{"basic": {}}},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{a.finish},
	})
	a.whoamiOperation()
	a.userOperations()
	a.tokenOperations()
	a.groupOperations()
	document, err := json.MarshalIndent(a.huma.OpenAPI(), "", "  ")
	if err != nil {
		return nil, err
	}
	a.document = document
	a.router.Get(Prefix+"/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(a.document)
	})
	return a, nil
}

// allowed are the methods of a path.
func (a *API) allowed(r *http.Request) []string {
	path := r.URL.RawPath
	if path == "" {
		path = r.URL.Path
	}
	var methods []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if a.router.Match(chi.NewRouteContext(), m, path) {
			methods = append(methods, m)
		}
	}
	return methods
}

type contextKey int

const (
	requestKey contextKey = iota
	principalKey
)

// Serve answers a request whose credentials and address have been read.
func (a *API) Serve(w http.ResponseWriter, r *http.Request, request issuer.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	query, err := url.QueryUnescape(r.URL.RawQuery)
	if err != nil || !printable(r.URL.Path) || !printable(query) { // no name holds such a character, and PostgreSQL takes none
		a.answer(w, r, problem(http.StatusBadRequest, "the address holds what is no text"))
		return
	}
	ctx := context.WithValue(r.Context(), requestKey, request)
	ctx = context.WithValue(ctx, chi.RouteCtxKey, (*chi.Context)(nil)) // routes of its own
	a.router.ServeHTTP(w, r.WithContext(ctx))
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func requestOf(ctx context.Context) issuer.Request {
	r, _ := ctx.Value(requestKey).(issuer.Request)
	return r
}

// caller is who asks, in an operation that has a resource.
func caller(ctx context.Context) users.Principal {
	who, _ := ctx.Value(principalKey).(users.Principal)
	return who
}

// operation is one thing that can be done.
type operation struct {
	id, method, path string
	summary          string
	resource, action string // what is asked of the policy; {name} and {group} are the path's. "" = the operation asks by itself
	status           int    // when it is done; 0 = 200
}

// register adds an operation. Nothing of it runs before the policy has granted it, and all of its errors become problems.
func register[I, O any](a *API, op operation, do func(context.Context, *I) (*O, error)) {
	huma.Register(a.huma, huma.Operation{
		OperationID: op.id, Method: op.method, Path: Prefix + op.path, Summary: op.summary, DefaultStatus: op.status,
		Tags: []string{strings.SplitN(op.path, "/", 3)[1]}, MaxBodyBytes: maxBody, BodyReadTimeout: 5 * time.Second,
		Middlewares: huma.Middlewares{a.admit(op)},
	}, func(ctx context.Context, in *I) (*O, error) {
		out, err := do(ctx, in)
		if err != nil {
			return nil, a.problemOf(ctx, err, http.StatusServiceUnavailable) // the database's, when it is nobody else's
		}
		return out, nil
	})
}

// admit stands before an operation.
func (a *API) admit(op operation) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		request := requestOf(ctx.Context())
		request.Operation = op.id
		c := context.WithValue(ctx.Context(), requestKey, request)
		refuse := func(err error) {
			p := a.problemOf(c, err, http.StatusInternalServerError)
			_ = huma.WriteErr(a.huma, ctx, p.Status, p.Detail) // written as far as the client listens
		}
		if request.Credentials == nil {
			// No hash is computed, and no body read, for who cannot be anybody.
			_, err := a.Issuer.Identify(c, request)
			refuse(err)
			return
		}
		if op.resource != "" {
			resource := op.resource
			for _, part := range []string{"name", "group"} {
				if !strings.Contains(resource, "{"+part+"}") {
					continue
				}
				value := ctx.Param(part)
				if name, err := users.ParseName(value); err != nil || name != value { // nobody has such a name, so there is nothing to hide
					_, err := a.Issuer.Identify(c, request)
					if err == nil {
						err = errNoSuchName
					}
					refuse(err)
					return
				}
				resource = strings.ReplaceAll(resource, "{"+part+"}", value)
			}
			who, err := a.Issuer.Authorize(c, request, resource, op.action)
			if err != nil {
				refuse(err)
				return
			}
			c = context.WithValue(c, principalKey, who)
		}
		// A page of somebody else can make a browser send a password that it remembers, but not with this type.
		if ctx.Operation().RequestBody != nil {
			if media, _, err := mime.ParseMediaType(ctx.Header("Content-Type")); err != nil || media != "application/json" {
				refuse(problem(http.StatusUnsupportedMediaType, "the body must be application/json"))
				return
			}
		}
		next(huma.WithContext(ctx, c))
	}
}

// changed records a change that was made; without the record the answer is no success.
func (a *API) changed(ctx context.Context, who users.Principal, what, target string) error {
	r := requestOf(ctx)
	event := audit.Event{
		Time: a.Now(), Event: "change", RequestID: r.ID, Outcome: audit.Granted, Grant: r.Grant, Operation: what, Target: target,
		Principal: who.Name, Kind: string(who.Kind), Backend: who.Backend, Using: who.Credential,
	}
	if r.Client.IsValid() {
		event.Client = r.Client.String()
	}
	if err := a.Audit.Record(event); err != nil {
		a.Log.Error("a change was made and could not be recorded", "id", r.ID, "operation", what, "target", target, "error", err.Error())
		return problem(http.StatusInternalServerError, somethingWrong)
	}
	return nil
}

// Page is what part of a list is asked for. It has a capital because huma reads no embedded struct without one.
type Page struct {
	After string `query:"after" maxLength:"255" doc:"begin behind this one: next of the page before"`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"at most so many"`
}

// list is a part of a list.
type list[T any] struct {
	Body struct {
		Items []T    `json:"items" nullable:"false"`
		Next  string `json:"next,omitempty" doc:"after for the next page; not there on the last"`
	}
}

// paged cuts a list that was asked for one more than the limit.
func paged[T, S any](p Page, found []T, key func(T) string, show func(T) S) *list[S] {
	out := &list[S]{}
	out.Body.Items = make([]S, 0, len(found))
	for i, t := range found {
		if i == p.Limit {
			out.Body.Next = key(found[i-1])
			break
		}
		out.Body.Items = append(out.Body.Items, show(t))
	}
	return out
}

func itself[T any](t T) T { return t }

// whoami is who asks.
type whoami struct {
	Body struct {
		Name       string   `json:"name"`
		Kind       string   `json:"kind" enum:"user,robot"`
		Groups     []string `json:"groups" nullable:"false" doc:"of the backend and of the policy"`
		Backend    string   `json:"backend"`
		Credential string   `json:"credential" doc:"what it came with: password, or an access token by its id"`
		Scopes     []string `json:"scopes" doc:"what the credential may do at most; null is whatever its owner may"`
	}
}

func (a *API) whoamiOperation() {
	register(a, operation{id: "whoami", method: http.MethodGet, path: "/whoami", summary: "Who am I?"},
		func(ctx context.Context, _ *struct{}) (*whoami, error) {
			who, err := a.Issuer.Identify(ctx, requestOf(ctx))
			if err != nil {
				return nil, err
			}
			out := &whoami{}
			b := &out.Body
			b.Name, b.Kind, b.Backend, b.Credential, b.Scopes = who.Name, string(who.Kind), who.Backend, who.Credential, who.Scopes
			b.Groups = append([]string{}, a.Groups(who)...)
			if b.Credential == "" {
				b.Credential = "password"
			}
			return out, nil
		})
}
