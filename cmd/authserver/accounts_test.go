package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/users"
)

// callWith is call in an environment.
func callWith(t *testing.T, environ []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(&hand{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, environ: environ}, args)
	return out.String(), errs.String(), status
}

// The one place for a password outside of files is the environment, and the one key is database.url.
func TestThePasswordInTheAddressOfTheDatabaseIsNeverShown(t *testing.T) {
	file, _ := initialised(t)
	for given, shown := range map[string]string{
		"postgres://auth:hunter2@127.0.0.1:1/auth?sslmode=verify-full":              "postgres://auth:xxxxx@127.0.0.1:1/auth?sslmode=verify-full",
		"postgres://auth:hunter2%40%2F@127.0.0.1:1/auth":                            "postgres://auth:xxxxx@127.0.0.1:1/auth",
		"postgresql://127.0.0.1:1/auth?user=auth&password=hunter2&Password=hunter2": "Password=xxxxx&password=xxxxx&user=auth",
		"postgres://auth@127.0.0.1:1/auth?sslpassword=hunter2":                      "sslpassword=xxxxx",
		"postgres://auth@127.0.0.1:1/auth":                                          "postgres://auth@127.0.0.1:1/auth",
		"sqlite:a@b:c.db":                                                           "sqlite:a@b:c.db",
		"sqlite:50%.db":                                                             "sqlite:50%.db",
	} {
		for _, format := range []string{"text", "json"} {
			out, stderr, status := callWith(t, []string{"AUTHSERVER_DATABASE__URL=" + given}, "config", "show", "--config", file, "-o", format)
			out = strings.ReplaceAll(out, `\u0026`, "&")
			if status != exitOK || strings.Contains(out+stderr, "hunter2") || !strings.Contains(out, shown) {
				t.Errorf("%s: status %d: %s%s", given, status, out, stderr)
			}
		}
		if strings.HasPrefix(given, "postgres") { // and not when it cannot be reached either
			_, stderr, status := callWith(t, []string{"AUTHSERVER_DATABASE__URL=" + given}, "user", "list", "--config", file, "--set", "database.timeout=100ms")
			if status != exitNo || strings.Contains(stderr, "hunter2") || !strings.HasPrefix(stderr, "authserver: environment AUTHSERVER_DATABASE__URL: database.url: ") {
				t.Errorf("%s: status %d: %s", given, status, stderr)
			}
		}
	}
	if shown := redactedAddress("postgres://u:hunter2@h:port/d"); shown != "[redacted]" { // it cannot be told what of it is the password
		t.Error(shown)
	}
}

func TestTheSettingsOfRefreshTokensAreNoSecret(t *testing.T) {
	file, _ := initialised(t)
	if out := must(t, "", "config", "show", "--config", file, "--set", "refresh_tokens.idle_lifetime=77h"); !strings.Contains(out, "idle_lifetime: 77h") || strings.Contains(out, "[redacted]") {
		t.Error(out)
	}
}

func TestTheDatabaseIsFoundFromTheFolderOfTheConfiguration(t *testing.T) {
	file, _ := initialised(t)
	t.Chdir(filepath.Dir(file))
	for _, data := range []string{"data", "./data", "not/yet/there"} {
		must(t, "", "user", "add", "ci", "--robot", "--set", "issuer.data_dir="+data)
		if out := must(t, "", "user", "list", "--set", "issuer.data_dir="+data, "--backend", "database"); out != "ci  robot\n" {
			t.Errorf("%s: %q", data, out)
		}
		must(t, "", "user", "remove", "ci", "--set", "issuer.data_dir="+data)
		if info, err := os.Stat(data); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", data, info, err)
		}
	}
}

// cheap is what makes a command quick: hashes of the lowest cost.
var cheap = []string{"--set", "passwords.bcrypt_cost=4"}

// commands returns how to run commands on a configuration of init: admin in a file, everybody else in the database.
func commands(t *testing.T) (run func(stdin string, args ...string) (string, string, int), file string) {
	t.Helper()
	file, _ = initialised(t)
	return func(stdin string, args ...string) (string, string, int) {
		t.Helper()
		return call(t, stdin, append(append(args, "--config", file), cheap...)...)
	}, file
}

// says runs a command that must succeed and print nothing but want.
func says(t *testing.T, run func(string, ...string) (string, string, int), want string, args ...string) {
	t.Helper()
	if out, stderr, status := run("", args...); status != exitOK || out != want || stderr != "" {
		t.Errorf("%v: status %d, %q, %q; want %q", args, status, out, stderr, want)
	}
}

// refused runs a command that must fail with a status and say why, on stderr alone.
func refused(t *testing.T, run func(string, ...string) (string, string, int), want int, why string, args ...string) {
	t.Helper()
	if out, stderr, status := run("hunter2\n", args...); status != want || out != "" || !strings.Contains(stderr, why) || strings.Contains(stderr, "hunter2") {
		t.Errorf("%v: status %d, %q, %q; want status %d and %q", args, status, out, stderr, want, why)
	}
}

func TestNewUsersGoIntoTheDatabase(t *testing.T) {
	run, _ := commands(t)
	if out, stderr, status := run("hunter2\n", "user", "add", "alice", "--password-stdin", "--group", "dev,ops", "--group", "all"); status != exitOK || out+stderr != "" {
		t.Fatalf("status %d: %s%s", status, out, stderr)
	}
	says(t, run, "", "user", "add", "ci", "--robot", "--group", "dev")
	says(t, run, "admin\nalice\nci  robot\n", "user", "list")
	says(t, run, "admin\n", "user", "list", "--backend", "htpasswd")
	says(t, run, "alice\nci  robot\n", "user", "list", "--backend", "database")
	says(t, run, "name:     admin\nbackend:  htpasswd\nkind:     user\ndisabled: false\ngroups:   \n", "user", "show", "admin")
	if out, _, _ := run("", "user", "show", "alice"); !strings.HasPrefix(out, "name:     alice\nbackend:  database\nkind:     user\ndisabled: false\ngroups:   all, dev, ops\ncreated:  20") {
		t.Errorf("show: %q", out)
	}
	says(t, run, "", "user", "disable", "alice")
	says(t, run, "", "user", "disable", "ci")
	says(t, run, "admin\nalice  disabled\nci     robot  disabled\n", "user", "list")
	says(t, run, "", "user", "enable", "alice")

	var list []userLine
	out, _, _ := run("", "user", "list", "-o", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 3 || list[0].Backend != "htpasswd" || list[0].Created != nil ||
		list[1].Name != "alice" || list[1].Disabled || list[1].Created == nil || list[2].Kind != users.KindRobot || !list[2].Disabled {
		t.Errorf("list: %+v, %v", list, err)
	}
	var one userLine
	out, _, _ = run("", "user", "show", "ci", "-o", "json")
	if err := json.Unmarshal([]byte(out), &one); err != nil || one.Name != "ci" || !slices.Equal(one.Groups, []string{"dev"}) || strings.Contains(out, "assword") {
		t.Errorf("show: %s, %v", out, err)
	}

	refused(t, run, exitNo, `user "alice": the user exists already, in backend database`, "user", "add", "alice", "--password-stdin")
	refused(t, run, exitNo, `user "admin": the user exists already, in backend htpasswd`, "user", "add", "admin", "--password-stdin")
	refused(t, run, exitNo, `"Bob" cannot be a name`, "user", "add", "Bob", "--password-stdin")
	refused(t, run, exitNo, `"a b" cannot be a name`, "user", "add", "bob", "--password-stdin", "--group", "dev", "--group", "a b")
	refused(t, run, exitNo, "no such user", "user", "show", "bob") // nothing was left of it
	refused(t, run, exitNo, `"ci" is a robot`, "user", "passwd", "ci", "--password-stdin")
	for _, command := range []string{"show", "passwd", "disable", "enable", "remove"} {
		refused(t, run, exitNo, `user "bob": there is no such user`, "user", command, "bob")
	}
	refused(t, run, exitNo, "knows names and passwords only", "user", "disable", "admin")
	refused(t, run, exitNo, "knows names and passwords only", "user", "enable", "admin")
	refused(t, run, exitNo, "knows names and passwords only", "user", "add", "bob", "--backend", "htpasswd", "--password-stdin", "--group", "dev")
	refused(t, run, exitNo, "--backend ldap: there is no users block of this kind", "user", "list", "--backend", "ldap")
	refused(t, run, exitMisuse, "accepts 1 arg", "user", "disable")
	refused(t, run, exitMisuse, "use --password-stdin", "user", "add", "bob")

	says(t, run, "", "user", "remove", "alice")
	says(t, run, "", "user", "remove", "ci")
	says(t, run, "admin\n", "user", "list")
	// Groups stay, with nobody in them.
	says(t, run, "all\ndev\nops\n", "group", "list")
	says(t, run, "", "group", "list", "dev")
}

// A name can be in both backends: the first of the configuration has it, as at a login, unless --backend says which.
func TestANameInBothBackendsIsTheFirstsUnlessOneIsNamed(t *testing.T) {
	run, _ := commands(t)
	add := func(backend string) {
		t.Helper()
		if _, stderr, status := run("x\n", "user", "add", "both", "--password-stdin", "--backend", backend); status != exitOK {
			t.Fatal(stderr)
		}
	}
	backendOf := func(flags ...string) string {
		t.Helper()
		var u userLine
		out, stderr, status := run("", append([]string{"user", "show", "both", "-o", "json"}, flags...)...)
		if err := json.Unmarshal([]byte(out), &u); status != exitOK || err != nil {
			t.Fatalf("%v %s", err, stderr)
		}
		return u.Backend
	}
	token := func() (owner string) {
		t.Helper()
		if _, stderr, status := run("", "token", "create", "--user", "both", "--name", "t"); status != exitOK {
			t.Fatal(stderr)
		}
		out, _, _ := run("", "token", "list", "-o", "json")
		var list []tokenLine
		if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
			t.Fatalf("%s, %v", out, err)
		}
		return list[0].Backend
	}
	add("database")
	add("htpasswd")
	if first, second := backendOf(), backendOf("--backend", "database"); first != "htpasswd" || second != "database" {
		t.Errorf("%s, and with --backend %s", first, second)
	}
	if got := token(); got != "htpasswd" {
		t.Errorf("the token is of backend %s", got)
	}
	says(t, run, "", "user", "remove", "both", "--backend", "database")
	if out, _, _ := run("", "token", "list", "-o", "json"); !strings.Contains(out, `"backend": "htpasswd"`) {
		t.Errorf("the token of the other one went too: %s", out)
	}
	refused(t, run, exitNo, "no such user", "user", "remove", "both", "--backend", "database")
	says(t, run, "", "user", "remove", "both")
	says(t, run, "[]\n", "token", "list", "-o", "json")
	add("database")
	if got := token(); got != "database" {
		t.Errorf("the token is of backend %s", got)
	}
	says(t, run, "", "user", "remove", "both")
	says(t, run, "[]\n", "token", "list", "-o", "json")
}

// Tokens are kept under the name in NFC. Who removes a user as a terminal in NFD types it must not leave them to the next one.
func TestAUserIsTheSameInEveryUnicodeForm(t *testing.T) {
	run, _ := commands(t)
	const nfc, nfd = "jos\u00e9", "jose\u0301"
	if _, stderr, status := run("x\n", "user", "add", nfd, "--backend", "htpasswd", "--password-stdin"); status != exitOK {
		t.Fatal(stderr)
	}
	if _, stderr, status := run("", "token", "create", "--user", nfd, "--name", nfd); status != exitOK {
		t.Fatal(stderr)
	}
	for _, name := range []string{nfc, nfd} {
		if out, _, _ := run("", "token", "list", "--user", name, "-o", "json"); !strings.Contains(out, `"owner": "`+nfc+`"`) || !strings.Contains(out, `"name": "`+nfc+`"`) {
			t.Errorf("%+q: %s", name, out)
		}
		refused(t, run, exitNo, "there already", "token", "create", "--user", name, "--name", name)
	}
	says(t, run, "", "user", "remove", nfd)
	says(t, run, "[]\n", "token", "list", "-o", "json")
}

func TestGroups(t *testing.T) {
	run, _ := commands(t)
	for _, name := range []string{"ci", "cd"} {
		says(t, run, "", "user", "add", name, "--robot")
	}
	says(t, run, "", "group", "list")
	says(t, run, "[]\n", "group", "list", "-o", "json")
	says(t, run, "", "group", "add", "dev")
	says(t, run, "", "group", "add", "dev", "ci", "cd")
	says(t, run, "", "group", "add", "dev", "ci") // it is there
	says(t, run, "", "group", "add", "new", "cd") // with the group
	says(t, run, "dev\nnew\n", "group", "list")
	says(t, run, "cd\nci\n", "group", "list", "dev")
	says(t, run, "[\n  \"cd\",\n  \"ci\"\n]\n", "group", "list", "dev", "-o", "json")
	says(t, run, "", "group", "remove", "dev", "cd")
	says(t, run, "ci\n", "group", "list", "dev")
	for why, args := range map[string][]string{
		`group "dev": there already`: {"add", "dev"},
		`"De v" cannot be a name`:    {"add", "De v"},
		`"admin": not found`:         {"add", "dev", "admin"}, // of the file
		`"cd": not found`:            {"remove", "dev", "cd"},
		`"ops": not found`:           {"remove", "ops"},
		`"ci": not found`:            {"remove", "ops", "ci"},
		`group "ops": not found`:     {"list", "ops"},
		`"bob": not found`:           {"add", "ops2", "ci", "bob"},
	} {
		refused(t, run, exitNo, why, append([]string{"group"}, args...)...)
	}
	refused(t, run, exitMisuse, "at least 1 arg", "group", "add")
	refused(t, run, exitMisuse, "at most 1 arg", "group", "list", "a", "b")
	says(t, run, "", "group", "remove", "dev")
	if out, _, _ := run("", "user", "show", "ci"); !strings.Contains(out, "groups:   ops2\n") {
		t.Errorf("show: %s", out)
	}
}

func TestAnAccessTokenIsShownOnceAndAlone(t *testing.T) {
	run, file := commands(t)
	says(t, run, "", "user", "add", "ci", "--robot")
	looks := regexp.MustCompile(`^asat_[0-9A-Za-z]{49}\n$`)
	secret, stderr, status := run("", "token", "create", "--user", "ci", "--name", "pipeline", "--expires", "365d",
		"--scope", "repository:team/**:pull,push", "--scope", "registry:catalog:*", "--from-cidr", "10.0.0.0/8,2001:db8::/32", "--from-cidr", "192.0.2.7")
	if status != exitOK || !looks.MatchString(secret) {
		t.Fatalf("status %d: %q %s", status, secret, stderr)
	}
	if !regexp.MustCompile(`^Token [a-z0-9]{10} of ci, expires 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ; shown this once. Use it as the password of ci.\n$`).MatchString(stderr) {
		t.Errorf("said %q", stderr)
	}
	out, stderr, status := run("", "token", "create", "--user", "admin", "--name", "laptop", "--expires", "never", "-o", "json")
	var made madeToken
	if err := json.Unmarshal([]byte(out), &made); status != exitOK || err != nil || stderr != "" || !looks.MatchString(made.Token+"\n") ||
		made.Owner != "admin" || made.Name != "laptop" || made.Expires != nil || len(made.ID) != 10 {
		t.Errorf("status %d: %s%s, %v", status, out, stderr, err)
	}
	// Neither is kept: not in a list, not in the database.
	var kept strings.Builder
	for _, args := range [][]string{{"list"}, {"list", "-o", "json"}, {"list", "--user", "ci"}} {
		out, _, _ := run("", append([]string{"token"}, args...)...)
		kept.WriteString(out)
	}
	kept.WriteString(snapshot(t, filepath.Join(filepath.Dir(file), "data")))
	for _, secret := range []string{strings.TrimSpace(secret), made.Token} {
		if strings.Contains(kept.String(), secret[len("asat_")+6:]) || !strings.Contains(kept.String(), secret[:len("asat_")+6]) {
			t.Error("more or less is kept of a token than its beginning")
		}
	}
	var list []tokenLine
	out, _, _ = run("", "token", "list", "-o", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 2 {
		t.Fatalf("%s, %v", out, err)
	}
	slices.SortFunc(list, func(a, b tokenLine) int { return strings.Compare(a.Owner, b.Owner) })
	if a := list[0]; a.Owner != "admin" || a.Backend != "htpasswd" || a.ID != made.ID || a.Scopes != nil || a.Networks != nil || a.Expires != nil || a.LastUsed != nil || a.LastFrom != "" {
		t.Errorf("admin's: %+v", a)
	}
	networks := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("192.0.2.7/32")}
	ci := list[1]
	if ci.Owner != "ci" || ci.Backend != "database" || ci.Name != "pipeline" || !slices.Equal(ci.Scopes, []string{"repository:team/**:pull,push", "registry:catalog:*"}) ||
		!slices.Equal(ci.Networks, networks) || ci.Expires == nil || ci.Expires.Sub(ci.Created) != 365*24*time.Hour {
		t.Errorf("ci's: %+v", ci)
	}
	out, _, _ = run("", "token", "list", "--user", "ci")
	if lines := strings.Split(out, "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "ID ") || !strings.HasPrefix(lines[1], ci.ID+"  ci     pipeline  "+secret[:len("asat_")+6]+"…  ") ||
		!strings.HasSuffix(lines[1], "  never      repository:team/**:pull,push registry:catalog:*") {
		t.Errorf("list:\n%s", out)
	}
	if out, _, _ = run("", "token", "list", "--user", "admin"); !strings.HasSuffix(out, "  never    never      all\n") {
		t.Errorf("list:\n%s", out)
	}
	says(t, run, "[]\n", "token", "list", "--user", "nobody", "-o", "json")

	// All that can be ended are, whatever else is named.
	refused(t, run, exitNo, `"nothing": not found`, "token", "revoke", ci.ID, "nothing", made.ID)
	says(t, run, "[]\n", "token", "list", "-o", "json")
	refused(t, run, exitNo, `"`+ci.ID+`": not found`, "token", "revoke", ci.ID)
	refused(t, run, exitMisuse, "at least 1 arg", "token", "revoke")
}

func TestATokenWithoutScopesIsNotOneThatMayDoNothing(t *testing.T) {
	run, _ := commands(t)
	if _, stderr, status := run("", "token", "create", "--user", "admin", "--name", "all"); status != exitOK {
		t.Fatal(stderr)
	}
	if out, _, _ := run("", "token", "list", "-o", "json"); !strings.Contains(out, `"scopes": null`) {
		t.Error(out)
	}
	refused(t, run, exitMisuse, `--scope: "" is no scope`, "token", "create", "--user", "admin", "--name", "none", "--scope", "")
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "1d": 24 * time.Hour, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute, "65535d": 65535 * 24 * time.Hour, "never": 0,
	} {
		got, err := parseExpiry(text, now)
		if err != nil || want == 0 && !got.IsZero() || want != 0 && !got.Equal(now.Add(want)) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "0d", "0h", "0", "-1d", "-1h", "1", "1.5d", "1w", "1y", "65536d", "1d12h", "99999999d", "9999999999h", "Never", "2027-01-01", " 1d", "1d ", "+1d", "d90"} {
		if got, err := parseExpiry(text, now); err == nil || !strings.Contains(err.Error(), "would be right: 90d, 12h or never") {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}

// What is wrong with a command line is said before anything is opened.
func TestATokenThatCannotBeIsMisuse(t *testing.T) {
	run, file := commands(t)
	good := map[string]string{"--user": "admin", "--name": "laptop"}
	for _, bad := range []struct{ flag, value, why string }{
		{"--user", "", "--user and --name are needed"},
		{"--name", "", "--user and --name are needed"},
		{"--user", "a:b", "--user: a user name cannot hold a colon"},
		{"--name", "a\nb", "--name: a user name cannot hold control or format characters"},
		{"--name", strings.Repeat("n", 256), "--name: at most 255 bytes"},
		{"--expires", "0d", `--expires: "0d" is no time to come`},
		{"--expires", "tomorrow", `--expires: "tomorrow" is no time to come`},
		{"--expires", "-1h", `--expires: "-1h" is no time to come`},
		{"--scope", "team/**", `--scope: "team/**" is no scope; would be right: repository:team/**:pull,push`},
		{"--scope", "repository:{user}/**:pull", "--scope: placeholders stand for nothing"},
		{"--scope", "repository:team/**:", `is no action`},
		{"--from-cidr", "10.0.0.5/8", "--from-cidr: \"10.0.0.5/8\" has bits set beyond its length"},
		{"--from-cidr", "office", `--from-cidr: "office" is no network`},
		{"--from-cidr", "10.0.0.0/8,", `--from-cidr: "" is no network`},
		{"--nonsense", "x", "unknown flag: --nonsense"},
	} {
		args := []string{"token", "create"}
		for flag, value := range good {
			if flag != bad.flag {
				args = append(args, flag, value)
			}
		}
		refused(t, run, exitMisuse, bad.why, append(args, bad.flag, bad.value)...)
	}
	refused(t, run, exitMisuse, "unknown command", "token", "create", "--user", "admin", "--name", "x", "laptop")
	if _, err := os.Stat(filepath.Join(filepath.Dir(file), "data/authserver.db")); !os.IsNotExist(err) {
		t.Errorf("the database was opened: %v", err)
	}

	says(t, run, "", "user", "add", "off", "--robot")
	says(t, run, "", "user", "disable", "off")
	for user, why := range map[string]string{"nobody": `--user: there is no "nobody"`, "Admin": `--user: there is no "Admin"`, "off": `--user: "off" is disabled`} {
		refused(t, run, exitNo, why, "token", "create", "--user", user, "--name", "x")
	}
	says(t, run, "[]\n", "token", "list", "-o", "json")
}

func TestDatabaseBackup(t *testing.T) {
	run, file := commands(t)
	says(t, run, "", "user", "add", "ci", "--robot")
	copied := filepath.Join(t.TempDir(), "copy.db")
	says(t, run, "", "database", "backup", copied)
	refused(t, run, exitNo, copied+" is there already", "database", "backup", copied)
	refused(t, run, exitNo, "no such file or directory", "database", "backup", "/nowhere/copy.db")
	refused(t, run, exitMisuse, "accepts 1 arg", "database", "backup")
	says(t, run, "", "user", "remove", "ci")
	if out := must(t, "", "user", "list", "--config", file, "--set", "database.url=sqlite:"+copied); !strings.Contains(out, "ci  robot\n") {
		t.Errorf("in the backup: %q", out)
	}
}

func TestWithoutADatabaseItsCommandsSaySo(t *testing.T) {
	file, _ := initialised(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := bytes.Cut(text, []byte("  - kind: database"))
	if !ok {
		t.Fatal("init does not write a database block")
	}
	_, after, _ := bytes.Cut(text, []byte("\nacl:"))
	if err := os.WriteFile(file, slices.Concat(before, []byte("\nacl:"), after), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, args ...string) (string, string, int) {
		return call(t, stdin, append(append(args, "--config", file, "--set", "database.url=none"), cheap...)...)
	}
	for _, args := range [][]string{
		{"token", "create", "--user", "admin", "--name", "x"}, {"token", "list"}, {"token", "revoke", "x"}, {"group", "add", "dev"}, {"group", "remove", "dev"},
		{"group", "list"}, {"database", "backup", "x"},
	} {
		refused(t, run, exitNo, "authserver: flag --set: database.url: none; this needs a database\n", args...)
	}
	refused(t, run, exitNo, "knows names and passwords only", "user", "add", "ci", "--robot")
	refused(t, run, exitNo, "--backend database: there is no users block", "user", "list", "--backend", "database")
	if _, stderr, status := run("x\n", "user", "add", "alice", "--password-stdin"); status != exitOK { // goes into the file
		t.Error(stderr)
	}
	says(t, run, "admin\nalice\n", "user", "list")
	says(t, run, "", "user", "remove", "alice")
	says(t, run, "ok: 1 service, 6 rules, 1 user backend\n", "config", "check")
	refused(t, run, exitNo, "refresh_tokens.enabled: needs a database, but database.url is none", "config", "check", "--set", "refresh_tokens.enabled=true")
	if _, err := os.Stat(filepath.Join(filepath.Dir(file), "data/authserver.db")); !os.IsNotExist(err) {
		t.Errorf("there is a database: %v", err)
	}
}

// The users of the file are those who get in whatever becomes of the database, so they can be edited whatever becomes of it.
func TestUsersOfTheFileCanBeEditedWhileTheDatabaseIsDown(t *testing.T) {
	file, _ := initialised(t)
	run := func(stdin string, args ...string) (string, string, int) {
		return call(t, stdin, append(append(args, "--config", file, "--set", "database.url=postgres://u@127.0.0.1:1/d"), cheap...)...)
	}
	const down = "flag --set: database.url: the database does not answer: "
	refused(t, run, exitNo, down, "user", "list")
	refused(t, run, exitNo, down, "token", "list")
	for _, args := range [][]string{{"add", "alice"}, {"passwd", "alice"}, {"passwd", "admin"}} {
		if _, stderr, status := run("x\n", append(append([]string{"user"}, args...), "--backend", "htpasswd", "--password-stdin")...); status != exitOK {
			t.Errorf("%v: %s", args, stderr)
		}
	}
	says(t, run, "admin\nalice\n", "user", "list", "--backend", "htpasswd")
	refused(t, run, exitNo, down, "user", "remove", "alice", "--backend", "htpasswd") // her tokens could not be ended
	says(t, run, "admin\nalice\n", "user", "list", "--backend", "htpasswd")
}

func TestConfigCheckOpensNoDatabase(t *testing.T) {
	file, _ := initialised(t)
	before := snapshot(t, filepath.Dir(file))
	for _, url := range []string{"sqlite:authserver.db", "sqlite:/nowhere/authserver.db", "postgres://u@127.0.0.1:1/d"} {
		if out := must(t, "", "config", "check", "--config", file, "--set", "database.url="+url, "--set", "refresh_tokens.enabled=true"); !strings.HasPrefix(out, "ok: ") {
			t.Errorf("%s: %s", url, out)
		}
	}
	if snapshot(t, filepath.Dir(file)) != before {
		t.Error("something was written")
	}
}

// explain asks as the server would: an account is in its groups of the database.
func TestExplainKnowsTheAccountsOfTheDatabase(t *testing.T) {
	file, _ := initialised(t)
	dir := filepath.Dir(file)
	policy := "rules: [{name: team, subjects: [\"group:backend\", \"robot:ci\"], repositories: [\"backend/**\"], actions: [pull]}]\n"
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	explain := func(args ...string) string {
		t.Helper()
		return must(t, "", append([]string{"acl", "explain", "--config", file, "--scope", "repository:backend/x:pull"}, args...)...)
	}
	if out := explain("--as", "bob"); !strings.HasSuffix(out, "granted: nothing\n") {
		t.Errorf("before there is a database: %s", out)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "authserver.db")); !os.IsNotExist(err) {
		t.Errorf("explain made a database: %v", err)
	}
	must(t, "x\n", append([]string{"user", "add", "bob", "--group", "backend", "--password-stdin", "--config", file}, cheap...)...)
	must(t, "", append([]string{"user", "add", "ci", "--robot", "--config", file}, cheap...)...)
	for args, want := range map[string]string{
		"--as bob": "granted: repository:backend/x:pull\n", "--as ci": "granted: repository:backend/x:pull\n", "--as admin": "granted: nothing\n", "--as bob --group ops": "granted: nothing\n",
	} {
		if out := explain(strings.Fields(args)...); !strings.HasSuffix(out, want) {
			t.Errorf("%s: %s", args, out)
		}
	}
}

// Whoever is given a name anew is somebody else, however the one before was taken out of the file.
func TestANewUserOfAFileHasNoTokensOfAnother(t *testing.T) {
	config, _ := initialised(t)
	cheap := []string{"--config", config, "--set", "passwords.bcrypt_cost=4"}
	must(t, "one-secret\n", append([]string{"user", "add", "dave", "--backend", "htpasswd", "--password-stdin"}, cheap...)...)
	must(t, "", append([]string{"token", "create", "--user", "dave", "--name", "old"}, cheap...)...)
	file := filepath.Join(filepath.Dir(config), "users.htpasswd")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, regexp.MustCompile(`(?m)^dave:.*\n`).ReplaceAll(text, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "another-secret\n", append([]string{"user", "add", "dave", "--backend", "htpasswd", "--password-stdin"}, cheap...)...)
	if out := must(t, "", append([]string{"token", "list", "-o", "json"}, cheap...)...); strings.TrimSpace(out) != "[]" {
		t.Error(out)
	}
}
