package dockerauth

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

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
