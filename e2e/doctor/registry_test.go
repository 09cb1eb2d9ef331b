package doctor_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

var everyVersion = []string{"2.5.2", "2.8.3", "3.0.0", "3.1.2"}

// services is a configuration with services of these verifiers and algorithms, "registry.test" first.
func services(list ...string) string {
	text := "issuer:\n  name: authserver\nservices:\n"
	for i, s := range list {
		verifier, algorithm, _ := strings.Cut(s, " ")
		name := "registry.test"
		if i > 0 {
			name = fmt.Sprintf("other%d.test", i)
		}
		text += fmt.Sprintf("  - name: %s\n    verifier: %s\n    algorithm: %s\n", name, verifier, algorithm)
	}
	return text + "users:\n  - kind: htpasswd\n    file: users.htpasswd\nacl:\n  files: [policy.yaml]\n"
}

const (
	key    = "auth.token."
	export = "registry authserver key export > "
)

// trusts has the registry believe an exported file instead of the root.
func trusts(setting, format string) func(*world) {
	return func(w *world) {
		w.registry.set("rootcertbundle", "")
		w.registry.set(setting, w.auth.Export(w, format, "registry.test"))
	}
}

func one(w ...want) []want { return w }

func TestHealthy(t *testing.T) {
	t.Parallel()
	for _, c := range []wiring{
		{name: "chain", versions: everyVersion},
		{name: "chain RS256", versions: everyVersion, options: harness.Options{Config: services("chain RS256", "jwks ES256", "pinned RS256")}},
		{name: "jwks", versions: []string{"3.0.0", "3.1.2"}, options: harness.Options{Config: services("jwks ES256")}, broken: trusts("jwks", "jwks")},
		{name: "jwks EdDSA", versions: []string{"3.1.2"}, options: harness.Options{Config: services("jwks EdDSA")}, broken: trusts("jwks", "jwks")},
		{name: "pinned", versions: everyVersion, options: harness.Options{Config: services("pinned ES256")}, broken: trusts("rootcertbundle", "pem")},
		{name: "root and jwks", versions: []string{"3.1.2"}, options: harness.Options{Config: services("chain ES256", "jwks ES256")}, broken: func(w *world) {
			w.registry.set("jwks", w.auth.Export(w, "jwks", "other1.test"))
		}},
	} {
		c.live, c.both, c.pulls = []want{}, []want{}, true
		c.run(t)
	}
}

// elsewhere makes an authserver that is no other than ours, but for its keys.
func elsewhere(w *world) *harness.Authserver {
	return harness.StartAuthserver(w, harness.Options{})
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	wrongIssuer := func(theirs string) wiring {
		said := one(want{"issuer", "error", `the registry takes tokens from "` + theirs + `" only; ours say "authserver"`, []string{"registry " + key + "issuer: authserver", "authserver services[0].issuer: "}})
		return wiring{
			name: "issuer " + theirs, broken: func(w *world) { w.registry.set("issuer", theirs) },
			live: said, both: said, file: said, mended: []string{"registry " + key + "issuer", "authserver services[0].issuer", "live: registry " + key + "issuer"},
		}
	}
	refuses := want{"trial", "error", "as what stands above lets expect", nil}
	jwks := harness.Options{Config: services("jwks ES256")}
	bundle := func(content func(w *world) string) func(*world) {
		return func(w *world) { w.write(w.registry.trust, content(w)) }
	}
	root := func(w *world) string { return string(harness.ReadFile(w, w.auth.Root)) }
	data := func(w *world, file string) string {
		return string(harness.ReadFile(w, filepath.Join(w.auth.Dir, "data", file)))
	}

	for _, c := range []wiring{
		wrongIssuer("authserver/"),
		wrongIssuer("Acme auth server"),
		{
			name: "issuer that YAML would take for something else", options: harness.Options{Config: strings.Replace(services("chain ES256"), "name: authserver", `name: "token: issuer #1"`, 1)},
			broken: func(w *world) { w.registry.set("issuer", "token") },
			both:   one(want{"issuer", "error", `takes tokens from "token" only; ours say "token: issuer #1"`, []string{"registry " + key + `issuer: "token: issuer #1"`}}), mended: []string{"registry " + key + "issuer"},
		},
		{
			name: "issuer is public_url", broken: func(w *world) { w.registry.set("issuer", w.auth.URL) },
			live: one(want{"issuer", "error", "the registry takes tokens from \"http://localhost:…\" only", []string{"registry " + key + "issuer: authserver"}}), mended: []string{"registry " + key + "issuer", "authserver services[0].issuer"},
		},
		{
			name: "issuer that cannot be guessed", versions: []string{"3.0.0", "3.1.2"}, broken: func(w *world) { w.registry.set("issuer", "7fb3a0c2") },
			live:   one(want{"issuer", "error", `trusts our key, and refuses tokens from "authserver"`, []string{"registry " + key + "issuer: authserver", "authserver services[0].issuer"}}),
			both:   one(want{"issuer", "error", `takes tokens from "7fb3a0c2" only; ours say "authserver"`, []string{"registry " + key + "issuer: authserver"}}),
			mended: []string{"registry " + key + "issuer", "live: registry " + key + "issuer"},
		},
		{
			name: "issuer that cannot be guessed", versions: []string{"2.5.2", "2.8.3"}, broken: func(w *world) { w.registry.set("issuer", "7fb3a0c2") },
			live:   one(want{"root", "error", "it does not trust the key (…), or has another issuer", []string{"registry authserver key export", "registry " + key + "issuer: authserver"}}),
			mended: []string{"registry " + key + "issuer"},
		},
		{
			name: "service that is not listed", broken: func(w *world) { w.registry.set("service", "regisrty.test") },
			live:   one(want{"service", "error", `the registry's service is "regisrty.test"; services has "registry.test"`, []string{"registry " + key + "service: registry.test", "authserver services"}}),
			file:   one(want{"service", "error", `the registry's service is "regisrty.test"; services has "registry.test"`, []string{"registry " + key + "service: registry.test", "authserver services"}}),
			both:   one(want{"service", "error", `the registry's service is "regisrty.test"; services has "registry.test"`, []string{"registry " + key + "service: registry.test", "authserver services"}}),
			mended: []string{"registry " + key + "service: registry.test", "authserver services", "live: registry " + key + "service"},
		},
		{
			name: "realm where nobody listens", broken: func(w *world) { w.registry.set("realm", fmt.Sprintf("http://localhost:%d/token", harness.FreePort(w))) },
			live:   one(want{"realm", "error", "the registry sends clients to http://localhost:…/token; our token endpoint is http://localhost:…/token", []string{"registry " + key + "realm: http://localhost:"}}),
			file:   one(want{"realm", "error", "the registry sends clients to", []string{"registry " + key + "realm: http://localhost:", "authserver server.public_url: http://localhost:"}}),
			both:   one(want{"realm", "error", "the registry sends clients to", nil}),
			mended: []string{"registry " + key + "realm", "live: registry " + key + "realm"},
		},
		{
			name: "realm of another token server", broken: func(w *world) { w.registry.set("realm", elsewhere(w).URL+"/token") },
			live: one(want{"realm", "error", "where another token server answers", []string{"registry " + key + "realm"}}), mended: []string{"registry " + key + "realm"},
		},
		{
			name: "realm without its path", broken: func(w *world) { w.registry.set("realm", w.auth.URL) },
			live: one(want{"realm", "error", "where no token server answers (404)", []string{"registry " + key + "realm"}}),
			both: one(want{"realm", "error", "the registry sends clients to", []string{"registry " + key + "realm"}}), mended: []string{"registry " + key + "realm"},
		},
		{
			name: "realm is another address of ours", broken: func(w *world) {
				w.registry.set("realm", strings.Replace(w.auth.URL, "localhost", "127.0.0.1", 1)+"/token")
			},
			live: one(want{"realm", "warning", "authserver answers there too", []string{"registry " + key + "realm", "authserver server.public_url"}},
				want{"realm-address", "error", "the realm's host 127.0.0.1 is a private address, and not the registry's host", []string{"registry " + key + "realm"}}),
			mended: []string{"registry " + key + "realm"},
		},
		{
			name: "realm redirects", broken: func(w *world) {
				w.registry.set("realm", w.listen(http.RedirectHandler(w.auth.URL+"/token", http.StatusFound))+"/token")
			},
			live: one(want{"redirect", "error", "which redirects to http://localhost:", []string{"registry " + key + "realm"}}), mended: []string{"registry " + key + "realm"}, pulls: true,
		},
		{
			name: "root of keys that were lost", broken: bundle(func(w *world) string { return string(harness.ReadFile(w, elsewhere(w).Root)) }),
			live:   one(want{"root", "error", "does not trust the key (", []string{"registry authserver key export", "registry " + key + "issuer"}}),
			file:   one(want{"root", "error", "token-root.pem holds another root of the same name, valid from 20…); ours is valid from 20", []string{export}}),
			both:   one(want{"root", "error", "token-root.pem holds another root of the same name, valid from 20…); ours is valid from 20", []string{export}}, refuses),
			mended: []string{export, "live: registry authserver key export"},
		},
		{
			name: "root of somebody else", broken: bundle(func(w *world) string { return string(harness.ReadFile(w, harness.NewCA(w).File)) }),
			file: one(want{"root", "error", "token-root.pem does not hold the root of our keys (", []string{export}}),
			both: one(want{"root", "error", "token-root.pem does not hold the root of our keys (", []string{export}}, refuses), mended: []string{export},
		},
		{
			name: "not restarted", broken: bundle(func(w *world) string { return string(harness.ReadFile(w, elsewhere(w).Root)) }),
			after: func(w *world) { w.write(w.registry.trust, root(w)) },
			both:  one(want{"restart", "error", "refuses our tokens, although the files that were given fit", []string{"registry restart it"}}), mended: []string{"registry restart it"},
		},
		{
			name: "bundle holds the leaf only", broken: bundle(func(w *world) string { return data(w, "chain/es256.crt") }),
			file: one(want{"root", "warning", "token-root.pem holds the signing key's certificate and not the root", []string{export}}),
			both: one(want{"root", "warning", "token-root.pem holds the signing key's certificate and not the root", []string{export}}), mended: []string{export}, pulls: true,
		},
		{
			name: "bundle holds a private key", broken: bundle(func(w *world) string { return root(w) + data(w, "root.key") }),
			both: one(want{"bundle", "warning", "token-root.pem holds a private key", []string{export}}, want{"bundle-blocks", "note", `token-root.pem has a block "PRIVATE KEY"`, []string{export}}), mended: []string{export}, pulls: true,
		},
		{
			name: "jwks only and tokens with certificates", versions: []string{"3.0.0", "3.1.2"}, options: harness.Options{Config: services("chain ES256", "jwks ES256")},
			broken: func(w *world) {
				w.registry.set("rootcertbundle", "")
				file := filepath.Join(w.TempDir(), "jwks.json") // with the key that signs: it was made from what is published
				response, err := http.Get(w.auth.URL + "/.well-known/jwks.json")
				if err != nil {
					w.Fatal(err)
				}
				defer response.Body.Close()
				out, err := os.Create(file)
				if err != nil {
					w.Fatal(err)
				}
				defer out.Close()
				if _, err := out.ReadFrom(response.Body); err != nil {
					w.Fatal(err)
				}
				w.registry.set("jwks", file)
			},
			live: one(want{"verifier-kind", "error", "without certificates only: it has a JWKS and no rootcertbundle", []string{"authserver services[0].verifier: jwks", "registry " + key + "rootcertbundle"}}),
			both: one(want{"verifier-kind", "error", "the registry has a JWKS and no certificates", []string{"authserver services[0].verifier: jwks", "registry " + key + "rootcertbundle"}},
				want{"verifier-kind", "error", "without certificates only: it has a JWKS and no rootcertbundle", nil}),
			mended: []string{"authserver services[0].verifier: jwks", "registry " + key + "rootcertbundle", "live: registry " + key + "rootcertbundle"},
		},
		{
			name: "certificates only and tokens without", versions: []string{"3.0.0", "3.1.2"}, options: harness.Options{Config: services("jwks ES256", "chain ES256")},
			live: one(want{"verifier-kind", "error", `trusts the key of service "other1.test", and calls itself "registry.test"`, []string{"authserver services[0].verifier: chain"}}),
			file: one(want{"verifier-kind", "error", `the registry has no JWKS; tokens for "registry.test" carry no certificates`, []string{"authserver services[0].verifier: chain", "registry " + key + "jwks"}},
				want{"verifier-kind", "error", "registries up to 2.8, GitLab's and Notary know no JWKS", nil}),
			both:   one(want{"verifier-kind", "error", `the registry has no JWKS; tokens for "registry.test" carry no certificates`, []string{"registry " + key + "jwks"}}, want{"verifier-kind", "error", "registries up to 2.8", nil}, want{"verifier-kind", "error", "trusts the key of service", nil}),
			mended: []string{"authserver services[0].verifier: chain", "registry " + key + "jwks", "live: authserver services[0].verifier: chain"},
		},
		{
			name: "certificates only and no tokens with any", options: jwks, broken: func(w *world) { w.write(w.registry.trust, string(harness.ReadFile(w, elsewhere(w).Root))) },
			live: one(want{"root", "error", "does not trust the key", []string{"authserver services[0].verifier: chain, if it has a rootcertbundle"}}),
		},
		{
			name: "JWKS without the key that signs", versions: []string{"3.1.2"}, options: jwks,
			broken: func(w *world) {
				trusts("jwks", "jwks")(w)
				w.auth.Command(w, "", "key", "rotate", "--service", "registry.test")
				w.auth.Command(w, "", "key", "rotate", "--service", "registry.test", "--activate")
				w.restartAuth()
			},
			live:   one(want{"root", "error", "it does not trust the key (", []string{"registry authserver key export --format jwks --service registry.test"}}),
			both:   one(want{"jwks", "error", "does not have the key that signs (", []string{"registry authserver key export --format jwks --service registry.test"}}, refuses),
			mended: []string{"registry authserver key export --format jwks"},
		},
		{
			name: "names with blanks", versions: []string{"3.1.2"}, options: harness.Options{Config: strings.Replace(services("jwks ES256"), "registry.test", `"it's my registry"`, 1)},
			broken: func(w *world) {
				file := filepath.Join(w.TempDir(), "the keys; of $HOME.json")
				w.write(file, string(harness.ReadFile(w, w.auth.Export(w, "jwks", "it's my registry"))))
				w.registry.set("service", `"it's my registry"`)
				w.registry.set("rootcertbundle", "")
				w.registry.set("jwks", fmt.Sprintf("%q", file))
				w.auth.Command(w, "", "key", "rotate", "--service", "it's my registry")
				w.auth.Command(w, "", "key", "rotate", "--service", "it's my registry", "--activate")
				w.restartAuth()
			},
			file:   one(want{"jwks", "error", "does not have the key that signs (", []string{`registry authserver key export --format jwks --service 'it'\''s my registry' > '/`}}, want{"service-characters", "warning", "", nil}),
			mended: []string{"registry authserver key export"},
		},
		{
			name: "JWKS without the next key", versions: []string{"3.1.2"}, options: jwks, pulls: true,
			broken: func(w *world) {
				trusts("jwks", "jwks")(w)
				w.auth.Command(w, "", "key", "rotate", "--service", "registry.test")
			},
			both: one(want{"jwks", "warning", "does not have the key that will sign next (", []string{"registry authserver key export --format jwks"}}), mended: []string{"registry authserver key export --format jwks"},
		},
		{
			name: "signingalgorithms without ours", versions: []string{"3.1.2"}, broken: func(w *world) { w.registry.set("signingalgorithms", "[RS256]") },
			live:   one(want{"root", "error", "does not trust the key", nil}),
			both:   one(want{"algorithm", "error", "takes tokens signed with RS256 only; ours are signed with ES256", []string{"registry " + key + "signingalgorithms: [RS256, ES256]", "authserver services[0].algorithm: RS256"}}, refuses),
			mended: []string{"registry " + key + "signingalgorithms", "authserver services[0].algorithm: RS256"},
		},
		{
			name: "signingalgorithms of another service", versions: []string{"3.1.2"}, options: harness.Options{Config: services("chain ES256", "chain ES384")}, broken: func(w *world) { w.registry.set("signingalgorithms", "[ES384]") },
			live:   one(want{"algorithm", "error", "the registry takes tokens signed with ES384, and refuses those signed with ES256", []string{"authserver services[0].algorithm: ES384", "registry " + key + "signingalgorithms"}}),
			mended: []string{"authserver services[0].algorithm: ES384"},
		},
		{
			name: "service with capitals and blanks", broken: func(w *world) { w.registry.set("service", `"My Registry"`) }, options: harness.Options{Service: "My Registry"},
			both: one(want{"service-characters", "warning", `the service "My Registry" has the character " "`, nil}, want{"service-characters", "warning", "has capital letters", nil}), pulls: true,
		},
		{
			name: "realm with a query", broken: func(w *world) { w.registry.set("realm", w.auth.URL+"/token?tenant=a") },
			both: one(want{"realm", "warning", "authserver answers there too", []string{"registry " + key + "realm"}}, want{"realm-characters", "warning", `the character "?"`, []string{"registry " + key + "realm"}}), pulls: true, mended: []string{"registry " + key + "realm"},
		},
		{
			name: "clock seven minutes ahead", after: func(w *world) { harness.ClockOf(w, w.registry.process).Set(w, 7*time.Minute) }, versions: []string{"2.5.2", "3.1.2"},
			live: one(want{"clock", "error", "the clock of the registry is …s ahead of this machine's", []string{"machine NTP"}}, want{"clock", "error", "takes one that is valid from an hour ago", []string{"machine NTP"}}),
		},
		{
			name: "clock half a day behind", after: func(w *world) { harness.ClockOf(w, w.registry.process).Set(w, -12*time.Hour) }, versions: []string{"2.5.2", "3.1.2"},
			live: one(want{"clock", "error", "the clock of the registry is …s behind this machine's", []string{"machine NTP"}}, want{"clock", "error", "refuses our tokens, and its clock is wrong", []string{"machine NTP"}}),
			both: one(want{"clock", "error", "the clock of the registry is …s behind this machine's", []string{"machine NTP"}}, want{"clock", "error", "refuses our tokens, and its clock is wrong", []string{"machine NTP"}}),
		},
		{
			name: "clock five minutes behind", after: func(w *world) { harness.ClockOf(w, w.registry.process).Set(w, -5*time.Minute) }, versions: []string{"2.5.2", "3.1.2"},
			live: one(want{"clock", "error", "the clock of the registry is …s behind this machine's", []string{"machine NTP"}}, want{"clock", "error", "takes one that is valid from an hour ago", []string{"machine NTP"}}),
		},
		{
			name: "clock a minute behind", after: func(w *world) { harness.ClockOf(w, w.registry.process).Set(w, -50*time.Second) }, versions: []string{"3.1.2"},
			live: one(want{"clock", "warning", "the clock of the registry is …s behind this machine's", []string{"machine NTP"}}), pulls: true,
		},
	} {
		c.run(t)
	}
}
