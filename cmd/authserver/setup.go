package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"authserver/internal/config"
	"authserver/internal/durable"
	"authserver/internal/users"
)

// What init and import share: they write a configuration that serve can use as it is.

// existing are those of the files that are in a folder.
func existing(dir string, names []string) (there []string) {
	for _, name := range names {
		file := filepath.Join(dir, name)
		if _, err := os.Lstat(file); err == nil {
			there = append(there, file)
		}
	}
	return there
}

// rootCertificate is the file that registries are given to trust.
func rootCertificate(c *config.Config) (string, error) {
	return filepath.Abs(filepath.Join(c.Issuer.DataDir, "root.crt"))
}

// registryStanza is what Distribution's configuration says of a service whose verifier is chain.
func registryStanza(c *config.Config, s config.Service, root string) string {
	return fmt.Sprintf("auth:\n  token:\n    realm: %s\n    service: %s\n    issuer: %s\n    rootcertbundle: %s\n",
		yamlText(c.Realm()), yamlText(s.Name), yamlText(s.Issuer), yamlText(root))
}

// tryConfiguration reads authserver.yaml, policy.yaml and, if it is among them, users.htpasswd in a folder aside, as
// serve will read them. Aside is in dir only where there is no other place, as in an image: whoever dir belongs to could
// put links into what root makes there.
func tryConfiguration(dir string, texts map[string][]byte, sets []string) error {
	aside, err := os.MkdirTemp("", ".authserver-")
	if err != nil {
		aside, err = os.MkdirTemp(dir, ".authserver-")
	}
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(aside) }()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(aside, name), text, 0o600); err != nil {
			return err
		}
	}
	c, err := config.Load(filepath.Join(aside, "authserver.yaml"), nil, sets)
	if err == nil {
		_, err = loadPolicy(c)
	}
	if _, withUsers := texts["users.htpasswd"]; err == nil && withUsers {
		_, err = openBackends(c, users.NewGuard(users.GuardEvents{}), nil)
	}
	if err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), aside+string(filepath.Separator), ""))
	}
	return nil
}

// writeSchemas puts the schemas of its files into a folder of a configuration, where an editor finds them without a network.
func writeSchemas(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	dir = filepath.Join(dir, "schema")
	if err := durable.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, text := range schemas {
		if err := durable.WriteFile(filepath.Join(dir, name+".json"), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// withSchema is a file with the line that names its schema, in the words of the YAML language server.
func withSchema(name string, text []byte) []byte {
	return append([]byte("# yaml-language-server: $schema=schema/"+name+".json\n"), text...)
}
