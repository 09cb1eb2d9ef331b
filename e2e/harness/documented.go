package harness

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A Step is one command that a page shows, and what the page says it prints.
type Step struct {
	Part    string // of "run by TestName/part"; "" when the marker names none
	Command string // without "$ ", continued lines and here documents included
	Prints  string // the lines below it; "" when the page shows none
}

// marker is what stands right above a console block: who runs it.
//
//	<!-- run by TestCompose -->
var marker = regexp.MustCompile(`^<!-- run by (Test[A-Za-z0-9]+)(?:/([a-z0-9-]+))? -->$`)

// Documented is what the page (a path from the project's root) tells its reader to type, in the blocks that are marked
// as run by this test. With part not "", only those marked "run by TestName/part". A test that runs nothing fails.
//
// In a block every command begins with "$ "; a command goes on below a line that ends in "\", and below a here document's
// first line up to its end. What follows is its output.
func Documented(t testing.TB, page, part string) []Step {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(Root(t), "..", filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	var steps []Step
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		m := marker.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || m[1] != name || (part != "" && m[2] != part) {
			continue
		}
		if i+1 >= len(lines) || strings.TrimSpace(lines[i+1]) != "```console" {
			t.Fatalf("%s:%d: the line below the marker is not ```console", page, i+1)
		}
		indent := len(lines[i+1]) - len(strings.TrimLeft(lines[i+1], " "))
		var block []string
		for _, line := range lines[i+2:] {
			if strings.TrimSpace(line) == "```" {
				break
			}
			block = append(block, line[min(indent, len(line)):])
		}
		for _, step := range stepsOf(block) {
			step.Part = m[2]
			steps = append(steps, step)
		}
	}
	if len(steps) == 0 {
		t.Fatalf("%s has nothing that is marked as run by %s %s", page, name, part)
	}
	return steps
}

var hereDocument = regexp.MustCompile(`<<-?\s*['"]?([A-Za-z_]+)['"]?`)

// stepsOf takes the lines of one block apart.
func stepsOf(lines []string) []Step {
	var steps []Step
	goesOn, until := false, ""
	for _, line := range lines {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case until != "" || goesOn:
			steps[len(steps)-1].Command += "\n" + line
			if until != "" {
				if strings.TrimSpace(line) == until {
					until = ""
				}
				continue
			}
			command = line
		case isCommand:
			steps = append(steps, Step{Command: command})
		case len(steps) > 0:
			steps[len(steps)-1].Prints += line + "\n"
			continue
		default:
			continue
		}
		goesOn = strings.HasSuffix(command, `\`)
		if m := hereDocument.FindStringSubmatch(command); m != nil && !goesOn {
			until = m[1]
		}
	}
	return steps
}
