package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"authserver/internal/acl"
	"authserver/internal/config"
	"authserver/internal/dockerauth"
	"authserver/internal/durable"
)

func (h *hand) importCommand() *cobra.Command {
	return group("import", "Take over the configuration of another token server", h.importDockerAuthCommand())
}

func (h *hand) importDockerAuthCommand() *cobra.Command {
	dir, force := ".", false
	o := dockerauth.Options{Check: func(policy []byte) error {
		_, err := acl.Parse("policy.yaml", policy)
		return err
	}, Exists: func(file string) bool {
		_, err := os.Stat(file)
		return err == nil
	}}
	cmd := &cobra.Command{
		Use: "docker-auth FILE", Short: "Take over a configuration of cesanta/docker_auth", Args: cobra.ExactArgs(1),
		Long: `Read a configuration of docker_auth and write authserver.yaml, policy.yaml and users.htpasswd that mean the same into a
folder. Nothing else is changed; docker_auth can go on running.

Notes go to standard error, each with the place it is about. A warning is about something that is carried over as it
is and that the operator should know of: --safe writes the safe form where there is one. When something cannot be
carried over, it is listed, the rest is written, and the exit status is 1.`,
		Example: "  authserver import docker-auth auth_config.yml -o authserver --service registry.example.com --public-url https://auth.example.com",
		RunE: func(_ *cobra.Command, args []string) error {
			if h.configFile != "" || len(h.sets) > 0 {
				return misuse{errors.New("--config and --set are for commands that read a configuration of ours; import writes one, edit it then")}
			}
			return h.importDockerAuth(args[0], dir, force, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&dir, "output-dir", "o", dir, "folder to write into")
	f.BoolVar(&o.Safe, "safe", false, "write the safe form of what is dangerous")
	f.StringSliceVar(&o.Services, "service", nil, "name of the registry: its auth.token.service (may be repeated; default: those that the ACL names, else "+dockerauth.DefaultService+")")
	f.StringVar(&o.PublicURL, "public-url", "", "address at which clients reach authserver (default: guessed)")
	f.BoolVar(&force, "force", false, "overwrite files that are there")
	return cmd
}

func (h *hand) importDockerAuth(file, dir string, force bool, o dockerauth.Options) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	r, err := dockerauth.Convert(file, data, o)
	if err != nil {
		return err
	}
	written := []struct {
		name string
		text []byte
		mode os.FileMode
	}{{"authserver.yaml", withSchema("authserver", r.Config), 0o644}, {"policy.yaml", withSchema("policy", r.Policy), 0o644}, {"users.htpasswd", r.Users, 0o600}}
	names, texts := []string{}, map[string][]byte{}
	for _, w := range written {
		names, texts[w.name] = append(names, w.name), w.text
	}
	if there := existing(dir, names); len(there) > 0 && !force {
		return fmt.Errorf("there already: %s; nothing was written, --force overwrites", strings.Join(there, ", "))
	}
	if err := tryConfiguration(dir, texts, nil); err != nil {
		return err
	}
	if err := writeSchemas(dir); err != nil {
		return err
	}
	for _, w := range written {
		if err := durable.WriteFile(filepath.Join(dir, w.name), w.text, w.mode); err != nil {
			return err
		}
	}
	c, err := config.Load(filepath.Join(dir, "authserver.yaml"), nil, nil)
	if err != nil {
		return err
	}
	if _, err := openKeyring(c, nil, false); err != nil { // the root certificate is wanted now, for the registry
		return err
	}
	return h.reportImport(c, dir, r)
}

// reportImport prints the notes, and what to do next.
func (h *hand) reportImport(c *config.Config, dir string, r *dockerauth.Result) error {
	warnings, lost := 0, 0
	for _, n := range r.Notes {
		if n.Severity == dockerauth.Lost {
			lost++
		} else {
			warnings++
		}
		fmt.Fprintf(h.stderr, "%s: %s\n", n.Severity, n)
	}
	root, err := rootCertificate(c)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "authserver.yaml")
	_, err = fmt.Fprintf(h.stdout, `Written to %s: authserver.yaml, policy.yaml (%s from %s), users.htpasswd, data/, schema/
%s, %s

In the registry's configuration (append the root certificate to the rootcertbundle that is there, and both servers are trusted):

%s
Next:
  authserver config check --config %s
  authserver acl lint --config %s
  authserver acl explain --config %s --as NAME --scope repository:some/name:pull,push
  authserver serve --config %s
`, dir, count(r.Rules, "rule"), count(r.Entries, "entry"), count(warnings, "warning"), count(lost, "thing")+" not carried over",
		registryStanza(c, c.Services[0], root), file, file, file, file)
	if err == nil && lost > 0 {
		err = fmt.Errorf("%s could not be carried over", count(lost, "thing"))
	}
	return err
}
