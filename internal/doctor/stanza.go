package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"authserver/internal/issuer"
)

// Kinds of registries, by the form of their configuration.
const (
	Distribution = "distribution" // also GitLab's, and what embeds it
	Notary       = "notary"       // has distribution's token auth of 2.7
	Zot          = "zot"
	ChartMuseum  = "chartmuseum"
)

// A Stanza is what a registry is told about us, as far as its files are at hand.
type Stanza struct {
	Kind    string // "" = not known: certificates or keys alone
	File    string
	Other   string // what it asks for instead of tokens, as in "htpasswd"
	Realm   Setting
	Service Setting
	Issuer  Setting // zot and ChartMuseum have none
	Trust   Setting // file of certificates: rootcertbundle, cert
	JWKS    Setting // file
	// Algorithms that are accepted, none = the registry's own list.
	Algorithms   []string
	algorithmsAt Setting
	AutoRedirect bool     // the realm is the registry's own host
	types        []string // of auth in a file, of which distribution takes one
	chosen       []string // the same by environment
	choice       Setting  // of tokens: auth.type, REGISTRY_AUTH, BEARER_AUTH
	fileless     bool     // zot: its keys are in no file
	more         string   // by what more variables are set that are not here

	certificates *certificates // nil = no file is named or at hand
	keys         *keySet
}

// A Setting is a value, with its key and place.
type Setting struct {
	Key, Value, Where string
	Elsewhere         string // what stands there for a value that is not known here, as in ${NAME}; there is no Value then
}

// What is filled in before a registry reads it: by a template; and in an environment, by Kubernetes, Compose or a shell.
var (
	placeholder    = regexp.MustCompile(`\$\{|\$\(|\{\{`)
	variableWithin = regexp.MustCompile(`\$\{|\$\(|\{\{|\$[A-Za-z_]`)
)

// is the setting with a value, or with what stands for one.
func (s Setting) is(text string, placeholder *regexp.Regexp) Setting {
	if s.Value = text; placeholder.MatchString(text) {
		s.Value, s.Elsewhere = "", text
	}
	return s
}

// isMissing tells whether there is nothing at all.
func (s Setting) isMissing() bool { return s.Value == "" && s.Elsewhere == "" }

// fix is the setting as it should be.
func (s Setting) fix(value string) Fix {
	if s.Key == strings.ToUpper(s.Key) { // a variable
		return Fix{Theirs, s.Where, s.Key + "=" + value}
	}
	return Fix{Theirs, s.Where, s.Key + ": " + value}
}

// set is the setting with a value that may be taken over as it stands.
func (s Setting) set(value string) Fix {
	if s.Key != strings.ToUpper(s.Key) {
		value = scalar(value)
	}
	return s.fix(value)
}

// scalar is text as it stands in YAML: plain where that reads back as the same.
func scalar(text string) string {
	var read struct{ K any }
	if err := yaml.Unmarshal([]byte("k: "+text), &read); err == nil && read.K == text {
		return text
	}
	return strconv.Quote(text)
}

// maxFile bounds a file that is read, in bytes.
const maxFile = 1 << 20

// block is the beginning of PEM. In the middle of a line it stands in a configuration.
var block = regexp.MustCompile(`(?m)^-----BEGIN `)

// ReadStanza reads what a registry is configured with. Files are its configuration (distribution's, GitLab's, Notary's or
// zot's own form; or settings by environment, as in a Compose file, a Deployment or an env file), and what that names when
// it is elsewhere on this machine: certificates in PEM form, a JWKS.
func ReadStanza(files ...string) (*Stanza, error) {
	s := &Stanza{}
	for _, file := range files {
		data, err := readFile(file)
		if err != nil {
			return nil, err
		}
		switch {
		case block.Match(data):
			s.certificates = parsePEM(file, data)
		case isJWKS(data):
			s.keys = parseJWKS(file, data)
		case s.File != "":
			return nil, fmt.Errorf("%s and %s are both configurations; give the one that the registry runs with, and beside it only certificates or a JWKS", s.File, file)
		default:
			s.File = file
			if err := s.read(data); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	// What the configuration does not name the registry does not read.
	inItsPlace := s.Kind == Zot || s.Kind == ChartMuseum // a JWKS stands in the place of a certificate, if at all
	unnamed := s.Kind != "" && (s.Trust.isMissing() || s.fileless)
	if unnamed {
		s.certificates = nil
	}
	if s.Kind != "" && s.JWKS.isMissing() && (!inItsPlace || unnamed) {
		s.keys = nil
	}
	// What it names is read where it says, or beside it, unless it was given.
	unknown := func(setting Setting) error { return fmt.Errorf("its name is not known: %s", setting.Elsewhere) }
	if s.certificates == nil && s.Trust.Elsewhere != "" {
		s.certificates = &certificates{file: s.Trust.Key, missing: unknown(s.Trust)}
	}
	if s.keys == nil && s.JWKS.Elsewhere != "" {
		s.keys = &keySet{file: s.JWKS.Key, missing: unknown(s.JWKS)}
	}
	if s.certificates == nil && s.Trust.Value != "" {
		if file, data, err := s.named(s.Trust); err != nil {
			s.certificates = &certificates{file: file, missing: err}
		} else if isJWKS(data) && inItsPlace {
			s.keys = parseJWKS(file, data)
		} else {
			s.certificates = parsePEM(file, data)
		}
	}
	if s.keys == nil && s.JWKS.Value != "" {
		if file, data, err := s.named(s.JWKS); err != nil {
			s.keys = &keySet{file: file, missing: err}
		} else {
			s.keys = parseJWKS(file, data)
		}
	}
	return s, nil
}

func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", file, maxFile)
	}
	return data, err
}

// named reads the file of a setting.
func (s *Stanza) named(setting Setting) (file string, data []byte, err error) {
	dir := filepath.Dir(s.File)
	candidates := []string{setting.Value, filepath.Join(dir, filepath.Base(setting.Value))}
	if !filepath.IsAbs(setting.Value) {
		candidates = []string{filepath.Join(dir, setting.Value), setting.Value}
	}
	for _, file := range candidates {
		data, readErr := []byte(nil), error(nil)
		switch info, statErr := os.Stat(file); {
		case statErr == nil && !info.Mode().IsRegular(): // a pipe would never end
			readErr = fmt.Errorf("%s is no file", file)
		case statErr == nil && info.Size() == 0: // nor would some of /proc, which have no size: what is empty need not be read
		default:
			data, readErr = readFile(file)
		}
		if readErr == nil {
			return file, data, nil
		}
		if err == nil {
			err = readErr
		}
	}
	return setting.Value, nil, err
}

var variable = regexp.MustCompile(`^(?:export\s+)?([A-Z][A-Z0-9_]*)=(.*)$`)

// read reads a configuration.
func (s *Stanza) read(data []byte) error {
	if environment := s.environmentFile(data); environment != nil {
		return s.fromEnvironment(environment)
	}
	documents := []yaml.Node{{}}
	for n, decoder := 0, yaml.NewDecoder(bytes.NewReader(data)); ; n++ { // JSON is YAML
		var document yaml.Node
		if err := decoder.Decode(&document); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("neither YAML nor JSON nor an env file: %w", err)
		}
		documents = append(documents[:n], document)
	}
	document := documents[0] // registries read no other
	at := func(path string) (Setting, bool) { return s.find(&document, path) }
	switch {
	case s.has(at, "auth.options"): // notary-server.json
		s.Kind = Notary
		switch s.choice, _ = at("auth.type"); {
		case s.choice.isMissing():
			s.Other = "nothing"
		case s.choice.Value != "token":
			s.Other = s.choice.Value
		}
		s.take(at, "auth.options.", "rootcertbundle")
	case s.has(at, "auth.token"):
		s.Kind = Distribution
		s.take(at, "auth.token.", "rootcertbundle")
		s.types = types(&document)
	case s.has(at, "http.auth.bearer"):
		s.Kind = Zot
		s.take(at, "http.auth.bearer.", "cert")
		for _, other := range []string{"awsSecretsManager", "oidc"} { // from 2.1.15: keys from elsewhere
			if s.Trust.isMissing() && s.has(at, "http.auth.bearer."+other) {
				s.Trust.Elsewhere, s.fileless = other, true
			}
		}
		for _, setting := range []*Setting{&s.Realm, &s.Service} {
			if setting.isMissing() && s.has(at, "http.auth.bearer.oidc") { // which needs neither
				setting.Elsewhere = "oidc"
			}
		}
		if len(s.missing("", issuer.Service{})) > 0 {
			s.Other = otherThan(at)
		}
	default:
		environment := variables{}
		for i := range documents {
			s.walk(&documents[i], environment)
		}
		if len(environment) > 0 {
			return s.fromEnvironment(environment)
		}
		s.Other = otherThan(at)
		switch {
		case s.has(at, "distSpecVersion") || s.has(at, "http.port"):
			s.Kind = Zot
		case s.has(at, "version") || s.has(at, "http.addr"):
			s.Kind = Distribution
		default:
			return errors.New("no configuration of a registry that is known here: distribution, GitLab's, Notary or zot; or their settings by environment")
		}
		if s.Other == "" {
			s.Other = "nothing"
		}
	}
	return nil
}

// otherThan is what a registry asks for that has no tokens, "" when that is nothing.
func otherThan(at func(string) (Setting, bool)) string {
	for _, other := range []string{"auth.htpasswd", "auth.silly", "http.auth.htpasswd", "http.auth.ldap", "http.auth.openid"} {
		if _, ok := at(other); ok {
			return other[strings.LastIndexByte(other, '.')+1:]
		}
	}
	return ""
}

func (s *Stanza) has(at func(string) (Setting, bool), path string) bool {
	_, ok := at(path)
	return ok
}

// take reads the settings below a key.
func (s *Stanza) take(at func(string) (Setting, bool), prefix, trust string) {
	for name, into := range map[string]*Setting{"realm": &s.Realm, "service": &s.Service, "issuer": &s.Issuer, trust: &s.Trust, "jwks": &s.JWKS, "signingalgorithms": &s.algorithmsAt} {
		*into, _ = at(prefix + name)
	}
	s.Algorithms = strings.Fields(s.algorithmsAt.Value)
	redirect, _ := at(prefix + "autoredirect")
	s.AutoRedirect = redirect.Value == "true"
}

// find is what stands under a dotted path; a list is its items with blanks between them. What is not there has the place
// of what is above it.
func (s *Stanza) find(document *yaml.Node, path string) (Setting, bool) {
	setting := Setting{Key: path, Where: s.File}
	if len(document.Content) == 0 {
		return setting, false
	}
	node, twice := document.Content[0], false
	for name := range strings.SplitSeq(path, ".") {
		f, ok := fields(node)[name]
		if !ok {
			return setting, false
		}
		setting.Where = fmt.Sprintf("%s:%d", s.File, f.key.Line)
		node, twice = resolved(f.value), f.twice
	}
	switch node.Kind {
	case yaml.SequenceNode:
		var items []string
		for _, item := range node.Content {
			items = append(items, text(item))
		}
		setting = setting.is(strings.Join(items, " "), placeholder)
	case yaml.MappingNode: // {{ … }} without quotes is one
		setting.Elsewhere = "a mapping"
	default:
		setting = setting.is(text(node), placeholder)
	}
	if twice {
		setting.Value, setting.Elsewhere = "", "said before <<, and by it: not everybody reads the same"
	}
	return setting, true
}

// types are the keys of auth.
func types(document *yaml.Node) []string {
	if len(document.Content) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(fields(fields(document.Content[0])["auth"].value)))
}

// text is that of a scalar; null is none.
func text(node *yaml.Node) string {
	if node = resolved(node); node == nil || node.ShortTag() == "!!null" {
		return ""
	}
	return node.Value
}

// A field is a key of a mapping, and its value.
type field struct {
	key, value *yaml.Node
	// It stands before << ; and that has it too, with another value. YAML says that it counts, and for distribution what is merged does.
	early, twice bool
}

// fields are those of a mapping and of what it merges (<<), which gives way to what the mapping says itself.
func fields(node *yaml.Node) map[string]field {
	found, seen := map[string]field{}, map[*yaml.Node]bool{} // an anchor may stand within itself
	var collect func(*yaml.Node)
	collect = func(node *yaml.Node) {
		if node = resolved(node); node == nil || seen[node] {
			return
		}
		seen[node] = true
		if node.Kind == yaml.SequenceNode && len(seen) > 1 { // of what is merged
			for _, item := range node.Content {
				collect(item)
			}
		}
		if node.Kind != yaml.MappingNode {
			return
		}
		own := map[string]field{} // the last of two wins
		for i := 0; i+1 < len(node.Content); i += 2 {
			own[node.Content[i].Value] = field{key: node.Content[i], value: node.Content[i+1]}
		}
		merge := own["<<"]
		if merge.key != nil && merge.key.ShortTag() != "!!merge" {
			merge = field{}
		} else {
			delete(own, "<<")
		}
		for name, f := range own {
			first, ok := found[name]
			if !ok {
				f.early = merge.key != nil && before(f.key, merge.key)
				found[name] = f
			} else if first.early && text(first.value) != text(f.value) {
				first.twice = true
				found[name] = first
			}
		}
		collect(merge.value)
	}
	collect(node)
	return found
}

func before(a, b *yaml.Node) bool {
	return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
}

// resolved is what an alias stands for.
func resolved(node *yaml.Node) *yaml.Node {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

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
