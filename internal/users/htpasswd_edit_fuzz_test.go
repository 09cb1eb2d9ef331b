package users

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Whatever stands in a users file: an edit is about one user, and about nothing else that is in it. Who was removed is not in
// it, who was added is, with the password that was given.
func FuzzHTPasswdEdit(f *testing.F) {
	const hash = "$2a$04$uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"
	for _, seed := range []string{
		"", "alice:" + hash, "alice:" + hash + "\r\nbob:" + hash + "\r\n", "# alice:x\n\n  alice:" + hash + " \nbob:damaged\n", "jose\u0301:" + hash + "\n", "alice\n", "alice:" + hash + "\nalice:" + hash + "\n", "\xef\xbb\xbfalice:" + hash + "\n", "alice:\ralice:" + hash, "\u2028alice:" + hash,
	} {
		for how := range uint8(3) {
			f.Add([]byte(seed), "alice", "secret", how)
			f.Add([]byte(seed), "jos\u00e9", "", how)
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte, name, password string, how uint8) {
		file := HTPasswdFile{Path: filepath.Join(dir, "users"), Cost: MinCost}
		if err := os.WriteFile(file.Path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		before, _ := parseHTPasswd("f", data)
		canonical, nameErr := ParseHTPasswdName(name)
		was := slices.IndexFunc(before, func(e htpasswdEntry) bool { return e.name == canonical })
		var err error
		switch how %= 3; how {
		case 0:
			err = file.Add(name, password)
		case 1:
			err = file.SetPassword(name, password)
		default:
			err = file.Remove(name)
		}
		after, readErr := os.ReadFile(file.Path)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if err != nil {
			if !bytes.Equal(after, data) {
				t.Fatalf("%v, and the file is another", err)
			}
			if how == 2 && nameErr == nil && was >= 0 {
				t.Fatalf("%q is not removed: %v", name, err)
			}
			return
		}
		entries, faults := parseHTPasswd("f", after)
		is := slices.IndexFunc(entries, func(e htpasswdEntry) bool { return e.name == canonical })
		twice := faults != nil && strings.Contains(faults.Error(), "already")
		switch {
		case nameErr != nil:
			t.Fatalf("%q: an edit for no name", name)
		case how == 2 && is >= 0:
			t.Fatalf("%q is removed, and is there: %q", name, after)
		case how != 2 && (is < 0 && !twice || is >= 0 && !NewGuard(GuardEvents{}).compare(entries[is].hash, MinCost, password) && !twice):
			t.Fatalf("%q is set, and is not there: %q", name, after)
		}
		// The others are as they were.
		others := func(list []htpasswdEntry) []string {
			var lines []string
			for _, e := range list {
				if e.name != canonical {
					lines = append(lines, e.name+":"+string(e.hash))
				}
			}
			return lines
		}
		if got, want := others(entries), others(before); !slices.Equal(got, want) {
			t.Fatalf("the others were %q, are %q", want, got)
		}
	})
}
