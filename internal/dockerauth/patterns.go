package dockerauth

import (
	"regexp"
	"slices"
	"strings"

	"authserver/internal/scope"
	"authserver/internal/users"
)

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
