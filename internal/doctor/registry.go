package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"authserver/internal/issuer"
)

// registry looks at a running registry: its greeting, its challenge, and what it makes of our tokens.
func (e *examination) registry(ctx context.Context) {
	base := strings.TrimSuffix(strings.TrimRight(e.Registry, "/"), "/v2")
	address, err := url.Parse(base)
	if err != nil || address.Host == "" || address.Scheme != "http" && address.Scheme != "https" || address.User != nil {
		e.report.Add(found("registry", Error, quote(redacted(e.Registry))+" is no address of a registry; would be right: https://registry.example.com", "No registry was looked at.", Fix{Ours, "", "--registry https://registry.example.com"}))
		return
	}
	a, err := e.ask(ctx, http.MethodGet, base+"/v2/", nil, nil)
	if err != nil {
		what, fixes := unreached(base, err, Theirs)
		e.report.Add(found("registry", Error, what, "Clients do not reach the registry either, as far as they are where this machine is.", fixes...))
		return
	}
	e.judgeTLS(a, base, Theirs)
	e.skewed = e.judgeClock(a, "the registry")
	c := challengeOf(a.header)
	if !e.isTokenRegistry(base, a, c) {
		return
	}
	service, i := e.judgeChallenge(ctx, address, c)
	if i < 0 {
		return
	}
	if len(c.params["service"]) > maxService {
		return // it is no name: nothing is signed for it
	}
	r := &trial{examination: e, base: base, service: service, i: i, aud: c.params["service"]}
	r.run(ctx)
}

// maxService bounds a name that a registry calls itself.
const maxService = 255

// isTokenRegistry tells whether a greeting is that of a registry that asks for tokens.
func (e *examination) isTokenRegistry(base string, a answer, c challenge) bool {
	token := Fix{Theirs, "", "auth.token with realm, service, issuer and rootcertbundle (see deploy/registry), and no other auth"}
	switch {
	case a.redirects() != "":
		e.report.Add(found("registry", Error, fmt.Sprintf("%s/v2/ redirects to %s", base, a.redirects()), "Clients lose their token on the way.", Fix{Ours, "", "--registry " + Shell(strings.TrimSuffix(strings.TrimSuffix(a.redirects(), "/"), "/v2"))}, Fix{Between, "", "no redirect below /v2/"}))
	case a.status == http.StatusOK && a.header.Get("Docker-Distribution-Api-Version") == "" && !json.Valid(a.body):
		e.report.Add(found("registry", Error, base+"/v2/ answers 200, and no registry answers there", "It is a page of something else, or a proxy does not pass /v2/ on.",
			Fix{Ours, "", "--registry with the address of the registry"}, Fix{Between, "", "pass /v2/ on to the registry, with its path as it is"}))
	case a.status == http.StatusOK:
		e.report.Add(found("registry-open", Error, base+" asks nobody for anything", "Everybody who reaches it may pull, push and delete.", token))
	case a.status == http.StatusUnauthorized && c.scheme == "bearer":
		return true
	case a.status == http.StatusUnauthorized && c.scheme == "":
		e.report.Add(found("challenge", Error, base+"/v2/ answers 401 without WWW-Authenticate", "Clients do not know where to get a token.", Fix{Between, "", "pass WWW-Authenticate on as the registry sends it"}))
	case a.status == http.StatusUnauthorized:
		e.report.Add(found("not-token", Error, fmt.Sprintf("%s asks for %s, not for a token", base, c.scheme), "It checks passwords itself (or a proxy before it does), and never sends anybody here.", token))
	case a.status == http.StatusNotFound:
		e.report.Add(found("registry", Error, base+"/v2/ is not there (404)", "There is no registry at this address, or a proxy does not pass /v2/ on. ChartMuseum has none: give its settings by --registry-config.", Fix{Between, "", "pass /v2/ on to the registry, with its path as it is"}))
	default:
		e.report.Add(found("registry", Error, fmt.Sprintf("%s/v2/ answers %d", base, a.status), "The registry is not well, or a proxy before it is not.", Fix{Theirs, "", "the log of the registry"}))
	}
	return false
}

// judgeChallenge judges where the registry sends its clients and for which service. i is the service's place in services[];
// for one that is not listed it is that of the first, whose tokens are tried all the same; -1 when there is nothing to try.
func (e *examination) judgeChallenge(ctx context.Context, registry *url.URL, c challenge) (service issuer.Service, i int) {
	realm, name := c.params["realm"], c.params["service"]
	theirRealm, theirService := e.setting("realm"), e.setting("service")
	e.challenged = true
	for _, s := range []struct{ written, runs string }{{redacted(theirRealm.Value), redacted(realm)}, {theirService.Value, name}} {
		if st := e.Stanza; st != nil && s.written != "" && s.written != s.runs && !st.AutoRedirect {
			e.report.Add(found("restart", Error, fmt.Sprintf("the registry runs with %s, and %s says %s", quote(s.runs), st.File, quote(s.written)),
				"It runs with another file, or was not restarted since this one was changed.", e.restart()))
		}
	}
	switch {
	case e.ours(realm):
		e.judgeRealm(realm, registry, theirRealm.fix("another address"), e.fix("server.public_url", "the same address without /token"))
	default:
		e.judgeElsewhere(ctx, realm, registry, theirRealm)
	}
	service, i = e.service(name)
	if i >= 0 {
		e.judgeService(name, theirService.fix("another name"), e.serviceFix(i, "name", "the same name"))
		return service, i
	}
	if len(e.Services) == 0 {
		return issuer.Service{}, -1
	}
	e.report.Add(e.unknownService(name, theirService))
	return e.Services[0], 0
}

// restart is for a registry that runs with something else than its files say.
func (e *examination) restart() Fix {
	return Fix{Theirs, e.Stanza.File, "restart it; and look for REGISTRY_AUTH_TOKEN_… in its environment, which overrides the file"}
}

// setting is a key of the registry's, with its place where that is at hand.
func (e *examination) setting(name string) Setting {
	if st := e.Stanza; st != nil && st.Kind != "" {
		switch name {
		case "realm":
			return st.Realm
		case "service":
			return st.Service
		case "issuer":
			return st.Issuer
		case "rootcertbundle":
			return st.Trust
		}
	}
	return Setting{Key: "auth.token." + name}
}

// moveTo is the other way round: our public address becomes the realm's, when its path can be one of ours.
func (e *examination) moveTo(realm string) []Fix {
	base, ok := strings.CutSuffix(realm, "/token")
	if !ok {
		return nil
	}
	return []Fix{e.fix("server.public_url", scalar(strings.TrimSuffix(base, "/auth")))}
}

// judgeElsewhere looks at a realm that is not our public address: another name of ours, or somebody else.
func (e *examination) judgeElsewhere(ctx context.Context, realm string, registry *url.URL, theirs Setting) {
	fixes := append([]Fix{theirs.set(e.realm())}, e.moveTo(realm)...)
	what := fmt.Sprintf("the registry sends clients to %s; our token endpoint is %s", realm, e.realm())
	if _, ok := e.isAddress(realm, fixes[:1]...); !ok {
		return
	}
	a, err := e.ask(ctx, http.MethodGet, realm, nil, nil)
	switch {
	case err != nil:
		reason, _ := unreached(realm, err, Ours)
		e.report.Add(found("realm", Error, what, "Clients get no token: "+reason+".", fixes...))
	case a.redirects() != "":
		e.report.Add(found("redirect", Error, fmt.Sprintf("%s, which redirects to %s", what, a.redirects()), "A redirected POST comes back as an anonymous GET, and credentials get lost on the way.", fixes...))
	case e.isSignedByUs(a.token()):
		e.report.Add(found("realm", Warning, what+"; authserver answers there too", "It works, and what is said of server.public_url (metadata, other clients) names another address.", fixes...))
		e.judgeRealm(realm, registry, fixes...)
	case a.token() != "":
		e.report.Add(found("realm", Error, what+", where another token server answers", "Its tokens are what clients bring.", fixes...))
	default:
		e.report.Add(found("realm", Error, fmt.Sprintf("%s, where no token server answers (%d)", what, a.status), "Clients get no token.", fixes...))
	}
}

func (e *examination) isSignedByUs(token string) bool {
	id := issuer.KeyID(token)
	return e.Ring != nil && slices.ContainsFunc(e.Ring.Published(), func(k *issuer.Key) bool { return k.ID == id })
}
