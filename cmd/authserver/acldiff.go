package main

import (
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"authserver/internal/acl"
	"authserver/internal/scope"
)

// mostDecisions bounds a comparison: some seconds of work.
const mostDecisions = 2_000_000

// comparison is a call of acl diff.
type comparison struct {
	resources       []string
	ip, service, at string
}

func (h *hand) aclDiffCommand() *cobra.Command {
	var d comparison
	cmd := h.printsData(&cobra.Command{
		Use: "diff OLD NEW", Short: "Say who gains and who loses what between two policies", Args: cobra.ExactArgs(2),
		Long: `Say who gains and who loses what between two policies (files or globs).

Compared are the users, robots and groups that the policies name, anonymous, and somebody whom nobody names, on a name for
each pattern of the policies and on the repositories given with --repository. A request comes from an address that is not known
unless --ip says so: rules with networks then count as they do for such a request.`,
		Example: `  git show HEAD:policy.yaml > old.yaml && authserver acl diff old.yaml policy.yaml`,
		RunE:    func(_ *cobra.Command, args []string) error { return h.aclDiff(d, args[0], args[1]) },
	})
	f := cmd.Flags()
	f.StringArrayVar(&d.resources, "repository", nil, "compare on this repository too (may be repeated)")
	f.StringVar(&d.ip, "ip", "", "address of the client")
	f.StringVar(&d.service, "service", "", "service (default: the first one of the configuration, if there is one)")
	f.StringVar(&d.at, "at", "", "time of the request, as in 2026-01-02T15:04:05Z (default: now)")
	return cmd
}

func (h *hand) aclDiff(d comparison, before, after string) error {
	from, err := parseIP(d.ip)
	if err != nil {
		return err
	}
	at, err := parseTime(d.at)
	if err != nil {
		return err
	}
	for _, name := range d.resources {
		if name == "" || !scope.ValidName(name) {
			return misuse{fmt.Errorf("--repository: %q is no name of a repository", name)}
		}
	}
	old, err := acl.Load([]string{before})
	if err != nil {
		return err
	}
	now, err := acl.Load([]string{after})
	if err != nil {
		return err
	}
	if d.service == "" {
		if c, err := h.loadConfig(); err == nil { // two policies can be compared without one
			d.service = c.Services[0].Name
		}
	}
	world := acl.NewWorld(d.resources, old, now)
	if world.Size() > mostDecisions {
		return fmt.Errorf("the policies name too much to compare: %d decisions, at most %d are made", world.Size(), mostDecisions)
	}
	changes := acl.Diff(old, now, world, from, d.service, at)
	if h.output == "json" {
		return h.printJSON(append([]acl.Change{}, changes...))
	}
	table := tabwriter.NewWriter(h.stdout, 0, 0, 2, ' ', 0)
	for _, c := range changes {
		line := func(sign string, actions []string) {
			if len(actions) > 0 {
				fmt.Fprintf(table, "%s %s\t%s\t%s\n", sign, c.Principal, c.Resource, strings.Join(actions, ","))
			}
		}
		line("+", c.Gains)
		line("-", c.Loses)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(h.stdout, "%d changes in %d decisions\n", len(changes), world.Size())
	return err
}

// parseIP reads --ip; none is the address that is not known.
func parseIP(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	from, err := netip.ParseAddr(text)
	if err != nil {
		return from, misuse{fmt.Errorf("--ip: %q is no address", text)}
	}
	return from.Unmap(), nil
}

// parseTime reads --at; none is now.
func parseTime(text string) (time.Time, error) {
	if text == "" {
		return time.Now(), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, misuse{fmt.Errorf("--at: %q is no time; would be right: 2026-01-02T15:04:05Z", text)}
	}
	return at, nil
}
