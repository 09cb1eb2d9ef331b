package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"authserver/internal/acl"
	"authserver/internal/config"
	"authserver/internal/server"
)

func (h *hand) configCommand() *cobra.Command {
	return group("config", "Check or show the configuration",
		&cobra.Command{
			Use: "check", Short: "Check configuration, policy, users files and keys, and change nothing", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return h.configCheck() },
		},
		h.printsData(&cobra.Command{
			Use: "show", Short: "Show the effective configuration: file, environment and flags laid over the defaults", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return h.configShow() },
		}),
		&cobra.Command{
			Use: "schema [authserver|policy|test]", Short: "Print the JSON schema of a file, for editors", Args: cobra.MaximumNArgs(1),
			ValidArgs: slices.Sorted(maps.Keys(schemas)),
			Long: `Print the JSON schema of authserver.yaml (the default), of a policy file, or of a file of policy tests. An editor with the YAML
language server completes and checks a file whose first line names it, as init writes it:
  # yaml-language-server: $schema=schema/authserver.json`,
			RunE: func(_ *cobra.Command, args []string) error {
				schema, ok := schemas[append(args, "authserver")[0]]
				if !ok {
					return misuse{fmt.Errorf("there is no schema %q; would be right: %s", args[0], strings.Join(slices.Sorted(maps.Keys(schemas)), ", "))}
				}
				_, err := h.stdout.Write(schema)
				return err
			},
		})
}

// schemas are for editors, by the name of the file that they describe.
var schemas = map[string][]byte{"authserver": config.Schema, "policy": acl.PolicySchema, "test": acl.TestSchema}

// configCheck builds a generation as serve would, with tokens minted and verified, but writes nothing.
func (h *hand) configCheck() error {
	c, err := h.loadConfig()
	if err != nil {
		return err
	}
	g, err := h.tryGeneration(c, nil)
	if err := errors.Join(writable(c), err); err != nil {
		return err
	}
	if c.Server.TLS.Enabled() {
		if _, err := server.LoadCertificate(c.Server.TLS.CertFile, c.Server.TLS.KeyFile, slog.New(slog.DiscardHandler)); err != nil {
			return c.Fault("server.tls.cert_file", err)
		}
	}
	for _, warning := range g.ring.Warnings {
		fmt.Fprintf(h.stderr, "authserver: warning: %s\n", warning)
	}
	_, err = fmt.Fprintf(h.stdout, "ok: %s, %s, %s\n", count(len(c.Services), "service"), count(g.policy.Len(), "rule"), count(len(c.Users), "user backend"))
	return err
}

// writable checks the places that serve writes to.
func writable(c *config.Config) error {
	const canWrite = 2 // W_OK, access(2)
	data := c.Issuer.DataDir
	for {
		if _, err := os.Lstat(data); err == nil || data == filepath.Dir(data) {
			break
		}
		data = filepath.Dir(data) // it is made, with its parents
	}
	var faults []error
	if info, err := os.Stat(data); err == nil && !info.IsDir() {
		faults = append(faults, c.Fault("issuer.data_dir", fmt.Errorf("%s is not a folder", data)))
	} else if err := syscall.Access(data, canWrite); err != nil && (keepsInDataDir(c) || data != c.Issuer.DataDir) {
		faults = append(faults, c.Fault("issuer.data_dir", fmt.Errorf("%s cannot be written to: %w", data, err)))
	}
	if file, ok := strings.CutPrefix(c.Audit.Output, "file:"); ok {
		if err := syscall.Access(filepath.Dir(file), canWrite); err != nil {
			faults = append(faults, c.Fault("audit.output", fmt.Errorf("%s cannot be written to: %w", filepath.Dir(file), err)))
		}
	}
	return errors.Join(faults...)
}

// keepsInDataDir tells whether anything is ever written to issuer.data_dir: not by a replica whose accounts and keys are
// elsewhere, and which runs on a read-only file system.
func keepsInDataDir(c *config.Config) bool {
	return strings.HasPrefix(c.Database.URL, "sqlite:") || c.Issuer.Keys.Store == config.KeysInDataDir &&
		slices.ContainsFunc(c.Services, func(s config.Service) bool {
			return s.KeyFile == "" && (s.Verifier != "chain" || c.Issuer.Keys.KeyFile == "")
		})
}

func (h *hand) configShow() error {
	c, err := h.loadConfig()
	if err != nil {
		return err
	}
	// An unknown key of a backend could hold a secret under any name: it is a fault here as it is everywhere.
	var faults []error
	for i := range c.Users {
		if _, err := describe(c, i); err != nil {
			faults = append(faults, err)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	shown, err := redacted(c)
	if err != nil {
		return err
	}
	if h.output == "json" {
		return h.printJSON(shown)
	}
	text, err := yaml.Marshal(shown)
	if err != nil {
		return err
	}
	_, err = h.stdout.Write(text)
	return err
}

// redacted is the configuration without what may be a secret: secrets belong into files, and a file's name may be shown,
// but what stands under such a key by mistake may not.
func redacted(c *config.Config) (map[string]any, error) {
	text, err := yaml.Marshal(c)
	if err != nil {
		return nil, err
	}
	var shown map[string]any
	if err := yaml.Unmarshal(text, &shown); err != nil {
		return nil, err
	}
	redact(shown)
	return shown, nil
}

// plain are keys with such a word in their names that hold no secret.
var plain = map[string]bool{"token_lifetime": true, "keys": true, "passwords": true, "refresh_tokens": true}

func redact(value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			secret := false
			for _, word := range []string{"password", "secret", "token", "private", "credential", "key"} {
				secret = secret || strings.Contains(key, word)
			}
			if secret && !strings.HasSuffix(key, "_file") && !plain[key] {
				v[key] = "[redacted]"
				continue
			}
			if text, ok := below.(string); ok {
				v[key] = redactedAddress(text)
			}
			redact(below)
		}
	case []any:
		for i, below := range v {
			if text, ok := below.(string); ok {
				v[i] = redactedAddress(text)
			}
			redact(below)
		}
	}
}

// redactedAddress hides the passwords in an address: database.url may have one when it comes from the environment.
func redactedAddress(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		if strings.ContainsRune(s, '@') {
			return "[redacted]"
		}
		return s
	}
	query := u.Query()
	for name := range query {
		if strings.Contains(strings.ToLower(name), "password") {
			query.Set(name, "xxxxx")
			u.RawQuery = query.Encode()
		}
	}
	if shown := u.Redacted(); strings.Contains(shown, "xxxxx") {
		return shown
	}
	return s
}
