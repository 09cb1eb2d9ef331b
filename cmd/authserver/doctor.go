package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"authserver/internal/doctor"
)

type doctorFlags struct {
	registry string
	files    []string
	as       far
	failOn   string
}

func (h *hand) doctorCommand() *cobra.Command {
	var d doctorFlags
	cmd := h.printsData(&cobra.Command{
		Use: "doctor", Short: "Say what is wrong between clients, authserver and a registry", Args: cobra.NoArgs,
		Long: `Look at everything between a client's login and a registry that believes our tokens, and say of each thing that is
wrong what it is, what comes of it, and the line to change on which side. Nothing is changed.

Looked at: configuration, policy, users and keys; who can read and write the files; database, listeners, clock;
server.public_url as clients reach it. With --registry, a running registry: where it sends clients, and what it makes of
our tokens (they allow nothing); when it refuses one, others that differ in one thing each tell why. With --registry-config, what
each version of that registry will make of our tokens, without any of them running.

Run it on the machine of authserver, as its user. Exit status 1 when there is an error (--fail-on warning: or a warning).`,
		Example: `  authserver doctor
  authserver doctor --registry https://registry.example.com
  authserver doctor --registry-config config.yml --registry-config token-bundle.pem
  authserver doctor --registry https://registry.example.com --as alice`,
		RunE: func(cmd *cobra.Command, _ []string) error { return h.doctor(cmd.Context(), d) },
	})
	flags := cmd.Flags()
	flags.StringVar(&d.registry, "registry", "", "address of a running registry, as in https://registry.example.com")
	flags.StringArrayVar(&d.files, "registry-config", nil, "a registry's configuration; repeat it for certificates or a JWKS that it names and that are elsewhere here")
	flags.StringVar(&d.as.login, "as", "", "log in as this user too, as docker login does; the password is in "+passwordVariable+", or is asked for")
	d.as.stdinFlag = "--password-stdin"
	flags.BoolVar(&d.as.fromStdin, "password-stdin", false, "read the password for --as from standard input")
	flags.StringVar(&d.failOn, "fail-on", "error", "least severity for exit status 1: error or warning")
	return cmd
}

func (h *hand) doctor(ctx context.Context, d doctorFlags) error {
	least := doctor.Error
	switch d.failOn {
	case "error":
	case "warning":
		least = doctor.Warning
	default:
		return misuse{fmt.Errorf("--fail-on %s is not known; it is error or warning", d.failOn)}
	}
	if d.as.fromStdin && d.as.login == "" {
		return misuse{errors.New("--password-stdin is for --as USER")}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = 64 << 10
	subject := &doctor.Subject{Registry: d.registry, User: d.as.login, Now: time.Now, Resolve: resolve(ctx), Client: &http.Client{
		Transport:     transport,
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a finding, and credentials are for one address
	}}
	if len(d.files) > 0 {
		var err error
		if subject.Stanza, err = doctor.ReadStanza(d.files...); err != nil {
			return fmt.Errorf("--registry-config: %w", err)
		}
	}
	report := &doctor.Report{}
	if c := h.checkUp(ctx, subject, report); c != nil {
		if d.as.login != "" {
			var err error
			d.as.server = c.Server.PublicURL
			if subject.Password, err = h.loginPassword(d.as); err != nil {
				return err
			}
		}
		subject.Wiring(ctx, report)
	}
	print := printReport
	if h.output == "json" {
		print = func(_ io.Writer, r *doctor.Report) error { return h.printJSON(r) }
	}
	if err := print(h.stdout, report); err != nil {
		return err
	}
	if report.Worst() >= least {
		return errors.New(summary(report))
	}
	return nil
}

// resolve is who has an address; it is given up soon, for it is asked about names that may be nobody's.
func resolve(ctx context.Context) func(string) []string {
	return func(host string) []string {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return nil
		}
		return addresses
	}
}

// printReport prints a report for people.
func printReport(out io.Writer, r *doctor.Report) error {
	var text strings.Builder
	for _, f := range r.Findings {
		severity := f.Severity.String()
		if f.Severity == doctor.Error {
			severity = "ERROR"
		}
		fmt.Fprintf(&text, "%-8s %s: %s\n", severity, f.Check, f.What)
		if f.Why != "" {
			fmt.Fprintf(&text, "         why  %s\n", f.Why)
		}
		for i, fix := range f.Fixes {
			word := "fix"
			if i > 0 {
				word = "or "
			}
			where := ""
			if fix.Where != "" {
				where = ", " + fix.Where
			}
			fmt.Fprintf(&text, "         %s  %s%s: %s\n", word, fix.Side, where, fix.Do)
		}
		if f.Docs != "" {
			fmt.Fprintf(&text, "         see  %s\n", f.Docs)
		}
	}
	if len(r.Predictions) > 0 {
		fmt.Fprintf(&text, "\nWhat registries with that configuration make of our tokens:\n")
		table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
		for _, p := range r.Predictions {
			fmt.Fprintf(table, "  %s\t%s\t%s\n", p.Verifier, p.Verdict, strings.Join(p.Because, ", "))
		}
		_ = table.Flush() // a strings.Builder does not fail
	}
	fmt.Fprintf(&text, "\n%s\n", summary(r))
	_, err := io.WriteString(out, text.String())
	return err
}

func summary(r *doctor.Report) string {
	return fmt.Sprintf("%s, %s", count(r.Count(doctor.Error), "error"), count(r.Count(doctor.Warning), "warning"))
}
