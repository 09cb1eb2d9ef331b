// Package pages_test types what docs/clients and docs/migrating tell their readers to type, with the real programs, a real
// registry and a real authserver, and compares what is printed with what the pages say is printed.
package pages_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// newReader reads "registry.example.com", unless it is the name of the service, as the registry's address, and "auth.example.com"
// as authserver's.
func newReader(t *testing.T, auth *harness.Authserver, registry string) *harness.Reader {
	t.Helper()
	return harness.NewReader(t, "service=registry.example.com", "service=registry.example.com",
		"https://registry.example.com", "http://"+registry, "registry.example.com", registry,
		"https://auth.example.com", auth.URL, "auth.example.com", strings.TrimPrefix(auth.URL, "http://"), "/etc/authserver", auth.Dir)
}

// What the pages of docs/clients are about: alice owns alice/**, reads team/**, and public/** is everybody's to read. The
// robot ci pushes to team/**.
const policy = `
rules:
  - {name: public, subjects: [anyone], repositories: ["public/**"], actions: [pull]}
  - {name: own, subjects: [authenticated], repositories: ["{user}/**"], actions: [pull, push, delete]}
  - {name: team-reads, subjects: [authenticated], repositories: ["team/**"], actions: [pull]}
  - {name: ci-pushes, subjects: ["robot:ci"], repositories: ["team/**"], actions: [pull, push]}
  - {name: admin, subjects: ["user:admin"], repositories: ["**"], actions: ["*"]}
  - {name: admin-lists, subjects: ["user:admin"], resources: ["registry:catalog"], actions: ["*"]}
`

// The commands of docs/clients, page by page, each in a new home, against one registry with one dockerd and one containerd.
func TestClientPages(t *testing.T) {
	auth := harness.StartAuthserver(t, harness.Options{Service: "registry.example.com", Policy: policy, Users: map[string]string{"alice": "correct horse"}})
	auth.Command(t, "", "user", "add", "ci", "--robot")
	token, _ := auth.AccessToken(t, "ci", "pipeline")
	registry := harness.StartRegistry(t, "3.1.2", auth)
	dockerd := harness.StartDockerd(t)
	containerd := harness.StartContainerd(t)

	reads := func(t *testing.T) *harness.Reader {
		r := newReader(t, auth, registry.Host)
		r.Set("PASSWORD=correct horse", "TOKEN="+token,
			"DOCKER_HOST="+dockerd.Host, "DOCKER_BUILDKIT=1",
			"CONTAINERD_ADDRESS="+containerd.Address, "CONTAINERD_SNAPSHOTTER=native", "CONTAINERD_NAMESPACE=pages",
			"REGISTRY_AUTH_FILE="+r.File("auth.json", "{}"),
			// Where a registry has a certificate, nothing of the following is needed.
			"CONTAINERS_STORAGE_CONF="+r.File("storage.conf", "[storage]\ndriver=\"vfs\"\ngraphroot=%q\nrunroot=%q\n", filepath.Join(r.Home, "root"), filepath.Join(r.Home, "run")),
			"CONTAINERS_CONF="+r.File("containers.conf", "[engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"none\"\n"))
		r.File(".config/containers/registries.conf", "[[registry]]\nlocation=%q\ninsecure=true\n", registry.Host)
		r.File(".regctl/config.json", `{"hosts": {%q: {"tls": "disabled", "hostname": %[1]q}}}`, registry.Host)
		r.Before("helm", `case "$1 $2" in "push "*|"pull "*|"show "*|"registry login") set -- "$@" --plain-http;; esac`)
		return r
	}

	seed := reads(t)
	for _, name := range []string{"public/hello", "team/app"} {
		image := harness.MakeImage(t, name)
		seed.File("password", "%s", auth.Password)
		if out, err := seed.Type("crane auth login registry.example.com -u admin --password-stdin <password && crane push " + image.Archive + " registry.example.com/" + name + ":1"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}

	pages, err := filepath.Glob(filepath.Join(harness.Root(t), "..", "docs", "clients", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "<!-- run by "+t.Name()) {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			r := reads(t)
			if page := filepath.Base(page); page == "buildkit.md" {
				r.Link("docker", "/usr/bin/docker") // Debian's has BuildKit in it; for later ones it is a plugin
			}
			before := len(auth.Log())
			r.Follow(harness.Documented(t, "docs/clients/"+filepath.Base(page), ""))
			wantAsked(t, filepath.Base(page), auth.Log()[before:])
		})
	}
}

// wantAsked checks the row of a page in the table of docs/clients.md: which actions on repositories were asked for together.
func wantAsked(t *testing.T, page, log string) {
	t.Helper()
	asked := map[string]bool{}
	for _, scope := range regexp.MustCompile(`"asked":"([^"]*)"`).FindAllStringSubmatch(log, -1) {
		for _, one := range strings.Fields(scope[1]) {
			if strings.HasPrefix(one, "repository:") {
				asked[one[strings.LastIndexByte(one, ':')+1:]] = true
			}
		}
	}
	text := string(harness.ReadFile(t, filepath.Join(harness.Root(t), "..", "docs", "clients.md")))
	_, table, _ := strings.Cut(text, "| asks for |")
	row := regexp.MustCompile(`(?m)^\| \[[^]]*\]\(clients/` + regexp.QuoteMeta(page) + `\) \|(.*)$`).FindStringSubmatch(table)
	if row == nil {
		return // that page is not about one client
	}
	said := map[string]bool{}
	for _, actions := range regexp.MustCompile("`([a-z,*]+)`").FindAllStringSubmatch(row[1], -1) {
		said[actions[1]] = true
	}
	if !maps.Equal(asked, said) {
		t.Errorf("docs/clients.md says that %v is asked for; it was %v", slices.Sorted(maps.Keys(said)), slices.Sorted(maps.Keys(asked)))
	}
}

// What the pages say is printed to somebody who guesses.
func TestHeldBackClients(t *testing.T) {
	auth := harness.StartAuthserver(t, harness.Options{Service: "registry.example.com", Policy: policy, Users: map[string]string{"alice": "correct horse"}, Set: []string{"throttle.account_failures=1", "throttle.window=1h"}})
	registry := harness.StartRegistry(t, "3.1.2", auth)
	dockerd, containerd := harness.StartDockerd(t), harness.StartContainerd(t)
	if answer := auth.Ask(t, "alice", "a guess", "registry.example.com"); answer.Status != 401 {
		t.Fatalf("a guess: status %d", answer.Status)
	}
	r := newReader(t, auth, registry.Host)
	r.Set("DOCKER_HOST="+dockerd.Host, "CONTAINERD_ADDRESS="+containerd.Address, "CONTAINERD_SNAPSHOTTER=native", "REGISTRY_AUTH_FILE="+r.File("auth.json", "{}"))
	r.File(".config/containers/registries.conf", "[[registry]]\nlocation=%q\ninsecure=true\n", registry.Host)
	for _, page := range []string{"docker", "containerd", "podman"} {
		r.Follow(harness.Documented(t, "docs/clients/"+page+".md", ""))
	}
}

// The commands of docs/clients.md.
func TestClientOverview(t *testing.T) {
	auth := harness.StartAuthserver(t, harness.Options{Service: "registry.example.com", Policy: policy, Users: map[string]string{"alice": "correct horse"}})
	r := newReader(t, auth, "localhost:1")
	r.Set("PASSWORD=correct horse")
	r.Follow(harness.Documented(t, "docs/clients.md", ""))
}
