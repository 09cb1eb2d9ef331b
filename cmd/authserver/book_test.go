package main

import (
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// The book is the documentation: README.md and every page that hangs from it. These tests walk through it as a reader does.
const home = "../.." // the project's root, from here

// chapter is one page of the book.
type chapter struct {
	path   string // from the project's root, with slashes
	prose  []line // what is in no block
	blocks []shown
}

type line struct {
	number int
	text   string
}

// shown is a fenced block.
type shown struct {
	number   int    // the line of its fence
	language string // as written behind the fence
	note     string // the comment right above it: who runs it, or why nobody can
	indent   int    // of the fence: in a list, blocks are indented
	text     string
}

func (p chapter) at(number int) string { return fmt.Sprintf("%s:%d", p.path, number) }

// book reads all pages.
func book(t *testing.T) []chapter {
	t.Helper()
	files := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "e2e/README.md"}
	for _, folder := range []string{"docs", "deploy"} {
		err := filepath.WalkDir(filepath.Join(home, folder), func(file string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(file, ".md") {
				file, err = filepath.Rel(home, file)
				files = append(files, filepath.ToSlash(file))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var pages []chapter
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(home, file))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, readPage(file, string(text)))
	}
	if len(pages) < 20 {
		t.Fatalf("only %d pages", len(pages))
	}
	return pages
}

var fence = regexp.MustCompile("^( *)```([^`]*)$")

func readPage(file, text string) chapter {
	p := chapter{path: file}
	open, above := false, ""
	for i, at := range strings.Split(text, "\n") {
		m := fence.FindStringSubmatch(at)
		switch {
		case m != nil && !open:
			b := shown{number: i + 1, language: strings.TrimSpace(m[2]), indent: len(m[1])}
			if note, ok := strings.CutPrefix(strings.TrimSpace(above), "<!-- "); ok {
				b.note = strings.TrimSuffix(note, " -->")
			}
			p.blocks, open = append(p.blocks, b), true
		case m != nil:
			open = false
		case open:
			b := &p.blocks[len(p.blocks)-1]
			b.text += at[min(b.indent, len(at)-len(strings.TrimLeft(at, " "))):] + "\n"
		default:
			p.prose = append(p.prose, line{i + 1, at})
		}
		above = at
	}
	return p
}

var (
	codeSpan = regexp.MustCompile("`([^`]+)`")
	linked   = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)|(?:src|href)="([^"]+)"|^\[[^\]]+\]:\s+(\S+)`)
)

// links are where a line leads to.
func links(text string) (targets []string) {
	for _, m := range linked.FindAllStringSubmatch(codeSpan.ReplaceAllString(text, "`code`"), -1) {
		targets = append(targets, m[1]+m[2]+m[3])
	}
	return targets
}

var (
	heading    = regexp.MustCompile(`^#{1,6} +(.+?)(?: +#+)?\s*$`)
	namedPlace = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
	textOfLink = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// anchors are the places of a page that a link can name, by the rules of GitHub.
func (p chapter) anchors() map[string]bool {
	all, seen := map[string]bool{}, map[string]int{}
	for _, l := range p.prose {
		for _, m := range namedPlace.FindAllStringSubmatch(l.text, -1) {
			all[m[1]] = true
		}
		m := heading.FindStringSubmatch(l.text)
		if m == nil {
			continue
		}
		words := strings.NewReplacer("`", "", "*", "").Replace(textOfLink.ReplaceAllString(m[1], "$1"))
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, words)
		if n := seen[name]; n > 0 {
			all[fmt.Sprintf("%s-%d", name, n)] = true
		} else {
			all[name] = true
		}
		seen[name]++
	}
	return all
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	pages := map[string]chapter{}
	for _, p := range book(t) {
		pages[p.path] = p
	}
	hosts, checked := map[string]bool{}, 0
	for _, p := range pages {
		for _, l := range p.prose {
			for _, target := range links(l.text) {
				checked++
				u, err := url.Parse(target)
				if err != nil {
					t.Errorf("%s: %v", p.at(l.number), err)
					continue
				}
				if u.Scheme != "" || u.Host != "" { // nothing is fetched: the host is only listed
					if u.Scheme != "https" || u.User != nil || !strings.Contains(u.Host, ".") {
						t.Errorf("%s: %s: a link to elsewhere is https and has a host", p.at(l.number), target)
					}
					hosts[u.Host] = true
					continue
				}
				to := p.path
				if u.Path != "" {
					to = path.Join(path.Dir(p.path), u.Path)
				}
				if _, err := os.Stat(filepath.Join(home, to)); err != nil || strings.HasPrefix(to, "..") {
					t.Errorf("%s: %s leads nowhere", p.at(l.number), target)
				} else if there, isPage := pages[to]; u.Fragment != "" && (!isPage || !there.anchors()[u.Fragment]) {
					t.Errorf("%s: %s: the page has no such heading", p.at(l.number), target)
				}
			}
		}
	}
	if checked < 80 {
		t.Errorf("only %d links were found", checked)
	}
	t.Logf("%d links; to these hosts, which were not asked: %s", checked, strings.Join(slices.Sorted(maps.Keys(hosts)), " "))
}

// Who begins with README.md comes by every page.
func TestEveryPageIsReached(t *testing.T) {
	pages := map[string]chapter{}
	for _, p := range book(t) {
		pages[p.path] = p
	}
	seen, next := map[string]bool{"README.md": true}, []string{"README.md"}
	for len(next) > 0 {
		p := pages[next[0]]
		next = next[1:]
		for _, l := range p.prose {
			for _, target := range links(l.text) {
				to, _, _ := strings.Cut(target, "#")
				to = path.Join(path.Dir(p.path), to)
				if _, isFolder := pages[to+"/README.md"]; isFolder {
					to += "/README.md"
				}
				if _, isPage := pages[to]; isPage && !seen[to] {
					seen[to], next = true, append(next, to)
				}
			}
		}
	}
	for file := range pages {
		if !seen[file] {
			t.Errorf("no way leads from README.md to %s", file)
		}
	}
}

var project = regexp.MustCompile("(?:^|[\\s(`\"'=|])((?:deploy|internal|docs|e2e|cmd|\\.ci)/[\\w./*-]*)")

// Files and folders of the project that a page names are there.
func TestNamedFilesAreThere(t *testing.T) {
	checked := 0
	for _, p := range book(t) {
		named := slices.Clone(p.prose)
		for _, b := range p.blocks {
			for i, text := range strings.Split(b.text, "\n") {
				named = append(named, line{b.number + 1 + i, text})
			}
		}
		for _, l := range named {
			for _, m := range project.FindAllStringSubmatch(l.text, -1) {
				file := strings.TrimRight(m[1], "./")
				if strings.HasPrefix(file, "e2e/.cache") || strings.Contains(file, "...") || strings.Count(file, "/") == 0 ||
					strings.HasPrefix(file, "deploy/") && strings.Contains(l.text, "kubectl") && path.Ext(file) == "" {
					continue // made by a build, no single place, a Deployment
				}
				checked++
				here, _ := filepath.Glob(filepath.Join(home, path.Dir(p.path), file))
				there, err := filepath.Glob(filepath.Join(home, file))
				if err != nil || len(here)+len(there) == 0 {
					t.Errorf("%s: %s is not there", p.at(l.number), file)
				}
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d names of files were found", checked)
	}
}

// The picture of the house has every room, and "make" has every target that a page names.
func TestTheHouseIsWhole(t *testing.T) {
	contributing, err := os.ReadFile(filepath.Join(home, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	rooms, err := os.ReadDir(filepath.Join(home, "internal"))
	if err != nil || len(rooms) < 15 {
		t.Fatalf("%d rooms, %v", len(rooms), err)
	}
	for _, room := range rooms {
		if !regexp.MustCompile(`(?m)^.* internal/` + room.Name() + ` `).Match(contributing) {
			t.Errorf("CONTRIBUTING.md does not say what internal/%s is for", room.Name())
		}
	}
	makefile, err := os.ReadFile(filepath.Join(home, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):.*## `).FindAllStringSubmatch(string(makefile), -1) {
		targets[m[1]] = true
	}
	for _, p := range book(t) {
		for _, l := range p.prose {
			for _, m := range regexp.MustCompile("`make ([a-z0-9-]+)[^`]*`").FindAllStringSubmatch(l.text, -1) {
				if !targets[m[1]] {
					t.Errorf("%s: there is no make %s", p.at(l.number), m[1])
				}
			}
		}
		for _, b := range p.blocks {
			for _, m := range regexp.MustCompile(`(?m)^\$ (?:\w+=\S+ )*make ([a-z0-9-]+)`).FindAllStringSubmatch(b.text, -1) {
				if !targets[m[1]] {
					t.Errorf("%s: there is no make %s", p.at(b.number), m[1])
				}
			}
		}
	}
}
