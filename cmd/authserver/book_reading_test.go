package main

import (
	"slices"
	"strings"
	"testing"
)

// The walk through the book is worth what it sees: links, headings, blocks and commands, as GitHub and cobra read them.
func TestThePagesAreReadAsTheyAreShown(t *testing.T) {
	p := readPage("docs/x.md", "# A `title`, *and* [more](y.md)\n## Twice\n## Twice\n<a id=\"here\"></a>\n\n<!-- run by TestX/part -->\n  ```console\n  $ one\n    two\n  ```\n```yaml\na: 1\n```\n")
	for _, name := range []string{"a-title-and-more", "twice", "twice-1", "here"} {
		if !p.anchors()[name] {
			t.Errorf("no %s in %v", name, p.anchors())
		}
	}
	if len(p.anchors()) != 4 {
		t.Errorf("anchors %v", p.anchors())
	}
	if len(p.blocks) != 2 || p.blocks[0].note != "run by TestX/part" || p.blocks[0].language != "console" || p.blocks[0].text != "$ one\n  two\n" || p.blocks[1].note != "" || p.blocks[1].text != "a: 1\n" {
		t.Errorf("blocks %+v", p.blocks)
	}
	if got := links("[a](b.md#c) ![d](e.svg) `[no](no)` <img src=\"f.png\"> [g]( <h.md> \"title\")"); !slices.Equal(got, []string{"b.md#c", "e.svg", "f.png", "h.md"}) {
		t.Errorf("links %q", got)
	}
}

func TestCommandsThatDoNotExistAreSeen(t *testing.T) {
	root := (&hand{}).program(new(bool))
	for command, want := range map[string]string{
		"authserver user add alice --group backend":                            "",
		"authserver user ad alice":                                             "there is no command ad",
		"authserver user add alice --grup backend":                             "there is no --grup",
		"authserver --config x.yaml user list -o json > list.json":             "",
		"authserver user list -p":                                              "there is no -p",
		"bin/authserver nothing":                                               "there is no command nothing",
		"docker compose exec authserver authserver user add alice":             "",
		"docker compose run --rm authserver user sub":                          "there is no command sub",
		"printf x | authserver user add bob --password-stdin --paswd && true":  "there is no --paswd",
		"kubectl -n authserver get pods --all":                                 "",
		"authserver config check|show|set":                                     "",
		"sudo -u authserver authserver config check --strict # --not-this-one": "there is no --strict",
	} {
		problem := ""
		for _, words := range calls(root, command) {
			problem += fits(root, words)
		}
		if problem != want {
			t.Errorf("%s: %q, want %q", command, problem, want)
		}
	}
}

func TestMisusePointsAtTheCommandsOwnHelp(t *testing.T) {
	for _, c := range []struct {
		want string
		args []string
	}{
		{"authserver user add --help", []string{"user", "add"}},
		{"authserver token create --help", []string{"token", "create", "--nonsense"}},
		{"authserver user --help", []string{"user"}},
		{"authserver --help", []string{"nonsense"}},
	} {
		if _, stderr, status := call(t, "", c.args...); status != exitMisuse || !strings.Contains(stderr, `see "`+c.want+`"`) {
			t.Errorf("%q: status %d, %s", c.args, status, stderr)
		}
	}
}
