package dockerauth

import (
	"fmt"
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
	labels map[string][]string
}

func (t *translator) warn(line int, key, format string, args ...any) {
	t.c.note(Warning, line, fmt.Sprintf("acl[%d].match.%s", t.number, key), format, args...)
}

// parsed is a pattern read either way.
type parsed struct {
	sequences [][]item // nil = only a regular expression says it
	items     []item   // of a glob
	regex     string   // of a regular expression
}

// parse reads a pattern and takes care of what is dangerous in it.
func (t *translator) parse(p *pattern, key string) (parsed, test) {
	if !p.regex {
		items, ok := globItems(p.text)
		if !ok {
			return parsed{}, test{never: fmt.Sprintf("%q is no pattern that docker_auth can read", p)}
		}
		return parsed{sequences: [][]item{items}, items: items}, test{}
	}
	text := p.text
	tree, names, err := parseRegex(text)
	if err != nil {
		return parsed{}, test{lost: fmt.Sprintf("%q is no regular expression: %v", p, err)}
	}
	said, ok := sequences(tree, names)
	everything := ok && !slices.ContainsFunc(said, func(seq []item) bool { return len(seq) != 1 || seq[0].kind != wild && seq[0].kind != wildPlus })
	if !everything && !anchored(tree) {
		safe := "^(?:" + text + ")$"
		if t.c.options.Safe {
			t.warn(p.line, key, "%q matched parts of a text, so that it matched other names around what it says; written as /%s/", p, safe)
			text = safe
			if tree, names, err = parseRegex(text); err != nil {
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
	return parsed{sequences: said, regex: text}, test{}
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
	if patterns, ok := namePatterns(r.sequences); ok {
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
	if strings.Contains(l.pattern.text, "${labels:") {
		return test{never: "docker_auth replaces no labels in what labels must be"}
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
func namePatterns(sequences [][]item) (patterns []string, ok bool) {
	if sequences == nil {
		return nil, false
	}
	for _, seq := range sequences {
		variants, ok := written(seq, func(before string, i item, last bool) ([]string, bool) {
			switch i.kind {
			case literal:
				return []string{i.text}, true
			case star:
				return []string{"", "*"}, true
			case plus:
				return []string{"*"}, true
			case wild, wildPlus:
				// Our ** is one or more whole segments.
				return []string{"**"}, before == "" || strings.HasSuffix(before, "/")
			case variable:
				if name, isLabel := strings.CutPrefix(i.text, "labels:"); isLabel && labelName.MatchString(name) {
					return []string{"{group:" + name + "=*}"}, true
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
	if p.regex {
		items = split(r.regex)
	}
	var labels []string
	for _, i := range items {
		name, isLabel := strings.CutPrefix(i.text, "labels:")
		switch {
		case i.kind != variable:
		case isLabel && !slices.Contains(labels, name):
			labels = append(labels, name)
		case isLabel:
		case capturing.MatchString(i.text):
			if why, lost := t.uncapturable(i.text); why != "" {
				if lost {
					return test{lost: why}
				}
				return test{never: why}
			}
		}
	}
	if len(labels) == 0 {
		return test{cel: t.matches(value, p, items, nil)}
	}
	// A condition cannot go through the values of several labels: it is written out for those that users have.
	var terms []string
	if p.regex { // docker_auth tries it as it stands first, which matches where an alternative has no label
		if _, err := regexp.Compile(r.regex); err == nil {
			terms = append(terms, t.matches(value, p, []item{{literal, r.regex}}, nil))
		}
	}
	choices := []map[string]string{{}}
	for _, name := range labels {
		var longer []map[string]string
		for _, choice := range choices {
			for _, v := range t.labels[name] {
				next := map[string]string{name: v}
				for k, v := range choice {
					next[k] = v
				}
				longer = append(longer, next)
			}
		}
		if choices = longer; len(choices) > mostSequences {
			return test{lost: fmt.Sprintf("%q would have to be written out for more than %d values of labels; say it with {group:%s=*}", p, mostSequences, name)}
		}
	}
	for _, choice := range choices {
		var all []string
		for _, name := range labels {
			all = append(all, celString(name+"="+choice[name])+" in user.groups")
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
				text.text(choice[name])
				expression.text(regexp.QuoteMeta(choice[name]))
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

// uncapturable tells why a variable like account:1 stands for nothing, and whether that is for want of words.
func (t *translator) uncapturable(name string) (why string, lost bool) {
	fieldName, number, _ := strings.Cut(name, ":")
	p := t.field(fieldName)
	if p == nil || !p.regex {
		return fmt.Sprintf("${%s}: match.%s is no regular expression, so docker_auth replaces nothing", name, fieldName), false
	}
	compiled, err := regexp.Compile(p.text)
	switch n, _ := strconv.Atoi(number); {
	case strings.Contains(p.text, "${"):
		return fmt.Sprintf("${%s}: match.%s holds variables itself", name, fieldName), true
	case err != nil:
		return fmt.Sprintf("${%s}: %v", name, err), true
	case n < 1 || n > compiled.NumSubexp():
		return fmt.Sprintf("${%s}: match.%s has no such group, so docker_auth replaces nothing", name, fieldName), false
	}
	return "", false
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
