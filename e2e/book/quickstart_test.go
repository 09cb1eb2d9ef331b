package book_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// From nothing to a pushed image, as docs/quickstart.md says: the project is cloned, "make run" builds and starts it, docker
// pushes.
func TestQuickstart(t *testing.T) {
	const page = "docs/quickstart.md"
	port := harness.FreePort(t)
	host := fmt.Sprintf("localhost:%d", port)
	docker := harness.StartDockerd(t)
	origin := filepath.Join(t.TempDir(), "authserver.git")
	if err := os.Symlink(filepath.Join(harness.Root(t), ".."), origin); err != nil {
		t.Fatal(err)
	}
	r := newReader(t, "https://example.com/authserver.git", origin, "localhost:5000", host,
		"make run", fmt.Sprintf("make run PORT=%d AUTH_PORT=%d OPS_PORT=%d", port, harness.FreePort(t), harness.FreePort(t)))
	r.env = append(r.env, "DOCKER_HOST="+docker.Host, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GOPATH="+goEnv(t, "GOPATH"), "GOCACHE="+goEnv(t, "GOCACHE"))
	image := harness.MakeImage(t, t.Name()+r.dir)
	for _, command := range []string{"docker load -i " + image.Archive, "docker tag localhost/made:1 alpine"} {
		if out, err := r.terminal(command); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}

	begun := time.Now()
	var commands []string
	for _, step := range harness.Documented(t, page, "make-run") {
		commands = append(commands, r.here(step.Command))
	}
	if readme := harness.Documented(t, "README.md", "make-run"); len(readme) != len(commands) || r.here(readme[0].Command) != commands[0] || r.here(readme[1].Command) != commands[1] {
		t.Errorf("README.md says other things than %s: %v", page, readme)
	}
	last := len(commands) - 1
	// Ctrl-C is a signal to everybody in the foreground.
	running := harness.Start(t, append(r.env, "PWD="+r.dir), "bash", "-c", "set -em; cd "+r.dir+"; "+strings.Join(commands[:last], "\n")+"\n"+
		"trap 'kill -INT -- -$server' TERM\n"+commands[last]+" & server=$!\n wait $server || wait $server || exit 0")
	for !strings.Contains(running.Log(), "Ctrl-C stops both") { // it builds first, on a machine that may be busy
		select {
		case <-running.Ended():
			t.Fatal("make run has ended: " + running.Log())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Since(begun) > 5*time.Minute {
			t.Fatal("not ready: " + running.Log())
		}
	}
	t.Logf("ready after %s", time.Since(begun).Round(100*time.Millisecond))
	r.dir = filepath.Join(r.dir, "authserver")
	r.follows(page, "push")
	t.Logf("pushed after %s", time.Since(begun).Round(100*time.Millisecond))
	r.answers = []string{"alice's own", "alice's own", "alice's own"}
	r.follows(page, "alice")
	r.follows(page, "why")
}

// goEnv is what the go command knows of itself; with another home it would begin with empty caches.
func goEnv(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(harness.MustRun(t, nil, "", "go", "env", name))
}

// A registry of one's own, as docs/quickstart.md and README.md say: what init prints is all that a registry needs.
func TestOwnRegistry(t *testing.T) {
	const page = "docs/quickstart.md"
	docker := harness.StartDockerd(t)
	for _, of := range []struct {
		page, init, serve string
	}{{page, "init", "serve"}, {"README.md", "readme", ""}} {
		t.Run(of.page, func(t *testing.T) {
			auth, ops, port := harness.FreePort(t), harness.FreePort(t), harness.FreePort(t)
			r := newReader(t, "https://auth.example.com", fmt.Sprintf("http://localhost:%d", auth))
			r.put = append(r.put, "/etc/authserver", filepath.Join(r.dir, "auth"))
			r.env = append(r.env, "DOCKER_HOST="+docker.Host, fmt.Sprintf("AUTHSERVER_SERVER__LISTEN=127.0.0.1:%d", auth), fmt.Sprintf("AUTHSERVER_SERVER__OPS_LISTEN=127.0.0.1:%d", ops))

			steps := harness.Documented(t, of.page, of.init)
			printed := r.types(of.page, steps[0])
			_, password, _ := strings.Cut(printed, "Password:")
			password, _, _ = strings.Cut(strings.TrimSpace(password), " ")
			_, stanza, ok := strings.Cut(printed, "In the registry's configuration:\n\n")
			stanza, _, ok2 := strings.Cut(stanza, "\nNext:")
			if !ok || !ok2 || password == "" {
				t.Fatalf("init has printed\n%s", printed)
			}
			if of.serve != "" {
				steps = append(steps, harness.Documented(t, of.page, of.serve)...)
			}
			for _, step := range steps[1 : len(steps)-1] {
				r.types(of.page, step)
			}
			serving := harness.Start(t, r.env, "bash", "-c", "exec "+r.here(steps[len(steps)-1].Command))
			serving.Await(t, func() error { return answers(fmt.Sprintf("http://127.0.0.1:%d/readyz", ops), http.StatusOK) })

			config := filepath.Join(r.dir, "registry.yml")
			text := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: \"127.0.0.1:%d\"}\n%s", t.TempDir(), port, stanza)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			registry := harness.Start(t, []string{"OTEL_TRACES_EXPORTER=none"}, harness.Program(t, "registry-3.1.2"), "serve", config)
			registry.Await(t, func() error { return answers(fmt.Sprintf("http://127.0.0.1:%d/v2/", port), http.StatusUnauthorized) })

			r.put = append(r.put, "registry.example.com", "localhost:"+strconv.Itoa(port))
			r.answers = []string{password}
			for _, step := range harness.Documented(t, page, "login") {
				r.types(page, step)
			}
			image := harness.MakeImage(t, t.Name()+r.dir)
			ref := fmt.Sprintf("localhost:%d/admin/app:1", port)
			if out, err := r.terminal("docker load -i " + image.Archive + " && docker tag localhost/made:1 " + ref + " && docker push " + ref); err != nil {
				t.Fatalf("push: %v\n%s", err, out)
			}
		})
	}
}

func answers(url string, status int) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != status {
		return fmt.Errorf("%s: status %d", url, response.StatusCode)
	}
	return nil
}
