package acl_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"authserver/internal/acl"
)

func TestLint(t *testing.T) {
	r := func(fields string) string { return "  - {" + fields + "}\n" }
	team := r(`name: team, subjects: ["group:team"], repositories: ["team/**"], actions: [pull, push]`)
	tests := []struct {
		name, rules string
		want        []string // "finding severity rule"
	}{
		{"a sound policy", team + r(`name: own, subjects: [authenticated], repositories: ["{user}/**"], actions: [pull, push, delete]`) +
			r(`name: public, subjects: [anyone], repositories: ["public/**"], actions: [pull]`) +
			r(`name: freeze, effect: deny, subjects: [anyone], repositories: ["team/prod/**"], actions: [push]`) +
			r(`name: admin, subjects: ["user:admin"], repositories: ["**"], resources: ["registry:catalog"], actions: ["*"]`), nil},
		{"everybody writes", r(`name: w, subjects: [anyone], repositories: ["a/**"], actions: [pull, push]`), []string{"public-write error w"}},
		{"anonymous deletes", r(`name: w, subjects: [anonymous], repositories: ["a/**"], actions: ["*", delete]`), []string{"public-write error w", "public-write error w"}},
		{"a placeholder stands for nothing where nobody has logged in", r(`name: w, subjects: [anyone], repositories: ["{group}/**", "x-{group:p*}/{user}"], actions: [pull, push]`), nil},
		{"everybody writes, beside a placeholder", r(`name: w, subjects: [anyone], repositories: ["{group}/**", "a/**"], actions: [pull, push]`), []string{"public-write error w"}},
		{"denying writes to everybody is no hole", team + r(`name: w, effect: deny, subjects: [anyone], repositories: ["team/a"], actions: [push]`), nil},
		{"push without pull", r(`name: p, subjects: ["user:a"], repositories: ["a/**"], actions: [push]`), []string{"push-without-pull warning p"}},
		{"push with the pull of another rule", r(`name: p, subjects: ["user:a"], repositories: ["a/**"], actions: [push]`) +
			r(`name: q, subjects: [authenticated], repositories: ["*/**"], actions: [pull]`), nil},
		{"push with a pull that is narrower", r(`name: p, subjects: ["user:a"], repositories: ["a/**"], actions: [push]`) +
			r(`name: q, subjects: [authenticated], repositories: ["a/*"], actions: [pull]`), []string{"push-without-pull warning p"}},
		{"everything for everybody", r(`name: e, subjects: [authenticated], repositories: ["**"], actions: [pull]`), []string{"everything warning e"}},
		{"everything from the office", r(`name: e, subjects: [authenticated], repositories: ["**"], actions: [pull], networks: [10.0.0.0/8]`), nil},
		{"everything for user:*", r(`name: e, subjects: ["user:*"], repositories: ["**"], actions: [pull]`), []string{"everything warning e"}},
		{"the catalog for everybody", r(`name: c, subjects: [authenticated], resources: ["registry:catalog"], actions: ["*"]`), []string{"public-catalog warning c"}},
		{"the catalog with pull", r(`name: c, subjects: ["user:a"], resources: ["registry:catalog"], actions: [pull]`), []string{"never-asked warning c"}},
		{"an unknown action", r(`name: u, subjects: ["user:a"], repositories: ["a"], actions: [pull, pusl]`), []string{"unknown-action warning u"}},
		{"an action of another type", r(`name: u, subjects: ["user:a"], resources: ["authserver:users"], actions: [read]`), nil},
		{"an unknown type", r(`name: u, subjects: ["user:a"], resources: ["repo:a"], actions: [pull]`), []string{"unknown-type warning u"}},
		{"a regular expression", r(`name: x, subjects: ["user:(alice|bob)", "group:/dev/"], repositories: ["a"], actions: [pull]`),
			[]string{"regular-expression warning x", "regular-expression warning x"}},
		{"denied by another rule", team + r(`name: d, effect: deny, subjects: [anyone], repositories: ["**"], actions: [pull, push]`), []string{"unreachable warning team"}},
		{"denied in part", team + r(`name: d, effect: deny, subjects: [anyone], repositories: ["**"], actions: [push]`), nil},
		{"denied from some networks", team + r(`name: d, effect: deny, subjects: [anyone], repositories: ["**"], actions: [pull, push], networks: [10.0.0.0/8]`), nil},
		{"denied at times", team + r(`name: d, effect: deny, subjects: [anyone], repositories: ["**"], actions: [pull, push], when: "now.getHours() < 6"`), nil},
		{"granted twice", team + r(`name: t2, subjects: ["group:team"], repositories: ["team/a/*"], actions: [pull]`), []string{"redundant info t2"}},
		{"the same rule twice", team + strings.Replace(team, "name: team", "name: again", 1), []string{"redundant info again"}},
		{"granted by what comes later", r(`name: t2, subjects: ["user:a"], repositories: ["team/a"], actions: [pull]`) +
			r(`name: all, subjects: ["user:*"], repositories: ["team/**"], actions: ["*"]`), []string{"redundant info t2"}},
		{"a deny rule without anything to deny", team + r(`name: d, effect: deny, subjects: [anyone], repositories: ["other/**"], actions: [push]`), []string{"deny-without-allow info d"}},
		{"a deny rule on an action that nobody has", team + r(`name: d, effect: deny, subjects: [anyone], repositories: ["team/**"], actions: [delete]`), []string{"deny-without-allow info d"}},
		{"silenced", r(`name: w, subjects: [anyone], repositories: ["a/**"], actions: [pull, push], silence: [public-write]`), nil},
		{"another finding is silenced", r(`name: w, subjects: [anyone], repositories: ["a/**"], actions: [pull, push], silence: [everything]`), []string{"public-write error w"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, f := range policy(t, "rules:\n"+test.rules).Lint() {
				got = append(got, fmt.Sprintf("%s %s %s", f.Name, f.Severity, f.Rule))
				if !strings.HasPrefix(f.Where, "policy.yaml:") || !strings.HasSuffix(f.Text, acl.Checks[f.Name]) {
					t.Errorf("%+v", f)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestLintOfFirstApplicable(t *testing.T) {
	p := policy(t, `
combining: first-applicable
rules:
  - {name: deny, effect: deny, subjects: [authenticated], repositories: ["a/**"], actions: ["*"]}
  - {name: late, subjects: ["user:alice"], repositories: ["a/b"], actions: [pull]}
  - {name: wider, subjects: ["user:alice"], repositories: ["**"], actions: [pull]}
`)
	findings := p.Lint()
	if len(findings) != 1 || findings[0].Name != "unreachable" || findings[0].Rule != "late" {
		t.Errorf("got %+v", findings)
	}
}

// Where lint calls a rule redundant or unreachable, leaving it out must change no decision.
func TestWhatLintCallsUselessIsUseless(t *testing.T) {
	acl.CheckUseless(t)
}

func TestSilenceNamesAFinding(t *testing.T) {
	_, err := acl.Parse("policy.yaml", []byte(rule("silence: [nonsense]")))
	if err == nil || !strings.HasPrefix(err.Error(), `policy.yaml:5: rules[0].silence[0]: "nonsense" is no finding of lint; would be right: deny-without-allow, everything, never-asked`) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkLint shows how the cost of lint grows with the number of rules: as it does.
func BenchmarkLint(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			p := policy(b, teams(n)+`  - {name: frozen, effect: deny, subjects: [anyone], repositories: ["*/prod/**"], actions: [push]}`)
			b.ReportAllocs()
			for b.Loop() {
				if findings := p.Lint(); len(findings) > 0 {
					b.Fatal(findings[0])
				}
			}
		})
	}
}
