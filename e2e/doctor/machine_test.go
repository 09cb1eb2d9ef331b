package doctor_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// machine is a case of what is on the machine of authserver.
type machine struct {
	name  string
	bend  func(w *world)
	wants []want
}

// shows bends a copy of the machine, and compares what doctor says.
func (c machine) shows(w *world) {
	w.Helper()
	w = w.aside()
	c.bend(w)
	r := w.doctor()
	r.says(w, c.wants...)
	for _, f := range r.worstFindings() {
		row(c.name, f)
	}
	if strings.Contains(r.String(), "secret") {
		w.Errorf("a password is in the report:\n%s", r)
	}
}

// Files that others may read or write. The command that doctor names is run.
func TestFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", harness.Options{})
	file := func(name string) string { return filepath.Join(w.auth.Dir, name) }
	mode := func(name string, mode fs.FileMode) func(*world) {
		return func(w *world) {
			if err := os.Chmod(file(name), mode); err != nil {
				w.Fatal(err)
			}
		}
	}
	for _, c := range []machine{
		{"users file readable by all", mode("users.htpasswd", 0o644), one(want{"files", "warning", "users.htpasswd can be read by everybody on this machine (mode 644)", []string{"machine chmod o-rwx " + file("users.htpasswd")}})},
		{"users file writable by its group", mode("users.htpasswd", 0o660), one(want{"files", "warning", "users.htpasswd can be written by others than its owner (mode 660)", []string{"machine chmod go-w "}})},
		{"policy writable by all", mode("policy.yaml", 0o666), one(want{"files", "warning", "policy.yaml can be written by others than its owner (mode 666)", []string{"machine chmod go-w "}})},
		{"authserver.yaml writable by all", mode("authserver.yaml", 0o666), one(want{"files", "warning", "authserver.yaml can be written by others than its owner (mode 666)", []string{"machine chmod go-w "}})},
		{"folder writable by all", mode(".", 0o777), one(want{"files", "warning", " can be written by everybody (mode 777)", []string{"machine chmod o-w "}})},
		{"data folder open", mode("data", 0o755), one(want{"files", "warning", "data is open to everybody on this machine (mode 755)", []string{"machine chmod o-rwx "}})},
		{"database readable by all", mode("data/authserver.db", 0o644), one(want{"files", "warning", "authserver.db can be read by everybody on this machine (mode 644)", []string{"machine chmod o-rwx "}})},
		{"private key readable by all", mode("data/chain/es256.key", 0o644), one(want{"config", "error", "es256.key: everybody on this machine can read it", []string{"machine chmod o-rwx "}})},
		{"root key readable by all", mode("data/root.key", 0o644), one(want{"config", "error", "root.key: everybody on this machine can read it", []string{"machine chmod o-rwx "}})},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{T: t, auth: w.auth}
			c.bend(w)
			r := w.doctor()
			r.says(t, c.wants...)
			for _, f := range r.worstFindings() {
				row(c.name, f)
				x, _ := f.fix("machine chmod")
				if out, err := exec.Command("sh", "-ec", x.Do).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v %s", x.Do, err, out)
				}
			}
			w.doctor().says(t)
		})
	}
}

// Faults of the configuration, policy, users and database.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", harness.Options{})
	for _, c := range []machine{
		{"none", func(*world) {}, nil},
		{"a key that is none", func(w *world) { w.change(w.config(), "(?m)^issuer:", "isuer:") }, one(want{"config", "error", "authserver.yaml:…isuer", nil})},
		{"two faults", func(w *world) {
			w.change(w.config(), "verifier: chain", "verifier: chian")
			w.change(w.config(), "token_lifetime: 5m", "token_lifetime: 5s")
		}, one(want{"config", "error", `services[0].verifier: "chian" is not known`, []string{"authserver services[0].verifier: chain"}}, want{"config", "error", "issuer.token_lifetime: ", nil})},
		{"users of a kind that is none", func(w *world) { w.change(w.config(), "kind: htpasswd", "kind: htpaswd") },
			one(want{"config", "error", `users[0].kind: "htpaswd" is not known`, []string{"authserver users[0].kind: htpasswd"}})},
		{"a fault of the policy", func(w *world) {
			w.change(filepath.Join(w.auth.Dir, "policy.yaml"), `(?s)\A(.*?)actions:`, "${1}actoins:")
		},
			one(want{"config", "error", "policy.yaml:…rules[0].actions: missing", []string{"authserver rules[0].actions: [pull]"}}, want{"config", "error", "rules[0].actoins: unknown key", nil})},
		{"no policy", func(w *world) { w.change(w.config(), "policy.yaml", "policies/none.yaml") }, one(want{"config", "error", "none.yaml", nil})},
		{"a fault of the users file", func(w *world) { w.write(filepath.Join(w.auth.Dir, "users.htpasswd"), "alice:secret\n") }, one(want{"config", "error", "users.htpasswd:1", nil})},
		{"a key that is damaged", func(w *world) { w.write(filepath.Join(w.auth.Dir, "data/chain/es256.key"), "no key") }, one(want{"keys", "warning", "es256.key: no private key in PEM form", nil}, want{"other-keys", "error", "does not have the key", nil})},
		{"a certificate of another key", func(w *world) {
			w.write(filepath.Join(w.auth.Dir, "data/chain/es256.crt"), string(harness.ReadFile(w, filepath.Join(elsewhere(w).Dir, "data/chain/es256.crt"))))
		}, one(want{"keys", "warning", "the first certificate does not belong to the private key", nil}, want{"other-keys", "error", "does not have the key", nil})},
		{"a certificate of one's own that has ended", func(w *world) { ownKey(w, -1) },
			one(want{"config", "error", "", nil})},
		{"a certificate of one's own that ends soon", func(w *world) { ownKey(w, 5) },
			one(want{"keys", "warning", "own.crt ends 20…; registries refuse every token from then on", nil}, want{"other-keys", "error", "does not have the key", nil})},
		{"listener taken by nobody", func(w *world) {
			w.change(w.config(), `(?m)^  ops_listen:.*$`, fmt.Sprintf("  ops_listen: 127.0.0.1:%d", harness.FreePort(w)))
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{T: t, auth: w.auth}
			c.shows(w)
		})
	}
}

// ownKey configures a key with a certificate that ends in so many days.
func ownKey(w *world, days int) {
	w.Helper()
	certificate, key := newAuthority(w.T).issue("own", time.Now().AddDate(0, 0, days))
	w.write(filepath.Join(filepath.Dir(certificate), "own.crt"), string(harness.ReadFile(w, certificate)))
	w.change(w.config(), "(?m)^issuer:\n", fmt.Sprintf("issuer:\n  keys: {algorithm: ES256, key_file: %q, certificate_file: %q}\n", key, filepath.Join(filepath.Dir(certificate), "own.crt")))
}

// Databases that do not answer, or are newer than the program.
func TestDatabase(t *testing.T) {
	t.Parallel()
	sql := func(w *world, address, statement string) {
		harness.MustRun(w, nil, "", filepath.Join(os.Getenv("TEST_POSTGRES_BIN"), "psql"), "-Xqd", address, "-c", statement)
	}
	address := harness.Database(t)
	w := newWorld(t, "", harness.Options{Database: address})
	for _, c := range []machine{
		{"PostgreSQL", func(*world) {}, nil},
		{"PostgreSQL that does not listen", func(w *world) {
			w.change(w.config(), `127.0.0.1:\d+/`, fmt.Sprintf("127.0.0.1:%d/", harness.FreePort(w)))
		},
			one(want{"database", "error", "connection refused", []string{"authserver start it, or let this machine reach it"}})},
		{"a database that is not there", func(w *world) { w.change(w.config(), `(127.0.0.1:\d+)/\w+`, "${1}/none") },
			one(want{"database", "error", "none", []string{"authserver "}})},
		{"a database of a newer program", func(w *world) {
			sql(w, address, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)")
			w.Cleanup(func() { sql(w, address, "DELETE FROM goose_db_version WHERE version_id = 99999") })
		}, one(want{"database", "error", "the database is newer than this program", []string{"authserver run the program that made it"}})},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{T: t, auth: w.auth}
			c.shows(w)
		})
	}
}

// Keys in the database are looked at like others.
func TestKeysInTheDatabase(t *testing.T) {
	t.Parallel()
	encryption := filepath.Join(t.TempDir(), "encryption.key")
	if err := os.WriteFile(encryption, []byte(strings.Repeat("A", 43)+"=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(services("chain ES256"), "issuer:\n", fmt.Sprintf("issuer:\n  keys: {store: database, encryption_key_file: %q}\n", encryption), 1)
	w := newWorld(t, "3.1.2", harness.Options{Config: config, Database: harness.Database(t)})
	w.write(w.registry.trust, w.auth.Command(t, "", "key", "export"))
	w.registry.start()
	w.doctor("--registry", w.at()).says(t, want{"keys", "warning", "root.crt and the keys beside it are not used, remove them", nil})
	for _, name := range []string{"root.crt", "root.key", "chain"} { // of init
		if err := os.RemoveAll(filepath.Join(w.auth.Dir, "data", name)); err != nil {
			t.Fatal(err)
		}
	}
	w.isWell()
	w = w.aside()
	w.change(w.config(), `127.0.0.1:\d+/`, fmt.Sprintf("127.0.0.1:%d/", harness.FreePort(t)))
	r := w.doctor("--registry", w.at())
	r.says(t, want{"database", "error", "connection refused", nil})
	if !strings.Contains(r.String(), "the keys are in the database, and were not looked at") || !strings.Contains(r.String(), "no token was tried") {
		t.Errorf("it does not say what it has left out:\n%s", r)
	}
}

// A tree is what is in a folder: names, modes, times and content.
type tree map[string]string

func lookAt(t *testing.T, dir string) tree {
	t.Helper()
	found := tree{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := fmt.Sprint(info.Mode(), info.ModTime().UnixNano(), info.Sys().(*syscall.Stat_t).Ino)
		if d.IsDir() { // SQLite makes and removes files beside its own
			text = fmt.Sprint(info.Mode())
		}
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
		found[path] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (a tree) compare(t *testing.T, b tree) {
	t.Helper()
	for path, text := range a {
		if b[path] != text {
			t.Errorf("%s was %s and is %q", path, text, b[path])
		}
	}
	for path := range b {
		if a[path] == "" {
			t.Errorf("%s is new", path)
		}
	}
}

// doctor changes nothing, with the server and without it, before its first start and after.
func TestNothingChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "3.1.2", harness.Options{Config: services("chain ES256", "jwks ES256") + "  webhook: {url: \"http://127.0.0.1:1/\"}\n"})
	w.registry.start()
	everything := func(t *testing.T) {
		w := &world{T: t, auth: w.auth, registry: w.registry}
		before, registry := lookAt(t, w.auth.Dir), lookAt(t, filepath.Dir(w.registry.file))
		for range 2 {
			w.doctorWith("wrong", "--registry", w.at(), "--registry-config", w.registry.file, "--as", "admin", "--password-stdin")
		}
		before.compare(t, lookAt(t, w.auth.Dir))
		registry.compare(t, lookAt(t, filepath.Dir(w.registry.file)))
	}
	t.Run("while it runs", everything)
	if err := w.auth.Stop(); err != nil {
		t.Fatal(err)
	}
	t.Run("when it does not", everything)
	t.Run("a due key is not replaced", func(t *testing.T) {
		w.write(w.config(), strings.Replace(string(harness.ReadFile(t, w.config())), "issuer:\n", "issuer:\n  keys: {rotate_every: 1h, publish_ahead: 1m}\n", 1))
		old := filepath.Join(w.auth.Dir, "data/chain/es256.crt")
		if err := os.Chtimes(old, w.aYearAgo(), w.aYearAgo()); err != nil {
			t.Fatal(err)
		}
		everything(t)
	})
	t.Run("before its first start", func(t *testing.T) {
		if err := os.RemoveAll(filepath.Join(w.auth.Dir, "data")); err != nil {
			t.Fatal(err)
		}
		everything(t)
	})
	t.Run("SQLite", func(t *testing.T) {
		w := newWorld(t, "", harness.Options{})
		before := lookAt(t, w.auth.Dir)
		w.doctor()
		before.compare(t, lookAt(t, w.auth.Dir))
		if err := w.auth.Stop(); err != nil {
			t.Fatal(err)
		}
		before = lookAt(t, w.auth.Dir)
		w.doctor()
		before.compare(t, lookAt(t, w.auth.Dir))
	})
}

// Somebody who may not read the keys is told so, and is told of the rest.
func TestWithoutTheKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "3.1.2", harness.Options{})
	w.registry.start()
	for dir := w.auth.Dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"authserver.yaml", "policy.yaml"} {
		if err := os.Chmod(filepath.Join(w.auth.Dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(w.auth.Dir, "authserver") // where nobody can run it
	w.write(program, string(harness.ReadFile(t, harness.Program(t, "authserver"))))
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	r := w.read(w.runAs(func(cmd *exec.Cmd) {
		cmd.Path, cmd.Dir = program, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}, "-o", "json", "--registry", w.at()))
	for _, f := range r.worstFindings() {
		if x, ok := f.fix("machine run doctor as the user of authserver"); !ok || f.Severity != "error" || !strings.Contains(f.What, "permission denied") {
			t.Errorf("%s %s %s %v", f.Severity, f.Check, f.What, x)
		}
		row("keys, users and database that this user may not read", f)
	}
	if len(r.worstFindings()) < 3 || !strings.Contains(r.String(), "no token was tried: the keys cannot be read") {
		t.Errorf("too little is said:\n%s", r)
	}
}
