package acl

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"authserver/internal/document"
	"authserver/internal/network"
	"authserver/internal/scope"
	"authserver/internal/users"
)

// How the rules that match are combined. All files of a policy name the same way.
const (
	DenyOverrides   = "deny-overrides"   // a deny rule overrides every allow rule, whatever the order
	FirstApplicable = "first-applicable" // the first rule that covers the action decides
)

// file is a policy file as it is written.
type file struct {
	Combining string              `yaml:"combining"`
	Groups    map[string][]string `yaml:"groups"`
	Rules     []ruleText          `yaml:"rules"`
}

type ruleText struct {
	Name         string   `yaml:"name"`
	Effect       string   `yaml:"effect"`
	Subjects     []string `yaml:"subjects"`
	Repositories []string `yaml:"repositories"`
	Resources    []string `yaml:"resources"`
	Actions      []string `yaml:"actions"`
	Services     []string `yaml:"services"`
	Networks     []string `yaml:"networks"`
	When         string   `yaml:"when"`
	Silence      []string `yaml:"silence"`
}

// Load reads policy files and file globs and merges them: in the order given, the matches of a glob by name. Every
// fault of every file is returned, joined, each as "file:line: key: what is wrong; what would be right".
func Load(patterns []string) (*Policy, error) {
	l := newLoader()
	var faults []error
	read := map[string]bool{}
	for _, pattern := range patterns {
		files, err := Files(pattern)
		if err != nil {
			faults = append(faults, fmt.Errorf("policy files %s: %w", pattern, err))
			continue
		}
		for _, name := range files {
			if read[name] {
				continue // named, and matched by a glob
			}
			read[name] = true
			d, err := document.Read(name)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			l.document(d)
		}
	}
	p, err := l.compile()
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	return p, nil
}

// Files are the files that a pattern names: itself, or the matches of a glob, sorted. A glob matches no hidden files,
// which editors leave beside those they work on, and no policy tests.
func Files(pattern string) ([]string, error) {
	if _, err := os.Lstat(pattern); err == nil || !strings.ContainsAny(pattern, "*?[") {
		return []string{pattern}, nil
	}
	matches, err := filepath.Glob(pattern)
	matches = slices.DeleteFunc(matches, func(file string) bool {
		return strings.HasPrefix(filepath.Base(file), ".") || strings.HasSuffix(file, TestSuffix)
	})
	if err == nil && len(matches) == 0 {
		err = errors.New("no file matches")
	}
	return matches, err
}

// Parse compiles one policy text; name stands in faults.
func Parse(name string, data []byte) (*Policy, error) {
	d, err := document.Parse(name, data)
	if err != nil {
		return nil, err
	}
	l := newLoader()
	l.document(d)
	return l.compile()
}

// loader gathers rules and faults over all files, one after another: a document takes up more than its rules.
type loader struct {
	policy  *Policy
	members membership
	actions map[string][]string // by what they are: thousands of rules name the same few
	faults  []error
}

func newLoader() *loader {
	return &loader{
		policy:  &Policy{byName: map[string]int{}},
		members: membership{users: map[string][]string{}, within: map[string][]string{}, where: map[string]string{}},
		actions: map[string][]string{},
	}
}

// compile makes a policy of all that was read.
func (l *loader) compile() (*Policy, error) {
	p := l.policy
	var circles error
	p.memberOf, p.partOf, circles = l.members.close()
	if err := errors.Join(append(l.faults, circles)...); err != nil {
		return nil, err
	}
	p.index = newIndex(p.rules)
	return p, nil
}

func (l *loader) document(d *document.Document) {
	fault := func(path, format string, args ...any) {
		l.faults = append(l.faults, d.Fault(path, format, args...))
	}
	f := file{Combining: DenyOverrides}
	reading := d.Decode(&f)
	earlier := l.faults
	l.faults = nil
	defer func() { l.faults = append(earlier, document.Merge(reading, l.faults...)) }()
	switch {
	case f.Combining != DenyOverrides && f.Combining != FirstApplicable:
		fault("combining", "%q is not known; would be right: %s or %s", f.Combining, DenyOverrides, FirstApplicable)
	case l.policy.combining == "":
		l.policy.combining = f.Combining
	case l.policy.combining != f.Combining:
		fault("combining", "%s, but the files before say %s; all files of a policy say the same (%s when they say nothing)", f.Combining, l.policy.combining, DenyOverrides)
	}
	l.members.read(d, f.Groups, fault)
	if len(f.Rules) == 0 {
		fault("rules", "there are none; without a rule nobody may do anything")
	}
	l.policy.rules = slices.Grow(l.policy.rules, len(f.Rules))
	for i, text := range f.Rules {
		l.rule(d, fmt.Sprintf("rules[%d]", i), text)
	}
}

// rule compiles one rule. What is missing or empty is a fault: absence never widens.
func (l *loader) rule(d *document.Document, path string, text ruleText) {
	fault := func(key, format string, args ...any) {
		l.faults = append(l.faults, d.Fault(document.Join(path, key), format, args...))
	}
	text.Name = norm.NFC.String(text.Name)
	r := rule{name: text.Name, where: d.Where(path), deny: text.Effect == "deny"}
	if text.Name == "" {
		fault("name", "missing; every rule has a name, it is what logs and explain say")
	} else if _, err := users.ParseName(text.Name); err != nil {
		fault("name", "%q cannot be used: it is 1 to 255 bytes, without colons, control characters or blanks at the ends", text.Name)
	} else if first, twice := l.policy.byName[text.Name]; twice {
		fault("name", "%q is the name of the rule at %s already", text.Name, l.policy.rules[first].where)
	} else {
		l.policy.byName[text.Name] = len(l.policy.rules)
	}
	if text.Effect != "" && text.Effect != "allow" && text.Effect != "deny" {
		fault("effect", "%q is not known; would be right: allow or deny", text.Effect)
	}

	if len(text.Subjects) == 0 {
		fault("subjects", "missing; would be right: %s", subjectForms)
	}
	r.subjects = make([]matcher, 0, len(text.Subjects))
	for i, s := range text.Subjects {
		m, err := parseSubject(s)
		if err != nil {
			fault(fmt.Sprintf("subjects[%d]", i), "%v", err)
			continue
		}
		r.subjects = append(r.subjects, m)
	}

	if len(text.Repositories)+len(text.Resources) == 0 {
		fault("repositories", "missing, and so is resources; would be right: repositories: [\"team/**\"]")
	}
	r.resources = make([]resource, 0, len(text.Repositories)+len(text.Resources))
	addResource := func(list string, i int, typ, name string) {
		p, err := parsePattern(name)
		if err != nil {
			fault(fmt.Sprintf("%s[%d]", list, i), "%v", err)
			return
		}
		r.resources = append(r.resources, resource{typ, p})
	}
	for i, name := range text.Repositories {
		addResource("repositories", i, scope.Repository, name)
	}
	for i, s := range text.Resources {
		typ, name, ok := strings.Cut(s, ":")
		if !ok || !scope.ValidType(typ) {
			fault(fmt.Sprintf("resources[%d]", i), "%q is no type:name; would be right: registry:catalog", s)
			continue
		}
		addResource("resources", i, typ, name)
	}

	if len(text.Actions) == 0 {
		fault("actions", "missing; would be right: [pull], [pull, push] or [\"*\"]")
	}
	for i, action := range text.Actions {
		if !scope.ValidAction(action) {
			fault(fmt.Sprintf("actions[%d]", i), "%q is no action; would be right: pull, push, delete or \"*\"", action)
		}
	}
	r.actions = l.shared(text.Actions)

	if text.Services != nil && len(text.Services) == 0 {
		fault("services", "empty; name at least one, or remove the key for every service")
	}
	r.services = text.Services
	if text.Networks != nil && len(text.Networks) == 0 {
		fault("networks", "empty; name at least one, or remove the key for every network")
	}
	for i, s := range text.Networks {
		n, err := network.Parse(s)
		if err != nil {
			fault(fmt.Sprintf("networks[%d]", i), "%v", err)
			continue
		}
		r.networks = append(r.networks, n)
	}
	if text.When != "" {
		when, err := newCondition(text.When)
		if err != nil {
			fault("when", "%v", err)
		}
		r.when = when
	} else if d.Has(document.Join(path, "when")) {
		fault("when", "empty; give a condition, or remove the key for always")
	}
	for i, name := range text.Silence {
		if _, known := Checks[name]; !known {
			fault(fmt.Sprintf("silence[%d]", i), "%q is no finding of lint; would be right: %s", name, strings.Join(slices.Sorted(maps.Keys(Checks)), ", "))
		}
	}
	r.silence = text.Silence
	l.policy.rules = append(l.policy.rules, r)
}

// shared returns equal actions that an earlier rule named.
func (l *loader) shared(actions []string) []string {
	key := strings.Join(actions, ",")
	if _, ok := l.actions[key]; !ok {
		l.actions[key] = actions
	}
	return l.actions[key]
}
