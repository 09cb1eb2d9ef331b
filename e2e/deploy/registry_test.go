package deploy_test

import (
	"bytes"
	"crypto/x509"
	stdjson "encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	chartmuseum "github.com/chartmuseum/auth"
	"github.com/golang-jwt/jwt/v5"
	"sigs.k8s.io/yaml"

	"authserver/e2e/harness"
)

// An issuer is an authserver that serves deploy/registry's configuration; only addresses and the data folder are others.
type issuer struct {
	folder
	effective
	url         string
	data        string
	environment []string
	process     *harness.Process
}

func serveRegistries(t *testing.T) issuer {
	t.Helper()
	f := newFolder(t, harness.ReadFile(t, shipped(t, "registry", "authserver.yaml")), harness.ReadFile(t, shipped(t, "registry", "policy.yaml")))
	f.check(t)
	i := issuer{folder: f, effective: f.show(t), data: filepath.Join(t.TempDir(), "data")}
	port, ops := harness.FreePort(t), harness.FreePort(t)
	i.url = fmt.Sprintf("http://localhost:%d", port)
	i.environment = []string{
		fmt.Sprintf("AUTHSERVER_SERVER__LISTEN=127.0.0.1:%d", port),
		fmt.Sprintf("AUTHSERVER_SERVER__OPS_LISTEN=127.0.0.1:%d", ops),
		"AUTHSERVER_SERVER__PUBLIC_URL=" + i.url,
		"AUTHSERVER_ISSUER__DATA_DIR=" + i.data,
	}
	i.process = harness.Start(t, i.environment, harness.Program(t, "authserver"), "serve", "--config", f.config())
	i.process.Await(t, func() error {
		code, err := status(fmt.Sprintf("http://localhost:%d/readyz", ops))
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("readyz: status %d", code)
		}
		return err
	})
	return i
}

// export is what a registry is given to trust.
func (i issuer) export(t *testing.T, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trust")
	args = append([]string{"key", "export", "--config", i.config(), "--set", "issuer.data_dir=" + i.data}, args...)
	write(t, path, []byte(stdout(t, nil, harness.Program(t, "authserver"), args...)), 0o644)
	return path
}

// token fetches a token as admin.
func (i issuer) token(t *testing.T, service, scope string) string {
	t.Helper()
	return fetchToken(t, i.url, "admin", i.password, service, scope)
}

// fetchToken fetches a token; without a user, as anybody.
func fetchToken(t *testing.T, base, user, password, service, scope string) string {
	t.Helper()
	return fetchTokenBy(t, http.DefaultClient, base, user, password, service, scope)
}

func fetchTokenBy(t *testing.T, client *http.Client, base, user, password, service, scope string) string {
	t.Helper()
	request, err := http.NewRequest("GET", base+"/token?"+url.Values{"service": {service}, "scope": {scope}}.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		request.SetBasicAuth(user, password)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Token string `json:"token"`
	}
	if err := stdjson.Unmarshal(body, &answer); err != nil || response.StatusCode != http.StatusOK || answer.Token == "" {
		t.Fatalf("token for %q: status %d: %v\n%s", user, response.StatusCode, err, body)
	}
	return answer.Token
}

// agree checks the values that registry and authserver must have in common, and the kind of the service.
func (i issuer) agree(t *testing.T, realm, service, issuer, verifier string) {
	t.Helper()
	if realm != i.realm() {
		t.Errorf("realm %q, authserver's is %q", realm, i.realm())
	}
	for _, s := range i.Services {
		if s.Name != service {
			continue
		}
		if s.Verifier != verifier {
			t.Errorf("service %q has verifier %q, it takes %q", service, s.Verifier, verifier)
		}
		if issuer != "" && issuer != s.Issuer {
			t.Errorf("issuer %q, authserver's is %q", issuer, s.Issuer)
		}
		return
	}
	t.Errorf("authserver does not know service %q", service)
}

// tokenStanza is auth.token of a Distribution configuration.
func tokenStanza(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var config struct {
		Auth struct {
			Token map[string]any `json:"token"`
		} `json:"auth"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil || len(config.Auth.Token) == 0 {
		t.Fatalf("no auth.token: %v", err)
	}
	return config.Auth.Token
}

func TestRegistryConfigurationPassesConfigCheck(t *testing.T) {
	newFolder(t, harness.ReadFile(t, shipped(t, "registry", "authserver.yaml")), harness.ReadFile(t, shipped(t, "registry", "policy.yaml"))).check(t)
}

// The stanza for all versions is what "authserver init" prints, with other values.
func TestDistributionStanzaIsThatOfInit(t *testing.T) {
	var made struct {
		Stanza string `json:"registry_stanza"`
	}
	out := stdout(t, nil, harness.Program(t, "authserver"), "init", filepath.Join(t.TempDir(), "auth"), "-o", "json")
	if err := stdjson.Unmarshal([]byte(out), &made); err != nil {
		t.Fatal(err)
	}
	keys := func(text []byte) []string { return slices.Sorted(maps.Keys(tokenStanza(t, text))) }
	want := keys([]byte(made.Stanza))
	for _, file := range []string{"distribution.yml", "gitlab-registry.yml"} {
		if got := keys(harness.ReadFile(t, shipped(t, "registry", file))); !slices.Equal(got, want) {
			t.Errorf("%s has %q, init prints %q", file, got, want)
		}
	}
}

// registryProgram is the registry of a version, or Debian's own, 2.8.2, which an older Go has compiled.
func registryProgram(t *testing.T, version string) string {
	t.Helper()
	if version == "debian" {
		return harness.Program(t, "docker-registry")
	}
	return harness.Program(t, "registry-"+version)
}

// The shipped configuration files, unchanged, in the real registries; only the address and the paths are set by environment.
func TestDistribution(t *testing.T) {
	i := serveRegistries(t)
	for _, c := range []struct {
		file, verifier string
		versions       []string
		trust          string // environment variable
	}{
		{"distribution.yml", "chain", []string{"2.5.2", "2.8.3", "debian", "3.0.0", "3.1.2"}, "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE"},
		{"distribution-jwks.yml", "jwks", []string{"3.0.0", "3.1.2"}, "REGISTRY_AUTH_TOKEN_JWKS"},
		// GitLab's registry is no module that can be had; it is a fork of this version, with the same token code.
		{"gitlab-registry.yml", "chain", []string{"2.8.3"}, "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE"},
	} {
		file := shipped(t, "registry", c.file)
		stanza := tokenStanza(t, harness.ReadFile(t, file))
		text := func(key string) string { s, _ := stanza[key].(string); return s }
		service := text("service")
		i.agree(t, text("realm"), service, text("issuer"), c.verifier)
		format := "pem"
		if c.verifier == "jwks" {
			format = "jwks"
		}
		trust := i.export(t, "--service", service, "--format", format)
		for _, version := range c.versions {
			t.Run(c.file+"/"+version, func(t *testing.T) {
				host := fmt.Sprintf("localhost:%d", harness.FreePort(t))
				r := harness.Start(t, []string{
					"REGISTRY_HTTP_ADDR=" + host,
					"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=" + t.TempDir(),
					c.trust + "=" + trust,
					"OTEL_TRACES_EXPORTER=none",
					"REGISTRY_HTTP_DRAINTIMEOUT=5s", // without it the stock program does not end by itself
				}, registryProgram(t, version), "serve", file)
				var challenge string
				r.Await(t, func() error {
					response, err := http.Get("http://" + host + "/v2/")
					if err != nil {
						return err
					}
					response.Body.Close()
					if response.StatusCode != http.StatusUnauthorized {
						return fmt.Errorf("status %d without a token", response.StatusCode)
					}
					challenge = response.Header.Get("WWW-Authenticate")
					return nil
				})
				if want := fmt.Sprintf(`Bearer realm=%q,service=%q`, i.realm(), service); challenge != want {
					t.Errorf("challenge %s, want %s", challenge, want)
				}

				ask := func(path, token string, want int) {
					t.Helper()
					request, err := http.NewRequest("GET", "http://"+host+path, nil)
					if err != nil {
						t.Fatal(err)
					}
					request.Header.Set("Authorization", "Bearer "+token)
					response, err := http.DefaultClient.Do(request)
					if err != nil {
						t.Fatal(err)
					}
					response.Body.Close()
					if response.StatusCode != want {
						t.Errorf("%s: status %d, want %d: %s", path, response.StatusCode, want, response.Header.Get("WWW-Authenticate"))
					}
				}
				const scope, path = "repository:admin/app:pull", "/v2/admin/app/tags/list"
				ask("/v2/", i.token(t, service, ""), http.StatusOK)
				ask(path, i.token(t, service, scope), http.StatusNotFound) // let in, and it is not there
				ask("/v2/_catalog", i.token(t, service, "registry:catalog:*"), http.StatusOK)
				ask(path, fetchToken(t, i.url, "", "", service, scope), http.StatusUnauthorized)
				ask(path, i.token(t, "zot.example.com", scope), http.StatusUnauthorized) // another service's
			})
		}
	}
}

// strict reads JSON and refuses keys that into does not have.
func strict(t *testing.T, text []byte, into any) {
	t.Helper()
	decoder := stdjson.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatal(err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		t.Fatalf("more than one value: %v", err)
	}
}

// zot itself is too large to build here. Its check of a token is held against ours in ../contract; what is left for here
// is that the file has exactly the keys without which zot serves everybody, and that the certificate is the right one.
func TestZot(t *testing.T) {
	i := serveRegistries(t)
	var config struct {
		Version string `json:"distSpecVersion"`
		Storage struct {
			RootDirectory string `json:"rootDirectory"`
		} `json:"storage"`
		HTTP struct {
			Address string `json:"address"`
			Port    string `json:"port"`
			Auth    struct {
				Bearer struct {
					Realm   string `json:"realm"`
					Service string `json:"service"`
					Cert    string `json:"cert"`
				} `json:"bearer"`
			} `json:"auth"`
		} `json:"http"`
	}
	strict(t, harness.ReadFile(t, shipped(t, "registry", "zot.json")), &config)
	bearer := config.HTTP.Auth.Bearer
	if bearer.Cert == "" || config.Storage.RootDirectory == "" || config.HTTP.Port == "" {
		t.Errorf("%+v", config)
	}
	i.agree(t, bearer.Realm, bearer.Service, "", "pinned")

	block, _ := pem.Decode(harness.ReadFile(t, i.export(t, "--service", bearer.Service)))
	if block == nil {
		t.Fatal("the export is no PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(token string) error {
		_, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return certificate.PublicKey, nil }, jwt.WithIssuedAt())
		return err
	}
	if err := verify(i.token(t, bearer.Service, "repository:admin/app:pull")); err != nil {
		t.Error(err)
	}
	// zot would not see from the aud that this one is not for it.
	if verify(i.token(t, "registry.example.com", "repository:admin/app:pull")) == nil {
		t.Error("a token for another registry has zot's signature")
	}
}

// ChartMuseum's own library, set up from the environment file.
func TestChartMuseum(t *testing.T) {
	i := serveRegistries(t)
	env := map[string]string{}
	for _, line := range strings.Split(string(harness.ReadFile(t, shipped(t, "registry", "chartmuseum.env"))), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// What "docker run --env-file" makes of a line: all after = is the value, quotes and comments too.
		key, value, ok := strings.Cut(line, "=")
		if !ok || value == "" || strings.ContainsAny(value, `"'# `) {
			t.Errorf("line %q", line)
		}
		env[key] = value
	}
	if got := slices.Sorted(maps.Keys(env)); !slices.Equal(got, []string{"AUTH_CERT_PATH", "AUTH_REALM", "AUTH_SERVICE", "BEARER_AUTH"}) || env["BEARER_AUTH"] != "true" {
		t.Errorf("environment %v", env)
	}
	service := env["AUTH_SERVICE"]
	i.agree(t, env["AUTH_REALM"], service, "", "pinned")

	authorizer, err := chartmuseum.NewAuthorizer(&chartmuseum.AuthorizerOptions{
		Realm: env["AUTH_REALM"], Service: service, PublicKeyPath: i.export(t, "--service", service),
	})
	if err != nil {
		t.Fatal(err)
	}
	allowed := func(token, action string) bool {
		t.Helper()
		permission, err := authorizer.Authorize("Bearer "+token, action, "repo")
		if err != nil {
			t.Fatal(err)
		}
		return permission.Allowed
	}
	const push = "artifact-repository:repo:pull,push"
	if !allowed(i.token(t, service, push), "push") {
		t.Error("admin may not push")
	}
	everybody := fetchToken(t, i.url, "", "", service, push)
	if !allowed(everybody, "pull") || allowed(everybody, "push") {
		t.Error("everybody must be able to pull, and not to push")
	}
	if allowed(i.token(t, "registry.example.com", push), "pull") {
		t.Error("a token for another registry is taken")
	}
}
