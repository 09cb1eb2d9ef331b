package doctor

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"authserver/internal/issuer"
)

// trial finds out by experiment why a registry refuses our tokens.
type trial struct {
	*examination
	base    string
	service issuer.Service
	i       int    // its place in services[]
	aud     string // what the registry calls itself, which need not be listed
}

// maxTrial bounds how long a registry is kept busy: it may take its time for each of some fifty tokens.
const maxTrial = 20 * time.Second

const untried = "What the registry makes of our tokens is not known."

// run shows the registry a token for it, and if it does not like that, others that differ in one thing.
func (t *trial) run(ctx context.Context) {
	key := t.key(t.service.Name)
	if key == nil {
		t.report.Add(found("trial", Note, "no token was tried: the keys cannot be read", untried))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maxTrial)
	defer cancel()
	a, err := t.show(ctx, key, issuer.Variant{})
	switch {
	case err != nil:
		t.report.Add(found("trial", Note, "no token was tried: "+err.Error(), untried))
	case a.believed():
		t.report.Add(fine("trial", "%s takes a token of ours for %q", t.base, t.aud))
	case a.status != http.StatusUnauthorized:
		t.report.Add(t.unseen(a.status))
	default:
		t.report.Add(t.reason(ctx, key, a))
	}
}

// believed tells whether a registry believes the token that it was shown. One that wants access for its greeting does.
func (a answer) believed() bool {
	return a.status == http.StatusOK || challengeOf(a.header).params["error"] == "insufficient_scope"
}

// unseen is for an answer that says nothing of the token.
func (t *trial) unseen(status int) Finding {
	fixes := []Fix{{Theirs, "", "its log, and that of a proxy before it"}}
	if status == http.StatusBadRequest || status == http.StatusRequestHeaderFieldsTooLarge {
		fixes = append(fixes, Fix{Between, "", "room for headers of 8 KB: tokens with certificates are long"})
	}
	return found("registry", Error, fmt.Sprintf("%s/v2/ answers %d to a token", t.base, status),
		"It, or a proxy before it, did not look at the token (431, 400: headers too large; 429, 503: too many requests).", fixes...)
}

func (t *trial) show(ctx context.Context, key *issuer.Key, v issuer.Variant) (answer, error) {
	v.Audience = t.aud
	token, err := issuer.Probe(t.service, key, v, t.Now())
	if err != nil {
		return answer{}, err
	}
	return t.ask(ctx, http.MethodGet, t.base+"/v2/", nil, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
}

// reason is why a token is refused with an answer: the first change that the registry likes.
func (t *trial) reason(ctx context.Context, key *issuer.Key, refusal answer) Finding {
	word := challengeOf(refusal.header).params["error"]
	bundle := t.setting("rootcertbundle")
	heldBack := 0 // the status of an answer to somebody who asks too much
	likes := func(k *issuer.Key, v issuer.Variant) bool {
		a, err := t.show(ctx, k, v)
		if a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable {
			heldBack = a.status
		}
		return err == nil && a.believed()
	}
	wrongClock := found("clock", Error, "the registry refuses our tokens, and its clock is wrong, or this machine's", "Certificates are looked at without leeway.", Fix{Machine, "", "NTP on both machines (timedatectl)"})
	if refusal.skew().Abs() > time.Hour { // more than any token makes up for
		return wrongClock
	}
	// An audience that is not listed is the registry's own choice; nothing that is valid for longer is signed for it.
	if t.aud == t.service.Name && likes(key, issuer.Variant{Wide: true}) {
		return found("clock", Error, "the registry refuses tokens of now, and takes one that is valid from an hour ago", "Its clock is wrong, or this machine's is.", Fix{Machine, "", "NTP on both machines (timedatectl)"})
	}
	if len(key.Chain) > 0 && likes(key, issuer.Variant{NoChain: true}) {
		return found("verifier-kind", Error, fmt.Sprintf("the registry takes tokens for %q without certificates only: it has a JWKS and no rootcertbundle", t.service.Name),
			"It looks at the certificates of a token first, and refuses when it cannot follow them.",
			t.serviceFix(t.i, "verifier", issuer.VerifierJWKS), bundle.fix("FILE, made by: authserver key export"))
	}
	for _, other := range t.Ring.Published() {
		if other.ID != key.ID && likes(other, issuer.Variant{}) {
			return t.otherKey(key, other)
		}
	}
	for _, name := range t.issuers() {
		if likes(key, issuer.Variant{Issuer: name}) {
			return t.wrongIssuer(t.service, t.i, name, t.setting("issuer"))
		}
	}
	if ctx.Err() != nil {
		return found("registry", Error, "the registry refuses our tokens, and answers so slowly that it was not found out why", "docker login, pull and push fail.", Fix{Theirs, "", "the log of the registry"})
	}
	if heldBack != 0 {
		return t.unseen(heldBack)
	}
	fixes := []Fix{t.give(bundle, t.service)}
	// distribution 3 looks for the key first, then at the signature: a wrong signature of a key that it trusts is the one
	// thing that it does not call an invalid token.
	if a, err := t.show(ctx, key, issuer.Variant{Broken: true}); word == "invalid_token" && err == nil && a.status == http.StatusUnauthorized {
		if c := challengeOf(a.header); c.scheme == "bearer" && c.params["error"] == "" {
			return found("issuer", Error, fmt.Sprintf("the registry trusts our key, and refuses tokens from %q", t.service.Issuer), "Its issuer is another one.",
				t.setting("issuer").set(t.service.Issuer), t.serviceFix(t.i, "issuer", "what the registry has"))
		}
	}
	if st := t.Stanza; st != nil && st.Kind != "" && t.accepted {
		return found("restart", Error, "the registry refuses our tokens, although the files that were given fit", "It runs with other files, or was not restarted since they were changed: a registry reads its configuration and certificates at its start only.",
			t.restart())
	}
	if t.refused && !t.accepted {
		return found("trial", Error, "the registry refuses our tokens, as what stands above lets expect", "docker login, pull and push fail.")
	}
	if t.skewed {
		return wrongClock
	}
	switch t.service.Verifier {
	case issuer.VerifierChain:
		fixes = append(fixes, t.serviceFix(t.i, "verifier", "pinned, if it is zot, ChartMuseum or Pulp; jwks, if it has a JWKS only"))
	case issuer.VerifierJWKS:
		fixes = append(fixes, t.serviceFix(t.i, "verifier", "chain, if it has a rootcertbundle"))
	}
	fixes = append(fixes, t.setting("issuer").set(t.service.Issuer))
	return found("root", Error, fmt.Sprintf("the registry refuses our tokens for %q: it does not trust the key (%s), or has another issuer", t.aud, key.ID),
		"Its log says which: "+untrusted+` Or: "token from untrusted issuer". With --registry-config FILE (its configuration, and a copy of the certificates that it names) doctor tells, and whether its signingalgorithms leave `+key.Algorithm+" out.", fixes...)
}

// otherKey is for a registry that trusts another key of ours than that of its service.
func (t *trial) otherKey(signing, key *issuer.Key) Finding {
	if signing.Anchor != nil && key.Anchor != nil && key.Anchor.Equal(signing.Anchor) && key.Algorithm != signing.Algorithm { // it trusts both
		return found("algorithm", Error, fmt.Sprintf("the registry takes tokens signed with %s, and refuses those signed with %s", key.Algorithm, signing.Algorithm),
			"It trusts the root of both: it does not know the algorithm, or its signingalgorithms leave it out.",
			t.serviceFix(t.i, "algorithm", key.Algorithm), t.setting("signingalgorithms").fix("with "+signing.Algorithm+" among them"))
	}
	for i, s := range t.Services {
		for _, k := range t.Ring.PublishedFor(s.Name) {
			if k.ID == key.ID && s.Name != t.service.Name {
				fixes := []Fix{t.give(t.setting("rootcertbundle"), t.service), t.serviceFix(t.i, "verifier", s.Verifier)}
				if t.aud != t.service.Name { // which is not listed: the registry's name may have changed
					fixes = append(fixes, t.serviceFix(i, "name", t.aud))
				}
				return found("verifier-kind", Error, fmt.Sprintf("the registry trusts the key of service %q, and calls itself %q, whose tokens another key signs", s.Name, t.aud),
					"It was given what is meant for another registry, or its verifier is of another kind than configured.", fixes...)
			}
		}
	}
	return found("key", Error, fmt.Sprintf("the registry trusts the key %s of %q, which is not the one that signs now", key.ID, t.service.Name),
		"It was given a key that has been replaced, or the next one too early.", t.give(t.setting("rootcertbundle"), t.service))
}

// issuers are what a registry may have been told by mistake: a setting of ours in the wrong place, a form of the right
// one, an example of somebody's documentation. The registry's own word is not among them: it shall not choose whose tokens
// we sign.
func (t *trial) issuers() []string {
	ours := t.service.Issuer
	names := []string{t.setting("issuer").Value, ours + "/", strings.TrimSuffix(ours, "/"), strings.ToLower(ours), "https://" + ours, "http://" + ours, t.PublicURL, t.PublicURL + "/", t.realm(), t.base}
	for _, address := range []string{ours, t.PublicURL, t.base} {
		if u, err := url.Parse(address); err == nil && u.Host != "" {
			names = append(names, u.Host, u.Hostname())
		}
	}
	for _, s := range t.Services {
		names = append(names, s.Issuer, s.Name)
	}
	names = append(names, "authserver", "Authserver", "Auth Service", "Acme auth server", "auth.example.com", "registry-token-issuer", "harbor-token-issuer", "gitlab-issuer", "omnibus-gitlab-issuer", "portus", "docker_auth")
	seen := map[string]bool{ours: true, "": true}
	kept := names[:0]
	for _, name := range names {
		if !seen[name] {
			seen[name] = true
			kept = append(kept, name)
		}
	}
	return kept
}
