package doctor

import (
	"crypto"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"

	"authserver/internal/issuer"
)

// isFor tells whether a version reads all that is configured. Others may start with it, and do something else.
func (s *Stanza) isFor(v verifier) bool {
	return v.jwks || v.jwksInCert || s.keys == nil && s.JWKS.isMissing() && s.algorithmsAt.isMissing()
}

// signingAlgorithms are those that distribution 3 knows (registry/auth/token/token.go).
var signingAlgorithms = strings.Fields("EdDSA HS256 HS384 HS512 RS256 RS384 RS512 ES256 ES384 ES512 PS256 PS384 PS512")

// start adds what keeps a registry from starting.
func (e *examination) start(v verifier, service issuer.Service, i int, add add) {
	st := e.Stanza
	down := func(check, what, why string, fixes ...Fix) {
		add(Down, found(check, Error, what, why, fixes...))
	}
	if len(st.types) > 1 {
		down("not-token", fmt.Sprintf("auth in %s is of several types: %s", st.File, strings.Join(st.types, ", ")), `The registry does not start: "must provide exactly one type".`,
			Fix{Theirs, st.File, "auth.token, and no other type below auth"})
		return
	}
	for _, s := range []struct {
		check string
		Setting
		read bool // by this version
	}{
		{"realm", st.Realm, true}, {"service", st.Service, true}, {"issuer", st.Issuer, !v.pinned}, {"algorithm", st.algorithmsAt, v.jwks}, {"not-token", st.choice, true},
	} {
		if s.read && s.Elsewhere != "" {
			add(Unknown, found(s.check, Note, fmt.Sprintf("%s is not known here: %s", s.Key, s.Elsewhere), "Whether it is right was not looked at.",
				Fix{Theirs, s.Where, "give a copy with the value in its place: --registry-config FILE (docker compose config prints one)"}))
		}
	}
	for _, m := range st.missing(e.realm(), service) {
		if st.Kind == Zot { // which begins without a word, and asks nobody for anything
			add(Open, found("registry-open", Error, st.File+" names no "+m.what,
				"Without realm, service and cert together zot asks for no tokens: everybody who reaches it may pull, push and delete, unless its accessControl says otherwise.", m.fix))
		} else {
			down(m.check, st.File+" names no "+m.what, "The registry does not start.", m.fix)
		}
	}
	if st.Kind == Zot && len(st.missing(e.realm(), service)) > 0 {
		return
	}
	e.startCertificates(v, service, i, down, add)
	if !v.jwks {
		return
	}
	if k := st.keys; k != nil {
		switch {
		case k.missing != nil:
			e.elsewhere(k.file, k.missing, add)
		case k.broken != nil:
			down("jwks", fmt.Sprintf("%s: %v", k.file, k.broken), "The registry does not start with it.", e.give(st.JWKS, service))
		}
	}
	for _, algorithm := range st.Algorithms {
		if !slices.Contains(signingAlgorithms, algorithm) {
			known := slices.DeleteFunc(slices.Clone(st.Algorithms), func(a string) bool { return !slices.Contains(signingAlgorithms, a) })
			down("algorithm", fmt.Sprintf("signingalgorithms has %q, which is not known; would be right: %s", algorithm, strings.Join(signingAlgorithms, ", ")), "The registry does not start.",
				st.algorithmsAt.fix(list(known, e.key(service.Name))))
		}
	}
}

// A missing is a setting that a registry needs, and does not have: how it is mended.
type missing struct {
	check, what string
	fix         Fix
}

// missing are the settings that every version needs, and that are not there.
func (s *Stanza) missing(realm string, service issuer.Service) (list []missing) {
	need := func(setting Setting, check, what string, fix Fix) {
		if setting.isMissing() {
			list = append(list, missing{check, what, fix})
		}
	}
	if s.Kind == "" {
		return nil
	}
	need(s.Realm, "realm", "realm", s.Realm.set(realm))
	need(s.Service, "service", "service", s.Service.set(service.Name))
	if s.Kind == Zot || s.Kind == ChartMuseum {
		need(s.Trust, "bundle", "certificate", s.Trust.fix("FILE, made by: "+exported(service)))
	} else {
		need(s.Issuer, "issuer", "issuer", s.Issuer.set(service.Issuer))
	}
	return list
}

// startCertificates looks at the file of certificates as a registry reads it at its start.
func (e *examination) startCertificates(v verifier, service issuer.Service, i int, down func(check, what, why string, fixes ...Fix), add add) {
	st, c := e.Stanza, e.Stanza.certificates
	give := e.give(st.Trust, service)
	keys := v.jwks && st.keys != nil && (st.keys.missing != nil || len(st.keys.ids) > 0)
	switch {
	case c != nil && c.missing != nil:
		e.elsewhere(c.file, c.missing, add)
		return
	case v.pinned && c == nil && st.keys != nil && !v.jwksInCert:
		down("bundle", st.keys.file+" is a JWKS, which only zot from 2.1.15 takes for a certificate", "Others do not start with it.", give)
		return
	case v.pinned && c == nil && st.keys != nil && (st.keys.broken != nil || len(st.keys.ids) != 1):
		down("bundle", fmt.Sprintf("%s has %d keys", st.keys.file, len(st.keys.ids)), "zot takes a JWKS of exactly one key.", give)
		return
	case c == nil && (v.pinned || st.Kind == "" || keys):
		return
	case c == nil && st.keys != nil && !v.jwks:
		down("verifier-kind", st.File+" is for distribution 3: older versions know no jwks", "They do not start without rootcertbundle.", st.Trust.fix("FILE, made by: authserver key export"))
		return
	case c == nil && st.keys != nil:
		down("jwks", st.keys.file+" holds no key", "The registry does not start.", e.give(st.JWKS, service))
		return
	case c == nil:
		down("bundle", st.File+" names no rootcertbundle", "The registry does not start.", st.Trust.fix("FILE, made by: "+exported(service)))
		return
	}
	if c.holdsPrivateKey() {
		add(Refuses, found("bundle", Warning, c.file+" holds a private key", "A registry needs none of ours; whoever reads that file can sign tokens.", give))
	}
	switch {
	case v.pinned && c.first == nil: // it looks at the first block alone
		down("bundle", c.file+" does not begin with a certificate or a public key", "The registry does not start with it.", give)
	case v.rsaOnly && !isRSA(c.first):
		fixes := []Fix{give}
		if !strings.HasPrefix(service.Algorithm, "RS") {
			fixes = []Fix{e.serviceFix(i, "algorithm", issuer.RS256)}
		}
		down("algorithm", fmt.Sprintf("%s knows RSA only, and %s begins with another kind of key", v.name, c.file), "It does not start with it.", fixes...)
	case v.pinned:
	case c.broken != nil:
		down("bundle", fmt.Sprintf("%s: %v", c.file, c.broken), "The registry does not start with it.", give)
	case len(c.certs) == 0 && !keys:
		down("bundle", c.file+" holds no certificate", "The registry does not start with it.", give)
	case v.strictPEM && len(c.others) > 0:
		down("bundle-blocks", fmt.Sprintf("%s has a block %q", c.file, c.others[0]), "distribution 2.5 does not start with anything but CERTIFICATE blocks in its bundle.", give)
	case v.old && c.holdsEd25519():
		down("bundle-ed25519", c.file+" has a certificate with an Ed25519 key", "Registries up to 2.8, GitLab's and Notary die of it at their start.",
			e.serviceFix(i, "algorithm", issuer.ES256), give)
	}
}

func isRSA(key crypto.PublicKey) bool {
	_, ok := key.(*rsa.PublicKey)
	return ok
}

// list is signingalgorithms with ours in it.
func list(algorithms []string, key *issuer.Key) string {
	if key != nil && !slices.Contains(algorithms, key.Algorithm) {
		algorithms = append(slices.Clone(algorithms), key.Algorithm)
	}
	return "[" + strings.Join(algorithms, ", ") + "]"
}

// give is handing the registry of a service what it is to trust.
func (e *examination) give(what Setting, service issuer.Service) Fix {
	file := what.Value
	if file == "" {
		file = "FILE"
	}
	return Fix{Theirs, what.Where, exported(service) + " > " + Shell(file) + ", then restart the registry: it reads the file at its start only"}
}

// elsewhere notes a file that is not on this machine.
func (e *examination) elsewhere(file string, err error, add add) {
	add(Unknown, found("bundle", Note, fmt.Sprintf("%s cannot be read here: %v", file, err), "Whether the registry trusts our key was not looked at.",
		Fix{Ours, "", "give a copy of it as well: --registry-config FILE"}))
}
