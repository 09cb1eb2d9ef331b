package doctor

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"authserver/internal/issuer"
)

// A verifier is how a kind of registry checks tokens, as far as versions differ.
type verifier struct {
	name       string
	kinds      []string // forms of configuration that it reads
	pinned     bool     // compares with one key, and looks at neither iss nor aud
	rsaOnly    bool
	old        bool // libtrust: kids of the bundle's keys are ours; no EdDSA
	strictPEM  bool // dies of a block in the bundle that is no certificate
	jwks       bool // knows the setting jwks
	jwksInCert bool // takes a JWKS of one key in the place of a certificate
	past       bool // hardly anybody runs it any more
}

// verifiers are the kinds that there are. What each checks: distribution registry/auth/token of the version,
// zot pkg/api/bearer.go, chartmuseum/auth.
var verifiers = []verifier{
	{name: "distribution 2.5", kinds: []string{Distribution}, old: true, strictPEM: true, past: true},
	{name: "distribution 2.6 to 2.8, GitLab", kinds: []string{Distribution}, old: true},
	{name: "distribution 3.0", kinds: []string{Distribution}, jwks: true},
	{name: "distribution 3.1", kinds: []string{Distribution}, jwks: true},
	{name: "notary 0.7", kinds: []string{Notary}, old: true},
	{name: "zot up to 2.1.2", kinds: []string{Zot}, pinned: true, rsaOnly: true, past: true},
	{name: "zot 2.1.3 to 2.1.14", kinds: []string{Zot}, pinned: true},
	{name: "zot from 2.1.15", kinds: []string{Zot}, pinned: true, jwksInCert: true},
	{name: "chartmuseum 0.16", kinds: []string{ChartMuseum}, pinned: true, rsaOnly: true},
}

// stanza holds a registry's configuration against ours, and predicts what each version makes of our tokens.
func (e *examination) stanza() {
	st := e.Stanza
	if st.Other != "" {
		fix := Fix{Theirs, st.File, "auth.token with realm, service, issuer and rootcertbundle (see deploy/registry)"}
		switch st.Kind {
		case Notary:
			fix.Do = "auth.type: token"
		case Zot:
			fix.Do = "http.auth.bearer with realm, service and cert (see deploy/registry)"
		case ChartMuseum:
			if fix.Do = bearerAuth + "=true"; st.choice.Key == bearerFlag { // the variable would not count
				fix.Where, fix.Do = st.choice.Where, bearerFlag+"=true"
			}
		}
		e.report.Add(found("not-token", Error, fmt.Sprintf("%s asks for %s, not for tokens", st.File, st.Other), "The registry never sends anybody here.", fix))
		return
	}
	if st.Kind == Distribution && len(st.chosen) > 1 {
		e.report.Add(found("not-token", Error, fmt.Sprintf("REGISTRY_AUTH… in %s is of several types: %s", st.File, strings.Join(st.chosen, ", ")),
			"Each start takes one of them by chance: the registry asks for tokens, or does not start, or, with none, lets everybody in.", Fix{Theirs, st.File, "REGISTRY_AUTH=token and REGISTRY_AUTH_TOKEN_…, and no other type"}))
		return
	}
	service, i := e.service(st.Service.Value)
	switch {
	case st.Kind == "" && len(e.Services) > 0: // certificates or keys alone: those of the service that they fit best
		service, i = e.Services[0], 0
		for n, s := range e.Services {
			if (s.Verifier == issuer.VerifierJWKS) == (st.keys != nil) {
				service, i = s, n
				break
			}
		}
	case len(e.Services) == 0:
		return
	case i < 0:
		service, i = e.Services[0], 0
		if st.Service.Value != "" {
			e.report.Add(e.unknownService(st.Service.Value, st.Service))
		}
	default:
		e.judgeService(st.Service.Value, st.Service.fix("another name"), e.serviceFix(i, "name", "the same name"))
	}
	predictions, findings := e.predictions(service, i)
	e.report.Predictions = predictions
	e.report.Add(findings...)
	if len(findings) == 0 && st.Kind != "" {
		e.report.Add(fine("stanza", "%s fits service %q", st.File, service.Name))
	}
}

// predictions is what each version makes of the tokens of services[i]. What none of them takes is an error; for what some
// take, or may take, it matters which version it is, and that is not known here.
func (e *examination) predictions(service issuer.Service, i int) (predictions []Prediction, findings []Finding) {
	st := e.Stanza
	type result struct {
		verifier
		findings []Finding
	}
	var results []result
	possible := false // a version that it is written for may accept our tokens
	for _, v := range verifiers {
		if st.Kind != "" && !slices.Contains(v.kinds, st.Kind) || st.Kind == "" && v.pinned != (service.Verifier == issuer.VerifierPinned) {
			continue
		}
		prediction, found := e.predict(v, service, i)
		predictions, results = append(predictions, prediction), append(results, result{v, found})
		if st.isFor(v) {
			e.accepted = e.accepted || prediction.Verdict == Accepts
			possible = possible || prediction.Verdict == Accepts || prediction.Verdict == Unknown
			e.refused = e.refused || prediction.Verdict == Refuses || prediction.Verdict == Down || prediction.Verdict == Open
		}
	}
	for _, r := range results {
		for _, f := range r.findings {
			switch {
			case !st.isFor(r.verifier), possible && r.past:
				f.Severity = min(f.Severity, Note)
			case possible:
				f.Severity = min(f.Severity, Warning)
			}
			findings = append(findings, f)
		}
	}
	return predictions, findings
}

func (e *examination) stanzaRealm() {
	st := e.Stanza
	switch {
	case st.AutoRedirect:
		e.report.Add(found("realm", Note, "autoredirect is on: the realm is https://HOST/auth/token on the registry's own host, and what stands under realm is not used",
			"That address has to reach authserver.", st.Realm.set(e.realm())))
	case st.Realm.Value == "":
	case !e.ours(st.Realm.Value):
		if _, ok := e.isAddress(st.Realm.Value, st.Realm.set(e.realm())); ok {
			e.report.Add(found("realm", Error, fmt.Sprintf("the registry sends clients to %s; our token endpoint is %s", st.Realm.Value, e.realm()),
				"Clients ask somebody else for a token, or get none.", append([]Fix{st.Realm.set(e.realm())}, e.moveTo(st.Realm.Value)...)...))
		}
	default:
		e.judgeRealm(st.Realm.Value, nil, st.Realm.fix("another address"), e.fix("server.public_url", "the same address without /token"))
	}
}

// unknownService is a name that is not listed.
func (e *examination) unknownService(name string, at Setting) Finding {
	if name == "" {
		return found("service", Error, "the registry names no service", "Tokens are for a service; clients ask for one without a name, and the registry refuses it.", at.set(e.Services[0].Name))
	}
	fixes := []Fix{e.fix("services", fmt.Sprintf("- name: %q", name))}
	for _, s := range e.Services {
		fixes = append(fixes, at.set(s.Name))
	}
	return found("service", Error, fmt.Sprintf("the registry's service is %q; services has %s", name, e.serviceNames()),
		"authserver answers 400 to every request for a service that is not listed.", fixes...)
}

// wrongIssuer is an iss that the registry does not take.
func (e *examination) wrongIssuer(service issuer.Service, i int, theirs string, at Setting) Finding {
	what := fmt.Sprintf("the registry takes tokens from %q only; ours say %q", theirs, service.Issuer)
	return found("issuer", Error, what, "The two are compared to the letter, slashes at the end too; every token is refused.",
		at.set(service.Issuer), e.serviceFix(i, "issuer", fmt.Sprintf("%q", theirs)))
}

// predict is what a kind of registry makes of the tokens of services[i].
func (e *examination) predict(v verifier, service issuer.Service, i int) (Prediction, []Finding) {
	st := e.Stanza
	p := Prediction{Verifier: v.name, Verdict: Accepts}
	var findings []Finding
	add := func(verdict string, f Finding) {
		findings = append(findings, f)
		if f.Severity != Error && verdict != Unknown {
			return
		}
		if slices.Index(verdicts, verdict) > slices.Index(verdicts, p.Verdict) {
			p.Verdict = verdict
		}
		if !slices.Contains(p.Because, f.Check) {
			p.Because = append(p.Because, f.Check)
		}
	}
	e.start(v, service, i, add)
	if p.Verdict == Down || p.Verdict == Open {
		return p, findings
	}
	if st.Service.Elsewhere != "" && len(e.Services) > 1 {
		return p, findings // it may be any of them, with another issuer and another key
	}
	if name := st.Service.Value; !v.pinned && st.Kind != "" && st.Service.Elsewhere == "" && name != service.Name {
		add(Refuses, e.unknownService(name, st.Service))
	}
	if !v.pinned && st.Kind != "" && st.Issuer.Elsewhere == "" && st.Issuer.Value != service.Issuer {
		add(Refuses, e.wrongIssuer(service, i, st.Issuer.Value, st.Issuer))
	}
	key := e.key(service.Name)
	if key == nil {
		add(Unknown, found("keys", Note, fmt.Sprintf("the key of service %q is not there, or cannot be read here", service.Name), "Whether the registry trusts it was not looked at.",
			Fix{Ours, "", "run doctor as the user of authserver, after its first start"}))
		return p, findings
	}
	e.algorithm(v, key, i, add)
	e.trust(v, service, i, key, add)
	return p, findings
}

func (e *examination) algorithm(v verifier, key *issuer.Key, i int, add add) {
	st := e.Stanza
	switch {
	case v.rsaOnly && !strings.HasPrefix(key.Algorithm, "RS"):
		add(Refuses, found("algorithm", Error, fmt.Sprintf("%s knows RSA only; tokens are signed with %s", v.name, key.Algorithm),
			"It refuses every token.", e.serviceFix(i, "algorithm", issuer.RS256)))
	case v.old && key.Algorithm == issuer.EdDSA:
		add(Refuses, found("algorithm", Error, "registries up to 2.8, GitLab's and Notary do not know EdDSA", "They refuse every token.", e.serviceFix(i, "algorithm", issuer.ES256)))
	case v.jwks && len(st.Algorithms) > 0 && !slices.Contains(st.Algorithms, key.Algorithm):
		add(Refuses, found("algorithm", Error, fmt.Sprintf("the registry takes tokens signed with %s only; ours are signed with %s", strings.Join(st.Algorithms, ", "), key.Algorithm),
			"Every token is refused.", st.algorithmsAt.fix(fmt.Sprintf("[%s]", strings.Join(append(slices.Clone(st.Algorithms), key.Algorithm), ", "))), e.serviceFix(i, "algorithm", st.Algorithms[0])))
	}
}

// add takes a finding, and what it makes of a prediction.
type add func(verdict string, f Finding)

// trust judges whether the registry can believe the key.
func (e *examination) trust(v verifier, service issuer.Service, i int, key *issuer.Key, add add) {
	switch {
	case v.pinned:
		e.pinnedTrust(v, service, i, key, add)
	case len(key.Chain) > 0:
		e.chainTrust(service, i, key, add)
	default:
		e.setTrust(v, service, i, key, add)
	}
}

// pinnedTrust is for a verifier that compares with one key.
func (e *examination) pinnedTrust(v verifier, service issuer.Service, i int, key *issuer.Key, add add) {
	st, c := e.Stanza, e.Stanza.certificates
	switch {
	case v.jwksInCert && st.keys != nil && len(st.keys.ids) == 1 && (c == nil || c.missing != nil):
		if st.keys.ids[0] != key.ID {
			add(Refuses, found("key", Error, fmt.Sprintf("%s does not hold our key %s", st.keys.file, key.ID), "Every token is refused.", e.give(st.Trust, service)))
		}
	case c == nil, c.missing != nil: // it was said
	case service.Verifier != issuer.VerifierPinned:
		severity := Error
		if sameKey(c.first, key.Public()) {
			severity = Warning // for now
		}
		add(Refuses, found("verifier-kind", severity, fmt.Sprintf("%s compares with one key; service %q has verifier: %s, whose keys are replaced", v.kinds[0], service.Name, service.Verifier),
			"It does not follow certificates to a root, so it refuses our tokens, or will once the key is replaced. And it looks at no service: a key of its own keeps tokens for others out.",
			e.serviceFix(i, "verifier", issuer.VerifierPinned)))
	case !sameKey(c.first, key.Public()):
		add(Refuses, found("key", Error, fmt.Sprintf("the first key in %s is not the one that signs for %q (%s)", c.file, service.Name, key.ID), "Every token is refused.", e.give(st.Trust, service)))
	}
}

// chainTrust is for tokens with x5c.
func (e *examination) chainTrust(service issuer.Service, i int, key *issuer.Key, add add) {
	st, c := e.Stanza, e.Stanza.certificates
	if c != nil && c.missing != nil {
		return
	}
	if c == nil || len(c.certs) == 0 {
		add(Refuses, found("verifier-kind", Error, fmt.Sprintf("the registry has a JWKS and no certificates; tokens for %q carry certificates", service.Name),
			"It looks at the certificates of a token first, and refuses when it cannot follow them.", e.serviceFix(i, "verifier", issuer.VerifierJWKS), st.Trust.fix("FILE, made by: authserver key export")))
		return
	}
	now := e.Now()
	if problem, why := followed(key, c, now); problem != "" {
		if old := c.namesake(key.Anchor); old != nil && !c.holds(key.Anchor) {
			problem = fmt.Sprintf("%s holds another root of the same name, valid from %s (%s); ours is valid from %s (%s)", c.file,
				old.NotBefore.Format(time.RFC3339), issuer.RootID(old), key.Anchor.NotBefore.Format(time.RFC3339), issuer.RootID(key.Anchor))
			why = "The keys were made anew since then (a data folder that was not kept?), and every token is refused: " + untrusted
		}
		add(Refuses, found("root", Error, problem, why, e.give(st.Trust, service)))
		return
	}
	if len(key.Chain) > 0 && !sameKey(key.Chain[0].PublicKey, key.Anchor.PublicKey) && !c.holdsKey(key.Anchor.PublicKey) {
		add(Refuses, found("root", Warning, c.file+" holds the signing key's certificate and not the root", "When the key is replaced, every token is refused.", e.give(st.Trust, service)))
	}
}

// untrusted is what registries log.
const untrusted = `"token signed by untrusted key", "certificate signed by unknown authority".`

// followed follows the certificates in a token to one in the bundle, as distribution does.
func followed(key *issuer.Key, c *certificates, now time.Time) (problem, why string) {
	options := x509.VerifyOptions{Roots: c.pool(), Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, intermediate := range key.Chain[1:] {
		options.Intermediates.AddCert(intermediate)
	}
	_, err := key.Chain[0].Verify(options)
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return "", ""
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("a certificate (%s) is valid from %s to %s, which is not now", invalid.Cert.Subject, invalid.Cert.NotBefore.Format(time.RFC3339), invalid.Cert.NotAfter.Format(time.RFC3339)),
			"Registries look at certificates without leeway."
	}
	return fmt.Sprintf("%s does not hold the root of our keys (%s)", c.file, issuer.RootID(key.Anchor)), "Every token is refused: " + untrusted
}

// setTrust is for tokens without x5c: the registry looks their kid up.
func (e *examination) setTrust(v verifier, service issuer.Service, i int, key *issuer.Key, add add) {
	st, c := e.Stanza, e.Stanza.certificates
	if !v.jwks { // up to 2.8 the keys of the bundle are known by our kid
		if c == nil || c.missing == nil && !c.holdsKey(key.Public()) {
			add(Refuses, found("verifier-kind", Error, fmt.Sprintf("registries up to 2.8, GitLab's and Notary know no JWKS; service %q has verifier: %s", service.Name, service.Verifier), "They find no key for our tokens.", e.serviceFix(i, "verifier", issuer.VerifierChain)))
		}
		return
	}
	switch {
	case st.keys == nil:
		add(Refuses, found("verifier-kind", Error, fmt.Sprintf("the registry has no JWKS; tokens for %q carry no certificates", service.Name), "It knows the keys of its certificates by other ids than ours, and finds none.",
			e.serviceFix(i, "verifier", issuer.VerifierChain), st.JWKS.fix("FILE, made by: "+exported(service))))
	case st.keys.missing != nil: // it was said
	case !slices.Contains(st.keys.ids, key.ID):
		add(Refuses, found("jwks", Error, fmt.Sprintf("%s does not have the key that signs (%s)", st.keys.file, key.ID), "Every token is refused.", e.give(st.JWKS, service)))
	default:
		if next := e.Ring.NextFor(service.Name); next != nil && !slices.Contains(st.keys.ids, next.ID) {
			add(Refuses, found("jwks", Warning, fmt.Sprintf("%s does not have the key that will sign next (%s)", st.keys.file, next.ID), "Once it signs, every token is refused.", e.give(st.JWKS, service)))
		}
	}
}
