package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"authserver/internal/config"
)

// testdata/bad holds configurations that must not start. Beside each X.yaml stands X.want: every message, one a line.
func TestBadConfigurationsAreRefusedWithAllTheirFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 80 {
		t.Fatalf("only %d bad configurations found", len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".yaml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			want, err := os.ReadFile(name + ".want")
			if err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(file, nil, nil)
			wantFaults(t, err, strings.Split(strings.TrimSuffix(string(want), "\n"), "\n")...)
			if c != nil {
				t.Error("a configuration was returned beside the faults")
			}
		})
	}
}

func TestEveryListOfFaultsHasItsConfiguration(t *testing.T) {
	wants, err := filepath.Glob("testdata/bad/*.want")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range wants {
		if _, err := os.Stat(strings.TrimSuffix(want, ".want") + ".yaml"); err != nil {
			t.Error(err)
		}
	}
}

func TestAMissingFileIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "authserver.yaml")
	_, err := config.Load(file, nil, nil)
	wantFaults(t, err, file+": cannot be read: no such file or directory")
}

func TestMessagesDoNotRepeatAPassword(t *testing.T) {
	for _, url := range []string{"https://u:hunter2@auth.example.com", "u:hunter2@auth.example.com", "https://u:hunter2 @auth.example.com", "ftp://u:hunter2@h"} {
		_, err := config.Load("testdata/good.yaml", nil, []string{"server.public_url=" + url})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{
		"host=h user=u password=hunter2", "hunter2", "u:hunter2@h/d", "mysql://u:hunter2@h/d", "postgres://u:hunter2@h:port/d", "postgres://u:hunter2@/d",
		"postgres:u:hunter2@h/d", "Postgres://u:hunter2@h/d", "postgres://u:hunter2@h/d", "postgres://u@h/d?password=hunter2", "postgresql://u@h/d?sslpassword=hunter2",
		"postgres://u:hunter2 @h/d", "postgres//u hunter2:h",
	} {
		_, err := config.Load("testdata/good.yaml", nil, []string{"database.url=" + url})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// wantFaults compares the lines of a joined error, in any order.
func wantFaults(t *testing.T, err error, want ...string) {
	t.Helper()
	var got []string
	if err != nil {
		got = strings.Split(err.Error(), "\n")
	}
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("faults:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
