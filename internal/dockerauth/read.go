package dockerauth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// configuration is what we need of theirs. docker_auth reads YAML leniently: a key that it does not know is passed over,
// which is how a mistyped condition comes to match everything. So keys are read leniently here too, and told.
type configuration struct {
	server, token map[string]value
	users         []user
	acl           []entry
	others        []value // top-level keys that are neither of these
	hasACL        bool
}

// value is a scalar, or a key with whatever stands under it.
type value struct {
	key  string
	text string
	line int
	null bool
}

type user struct {
	name        string
	line        int
	password    string
	hasPassword bool
	labels      map[string][]string
}

type entry struct {
	line    int
	match   match
	actions []string
	comment string
	broken  string // why docker_auth itself would fail on it
}

// match is what an entry matches; nil and absent match everything.
type match struct {
	account, typ, name, service *pattern
	ip                          *value
	labels                      []label // sorted
	unknown                     []value
}

type label struct {
	name    string
	pattern *pattern
}

// pattern is a glob (path.Match), or a regular expression between slashes.
type pattern struct {
	text  string
	regex bool // text is what stands between the slashes
	line  int
}

// maxText bounds one pattern. Nobody writes longer ones by hand.
const maxText = 4 << 10

func newPattern(v value) *pattern {
	if v.null {
		return nil
	}
	p := &pattern{text: v.text, line: v.line}
	if n := len(v.text); n > 2 && v.text[0] == '/' && v.text[n-1] == '/' {
		p.text, p.regex = v.text[1:n-1], true
	}
	return p
}

// literal tells whether the pattern is a text that matches itself.
func (p *pattern) literal() bool {
	return !p.regex && !strings.ContainsAny(p.text, `*?[\`) && !strings.Contains(p.text, "${")
}

// String is the pattern as docker_auth's configuration has it.
func (p *pattern) String() string {
	if p.regex {
		return "/" + p.text + "/"
	}
	return p.text
}

type reader struct {
	file   string
	faults []error
}

func (r *reader) fault(line int, format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf("%s:%d: "+format, append([]any{r.file, line}, args...)...))
}

func read(file string, data []byte) (*configuration, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(document.Content) == 0 || document.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s: is no configuration of docker_auth: a mapping with server, token, users and acl", file)
	}
	r := &reader{file: file}
	c := &configuration{server: map[string]value{}, token: map[string]value{}}
	known := false
	for _, f := range r.fields(document.Content[0]) {
		known = known || slices.Contains([]string{"server", "token", "users", "acl"}, f.key)
		switch f.key {
		case "server":
			c.server = r.settings(f.node)
		case "token":
			c.token = r.settings(f.node)
		case "users":
			c.users = r.users(f.node)
		case "acl":
			c.acl, c.hasACL = r.acl(f.node), true
		default:
			if !isNull(f.node) {
				c.others = append(c.others, value{key: f.key, line: f.line})
			}
		}
	}
	if !known {
		return nil, fmt.Errorf("%s: is no configuration of docker_auth: it has neither server, token, users nor acl", file)
	}
	return c, errors.Join(r.faults...)
}

// field is a key of a mapping and what stands under it.
type field struct {
	key  string
	line int
	node *yaml.Node
}

// fields are those of a mapping, aliases followed and merge keys (<<) laid under. What is no mapping has none.
func (r *reader) fields(node *yaml.Node) []field {
	node = resolved(node)
	if node.Kind != yaml.MappingNode {
		if !isNull(node) {
			r.fault(node.Line, "a mapping of keys to values belongs here")
		}
		return nil
	}
	var fields []field
	type place struct {
		at     int
		merged bool
	}
	seen := map[string]place{}
	// docker_auth's YAML takes a merge key for what stands in its place: what comes later replaces what came before, or
	// is mixed with it where both are mappings.
	add := func(f field, merged bool) {
		before, twice := seen[f.key]
		switch {
		case !twice:
			seen[f.key] = place{len(fields), merged}
			fields = append(fields, f)
		case !merged && !before.merged:
			r.fault(f.line, "%s: given twice (docker_auth takes one of them); remove one", f.key)
		case f.node.Kind == yaml.MappingNode && fields[before.at].node.Kind == yaml.MappingNode:
			r.fault(f.line, "%s: given here and by a merge key (<<), which docker_auth mixes; write the values out", f.key)
		default:
			fields[before.at] = f
			seen[f.key] = place{before.at, merged}
		}
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, below := resolved(node.Content[i]), node.Content[i+1]
		switch {
		case key.Tag == "!!merge":
			for _, f := range r.merged(below) {
				add(f, true)
			}
		case isNull(key): // a map of texts has the empty text there
			add(field{"", key.Line, resolved(below)}, false)
		default:
			add(field{key.Value, key.Line, resolved(below)}, false)
		}
	}
	return fields
}

func (r *reader) merged(node *yaml.Node) []field {
	node = resolved(node)
	if node.Kind == yaml.MappingNode && !slices.ContainsFunc(node.Content, func(n *yaml.Node) bool { return n.Tag == "!!merge" }) {
		return r.fields(node)
	}
	r.fault(node.Line, "a merge key (<<) of something else than one plain mapping is not read; write the values out")
	return nil
}

func resolved(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

func (r *reader) scalar(f field) value {
	if f.node.Kind != yaml.ScalarNode {
		r.fault(f.line, "%s: a text belongs here", f.key)
		return value{key: f.key, line: f.line, null: true}
	}
	if len(f.node.Value) > maxText {
		r.fault(f.line, "%s: longer than %d bytes", f.key, maxText)
	}
	return value{key: f.key, text: f.node.Value, line: f.line, null: isNull(f.node)}
}

func (r *reader) texts(f field) []string {
	if f.node.Kind != yaml.SequenceNode {
		if !isNull(f.node) {
			r.fault(f.line, "%s: a list belongs here", f.key)
		}
		return nil
	}
	texts := []string{}
	for _, item := range f.node.Content {
		texts = append(texts, r.scalar(field{f.key, item.Line, resolved(item)}).text)
	}
	return texts
}

// settings are the keys of a block; of a deeper one only that it is there.
func (r *reader) settings(node *yaml.Node) map[string]value {
	settings := map[string]value{}
	for _, f := range r.fields(node) {
		v := value{key: f.key, line: f.line, null: isNull(f.node)}
		if f.node.Kind == yaml.ScalarNode {
			v = r.scalar(f)
		}
		settings[f.key] = v
	}
	return settings
}

func (r *reader) users(node *yaml.Node) []user {
	var users []user
	for _, f := range r.fields(node) {
		u := user{name: f.key, line: f.line, labels: map[string][]string{}}
		if isNull(f.node) {
			continue // docker_auth takes it for no user
		}
		for _, g := range r.fields(f.node) {
			switch g.key {
			case "password":
				v := r.scalar(g)
				u.password, u.hasPassword = v.text, !v.null
			case "labels":
				for _, l := range r.fields(g.node) {
					u.labels[l.key] = r.texts(l)
				}
			}
		}
		users = append(users, u)
	}
	return users
}

func (r *reader) acl(node *yaml.Node) []entry {
	if node.Kind != yaml.SequenceNode {
		if !isNull(node) {
			r.fault(node.Line, "acl: a list belongs here")
		}
		return nil
	}
	var entries []entry
	for _, item := range node.Content {
		item = resolved(item)
		e := entry{line: item.Line}
		hasMatch, hasActions := false, false
		for _, f := range r.fields(item) {
			switch f.key {
			case "match":
				hasMatch = !isNull(f.node)
				e.match = r.match(f.node)
			case "actions":
				hasActions = !isNull(f.node)
				e.actions = r.texts(f)
			case "comment":
				e.comment = r.scalar(f).text
			default:
				e.match.unknown = append(e.match.unknown, value{key: f.key, line: f.line})
			}
		}
		switch {
		case !hasMatch:
			e.broken = "it has no match"
		case !hasActions:
			e.broken = "it has no actions"
		}
		entries = append(entries, e)
	}
	return entries
}

func (r *reader) match(node *yaml.Node) match {
	var m match
	for _, f := range r.fields(node) {
		switch f.key {
		case "account":
			m.account = newPattern(r.scalar(f))
		case "type":
			m.typ = newPattern(r.scalar(f))
		case "name":
			m.name = newPattern(r.scalar(f))
		case "service":
			m.service = newPattern(r.scalar(f))
		case "ip":
			if v := r.scalar(f); !v.null {
				m.ip = &v
			}
		case "labels":
			for _, l := range r.fields(f.node) {
				v := r.scalar(l)
				if v.null { // a map of texts has the empty text there
					v.null, v.text = false, ""
				}
				m.labels = append(m.labels, label{l.key, newPattern(v)})
			}
			slices.SortFunc(m.labels, func(a, b label) int { return strings.Compare(a.name, b.name) })
		default:
			m.unknown = append(m.unknown, value{key: "match." + f.key, line: f.line})
		}
	}
	return m
}
