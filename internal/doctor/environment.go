package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// variables are settings by environment; a name may be there more than once.
type variables map[string][]Setting

func (v variables) add(name, value, where string) {
	if isRead(name) {
		v[name] = append(v[name], Setting{Key: name, Where: where}.is(value, variableWithin))
	}
}

// one is the environment of one registry. What is set for several cannot be told apart.
func (v variables) one() (map[string]Setting, error) {
	one := map[string]Setting{}
	const remedy = "; give a file with one registry in it, and each variable once"
	most := ""
	for _, name := range slices.Sorted(maps.Keys(v)) {
		one[name] = v[name][0]
		for _, s := range v[name][1:] {
			if s.Value != one[name].Value || s.Elsewhere != one[name].Elsewhere {
				return nil, fmt.Errorf("%s is set at %s, and otherwise at %s%s", name, one[name].Where, s.Where, remedy)
			}
		}
		if most == "" || len(v[name]) > len(v[most]) {
			most = name
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		if len(v[name]) < len(v[most]) {
			return nil, fmt.Errorf("%s is set at %s, and again at %s, where %s is not%s", most, v[most][0].Where, v[most][1].Where, name, remedy)
		}
	}
	return one, nil
}

// variable is a line of an environment file.
var variable = regexp.MustCompile(`^(?:export\s+)?([A-Z][A-Z0-9_]*)=(.*)$`)

// environmentFile reads NAME=value lines, nil when there is anything else.
func (s *Stanza) environmentFile(data []byte) variables {
	found := variables{}
	n := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		m := variable.FindStringSubmatch(line)
		if m == nil {
			return nil
		}
		found.add(m[1], strings.Trim(m[2], `"'`), fmt.Sprintf("%s:%d", s.File, n))
	}
	return found
}

// isRead tells which variables are a registry's.
func isRead(name string) bool {
	return strings.HasPrefix(name, "REGISTRY_AUTH") || slices.Contains([]string{"AUTH_REALM", "AUTH_SERVICE", "AUTH_CERT_PATH", bearerAuth, basicAuth}, name)
}

// environment reads the variables of a registry in the documents of a YAML file.
func (s *Stanza) environment(documents []yaml.Node) (variables, error) {
	w := walk{Stanza: s, found: variables{}, flags: variables{}, seen: map[*yaml.Node]bool{}}
	for i := range documents {
		for _, top := range documents[i].Content {
			w.node(top, true)
		}
	}
	if _, err := w.flags.one(); err != nil {
		return nil, err
	}
	maps.Copy(w.found, w.flags) // as ChartMuseum does it: a flag wins over its variable
	return w.found, nil
}

// A walk collects variables of a registry's environment wherever they stand: NAME: value and NAME=value of Compose, and
// name: NAME, value: … of Kubernetes.
type walk struct {
	*Stanza
	found, flags variables
	seen         map[*yaml.Node]bool // what has an anchor is there once, and may stand within itself
}

func (w *walk) at(node *yaml.Node) string { return fmt.Sprintf("%s:%d", w.File, node.Line) }

// elsewhere is a variable whose value is not here.
func (w *walk) elsewhere(name, what string, key *yaml.Node) {
	w.found[name] = append(w.found[name], Setting{Key: name, Where: w.at(key), Elsewhere: what})
}

func (w *walk) node(node *yaml.Node, top bool) {
	if node = resolved(node); node == nil || w.seen[node] {
		return
	}
	switch node.Kind {
	case yaml.MappingNode:
		w.seen[node] = true
		w.mapping(fields(node), top)
	case yaml.SequenceNode:
		w.seen[node] = true
		for _, item := range node.Content {
			if line := resolved(item); line != nil && line.Kind == yaml.ScalarNode && isRead(line.Value) { // Compose: without =
				w.elsewhere(line.Value, "set by whoever starts it", line)
			}
			w.node(item, false)
		}
	case yaml.ScalarNode:
		if m := variable.FindStringSubmatch(node.Value); m != nil {
			w.found.add(m[1], m[2], w.at(node))
		}
		w.argument(node)
	}
}

// mapping reads fields as Compose does: what a mapping says itself wins over what it merges.
func (w *walk) mapping(below map[string]field, top bool) {
	name := text(below["name"].value)
	switch value := resolved(below["value"].value); {
	case !isRead(name):
	case below["valueFrom"].value != nil:
		w.elsewhere(name, "valueFrom", resolved(below["name"].value))
	case value != nil:
		w.found.add(name, text(value), w.at(value))
	}
	inOrder := func(a, b field) int {
		return cmp.Or(cmp.Compare(a.key.Line, b.key.Line), cmp.Compare(a.key.Column, b.key.Column))
	}
	for _, f := range slices.SortedFunc(maps.Values(below), inOrder) {
		key, value := f.key.Value, resolved(f.value)
		switch {
		case top && strings.HasPrefix(key, "x-"): // Compose reads it where it is merged or named, and only there
			continue
		case key == "envFrom" || key == "env_file":
			w.more = key
		case !isRead(key) || value == nil || value.Kind != yaml.ScalarNode:
		case value.ShortTag() == "!!null": // Compose
			w.elsewhere(key, "set by whoever starts it", f.key)
		default:
			w.found.add(key, value.Value, w.at(f.key))
		}
		w.node(value, false)
	}
}

// argument reads ChartMuseum's flag, alone or in a command line. The last of several counts.
func (w *walk) argument(node *yaml.Node) {
	last, found := "", false
	for word := range strings.FieldsSeq(node.Value) {
		if flag, value, given := strings.Cut(strings.Trim(word, `"'`), "="); flag == bearerFlag {
			if last, found = strings.Trim(value, `"'`), true; !given {
				last = "true"
			}
		}
	}
	if found {
		w.flags[bearerAuth] = append(w.flags[bearerAuth], Setting{Key: bearerFlag, Where: w.at(node)}.is(last, variableWithin))
	}
}

// Without the first of these variables ChartMuseum uses no tokens, whatever else is set; the second is for passwords.
const (
	bearerAuth = "BEARER_AUTH"
	basicAuth  = "BASIC_AUTH_USER"
	bearerFlag = "--bearer-auth" // the first as an argument
)

// fromEnvironment reads what is set by environment: distribution's REGISTRY_AUTH_TOKEN_…, or ChartMuseum's AUTH_….
func (s *Stanza) fromEnvironment(several variables) error {
	set, err := several.one()
	if err != nil {
		return err
	}
	get := func(name string) (Setting, bool) {
		setting, ok := set[name]
		if !ok {
			setting = Setting{Key: name, Where: s.File}
		}
		return setting, ok
	}
	distribution, charts := set["REGISTRY_AUTH_TOKEN_REALM"].Key != "", set["AUTH_REALM"].Key != ""
	prefix, trust := "REGISTRY_AUTH_TOKEN_", "ROOTCERTBUNDLE"
	s.Kind = Distribution
	switch {
	case distribution && charts:
		return fmt.Errorf("it sets REGISTRY_AUTH_TOKEN_REALM (distribution) at %s and AUTH_REALM (ChartMuseum) at %s; give a file with one registry in it", set["REGISTRY_AUTH_TOKEN_REALM"].Where, set["AUTH_REALM"].Where)
	case charts:
		prefix, trust, s.Kind = "AUTH_", "CERT_PATH", ChartMuseum
	case !distribution:
		return errors.New("it sets neither REGISTRY_AUTH_TOKEN_REALM (distribution) nor AUTH_REALM (ChartMuseum)")
	}
	for name, setting := range set {
		if kind, ok := strings.CutPrefix(name, "REGISTRY_AUTH_"); ok {
			kind, _, _ = strings.Cut(kind, "_")
			s.chosen = append(s.chosen, strings.ToLower(kind))
		} else if name == "REGISTRY_AUTH" && setting.Value != "" {
			s.chosen = append(s.chosen, setting.Value)
		}
	}
	slices.Sort(s.chosen)
	s.chosen = slices.Compact(s.chosen)
	s.take(func(name string) (Setting, bool) { return get(strings.ToUpper(name)) }, prefix, trust)
	needed := []*Setting{&s.Realm, &s.Service, &s.Issuer, &s.Trust}
	s.choice, _ = get("REGISTRY_AUTH")
	if s.Kind == ChartMuseum {
		s.choice, _ = get(bearerAuth)
		needed = append(needed, &s.choice)
	}
	for _, setting := range needed {
		if setting.isMissing() && s.more != "" {
			setting.Elsewhere = "in " + s.more
		}
	}
	if on, err := strconv.ParseBool(s.choice.Value); s.Kind == ChartMuseum && s.choice.Elsewhere == "" && (err != nil || !on) {
		s.Other = "nothing"
		if user, ok := get(basicAuth); ok && !user.isMissing() {
			s.Other = "a password"
		}
	}
	return nil
}
