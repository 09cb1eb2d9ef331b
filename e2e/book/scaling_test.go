package book_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// The table of docs/scaling.md is its formula.
func TestScaling(t *testing.T) {
	const page = "docs/scaling.md"
	r := newReader(t)
	r.follows(page, "")
	step := harness.Documented(t, page, "")[0]
	text := string(harness.ReadFile(t, filepath.Join(harness.Root(t), "..", page)))
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| (\d+) \| ([\d.]+ /s) \| ([\d.]+ /s) \| ([\d.]+) \| ([\d.]+ GB) \| (\d+) \| (\d+) \| ([\d.]+ /s) \|`).FindAllStringSubmatch(text, -1)
	if len(rows) != 3 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	for _, row := range rows {
		out, err := r.terminal(strings.NewReplacer("nodes=10000 ", "nodes="+row[1]+" ", "replicas=3 ", "replicas="+row[7]+" ", "robots=10 ", "robots="+row[8]+" ").Replace(step.Command))
		want := "tokens a day: " + row[2] + "\naverage: " + row[3] + "\npeak: " + row[4] + "\ncores at the peak: " + row[5] + "\naudit log: " + row[6] + " a day\ndatabase: " + row[9] + "\n"
		if err != nil || out != want {
			t.Errorf("%s nodes: %v\n%s, and the table has\n%s", row[1], err, out, want)
		}
	}
}
