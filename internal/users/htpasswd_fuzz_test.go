package users

import (
	"strings"
	"testing"
)

// What is read has been checked: names are canonical and each there once, hashes are bcrypt's and of a bearable cost,
// and they are still read so from a file that holds nothing else.
func FuzzParseHTPasswd(f *testing.F) {
	const hash = "$2a$04$uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"
	for _, seed := range []string{
		"alice:" + hash + "\nbob:$2y" + hash[3:] + "\n", "# comment\n\n alice:" + hash + " \r\n", "alice:" + hash + "\nalice:" + hash,
		"alice:$apr1$x$y", "alice:{SHA}x", ":", "a\x00b:" + hash, "rene\u0301:" + hash, "alice", "alice:$2a$31$" + hash[7:],
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseHTPasswd("f", data)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\nf:") {
				if number := strings.TrimPrefix(line, "f:"); number == "" || number[0] < '1' || number[0] > '9' {
					t.Fatalf("a fault without its line: %q", line)
				}
			}
		}
		seen := map[string]bool{}
		var again strings.Builder
		for _, e := range entries {
			if name, err := ParseName(e.name); err != nil || name != e.name || seen[name] {
				t.Fatalf("name %q: canonical %q, %v, twice %v", e.name, name, err, seen[name])
			}
			seen[e.name] = true
			if cost, err := hashCost(string(e.hash)); err != nil || cost != e.cost || cost < MinCost || cost > MaxCost {
				t.Fatalf("hash %q: cost %d, %v", e.hash, cost, err)
			}
			again.WriteString(e.name + ":" + string(e.hash) + "\n")
		}
		second, err := parseHTPasswd("f", []byte(again.String()))
		if err != nil || len(second) != len(entries) {
			t.Fatalf("read again: %d of %d users, %v", len(second), len(entries), err)
		}
	})
}
