package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"authserver/internal/acl"
	"authserver/internal/audit"
	"authserver/internal/config"
	"authserver/internal/issuer"
	"authserver/internal/metrics"
	"authserver/internal/server"
	"authserver/internal/users"
)

// lasting is what outlives a reload.
type lasting struct {
	log     *slog.Logger
	metrics *metrics.Metrics
	audit   *audit.Log
	checker *users.Checker
}

// generation is everything that a configuration makes. It is built aside, checked, and used as a whole or not at all.
type generation struct {
	config  *config.Config
	handler http.Handler
	ring    *issuer.Keyring
	policy  *acl.Policy
	files   []string // a change of one of them calls for the next generation
	stamp   string   // of files, from before they were read
}

// newGeneration builds a generation. Every fault of configuration, policy, users and keys is returned, joined.
func newGeneration(c *config.Config, l lasting, dryRun bool) (*generation, error) {
	g := &generation{config: c, files: files(c)}
	g.stamp = stampOf(g.files)
	var faults []error
	note := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}

	policy, err := loadPolicy(c)
	note(err)
	g.policy = policy

	backends, err := backends(c, l.checker)
	note(err)

	ring, err := openKeyring(c, dryRun)
	note(err)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	g.ring = ring

	mint, err := issuer.New(issuer.Config{
		Services: services(c), Keyring: ring, Policy: policy, Audit: l.audit,
		Users: users.NewChain(backends, l.metrics.Authentication),
	})
	if err != nil {
		return nil, err
	}
	jwks, err := issuer.JWKS(ring.Keys())
	if err != nil {
		return nil, err
	}
	proxies, trustUnix := proxies(c.Server.TrustedProxies)
	g.handler = server.New(server.Config{
		Issuer: mint, JWKS: jwks, Realm: c.Issuer.Name, TrustedProxies: proxies, TrustUnix: trustUnix,
		CORSOrigins: c.Server.CORSOrigins, Log: l.log, Metrics: l.metrics,
	})
	return g, nil
}

// backends makes the identity backends in the order of users[]. This is the one switch that names them all.
func backends(c *config.Config, checker *users.Checker) ([]users.Authenticator, error) {
	var made []users.Authenticator
	var faults []error
	for i, block := range c.Users {
		switch kind := block["kind"]; kind {
		case "htpasswd":
			file, err := htpasswdFile(c, i)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			backend, err := users.LoadHTPasswd(file, checker)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			made = append(made, backend)
		default:
			faults = append(faults, c.Fault(fmt.Sprintf("users[%d].kind", i), fmt.Errorf("%q is not known; would be right: htpasswd", kind)))
		}
	}
	return made, errors.Join(faults...)
}

// htpasswdFile is the file of users[i], whose kind is htpasswd.
func htpasswdFile(c *config.Config, i int) (string, error) {
	var options users.HTPasswdOptions
	if err := c.DecodeUsers(i, &options); err != nil {
		return "", err
	}
	if options.File == "" {
		return "", c.Fault(fmt.Sprintf("users[%d].file", i), errors.New("missing; would be right: file: users.htpasswd"))
	}
	return c.Path(options.File), nil
}

// loadPolicy compiles the policy and holds it against the services: a rule that is limited to a service we do not serve
// is a typing error, and if it denies, a hole.
func loadPolicy(c *config.Config) (*acl.Policy, error) {
	policy, err := acl.Load(c.ACL.Files)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, s := range c.Services {
		known[s.Name] = true
	}
	var faults []error
	for service, rule := range policy.Services() {
		if !known[service] {
			faults = append(faults, fmt.Errorf("%s: rule %q: services: %q is not one of services[].name in the configuration", policy.Where(rule), rule, service))
		}
	}
	return policy, errors.Join(faults...)
}

func services(c *config.Config) []issuer.Service {
	list := make([]issuer.Service, len(c.Services))
	for i, s := range c.Services {
		list[i] = issuer.Service{
			Name: s.Name, Issuer: s.Issuer, Verifier: s.Verifier, Algorithm: s.Algorithm,
			Lifetime: time.Duration(s.TokenLifetime), KeyFile: s.KeyFile, CertificateFile: s.CertificateFile,
		}
	}
	return list
}

func openKeyring(c *config.Config, dryRun bool) (*issuer.Keyring, error) {
	return issuer.OpenKeyring(issuer.KeyConfig{
		DataDir: c.Issuer.DataDir, Name: c.Issuer.Name, Services: services(c),
		RotateEvery: time.Duration(c.Issuer.Keys.RotateEvery),
		KeyFile:     c.Issuer.Keys.KeyFile, CertificateFile: c.Issuer.Keys.CertificateFile,
		DryRun: dryRun, Now: time.Now,
	})
}

// proxies reads server.trusted_proxies, which the configuration has checked.
func proxies(list []string) (networks []netip.Prefix, trustUnix bool) {
	for _, s := range list {
		if n, err := netip.ParsePrefix(s); err == nil {
			networks = append(networks, n.Masked())
		} else {
			trustUnix = trustUnix || s == "unix"
		}
	}
	return networks, trustUnix
}

// files are what a generation is made from, beside the configuration file.
func files(c *config.Config) []string {
	list := append([]string{}, c.ACL.Files...)
	for i, block := range c.Users {
		if block["kind"] == "htpasswd" {
			if file, err := htpasswdFile(c, i); err == nil {
				list = append(list, file)
			}
		}
	}
	return list
}

// stampOf tells one state of files and file globs from another. Links are followed, so that a swapped link (a mounted
// ConfigMap) is a change.
func stampOf(patterns []string) string {
	var stamp strings.Builder
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			files = []string{pattern}
		}
		for _, file := range files {
			if info, err := os.Stat(file); err == nil {
				fmt.Fprintf(&stamp, "%s %d %d\n", file, info.ModTime().UnixNano(), info.Size())
			} else {
				fmt.Fprintf(&stamp, "%s %v\n", file, err)
			}
		}
	}
	return stamp.String()
}
