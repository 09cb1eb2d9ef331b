package dockerauth

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"authserver/internal/scope"
	"authserver/internal/users"
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

// namePatterns says sequences as patterns of repository names; names that no repository can have are left out.
func (t *translator) namePatterns(sequences [][]item) (patterns []string, ok bool) {
	if sequences == nil {
		return nil, false
	}
	for _, seq := range sequences {
		variants, ok := written(seq, func(before string, i item, last bool) ([]string, bool) {
			if strings.HasSuffix(before, "*") && i.kind != literal && i.kind != variable {
				return nil, false // two stars together are another wildcard
			}
			switch i.kind {
			case literal:
				return []string{i.text}, !strings.Contains(i.text, "*")
			case star:
				return []string{"", "*"}, true
			case plus:
				return []string{"*"}, true
			case wild, wildPlus:
				// Our ** is one or more whole segments.
				return []string{"**"}, before == "" || strings.HasSuffix(before, "/")
			case variable:
				if name, isLabel := strings.CutPrefix(i.text, "labels:"); isLabel && labelName.MatchString(name) {
					// What stands for a group is within one segment.
					slash := slices.ContainsFunc(t.labels[name], func(v string) bool { return strings.Contains(v, "/") })
					return []string{"{group:" + name + "=*}"}, !slash
				}
				return []string{"{user}"}, i.text == "account"
			}
			return nil, false
		})
		if !ok {
			return nil, false
		}
		for i, it := range seq { // what follows ** must begin a segment
			if (it.kind == wild || it.kind == wildPlus) && i+1 < len(seq) && (seq[i+1].kind != literal || !strings.HasPrefix(seq[i+1].text, "/")) {
				return nil, false
			}
		}
		for _, v := range variants {
			if possibleName(v) && !slices.Contains(patterns, v) {
				patterns = append(patterns, v)
			}
		}
	}
	return patterns, len(patterns) <= mostSequences
}

// possibleName tells whether a name can match the pattern.
func possibleName(pattern string) bool {
	if strings.Contains(pattern, "\x00") { // which stands for a placeholder below
		return false
	}
	text := placeholder.ReplaceAllString(pattern, "\x00")
	if strings.ContainsAny(text, "{}") { // braces that are text
		return false
	}
	for _, filler := range []string{"x", "1"} { // "1" where a port stands
		if name := strings.NewReplacer("**", filler, "*", filler, "\x00", filler).Replace(text); name != "" && scope.ValidName(name) {
			return true
		}
	}
	return false
}

var placeholder = regexp.MustCompile(`\{(user|group:[^{}*]*\*)\}`)

// subjectGlobs says sequences as subjects of a kind, user or group, whose names begin with prefix. For users
// "anonymous" is the empty name and "authenticated" any other.
func subjectGlobs(kind, prefix string, sequences [][]item) (subjects []string, ok bool) {
	if sequences == nil {
		return nil, false
	}
	for _, seq := range sequences {
		variants, ok := written(seq, func(before string, i item, _ bool) ([]string, bool) {
			if strings.HasSuffix(before, "*") && i.kind != literal {
				return nil, false
			}
			switch i.kind {
			case literal:
				return []string{i.text}, !strings.Contains(i.text, "*")
			case star, wild:
				return []string{"", "*"}, true
			case plus, wildPlus:
				return []string{"*"}, true
			}
			return nil, false
		})
		if !ok {
			return nil, false
		}
		for _, v := range variants {
			subject := kind + ":" + prefix + v
			switch {
			case kind == "user" && v == "":
				subject = "anonymous"
			case kind == "user" && v == "*":
				subject = "authenticated"
			default:
				plain := strings.ReplaceAll(prefix+v, "*", "x")
				if kind == "group" {
					plain = strings.ReplaceAll(plain, ":", "x")
				}
				if _, err := users.ParseName(plain); err != nil {
					return nil, false
				}
			}
			if !slices.Contains(subjects, subject) {
				subjects = append(subjects, subject)
			}
		}
	}
	slices.Sort(subjects)
	return subjects, len(subjects) <= mostSequences
}

// written writes a sequence out: each item has one or more texts, given what stands before it.
func written(seq []item, texts func(before string, i item, last bool) ([]string, bool)) ([]string, bool) {
	variants := []string{""}
	for n, i := range seq {
		var longer []string
		for _, before := range variants {
			after, ok := texts(before, i, n == len(seq)-1)
			if !ok || len(longer)+len(after) > mostSequences {
				return nil, false
			}
			for _, text := range after {
				longer = append(longer, before+text)
			}
		}
		variants = longer
	}
	return variants, true
}

// subjectCondition says subjects of one kind as a condition.
func subjectCondition(subjects []string) string {
	var terms, globs []string
	value, kind := "user.name", ""
	for _, s := range subjects {
		var name string
		kind, name, _ = strings.Cut(s, ":")
		switch {
		case kind == "anonymous":
			terms = append(terms, `user.name == ""`)
		case kind == "authenticated":
			terms = append(terms, `user.name != ""`)
		case strings.Contains(name, "*"):
			globs = append(globs, strings.ReplaceAll(regexp.QuoteMeta(name), `\*`, ".+"))
		case kind == "user":
			terms = append(terms, "user.name == "+celString(name))
		default:
			terms = append(terms, celString(name)+" in user.groups")
		}
	}
	if len(globs) > 0 {
		if kind == "group" {
			value = "g"
		}
		matches := value + ".matches(" + celString("^("+strings.Join(globs, "|")+")$") + ")"
		if kind == "group" {
			matches = "user.groups.exists(g, " + matches + ")"
		}
		terms = append(terms, matches)
	}
	return anyOf(terms)
}

func anyOf(terms []string) string {
	if len(terms) == 1 {
		return terms[0]
	}
	return "(" + strings.Join(terms, " || ") + ")"
}

// condition says a pattern as a condition on a value.
func (t *translator) condition(value, key string, p *pattern, r parsed) test {
	items := r.items
	var labels []string
	for _, i := range items {
		name, isLabel := strings.CutPrefix(i.text, "labels:")
		switch {
		case i.kind != variable:
		case isLabel && !slices.Contains(labels, name):
			labels = append(labels, name)
		case isLabel:
		case capturing.MatchString(i.text):
			if field, _, _ := strings.Cut(i.text, ":"); strings.Contains(t.field(field).text, "${") {
				return test{lost: fmt.Sprintf("${%s}: match.%s holds variables itself", i.text, field)}
			}
		}
	}
	if len(labels) == 0 {
		return test{cel: t.matches(value, p, items, nil)}
	}
	// A condition cannot go through the values of several labels: it is written out for those that users have.
	var terms []string
	// In a regular expression an alternative may match without the label. docker_auth leaves those that a user does not have as
	// they are, and tries it without any first.
	if _, err := regexp.Compile(r.regex); p.regex && err == nil {
		terms = append(terms, t.matches(value, p, items, nil))
	}
	choices := []map[string]string{{}}
	for _, name := range labels {
		var longer []map[string]string
		for _, choice := range choices {
			for _, v := range t.labels[name] {
				next := maps.Clone(choice)
				next[name] = v
				longer = append(longer, next)
			}
			if p.regex && len(labels) > 1 {
				longer = append(longer, choice)
			}
		}
		if choices = longer; len(choices) > 2*mostSequences {
			return test{lost: fmt.Sprintf("%q would have to be written out for more than %d values of labels; say it with {group:%s=*}", p, 2*mostSequences, name)}
		}
	}
	for _, choice := range choices {
		if len(choice) == 0 {
			continue
		}
		var all []string
		for _, name := range labels {
			if _, has := choice[name]; has {
				all = append(all, celString(name+"="+choice[name])+" in user.groups")
			} else {
				all = append(all, "!user.groups.exists(g, g.startsWith("+celString(name+"=")+"))")
			}
		}
		terms = append(terms, "("+strings.Join(append(all, t.matches(value, p, items, choice)), " && ")+")")
	}
	if len(terms) == 0 {
		return test{never: fmt.Sprintf("%q: none of the users here has the label %s", p, strings.Join(labels, " and "))}
	}
	return test{cel: anyOf(terms)}
}

// matches is the condition that a value matches items; labels have the values of choice.
func (t *translator) matches(value string, p *pattern, items []item, choice map[string]string) string {
	var text, expression celText
	plain := !p.regex // and nothing but text: an equation says it
	if !p.regex {
		expression.text("^")
	}
	for _, i := range items {
		switch {
		case i.kind == literal && p.regex:
			expression.text(i.text)
		case i.kind == literal:
			text.text(i.text)
			expression.text(regexp.QuoteMeta(i.text))
		case i.kind == star:
			plain = false
			expression.text("[^/]*")
		case i.kind == plus:
			plain = false
			expression.text("[^/]+")
		case i.kind == class:
			plain = false
			expression.text(i.text)
		default:
			if name, isLabel := strings.CutPrefix(i.text, "labels:"); isLabel {
				if v, has := choice[name]; has {
					text.text(v)
					expression.text(regexp.QuoteMeta(v))
				} else { // only in a regular expression
					text.text("x")
					expression.text("${" + i.text + "}")
				}
				break
			}
			text.value(t.value(i.text))
			expression.value("literal(" + t.value(i.text) + ")")
		}
	}
	if plain {
		return value + " == " + text.String()
	}
	if !p.regex {
		expression.text("$")
	} else if !slices.ContainsFunc(items, func(i item) bool { return i.kind != variable }) {
		// With nothing to put in its place /${account}/ is no regular expression to docker_auth but the glob //.
		return "(" + text.String() + ` != "" && ` + value + ".matches(" + expression.String() + "))"
	}
	return value + ".matches(" + expression.String() + ")"
}

// value is the condition's name of what a variable stands for.
func (t *translator) value(name string) string {
	if v := variables[name]; v != "" {
		return v
	}
	field, n, _ := strings.Cut(name, ":")
	return fmt.Sprintf("capture(%s, %s, %s)", variables[field], celString(t.field(field).text), n)
}

func (t *translator) field(name string) *pattern {
	return map[string]*pattern{"account": t.m.account, "type": t.m.typ, "name": t.m.name, "service": t.m.service}[name]
}

// mayMatch tells whether a pattern of names may match a text, whatever its placeholders stand for.
func mayMatch(pattern, text string) bool {
	var expression strings.Builder
	for _, part := range patternPart.FindAllString(pattern, -1) {
		switch {
		case part == "*":
			expression.WriteString("[^/]+")
		case part[0] == '{' || part[0] == '*':
			expression.WriteString(".+")
		default:
			expression.WriteString(regexp.QuoteMeta(part))
		}
	}
	return regexp.MustCompile("^" + expression.String() + "$").MatchString(text)
}

var patternPart = regexp.MustCompile(`\{[^}]*\}|\*+|[^{*]+`)
