package main

import (
	"strings"
	"testing"
)

// What could not be done does not keep the rest from being done, and both are said.
func TestWhatIsHalfDoneIsSaid(t *testing.T) {
	file, _ := initialised(t)
	config := []string{"--config", file, "--set", "passwords.bcrypt_cost=4"}
	do := func(args ...string) (string, int) {
		_, stderr, status := call(t, "", append(args, config...)...)
		return stderr, status
	}
	for _, name := range []string{"alice", "bob"} {
		must(t, "secret\n", append([]string{"user", "add", name, "--password-stdin"}, config...)...)
	}
	says := func(words []string, args ...string) {
		t.Helper()
		stderr, status := do(args...)
		if status != exitNo {
			t.Errorf("%v: status %d", args, status)
		}
		for _, word := range words {
			if !strings.Contains(stderr, word) {
				t.Errorf("%v: no %q in\n%s", args, word, stderr)
			}
		}
	}
	says([]string{`"nobody"`, "done all the same: group deployers, alice, bob"}, "group", "add", "deployers", "alice", "nobody", "bob")
	if members := must(t, "", append([]string{"group", "list", "deployers"}, config...)...); members != "alice\nbob\n" {
		t.Errorf("members %q", members)
	}
	says([]string{`"nobody"`, "done all the same: alice"}, "group", "remove", "deployers", "nobody", "alice")
	says([]string{`"carol"`}, "group", "add", "deployers", "carol")
	id := strings.Split(must(t, "", append([]string{"token", "create", "--user", "bob", "--name", "laptop", "-o", "json"}, config...)...), `"id": "`)[1][:10]
	says([]string{`"0000000000"`, "done all the same: " + id}, "token", "revoke", "0000000000", id)
	if stderr, _ := do("group", "add", "others", "carol"); !strings.Contains(stderr, "done all the same: group others") {
		t.Error(stderr)
	}
}
