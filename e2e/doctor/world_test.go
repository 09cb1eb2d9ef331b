// Package doctor_test breaks the wiring between clients, a real authserver and real registries in one way at a time, and
// expects of "authserver doctor" that it says what is wrong, where, and what to do. What it says is then done, letter by
// letter, and a real client has to pull.
package doctor_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// A world is an authserver and, mostly, a registry that believes it.
type world struct {
	*testing.T
	auth     *harness.Authserver
	registry *registry
	version  string // of the registry
	address  string // at which clients reach the registry; its own when empty
	args     []string
	env      []string // of doctor and of clients

	proxy     *harness.Process    // before authserver
	stranger  *harness.Authserver // like ours, but for its keys
	published string              // a file with what ours publishes
}

// newWorld starts an authserver, and writes what a registry needs that believes it.
func newWorld(t *testing.T, version string, o harness.Options) *world {
	t.Helper()
	w := &world{T: t, version: version, auth: harness.StartAuthserver(t, o)}
	w.registry = newRegistry(w)
	return w
}

// aside is the world in which doctor reads a copy of authserver's folder. What is changed there the running server does not
// know, however long doctor takes.
func (w *world) aside() *world {
	w.Helper()
	c, auth := *w, *w.auth
	c.auth, auth.Dir = &auth, filepath.Join(w.TempDir(), "auth")
	harness.MustRun(w, nil, "", "cp", "-a", w.auth.Dir, auth.Dir)
	return &c
}

func (w *world) config() string { return filepath.Join(w.auth.Dir, "authserver.yaml") }

// change edits a file.
func (w *world) change(file, pattern, replacement string) {
	w.Helper()
	text := string(harness.ReadFile(w, file))
	edited := regexp.MustCompile(pattern).ReplaceAllString(text, replacement)
	if edited == text {
		w.Fatalf("%s is not in %s:\n%s", pattern, file, text)
	}
	w.write(file, edited)
}

func (w *world) write(file, text string) {
	w.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

// set writes a key of the server section of authserver.yaml anew.
func (w *world) set(key, value string) {
	w.Helper()
	w.change(w.config(), `(?m)^(\s*`+key+`:).*$`, `${1} `+value)
}

// restartAuth takes a changed authserver.yaml into use.
func (w *world) restartAuth() {
	w.Helper()
	if err := w.auth.Stop(); err != nil {
		w.Fatal(err)
	}
	w.auth.Restart(w)
}

// get is what our server answers.
func (w *world) get(path string) string {
	w.Helper()
	response, err := http.Get(w.auth.URL + path)
	if err != nil {
		w.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		w.Fatalf("%s: %d %v", path, response.StatusCode, err)
	}
	return string(body)
}

// A registry is a real one with its configuration, which can be edited.
type registry struct {
	w       *world
	file    string // its configuration
	trust   string // its certificates
	host    string // localhost:PORT
	process *harness.Process
}

func newRegistry(w *world) *registry {
	w.Helper()
	dir := w.TempDir()
	r := &registry{w: w, file: filepath.Join(dir, "registry.yml"), trust: filepath.Join(dir, "token-root.pem")}
	port := harness.FreePort(w)
	r.host = fmt.Sprintf("localhost:%d", port)
	w.write(r.trust, string(harness.ReadFile(w, w.auth.Root)))
	w.write(r.file, fmt.Sprintf(`version: 0.1
log: {level: info}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http: {addr: "127.0.0.1:%d"}
auth:
  token:
    realm: %s
    service: %s
    issuer: %s
    rootcertbundle: %s
`, filepath.Join(dir, "images"), port, w.auth.URL+"/token", w.auth.Service, w.auth.Issuer, r.trust))
	return r
}

// set writes a key of auth.token anew; without a value it is taken out.
func (r *registry) set(key, value string) {
	r.w.Helper()
	text := string(harness.ReadFile(r.w, r.file))
	line := regexp.MustCompile(`(?m)^    ` + key + `:.*\n`)
	written := ""
	if value != "" {
		written = "    " + key + ": " + value + "\n"
	}
	if !line.MatchString(text) {
		r.w.write(r.file, text+written)
		return
	}
	r.w.write(r.file, line.ReplaceAllString(text, strings.ReplaceAll(written, "$", "$$")))
}

// start starts it, or starts it again.
func (r *registry) start() {
	r.w.Helper()
	if r.process != nil {
		r.process.Stop()
	}
	// Without the variable version 3 sends traces to localhost:4318.
	r.process = harness.Start(r.w, []string{"OTEL_TRACES_EXPORTER=none"}, harness.Program(r.w, "registry-"+r.w.version), "serve", r.file)
	r.process.Await(r.w, func() error {
		response, err := http.Get("http://" + r.host + "/v2/")
		if err == nil {
			response.Body.Close()
		}
		return err
	})
}

// at is where clients reach the registry.
func (w *world) at() string {
	if w.address != "" {
		return w.address
	}
	return "http://" + w.registry.host
}

// pulls logs in with a real client, pushes, and pulls.
func (w *world) pulls() error {
	w.Helper()
	home := w.TempDir()
	_, host, _ := strings.Cut(w.at(), "://")
	env := append([]string{"DOCKER_CONFIG=" + home, "HOME=" + home}, w.env...)
	ref := host + "/team/app:1"
	for _, step := range [][]string{
		{"auth", "login", host, "-u", "admin", "--password-stdin"},
		{"append", "--new_layer", harness.MakeImage(w, w.Name()).Layer, "--new_tag", ref},
		{"pull", ref, filepath.Join(home, "image.tar")},
	} {
		if out, err := harness.Run(w, env, w.auth.Password, harness.Program(w, "crane"), step...); err != nil {
			return fmt.Errorf("crane %s: %w\n%s", step[0], err, out)
		}
	}
	return nil
}

// listen serves in this process, as the far side of a network.
func (w *world) listen(h http.Handler) (address string) {
	w.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	server := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(listener) }()
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
		<-done
	})
	return fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port)
}

func (w *world) aYearAgo() time.Time { return time.Now().AddDate(-1, 0, 0) }
