package chaos_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// generation is a policy that grants what the load needs, and besides it either a or b.
func generation(which string) string {
	return fmt.Sprintf(`
groups: {admins: [admin]}
rules:
  - {name: own, subjects: [authenticated], repositories: ["{user}/**"], actions: [pull, push]}
  - {name: public, subjects: [anyone], repositories: ["public/**"], actions: [pull]}
  - {name: %[1]s, subjects: [anyone], repositories: ["either/%[1]s"], actions: [pull]}
`, which)
}

// inUse complains when an answer is not of that generation.
func inUse(t *testing.T, a *harness.Authserver, which string) {
	t.Helper()
	c := at(a.URL, a.Service, []client{{name: "nobody", more: []string{"either/" + which}}})[0]
	if r := c.ask(ops); !r.claims.grants("either/" + which) {
		t.Errorf("a policy that was changed during the fault is not in use after it: %s, %v", r, r.claims.Access)
	}
}

// Files are replaced ten times a second, in the two ways that are usual: one by one by renaming, and all of a mounted
// folder at once by a link (Kubernetes). Nobody is refused, and each answer is of one generation.
func TestReloads(t *testing.T) {
	for _, way := range []struct {
		name    string
		replace func(t *testing.T, dir string, files map[string]string)
	}{{"files renamed", rename}, {"folder mounted", remount}} {
		t.Run(way.name, func(t *testing.T) {
			a := open(t, harness.Options{Policy: generation("a")})
			users := string(harness.ReadFile(t, filepath.Join(a.Dir, "users.htpasswd")))
			files := map[string]string{
				"authserver.yaml": string(harness.ReadFile(t, filepath.Join(a.Dir, "authserver.yaml"))),
				"policy.yaml":     generation("a"),
				"users.htpasswd":  users,
			}
			replace := func(name, content string) {
				t.Helper()
				files[name] = content
				way.replace(t, a.Dir, files)
			}
			var seen [2]atomic.Int64
			var bad complaints
			o := ordeal{servers: []*harness.Authserver{a}, each: func(r result) {
				switch isA, isB := r.claims.grants("either/a"), r.claims.grants("either/b"); {
				case isA == isB:
					bad.add("a token grants %v", r.claims.Access)
				case isA:
					seen[0].Add(1)
				default:
					seen[1].Add(1)
				}
			}}
			for _, c := range clients(t, a) {
				c.more = []string{"either/a", "either/b"}
				o.clients = append(o.clients, c)
			}
			o.run(t, func() {
				for i := range 50 {
					replace("policy.yaml", generation([]string{"b", "a"}[i%2]))
					replace("users.htpasswd", users+[]string{"", "another:" + users[len("admin:"):]}[i%2])
					if i%3 == 0 {
						if err := a.Signal(syscall.SIGHUP); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(100 * time.Millisecond)
				}
				if seen[0].Load() == 0 || seen[1].Load() == 0 {
					t.Errorf("%d answers are of one generation, %d of the other", seen[0].Load(), seen[1].Load())
				}

				// A change is noticed without a signal.
				replace("policy.yaml", generation("a"))
				time.Sleep(3 * time.Second)
				last := seen[0].Load()
				replace("policy.yaml", generation("b"))
				time.Sleep(3 * time.Second)
				before := seen[0].Load()
				time.Sleep(time.Second)
				if before == last || seen[0].Load() != before {
					t.Errorf("a changed file is not taken up within three seconds")
				}

				for name, content := range map[string]string{
					"policy.yaml":     generation("a") + "unknown: key\n",
					"users.htpasswd":  users + "nobody:no hash\n",
					"authserver.yaml": "server:\n  public_url: [",
				} {
					good := files[name]
					replace(name, content)
					reload(t, a, false)
					time.Sleep(500 * time.Millisecond)
					replace(name, good)
					reload(t, a, true)
				}
			})
			bad.report(t)
			t.Logf("%d answers are of one generation, %d of the other", seen[0].Load(), seen[1].Load())
		})
	}
}

// rename replaces files one by one.
func rename(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path+".new", []byte(content), 0o600))
		must(t, os.Rename(path+".new", path))
	}
}

// remount replaces them as Kubernetes does what is mounted: they are links into a folder that is a link.
func remount(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	data := filepath.Join(dir, "..data")
	old, _ := os.Readlink(data)
	made, err := os.MkdirTemp(dir, "..2026_")
	must(t, err)
	for name, content := range files {
		must(t, os.WriteFile(filepath.Join(made, name), []byte(content), 0o600))
	}
	must(t, os.Symlink(filepath.Base(made), data+"_tmp"))
	must(t, os.Rename(data+"_tmp", data))
	if old != "" {
		must(t, os.RemoveAll(filepath.Join(dir, old)))
		return
	}
	for name := range files {
		path := filepath.Join(dir, name)
		must(t, os.Symlink("..data/"+name, path+".new"))
		must(t, os.Rename(path+".new", path))
	}
}
