package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tested makes a configuration with a policy and a file of tests for it.
func tested(t *testing.T, tests string) (config, file string) {
	t.Helper()
	config, _ = initialised(t)
	dir := filepath.Dir(config)
	policy := `groups: {backend: [alice]}
rules:
  - {name: backend, subjects: ["group:backend"], repositories: ["backend/**"], actions: [pull, push]}
  - {name: freeze, effect: deny, subjects: [anyone], repositories: ["backend/prod"], actions: [push], networks: ["10.0.0.0/8"]}
  - {name: night, subjects: ["robot:ci"], repositories: ["backend/**"], actions: [pull], when: "now.getHours() < 6"}
  - {name: idle, subjects: ["user:nobody"], repositories: ["x"], actions: [pull]}
`
	file = filepath.Join(dir, "policy.test.yaml")
	for name, text := range map[string]string{filepath.Join(dir, "policy.yaml"): policy, file: tests} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config, file
}

const goodTests = `
- as: {user: alice, ip: 192.0.2.1}
  scope: "repository:backend/api:push,pull"
  grants: [push, pull]
- as: {user: bob, groups: [backend]}
  scope: "repository:backend/api:*"
  grants: [pull, push]
- name: nobody pushes to prod from inside
  as: {user: alice, ip: 10.0.0.1}
  scope: "repository:backend/prod:pull,push"
  grants: [pull]
- scope: "repository:backend/api:pull"
  grants: []
- as: {robot: ci}
  at: "2026-01-02T03:00:00Z"
  service: registry.local
  scope: "repository:backend/api:pull"
  grants: [pull]
- as: {robot: ci}
  at: "2026-01-02T13:00:00Z"
  scope: "repository:backend/api:pull"
  grants: []
`

func TestPolicyTestsPass(t *testing.T) {
	config, file := tested(t, goodTests)
	for _, args := range [][]string{nil, {file}} {
		if out := must(t, "", append([]string{"acl", "test", "--config", config}, args...)...); out != "6 tests, 0 failed\n" {
			t.Errorf("%v: %q", args, out)
		}
	}
	if out := must(t, "", "acl", "test", "--coverage", "--config", config); !strings.Contains(out, "no test exercises rule idle ("+filepath.Join(filepath.Dir(file), "policy.yaml")+":6)\n6 tests, 0 failed\n") || strings.Count(out, "\n") != 2 {
		t.Errorf("coverage: %q", out)
	}
	// A glob that takes the policies does not take their tests for policies.
	must(t, "", "acl", "test", "--config", config, "--set", "acl.files="+filepath.Join(filepath.Dir(file), "policy*.yaml"))
}

func TestAFailedPolicyTestIsExplained(t *testing.T) {
	config, file := tested(t, `
- as: {user: alice, ip: 10.0.0.1}
  scope: "repository:backend/prod:pull,push,delete"
  grants: [delete, pull, push]
- scope: "repository:backend/api:pull"
  grants: []
`)
	junit := filepath.Join(t.TempDir(), "junit.xml")
	out, stderr, status := call(t, "", "acl", "test", "--config", config, "--junit", junit)
	at := filepath.Join(filepath.Dir(file), "policy.yaml")
	want := "FAIL " + file + ":2: alice, repository:backend/prod:delete,pull,push\n" +
		"     expected  delete,pull,push\n" +
		"     granted   pull\n" +
		"     delete\tdenied no rule allows it\n" +
		"     \trule backend (" + at + ":3) would match but for the action delete\n" +
		"     pull\tgranted by backend (" + at + ":3)\n" +
		"     push\tdenied by freeze (" + at + ":4), over backend (" + at + ":3)\n" +
		"2 tests, 1 failed\n"
	if out != want || status != exitNo || stderr != "authserver: 1 of 2 policy tests failed\n" {
		t.Errorf("status %d: %s\ngot\n%s\nwant\n%s", status, stderr, out, want)
	}
	report, err := os.ReadFile(junit)
	if err != nil || !strings.Contains(string(report), `<testsuite name="policy" tests="2" failures="1">`) || strings.Count(string(report), "<failure ") != 1 {
		t.Errorf("%v\n%s", err, report)
	}
	out, _, status = call(t, "", "acl", "test", "--config", config, "-o", "json", "--coverage")
	var data struct {
		Failed      int
		Tests       []result
		Unexercised []string
	}
	if err := json.Unmarshal([]byte(out), &data); err != nil || status != exitNo || data.Failed != 1 || len(data.Tests) != 2 || len(data.Unexercised) != 2 {
		t.Errorf("status %d, %v: %s", status, err, out)
	}
}

func TestPolicyTestsThatCannotBeRun(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "the file is empty",
		"a: b":                                  "the file must be a list",
		"[]":                                    "there are no tests",
		"- {scope: x, y: 1}":                    "[0].y: unknown key; known here: name, as, service, at, scope, grants",
		`- {scope: "repository:a:pull"}`:        "[0].grants: missing; would be right: [pull], or [] for nothing",
		`- {scope: "repository:a", grants: []}`: `[0].scope: "repository:a" is not one resource and its actions`,
		`- {scope: "repository:a:pull repository:b:pull", grants: []}`:         "is not one resource and its actions",
		`- {scope: "repository:a:pull", grants: [Pull]}`:                       `[0].grants[0]: "Pull" is no action`,
		`- {as: {user: a, robot: b}, scope: "repository:a:pull", grants: []}`:  "[0].as: a user and a robot; name one of them",
		`- {as: {groups: [a]}, scope: "repository:a:pull", grants: []}`:        "[0].as: groups and claims are a user's; name the user",
		`- {as: {user: "a:b"}, scope: "repository:a:pull", grants: []}`:        "[0].as: \"a:b\": a user name cannot hold a colon",
		`- {as: {user: a, ip: local}, scope: "repository:a:pull", grants: []}`: `[0].as.ip: "local" is no address`,
		`- {as: {user: ""}, scope: "repository:a:pull", grants: []}`:           "[0].as: neither user nor robot; leave as out for anonymous, or give the ip alone",
		`- {at: noon, scope: "repository:a:pull", grants: []}`:                 `[0].at: "noon" is no time`,
		`- {service: other, scope: "repository:a:pull", grants: []}`:           `:1: service "other" is not one of services[].name: registry.local`,
	} {
		config, file := tested(t, text)
		out, stderr, status := call(t, "", "acl", "test", "--config", config)
		if status != exitNo || out != "" || !strings.Contains(stderr, file) || !strings.Contains(stderr, want) {
			t.Errorf("%q: status %d, %s%s", text, status, out, stderr)
		}
	}
	config, file := tested(t, goodTests)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := call(t, "", "acl", "test", "--config", config); status != exitNo || !strings.Contains(stderr, "there is no *.test.yaml beside") {
		t.Errorf("status %d: %s", status, stderr)
	}
}

func TestLintCommand(t *testing.T) {
	config, file := tested(t, goodTests)
	policy := filepath.Join(filepath.Dir(file), "policy.yaml")
	if out := must(t, "", "acl", "lint", "--config", config); out != "ok: 4 rules, no findings\n" {
		t.Errorf("a sound policy: %q", out)
	}
	text := "rules:\n  - {name: open, subjects: [anyone], repositories: [\"a/**\"], actions: [push]}\n  - {name: twice, subjects: [anyone], repositories: [\"a/b\"], actions: [push], silence: [public-write, push-without-pull]}\n"
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, stderr, status := call(t, "", "acl", "lint", "--config", config)
	want := policy + ":2: rule open: error: push for anonymous: everybody, logged in or not, may write (public-write)\n" +
		policy + ":2: rule open: warning: push: registries ask for pull and push together, so a push without pull never succeeds (push-without-pull)\n" +
		policy + ":3: rule twice: info: beside rule open (" + policy + ":2): another rule grants all that this one grants (redundant)\n"
	if out != want || status != exitNo || stderr != "authserver: 2 findings beyond info\n" {
		t.Errorf("status %d: %s\ngot\n%s\nwant\n%s", status, stderr, out, want)
	}
	var findings []map[string]any
	out, _, status = call(t, "", "acl", "lint", "--config", config, "-o", "json")
	if err := json.Unmarshal([]byte(out), &findings); err != nil || len(findings) != 3 || status != exitNo {
		t.Errorf("status %d, %v: %s", status, err, out)
	}
	// What can only be tidied up is no failure.
	text = strings.ReplaceAll(text, "name: open,", "name: open, silence: [public-write, push-without-pull],")
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "", "acl", "lint", "--config", config)
}

func TestDiffCommand(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"old.yaml": "rules:\n  - {name: r, subjects: [\"user:bob\"], repositories: [\"a/**\"], actions: [pull]}\n",
		"new.yaml": "rules:\n  - {name: r, subjects: [\"user:bob\"], repositories: [\"a/**\"], actions: [push], networks: [10.0.0.0/8]}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old, now := filepath.Join(dir, "old.yaml"), filepath.Join(dir, "new.yaml")
	t.Chdir(dir)
	if out := must(t, "", "acl", "diff", old, now, "--ip", "10.1.1.1", "--repository", "a/b/c"); out != "+ bob  repository:a/b/c  push\n- bob  repository:a/b/c  pull\n+ bob  repository:a/x    push\n- bob  repository:a/x    pull\n2 changes in 8 decisions\n" {
		t.Errorf("got\n%s", out)
	}
	if out := must(t, "", "acl", "diff", old, old); out != "0 changes in 4 decisions\n" {
		t.Errorf("got\n%s", out)
	}
	var changes []map[string]any
	if err := json.Unmarshal([]byte(must(t, "", "acl", "diff", old, now, "-o", "json")), &changes); err != nil || len(changes) != 1 || changes[0]["gains"] != nil {
		t.Errorf("%v, %v", changes, err)
	}
	for _, args := range [][]string{{old}, {old, now, "--ip", "x"}, {old, now, "--at", "x"}, {old, now, "--repository", "a//b"}} {
		if _, stderr, status := call(t, "", append([]string{"acl", "diff"}, args...)...); status != exitMisuse {
			t.Errorf("%v: status %d: %s", args, status, stderr)
		}
	}
	if _, stderr, status := call(t, "", "acl", "diff", old, filepath.Join(dir, "none.yaml")); status != exitNo || !strings.Contains(stderr, "none.yaml") {
		t.Errorf("status %d: %s", status, stderr)
	}
}

// A glob over folders finds the tests in each of them; none is passed over in silence.
func TestPolicyTestsLieBesideEveryPolicyOfAGlob(t *testing.T) {
	config, _ := initialised(t)
	dir := filepath.Dir(config)
	for name, text := range map[string]string{
		"pol/a/p.yaml":      "rules:\n  - {name: a, subjects: [anyone], repositories: [a], actions: [pull]}\n",
		"pol/a/p.test.yaml": "- {scope: \"repository:a:pull\", grants: []}\n",
		"other/q.yaml":      "rules:\n  - {name: q, subjects: [anyone], repositories: [q], actions: [pull]}\n",
		"other/q.test.yaml": "- {as: {ip: 10.0.0.1}, scope: \"repository:q:pull\", grants: [pull]}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, _, status := call(t, "", "acl", "test", "--config", config, "--set", "acl.files=pol/*/p.yaml,other/q.yaml")
	if status != exitNo || !strings.HasSuffix(out, "2 tests, 1 failed\n") {
		t.Errorf("status %d: %s", status, out)
	}
}
