package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"authserver/internal/config"
	"authserver/internal/document"
	"authserver/internal/issuer"
)

func (h *hand) keyCommand() *cobra.Command {
	list := h.printsData(&cobra.Command{
		Use: "list", Short: "List the signing keys", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return h.keyList(time.Now()) },
	})
	var format, service string
	export := &cobra.Command{
		Use: "export", Short: "Print what a registry is given to trust our tokens", Args: cobra.NoArgs,
		Long: `Print what a registry is given to trust our tokens.

--format pem   certificates: distribution's rootcertbundle (the root: it stays when signing keys are renewed), or the
               certificate of a pinned key (zot's and ChartMuseum's cert)
--format jwks  public keys: distribution 3.x' jwks, for a service with verifier jwks; zot takes it too, with --service`,
		Example: `  authserver key export > /etc/registry/token-bundle.pem
  authserver key export --service zot.example.com > /etc/zot/signer.crt
  authserver key export --service registry3 --format jwks > /etc/registry/jwks.json`,
		RunE: func(*cobra.Command, []string) error { return h.keyExport(format, service) },
	}
	export.Flags().StringVar(&format, "format", "pem", "pem or jwks")
	export.Flags().StringVar(&service, "service", "", "for this service's registry (default: the services with verifier chain)")
	return group("key", "Signing keys", list, export)
}

type keyLine struct {
	ID        string     `json:"kid"`
	Algorithm string     `json:"algorithm"`
	Verifier  string     `json:"verifier"`
	Services  []string   `json:"services"`
	NotAfter  *time.Time `json:"not_after,omitempty"` // of its certificate
	File      string     `json:"file"`
}

func (h *hand) keyList(now time.Time) error {
	c, err := h.loadConfig()
	if err != nil {
		return err
	}
	ring, err := h.keyring(c)
	if err != nil {
		return err
	}
	lines := []keyLine{}
	for _, key := range ring.Keys() {
		line := keyLine{ID: key.ID, Algorithm: key.Algorithm, Verifier: key.Use, File: key.Source}
		for _, s := range ring.Services() {
			if ring.For(s) == key {
				line.Services = append(line.Services, s)
			}
		}
		if len(key.Chain) > 0 {
			line.NotAfter = &key.Chain[0].NotAfter
		}
		lines = append(lines, line)
	}
	if h.output == "json" {
		return h.printJSON(lines)
	}
	table := tabwriter.NewWriter(h.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KID\tALGORITHM\tVERIFIER\tSERVICES\tCERTIFICATE ENDS\tFILE")
	for _, l := range lines {
		end := "-"
		if l.NotAfter != nil {
			end = fmt.Sprintf("%s (%d days)", l.NotAfter.Format(time.DateOnly), int(l.NotAfter.Sub(now).Hours()/24))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", l.ID, l.Algorithm, l.Verifier, strings.Join(l.Services, ","), end, l.File)
	}
	return table.Flush()
}

// keyring opens the keys for a look. Those that were never made are made, so that a registry can be set up before the
// first start; but none is replaced.
func (h *hand) keyring(c *config.Config) (*issuer.Keyring, error) {
	c.Issuer.Keys.RotateEvery = document.Duration(math.MaxInt64)
	ring, err := openKeyring(c, false)
	if err != nil {
		return nil, err
	}
	for _, warning := range ring.Warnings {
		fmt.Fprintf(h.stderr, "authserver: warning: %s\n", warning)
	}
	return ring, nil
}

func (h *hand) keyExport(format, service string) error {
	if format != "pem" && format != "jwks" {
		return misuse{fmt.Errorf("--format %s is not known; it is pem or jwks", format)}
	}
	c, err := h.loadConfig()
	if err != nil {
		return err
	}
	ring, err := h.keyring(c)
	if err != nil {
		return err
	}
	var keys []*issuer.Key
	for _, key := range ring.Keys() {
		if service == "" && key.Use == issuer.VerifierChain || service == "" && format == "jwks" {
			keys = append(keys, key)
		}
	}
	if service != "" {
		if _, err := c.Service(service); err != nil {
			return err
		}
		keys = []*issuer.Key{ring.For(service)}
	}
	if format == "jwks" {
		set, err := issuer.JWKS(keys)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(h.stdout, "%s\n", set)
		return err
	}
	var anchors []*x509.Certificate
	for _, key := range keys {
		if key.Anchor != nil && !containsCertificate(anchors, key.Anchor) {
			anchors = append(anchors, key.Anchor)
		}
	}
	if len(anchors) == 0 {
		return errors.New("no certificate to export: these services are verified by JWKS; use --format jwks, or --service for a pinned key")
	}
	_, err = h.stdout.Write(issuer.EncodeCertificates(anchors...))
	return err
}

func containsCertificate(list []*x509.Certificate, c *x509.Certificate) bool {
	for _, have := range list {
		if have.Equal(c) {
			return true
		}
	}
	return false
}
