package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the documentation shows of our commands is what they print. A page is followed as its reader would: in a folder that
// init made, a block that begins with "# NAME.yaml" is saved under that name, and what stands behind "$ " is typed.
func TestDocumentedCommands(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```[^\n]*\n(.*?)^```$")
	named := regexp.MustCompile(`^# (\S+\.yaml)\n`)
	ours := regexp.MustCompile(`(?m)^\$ authserver (acl|config|key|user) `) // init and serve are not for running here
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := ""
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			config, _ := initialised(t)
			t.Chdir(filepath.Dir(config))
			for _, at := range block.FindAllSubmatchIndex(text, -1) {
				stands, line := string(text[at[2]:at[3]]), 1+bytes.Count(text[:at[2]], []byte("\n"))
				if name := named.FindStringSubmatch(stands); name != nil {
					if err := os.WriteFile(name[1], []byte(stands), 0o600); err != nil {
						t.Fatal(err)
					}
				} else if strings.Contains(stands, "rules:\n") || strings.Contains(stands, "grants:") {
					t.Errorf("%s:%d: nothing reads this policy; begin it with # NAME.yaml", page, line)
				}
				if ours.MatchString(stands) {
					shown += stands
					if same, diff := compare(stands, typed(stands)); diff != "" {
						t.Errorf("%s:%d: - stands there, + is printed\n%s", page, line+same, diff)
					}
				}
			}
		})
	}
	for _, name := range []string{"explain", "test", "diff", "lint"} {
		if !strings.Contains(shown, "$ authserver acl "+name) {
			t.Errorf("no page shows acl %s", name)
		}
	}
}

// typed is a console block as its commands fill it now, output and errors together.
func typed(block string) string {
	word := regexp.MustCompile(`('[^']*'|[\w./:,=-])+`)
	var screen bytes.Buffer
	status := exitOK
	for line := range strings.Lines(block) {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		screen.WriteString(line)
		var args []string
		for _, arg := range word.FindAllString(command, -1) {
			args = append(args, strings.ReplaceAll(arg, "'", ""))
		}
		switch rest := strings.TrimSpace(word.ReplaceAllString(command, "")); {
		case command == "echo $?\n":
			fmt.Fprintln(&screen, status)
		case rest == "" && strings.HasPrefix(command, "authserver "):
			status = run(&hand{stdin: strings.NewReader(""), stdout: &screen, stderr: &screen}, args[1:])
		default:
			fmt.Fprintln(&screen, "this takes a shell, and the test has none")
		}
	}
	return screen.String()
}

// compare returns how many lines are the same before the first difference, and the lines from there to the last one.
func compare(want, got string) (same int, diff string) {
	a, b := strings.SplitAfter(want, "\n"), strings.SplitAfter(got, "\n")
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b, same = a[1:], b[1:], same+1
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	for _, line := range a {
		diff += "- " + line
	}
	for _, line := range b {
		diff += "+ " + line
	}
	return same, diff
}
