package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"authserver/internal/acl"
	"authserver/internal/config"
	"authserver/internal/durable"
	"authserver/internal/scope"
)

// suite is a call of acl test.
type suite struct {
	junit           string
	coverage, watch bool
}

func (h *hand) aclTestCommand() *cobra.Command {
	var s suite
	cmd := h.printsData(&cobra.Command{
		Use: "test [FILE]...", Short: "Run policy tests",
		Long: `Run the policy tests in FILE, or in all *.test.yaml beside the policies. Each test says who asks for what, and which
actions are granted:

  - as: {user: alice, groups: [backend], ip: 10.0.0.1}    # or robot: NAME; absent = anonymous
    scope: "repository:backend/api:pull,push"
    grants: [pull, push]                                  # [] = nothing
    service: registry.local                               # optional; so are name and at (a time)

Exit status 1 when a test fails.`,
		RunE: func(cmd *cobra.Command, files []string) error {
			if !s.watch {
				return h.aclTest(s, files)
			}
			return h.aclTestWatch(cmd, s, files)
		},
	})
	cmd.Flags().StringVar(&s.junit, "junit", "", "write the results to this file too, as JUnit XML")
	cmd.Flags().BoolVar(&s.coverage, "coverage", false, "list the rules that no test exercises")
	cmd.Flags().BoolVar(&s.watch, "watch", false, "run again when a policy or a test changes, until interrupted")
	return cmd
}

// result is what became of one test.
type result struct {
	Where    string          `json:"where"`
	Title    string          `json:"title"`
	Passed   bool            `json:"passed"`
	Expected []string        `json:"expected"`
	Granted  []string        `json:"granted"`
	Verdicts []scope.Verdict `json:"verdicts"`
	nearest  map[string][]string
}

func (h *hand) aclTest(s suite, files []string) error {
	c, err := h.loadConfig()
	if err != nil {
		return err
	}
	policy, err := loadPolicy(c)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		if files, err = testFiles(c); err != nil {
			return err
		}
	}
	results, err := runTests(c, policy, files)
	if err != nil {
		return err
	}
	var verdicts []scope.Verdict
	failed := 0
	for _, r := range results {
		verdicts = append(verdicts, r.Verdicts...)
		if !r.Passed {
			failed++
		}
	}
	if s.junit != "" {
		if err := writeJUnit(s.junit, results); err != nil {
			return err
		}
	}
	unexercised := policy.Unexercised(verdicts)
	if h.output == "json" {
		out := map[string]any{"tests": results, "failed": failed}
		if s.coverage {
			out["unexercised"] = append([]string{}, unexercised...)
		}
		if err := h.printJSON(out); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			if !r.Passed {
				fmt.Fprint(h.stdout, r.explanation(policy))
			}
		}
		if s.coverage {
			for _, name := range unexercised {
				fmt.Fprintf(h.stdout, "no test exercises rule %s (%s)\n", name, policy.Where(name))
			}
		}
		fmt.Fprintf(h.stdout, "%s, %d failed\n", count(len(results), "test"), failed)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d policy tests failed", failed, len(results))
	}
	return nil
}

// testFiles are the tests beside the policies.
func testFiles(c *config.Config) ([]string, error) {
	var files []string
	for _, pattern := range c.ACL.Files {
		policies, err := acl.Files(pattern)
		if err != nil {
			return nil, fmt.Errorf("policy files %s: %w", pattern, err)
		}
		for _, policy := range policies {
			entries, err := os.ReadDir(filepath.Dir(policy))
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				file := filepath.Join(filepath.Dir(policy), e.Name())
				if strings.HasSuffix(file, acl.TestSuffix) && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(files, file) {
					files = append(files, file)
				}
			}
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there is no *%s beside %s", acl.TestSuffix, strings.Join(c.ACL.Files, ", "))
	}
	return files, nil
}

func runTests(c *config.Config, policy *acl.Policy, files []string) ([]result, error) {
	var results []result
	var faults []error
	now := time.Now()
	for _, file := range files {
		cases, err := acl.LoadCases(file, now)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for _, test := range cases {
			service, err := c.Service(test.Service)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", test.Where, err))
				continue
			}
			test.Service = service.Name
			granted, verdicts := test.Run(policy)
			r := result{Where: test.Where, Title: test.Title(), Expected: test.Grants, Granted: append([]string{}, granted...), Verdicts: verdicts, nearest: map[string][]string{}}
			r.Passed = slices.Equal(r.Expected, r.Granted)
			for _, v := range verdicts {
				if !v.Granted && len(v.DeniedBy) == 0 {
					r.nearest[v.Action] = policy.Nearest(test.Who, test.From, test.Service, test.At, v.Type, v.Name, v.Action)
				}
			}
			results = append(results, r)
		}
	}
	return results, errors.Join(faults...)
}

// explanation is the difference, and the reason for each action.
func (r result) explanation(policy *acl.Policy) string {
	list := func(actions []string) string {
		if len(actions) == 0 {
			return "nothing"
		}
		return strings.Join(actions, ",")
	}
	text := fmt.Sprintf("FAIL %s: %s\n     expected  %s\n     granted   %s\n", r.Where, r.Title, list(r.Expected), list(r.Granted))
	for _, v := range r.Verdicts {
		text += fmt.Sprintf("     %s\t%s\n", v.Action, strings.ReplaceAll(reason(policy, v), "\t", " "))
		for _, near := range r.nearest[v.Action] {
			text += "     \t" + near + "\n"
		}
	}
	return text
}

// aclTestWatch runs the tests at every change, until it is interrupted.
func (h *hand) aclTestWatch(cmd *cobra.Command, s suite, named []string) error {
	last := ""
	for {
		file, err := h.configPath()
		if err != nil {
			return err
		}
		watched := append([]string{file}, named...)
		if c, err := h.loadConfig(); err == nil {
			watched = append(watched, c.ACL.Files...)
			if len(named) == 0 {
				tests, _ := testFiles(c) // aclTest says what is wrong with them
				watched = append(watched, tests...)
			}
		}
		if stamp := stampOf(watched); stamp != last {
			last = stamp
			if err := h.aclTest(s, named); err != nil {
				fmt.Fprintf(h.stderr, "authserver: %v\n", err)
			}
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

// writeJUnit writes results in the form that CI systems read.
func writeJUnit(file string, results []result) error {
	type failure struct {
		Message string `xml:"message,attr"`
	}
	type testCase struct {
		Name    string   `xml:"name,attr"`
		Class   string   `xml:"classname,attr"`
		Failure *failure `xml:"failure,omitempty"`
	}
	report := struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Cases    []testCase `xml:"testcase"`
	}{Name: "policy", Tests: len(results)}
	for _, r := range results {
		c := testCase{Name: r.Title, Class: r.Where}
		if !r.Passed {
			report.Failures++
			c.Failure = &failure{fmt.Sprintf("expected %v, granted %v", r.Expected, r.Granted)}
		}
		report.Cases = append(report.Cases, c)
	}
	text, err := xml.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(file, append([]byte(xml.Header), append(text, '\n')...), 0o644)
}
