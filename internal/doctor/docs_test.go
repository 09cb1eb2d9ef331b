package doctor_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// Every check has its heading in docs/doctor.md, to which findings point, and every heading its check.
func TestEveryCheckIsExplained(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../cmd/authserver/*.go")
	if err != nil {
		t.Fatal(err)
	}
	check := regexp.MustCompile(`(?:found|fine|fault|faults|down|Check:)[ (]"([a-z0-9-]+)"`)
	var checks []string
	for _, file := range append(files, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range check.FindAllSubmatch(text, -1) {
			checks = append(checks, string(m[1]))
		}
	}
	slices.Sort(checks)
	checks = slices.Compact(checks)
	if len(checks) < 30 {
		t.Fatalf("only %d checks were found in the code", len(checks))
	}
	page, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var headings []string
	for _, m := range regexp.MustCompile(`(?m)^#### ([a-z0-9-]+)$`).FindAllSubmatch(page, -1) {
		headings = append(headings, string(m[1]))
	}
	for _, c := range checks {
		if !slices.Contains(headings, c) {
			t.Errorf("docs/doctor.md has no heading %q", c)
		}
	}
	for _, h := range headings {
		if !slices.Contains(checks, h) {
			t.Errorf("docs/doctor.md explains %q, which nothing looks at", h)
		}
	}
}
