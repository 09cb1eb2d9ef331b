package deploy_test

import (
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
