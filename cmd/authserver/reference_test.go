package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write docs/reference/commands.md anew")

// The reference of commands is what --help says of each.
func TestReferenceOfCommandsIsThatOfTheCode(t *testing.T) {
	root := (&hand{}).program(new(bool))
	var b strings.Builder
	b.WriteString(`# Commands

Made from the program: ` + "`authserver COMMAND --help`" + ` says the same.

| exit status | |
|---|---|
| 0 | done |
| 1 | no: the answer is no, or it could not be done; standard error says why |
| 2 | called wrongly: a command, an argument or a flag that there is not |

Errors go to standard error, one a line, as ` + "`authserver: file:line: key: what is wrong; what would be right`" + `. What a command prints for other programs
(` + "`-o json`" + `) goes to standard output and is UTF-8.

` + "`authserver completion SHELL`" + ` prints completion for bash, zsh, fish or powershell; the packages install it.

## Every command takes

`)
	flags(&b, root.PersistentFlags().FlagUsages())
	b.WriteString("\n")
	commands := leaves(root)
	for _, cmd := range commands {
		b.WriteString("## " + cmd.CommandPath() + "\n\n```text\n" + strings.TrimSuffix(cmd.UseLine(), " [flags]") + "\n```\n\n")
		text := cmd.Long
		if text == "" {
			text = cmd.Short + "."
		}
		b.WriteString(prose(text) + "\n")
		if cmd.Example != "" {
			b.WriteString("\n```text\n" + strings.TrimRight(cmd.Example, "\n") + "\n```\n")
		}
		var own strings.Builder
		flags(&own, cmd.NonInheritedFlags().FlagUsages())
		for up := cmd.Parent(); up != root; up = up.Parent() {
			flags(&own, up.PersistentFlags().FlagUsages())
		}
		if own.Len() > 0 {
			b.WriteString("\n" + heads + strings.ReplaceAll(own.String(), heads, ""))
		}
		b.WriteString("\n")
	}
	if len(commands) < 25 {
		t.Errorf("only %d commands", len(commands))
	}

	const file = "../../docs/reference/commands.md"
	made := strings.TrimRight(b.String(), "\n") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(made), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if stands, err := os.ReadFile(file); err != nil || string(stands) != made {
		t.Errorf("%s is not what the commands say (%v); go test ./cmd/authserver -run Reference -update", file, err)
	}
}

// leaves are the commands that do something, in the order of --help.
func leaves(cmd *cobra.Command) (all []*cobra.Command) {
	for _, sub := range cmd.Commands() {
		switch {
		case sub.Hidden || sub.Name() == "help" || sub.Name() == "completion":
		case sub.HasSubCommands():
			all = append(all, leaves(sub)...)
		default:
			all = append(all, sub)
		}
	}
	return all
}

const heads = "| flag | default | |\n|---|---|---|\n"

// flags writes a table of what --help lists.
func flags(b *strings.Builder, usages string) {
	for i, f := range flagsOf(usages) {
		if i == 0 {
			b.WriteString(heads)
		}
		name, standard := "--"+f.name, ""
		if f.short != "" {
			name = "-" + f.short + ", " + name
		}
		if f.standard != "" {
			standard = "`" + f.standard + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, standard, strings.ReplaceAll(f.usage, "|", `\|`))
	}
}

type flagLine struct{ short, name, standard, usage string }

var flagUsage = regexp.MustCompile(`(?m)^ +(?:-(\w), )? *--(\S+)(?: \S+)?   +(.*?)(?: \(default "?([^)"]*)"?\))?$`)

// flagsOf reads what pflag lists of flags.
func flagsOf(usages string) (all []flagLine) {
	for _, m := range flagUsage.FindAllStringSubmatch(usages, -1) {
		if m[2] != "help" {
			all = append(all, flagLine{m[1], m[2], m[4], m[3]})
		}
	}
	return all
}

// prose is the text of a command's help in Markdown: what is indented there is an example.
func prose(text string) string {
	var b strings.Builder
	inside := false
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		if indented := strings.HasPrefix(line, "  "); indented != inside {
			if indented && !strings.HasSuffix(b.String(), "\n\n") {
				b.WriteString("\n")
			}
			b.WriteString("```" + map[bool]string{true: "text"}[indented] + "\n")
			inside = indented
		}
		if !inside {
			line = strings.NewReplacer("<", "&lt;", "*", `\*`).Replace(line)
		}
		b.WriteString(line + "\n")
	}
	if inside {
		b.WriteString("```\n")
	}
	return strings.TrimRight(b.String(), "\n")
}
