package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What sets up a container: it has no terminal and no shell, and is run again and again.
func TestAUserIsAddedOnceWithAPasswordThatIsMade(t *testing.T) {
	file, _ := initialised(t)
	secret := filepath.Join(t.TempDir(), "password")
	add := append([]string{"user", "add", "operator", "--generate-to", secret, "--if-missing", "--config", file}, cheap...)
	stdout := must(t, "", add...)
	first, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	password := strings.TrimSuffix(string(first), "\n")
	if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o600 || len(password) < 26 || strings.ContainsAny(password, " \n") {
		t.Errorf("%v, %v, %d characters", info.Mode(), err, len(password))
	}
	if strings.Contains(stdout, password) || !strings.Contains(stdout, secret) {
		t.Errorf("says %q", stdout)
	}
	if stdout := must(t, "", add...); stdout != "user \"operator\" is there, in backend database; nothing was changed\n" {
		t.Errorf("says %q", stdout)
	}
	if again, _ := os.ReadFile(secret); string(again) != string(first) {
		t.Error("the file was written although the user was there")
	}
	if _, stderr, status := call(t, "", "user", "add", "operator", "--generate-to", secret, "--config", file); status != exitNo || !strings.Contains(stderr, "exists already") {
		t.Errorf("status %d: %s", status, stderr)
	}
	must(t, "", append([]string{"user", "passwd", "operator", "--generate-to", secret, "--config", file}, cheap...)...)
	if again, _ := os.ReadFile(secret); string(again) == string(first) {
		t.Error("it is the same password again")
	}
}

func TestAPasswordThatCannotBeSetOrKeptLeavesNothing(t *testing.T) {
	file, _ := initialised(t)
	secret := filepath.Join(t.TempDir(), "password")
	for _, c := range []struct {
		name   string
		more   []string
		status int
		want   string
	}{
		{"a:b", []string{"--generate-to", secret}, exitNo, "a:b"},
		{"alice", []string{"--generate-to", filepath.Join(secret, "none", "x")}, exitNo, "writing " + secret},
		{"alice", []string{"--generate-to", secret, "--password-stdin"}, exitMisuse, "a password is given, or made"},
		{"alice", []string{"--generate-to", secret, "--robot"}, exitMisuse, "a robot has no password"},
	} {
		if _, stderr, status := call(t, "", append([]string{"user", "add", c.name, "--config", file}, c.more...)...); status != c.status || !strings.Contains(stderr, c.want) {
			t.Errorf("%s %v: status %d: %s", c.name, c.more, status, stderr)
		}
		if _, err := os.Stat(secret); !os.IsNotExist(err) {
			t.Errorf("%s %v leaves a file: %v", c.name, c.more, err)
		}
	}
	if list := must(t, "", "user", "list", "--config", file); strings.Contains(list, "alice") {
		t.Errorf("a user whose password nobody has: %s", list)
	}
}

// The file may hold the only copy of the password that is still the right one.
func TestAPasswordThatCannotBeSetDoesNotReplaceTheOneThatIs(t *testing.T) {
	file, _ := initialised(t)
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("the one that is\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := call(t, "", "user", "add", "a:b", "--generate-to", secret, "--config", file); status != exitNo {
		t.Errorf("status %d: %s", status, stderr)
	}
	if text, err := os.ReadFile(secret); err != nil || string(text) != "the one that is\n" {
		t.Errorf("it holds %q, %v", text, err)
	}
}

func TestKeyExportIntoAFile(t *testing.T) {
	file, _ := initialised(t)
	to := filepath.Join(t.TempDir(), "root.crt")
	for range 2 {
		if stdout := must(t, "", "key", "export", "--to", to, "--config", file); stdout != "" {
			t.Errorf("prints %q", stdout)
		}
		written, err := os.ReadFile(to)
		if err != nil || string(written) != must(t, "", "key", "export", "--config", file) {
			t.Errorf("%v: %s", err, written)
		}
		if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
}

// As in an image, which has no folder for temporary files.
func TestInitNeedsNoTemporaryFolder(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
	dir := filepath.Join(os.Getenv("TMPDIR"), "..")
	must(t, "", append([]string{"init", dir}, cheap...)...)
	if _, stderr, status := call(t, "", "init", dir, "--force", "--listen", "nonsense"); status != exitMisuse || !strings.Contains(stderr, "nonsense") {
		t.Errorf("status %d: %s", status, stderr)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".authserver-*")); err != nil || len(left) > 0 {
		t.Errorf("leaves %q, %v", left, err)
	}
}

// The folder may be somebody else's, and root's init must not write by name into what that owner can exchange.
func TestAConfigurationIsTriedOutsideOfItsFolder(t *testing.T) {
	dir, long := t.TempDir(), time.Unix(1_000_000_000, 0)
	if err := os.Chtimes(dir, long, long); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := call(t, "", "init", dir, "--listen", "nonsense"); status != exitMisuse {
		t.Errorf("status %d: %s", status, stderr)
	}
	if info, err := os.Stat(dir); err != nil || !info.ModTime().Equal(long) {
		t.Errorf("something was in the folder at %v, %v", info.ModTime(), err)
	}
}
