package main

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Files of the shapes of docker_auth's own examples are imported and served, and answer as docker_auth does: the
// requests are those that internal/dockerauth holds against its model of it.
func TestWhatIsImportedIsServed(t *testing.T) {
	samples := filepath.Join("..", "..", "internal", "dockerauth", "testdata")
	var requests []struct{ File, As, IP, Scope, Grants string }
	data, err := os.ReadFile(filepath.Join(samples, "requests.yaml"))
	if err == nil {
		err = yaml.Unmarshal(data, &requests)
	}
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for name, status := range map[string]int{"reference": exitNo, "simple": exitOK, "non_tls": exitOK, "ldap_auth": exitNo} {
		dir := t.TempDir()
		out, stderr, got := call(t, "", "import", "docker-auth", filepath.Join(samples, name+".yml"), "-o", dir, "--service", "Docker registry", "--public-url", "https://auth.example.com")
		root, err := os.ReadFile(filepath.Join(dir, "data", "root.crt"))
		if err != nil || got != status || !strings.Contains(out, filepath.Join(dir, "data", "root.crt")) || !strings.Contains(out, `service: "Docker registry"`) || !strings.Contains(string(root), "CERTIFICATE") {
			t.Fatalf("%s: status %d, %v\n%s%s", name, got, err, out, stderr)
		}
		if info, err := os.Stat(filepath.Join(dir, "users.htpasswd")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("users.htpasswd: %v, %v", info, err)
		}
		config := filepath.Join(dir, "authserver.yaml")
		sets := []string{"--set", "server.trusted_proxies=127.0.0.1", "--set", "server.tls.cert_file=", "--set", "server.tls.key_file=", "--set", "passwords.bcrypt_cost=4"}
		must(t, "", append([]string{"config", "check", "--config", config}, sets...)...)
		p := startProgram(t, config, sets...)
		for _, r := range requests {
			if r.File != name {
				continue
			}
			asked++
			request, err := http.NewRequest(http.MethodGet, p.url+"/token?"+url.Values{"service": {"Docker registry"}, "scope": {r.Scope}}.Encode(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.As != "" {
				request.SetBasicAuth(r.As, "123")
			}
			if r.IP != "" {
				request.Header.Set("X-Forwarded-For", r.IP)
			}
			code, body := p.patiently(request)
			want := ""
			if r.Grants != "" {
				want = r.Scope[:strings.LastIndexByte(r.Scope, ':')+1] + r.Grants
			}
			if code != http.StatusOK || granted(t, body) != want {
				t.Errorf("%s: %+v: %d %s", name, r, code, body)
			}
		}
		if code := p.status("test", "wrong"); code != http.StatusUnauthorized {
			t.Errorf("%s: a wrong password: %d", name, code)
		}
		p.logged("a name in services holds a blank, which some clients (Jib, Terraform) send on as it is and fail; use hyphens, here and in the registry's auth.token.service")
		p.stop()
	}
	if asked < 30 {
		t.Errorf("only %d requests", asked)
	}
}

func TestImportWritesNothingWhenItCannot(t *testing.T) {
	dir := t.TempDir()
	sample := filepath.Join("..", "..", "internal", "dockerauth", "testdata", "simple.yml")
	bad := filepath.Join(dir, "bad.yml")
	if err := os.WriteFile(bad, []byte("kind: ConfigMap\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "target")
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{}, exitMisuse, "accepts 1 arg(s)"},
		{[]string{filepath.Join(dir, "missing.yml")}, exitNo, "missing.yml: no such file"},
		{[]string{bad}, exitNo, "is no configuration of docker_auth"},
		{[]string{sample, "--public-url", "nowhere"}, exitNo, `authserver.yaml:5: server.public_url: "nowhere" is no address`},
		{[]string{sample, "--service", "a&b"}, exitNo, `services[0].name: "a&b" holds one of`},
		{[]string{sample, "--set", "log.level=debug"}, exitMisuse, "import writes one"},
	} {
		_, stderr, status := call(t, "", append([]string{"import", "docker-auth", "-o", target}, c.args...)...)
		if status != c.status || !strings.Contains(stderr, c.says) {
			t.Errorf("%v: %d %s", c.args, status, stderr)
		}
		if _, err := os.Stat(target); err == nil {
			t.Fatalf("%v: something was written", c.args)
		}
	}
	must(t, "", "import", "docker-auth", sample, "-o", target)
	before := snapshot(t, target)
	if _, stderr, status := call(t, "", "import", "docker-auth", sample, "-o", target); status != exitNo || !strings.Contains(stderr, "there already: ") || snapshot(t, target) != before {
		t.Errorf("a second time: %d %s", status, stderr)
	}
	must(t, "", "import", "docker-auth", sample, "-o", target, "--force")
}
