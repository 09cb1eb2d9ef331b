package config

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/v2"

	"authserver/internal/document"
)

// Prefix begins every environment variable: AUTHSERVER_ISSUER__NAME is issuer.name.
const Prefix = "AUTHSERVER_"

// Kubernetes puts variables like these into every pod for a Service of our name. They are no settings.
var (
	serviceLink = regexp.MustCompile(`^AUTHSERVER_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)$`)
	numberLink  = regexp.MustCompile(`_(SERVICE|TCP|UDP|SCTP)_PORT$`)
)

// isServiceLink also looks at the value of …_PORT: Kubernetes writes an address there, who means to set a port a number.
func isServiceLink(name, value string) bool {
	if !serviceLink.MatchString(name) || strings.Contains(name, "__") {
		return false
	}
	return !strings.HasSuffix(name, "_PORT") || numberLink.MatchString(name) || strings.Contains(value, "://")
}

// Load reads file, lays the environment (as os.Environ) over it and then sets, each "key.path=value". Every fault that
// can be found without opening another file is returned, joined.
func Load(file string, environ, sets []string) (*Config, error) {
	doc, err := document.Read(file)
	if err != nil {
		return nil, err
	}
	k, where, faults := lay(doc, environ, sets)
	c := Defaults()
	c.dir, c.where, c.given = filepath.Dir(file), where, doc.Has
	faults = append(faults, document.Decode("", k.Raw(), &c, where))
	c.resolvePaths()
	if err := document.Merge(errors.Join(faults...), c.validate()...); err != nil {
		return nil, err
	}
	return &c, nil
}

// OpsListen is server.ops_listen alone, as far as it can be told. Faults elsewhere do not matter: a server that has refused
// a changed file still runs. When the file cannot be read at all, the error says why, and the address is what the
// environment, sets and the default say.
func OpsListen(file string, environ, sets []string) (string, error) {
	doc, err := document.Read(file)
	if err != nil {
		doc = &document.Document{File: file}
	}
	k, _, _ := lay(doc, environ, sets)
	c := Defaults()
	c.dir = filepath.Dir(file)
	switch address := k.Get("server.ops_listen").(type) {
	case string:
		c.Server.OpsListen = address
	case document.Text:
		c.Server.OpsListen = string(address)
	}
	c.resolvePaths()
	return c.Server.OpsListen, err
}

// lay lays the environment and then sets over a document. where is the place that a key's value came from.
func lay(doc *document.Document, environ, sets []string) (k *koanf.Koanf, where func(path string) string, faults []error) {
	origin := map[string]string{} // key path -> variable or flag
	k = koanf.New(".")
	note := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	note(doc.Faults())
	note(k.Load(confmap.Provider(doc.Root, ""), nil))
	// over lays values by key path over those there are. One below another would be of two meanings, and chance would choose.
	over := func(flat map[string]any) {
		for _, path := range slices.Sorted(maps.Keys(flat)) {
			for above := path; ; {
				cut := strings.LastIndexByte(above, '.')
				if cut < 0 {
					break
				}
				above = above[:cut]
				if _, both := flat[above]; both {
					note(&document.Fault{Where: origin[path], Key: path, Problem: fmt.Sprintf("%s gives %s a value already; remove one of them", origin[above], above)})
					delete(flat, path)
					break
				}
			}
		}
		note(k.Load(confmap.Provider(flat, "."), nil))
	}
	variables, err := env.Provider("", env.Opt{
		Prefix:      Prefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			if isServiceLink(name, value) {
				return "", nil
			}
			path := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, Prefix), "__", "."))
			origin[path] = "environment " + name
			return path, document.Text(value)
		},
	}).Read()
	note(err)
	over(variables)
	flags := map[string]any{}
	for _, set := range sets {
		path, value, ok := strings.Cut(set, "=")
		if !ok || path == "" {
			note(&document.Fault{Where: "flag --set", Problem: fmt.Sprintf("%q is not key.path=value", set)})
			continue
		}
		origin[path] = "flag --set"
		flags[path] = document.Text(value)
	}
	over(flags)

	where = func(path string) string {
		for p := path; p != ""; {
			if place, ok := origin[p]; ok {
				return place
			}
			cut := strings.LastIndexAny(p, ".[")
			if cut < 0 {
				break
			}
			p = p[:cut]
		}
		if _, mapping := doc.Root[path].(map[string]any); !mapping { // what a variable or a flag makes a mapping of
			for below, place := range origin {
				if strings.HasPrefix(below, path+".") {
					return place
				}
			}
		}
		return doc.Where(path)
	}
	return k, where, faults
}

// DecodeUsers fills into, a backend's own options, from users[i] without its kind.
func (c *Config) DecodeUsers(i int, into any) error {
	block := map[string]any{}
	for key, value := range c.Users[i] {
		if key != "kind" {
			block[key] = value
		}
	}
	return document.Decode(fmt.Sprintf("users[%d]", i), block, into, c.where)
}

// Path makes a path from the configuration usable: relative ones start at the configuration file's folder.
func (c *Config) Path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}

func (c *Config) resolvePaths() {
	paths := []*string{
		&c.Server.TLS.CertFile, &c.Server.TLS.KeyFile,
		&c.Issuer.DataDir, &c.Issuer.Keys.KeyFile, &c.Issuer.Keys.CertificateFile, &c.Issuer.Keys.EncryptionFile,
		&c.Database.PasswordFile,
		&c.Tracing.HeadersFile, &c.ACL.Webhook.TokenFile, &c.ACL.Webhook.TLS.CAFile, &c.ACL.Webhook.TLS.CertFile, &c.ACL.Webhook.TLS.KeyFile,
	}
	for i := range c.Services {
		paths = append(paths, &c.Services[i].KeyFile, &c.Services[i].CertificateFile)
	}
	for i := range c.ACL.Files {
		paths = append(paths, &c.ACL.Files[i])
	}
	for _, p := range paths {
		*p = c.Path(*p)
	}
	for _, listen := range []*string{&c.Server.Listen, &c.Server.OpsListen} {
		if socket, ok := strings.CutPrefix(*listen, "unix:"); ok {
			*listen = "unix:" + c.Path(socket)
		}
	}
	if file, ok := strings.CutPrefix(c.Audit.Output, "file:"); ok {
		c.Audit.Output = "file:" + c.Path(file)
	}
}
