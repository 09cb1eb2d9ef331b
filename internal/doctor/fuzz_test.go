package doctor

import (
	"net/http"
	"strings"
	"testing"
)

// A challenge comes from whoever answers at the registry's address.
func FuzzParseChallenges(f *testing.F) {
	for _, seed := range []string{
		`Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a:pull"`, `Basic realm=x`, `Bearer`, ``,
		`Bearer realm="a\"b", error = invalid_token ,x`, `Bearer realm="`, `Bearer realm="\`, `,,,=`, `Negotiate a=b=c`, `Basic realm="x", Bearer realm="y"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		total := 0
		for _, c := range parseChallenges(value) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) || strings.ContainsAny(c.scheme, " ,=\t") {
				t.Errorf("scheme %q of %q", c.scheme, value)
			}
			total += len(c.scheme)
			for name, text := range c.params {
				total += len(name) + len(text)
			}
		}
		if total > 3*len(value) { // lower case may be longer
			t.Errorf("%d bytes of %q became %d", len(value), value, total)
		}
	})
}

func TestChallengeOf(t *testing.T) {
	for value, want := range map[string]string{
		`Bearer realm="https://a/token",service="s",error="invalid_token"`: "bearer https://a/token s invalid_token",
		`bearer Realm=https://a/token, service=s`:                          "bearer https://a/token s ",
		`Bearer realm="a\"b,c",service="s"`:                                `bearer a"b,c s `,
		`Bearer realm = "a" , service= s`:                                  "bearer a s ",
		`Bearer realm="a" service="s"`:                                     "bearer a s ",
		`Basic realm="x"`:                                                  "basic x  ",
		`Bearer`:                                                           "bearer   ",
		``:                                                                 "   ",
		// several in one line (RFC 9110 §11.6.1)
		`Basic realm="x", Bearer realm="a",service="s"`:                         "bearer a s ",
		`Bearer realm="a",service="s", Basic realm="x"`:                         "bearer a s ",
		`Negotiate, Basic realm="simple", charset="UTF-8",Bearer realm=a`:       "bearer a  ",
		`NTLM TlRMTVNTUAAC==, Bearer realm="a"`:                                 "bearer a  ",
		`Digest realm="Bearer realm=\"x\"", qop="auth, Bearer realm=y", nonce=`: `digest Bearer realm="x"  `,
		`Basic realm="x", Newauth realm="apps", type=1`:                         "basic x  ",
	} {
		c := challengeOf(http.Header{"Www-Authenticate": {value}})
		if got := strings.Join([]string{c.scheme, c.params["realm"], c.params["service"], c.params["error"]}, " "); got != want {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
}

// A registry's files are somebody else's: whatever is in them, they are read or refused.
func FuzzStanza(f *testing.F) {
	for _, seed := range []string{
		"auth:\n  token:\n    realm: r\n    signingalgorithms: [ES256]\n", `{"http":{"auth":{"bearer":{"realm":"r"}}}}`, "AUTH_REALM=x\n", "a: 1\n---\n- REGISTRY_AUTH_TOKEN_REALM=$x\n", "x: &x {a: 1}\nauth: {token: {a: 2, <<: [*x, *x]}}\n", "auth: &a {<<: *a, token: *a}\n", "a: &a [*a]\n", "a: &x {<<: *x}\n", "x-a: &a [*a, --bearer-auth=]\nb: {<<: [*a], c: *a}\n",
		"- {name: REGISTRY_AUTH_TOKEN_REALM, value: x}\n", `{"auth":{"options":1}}`, "-----BEGIN CERTIFICATE-----\n", `{"keys":[]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		s := &Stanza{File: "f"}
		_ = s.read(data)
		parsePEM("f", data)
		if isJWKS(data) {
			parseJWKS("f", data)
		}
	})
}
