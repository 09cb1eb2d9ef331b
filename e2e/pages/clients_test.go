package pages_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

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

	reads := func(t *testing.T) *reader {
		r := newReader(t, auth, registry.Host)
		r.set("PASSWORD=correct horse", "TOKEN="+token,
			"DOCKER_HOST="+dockerd.Host, "DOCKER_BUILDKIT=1",
			"CONTAINERD_ADDRESS="+containerd.Address, "CONTAINERD_SNAPSHOTTER=native", "CONTAINERD_NAMESPACE=pages",
			"REGISTRY_AUTH_FILE="+r.file("auth.json", "{}"),
			// Where a registry has a certificate, nothing of the following is needed.
			"CONTAINERS_STORAGE_CONF="+r.file("storage.conf", "[storage]\ndriver=\"vfs\"\ngraphroot=%q\nrunroot=%q\n", filepath.Join(r.home, "root"), filepath.Join(r.home, "run")),
			"CONTAINERS_CONF="+r.file("containers.conf", "[engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"none\"\n"))
		r.file(".config/containers/registries.conf", "[[registry]]\nlocation=%q\ninsecure=true\n", registry.Host)
		r.file(".regctl/config.json", `{"hosts": {%q: {"tls": "disabled", "hostname": %[1]q}}}`, registry.Host)
		r.program("helm", `case "$1 $2" in "push "*|"pull "*|"show "*|"registry login") set -- "$@" --plain-http;; esac`)
		return r
	}

	seed := reads(t)
	for _, name := range []string{"public/hello", "team/app"} {
		image := harness.MakeImage(t, name)
		seed.file("password", "%s", auth.Password)
		if out, err := seed.types("crane auth login registry.example.com -u admin --password-stdin <password && crane push " + image.Archive + " registry.example.com/" + name + ":1"); err != nil {
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
				r.link("docker", "/usr/bin/docker") // Debian's has BuildKit in it; for later ones it is a plugin
			}
			r.follows(harness.Documented(t, "docs/clients/"+filepath.Base(page), ""))
		})
	}
}

// The commands of docs/clients.md.
func TestClientOverview(t *testing.T) {
	auth := harness.StartAuthserver(t, harness.Options{Service: "registry.example.com", Policy: policy, Users: map[string]string{"alice": "correct horse"}})
	r := newReader(t, auth, "localhost:1")
	r.set("PASSWORD=correct horse")
	r.follows(harness.Documented(t, "docs/clients.md", ""))
}
