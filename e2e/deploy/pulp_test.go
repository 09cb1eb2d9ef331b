package deploy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// checks is what Pulp does with a token (pulp_container/app/token_verification.py), with its library, PyJWT, and with the settings
// as they are shipped, but for the folder.
const checks = `
import jwt, sys
settings, host, token = sys.argv[1], sys.argv[2], sys.stdin.read()
exec(open(settings).read())
assert TOKEN_AUTH_DISABLED is False and open(PRIVATE_KEY_PATH).read()
with open(PUBLIC_KEY_PATH, "rb") as key:
    claims = jwt.decode(token, key.read(), algorithms=[TOKEN_SIGNATURE_ALGORITHM], issuer=TOKEN_SERVER, audience=host)
print(claims["sub"], [(a["type"], a["name"], a["actions"]) for a in claims["access"]])
`

func TestPulp(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, for which install.sh has installed PyJWT
	i := serveRegistries(t)
	const service = "pulp.example.com"
	i.agree(t, i.realm(), service, i.realm(), "pinned")

	etc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(etc, "pulp", "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	i.reads(t, etc, "").Follow(harness.Documented(t, "docs/registries/pulp.md", ""))
	settings := filepath.Join(etc, "pulp", "settings.py")
	write(t, settings, []byte(strings.ReplaceAll(string(harness.ReadFile(t, shipped(t, "registry", "pulp-settings.py"))), "/etc/", etc+"/")), 0o600)

	check := func(host, token string) (string, error) {
		return harness.Run(t, nil, token, python, "-c", checks, settings, host)
	}
	for _, c := range []struct{ what, host, token, want string }{
		{"a pull", service, i.token(t, service, "repository:admin/app:pull"), "admin [('repository', 'admin/app', ['pull'])]"},
		{"a push", service, i.token(t, service, "repository:admin/app:push"), "admin [('repository', 'admin/app', ['push'])]"},
		{"a login", service, i.token(t, service, ""), "admin []"}, // for /v2/ Pulp wants the list to be there, and empty
		{"the catalog", service, i.token(t, service, "registry:catalog:*"), "admin [('registry', 'catalog', ['*'])]"},
		{"nobody", service, fetchToken(t, i.url, "", "", service, "repository:admin/app:pull"), " []"},
		{"another host", service + ":8080", i.token(t, service, ""), "InvalidAudienceError"},
		{"another service's token", service, i.token(t, "zot.example.com", ""), "InvalidSignatureError"},
	} {
		out, err := check(c.host, c.token)
		if lines := strings.Split(strings.TrimRight(out, "\n"), "\n"); !strings.Contains(lines[len(lines)-1], c.want) || (err != nil) != strings.HasSuffix(c.want, "Error") {
			t.Errorf("%s: %v\n%s", c.what, err, out)
		}
	}
}
