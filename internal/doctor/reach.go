package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"authserver/internal/issuer"
	"authserver/internal/network"
)

// reach looks at our public address as a client does.
func (e *examination) reach(ctx context.Context) {
	e.judgeRealm(e.realm(), nil, e.fix("server.public_url", "another address"))
	query := ""
	if len(e.Services) > 0 {
		query = "?" + url.Values{"service": {e.Services[0].Name}}.Encode()
	}
	a, err := e.ask(ctx, http.MethodGet, e.realm()+query, nil, nil)
	if err != nil {
		severity := Error
		if !e.Running && e.Registry == "" { // nothing is running, and nothing was said of it
			severity = Note
		}
		what, fixes := unreached(e.PublicURL, err, Ours)
		e.report.Add(found("public-url", severity, what, "Clients cannot get a token.", append(fixes, e.fix("server.public_url", "the address at which clients reach authserver"))...))
		return
	}
	if !e.isOurs(a) {
		return
	}
	before := len(e.report.Findings)
	e.judgeTLS(a, e.PublicURL, Ours)
	e.judgeClock(a, "the server at "+e.PublicURL)
	if e.judgeKeys(ctx, a.token()) {
		if e.judgeProxy(ctx) {
			e.logIn(ctx)
		} else if e.User != "" {
			e.report.Add(found("login", Note, "the login was not tried: what is between here and authserver changes what is asked", "It might keep the password, and answer for authserver."))
		}
	}
	if worst := (&Report{Findings: e.report.Findings[before:]}).Worst(); worst < Warning {
		e.report.Add(fine("public-url", "%s gives tokens", e.realm()))
	}
}

// isOurs tells whether an answer to a token request is one of authserver's.
func (e *examination) isOurs(a answer) bool {
	to := a.redirects()
	switch {
	case to != "":
		var fixes []Fix
		if to := strings.TrimSuffix(to, "/"); !e.ours(to) { // which would be no change
			fixes = e.moveTo(to)
		}
		e.report.Add(found("redirect", Error, fmt.Sprintf("%s redirects to %s", e.realm(), to),
			"A redirected POST comes back as an anonymous GET, and credentials get lost on the way: logins seem to succeed, pulls are denied.",
			append(fixes, Fix{Between, "", "no redirect below /token, /auth/token and /.well-known/"})...))
	case a.token() != "":
		return true
	case a.status == http.StatusUnauthorized:
		e.report.Add(found("public-url", Error, e.realm()+" wants a password from everybody", "Something before authserver asks for credentials: clients cannot get a token for what is public, and send their passwords to it.", Fix{Between, "", "no authentication of its own for authserver's host"}))
	case a.status == http.StatusBadGateway || a.status == http.StatusServiceUnavailable || a.status == http.StatusGatewayTimeout:
		e.report.Add(found("public-url", Error, fmt.Sprintf("%s answers %d", e.realm(), a.status), "The proxy does not reach authserver, or authserver is starting, stopping or overloaded.", Fix{Between, "", "server.listen as its upstream"}, Fix{Ours, "", "authserver serve, and its log"}))
	default:
		e.report.Add(found("public-url", Error, fmt.Sprintf("%s answers %d and no token", e.realm(), a.status), "It is not authserver that answers there, or not under that path.",
			e.fix("server.public_url", "the address, with the path, at which authserver is reached"), Fix{Between, "", "pass " + pathOf(e.realm()) + " on to authserver as /token"}))
	}
	return false
}

func pathOf(address string) string {
	if u, err := url.Parse(address); err == nil {
		return u.Path
	}
	return ""
}

// judgeTLS looks at the certificate that was shown.
func (e *examination) judgeTLS(a answer, address, side string) {
	if a.tls == nil || len(a.tls.PeerCertificates) == 0 {
		return
	}
	end := a.tls.PeerCertificates[0].NotAfter
	if left := end.Sub(e.Now()); left < 14*24*time.Hour {
		e.report.Add(found("tls", Warning, fmt.Sprintf("the certificate of %s ends %s", address, end.Format(time.DateOnly)), "From then on clients refuse to talk to it.", Fix{side, "", "renew the certificate"}))
	}
}

// maxSkew is how far clocks may be apart without anybody noticing: nbf and iat lie 30 s back.
const maxSkew = 20 * time.Second

func (e *examination) judgeClock(a answer, whose string) bool {
	skew := a.skew()
	if skew.Abs() < maxSkew {
		return false
	}
	direction := "ahead of"
	if skew < 0 {
		direction = "behind"
	}
	severity, why := Warning, "Tokens are dated 30 s back; with much more they are refused, as not valid yet or as expired."
	if skew.Abs() > time.Minute {
		severity = Error
	}
	e.report.Add(found("clock", severity, fmt.Sprintf("the clock of %s is %s %s this machine's", whose, skew.Abs().Round(time.Second), direction), why, Fix{Machine, "", "NTP on both machines (timedatectl)"}))
	return true
}

// judgeProxy asks what authserver refuses, to see whether the question arrives as it was sent.
func (e *examination) judgeProxy(ctx context.Context) bool {
	before := len(e.report.Findings)
	// No user has an empty name (BuildKit asks so, with a token for a password): the answer is 401. A proxy that keeps the
	// header for itself makes an anonymous request of it.
	a, err := e.ask(ctx, http.MethodGet, e.realm(), nil, func(r *http.Request) { r.SetBasicAuth("", "") })
	if err == nil && a.token() != "" {
		e.report.Add(found("authorization-header", Error, "the header Authorization does not arrive at authserver", "Everybody is anonymous: docker login succeeds with any password, and pulls are denied.",
			Fix{Between, "", "pass Authorization on (nginx: proxy_set_header Authorization $http_authorization; Apache: SetEnvIf or CGIPassAuth)"}))
	}
	a, err = e.ask(ctx, http.MethodPost, e.realm(), url.Values{"grant_type": {"password"}}, nil)
	var said struct {
		Errors []json.RawMessage `json:"errors"`
	}
	switch {
	case err != nil:
	case a.redirects() != "":
		e.report.Add(found("redirect", Error, fmt.Sprintf("POST %s redirects to %s", e.realm(), a.redirects()), "It comes back as an anonymous GET.", Fix{Between, "", "no redirect below /token"}))
	case json.Unmarshal(a.body, &said) != nil || len(said.Errors) == 0:
		e.report.Add(found("post", Error, fmt.Sprintf("POST %s does not arrive at authserver: %d", e.realm(), a.status), "containerd, helm, docker with a stored token and every refresh ask by POST.",
			Fix{Between, "", "pass POST on, and answers with their status and body as they are"}))
	}
	return len(e.report.Findings) == before
}

// judgeKeys holds the keys of the server at our public address, which has given a token, against those of the
// configuration. When it has others, whatever it is, it is not told a password.
func (e *examination) judgeKeys(ctx context.Context, token string) bool {
	fixes := []Fix{e.fix("issuer.data_dir", "the folder that the server uses"), {Ours, "", "run doctor with the server's --config, on its machine and as its user"}}
	const why = "It runs with another configuration or data folder than the one that was read here; what is said about keys is not true of it."
	switch {
	case e.NoKeys:
		e.report.Add(found("other-keys", Error, fmt.Sprintf("the server at %s gives tokens, and there are no keys in the data folder of this configuration", e.PublicURL), why, fixes...))
		return false
	case e.Ring == nil:
		return true
	}
	a, err := e.ask(ctx, http.MethodGet, e.PublicURL+"/.well-known/jwks.json", nil, nil)
	if err != nil || a.status != http.StatusOK {
		if e.isSignedByUs(token) {
			return true
		}
		e.report.Add(found("other-keys", Error, fmt.Sprintf("the server at %s gives tokens that none of our keys has signed", e.PublicURL), "It is another token server, or one with another data folder.",
			append([]Fix{e.fix("server.public_url", "the address at which clients reach this authserver")}, fixes...)...))
		return false
	}
	published := parseJWKS("", a.body)
	var lacking []*issuer.Key
	for _, key := range e.Ring.Keys() {
		if !slices.Contains(published.ids, key.ID) {
			lacking = append(lacking, key)
		}
	}
	switch {
	case len(lacking) == 0:
		return true
	case len(lacking) < len(e.Ring.Keys()):
		e.report.Add(found("other-keys", Warning, fmt.Sprintf("the server at %s does not have the key %s of this configuration, and has others of it", e.PublicURL, lacking[0].ID),
			"It has not taken up what was changed here: a key that was replaced by hand, or a new service.", Fix{Ours, "", "authserver serve, and its log: why the last reload was refused"}))
		return true
	}
	e.report.Add(found("other-keys", Error, fmt.Sprintf("the server at %s does not have the key %s of this configuration", e.PublicURL, lacking[0].ID), why, fixes...))
	return false
}

// logIn does what docker login does. The password goes to our own address and to no other, whatever a registry names.
func (e *examination) logIn(ctx context.Context) {
	if e.User == "" {
		return
	}
	if u, err := url.Parse(e.PublicURL); err == nil && u.Scheme != "https" && !network.IsLocal(u.Hostname()) {
		e.report.Add(found("login", Warning, "the login was not tried: the password would be sent in clear to "+e.PublicURL, "docker login sends it.", e.fix("server.public_url", "https://"+u.Host)))
		return
	}
	query := url.Values{"account": {e.User}, "client_id": {"authserver-doctor"}}
	if len(e.Services) > 0 {
		query.Set("service", e.Services[0].Name)
	}
	a, err := e.ask(ctx, http.MethodGet, e.realm()+"?"+query.Encode(), nil, func(r *http.Request) { r.SetBasicAuth(e.User, e.Password) })
	switch {
	case err != nil:
		what, fixes := unreached(e.PublicURL, err, Ours)
		e.report.Add(found("login", Error, what, "The login could not be tried.", fixes...))
	case a.token() != "":
		e.report.Add(fine("login", "%s can log in", e.User))
	case a.status == http.StatusUnauthorized:
		e.report.Add(found("login", Error, fmt.Sprintf("%s cannot log in: the user name or the password is not correct", e.User), "docker login says the same.",
			Fix{Ours, "", "authserver user list; authserver user passwd " + Shell(e.User)}))
	default:
		e.report.Add(found("login", Error, fmt.Sprintf("%s cannot log in now: %d", e.User, a.status), "429: too many wrong passwords; 503: a user backend or the database is away.", Fix{Ours, "", "the log of authserver"}))
	}
}
