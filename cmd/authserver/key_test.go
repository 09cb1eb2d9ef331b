package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// withServices adds services to a configuration that init made.
func withServices(t *testing.T, file, services string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(text, []byte("users:"), []byte(services+"\nusers:"), 1)
	if bytes.Equal(changed, text) {
		t.Fatalf("no users: in %s", text)
	}
	if err := os.WriteFile(file, changed, 0o600); err != nil {
		t.Fatal(err)
	}
}

const moreServices = `  - {name: zot, verifier: pinned}
  - {name: three, verifier: jwks}
  - {name: four, verifier: jwks}
`

// keyStates are the keys of a service by state, as key list says.
func keyStates(t *testing.T, file, service string) map[string][]string {
	t.Helper()
	var lines []keyLine
	if err := json.Unmarshal([]byte(must(t, "", "key", "list", "-o", "json", "--config", file)), &lines); err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, l := range lines {
		if slices.Contains(l.Services, service) || l.isRoot() {
			found[l.State] = append(found[l.State], l.ID)
		}
	}
	return found
}

func certificatesIn(t *testing.T, text string) []*x509.Certificate {
	t.Helper()
	var list []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return list
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
}

func kidsIn(t *testing.T, jwks string) []string {
	t.Helper()
	var set struct {
		Keys []struct{ Kid string }
	}
	if err := json.Unmarshal([]byte(jwks), &set); err != nil {
		t.Fatalf("%q: %v", jwks, err)
	}
	var list []string
	for _, k := range set.Keys {
		list = append(list, k.Kid)
	}
	return list
}

func TestKeyRotateReplacesLeaves(t *testing.T) {
	file, s := initialised(t)
	was := keyStates(t, file, s.Service)
	out := must(t, "", "key", "rotate", "--config", file)
	now := keyStates(t, file, s.Service)
	if now[keySigns][0] == was[keySigns][0] || now[keyOld][0] != was[keySigns][0] || now[keyRoot][0] != was[keyRoot][0] {
		t.Errorf("from %v to %v", was, now)
	}
	want := fmt.Sprintf("signs      %s  %s\nold        %s  %s\n\n1. [x] authserver key rotate\n       makes new signing keys, and takes them into use; registries trust the root, and notice nothing\n",
		now[keySigns][0], s.Service, was[keySigns][0], s.Service)
	if out != want {
		t.Errorf("said\n%s\nwant\n%s", out, want)
	}
	before := snapshot(t, filepath.Dir(file))
	if out := must(t, "", "key", "rotate", "--plan", "--config", file); !strings.Contains(out, "1. [ ] authserver key rotate\n") || snapshot(t, filepath.Dir(file)) != before {
		t.Errorf("a plan: %s", out)
	}
	var report rotationReport
	if err := json.Unmarshal([]byte(must(t, "", "key", "rotate", "--service", s.Service, "-o", "json", "--config", file)), &report); err != nil {
		t.Fatal(err)
	}
	if report.Verifier != "chain" || len(report.Keys) != 3 || len(report.Steps) != 1 || !report.Steps[0].Done || report.Keys[0].State != keySigns {
		t.Errorf("%+v", report)
	}
}

func TestKeyRotateHasTwoStepsForWhatARegistryWasGiven(t *testing.T) {
	file, _ := initialised(t)
	withServices(t, file, moreServices)
	dir := filepath.Dir(file)
	marks := func(out string) string {
		var done strings.Builder
		for line := range strings.Lines(out) {
			if _, mark, ok := strings.Cut(line, ". ["); ok {
				done.WriteByte(mark[0])
			}
		}
		return done.String()
	}
	for _, c := range []struct{ service, target, export, next, signs string }{
		{"zot", "--service zot", "authserver key export --service zot --next > signer.crt", keyNext, keySigns},
		{"three", "--service three", "authserver key export --service three --format jwks > jwks.json", keyNext, keySigns},
		{"registry.local", "--root", "authserver key export > token-bundle.pem", keyNextRoot, keyRoot},
	} {
		args := func(more ...string) []string {
			return append(append([]string{"key", "rotate", "--config", file}, strings.Fields(c.target)...), more...)
		}
		was := keyStates(t, file, c.service)
		if _, stderr, status := call(t, "", args("--activate")...); status != exitNo ||
			!strings.Contains(stderr, "there is no next key to take into use; make it first, and give it to the registry: authserver key rotate "+c.target) {
			t.Errorf("%s: status %d: %s", c.target, status, stderr)
		}
		before := snapshot(t, dir)
		if out := must(t, "", args("--plan")...); marks(out) != "    " || snapshot(t, dir) != before || !strings.Contains(out, c.export+"\n") {
			t.Errorf("%s, plan: %s", c.target, out)
		}
		out := must(t, "", args()...)
		staged := keyStates(t, file, c.service)
		if marks(out) != "x   " || staged[c.next] == nil || staged[c.signs][0] != was[c.signs][0] || !strings.Contains(out, c.next+" ") {
			t.Errorf("%s: %v\n%s", c.target, staged, out)
		}
		before = snapshot(t, dir)
		if out := must(t, "", args()...); marks(out) != "x   " || snapshot(t, dir) != before {
			t.Errorf("%s, twice: %s", c.target, out)
		}
		if out := must(t, "", args("--plan")...); marks(out) != "x   " || snapshot(t, dir) != before {
			t.Errorf("%s, plan: %s", c.target, out)
		}
		var report rotationReport
		if err := json.Unmarshal([]byte(must(t, "", args("--activate", "-o", "json")...)), &report); err != nil {
			t.Fatal(err)
		}
		done := ""
		for _, s := range report.Steps {
			done += map[bool]string{true: "x", false: " "}[s.Done]
		}
		now := keyStates(t, file, c.service)
		if done != "xxx " || now[c.signs][0] != staged[c.next][0] || now[c.next] != nil {
			t.Errorf("%s: from %v to %v, steps %q", c.target, staged, now, done)
		}
	}
	now := keyStates(t, file, "three")
	if other := keyStates(t, file, "four"); !slices.Equal(now[keySigns], other[keySigns]) || len(now[keyOld]) != 1 || len(now[keyOldRoot]) != 1 {
		t.Errorf("%v and %v", now, other)
	}
	if out := must(t, "", "key", "list", "--config", file); strings.Count(out, "\n") != 9 || !strings.Contains(out, "old-root") || !strings.Contains(out, "root.old") {
		t.Errorf("list\n%s", out)
	}
}

// What a registry is given at each step.
func TestKeyExportOfEachStep(t *testing.T) {
	file, _ := initialised(t)
	withServices(t, file, moreServices)
	key := func(args ...string) string {
		t.Helper()
		return must(t, "", append(append([]string{"key"}, args...), "--config", file)...)
	}
	root := certificatesIn(t, key("export"))
	key("rotate", "--root")
	both := certificatesIn(t, key("export"))
	if len(root) != 1 || len(both) != 2 || !both[0].Equal(root[0]) {
		t.Fatalf("%d, then %d roots", len(root), len(both))
	}
	key("rotate", "--root", "--activate")
	if got := certificatesIn(t, key("export")); len(got) != 2 || !got[0].Equal(both[1]) || !got[1].Equal(both[0]) {
		t.Errorf("after activation: %d roots", len(got))
	}
	signer := key("export", "--service", "zot")
	if _, stderr, status := call(t, "", "key", "export", "--service", "zot", "--next", "--config", file); status != exitNo || !strings.Contains(stderr, `make it with: authserver key rotate --service zot`) {
		t.Errorf("status %d: %s", status, stderr)
	}
	key("rotate", "--service", "zot")
	if key("export", "--service", "zot") != signer {
		t.Error("a key that waits has changed what the registry is given")
	}
	next := key("export", "--service", "zot", "--next")
	key("rotate", "--service", "zot", "--activate")
	if next == signer || key("export", "--service", "zot") != next {
		t.Error("the next certificate is not the one in use")
	}
	one := kidsIn(t, key("export", "--service", "three", "--format", "jwks"))
	key("rotate", "--service", "four")
	two := kidsIn(t, key("export", "--service", "three", "--format", "jwks"))
	key("rotate", "--service", "three", "--activate")
	last := kidsIn(t, key("export", "--service", "four", "--format", "jwks"))
	if len(one) != 1 || len(two) != 2 || two[0] != one[0] || !slices.Equal(last, []string{two[1], one[0]}) {
		t.Errorf("%v, %v, %v", one, two, last)
	}
	if all := kidsIn(t, key("export", "--format", "jwks")); len(all) != 6 { // a leaf, and one of each before
		t.Errorf("%d keys in all", len(all))
	}
}

func TestKeyCommandsThatAreCalledWrongly(t *testing.T) {
	file, s := initialised(t)
	withServices(t, file, moreServices)
	before := snapshot(t, filepath.Dir(file))
	for line, want := range map[string]string{
		"rotate --root --service zot":              "--root and --service are two different keys",
		"rotate --root --plan --activate":          "--plan does nothing, and --activate does",
		"rotate --activate":                        "--activate is for --root",
		"rotate --activate --service " + s.Service: "--activate is for --root",
		"rotate --encryption --plan":               "--encryption goes with no other flag of rotate",
		"rotate --encryption --root":               "--encryption goes with no other flag of rotate",
		"rotate now":                               "unknown command",
		"revoke":                                   "accepts 1 arg",
		"revoke a b":                               "accepts 1 arg",
		"export --next":                            "--next needs --service",
		"export --format der":                      "--format der is not known",
	} {
		if out, stderr, status := call(t, "", append(append([]string{"key"}, strings.Fields(line)...), "--config", file)...); status != exitMisuse || !strings.Contains(stderr, want) || out != "" {
			t.Errorf("%s: status %d: %s%s", line, status, out, stderr)
		}
	}
	for line, want := range map[string]string{
		"rotate --service nobody": "nobody",
		"rotate --encryption":     "keys are encrypted in the database only (issuer.keys.store)",
		"revoke AAAA":             `key "AAAA": no key has this id; when it is that of a signing key under the root which is no longer listed, revoke the root`,
		"revoke AAAA --yes":       `key "AAAA": no key has this id`,
	} {
		if out, stderr, status := call(t, "", append(append([]string{"key"}, strings.Fields(line)...), "--config", file)...); status != exitNo || !strings.Contains(stderr, want) || out != "" {
			t.Errorf("%s: status %d: %s%s", line, status, out, stderr)
		}
	}
	must(t, "", "key", "list", "--config", file) // which makes those of the new services
	if after := snapshot(t, filepath.Dir(file)); strings.Count(after, "\n")-strings.Count(before, "\n") <= 0 {
		t.Error("nothing was made: the commands above prove nothing")
	}
}

func TestKeyRevokeSaysWhoIsToBeToldAndDoesNothingUnasked(t *testing.T) {
	file, s := initialised(t)
	withServices(t, file, moreServices)
	for _, args := range []string{"--service zot", "--service three", "--root"} {
		for _, more := range []string{"", " --activate", ""} {
			must(t, "", append([]string{"key", "rotate", "--config", file}, strings.Fields(args+more)...)...)
		}
	}
	for _, c := range []struct{ service, state, says string }{
		{"zot", keyOld, "The key is removed; tokens are signed as before. A registry of zot that has it takes"},
		{"zot", keyNext, "The key is removed; tokens are signed as before. A registry of zot that has it takes"},
		{"zot", keySigns, "The key is replaced. The registries of zot refuse our tokens, and take those of the thief, until each has the new one:\n  authserver key export --service zot "},
		{"four", keySigns, "The key is replaced. The registries of three, four refuse our tokens"},
		{"four", keyOld, "A registry of three, four that has it takes"},
		{s.Service, keyOldRoot, "That root is removed; tokens are signed as before. A registry of " + s.Service + " that has it takes"},
		{s.Service, keyNextRoot, "That root is removed; tokens are signed as before."},
		{s.Service, keySigns, "The root is replaced, with all signing keys under it. The registries of " + s.Service + " refuse our tokens until each has the new one:\n  authserver key export > token-bundle.pem"},
		{s.Service, keyRoot, "The root is replaced"},
	} {
		was := keyStates(t, file, c.service)
		if was[c.state] == nil {
			t.Fatalf("%s has no key that is %s: %v", c.service, c.state, was)
		}
		id := was[c.state][0]
		before := snapshot(t, filepath.Dir(file))
		out, stderr, status := call(t, "", "key", "revoke", id, "--config", file)
		if status != exitNo || !strings.Contains(out, c.says) || !strings.Contains(stderr, "nothing was done yet; add --yes to do it") || snapshot(t, filepath.Dir(file)) != before {
			t.Errorf("%s of %s, unasked: status %d: %s%s", c.state, c.service, status, out, stderr)
		}
		if out := must(t, "", "key", "revoke", id, "--yes", "--config", file); !strings.Contains(out, c.says) {
			t.Errorf("%s of %s: %s", c.state, c.service, out)
		}
		for state, ids := range keyStates(t, file, c.service) {
			if slices.Contains(ids, id) {
				t.Errorf("%s of %s: it is there still, as %s", c.state, c.service, state)
			}
		}
		if jwks := must(t, "", "key", "export", "--format", "jwks", "--config", file); strings.Contains(jwks, id) {
			t.Errorf("%s of %s is in the JWKS still", c.state, c.service)
		}
	}
	must(t, "", "config", "check", "--config", file)
}

// keyFile writes a key and a self-signed certificate for it.
func keyPair(t *testing.T, dir string) (key, certificate []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "own"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"tls.key": key, "tls.crt": certificate} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, certificate
}

func replaceFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name+".tmp", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		t.Fatal(err)
	}
}

// signer is the kid of a token for a service, and of the JWKS whether it is there; "" when there is no token.
func (p *process) signer(service string) (kid string, published bool) {
	p.t.Helper()
	code, body := p.get(p.url + "/token?service=" + url.QueryEscape(service))
	var answer struct{ Token string }
	if code != http.StatusOK || json.Unmarshal([]byte(body), &answer) != nil {
		p.t.Errorf("service %s: %d %s", service, code, body)
		return "", false
	}
	var header struct{ Kid string }
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(answer.Token, ".")[0])
	if err != nil || json.Unmarshal(data, &header) != nil {
		p.t.Fatalf("%s: %v", data, err)
	}
	_, jwks := p.get(p.url + "/.well-known/jwks.json")
	return header.Kid, strings.Contains(jwks, header.Kid)
}

// signsWith waits until tokens are signed with a key.
func (p *process) signsWith(service, kid string) {
	p.t.Helper()
	began := time.Now()
	p.eventually(service+" signs with "+kid, func() bool {
		got, published := p.signer(service)
		return got == kid && published
	})
	p.t.Logf("%s: after %v", service, time.Since(began).Round(10*time.Millisecond))
}

func TestARunningServerTakesUpWhatKeyCommandsDo(t *testing.T) {
	file, s := initialised(t)
	withServices(t, file, moreServices)
	p := startProgram(t, file)
	ctx, cancel := context.WithCancel(t.Context())
	var gone sync.Map // keys that were revoked
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel()
	for _, service := range []string{s.Service, "zot", "three", "four"} {
		asked.Go(func() {
			for ctx.Err() == nil { // whatever happens, there is a token, signed with a key that is published
				if kid, published := p.signer(service); !published {
					if _, revoked := gone.Load(kid); !revoked { // between the two
						t.Errorf("%s: signed with %q, which is not published", service, kid)
					}
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	key := func(line string) {
		t.Helper()
		must(t, "", append(append([]string{"key"}, strings.Fields(line)...), "--config", file)...)
	}
	current := func(service string) string { return keyStates(t, file, service)[keySigns][0] }
	p.signsWith(s.Service, current(s.Service))
	for range 3 {
		key("rotate")
		p.signsWith(s.Service, current(s.Service))
	}
	for service, target := range map[string]string{"zot": "--service zot", "three": "--service three", s.Service: "--root"} {
		was := current(service)
		key("rotate " + target)
		if service != s.Service {
			next := keyStates(t, file, service)[keyNext][0]
			p.eventually("the next key is published", func() bool {
				_, jwks := p.get(p.url + "/.well-known/jwks.json")
				return strings.Contains(jwks, next)
			})
		}
		if kid, _ := p.signer(service); kid != was {
			t.Errorf("%s: a key that waits signs", service)
		}
		key("rotate --activate " + target)
		p.signsWith(service, current(service))
	}
	for _, service := range []string{"zot", "four", s.Service} {
		was := current(service)
		gone.Store(was, true)
		key("revoke --yes " + was)
		p.signsWith(service, current(service))
		if _, jwks := p.get(p.url + "/.well-known/jwks.json"); strings.Contains(jwks, was) {
			t.Errorf("%s: the revoked key is published", service)
		}
	}
	cancel()
	asked.Wait()
	p.mu.Lock()
	for _, line := range p.log {
		if line["level"] == "ERROR" || line["level"] == "WARN" {
			t.Errorf("logged %v", line["raw"])
		}
	}
	p.mu.Unlock()
	p.stop()
}

func TestOwnKeyFilesAreTakenUpWhenTheyChange(t *testing.T) {
	pairs := t.TempDir()
	file, s := initialised(t)
	flags := []string{"--set", "issuer.keys.key_file=" + filepath.Join(pairs, "tls.key"), "--set", "issuer.keys.certificate_file=" + filepath.Join(pairs, "tls.crt")}
	current := func() string {
		t.Helper()
		var lines []keyLine
		if err := json.Unmarshal([]byte(must(t, "", append([]string{"key", "list", "-o", "json", "--config", file}, flags...)...)), &lines); err != nil {
			t.Fatal(err)
		}
		return lines[0].ID
	}
	const refused = "the new configuration is refused, the old one stays in use"

	t.Run("renamed", func(t *testing.T) {
		keyPair(t, pairs)
		p := startProgram(t, file, flags...)
		p.signsWith(s.Service, current())
		was, _ := p.signer(s.Service)
		other, certificate := keyPair(t, t.TempDir())
		replaceFile(t, filepath.Join(pairs, "tls.key"), other) // and not the certificate yet
		if line := p.logged(refused); !strings.Contains(fmt.Sprint(line["error"]), "the first certificate does not belong to the private key") || strings.Contains(fmt.Sprint(line["raw"]), "PRIVATE") {
			t.Errorf("logged %v", line["raw"])
		}
		if kid, _ := p.signer(s.Service); kid != was {
			t.Error("it signs with another key")
		}
		replaceFile(t, filepath.Join(pairs, "tls.crt"), certificate)
		p.signsWith(s.Service, current())
		if kid, _ := p.signer(s.Service); kid == was {
			t.Error("the key is the same")
		}
		if _, stderr, status := call(t, "", append([]string{"key", "rotate", "--config", file}, flags...)...); status != exitNo || !strings.Contains(stderr, "no service with verifier chain has a key of ours") {
			t.Errorf("rotate: status %d: %s", status, stderr)
		}
		if _, stderr, status := call(t, "", append([]string{"key", "rotate", "--service", s.Service, "--config", file}, flags...)...); status != exitNo || !strings.Contains(stderr, "this key was brought by file") {
			t.Errorf("rotate --service: status %d: %s", status, stderr)
		}
		if _, stderr, status := call(t, "", append([]string{"key", "revoke", current(), "--config", file}, flags...)...); status != exitNo || !strings.Contains(stderr, "this key was brought by file") {
			t.Errorf("revoke: status %d: %s", status, stderr)
		}
		p.stop()
	})

	// A Secret in Kubernetes: both files are links through one folder, which is replaced as a whole.
	t.Run("mounted", func(t *testing.T) {
		mount := t.TempDir()
		keyPair(t, filepath.Join(mount, "..1"))
		for name, to := range map[string]string{"..data": "..1", "tls.key": "..data/tls.key", "tls.crt": "..data/tls.crt"} {
			if err := os.Symlink(to, filepath.Join(mount, name)); err != nil {
				t.Fatal(err)
			}
		}
		flags = []string{"--set", "issuer.keys.key_file=" + filepath.Join(mount, "tls.key"), "--set", "issuer.keys.certificate_file=" + filepath.Join(mount, "tls.crt")}
		p := startProgram(t, file, flags...)
		for n := 2; n < 5; n++ {
			was, _ := p.signer(s.Service)
			next := fmt.Sprintf("..%d", n)
			keyPair(t, filepath.Join(mount, next))
			if err := os.Symlink(next, filepath.Join(mount, "..tmp")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(mount, "..tmp"), filepath.Join(mount, "..data")); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(mount, fmt.Sprintf("..%d", n-1))); err != nil {
				t.Fatal(err)
			}
			p.signsWith(s.Service, current())
			if kid, _ := p.signer(s.Service); kid == was {
				t.Error("the key is the same")
			}
		}
		p.mu.Lock()
		for _, line := range p.log {
			if line["msg"] == refused {
				t.Errorf("logged %v", line["raw"])
			}
		}
		p.mu.Unlock()
		p.stop()
	})
}

// A database that does not answer, and a wrong encryption key file, are said without a secret.
func TestKeysInADatabaseThatCannotBeUsedAreNamedWithoutSecrets(t *testing.T) {
	file, _ := initialised(t)
	secret := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{9}, 32))
	encryption := filepath.Join(t.TempDir(), "encryption.key")
	environ := []string{"AUTHSERVER_DATABASE__URL=postgres://u:s3cr3t@127.0.0.1:1/x?sslmode=disable"}
	flags := []string{"--config", file, "--set", "issuer.keys.store=database", "--set", "issuer.keys.encryption_key_file=" + encryption}
	for text, want := range map[string]string{secret: "the database does not answer", secret[:30]: "the database does not answer"} {
		if err := os.WriteFile(encryption, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"key list", "key export", "key rotate", "key rotate --encryption", "key revoke X", "serve"} {
			out, stderr, status := callWith(t, environ, append(strings.Fields(command), flags...)...)
			if command == "serve" {
				want = ""
			}
			if status != exitNo || out != "" && command != "serve" || !strings.Contains(stderr, want) || strings.Contains(out+stderr, text[:20]) || strings.Contains(out+stderr, "s3cr3t") {
				t.Errorf("%s: status %d: %s%s", command, status, out, stderr)
			}
		}
	}
	out, _, _ := callWith(t, environ, append([]string{"config", "show"}, flags...)...)
	if !strings.Contains(out, encryption) || strings.Contains(out, secret[:20]) || strings.Contains(out, "s3cr3t") {
		t.Errorf("config show: %s", out)
	}
}

// A name that a shell would take apart is quoted in what is there to be typed.
func TestWhatIsToBeTypedIsQuoted(t *testing.T) {
	if got, want := (rotation{service: "My Registry; rm"}).target(), "--service 'My Registry; rm'"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
