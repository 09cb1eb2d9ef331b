package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"authserver/internal/doctor"
)

// What doctor finds on this machine: each case breaks one thing, and the finding names it, with its remedy.
func TestDoctorOnThisMachine(t *testing.T) {
	for name, c := range map[string]struct {
		bend     func(t *testing.T, dir string)
		flags    []string
		check    string
		severity string
		words    []string
	}{
		"all is well":             {nil, nil, "files", "ok", []string{"nobody else"}},
		"a fault":                 {rewrite("authserver.yaml", "verifier: chain", "verifier: chian"), nil, "config", "error", []string{"authserver.yaml:", "chian"}},
		"a fault in policy":       {rewrite("policy.yaml", "rules:", "rulez:"), nil, "config", "error", []string{"policy.yaml", "rulez"}},
		"a readable key":          {mode("data/root.key", 0o604), nil, "config", "error", []string{"chmod o-rwx"}},
		"readable users":          {mode("users.htpasswd", 0o604), nil, "files", "warning", []string{"users.htpasswd", "can be read by everybody", "chmod o-rwx"}},
		"a writable policy":       {mode("policy.yaml", 0o666), nil, "files", "warning", []string{"policy.yaml", "can be written by others", "chmod go-w"}},
		"a writable folder":       {mode(".", 0o777), nil, "files", "warning", []string{"can be written by everybody"}},
		"an open data folder":     {mode("data", 0o755), nil, "files", "warning", []string{"open to everybody"}},
		"no data folder":          {remove("data"), nil, "keys", "note", []string{"there are no keys yet"}},
		"no database":             {nil, nil, "database", "note", []string{"yet"}},
		"a database away":         {nil, []string{"--set", "database.url=postgres://u@127.0.0.1:1/d"}, "database", "error", []string{"does not answer", "database.url"}},
		"keys in one away":        {write("secret", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"), []string{"--set", "database.url=postgres://u@127.0.0.1:1/d", "--set", "issuer.keys.store=database", "--set", "issuer.keys.encryption_key_file=secret"}, "keys", "note", []string{"were not looked at"}},
		"no database at all":      {rewrite("authserver.yaml", "  - kind: database ", "#"), []string{"--set", "database.url=none"}, "config", "ok", []string{"1 user backend"}},
		"a proxy not named":       {nil, []string{"--set", "server.public_url=https://auth.test"}, "proxy", "warning", []string{"server.trusted_proxies"}},
		"nobody listens":          {nil, nil, "listen", "note", []string{"server.listen"}},
		"a certificate not there": {nil, []string{"--set", "server.tls.cert_file=c.pem", "--set", "server.tls.key_file=k.pem"}, "tls", "error", []string{"c.pem"}},
	} {
		t.Run(name, func(t *testing.T) {
			file, _ := initialised(t)
			dir := filepath.Dir(file)
			if c.bend != nil {
				c.bend(t, dir)
			}
			before := tree(t, dir)
			const nobody = "127.0.0.1:1"
			args := append([]string{"doctor", "--config", file, "-o", "json", "--set", "server.listen=" + nobody, "--set", "server.ops_listen=", "--set", "server.public_url=http://" + nobody}, c.flags...)
			out, errs, status := call(t, "", args...)
			var report struct {
				Worst    string
				Findings []struct {
					Check, Severity, What, Why string
					Fixes                      []doctor.Fix
				}
			}
			if err := json.Unmarshal([]byte(out), &report); err != nil {
				t.Fatalf("%v\n%s%s", err, out, errs)
			}
			found := false
			for _, f := range report.Findings {
				text, err := json.Marshal(f)
				if err != nil {
					t.Fatal(err)
				}
				if f.Check == c.check && f.Severity == c.severity && !slices.ContainsFunc(c.words, func(w string) bool { return !strings.Contains(string(text), w) }) {
					found = true
				}
			}
			if !found {
				t.Errorf("no %s %s with %q in\n%s", c.severity, c.check, c.words, out)
			}
			if want := map[bool]int{true: exitNo, false: exitOK}[report.Worst == "error"]; status != want {
				t.Errorf("worst %s: exit status %d\n%s", report.Worst, status, out)
			}
			if after := tree(t, dir); !slices.Equal(before, after) {
				t.Errorf("doctor has changed something: %v became %v", before, after)
			}
		})
	}
}

func TestDoctorIsAskedRightly(t *testing.T) {
	file, _ := initialised(t)
	for _, c := range []struct {
		args   []string
		status int
		words  string
	}{
		{[]string{"--fail-on", "note"}, exitMisuse, "it is error or warning"},
		{[]string{"--as", "alice"}, exitMisuse, "--password-stdin"},
		{[]string{"--registry-config", "nowhere.yml"}, exitNo, "nowhere.yml"},
		{[]string{"--set", "server.public_url=https://localhost:1", "--fail-on", "warning"}, exitNo, "1 warning"},
		{[]string{"more"}, exitMisuse, "more"},
	} {
		out, errs, status := call(t, "", append([]string{"doctor", "--config", file}, c.args...)...)
		if status != c.status || !strings.Contains(errs, c.words) {
			t.Errorf("%v: exit status %d\n%s%s", c.args, status, out, errs)
		}
	}
	out, _, status := call(t, "", "doctor", "--config", filepath.Join(t.TempDir(), "none.yaml"))
	if status != exitNo || !strings.Contains(out, "ERROR    config:") {
		t.Errorf("exit status %d\n%s", status, out)
	}
}

func rewrite(name, old, by string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), old) {
			t.Fatalf("%s has no %q:\n%s", name, old, text)
		}
		write(name, strings.Replace(string(text), old, by, 1))(t, dir)
	}
}

func write(name, text string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func mode(name string, m os.FileMode) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Chmod(filepath.Join(dir, name), m); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// tree is what is in a folder: names, modes, times, sizes.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		list = append(list, path+" "+info.Mode().String()+" "+info.ModTime().String()+" "+string(rune(info.Size())))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
