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
		"postgres://auth:hunter2@db:5432/auth?sslmode=verify-full":         "postgres://auth:xxxxx@db:5432/auth?sslmode=verify-full",
		"postgres://auth:hunter2%40%2F@db/auth":                            "postgres://auth:xxxxx@db/auth",
		"postgresql://db/auth?user=auth&password=hunter2&Password=hunter2": "Password=xxxxx&password=xxxxx&user=auth",
		"postgres://auth@db/auth?sslpassword=hunter2":                      "sslpassword=xxxxx",
		"postgres://auth@db/auth":                                          "postgres://auth@db/auth",
		"sqlite:a@b:c.db":                                                  "sqlite:a@b:c.db",
		"sqlite:50%.db":                                                    "sqlite:50%.db",
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
