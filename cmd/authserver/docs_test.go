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
// init made, a block that begins with "# NAME.yaml" is saved under that name, and what stands behind "$ " is typed. Blocks
// that name another test are that test's.
func TestDocumentedCommands(t *testing.T) {
	named := regexp.MustCompile(`^# (\S+\.yaml)\n`)
	shown := ""
	for _, p := range book(t) {
		if p.path != "README.md" && !strings.HasPrefix(p.path, "docs/") || len(p.blocks) == 0 {
			continue
		}
		t.Run(strings.TrimPrefix(p.path, "docs/"), func(t *testing.T) {
			config, _ := initialised(t)
			t.Chdir(filepath.Dir(config))
			for _, b := range p.blocks {
				if b.note != "" {
					continue
				}
				if name := named.FindStringSubmatch(b.text); name != nil {
					if err := os.WriteFile(name[1], []byte(b.text), 0o600); err != nil {
						t.Fatal(err)
					}
				} else if b.language != "text" && (strings.Contains(b.text, "rules:\n") || strings.Contains(b.text, "grants:")) {
					t.Errorf("%s: nothing reads this policy; begin it with # NAME.yaml", p.at(b.number))
				}
				if b.language == "console" && ours.MatchString(b.text) {
					shown += b.text
					if same, diff := compare(stable(t, b.text), stable(t, typed(b.text))); diff != "" {
						t.Errorf("%s: - stands there, + is printed\n%s", p.at(b.number+1+same), diff)
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

// stable is what is the same each time: keys, days and folders are not, nor is how wide a column is.
func stable(t *testing.T, text string) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	text = strings.ReplaceAll(text, here+"/", "/etc/authserver/")
	for pattern, by := range map[string]string{
		`([A-Z2-7]{4}:){11}[A-Z2-7]{4}`: "ABCD:…:WXYZ", `\d{4}-\d\d-\d\d \(\d+ days\)`: "2027-01-02 (364 days)", `(?m)  +`: "  ",
	} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, by)
	}
	return text
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
		command, file, redirected := strings.Cut(command, " > ")
		var printed bytes.Buffer
		stdout := &screen
		if redirected {
			stdout = &printed
		}
		var args []string
		for _, arg := range word.FindAllString(command, -1) {
			args = append(args, strings.ReplaceAll(arg, "'", ""))
		}
		switch rest := strings.TrimSpace(word.ReplaceAllString(command, "")); {
		case command == "echo $?\n":
			fmt.Fprintln(&screen, status)
		case rest == "" && strings.HasPrefix(command, "authserver "):
			status = run(&hand{stdin: strings.NewReader(""), stdout: stdout, stderr: &screen}, args[1:])
			if redirected {
				if err := os.WriteFile(strings.TrimSpace(file), printed.Bytes(), 0o600); err != nil {
					fmt.Fprintln(&screen, err)
				}
			}
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
