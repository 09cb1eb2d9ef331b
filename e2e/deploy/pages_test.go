package deploy_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

var fromFile = regexp.MustCompile("(?m)^<!-- from (deploy/registry/[a-z0-9.-]+) -->\n```[a-z]*\n((?s:.*?))^```$")

// What the pages of docs/registries show of the files of deploy/registry stands there, line by line; and those files are what the
// tests of this package start the registries with.
func TestRegistryPagesShowTheFiles(t *testing.T) {
	root := filepath.Join(harness.Root(t), "..")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "registries", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	unseen := map[string]bool{}
	files, err := os.ReadDir(shipped(t, "registry"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != "README.md" && f.Name() != "policy.yaml" {
			unseen["deploy/registry/"+f.Name()] = true
		}
	}
	for _, page := range pages {
		text := string(harness.ReadFile(t, page))
		blocks := fromFile.FindAllStringSubmatch(text, -1)
		if len(blocks) != strings.Count(text, "<!-- from ") {
			t.Errorf("%s: a marker without its block", filepath.Base(page))
		}
		services := 0
		for _, block := range blocks {
			delete(unseen, block[1])
			if block[1] == "deploy/registry/authserver.yaml" {
				services++
			}
			if !strings.Contains("\n"+string(harness.ReadFile(t, filepath.Join(root, filepath.FromSlash(block[1])))), "\n"+block[2]) {
				t.Errorf("%s: %s does not have\n%s", filepath.Base(page), block[1], block[2])
			}
		}
		if harbor := filepath.Base(page) == "harbor.md"; !harbor && (len(blocks) < 2 || services == 0) {
			t.Errorf("%s shows no stanza with its services entry", filepath.Base(page))
		}
	}
	for file := range unseen {
		t.Errorf("no page shows anything of %s", file)
	}
}

// reads is somebody who follows a page on the machine of this authserver, where /etc and the registry's address are others.
func (i issuer) reads(t *testing.T, etc, host string) *harness.Reader {
	t.Helper()
	r := harness.NewReader(t, "https://registry.example.com", "http://"+host, "registry.example.com", host, "https://auth.example.com", i.url, "/etc/", etc+"/")
	for _, file := range []string{"authserver.yaml", "policy.yaml", "users.htpasswd"} {
		r.File(file, "%s", harness.ReadFile(t, filepath.Join(i.dir, file)))
	}
	r.Set(i.environment...)
	r.Set("PASSWORD=" + i.password)
	return r
}

// The commands of docs/registries: what they export is what the registry is then started with, and believes.
func TestRegistryPages(t *testing.T) {
	i := serveRegistries(t)
	for _, c := range []struct {
		page, file, at string
		version        string // of the registry; "" when there is none to be started
	}{
		{"distribution-2", "distribution.yml", "docker/registry/config.yml", "2.8.3"},
		{"distribution-3", "distribution.yml", "distribution/config.yml", "3.1.2"},
		{"gitlab", "gitlab-registry.yml", "docker/registry/config.yml", "2.8.3"},
		{"zot", "zot.json", "zot/config.json", ""},
		{"chartmuseum", "chartmuseum.env", "chartmuseum/chartmuseum.env", ""},
		{"notary", "notary-server.json", "notary/server-config.json", ""},
	} {
		t.Run(c.page, func(t *testing.T) {
			etc, host := t.TempDir(), fmt.Sprintf("localhost:%d", harness.FreePort(t))
			text := strings.NewReplacer("https://auth.example.com/token", i.url+"/token", "/etc/", etc+"/").Replace(string(harness.ReadFile(t, shipped(t, "registry", c.file))))
			write(t, filepath.Join(etc, c.at), []byte(text), 0o600)
			if err := os.MkdirAll(filepath.Join(etc, "registry"), 0o700); err != nil {
				t.Fatal(err)
			}
			r := i.reads(t, etc, host)
			page := "docs/registries/" + c.page + ".md"
			r.Follow(harness.Documented(t, page, "export"))
			if c.version != "" {
				registry := harness.Start(t, []string{
					"REGISTRY_HTTP_ADDR=" + host,
					"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=" + t.TempDir(),
					"OTEL_TRACES_EXPORTER=none",
				}, registryProgram(t, c.version), "serve", filepath.Join(etc, c.at))
				registry.Await(t, func() error {
					response, err := http.Get("http://" + host + "/v2/")
					if err == nil {
						response.Body.Close()
					}
					return err
				})
			}
			r.Follow(harness.Documented(t, page, "check"))
		})
	}
}
