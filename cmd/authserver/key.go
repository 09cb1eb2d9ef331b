package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"authserver/internal/config"
	"authserver/internal/doctor"
	"authserver/internal/durable"
	"authserver/internal/issuer"
)

func (h *hand) keyCommand() *cobra.Command {
	list := h.printsData(&cobra.Command{
		Use: "list", Short: "List the signing keys", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return h.keyList(cmd.Context(), time.Now()) },
	})
	var e keyExport
	export := &cobra.Command{
		Use: "export", Short: "Print what a registry is given to trust our tokens", Args: cobra.NoArgs,
		Long: `Print what a registry is given to trust our tokens.

--format pem prints certificates: the root, for distribution's rootcertbundle (it stays when signing keys are
renewed), or the certificate of a pinned key (zot's and ChartMuseum's cert).

--format jwks prints public keys: distribution 3.x' jwks, for a service with verifier jwks; zot takes it too, with
--service.`,
		Example: `  authserver key export > /etc/registry/token-bundle.pem
  authserver key export --service zot.example.com > /etc/zot/signer.crt
  authserver key export --service registry3 --format jwks > /etc/registry/jwks.json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return h.keyExport(cmd.Context(), e) },
	}
	export.Flags().StringVar(&e.format, "format", "pem", "pem or jwks")
	export.Flags().StringVar(&e.service, "service", "", "for this service's registry (default: the services with verifier chain)")
	export.Flags().StringVar(&e.to, "to", "", "write it into this file, replaced as a whole, instead of printing it")
	export.Flags().BoolVar(&e.next, "next", false, "the key that the service will sign with next (see key rotate)")
	return group("key", "Signing keys", list, export, h.rotateCommand(), h.revokeCommand())
}

// withKeys opens what a key command works on.
func (h *hand) withKeys(ctx context.Context, use func(*config.Config, issuer.KeyConfig) error) error {
	c, err := h.loadConfig()
	if err != nil {
		return err
	}
	if c.Issuer.Keys.Store != config.KeysInDatabase {
		k, err := keyConfig(c, nil)
		if err != nil {
			return err
		}
		return use(c, k)
	}
	db, err := openStore(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	k, err := keyConfig(c, db)
	if err != nil {
		return err
	}
	return use(c, k)
}

// lookAtKeys opens the keys for a look. Those that were never made are made, so that a registry can be set up before the
// first start; but none is replaced.
func (h *hand) lookAtKeys(ctx context.Context, use func(*config.Config, *issuer.Keyring) error) error {
	return h.withKeys(ctx, func(c *config.Config, k issuer.KeyConfig) error {
		k.RotateEvery, k.PublishAhead = math.MaxInt64, 0
		ring, err := issuer.OpenKeyring(k)
		if err != nil {
			return err
		}
		for _, warning := range ring.Warnings {
			fmt.Fprintf(h.stderr, "authserver: warning: %s\n", warning)
		}
		return use(c, ring)
	})
}

// States of a key.
const (
	keySigns = "signs" // tokens
	keyNext  = "next"  // will sign
	keyOld   = "old"   // signed, and its last token may be good still
	keyRoot  = "root"  // signs the certificates of others

	keyNextRoot = "next-root"
	keyOldRoot  = "old-root"
)

type keyLine struct {
	ID        string     `json:"kid"`
	State     string     `json:"state"`
	Algorithm string     `json:"algorithm"`
	Verifier  string     `json:"verifier"`
	Services  []string   `json:"services"`
	NotAfter  *time.Time `json:"not_after,omitempty"` // of its certificate
	File      string     `json:"file"`
}

func (l keyLine) isRoot() bool {
	return l.State == keyRoot || l.State == keyNextRoot || l.State == keyOldRoot
}

func (h *hand) keyList(ctx context.Context, now time.Time) error {
	return h.lookAtKeys(ctx, func(_ *config.Config, ring *issuer.Keyring) error {
		lines := keyLines(ring)
		if h.output == "json" {
			return h.printJSON(lines)
		}
		table := tabwriter.NewWriter(h.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "KID\tSTATE\tALGORITHM\tVERIFIER\tSERVICES\tCERTIFICATE ENDS\tFILE")
		for _, l := range lines {
			end := "-"
			if l.NotAfter != nil {
				end = fmt.Sprintf("%s (%d days)", l.NotAfter.Format(time.DateOnly), int(l.NotAfter.Sub(now).Hours()/24))
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.ID, l.State, l.Algorithm, l.Verifier, strings.Join(l.Services, ","), end, l.File)
		}
		return table.Flush()
	})
}

func keyLines(ring *issuer.Keyring) []keyLine {
	lines := []keyLine{}
	seen := map[string]int{} // key to its line
	for _, service := range ring.Services() {
		for _, key := range ring.PublishedFor(service) {
			if n, ok := seen[key.ID]; ok {
				lines[n].Services = append(lines[n].Services, service)
				continue
			}
			line := keyLine{ID: key.ID, State: keyOld, Algorithm: key.Algorithm, Verifier: key.Use, Services: []string{service}, File: key.Source}
			switch key {
			case ring.For(service):
				line.State = keySigns
			case ring.NextFor(service):
				line.State = keyNext
			}
			if len(key.Chain) > 0 {
				line.NotAfter = &key.Chain[0].NotAfter
			}
			seen[key.ID] = len(lines)
			lines = append(lines, line)
		}
	}
	var trusting []string // services whose registries have a root of ours
	for _, service := range ring.Services() {
		if anchor := ring.For(service).Anchor; anchor != nil && ring.Root != nil && anchor.Equal(ring.Root) {
			trusting = append(trusting, service)
		}
	}
	for _, root := range ring.Roots() {
		line := keyLine{ID: issuer.RootID(root), State: keyOldRoot, Algorithm: issuer.ES256, Verifier: issuer.VerifierChain, Services: trusting, NotAfter: &root.NotAfter}
		name := strings.TrimSuffix(ring.RootFile, ".key")
		switch root {
		case ring.Root:
			line.State, line.File = keyRoot, ring.RootFile
		case ring.NextRoot:
			line.State, line.File = keyNextRoot, name+".next.key"
		default:
			line.File = name + ".old"
		}
		lines = append(lines, line)
	}
	return lines
}

type keyExport struct {
	format, service string
	to              string // "" = standard output
	next            bool
}

func (h *hand) keyExport(ctx context.Context, e keyExport) error {
	switch {
	case e.format != "pem" && e.format != "jwks":
		return misuse{fmt.Errorf("--format %s is not known; it is pem or jwks", e.format)}
	case e.next && e.service == "":
		return misuse{errors.New("--next needs --service: what a root is followed by is exported with it")}
	}
	return h.lookAtKeys(ctx, func(c *config.Config, ring *issuer.Keyring) error {
		keys := ring.Keys()
		if e.format == "jwks" {
			keys = ring.Published()
		}
		if e.service != "" {
			if _, err := c.Service(e.service); err != nil {
				return err
			}
			keys = exported(ring, e)
			if len(keys) == 0 {
				return fmt.Errorf("service %q has no next key; make it with: authserver key rotate --service %s", e.service, doctor.Shell(e.service))
			}
		}
		if e.format == "jwks" {
			set, err := issuer.JWKS(keys)
			if err != nil {
				return err
			}
			return h.writeExport(e, append(set, '\n'))
		}
		var anchors []*x509.Certificate
		add := func(c *x509.Certificate) {
			if c != nil && !slices.ContainsFunc(anchors, c.Equal) {
				anchors = append(anchors, c)
			}
		}
		for _, key := range keys {
			if e.service != "" || key.Use == issuer.VerifierChain {
				add(key.Anchor)
			}
			if key.Use == issuer.VerifierChain && ring.Root != nil && ring.Root.Equal(key.Anchor) {
				for _, root := range ring.Roots() { // the next one, so that registries have it before it is used
					add(root)
				}
			}
		}
		if len(anchors) == 0 {
			return errors.New("no certificate to export: these services are verified by JWKS; use --format jwks, or --service for a pinned key")
		}
		return h.writeExport(e, issuer.EncodeCertificates(anchors...))
	})
}

// writeExport prints what is exported, or writes it where a registry under another user reads it: nothing of it is secret.
func (h *hand) writeExport(e keyExport, data []byte) error {
	if e.to == "" {
		_, err := h.stdout.Write(data)
		return err
	}
	return durable.WriteFile(e.to, data, 0o644)
}

// exported are the keys of one service that its registry is given: all of a JWKS, the one of a certificate.
func exported(ring *issuer.Keyring, e keyExport) []*issuer.Key {
	switch {
	case e.next && ring.NextFor(e.service) == nil:
		return nil
	case e.next:
		return []*issuer.Key{ring.NextFor(e.service)}
	case e.format == "jwks" && ring.For(e.service).Use == issuer.VerifierJWKS:
		return ring.PublishedFor(e.service)
	}
	return []*issuer.Key{ring.For(e.service)}
}
