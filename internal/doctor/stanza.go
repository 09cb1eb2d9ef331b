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

	certificates *certificates // nil = no file is named or at hand
	keys         *keySet
}

// A Setting is a value, with its key and place.
type Setting struct{ Key, Value, Where string }

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
		case bytes.Contains(data, []byte("-----BEGIN ")):
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
	// What the configuration names is read where it says, or beside it, unless it was given.
	if s.certificates == nil && s.Trust.Value != "" {
		if file, data, err := s.named(s.Trust); err != nil {
			s.certificates = &certificates{file: file, missing: err}
		} else if isJWKS(data) { // zot takes one in the place of a certificate
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
	var document yaml.Node // JSON is YAML
	if err := yaml.Unmarshal(data, &document); err != nil {
		return fmt.Errorf("neither YAML nor JSON nor an env file: %w", err)
	}
	at := func(path string) (Setting, bool) { return s.find(&document, path) }
	switch {
	case s.has(at, "auth.options"): // notary-server.json
		s.Kind = Notary
		if kind, _ := at("auth.type"); kind.Value != "token" {
			s.Other = kind.Value
		}
		s.take(at, "auth.options.", "rootcertbundle")
	case s.has(at, "auth.token"):
		s.Kind = Distribution
		s.take(at, "auth.token.", "rootcertbundle")
		s.types = types(&document)
	case s.has(at, "http.auth.bearer"):
		s.Kind = Zot
		s.take(at, "http.auth.bearer.", "cert")
		if len(s.missing("", issuer.Service{})) > 0 {
			s.Other = otherThan(at)
		}
	default:
		environment := map[string]Setting{}
		s.walk(&document, environment)
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
	node := document.Content[0]
	for name := range strings.SplitSeq(path, ".") {
		f, ok := fields(node)[name]
		if !ok {
			return setting, false
		}
		setting.Where = fmt.Sprintf("%s:%d", s.File, f.key.Line)
		node = resolved(f.value)
	}
	setting.Value = node.Value
	if node.Kind == yaml.SequenceNode {
		var items []string
		for _, item := range node.Content {
			items = append(items, item.Value)
		}
		setting.Value = strings.Join(items, " ")
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

// A field is a key of a mapping, and its value.
type field struct{ key, value *yaml.Node }

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
			own[node.Content[i].Value] = field{node.Content[i], node.Content[i+1]}
		}
		for name, f := range own {
			if _, ok := found[name]; !ok && f.key.ShortTag() != "!!merge" {
				found[name] = f
			}
		}
		if f := own["<<"]; f.key != nil && f.key.ShortTag() == "!!merge" {
			collect(f.value)
		}
	}
	collect(node)
	return found
}

// resolved is what an alias stands for.
func resolved(node *yaml.Node) *yaml.Node {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

// environmentFile reads NAME=value lines, nil when there is anything else.
func (s *Stanza) environmentFile(data []byte) map[string]Setting {
	found := map[string]Setting{}
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
		found[m[1]] = Setting{m[1], strings.Trim(m[2], `"'`), fmt.Sprintf("%s:%d", s.File, n)}
	}
	return found
}

// walk collects variables of a registry's environment wherever they stand: NAME: value and NAME=value of Compose, and
// name: NAME, value: … of Kubernetes.
func (s *Stanza) walk(node *yaml.Node, found map[string]Setting) {
	note := func(name, value string, line int) {
		if strings.HasPrefix(name, "REGISTRY_AUTH") || strings.HasPrefix(name, "AUTH_") || name == bearerAuth || name == basicAuth {
			found[name] = Setting{name, value, fmt.Sprintf("%s:%d", s.File, line)}
		}
	}
	if node.Kind == yaml.MappingNode {
		fields := map[string]*yaml.Node{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, value := node.Content[i], node.Content[i+1]
			fields[key.Value] = value
			if value.Kind == yaml.ScalarNode {
				note(key.Value, value.Value, key.Line)
			}
		}
		if name, value := fields["name"], fields["value"]; name != nil && value != nil {
			note(name.Value, value.Value, value.Line)
		}
	}
	if node.Kind == yaml.ScalarNode {
		if m := variable.FindStringSubmatch(node.Value); m != nil {
			note(m[1], m[2], node.Line)
		}
		if slices.Contains(strings.Fields(node.Value), "--bearer-auth") { // an argument
			note(bearerAuth, "true", node.Line)
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
func (s *Stanza) fromEnvironment(variables map[string]Setting) error {
	prefix, trust := "REGISTRY_AUTH_TOKEN_", "ROOTCERTBUNDLE"
	s.Kind = Distribution
	if _, ok := variables[prefix+"REALM"]; !ok {
		if _, ok := variables["AUTH_REALM"]; !ok {
			return errors.New("it sets neither REGISTRY_AUTH_TOKEN_REALM (distribution) nor AUTH_REALM (ChartMuseum)")
		}
		prefix, trust, s.Kind = "AUTH_", "CERT_PATH", ChartMuseum
		if on, err := strconv.ParseBool(variables[bearerAuth].Value); err != nil || !on {
			s.Other = "nothing"
			if variables[basicAuth].Value != "" {
				s.Other = "a password"
			}
		}
	}
	for name, setting := range variables {
		if kind, ok := strings.CutPrefix(name, "REGISTRY_AUTH_"); ok {
			kind, _, _ = strings.Cut(kind, "_")
			s.chosen = append(s.chosen, strings.ToLower(kind))
		} else if name == "REGISTRY_AUTH" {
			s.chosen = append(s.chosen, setting.Value)
		}
	}
	slices.Sort(s.chosen)
	s.chosen = slices.Compact(s.chosen)
	s.take(func(name string) (Setting, bool) {
		name = strings.ToUpper(name)
		setting, ok := variables[name]
		if !ok {
			setting = Setting{Key: name, Where: s.File}
		}
		return setting, ok
	}, prefix, trust)
	return nil
}
