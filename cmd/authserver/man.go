package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// manCommand writes the manual, for those who make packages.
func (h *hand) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write a manual page for each command into DIR", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writeManual(args[0], cmd.Root())
		},
	}
}

// writeManual writes the page of a command and those of the commands below it.
func writeManual(dir string, cmd *cobra.Command) error {
	if err := os.WriteFile(filepath.Join(dir, manPage(cmd)+".1"), []byte(manual(cmd)), 0o644); err != nil {
		return err
	}
	for _, below := range cmd.Commands() {
		if below.IsAvailableCommand() {
			if err := writeManual(dir, below); err != nil {
				return err
			}
		}
	}
	return nil
}

func manPage(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manual is the page of one command, in the macros of man(7).
func manual(cmd *cobra.Command) string {
	b := build()
	date, _, _ := strings.Cut(b.Date, "T")
	var page strings.Builder
	section := func(title string) { fmt.Fprintf(&page, ".SH %s\n", title) }
	fmt.Fprintf(&page, ".TH %s 1 %q %q\n", strings.ToUpper(manPage(cmd)), date, "authserver "+b.Version)
	section("NAME")
	fmt.Fprintf(&page, "%s \\- %s\n", roff(manPage(cmd)), roff(cmd.Short))
	section("SYNOPSIS")
	fmt.Fprintf(&page, ".B %s\n", roff(cmd.UseLine()))
	section("DESCRIPTION")
	about := cmd.Long
	if about == "" {
		about = cmd.Short + "."
	}
	for paragraph := range strings.SplitSeq(about, "\n\n") {
		page.WriteString(".PP\n")
		if strings.HasPrefix(paragraph, " ") {
			verbatim(&page, paragraph)
		} else {
			page.WriteString(roff(paragraph) + "\n")
		}
	}
	if cmd.HasExample() {
		section("EXAMPLES")
		verbatim(&page, cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		section("COMMANDS")
		for _, below := range cmd.Commands() {
			if below.IsAvailableCommand() {
				fmt.Fprintf(&page, ".TP\n.BR %s (1)\n%s\n", roff(manPage(below)), roff(below.Short))
			}
		}
	}
	if options := cmd.NonInheritedFlags().FlagUsages() + cmd.InheritedFlags().FlagUsages(); options != "" {
		section("OPTIONS")
		verbatim(&page, options)
	}
	section("EXIT STATUS")
	page.WriteString("0 done, 1 no, 2 called wrongly.\n")
	if !cmd.HasParent() {
		section("FILES")
		page.WriteString(".TP\n/etc/authserver/authserver.yaml\nConfiguration, when \\-\\-config names no other and there is no ./authserver.yaml.\n")
	} else {
		section("SEE ALSO")
		fmt.Fprintf(&page, ".BR %s (1)\n", roff(manPage(cmd.Parent())))
	}
	return page.String()
}

// verbatim sets text as it stands.
func verbatim(page *strings.Builder, text string) {
	fmt.Fprintf(page, ".nf\n%s\n.fi\n", roff(strings.TrimRight(text, "\n")))
}

// roff is text in which nothing is taken for a request or an escape.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
