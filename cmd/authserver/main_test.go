package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// TestMain lets the test binary be the program, so that tests can start it as a process and send it signals.
func TestMain(m *testing.M) {
	if os.Getenv("BE_THE_PROGRAM") == "1" {
		main()
	}
	os.Exit(m.Run())
}

// call runs a command and returns what it printed and its exit status.
func call(t *testing.T, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(&hand{stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs}, args)
	return out.String(), errs.String(), status
}

// must runs a command that has to succeed.
func must(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	stdout, stderr, status := call(t, stdin, args...)
	if status != exitOK {
		t.Fatalf("%v: exit status %d: %s", args, status, stderr)
	}
	return stdout
}

// initialised makes a configuration with init and returns its file and what init said.
func initialised(t *testing.T, flags ...string) (string, started) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "auth")
	var s started
	if err := json.Unmarshal([]byte(must(t, "", append([]string{"init", dir, "-o", "json", "--set", "passwords.bcrypt_cost=4"}, flags...)...)), &s); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "authserver.yaml"), s
}

func TestInitWritesWhatServeNeeds(t *testing.T) {
	file, s := initialised(t, "--service", "reg.example.com", "--public-url", "https://auth.example.com", "--admin", "root")
	dir := filepath.Dir(file)
	for name, mode := range map[string]os.FileMode{
		"authserver.yaml": 0o644, "policy.yaml": 0o644, "users.htpasswd": 0o600,
		"data": 0o700, "data/root.key": 0o600, "data/root.crt": 0o644, "data/chain/es256.key": 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %o, want %o", name, info.Mode().Perm(), mode)
		}
	}
	if len(s.Password) < 20 || s.Admin != "root" || s.Realm != "https://auth.example.com/token" || s.Service != "reg.example.com" || s.Issuer != "authserver" {
		t.Errorf("said %+v", s)
	}
	if hash, _ := os.ReadFile(filepath.Join(dir, "users.htpasswd")); bytes.Contains(hash, []byte(s.Password)) {
		t.Error("the password is kept")
	}
	var stanza struct {
		Auth struct {
			Token map[string]string
		}
	}
	if err := yaml.Unmarshal([]byte(s.RegistryStanza), &stanza); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"realm": s.Realm, "service": s.Service, "issuer": s.Issuer, "rootcertbundle": s.RootCertificate} {
		if stanza.Auth.Token[key] != want {
			t.Errorf("stanza: %s is %q, want %q", key, stanza.Auth.Token[key], want)
		}
	}
	if !filepath.IsAbs(s.RootCertificate) {
		t.Errorf("root certificate %q", s.RootCertificate)
	}
	must(t, "", "config", "check", "--config", file)
}

func TestInitNeverOverwritesUnasked(t *testing.T) {
	file, first := initialised(t)
	dir := filepath.Dir(file)
	before := snapshot(t, dir)
	stdout, stderr, status := call(t, "", "init", dir)
	if status != exitNo || stdout != "" || !strings.Contains(stderr, "there already: "+file) || !strings.Contains(stderr, "--force") {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
	if after := snapshot(t, dir); after != before {
		t.Error("something was written")
	}
	for _, bad := range [][]string{{"--admin", "#x"}, {"--public-url", "x"}} { // refused before anything is overwritten
		if _, stderr, status := call(t, "", append([]string{"init", dir, "--force"}, bad...)...); status != exitMisuse || snapshot(t, dir) != before {
			t.Errorf("%v: status %d: %s", bad, status, stderr)
		}
	}
	text := must(t, "", "init", dir, "--force", "--admin", "boss")
	if strings.Contains(text, first.Password) || !strings.Contains(text, "authserver serve --config "+file) || !strings.Contains(text, "rootcertbundle") {
		t.Errorf("said %s", text)
	}
	after := snapshot(t, dir)
	if after == before {
		t.Error("--force wrote nothing")
	}
	// When keys are the trouble, the users stay: their new password would never be seen.
	if err := os.Rename(filepath.Join(dir, "data/root.crt"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "data/root.key"), filepath.Join(dir, "away.key")); err != nil {
		t.Fatal(err)
	}
	users, _ := os.ReadFile(filepath.Join(dir, "users.htpasswd"))
	if _, stderr, status := call(t, "", "init", dir, "--force"); status != exitNo || !strings.Contains(stderr, "bring it back") {
		t.Errorf("status %d: %s", status, stderr)
	}
	if now, _ := os.ReadFile(filepath.Join(dir, "users.htpasswd")); !bytes.Equal(now, users) {
		t.Error("the users were replaced, and nobody knows the password")
	}
	// Registries trust the root: no flag may replace it.
	root := regexp.MustCompile(`(?m)^data/root\.(crt|key) .*$`)
	if !slices.Equal(root.FindAllString(before, -1), root.FindAllString(after, -1)) {
		t.Error("--force made a new root")
	}
}

// snapshot is the content of every file below dir.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		text.WriteString(name + " " + strings.ReplaceAll(string(data), "\n", " ") + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestInitWithBadFlagsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	for _, flags := range [][]string{
		{"--public-url", "localhost"}, {"--service", "a&b"}, {"--listen", "nowhere"}, {"--admin", "a:b"}, {"--admin", "a*"}, {"--issuer", ""}, {"--public-url", "https://u:secret@host"},
		{"--config", "x.yaml"}, {"--set", "issuer.data_dir=/x"},
	} {
		_, stderr, status := call(t, "", append([]string{"init", dir}, flags...)...)
		if status != exitMisuse || strings.Contains(stderr, "secret") {
			t.Errorf("%v: status %d: %s", flags, status, stderr)
		}
		if left := snapshot(t, dir); left != "" {
			t.Errorf("%v: left %s", flags, left)
		}
	}
}

func TestUserCommandsEditTheUsersFile(t *testing.T) {
	file, _ := initialised(t)
	cheap := []string{"--config", file, "--set", "passwords.bcrypt_cost=4", "--backend", "htpasswd"}
	user := func(stdin string, args ...string) (string, string, int) {
		return call(t, stdin, append(append([]string{"user"}, args...), cheap...)...)
	}
	if _, stderr, status := user("pa ss:wörd\n", "add", "alice", "--password-stdin"); status != exitOK {
		t.Fatal(stderr)
	}
	if out, _, _ := user("", "list"); out != "admin\nalice\n" {
		t.Errorf("list: %q", out)
	}
	if out, _, _ := user("", "list", "-o", "json"); !strings.Contains(out, `"name": "alice"`) || !strings.Contains(out, `"backend": "htpasswd"`) {
		t.Errorf("list: %q", out)
	}
	if _, stderr, status := user("x\n", "passwd", "alice", "--password-stdin"); status != exitOK {
		t.Error(stderr)
	}
	refusals := []struct {
		stdin string
		args  []string
		want  int
		says  string
	}{
		{"x\n", []string{"add", "alice", "--password-stdin"}, exitNo, "exists already"},
		{"x\n", []string{"passwd", "bob", "--password-stdin"}, exitNo, "no such user"},
		{"", []string{"remove", "bob"}, exitNo, "no such user"},
		{"\n", []string{"add", "bob", "--password-stdin"}, exitNo, "no password"},
		{strings.Repeat("x", 73), []string{"add", "bob", "--password-stdin"}, exitNo, "at most 72 bytes"},
		{"x\n", []string{"add", "a:b", "--password-stdin"}, exitNo, "colon"},
		{"x\n", []string{"add", "#b", "--password-stdin"}, exitNo, "comment"},
		{"x\n", []string{"add", "bob"}, exitMisuse, "--password-stdin"},
		{"x\n", []string{"add", "--password-stdin"}, exitMisuse, "accepts 1 arg"},
		{"x\n", []string{"add", "bob", "secret", "--password-stdin"}, exitMisuse, "accepts 1 arg"},
		{"", []string{"disable", "alice"}, exitNo, "knows names and passwords only"},
		{"", []string{"add", "bob", "--robot"}, exitNo, "knows names and passwords only"},
	}
	for _, r := range refusals {
		if _, stderr, status := user(r.stdin, r.args...); status != r.want || !strings.Contains(stderr, r.says) {
			t.Errorf("%v: status %d: %s", r.args, status, stderr)
		}
	}
	if _, stderr, status := user("", "remove", "alice"); status != exitOK {
		t.Error(stderr)
	}
	if out, _, _ := user("", "list"); out != "admin\n" {
		t.Errorf("list: %q", out)
	}
}

func TestUserCommandsWithoutAUsersFile(t *testing.T) {
	file, _ := initialised(t)
	if err := os.Remove(filepath.Join(filepath.Dir(file), "users.htpasswd")); err != nil {
		t.Fatal(err)
	}
	if out := must(t, "", "user", "list", "--config", file); out != "" {
		t.Errorf("list: %q", out)
	}
	if _, stderr, status := call(t, "", "config", "check", "--config", file); status != exitNo || !strings.Contains(stderr, "user add NAME") {
		t.Errorf("status %d: %s", status, stderr)
	}
	must(t, "x\n", "user", "add", "alice", "--backend", "htpasswd", "--password-stdin", "--config", file, "--set", "passwords.bcrypt_cost=4")
	must(t, "", "config", "check", "--config", file)
	if err := os.WriteFile(file, []byte("services: [{name: a}]\nacl: {files: [policy.yaml]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := call(t, "", "user", "list", "--config", file); status != exitNo || !strings.Contains(stderr, "no block in the configuration that can be edited") {
		t.Errorf("status %d: %s", status, stderr)
	}
}

func TestConfigCheckReportsTheFaultsOfAllRoomsAtOnce(t *testing.T) {
	file, _ := initialised(t)
	dir := filepath.Dir(file)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("policy.yaml", "rules:\n  - {name: r, subjects: [anyone], repositories: [a], actions: [pull], services: [registry.lokal]}\n")
	write("users.htpasswd", "alice:{SHA}x\n")
	if err := os.Chmod(filepath.Join(dir, "data/root.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, stderr, status := call(t, "", "config", "check", "--config", file)
	if status != exitNo {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{
		`policy.yaml:2: rule "r": services: "registry.lokal" is not one of services[].name`,
		`users.htpasswd:1: user "alice": the password is hashed with SHA-1`,
		"root.key: everybody on this machine can read it",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q is not in:\n%s", want, stderr)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(stderr), "\n") {
		if !strings.HasPrefix(line, "authserver: ") {
			t.Errorf("line %q", line)
		}
	}
}

func TestConfigCheckChangesNothing(t *testing.T) {
	file, _ := initialised(t)
	dir := filepath.Dir(file)
	if err := os.RemoveAll(filepath.Join(dir, "data")); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	if out := must(t, "", "config", "check", "--config", file); out != "ok: 1 service, 6 rules, 2 user backends\n" {
		t.Errorf("said %q", out)
	}
	if snapshot(t, dir) != before {
		t.Error("something was written")
	}
}

func TestConfigCheckLooksAtThePlacesToWriteTo(t *testing.T) {
	file, _ := initialised(t)
	for says, set := range map[string]string{
		"flag --set: audit.output: /nowhere cannot be written to": "audit.output=file:/nowhere/audit.log",
		"flag --set: issuer.data_dir: /dev/null is not a folder":  "issuer.data_dir=/dev/null/authserver",
	} {
		if _, stderr, status := call(t, "", "config", "check", "--config", file, "--set", set); status != exitNo || !strings.Contains(stderr, says) {
			t.Errorf("%s: status %d: %s", set, status, stderr)
		}
	}
}

// Keys in the database are not looked at, and the database need not be there: the configuration is tried with keys as a first
// start would make them.
func TestConfigCheckNeedsNoDatabase(t *testing.T) {
	file, _ := initialised(t)
	key := filepath.Join(t.TempDir(), "encryption.key")
	if err := os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	check := []string{"config", "check", "--config", file, "--set", "database.url=postgres://nobody@127.0.0.1:1/none", "--set", "issuer.keys.store=database",
		"--set", "issuer.keys.encryption_key_file=" + key}
	if out := must(t, "", check...); !strings.HasPrefix(out, "ok: 1 service") {
		t.Errorf("said %q", out)
	}
	const says = "issuer.keys.encryption_key_file: "
	if _, stderr, status := call(t, "", append(check, "--set", "issuer.keys.encryption_key_file="+file)...); status != exitNo || !strings.Contains(stderr, says) {
		t.Errorf("status %d: %s", status, stderr)
	}
}

func TestConfigCheckReadsTheTLSCertificate(t *testing.T) {
	file, _ := initialised(t)
	_, stderr, status := call(t, "", "config", "check", "--config", file, "--set", "server.tls.cert_file=none.crt", "--set", "server.tls.key_file=none.key")
	if status != exitNo || !strings.Contains(stderr, "flag --set: server.tls.cert_file: ") {
		t.Errorf("status %d: %s", status, stderr)
	}
}

func TestConfigShowIsRedactedAndEffective(t *testing.T) {
	file, _ := initialised(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// A key that no backend knows could hold a secret under any name: it is refused, and not repeated.
	bad := bytes.Replace(text, []byte("file: users.htpasswd"), []byte("file: users.htpasswd\n    bind: s3cr3t"), 1)
	if err := os.WriteFile(file, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, stderr, status := call(t, "", "config", "show", "--config", file); status != exitNo || strings.Contains(out+stderr, "s3cr3t") || !strings.Contains(stderr, "users[0].bind: unknown key") {
		t.Errorf("status %d: %s%s", status, out, stderr)
	}
	shown := map[string]any{"bind_password": "s3cr3t", "secrets": []any{"s3cr3t"}, "list": []any{map[string]any{"api_token": "s3cr3t"}}, "key_file": "shown", "token_lifetime": "shown"}
	redact(shown)
	if text := fmt.Sprint(shown); strings.Contains(text, "s3cr3t") || strings.Count(text, "[redacted]") != 3 || strings.Count(text, "shown") != 2 {
		t.Errorf("redacted: %s", text)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"text", "json"} {
		out := must(t, "", "config", "show", "--config", file, "-o", format, "--set", "issuer.token_lifetime=7m")
		if !strings.Contains(out, "7m") || !strings.Contains(out, "bcrypt_cost") {
			t.Errorf("%s: %s", format, out)
		}
		var shown map[string]any
		if err := yaml.Unmarshal([]byte(out), &shown); err != nil || shown["server"] == nil {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestExplain(t *testing.T) {
	file, _ := initialised(t)
	dir := filepath.Dir(file)
	policy := `rules:
  - {name: team, subjects: ["group:dev"], repositories: ["team/**"], actions: [pull, push]}
  - {name: freeze, effect: deny, subjects: [anyone], repositories: ["team/**"], actions: [push], networks: ["203.0.113.0/24"]}
  - {name: bots, subjects: ["robot:ci"], repositories: ["team/**"], actions: [pull]}
  - {name: night, subjects: ["user:night"], repositories: ["night/**"], actions: [pull], when: 'claims.shift == "night" && now.getHours() < 6'}
`
	claims := filepath.Join(dir, "claims.json")
	if err := os.WriteFile(claims, []byte(`{"shift": "night"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	explain := func(args ...string) (string, string, int) {
		return call(t, "", append([]string{"acl", "explain", "--config", file}, args...)...)
	}
	at := filepath.Join(dir, "policy.yaml")
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"--as", "alice", "--group", "dev", "--ip", "192.0.2.1", "--scope", "repository:team/app:pull,push,delete"},
			"alice at registry.local\n" +
				"repository:team/app  delete  denied   no rule allows it\n" +
				"                                      rule team (" + at + ":2) would match but for the action delete\n" +
				"repository:team/app  pull    granted  by team (" + at + ":2)\n" +
				"repository:team/app  push    granted  by team (" + at + ":2)\n" +
				"granted: repository:team/app:pull,push\n"},
		{[]string{"--as", "alice", "--group", "dev", "--ip", "203.0.113.9", "--scope", "repository:team/app:push"},
			"alice at registry.local\n" +
				"repository:team/app  push  denied  by freeze (" + at + ":3), over team (" + at + ":2)\n" +
				"granted: nothing\n"},
		{[]string{"--scope", "repository:team/app:push"},
			"anonymous at registry.local\n" +
				"repository:team/app  push  denied  by freeze (" + at + ":3)\n" +
				"granted: nothing\n"},
		{[]string{"--as", "night", "--claims", claims, "--at", "2026-01-02T03:00:00Z", "--scope", "repository:night/app:pull"},
			"night at registry.local\n" +
				"repository:night/app  pull  granted  by night (" + at + ":5)\n" +
				"granted: repository:night/app:pull\n"},
		{[]string{"--as", "night", "--claims", claims, "--at", "2026-01-02T13:00:00Z", "--scope", "repository:night/app:pull"},
			"night at registry.local\n" +
				"repository:night/app  pull  denied  no rule allows it\n" +
				"                                    rule night (" + at + ":5) would match but for its condition\n" +
				"granted: nothing\n"},
		{[]string{"--as", "night", "--at", "2026-01-02T03:00:00Z", "--scope", "repository:night/app:pull"},
			"night at registry.local\n" +
				"repository:night/app  pull  denied  no rule allows it; its condition could not be evaluated: night (" + at + ":5)\n" +
				"                                    rule night (" + at + ":5) would match but for its condition\n" +
				"granted: nothing\n"},
		{[]string{"--as", "ci", "--robot", "--service", "registry.local", "--scope", "repository:team/app:pull"},
			"ci at registry.local\n" +
				"repository:team/app  pull  granted  by bots (" + at + ":4)\n" +
				"granted: repository:team/app:pull\n"},
	}
	for _, test := range tests {
		out, stderr, status := explain(test.args...)
		if out != test.want || status != exitOK {
			t.Errorf("%v: status %d, %s\ngot\n%s\nwant\n%s", test.args, status, stderr, out, test.want)
		}
	}
	out, _, _ := explain("-o", "json", "--as", "alice", "--group", "dev", "--scope", "repository:team/app:pull")
	var answer struct {
		Granted  []map[string]any
		Verdicts []map[string]any
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || len(answer.Granted) != 1 || answer.Verdicts[0]["granted"] != true {
		t.Errorf("json: %v %s", err, out)
	}
	for says, args := range map[string][]string{
		"is no scope":               {"--scope", "team/app"},
		"is no address":             {"--scope", "repository:a:pull", "--ip", "local"},
		"colon":                     {"--scope", "repository:a:pull", "--as", "a:b"},
		"is no time":                {"--scope", "repository:a:pull", "--at", "noon"},
		"need --as":                 {"--scope", "repository:a:pull", "--group", "dev"},
		"at most 255 bytes":         {"--scope", "repository:" + strings.Repeat("a", 300) + ":pull"},
		"--scope is missing":        {"--as", "alice"},
		"-o xml is not known":       {"--scope", "repository:a:pull", "-o", "xml"},
		"unknown flag: --nonsense":  {"--scope", "repository:a:pull", "--nonsense"},
		`unknown command "nothing"`: {"nothing", "--scope", "repository:a:pull"},
	} {
		if _, stderr, status := explain(args...); status != exitMisuse || !strings.Contains(stderr, says) {
			t.Errorf("%v: status %d: %s", args, status, stderr)
		}
	}
	if _, stderr, status := explain("--scope", "repository:a:pull", "--service", "evil"); status != exitNo || !strings.Contains(stderr, `service "evil" is not one of services[].name: registry.local`) {
		t.Errorf("status %d: %s", status, stderr)
	}
}

func TestKeyCommands(t *testing.T) {
	file, s := initialised(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, []byte("\n")...)
	text = bytes.Replace(text, []byte("users:"), []byte("  - {name: zot, verifier: pinned, algorithm: RS256}\n  - {name: three, verifier: jwks, algorithm: EdDSA}\n\nusers:"), 1)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	key := func(args ...string) (string, string, int) {
		return call(t, "", append(append([]string{"key"}, args...), "--config", file)...)
	}
	root, err := os.ReadFile(s.RootCertificate)
	if err != nil {
		t.Fatal(err)
	}
	if out, stderr, _ := key("export"); out != string(root) {
		t.Errorf("export: %q %s, want the root", out, stderr)
	}
	pinned, _, _ := key("export", "--service", "zot")
	if strings.Count(pinned, "BEGIN CERTIFICATE") != 1 || pinned == string(root) {
		t.Errorf("export --service zot: %s", pinned)
	}
	if again, _, _ := key("export", "--service", "zot"); again != pinned {
		t.Error("a pinned certificate must not change")
	}
	count := func(out string) int {
		var set struct{ Keys []map[string]any }
		if err := json.Unmarshal([]byte(out), &set); err != nil {
			t.Errorf("%q: %v", out, err)
		}
		for _, k := range set.Keys {
			if k["d"] != nil {
				t.Error("a private key")
			}
		}
		return len(set.Keys)
	}
	if out, _, _ := key("export", "--format", "jwks"); count(out) != 3 {
		t.Errorf("jwks: %s", out)
	}
	if out, _, _ := key("export", "--format", "jwks", "--service", "three"); count(out) != 1 {
		t.Errorf("jwks: %s", out)
	}
	if out, _, _ := key("list"); strings.Count(out, "\n") != 5 || !strings.Contains(out, "RS256") || !strings.Contains(out, "(364 days)") {
		t.Errorf("list:\n%s", out)
	}
	out, _, _ := key("list", "-o", "json")
	var lines []map[string]any
	if err := json.Unmarshal([]byte(out), &lines); err != nil || len(lines) != 4 || len(lines[0]["kid"].(string)) != 59 {
		t.Errorf("list: %v %s", err, out)
	}
	// A look changes nothing, however old the keys are and however the configuration would have them replaced.
	dir := filepath.Dir(file)
	before := snapshot(t, dir)
	old := time.Now().Add(-100 * 24 * time.Hour)
	_ = os.Chtimes(filepath.Join(dir, "data/chain/es256.crt"), old, old)
	key("list", "--set", "issuer.keys.rotate_every=1h")
	key("export", "--set", "issuer.keys.rotate_every=1h")
	if snapshot(t, dir) != before {
		t.Error("a look changed something")
	}
	if _, stderr, status := key("export", "--format", "der"); status != exitMisuse {
		t.Errorf("status %d: %s", status, stderr)
	}
	if _, stderr, status := key("export", "--service", "evil"); status != exitNo || !strings.Contains(stderr, "evil") {
		t.Errorf("status %d: %s", status, stderr)
	}
	if _, stderr, status := key("export", "--service", "three"); status != exitNo || !strings.Contains(stderr, "--format jwks") {
		t.Errorf("status %d: %s", status, stderr)
	}
}

func TestVersionHelpAndCompletion(t *testing.T) {
	if out := must(t, "", "version"); !regexp.MustCompile(`^authserver dev \(revision \w+ of \S+, go\S+, ` + runtime.GOOS + "/" + runtime.GOARCH + `\)\n$`).MatchString(out) {
		t.Errorf("version %q", out)
	}
	var b buildInfo
	if err := json.Unmarshal([]byte(must(t, "", "version", "-o", "json")), &b); err != nil || b.Version != "dev" || !strings.HasPrefix(b.Go, "go") {
		t.Errorf("version %+v, %v", b, err)
	}
	help := must(t, "", "--help")
	for _, command := range []string{"init", "serve", "config", "user", "acl", "key", "version", "completion", "--config", "--set"} {
		if !strings.Contains(help, command) {
			t.Errorf("help does not name %s", command)
		}
	}
	if must(t, "") != help {
		t.Error("without a command the help is printed")
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := must(t, "", "completion", shell); !strings.Contains(out, "authserver") {
			t.Errorf("completion %s", shell)
		}
	}
	for _, args := range [][]string{{"nonsense"}, {"user"}, {"acl"}, {"key"}, {"config"}, {"serve", "now"}, {"version", "--nonsense"}, {"init", "a", "b"}, {"token"}, {"group"}, {"database"}, {"token", "create"}, {"doctor", "now"}} {
		if _, stderr, status := call(t, "", args...); status != exitMisuse || stderr == "" {
			t.Errorf("%v: status %d: %s", args, status, stderr)
		}
	}
}

func TestTheConfigurationIsLookedForInTwoPlaces(t *testing.T) {
	file, _ := initialised(t)
	t.Chdir(filepath.Dir(file))
	must(t, "", "config", "check")
	t.Chdir(t.TempDir())
	if _, err := os.Stat("/etc/authserver/authserver.yaml"); err == nil {
		t.Skip("this machine has a configuration")
	}
	if _, stderr, status := call(t, "", "config", "check"); status != exitNo || !strings.Contains(stderr, "authserver init") || !strings.Contains(stderr, "/etc/authserver/authserver.yaml") {
		t.Errorf("status %d: %s", status, stderr)
	}
}

func TestAnUnknownBackendIsAnError(t *testing.T) {
	file, _ := initialised(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for from, says := range map[string]string{
		"kind: ldap\n    file: x": `users[0].kind: "ldap" is not known; would be right: htpasswd or database`,
		"kind: htpasswd":          "users[0].file: missing; would be right: file: users.htpasswd",
		"kind: htpasswd\n    file: users.htpasswd\n    fil: x": "users[0].fil: unknown key; known here: file",
	} {
		_, after, _ := bytes.Cut(text, []byte("file: users.htpasswd\n"))
		before, _, _ := bytes.Cut(text, []byte("kind: htpasswd"))
		changed := slices.Concat(before, []byte(from+"\n"), after)
		if err := os.WriteFile(file, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, stderr, status := call(t, "", "config", "check", "--config", file); status != exitNo || !strings.Contains(stderr, says) {
			t.Errorf("%q: status %d: %s", from, status, stderr)
		}
	}
}
