package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What serve needs for tracing, config check and a reload look at too; and what stands in it nobody repeats.
func TestHeadersForTheCollectorAreChecked(t *testing.T) {
	config, _ := initialised(t)
	file := filepath.Join(filepath.Dir(config), "otel.headers")
	check := func() (string, int) {
		_, stderr, status := call(t, "", "config", "check", "--config", config, "--set", "tracing.endpoint=https://otel.example.com/v1/traces", "--set", "tracing.headers_file=otel.headers")
		return stderr, status
	}
	for text, want := range map[string]string{
		"":                                "tracing.headers_file: open " + file + ": no such file or directory",
		"hunter2":                         "tracing.headers_file: " + file + ":1: no header; would be right: Authorization: Bearer …",
		"Authorization: Bearer hunter2\n": "",
	} {
		if text != "" {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			_ = os.Remove(file)
		}
		stderr, status := check()
		if (status == exitOK) != (want == "") || !strings.Contains(stderr, want) || strings.Contains(stderr, "hunter2") {
			t.Errorf("%q: status %d, %s", text, status, stderr)
		}
	}
}
