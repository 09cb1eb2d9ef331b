package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryCommandHasAPageInTheManual(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	must(t, "", "man", dir)
	pages := map[string]string{}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		pages[strings.TrimSuffix(file.Name(), ".1")] = string(text)
	}
	for page, holds := range map[string][]string{
		"authserver":                 {".TH AUTHSERVER 1", `.BR authserver\-serve (1)`, "/etc/authserver/authserver.yaml", "0 done, 1 no, 2 called wrongly"},
		"authserver-serve":           {`authserver\-serve \- Give tokens`, ".B authserver serve", "SIGTERM", `\-\-config string`, ".BR authserver (1)"},
		"authserver-user-add":        {`\-\-password\-stdin`, ".BR authserver\\-user (1)"},
		"authserver-completion-bash": {"\n.nf\n"},
	} {
		for _, want := range holds {
			if !strings.Contains(pages[page], want) {
				t.Errorf("%s does not say %q:\n%s", page, want, pages[page])
			}
		}
	}
	if _, ok := pages["authserver-man"]; ok {
		t.Error("a hidden command has a page")
	}
	if len(pages) < 30 {
		t.Errorf("%d pages", len(pages))
	}
}

func TestTextOfTheManualIsNoRequest(t *testing.T) {
	if got, want := roff(".so /etc/passwd\n'br\na-b \\c"), "\\&.so /etc/passwd\n\\&'br\na\\-b \\ec"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
