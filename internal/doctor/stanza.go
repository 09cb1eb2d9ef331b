package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
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
	if manyFields(documents) {
		return fmt.Errorf("it has more than %d fields with what it merges (<<); give a copy with the registry's part alone", mostFields)
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
		environment, err := s.environment(documents)
		if err != nil {
			return err
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
