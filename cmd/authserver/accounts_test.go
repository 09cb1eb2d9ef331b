package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheDatabaseIsFoundFromTheFolderOfTheConfiguration(t *testing.T) {
	file, _ := initialised(t)
	t.Chdir(filepath.Dir(file))
	for _, data := range []string{"data", "./data", "not/yet/there"} {
		must(t, "", "user", "add", "ci", "--robot", "--set", "issuer.data_dir="+data)
		if out := must(t, "", "user", "list", "--set", "issuer.data_dir="+data, "--backend", "database"); out != "ci  robot\n" {
			t.Errorf("%s: %q", data, out)
		}
		must(t, "", "user", "remove", "ci", "--set", "issuer.data_dir="+data)
		if info, err := os.Stat(data); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", data, info, err)
		}
	}
}
