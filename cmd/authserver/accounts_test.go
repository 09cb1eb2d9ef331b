package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

// The users of the file are those who get in whatever becomes of the database, so they can be edited whatever becomes of it.
func TestUsersOfTheFileCanBeEditedWhileTheDatabaseIsDown(t *testing.T) {
	file, _ := initialised(t)
	run := func(stdin string, args ...string) (string, string, int) {
		return call(t, stdin, append(append(args, "--config", file, "--set", "database.url=postgres://u@127.0.0.1:1/d"), cheap...)...)
	}
	const down = "flag --set: database.url: the database cannot be opened: "
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

