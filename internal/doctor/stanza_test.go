package doctor_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/doctor"
	"authserver/internal/issuer"
)

// written is a stanza that is read from files, name to content.
func written(t *testing.T, files map[string]string, give ...string) (*doctor.Stanza, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range give {
		give[i] = filepath.Join(dir, name)
	}
	return doctor.ReadStanza(give...)
}

func TestAStanzaIsReadInEveryForm(t *testing.T) {
	for name, c := range map[string]struct{ kind, text, line string }{
		"distribution":         {doctor.Distribution, "version: 0.1\nauth:\n  token:\n    realm: R\n    service: S\n    issuer: I\n    rootcertbundle: B\n", "4"},
		"notary":               {doctor.Notary, "{\"auth\": {\"type\": \"token\", \"options\": {\n\"realm\": \"R\",\n\"service\": \"S\", \"issuer\": \"I\", \"rootcertbundle\": \"B\"}}}", "2"},
		"compose, a mapping":   {doctor.Distribution, "services:\n  registry:\n    environment:\n      REGISTRY_AUTH_TOKEN_REALM: R\n      REGISTRY_AUTH_TOKEN_SERVICE: S\n      REGISTRY_AUTH_TOKEN_ISSUER: I\n      REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE: B\n", "4"},
		"compose, a list":      {doctor.Distribution, "services:\n  registry:\n    environment:\n      - REGISTRY_AUTH_TOKEN_REALM=R\n      - REGISTRY_AUTH_TOKEN_SERVICE=S\n      - REGISTRY_AUTH_TOKEN_ISSUER=I\n      - REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE=B\n", "4"},
		"kubernetes":           {doctor.Distribution, "spec:\n  containers:\n    - env:\n        - {name: REGISTRY_AUTH_TOKEN_REALM, value: R}\n        - {name: REGISTRY_AUTH_TOKEN_SERVICE, value: S}\n        - {name: REGISTRY_AUTH_TOKEN_ISSUER, value: I}\n        - {name: REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE, value: B}\n", "4"},
		"env file":             {doctor.Distribution, "# a registry\nREGISTRY_AUTH=token\n\nexport REGISTRY_AUTH_TOKEN_REALM=\"R\"\nREGISTRY_AUTH_TOKEN_SERVICE=S\nREGISTRY_AUTH_TOKEN_ISSUER=I\nREGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE=B\n", "4"},
		"zot":                  {doctor.Zot, "{\"distSpecVersion\":\"1.1.1\",\n\"http\":{\"auth\":{\"bearer\":\n{\n\"realm\":\"R\",\"service\":\"S\",\"cert\":\"B\"}}}}", "4"},
		"chartmuseum env file": {doctor.ChartMuseum, "BEARER_AUTH=true\n\n\nAUTH_REALM=R\nAUTH_SERVICE=S\nAUTH_CERT_PATH=B\n", "4"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := written(t, map[string]string{"file": c.text}, "file")
			if err != nil {
				t.Fatal(err)
			}
			issuerWanted := "I"
			if c.kind == doctor.Zot || c.kind == doctor.ChartMuseum {
				issuerWanted = ""
			}
			if s.Kind != c.kind || s.Realm.Value != "R" || s.Service.Value != "S" || s.Issuer.Value != issuerWanted || s.Trust.Value != "B" || s.Other != "" {
				t.Errorf("read %+v", s)
			}
			if !strings.HasSuffix(s.Realm.Where, "file:"+c.line) {
				t.Errorf("the realm stands at %s, want line %s", s.Realm.Where, c.line)
			}
		})
	}
}

func TestAStanzaOfAnotherKind(t *testing.T) {
	for text, other := range map[string]string{
		"version: 0.1\nauth:\n  htpasswd: {realm: x, path: y}\n":                                                "htpasswd",
		"version: 0.1\nstorage: {}\n":                                                                           "nothing",
		`{"distSpecVersion":"1","http":{"port":"1","auth":{"htpasswd":{}}}}`:                                    "htpasswd",
		`{"auth":{"options":{"realm":"x"}}}`:                                                                    "nothing",
		`{"auth":{"type":"htpasswd","options":{"realm":"x"}}}`:                                                  "htpasswd",
		"AUTH_REALM=r\nAUTH_SERVICE=registry.test\nAUTH_CERT_PATH=c\n":                                          "nothing",
		"BEARER_AUTH=false\nAUTH_REALM=r\nAUTH_SERVICE=registry.test\nAUTH_CERT_PATH=c\n":                       "nothing",
		"BEARER_AUTH=yes\nAUTH_REALM=r\n":                                                                       "nothing", // strconv.ParseBool
		"BASIC_AUTH_USER=u\nBASIC_AUTH_PASS=p\nAUTH_REALM=r\n":                                                  "a password",
		"services: {charts: {environment: {BEARER_AUTH: \"0\", AUTH_REALM: r, AUTH_SERVICE: registry.test}}}\n": "nothing",
		"version: 0.1\nauth:\n  silly: {realm: x, service: y}\nhttp: {addr: \":5000\"}":                         "silly",
	} {
		s, err := written(t, map[string]string{"file": text}, "file")
		if err != nil || s.Other != other {
			t.Errorf("%s: %+v, %v", text, s, err)
			continue
		}
		w := newWorld(t)
		w.subject.Stanza = s
		r := w.examine()
		want(t, r, "not-token", doctor.Error, other)
		if len(r.Predictions) > 0 {
			t.Errorf("%s: %+v", text, r.Predictions)
		}
	}
}

func TestWhatIsNoStanza(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		give  []string
		words string
	}{
		"nothing there":  {nil, []string{"a"}, "no such file"},
		"no YAML":        {map[string]string{"a": "{]"}, []string{"a"}, "neither YAML nor JSON nor an env file"},
		"something else": {map[string]string{"a": "kind: ConfigMap\n"}, []string{"a"}, "no configuration of a registry"},
		"another env":    {map[string]string{"a": "FOO=bar\n"}, []string{"a"}, "sets neither"},
		"empty":          {map[string]string{"a": ""}, []string{"a"}, ""},
		"two":            {map[string]string{"a": "version: 0.1\n", "b": "version: 0.1\n"}, []string{"a", "b"}, "are both configurations"},
		"two registries": {map[string]string{"a": "services:\n  a: {environment: {REGISTRY_AUTH_TOKEN_REALM: r, REGISTRY_AUTH_TOKEN_SERVICE: a}}\n  b: {environment: {REGISTRY_AUTH_TOKEN_REALM: r, REGISTRY_AUTH_TOKEN_SERVICE: b}}\n"},
			[]string{"a"}, "a:2, and otherwise at "},
		"two, one without":   {map[string]string{"a": "- {REGISTRY_AUTH_TOKEN_REALM: r, REGISTRY_AUTH_TOKEN_SERVICE: a}\n- {REGISTRY_AUTH_TOKEN_REALM: r}\n"}, []string{"a"}, "where REGISTRY_AUTH_TOKEN_SERVICE is not"},
		"two, one merged":    {map[string]string{"a": "x-e: &e {REGISTRY_AUTH_TOKEN_REALM: r, REGISTRY_AUTH_TOKEN_SERVICE: a}\nservices:\n  a: {environment: *e}\n  b: {environment: {<<: *e, REGISTRY_AUTH_TOKEN_SERVICE: b}}\n"}, []string{"a"}, "SERVICE is set at"},
		"two, both merged":   {map[string]string{"a": "x-e: &e {REGISTRY_AUTH_TOKEN_REALM: r}\nservices:\n  a: {environment: {<<: *e, REGISTRY_AUTH_TOKEN_SERVICE: a}}\n  b: {environment: {<<: *e, REGISTRY_AUTH_TOKEN_SERVICE: b}}\n"}, []string{"a"}, "a:3, and otherwise at "},
		"two, by flags":      {map[string]string{"a": "- {command: --bearer-auth, AUTH_REALM: r}\n- {command: --bearer-auth=false, AUTH_REALM: r}\n"}, []string{"a"}, "BEARER_AUTH is set at"},
		"two in documents":   {map[string]string{"a": "REGISTRY_AUTH_TOKEN_REALM: a\n---\nREGISTRY_AUTH_TOKEN_REALM: b\n"}, []string{"a"}, "a:3"},
		"two kinds":          {map[string]string{"a": "- {REGISTRY_AUTH_TOKEN_REALM: a, AUTH_REALM: b}\n"}, []string{"a"}, "one registry in it"},
		"twice in a file":    {map[string]string{"a": "REGISTRY_AUTH_TOKEN_REALM=a\nREGISTRY_AUTH_TOKEN_REALM=b\n"}, []string{"a"}, "a:2"},
		"a bad 2nd document": {map[string]string{"a": "version: 0.1\n---\n{]"}, []string{"a"}, "neither YAML"},
		"larger than bound":  {map[string]string{"a": strings.Repeat("#", 1<<20+1)}, []string{"a"}, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := written(t, c.files, c.give...); err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

// What each version makes of a configuration. That it is so of the real ones is shown in e2e/doctor.
func TestPredictions(t *testing.T) {
	chain := issuer.Service{Name: "reg", Issuer: "auth", Verifier: issuer.VerifierChain, Algorithm: issuer.ES256, Lifetime: time.Minute}
	with := func(change func(*issuer.Service)) issuer.Service {
		s := chain
		change(&s)
		return s
	}
	pinned := with(func(s *issuer.Service) { s.Verifier = issuer.VerifierPinned })
	pinnedRSA := with(func(s *issuer.Service) { s.Verifier, s.Algorithm = issuer.VerifierPinned, issuer.RS256 })
	set := with(func(s *issuer.Service) { s.Verifier = issuer.VerifierJWKS })
	edwards := with(func(s *issuer.Service) { s.Algorithm = issuer.EdDSA })
	const distribution = "version: 0.1\nauth:\n  token:\n    realm: ADDRESS\n    service: reg\n    issuer: auth\n"
	const unknown = "cannot be told cannot be told cannot be told cannot be told"
	const environment = "REGISTRY_AUTH_TOKEN_REALM=ADDRESS\nREGISTRY_AUTH_TOKEN_SERVICE=reg\nREGISTRY_AUTH_TOKEN_ISSUER=auth\nREGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE=bundle.pem\n"
	const open = "asks for no tokens asks for no tokens asks for no tokens"
	const zot = `{"http":{"auth":{"bearer":{"realm":"ADDRESS","service":"reg","cert":"bundle.pem"}}}}`
	ours := func(w *world) string { return string(issuer.EncodeCertificates(w.ring.For("reg").Anchor)) }
	jwks := func(w *world) string {
		text, err := issuer.JWKS(w.ring.PublishedFor("reg"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	strange := newWorld(t, chain)
	for name, c := range map[string]struct {
		service      issuer.Service
		text         string
		bundle, jwks func(*world) string
		want         string // verdicts in the order of verifiers
		check        string
		words        []string
	}{
		"fits":            {chain, distribution + "    rootcertbundle: bundle.pem\n", ours, nil, "accepts accepts accepts accepts", "stanza", nil},
		"issuer":          {chain, strings.Replace(distribution, "issuer: auth", "issuer: auth/", 1) + "    rootcertbundle: bundle.pem\n", ours, nil, "refuses refuses refuses refuses", "issuer", []string{"config.yml:6", "services[0].issuer"}},
		"service":         {chain, strings.Replace(distribution, "service: reg", "service: other", 1) + "    rootcertbundle: bundle.pem\n", ours, nil, "refuses refuses refuses refuses", "service", []string{"config.yml:5"}},
		"no service":      {chain, strings.Replace(distribution, "    service: reg\n", "", 1) + "    rootcertbundle: bundle.pem\n", ours, nil, "does not start does not start does not start does not start", "service", []string{"names no service"}},
		"no realm":        {chain, strings.Replace(distribution, "    realm: ADDRESS\n", "", 1) + "    rootcertbundle: bundle.pem\n", ours, nil, "does not start does not start does not start does not start", "realm", []string{"names no realm"}},
		"realm elsewhere": {chain, strings.Replace(distribution, "ADDRESS", "https://auth.test/token", 1) + "    rootcertbundle: bundle.pem\n", ours, nil, "accepts accepts accepts accepts", "realm", []string{"config.yml:4", "server.public_url: https://auth.test"}},
		"autoredirect":    {chain, distribution + "    rootcertbundle: bundle.pem\n    autoredirect: true\n", ours, nil, "accepts accepts accepts accepts", "realm", []string{"https://HOST/auth/token"}},
		"another root":    {chain, distribution + "    rootcertbundle: bundle.pem\n", func(*world) string { return ours(strange) }, nil, "refuses refuses refuses refuses", "root", []string{"another root of the same name", "authserver key export > bundle.pem"}},
		"the leaf":        {chain, distribution + "    rootcertbundle: bundle.pem\n", func(w *world) string { return string(issuer.EncodeCertificates(w.ring.For("reg").Chain[0])) }, nil, "accepts accepts accepts accepts", "root", []string{"not the root"}},
		"a private key beside": {chain, distribution + "    rootcertbundle: bundle.pem\n", func(w *world) string {
			return ours(w) + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
		}, nil, "does not start accepts accepts accepts", "bundle", []string{"holds a private key"}},
		"no PEM":                          {chain, distribution + "    rootcertbundle: bundle.pem\n", func(*world) string { return "-----BEGIN nothing\n" }, nil, "does not start does not start does not start does not start", "bundle", nil},
		"damaged":                         {chain, distribution + "    rootcertbundle: bundle.pem\n", func(*world) string { return "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }, nil, "does not start does not start does not start does not start", "bundle", nil},
		"no bundle":                       {chain, distribution, nil, nil, "does not start does not start does not start does not start", "bundle", []string{"names no rootcertbundle"}},
		"elsewhere":                       {chain, distribution + "    rootcertbundle: /nowhere/x.pem\n", nil, nil, "cannot be told cannot be told cannot be told cannot be told", "bundle", []string{"give a copy"}},
		"EdDSA":                           {edwards, distribution + "    rootcertbundle: bundle.pem\n", ours, nil, "refuses refuses accepts accepts", "algorithm", []string{"do not know EdDSA"}},
		"algorithms":                      {chain, distribution + "    rootcertbundle: bundle.pem\n    signingalgorithms: [RS256, EdDSA]\n", ours, nil, "accepts accepts refuses refuses", "algorithm", []string{"auth.token.signingalgorithms: [RS256, EdDSA, ES256]", "services[0].algorithm: RS256"}},
		"chain, JWKS alone":               {chain, distribution + "    jwks: keys.json\n", nil, jwks, "does not start does not start refuses refuses", "verifier-kind", []string{"verifier: jwks"}},
		"jwks":                            {set, distribution + "    jwks: keys.json\n", nil, jwks, "does not start does not start accepts accepts", "verifier-kind", []string{"is for distribution 3"}},
		"jwks, certificates":              {set, distribution + "    rootcertbundle: bundle.pem\n", func(*world) string { return ours(strange) }, nil, "refuses refuses refuses refuses", "verifier-kind", []string{"has no JWKS"}},
		"jwks, other keys":                {set, distribution + "    jwks: keys.json\n", nil, func(*world) string { return jwks(strange) }, "does not start does not start refuses refuses", "jwks", []string{"does not have the key that signs"}},
		"jwks, empty":                     {set, distribution + "    jwks: keys.json\n", nil, func(*world) string { return `{"keys":[]}` }, "does not start does not start does not start does not start", "jwks", nil},
		"jwks, elsewhere":                 {set, distribution + "    jwks: /nowhere/keys.json\n", nil, nil, "does not start does not start cannot be told cannot be told", "bundle", nil},
		"zot":                             {pinned, zot, ours, nil, "does not start accepts accepts", "algorithm", []string{"RSA only"}},
		"zot, RSA":                        {pinnedRSA, zot, ours, nil, "accepts accepts accepts", "stanza", nil},
		"zot, chain":                      {chain, zot, ours, nil, "does not start refuses refuses", "verifier-kind", []string{"verifier: pinned"}},
		"zot, another key":                {pinnedRSA, zot, func(*world) string { return ours(newWorld(t, pinnedRSA)) }, nil, "refuses refuses refuses", "key", nil},
		"zot, no certificate":             {pinnedRSA, strings.Replace(zot, `,"cert":"bundle.pem"`, "", 1), nil, nil, open, "registry-open", []string{"names no certificate"}},
		"zot, one beside":                 {pinnedRSA, strings.Replace(zot, `"bundle.pem"`, `"","jwks":"keys.json"`, 1), nil, jwks, open, "registry-open", []string{"names no certificate"}},
		"zot, no realm":                   {pinned, strings.Replace(zot, `"realm":"ADDRESS",`, "", 1), ours, nil, open, "registry-open", []string{"names no realm"}},
		"zot, no service":                 {pinnedRSA, strings.Replace(zot, `"reg"`, `""`, 1), nil, nil, open, "registry-open", []string{"names no service"}},
		"zot, a damaged one":              {pinnedRSA, strings.Replace(zot, `"reg"`, `""`, 1), func(*world) string { return "-----BEGIN nothing\n" }, nil, open, "registry-open", nil},
		"zot, passwords":                  {pinnedRSA, strings.Replace(zot, `{"auth":{`, `{"auth":{"htpasswd":{"path":"x"},`, 1), ours, nil, "accepts accepts accepts", "stanza", nil},
		"zot, passwords alone":            {pinnedRSA, `{"http":{"auth":{"htpasswd":{"path":"x"},"bearer":{"service":"reg","cert":"bundle.pem"}}}}`, ours, nil, "", "not-token", []string{"asks for htpasswd"}},
		"zot, a JWKS":                     {pinned, zot, jwks, nil, "does not start does not start accepts", "bundle", nil},
		"zot, a JWKS of nothing":          {pinned, strings.Replace(zot, `"bundle.pem"`, `"bundle.pem","jwks":"keys.json"`, 1), ours, func(*world) string { return `{"keys":[]}` }, "does not start accepts accepts", "algorithm", nil},
		"zot, no JWKS at all":             {pinned, strings.Replace(zot, `"bundle.pem"`, `"/nowhere/x.pem","jwks":"keys.json"`, 1), nil, func(*world) string { return "x" }, "refuses cannot be told cannot be told", "bundle", nil},
		"chartmuseum":                     {pinnedRSA, "BEARER_AUTH=true\nAUTH_REALM=ADDRESS\nAUTH_SERVICE=reg\nAUTH_CERT_PATH=bundle.pem\n", ours, nil, "accepts", "stanza", nil},
		"chartmuseum, compose":            {pinnedRSA, "services: {charts: {environment: {BEARER_AUTH: \"1\", AUTH_REALM: ADDRESS, AUTH_SERVICE: reg, AUTH_CERT_PATH: bundle.pem}}}", ours, nil, "accepts", "stanza", nil},
		"chartmuseum, an argument":        {pinnedRSA, "services: {charts: {command: --debug --bearer-auth, environment: {AUTH_REALM: ADDRESS, AUTH_SERVICE: reg, AUTH_CERT_PATH: bundle.pem}}}", ours, nil, "accepts", "stanza", nil},
		"chartmuseum, with a value":       {pinnedRSA, "services: {charts: {command: [\"--debug\", \"--bearer-auth=true\"], environment: {AUTH_REALM: ADDRESS, AUTH_SERVICE: reg, AUTH_CERT_PATH: bundle.pem}}}", ours, nil, "accepts", "stanza", nil},
		"chartmuseum, both":               {pinnedRSA, "services: {charts: {command: --bearer-auth, environment: {BEARER_AUTH: \"true\", AUTH_REALM: ADDRESS, AUTH_SERVICE: reg, AUTH_CERT_PATH: bundle.pem}}}", ours, nil, "accepts", "stanza", nil},
		"chartmuseum, the flag wins":      {pinnedRSA, "services:\n  charts:\n    command: [--bearer-auth=false]\n    environment: {BEARER_AUTH: \"true\", AUTH_REALM: ADDRESS, AUTH_SERVICE: reg, AUTH_CERT_PATH: bundle.pem}\n", ours, nil, "", "not-token", []string{"config.yml:3", "--bearer-auth=true"}},
		"chartmuseum, no service":         {pinnedRSA, "BEARER_AUTH=true\nAUTH_REALM=ADDRESS\nAUTH_CERT_PATH=bundle.pem\n", ours, nil, "does not start", "service", []string{"names no service"}},
		"chartmuseum, no file":            {pinnedRSA, "BEARER_AUTH=true\nAUTH_REALM=ADDRESS\nAUTH_SERVICE=reg\n", nil, nil, "does not start", "bundle", []string{"names no certificate"}},
		"passwords too":                   {chain, strings.Replace(distribution, "  token:", "  htpasswd: {realm: x, path: y}\n  token:", 1) + "    rootcertbundle: bundle.pem\n", ours, nil, "does not start does not start does not start does not start", "not-token", []string{"htpasswd, token", "exactly one type"}},
		"passwords too, merged":           {chain, strings.Replace("x: &x {htpasswd: {}}\n"+distribution, "  token:", "  <<: *x\n  token:", 1) + "    rootcertbundle: bundle.pem\n", ours, nil, "does not start does not start does not start does not start", "not-token", []string{"htpasswd, token"}},
		"environment":                     {chain, environment + "REGISTRY_AUTH=token\n", ours, nil, "accepts accepts accepts accepts", "stanza", nil},
		"environment, none":               {chain, environment + "REGISTRY_AUTH=none\n", ours, nil, "", "not-token", []string{"none, token"}},
		"environment, passwords":          {chain, environment + "REGISTRY_AUTH_HTPASSWD_PATH=x\n", ours, nil, "", "not-token", []string{"htpasswd, token"}},
		"merged":                          {chain, "x: &x {realm: ADDRESS, issuer: auth, service: other}\ny: &y {service: reg, rootcertbundle: bundle.pem}\nauth: {token: {<<: [*y, *x]}}\n", ours, nil, "accepts accepts accepts accepts", "stanza", nil},
		"valueFrom":                       {chain, "- {name: REGISTRY_AUTH_TOKEN_REALM, value: ADDRESS}\n- {name: REGISTRY_AUTH_TOKEN_SERVICE, value: reg}\n- {name: REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE, value: bundle.pem}\n- name: REGISTRY_AUTH_TOKEN_ISSUER\n  valueFrom: {secretKeyRef: {name: x, key: y}}\n", ours, nil, unknown, "issuer", []string{"REGISTRY_AUTH_TOKEN_ISSUER is not known here: valueFrom", "config.yml:4"}},
		"envFrom":                         {chain, "envFrom: [{secretRef: {name: x}}]\nenv:\n- {name: REGISTRY_AUTH_TOKEN_REALM, value: ADDRESS}\n- {name: REGISTRY_AUTH_TOKEN_SERVICE, value: reg}\n- {name: REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE, value: bundle.pem}\n", ours, nil, unknown, "issuer", []string{"in envFrom"}},
		"a variable for the realm":        {chain, strings.Replace(environment, "ADDRESS", "${AUTH_URL}/token", 1), ours, nil, unknown, "realm", []string{"${AUTH_URL}/token", "docker compose config"}},
		"for the realm of a file":         {chain, strings.Replace(distribution, "ADDRESS", `"{{ .Values.realm }}"`, 1) + "    rootcertbundle: bundle.pem\n", ours, nil, unknown, "realm", []string{"{{ .Values.realm }}"}},
		"for the realm, without quotes":   {chain, strings.Replace(distribution, "ADDRESS", `{{ .Values.realm }}`, 1) + "    rootcertbundle: bundle.pem\n", ours, nil, unknown, "realm", []string{"a mapping"}},
		"for the service":                 {chain, strings.Replace(environment, "=reg", "=$(SERVICE)", 1), ours, nil, unknown, "service", []string{"$(SERVICE)"}},
		"a dollar in a file":              {with(func(s *issuer.Service) { s.Name = "a$b" }), strings.Replace(distribution, "reg\n", "a$b\n", 1) + "    rootcertbundle: bundle.pem\n", nil, nil, unknown, "bundle", []string{"no such file"}},
		"for the service, another root":   {chain, strings.Replace(environment, "=reg", "=$SERVICE", 1), func(*world) string { return ours(strange) }, nil, "refuses refuses refuses refuses", "root", nil},
		"for the certificates":            {chain, strings.Replace(environment, "=bundle", "=${DIR}/bundle", 1), ours, nil, unknown, "bundle", []string{"${DIR}/bundle.pem"}},
		"for the JWKS":                    {set, distribution + "    jwks: ${DIR}/keys.json\n", nil, jwks, "does not start does not start cannot be told cannot be told", "bundle", []string{"${DIR}/keys.json"}},
		"for an algorithm":                {chain, distribution + "    rootcertbundle: bundle.pem\n    signingalgorithms: [ES256, \"${ALG}\"]\n", ours, nil, "accepts accepts cannot be told cannot be told", "algorithm", nil},
		"for the type":                    {chain, environment + "REGISTRY_AUTH=${TYPE:-token}\n", ours, nil, unknown, "not-token", nil},
		"for BEARER_AUTH":                 {pinnedRSA, "BEARER_AUTH=${BEARER}\nAUTH_REALM=ADDRESS\nAUTH_SERVICE=reg\nAUTH_CERT_PATH=bundle.pem\n", ours, nil, "cannot be told", "not-token", nil},
		"the shell's":                     {chain, "environment:\n  - REGISTRY_AUTH_TOKEN_ISSUER\n  - REGISTRY_AUTH_TOKEN_REALM=ADDRESS\n  - REGISTRY_AUTH_TOKEN_SERVICE=reg\n  - REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE=bundle.pem\n", ours, nil, unknown, "issuer", []string{"whoever starts it"}},
		"null":                            {chain, strings.Replace(distribution, ": auth", ": null", 1) + "    rootcertbundle: bundle.pem\n", ours, nil, "does not start does not start does not start does not start", "issuer", []string{"names no issuer"}},
		"merged over":                     {chain, "x: &x {issuer: other}\n" + distribution + "    rootcertbundle: bundle.pem\n    <<: *x\n", ours, nil, unknown, "issuer", []string{"said before <<"}},
		"merged under":                    {chain, "x: &x {issuer: other}\n" + strings.Replace(distribution, "  token:\n", "  token:\n    <<: *x\n", 1) + "    rootcertbundle: bundle.pem\n", ours, nil, "accepts accepts accepts accepts", "stanza", nil},
		"the second document":             {chain, "kind: Service\n---\nkind: Deployment\nenv:\n- {name: REGISTRY_AUTH_TOKEN_REALM, value: ADDRESS}\n- {name: REGISTRY_AUTH_TOKEN_SERVICE, value: reg}\n- {name: REGISTRY_AUTH_TOKEN_ISSUER, value: &i auth}\n- {name: REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE, value: bundle.pem}\n", ours, nil, "accepts accepts accepts accepts", "stanza", nil},
		"an alias":                        {chain, "x: &r ADDRESS\nenvironment: {REGISTRY_AUTH_TOKEN_REALM: *r, REGISTRY_AUTH_TOKEN_SERVICE: reg, REGISTRY_AUTH_TOKEN_ISSUER: auth, REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE: bundle.pem}\n", ours, nil, "accepts accepts accepts accepts", "stanza", nil},
		"an override":                     {chain, "x-env: &e {REGISTRY_AUTH_TOKEN_REALM: ADDRESS, REGISTRY_AUTH_TOKEN_SERVICE: other, REGISTRY_AUTH_TOKEN_ISSUER: auth}\nservices:\n  registry:\n    environment: {<<: *e, REGISTRY_AUTH_TOKEN_SERVICE: reg, REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE: bundle.pem}\n", ours, nil, "accepts accepts accepts accepts", "stanza", nil},
		"an override of a service":        {chain, "x-registry: &r\n  environment: [REGISTRY_AUTH_TOKEN_REALM=other]\nservices:\n  registry:\n    <<: *r\n    environment: [REGISTRY_AUTH_TOKEN_REALM=ADDRESS, REGISTRY_AUTH_TOKEN_SERVICE=reg, REGISTRY_AUTH_TOKEN_ISSUER=auth, REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE=bundle.pem]\n", ours, nil, "accepts accepts accepts accepts", "stanza", nil},
		"an environment elsewhere":        {chain, "x-env: &e {REGISTRY_AUTH_TOKEN_REALM: ADDRESS, REGISTRY_AUTH_TOKEN_SERVICE: reg, REGISTRY_AUTH_TOKEN_ISSUER: auth, REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE: bundle.pem}\nservices: {registry: {environment: *e}, collector: {environment: *e}}\n", ours, nil, "accepts accepts accepts accepts", "stanza", nil},
		"lines elsewhere":                 {chain, "x-realm: &r REGISTRY_AUTH_TOKEN_REALM=ADDRESS\nx-issuer: &i REGISTRY_AUTH_TOKEN_ISSUER\nservices: {registry: {environment: [*r, *i, REGISTRY_AUTH_TOKEN_SERVICE=reg, REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE=bundle.pem]}}\n", ours, nil, unknown, "issuer", []string{"whoever starts it"}},
		"one that holds itself":           {chain, "services: &s\n  all: *s\n  registry: {environment: {REGISTRY_AUTH_TOKEN_REALM: ADDRESS, REGISTRY_AUTH_TOKEN_SERVICE: reg, REGISTRY_AUTH_TOKEN_ISSUER: auth, REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE: bundle.pem}}\n", ours, nil, "accepts accepts accepts accepts", "stanza", nil},
		"PEM in a comment":                {chain, strings.Replace(distribution, "issuer: auth", "issuer: other # -----BEGIN X", 1) + "    rootcertbundle: bundle.pem\n", ours, nil, "refuses refuses refuses refuses", "issuer", nil},
		"a JWKS as certificates":          {set, distribution + "    rootcertbundle: keys.json\n", nil, jwks, "does not start does not start does not start does not start", "bundle", []string{"holds no certificate"}},
		"zot, keys of AWS":                {pinnedRSA, strings.Replace(zot, `"cert":"bundle.pem"`, `"awsSecretsManager":{"region":"x"}`, 1), nil, nil, "cannot be told cannot be told cannot be told", "bundle", []string{"awsSecretsManager"}},
		"zot, keys of AWS, and one given": {pinnedRSA, strings.Replace(zot, `"cert":"bundle.pem"`, `"awsSecretsManager":{"region":"x"}`, 1), ours, nil, "cannot be told cannot be told cannot be told", "bundle", []string{"awsSecretsManager"}},
		"notary, a variable":              {chain, `{"auth":{"type":"${TYPE}","options":{"realm":"ADDRESS","service":"reg","issuer":"auth","rootcertbundle":"bundle.pem"}}}`, ours, nil, "cannot be told", "not-token", nil},
		"zot, OIDC":                       {pinnedRSA, `{"http":{"auth":{"bearer":{"oidc":[{"issuer":"x"}]}}}}`, nil, nil, "cannot be told cannot be told cannot be told", "realm", []string{"oidc"}},
		"notary":                          {chain, `{"auth":{"type":"token","options":{"realm":"ADDRESS","service":"reg","issuer":"auth","rootcertbundle":"bundle.pem"}}}`, ours, nil, "accepts", "stanza", nil},
		"capitals and an and":             {with(func(s *issuer.Service) { s.Name = "Reg&" }), strings.Replace(distribution, "service: reg", `service: "Reg&"`, 1) + "    rootcertbundle: /nowhere\n", nil, nil, "cannot be told cannot be told cannot be told cannot be told", "service-characters", []string{`"&"`}},
		"certificates by itself":          {chain, "", ours, nil, "accepts accepts accepts accepts accepts", "", nil},
		"a JWKS by itself":                {set, "", nil, jwks, "refuses refuses accepts accepts refuses", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.service)
			w.subject.Registry = ""
			files := map[string]string{}
			var give []string
			if c.text != "" {
				files["config.yml"], give = strings.Replace(c.text, "ADDRESS", w.registry.realm, 1), []string{"config.yml"}
			}
			if c.bundle != nil {
				files["bundle.pem"] = c.bundle(w)
			}
			if c.jwks != nil {
				files["keys.json"] = c.jwks(w)
			}
			if strings.HasSuffix(name, "given") {
				give = append(give, "bundle.pem")
			}
			if c.text == "" {
				for name := range files {
					give = append(give, name)
				}
			}
			s, err := written(t, files, give...)
			if err != nil {
				t.Fatal(err)
			}
			w.subject.Stanza = s
			report := &doctor.Report{}
			w.subject.Wiring(context.Background(), report)
			for _, p := range report.Predictions {
				if (p.Verdict == doctor.Accepts) != (len(p.Because) == 0) {
					t.Errorf("%s %s because of %v", p.Verifier, p.Verdict, p.Because)
				}
			}
			if got := verdicts(report); got != c.want {
				t.Errorf("verdicts %s\nwant     %s\n%s", got, c.want, show(report))
			}
			if strings.Contains(c.want, doctor.Accepts) && c.check != "service" && c.check != "realm" && name != "algorithms" && report.Worst() == doctor.Error {
				t.Errorf("an error, although it works with some versions\n%s", show(report))
			}
			if c.check != "" {
				found := false
				for _, f := range report.Findings {
					text := fmt.Sprintf("%s %s %v", f.What, f.Why, f.Fixes)
					all := f.Check == c.check
					for _, word := range c.words {
						all = all && strings.Contains(text, word)
					}
					found = found || all
				}
				if !found {
					t.Errorf("no %s with %q in\n%s", c.check, c.words, show(report))
				}
			}
		})
	}
}

// What is given and what the configuration does not name the registry does not read either.
func TestWhatIsGivenAndNotNamed(t *testing.T) {
	const down = "does not start does not start does not start does not start"
	for verifier, given := range map[string]string{issuer.VerifierChain: "root.pem", issuer.VerifierJWKS: "keys.json"} {
		w := newWorld(t, issuer.Service{Name: "reg", Issuer: "auth", Verifier: verifier, Algorithm: issuer.ES256, Lifetime: time.Minute})
		keys, err := issuer.JWKS(w.ring.PublishedFor("reg"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := written(t, map[string]string{
			"config.yml": "version: 0.1\nauth:\n  token: {realm: " + w.registry.realm + ", service: reg, issuer: auth}\n",
			"root.pem":   string(issuer.EncodeCertificates(w.ring.Roots()...)), "keys.json": string(keys),
		}, "config.yml", given)
		if err != nil {
			t.Fatal(err)
		}
		w.subject.Registry, w.subject.Stanza = "", s
		if r := w.examine(); verdicts(r) != down {
			t.Errorf("%s: %s\n%s", given, verdicts(r), show(r))
		}
	}
}

// Of several services, an unknown one may be any.
func TestAnUnknownServiceOfSeveral(t *testing.T) {
	w := newWorld(t)
	w.subject.Registry, w.subject.Stanza = "", w.stanza(t, "${SERVICE}", "other", issuer.EncodeCertificates(newWorld(t).ring.Roots()...))
	r := w.examine()
	if verdicts(r) != "cannot be told cannot be told cannot be told cannot be told" {
		t.Errorf("%s\n%s", verdicts(r), show(r))
	}
	want(t, r, "service", doctor.Note, "${SERVICE}")
}

// What needs no key is compared without one; the rest is not known, and nothing is said to fit.
func TestPredictionsWithoutAKey(t *testing.T) {
	const unknown = "cannot be told"
	for name, c := range map[string]struct {
		file, text string
		want       string
		worst      doctor.Severity
	}{
		"what would fit":     {"root.pem", "    service: reg\n    issuer: auth\n", unknown + " " + unknown + " " + unknown + " " + unknown, doctor.Note},
		"another issuer":     {"root.pem", "    service: reg\n    issuer: WRONG\n", "refuses refuses refuses refuses", doctor.Error},
		"another service":    {"root.pem", "    service: other\n    issuer: auth\n", "refuses refuses refuses refuses", doctor.Error},
		"no issuer":          {"root.pem", "    service: reg\n", "does not start does not start does not start does not start", doctor.Error},
		"a public key in it": {"blocks.pem", "    service: reg\n    issuer: auth\n", "does not start " + unknown + " " + unknown + " " + unknown, doctor.Note},
	} {
		for kind, takeAway := range map[string]func(*doctor.Subject){
			"of anybody":      func(s *doctor.Subject) { s.Ring = nil },
			"before they are": func(s *doctor.Subject) { s.Ring, s.NoKeys = nil, true },
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				w := newWorld(t, issuer.Service{Name: "reg", Issuer: "auth", Verifier: issuer.VerifierChain, Algorithm: issuer.ES256, Lifetime: time.Minute})
				root := string(issuer.EncodeCertificates(w.ring.For("reg").Anchor))
				s, err := written(t, map[string]string{
					"config.yml": "version: 0.1\nauth:\n  token:\n    realm: " + w.registry.realm + "\n    rootcertbundle: " + c.file + "\n" + c.text,
					"root.pem":   root, "blocks.pem": root + "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
				}, "config.yml")
				if err != nil {
					t.Fatal(err)
				}
				w.subject.Registry, w.subject.Stanza = "", s
				takeAway(w.subject)
				r := w.examine()
				var stanza doctor.Report // what stands there beside it is not ours to judge
				for _, f := range r.Findings {
					if f.Check == "stanza" {
						t.Errorf("%s", f.What)
					}
					if f.Check != "other-keys" && f.Check != "public-url" {
						stanza.Findings = append(stanza.Findings, f)
					}
				}
				if verdicts(r) != c.want || stanza.Worst() != c.worst {
					t.Errorf("verdicts %s, want %s; the worst is %s, want %s\n%s", verdicts(r), c.want, stanza.Worst(), c.worst, show(r))
				}
			})
		}
	}
}

// verdicts are those of a report, in the order of verifiers.
func verdicts(r *doctor.Report) string {
	var list []string
	for _, p := range r.Predictions {
		list = append(list, p.Verdict)
	}
	return strings.Join(list, " ")
}

// Some files of /proc, as /proc/kmsg, pass for regular ones and do not end.
func TestAFileThatTheKernelMakesIsNotRead(t *testing.T) {
	if _, err := os.Stat("/proc/version"); err != nil {
		t.Skip("there is no /proc")
	}
	s, err := written(t, map[string]string{"file": "version: 0.1\nauth:\n  token:\n    realm: R\n    service: registry.test\n    issuer: auth\n    rootcertbundle: /proc/version\n"}, "file")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.subject.Registry, w.subject.Stanza = "", s
	want(t, w.examine(), "bundle", doctor.Error, "/proc/version") // as one that is empty
}

// A small file can merge without end: each mapping has what the one before has, and one more.
func TestWhatMergesWithoutEndIsNotRead(t *testing.T) {
	chained := func(n int) string {
		var text strings.Builder
		text.WriteString("a0: &a0 {k0: v}\n")
		for i := 1; i < n; i++ {
			fmt.Fprintf(&text, "a%d: &a%d {<<: *a%d, k%d: v}\n", i, i, i-1, i)
		}
		return text.String() + "services: {registry: {environment: {REGISTRY_AUTH_TOKEN_REALM: R}}}\n"
	}
	if _, err := written(t, map[string]string{"file": chained(10_000)}, "file"); err == nil || !strings.Contains(err.Error(), "merges (<<)") {
		t.Errorf("%v", err)
	}
	if _, err := written(t, map[string]string{"file": chained(100)}, "file"); err != nil {
		t.Error(err)
	}
}
