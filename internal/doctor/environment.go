package doctor

import (
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

// walk collects variables of a registry's environment wherever they stand: NAME: value and NAME=value of Compose, and
// name: NAME, value: … of Kubernetes.
func (s *Stanza) walk(node *yaml.Node, found variables) {
	where := fmt.Sprintf("%s:%d", s.File, node.Line)
	elsewhere := func(name, what string, key *yaml.Node) {
		found[name] = append(found[name], Setting{Key: name, Where: fmt.Sprintf("%s:%d", s.File, key.Line), Elsewhere: what})
	}
	switch node.Kind {
	case yaml.MappingNode:
		below := map[string]*yaml.Node{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, value := node.Content[i], resolved(node.Content[i+1])
			below[key.Value] = value
			switch {
			case key.Value == "envFrom" || key.Value == "env_file":
				s.more = key.Value
			case !isRead(key.Value) || value == nil || value.Kind != yaml.ScalarNode:
			case value.ShortTag() == "!!null": // Compose
				elsewhere(key.Value, "set by whoever starts it", key)
			default:
				found.add(key.Value, value.Value, fmt.Sprintf("%s:%d", s.File, key.Line))
			}
		}
		name := below["name"]
		switch value := below["value"]; {
		case name == nil || !isRead(name.Value):
		case below["valueFrom"] != nil:
			elsewhere(name.Value, "valueFrom", name)
		case value != nil:
			found.add(name.Value, text(value), fmt.Sprintf("%s:%d", s.File, value.Line))
		}
	case yaml.SequenceNode:
		for _, item := range node.Content {
			if item.Kind == yaml.ScalarNode && isRead(item.Value) { // Compose: without =
				elsewhere(item.Value, "set by whoever starts it", item)
			}
		}
	case yaml.ScalarNode:
		if m := variable.FindStringSubmatch(node.Value); m != nil {
			found.add(m[1], m[2], where)
		}
		if slices.Contains(strings.Fields(node.Value), "--bearer-auth") { // an argument
			found.add(bearerAuth, "true", where)
		}
	}
	for _, below := range node.Content {
		s.walk(below, found)
	}
}

// Without the first of these variables ChartMuseum uses no tokens, whatever else is set; the second is for passwords.
const (
	bearerAuth = "BEARER_AUTH"
	basicAuth  = "BASIC_AUTH_USER"
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
