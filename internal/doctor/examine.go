package doctor

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"authserver/internal/issuer"
)

// Subject is what is examined.
type Subject struct {
	PublicURL string // without a slash at its end
	Running   bool   // somebody listens at server.listen
	Services  []issuer.Service
	Ring      *issuer.Keyring            // nil = the keys cannot be read
	NoKeys    bool                       // they were never made
	Where     func(key string) string    // the place of a key of authserver.yaml
	Registry  string                     // address of a running registry, "" = none
	Stanza    *Stanza                    // what a registry is configured with, nil = not at hand
	User      string                     // who logs in, "" = nobody
	Password  string                     //
	Client    *http.Client               // follows no redirects
	Resolve   func(host string) []string // addresses of a name, none when it has none
	Now       func() time.Time
}

// Wiring examines what is between clients, authserver and the registry, and adds what it finds to a report.
func (s *Subject) Wiring(ctx context.Context, report *Report) {
	e := &examination{Subject: s, report: report}
	e.reach(ctx)
	if s.Stanza != nil {
		e.stanza()
	}
	if s.Registry != "" {
		e.registry(ctx)
	}
	if s.Stanza != nil && s.Stanza.Kind != "" && s.Stanza.Other == "" && !e.challenged {
		e.stanzaRealm()
	}
}

// examination is one run of Wiring.
type examination struct {
	*Subject
	report *Report
	skewed bool // our clock, or the registry's, is wrong

	challenged bool // the registry has said where it sends clients
	// By the registry's configuration: a version that it is written for accepts our tokens; one does not.
	accepted, refused bool
}

func (e *examination) realm() string { return e.PublicURL + "/token" }

// ours tells whether an address is that of our token endpoint.
func (e *examination) ours(realm string) bool {
	return realm == e.PublicURL+"/token" || realm == e.PublicURL+"/auth/token"
}

// service finds a service by its name; i is its place in services[], -1 when it is not listed.
func (e *examination) service(name string) (s issuer.Service, i int) {
	i = slices.IndexFunc(e.Services, func(s issuer.Service) bool { return s.Name == name })
	if i < 0 {
		return issuer.Service{}, i
	}
	return e.Services[i], i
}

// key is the signing key of a service, nil when it is not known.
func (e *examination) key(service string) *issuer.Key {
	if e.Ring == nil {
		return nil
	}
	return e.Ring.For(service)
}

// fix is a change of our configuration.
func (e *examination) fix(key, value string) Fix {
	return Fix{Ours, e.Where(key), key + ": " + value}
}

// serviceFix is a change of a key of services[i].
func (e *examination) serviceFix(i int, key, value string) Fix {
	return e.fix("services["+strconv.Itoa(i)+"]."+key, value)
}

func (e *examination) serviceNames() string {
	var names []string
	for _, s := range e.Services {
		names = append(names, strconv.Quote(s.Name))
	}
	return strings.Join(names, ", ")
}

// exported is the command that prints what the registry of a service is to trust.
func exported(s issuer.Service) string {
	switch s.Verifier {
	case issuer.VerifierPinned:
		return "authserver key export --service " + Shell(s.Name)
	case issuer.VerifierJWKS:
		return "authserver key export --format jwks --service " + Shell(s.Name)
	}
	return "authserver key export"
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

// Shell is a word as a shell takes it, in a command that is to be typed.
func Shell(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
