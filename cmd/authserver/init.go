package main

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"authserver/internal/config"
	"authserver/internal/durable"
	"authserver/internal/users"
)

//go:embed init
var initFiles embed.FS

// start is what init is told.
type start struct {
	Dir, Service, PublicURL, Listen, OpsListen, Issuer, DataDir, Admin string
	force                                                              bool
}

func (h *hand) initCommand() *cobra.Command {
	var s start
	cmd := h.printsData(&cobra.Command{
		Use: "init [DIR]", Short: "Write a configuration to start from", Args: cobra.MaximumNArgs(1),
		Long: `Write authserver.yaml, policy.yaml, users.htpasswd with an administrator, and the root certificate that registries
are given to trust, into DIR (default: here); and in schema/ what editors check these files by. The administrator's password is printed once and kept nowhere. Files that
are there are not overwritten without --force; keys are never overwritten.`,
		RunE: func(_ *cobra.Command, args []string) error {
			s.Dir = "."
			if len(args) == 1 {
				s.Dir = args[0]
			}
			return h.init(s)
		},
	})
	f := cmd.Flags()
	d := config.Defaults()
	f.StringVar(&s.Service, "service", "registry.local", "name of the registry: its auth.token.service")
	f.StringVar(&s.PublicURL, "public-url", d.Server.PublicURL, "address at which clients reach authserver")
	f.StringVar(&s.Listen, "listen", d.Server.Listen, "address to listen on")
	f.StringVar(&s.OpsListen, "ops-listen", d.Server.OpsListen, "address for health and metrics")
	f.StringVar(&s.Issuer, "issuer", d.Issuer.Name, "issuer in tokens: the registry's auth.token.issuer")
	f.StringVar(&s.DataDir, "data-dir", d.Issuer.DataDir, "folder of keys and database; a relative one is below DIR")
	f.StringVar(&s.Admin, "admin", "admin", "name of the administrator")
	f.BoolVar(&s.force, "force", false, "overwrite configuration, policy and users")
	return cmd
}

// started is what init prints.
type started struct {
	Config          string `json:"config"`
	Admin           string `json:"admin"`
	Password        string `json:"password"`
	RootCertificate string `json:"root_certificate"`
	Issuer          string `json:"issuer"`
	Service         string `json:"service"`
	Realm           string `json:"realm"`
	RegistryStanza  string `json:"registry_stanza"`
}

func (h *hand) init(s start) error {
	// What init writes is what its own flags say. A key set beside them would hold for this call and not for serve.
	if h.configFile != "" {
		return misuse{errors.New("--config is for commands that read a configuration; init writes into DIR")}
	}
	for _, set := range h.sets {
		if !strings.HasPrefix(set, "passwords.") {
			return misuse{fmt.Errorf("--set %s would not be written into the configuration; use init's own flags, or edit the file", set)}
		}
	}
	if _, err := users.ParseHTPasswdName(s.Admin); err != nil {
		return misuse{fmt.Errorf("--admin: %w", err)}
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(s.Dir, name) }
	usersFile := path("users.htpasswd")
	if !s.force {
		if there := existing(s.Dir, []string{"authserver.yaml", "policy.yaml", "users.htpasswd"}); len(there) > 0 {
			return fmt.Errorf("there already: %s; nothing was written, --force overwrites", strings.Join(there, ", "))
		}
	}
	if err := s.write(path, h.sets); err != nil {
		return err
	}
	c, err := config.Load(path("authserver.yaml"), nil, h.sets)
	if err != nil {
		return err
	}
	if c.Issuer.Keys.Store != config.KeysInDataDir {
		return c.Fault("issuer.keys.store", errors.New("init makes the keys in data_dir; set this in authserver.yaml afterwards, and begin with an empty database"))
	}
	if _, err := openKeyring(c, nil, false); err != nil {
		return err
	}
	// The users come last: once they are replaced, nothing may keep the new password from being printed.
	password := rand.Text() // 130 bits
	if err := (users.HTPasswdFile{Path: usersFile, Cost: c.Passwords.BcryptCost}).Reset(s.Admin, password); err != nil {
		return err
	}
	root, err := rootCertificate(c)
	if err != nil {
		return err
	}
	out := started{
		Config: path("authserver.yaml"), Admin: s.Admin, Password: password, RootCertificate: root,
		Issuer: c.Issuer.Name, Service: s.Service, Realm: c.Realm(),
	}
	out.RegistryStanza = registryStanza(c, c.Services[0], root)
	if h.output == "json" {
		return h.printJSON(out)
	}
	_, err = fmt.Fprintf(h.stdout, `Written to %s: authserver.yaml, policy.yaml, users.htpasswd, schema/; keys to %s

Administrator: %s
Password:      %s     (shown this once)

In the registry's configuration:

%s
Next: authserver serve --config %s
`, s.Dir, c.Issuer.DataDir, s.Admin, password, out.RegistryStanza, out.Config)
	return err
}

// write renders configuration and policy. They are tried first, so that bad flags leave nothing behind and overwrite
// nothing.
func (s start) write(path func(name string) string, sets []string) error {
	texts := template.Must(template.ParseFS(initFiles, "init/*"))
	rendered := map[string][]byte{}
	for _, name := range []string{"authserver.yaml", "policy.yaml"} {
		var text bytes.Buffer
		if err := texts.ExecuteTemplate(&text, name, s.quoted()); err != nil {
			return err
		}
		rendered[name] = withSchema(strings.TrimSuffix(name, ".yaml"), text.Bytes())
	}
	if err := tryConfiguration(s.Dir, rendered, sets); err != nil {
		return misuse{err}
	}
	if err := writeSchemas(s.Dir); err != nil {
		return err
	}
	for name, text := range rendered {
		if err := durable.WriteFile(path(name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// quoted is s with every value as a YAML scalar that reads back as the same text.
func (s start) quoted() start {
	for _, field := range []*string{&s.Service, &s.PublicURL, &s.Listen, &s.OpsListen, &s.Issuer, &s.DataDir, &s.Admin} {
		*field = yamlText(*field)
	}
	return s
}

// yamlText writes text as a double-quoted scalar; JSON strings are YAML.
func yamlText(s string) string {
	text, _ := json.Marshal(s) // strings do not fail
	return string(text)
}
