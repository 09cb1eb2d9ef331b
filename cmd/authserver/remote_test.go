package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// What the commands do in the database they do over the API.
func TestCommandsOnAServer(t *testing.T) {
	config, s := initialised(t)
	p := startProgram(t, config)
	as := func(login, password string) func(stdin string, args ...string) (string, string, int) {
		return func(stdin string, args ...string) (string, string, int) {
			var out, errs bytes.Buffer
			status := run(&hand{stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs, environ: []string{passwordVariable + "=" + password}}, append(args, "--server", p.url, "--login", login))
			if strings.Contains(out.String()+errs.String(), password) {
				t.Errorf("%v shows the password", args)
			}
			return out.String(), errs.String(), status
		}
	}
	admin := as("admin", s.Password)
	ok := func(stdin, want string, args ...string) string {
		t.Helper()
		out, errs, status := admin(stdin, args...)
		if status != exitOK || want != "*" && out != want {
			t.Fatalf("%v: %d %q %s", args, status, out, errs)
		}
		return out
	}
	ok("alice-secret\n", "", "user", "add", "alice", "--group", "dev", "--password-stdin")
	ok("", "", "user", "add", "ci", "--robot")
	ok("", "alice\nci  robot\n", "user", "list")
	if out := ok("", "*", "user", "show", "alice"); !strings.Contains(out, "groups:   dev\n") {
		t.Error(out)
	}
	ok("", "", "group", "add", "ops", "alice", "ci")
	ok("", "dev\nops\n", "group", "list")
	ok("", "alice\nci\n", "group", "list", "ops")
	ok("", "", "group", "remove", "ops", "ci")
	ok("", "alice\n", "group", "list", "ops")
	ok("", "", "group", "remove", "ops")
	ok("new-secret\n", "", "user", "passwd", "alice", "--password-stdin")
	if code := p.status("alice", "new-secret"); code != http.StatusOK {
		t.Errorf("after a new password: %d", code)
	}
	ok("", "", "user", "disable", "ci")
	if out, errs, status := admin("", "token", "create", "--user", "ci", "--name", "x"); status != exitNo || !strings.Contains(errs, "the server says: the account is disabled (409)") {
		t.Errorf("%d %s %s", status, out, errs)
	}
	ok("", "", "user", "enable", "ci")
	token := strings.TrimSpace(ok("", "*", "token", "create", "--user", "ci", "--name", "x", "--scope", "repository:**:pull", "--expires", "never"))
	if code := p.status("ci", token); code != http.StatusOK {
		t.Errorf("the token: %d", code)
	}
	lines := strings.Fields(strings.Split(ok("", "*", "token", "list", "--user", "ci"), "\n")[1])
	ok("", "", "token", "revoke", "--user", "ci", lines[0])
	if code := p.status("ci", token); code != http.StatusUnauthorized {
		t.Errorf("a revoked token: %d", code)
	}
	// A user for herself: what the policy that init writes lets her.
	alice := as("alice", "new-secret")
	if _, errs, status := alice("", "token", "create", "--user", "alice", "--name", "laptop"); status != exitOK {
		t.Error(errs)
	}
	for _, args := range [][]string{{"user", "list"}, {"user", "show", "ci"}, {"user", "disable", "ci"}, {"token", "list", "--user", "ci"}, {"group", "list"}, {"user", "add", "x", "--robot"}} {
		if _, errs, status := alice("", args...); status != exitNo || !strings.Contains(errs, "the server says: the policy does not grant this to you (403)") {
			t.Errorf("%v: %d %s", args, status, errs)
		}
	}
	ok("", "", "user", "remove", "ci")
	if _, errs, status := admin("", "user", "show", "ci"); status != exitNo || !strings.Contains(errs, "there is no such user") {
		t.Errorf("%d %s", status, errs)
	}
	p.stop()
}

func TestServerFlagIsUsedAsItMustBe(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/users" {
			t.Errorf("the password went to %s", r.URL.Path)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	defer elsewhere.Close()
	for args, want := range map[string]string{
		"--server http://auth.example.com --login a":                       "the password would be sent in clear; use https",
		"--server ftp://x --login a":                                       "is no address",
		"--server https://a:b@x --login a":                                 "is no address",
		"--server https://x":                                               "--login is needed",
		"--server https://x --login a":                                     "there is no terminal to ask for the password",
		"--server https://x --login a --backend database":                  "--server goes without --backend",
		"--login-password-stdin --login a --server " + elsewhere.URL:       "the server answers 307; is there an authserver at this address?",
		"--login-password-stdin --login a --server " + elsewhere.URL + "/": "the server answers 307; is there an authserver at this address?",
	} {
		if _, errs, status := call(t, "secret\n", append([]string{"user", "list"}, strings.Fields(args)...)...); status == exitOK || !strings.Contains(errs, want) || strings.Contains(errs, "secret\n") {
			t.Errorf("%s: %d %s", args, status, errs)
		}
	}
	for _, args := range []string{"token list", "token revoke x", "token create --name x"} {
		if _, errs, status := call(t, "", strings.Fields(args+" --server https://x --login a")...); status != exitMisuse || !strings.Contains(errs, "--user") {
			t.Errorf("%s: %d %s", args, status, errs)
		}
	}
}

func TestThePasswordVariableIsNoKeyOfTheConfiguration(t *testing.T) {
	config, _ := initialised(t)
	var out, errs bytes.Buffer
	if status := run(&hand{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, environ: []string{passwordVariable + "=x"}}, []string{"user", "list", "--config", config}); status != exitOK {
		t.Error(errs.String())
	}
}

// A server that refuses every reload keeps letting in who was removed.
func TestThePasswordVariableStopsNoReload(t *testing.T) {
	config, _ := initialised(t)
	t.Setenv(passwordVariable, "x")
	p := startProgram(t, config)
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if line := p.logged("configuration in use"); line["why"] != "SIGHUP" {
		t.Errorf("%v", line)
	}
	p.stop()
}

func TestServeWithoutADatabaseHasNoAPI(t *testing.T) {
	config, s := initialised(t)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?m)^  - kind: database.*\n`).ReplaceAll(text, nil)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, config, "--set", "database.url=none")
	if code, body := p.get(p.url+"/api/v1/whoami", "admin", s.Password); code != http.StatusNotFound || fmt.Sprint(field(t, body, "detail")) != "there is no API here: it needs a database, and database.url is none" {
		t.Errorf("%d %s", code, body)
	}
	p.stop()
}
