package dockerauth

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// test is what one condition of an entry becomes.
type test struct {
	always bool     // it leaves nothing out, or nobody but the anonymous user
	never  string   // why nothing can match it
	lost   string   // why it cannot be said
	native []string // patterns or subjects of our policy, one of which must match; nil = only cel says it
	cel    string   // the same as a condition
}

// translator turns the patterns of one entry into tests.
type translator struct {
	c      *converter
	m      match
	number int // of the entry
	// labels are the values that users have, by label: what a condition must be written out for.
	labels   map[string][]string
	captured map[string]bool // variables like account:1 that docker_auth replaces
	misspelt map[string]bool // the same, in a form that is not read here
}

// findCaptures finds the variables like ${account:1} as docker_auth does: it looks for them in these four fields only, and from
// the first "${" to the next colon and number, so that in "${account}/${account:1}" it finds one of a field that does not exist.
func (t *translator) findCaptures() {
	t.captured, t.misspelt = map[string]bool{}, map[string]bool{}
	for _, p := range []*pattern{t.m.account, t.m.typ, t.m.name, t.m.service} {
		if p == nil {
			continue
		}
		for _, found := range captureVariable.FindAllStringSubmatch(p.String(), -1) {
			name := strings.TrimSuffix(strings.TrimPrefix(found[0], "${"), "}")
			source := t.field(strings.ToLower(found[1][:1]) + found[1][1:])
			if source == nil || !source.regex {
				continue
			}
			n, _ := strconv.Atoi(found[2])
			compiled, err := regexp.Compile(source.text)
			switch {
			case err != nil || n < 1 || n > compiled.NumSubexp():
			case capturing.MatchString(name):
				t.captured[name] = true
			default:
				t.misspelt[name] = true
			}
		}
	}
}

var captureVariable = regexp.MustCompile(`\$\{(.+?):(\d+)\}`)

// replaces tells whether docker_auth puts something in the place of ${name}.
func (t *translator) replaces(name string) bool {
	return t.replacesInLabels(name) || strings.HasPrefix(name, "labels:") && len(name) > len("labels:")
}

// replacesInLabels tells the same for what labels must be, where no labels are replaced.
func (t *translator) replacesInLabels(name string) bool {
	return variables[name] != "" || t.captured[name]
}

func (t *translator) warn(line int, key, format string, args ...any) {
	t.c.note(Warning, line, fmt.Sprintf("acl[%d].match.%s", t.number, key), format, args...)
}

// parsed is a pattern read either way.
type parsed struct {
	sequences [][]item // nil = only a regular expression says it
	items     []item   // of a glob; of a regular expression texts and variables
	regex     string   // of a regular expression
}

// parse reads a pattern and takes care of what is dangerous in it.
func (t *translator) parse(p *pattern, key string) (parsed, test) {
	replaces := t.replaces
	if strings.HasPrefix(key, "labels.") {
		replaces = t.replacesInLabels
	}
	for name := range t.misspelt {
		if strings.Contains(p.text, "${"+name+"}") {
			return parsed{}, test{lost: fmt.Sprintf("${%s} is not read in this form; write it as ${account:1}", name)}
		}
	}
	for _, i := range split(p.text, capturing.MatchString) {
		if i.kind == variable && !t.captured[i.text] {
			t.warn(p.line, key, "docker_auth replaces nothing for ${%s}: it must stand in account, type, name or service, the first there that begins with \"${\", and mean a group of a regular expression", i.text)
		}
	}
	parts := split(p.text, replaces)
	if !p.regex {
		items, ok := globItems(parts)
		if !ok {
			text := ""
			for _, part := range parts {
				if part.kind == variable {
					part.text = "x"
				}
				text += part.text
			}
			if _, ok := globItems([]item{{literal, text}}); ok {
				return parsed{}, test{lost: fmt.Sprintf("%q: a variable between brackets or behind a backslash", p)}
			}
			return parsed{}, test{never: fmt.Sprintf("%q is no pattern that docker_auth can read", p)}
		}
		return parsed{sequences: [][]item{items}, items: items}, test{}
	}
	text := p.text
	tree, names, err := parseRegex(parts)
	if err != nil {
		return parsed{}, test{lost: fmt.Sprintf("%q is no regular expression: %v", p, err)}
	}
	said, ok := sequences(tree, names)
	everything := ok && !slices.ContainsFunc(said, func(seq []item) bool { return len(seq) != 1 || seq[0].kind != wild && seq[0].kind != wildPlus })
	if !everything && !anchored(tree) {
		safe := "^(?:" + text + ")$"
		if t.c.options.Safe {
			t.warn(p.line, key, "%q matched parts of a text, so that it matched other names around what it says; written as /%s/", p, safe)
			text, parts = safe, split(safe, replaces)
			if tree, names, err = parseRegex(parts); err != nil {
				return parsed{}, test{lost: err.Error()}
			}
			said, ok = sequences(tree, names)
		} else {
			t.warn(p.line, key, "%q is not anchored: it matches any text that holds such a part, as in evil%s; kept, safe would be /%s/ (--safe)", p, "…", safe)
		}
	}
	if !ok {
		said = nil
	}
	return parsed{sequences: said, items: parts, regex: text}, test{}
}

// name is the test of match.name.
func (t *translator) name() test {
	p := t.m.name
	if p == nil {
		return test{always: true, native: []string{"**"}}
	}
	r, out := t.parse(p, "name")
	if out.never+out.lost != "" {
		return out
	}
	if patterns, ok := t.namePatterns(r.sequences); ok {
		if len(patterns) == 0 {
			return test{never: fmt.Sprintf("no repository can be called %q", p)}
		}
		return test{native: patterns, always: slices.Equal(patterns, []string{"**"})}
	}
	return t.condition("resource.name", "name", p, r)
}

// account is the test of match.account.
func (t *translator) account() test {
	p := t.m.account
	if p == nil {
		return test{always: true, native: t.everybody()}
	}
	r, out := t.parse(p, "account")
	if out.never+out.lost != "" {
		return out
	}
	subjects, native := subjectGlobs("user", "", r.sequences)
	everybody := slices.Equal(subjects, []string{"anonymous", "authenticated"})
	anonymous := !native || slices.Contains(subjects, "anonymous")
	if native && anonymous && len(subjects) > 1 && t.c.anonymous { // a wildcard, not the empty text alone
		if t.c.options.Safe {
			t.warn(p.line, "account", "%q matched the anonymous user too; written without", p)
			everybody, subjects = false, slices.DeleteFunc(subjects, func(s string) bool { return s == "anonymous" })
		} else {
			t.warn(p.line, "account", "%q matches the anonymous user too: whoever sends no credentials; kept, safe would be /.+/ (--safe)", p)
		}
	}
	if native && !t.c.anonymous {
		subjects = slices.DeleteFunc(subjects, func(s string) bool { return s == "anonymous" })
	}
	switch {
	case native && len(subjects) == 0:
		return test{never: fmt.Sprintf("%q matches nobody: the users of docker_auth have no anonymous one (\"\")", p)}
	case native && everybody:
		return test{always: true, native: t.everybody()}
	}
	if native {
		return test{native: subjects, cel: subjectCondition(subjects), always: slices.Equal(subjects, []string{"authenticated"})}
	}
	return t.condition("user.name", "account", p, r)
}

func (t *translator) everybody() []string {
	if t.c.anonymous {
		return []string{"anyone"}
	}
	return []string{"authenticated"}
}

// label is the test of one of match.labels. The value v of a label l is the group "l=v".
func (t *translator) label(l label) test {
	key, prefix := "labels."+l.name, l.name+"="
	if !labelName.MatchString(l.name) {
		return test{lost: fmt.Sprintf("a label called %q cannot be part of a group's name", l.name)}
	}
	r, out := t.parse(l.pattern, key)
	if out.never+out.lost != "" {
		return out
	}
	if subjects, ok := subjectGlobs("group", prefix, r.sequences); ok {
		return test{native: subjects, cel: subjectCondition(subjects)}
	}
	if !strings.Contains(l.pattern.text, "${") {
		inner := t.condition(fmt.Sprintf("g.substring(%d)", utf8.RuneCountInString(prefix)), key, l.pattern, r)
		inner.cel = fmt.Sprintf("user.groups.exists(g, g.startsWith(%s) && %s)", celString(prefix), inner.cel)
		return inner
	}
	// A condition that makes an expression for each group costs too much: it is written out for the values that users have.
	var terms []string
	for _, v := range t.labels[l.name] {
		inner := t.condition(celString(v), key, l.pattern, r)
		if inner.cel == "" {
			return inner
		}
		terms = append(terms, fmt.Sprintf("(%s in user.groups && %s)", celString(prefix+v), inner.cel))
	}
	switch {
	case len(terms) == 0:
		return test{never: fmt.Sprintf("none of the users here has the label %s", l.name)}
	case len(terms) > mostSequences:
		return test{lost: fmt.Sprintf("%q would have to be written out for more than %d values of the label", l.pattern, mostSequences)}
	}
	return test{cel: anyOf(terms)}
}

var labelName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
