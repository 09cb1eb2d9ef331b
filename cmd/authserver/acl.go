package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"authserver/internal/acl"
	"authserver/internal/config"
	"authserver/internal/scope"
	"authserver/internal/users"
)

func (h *hand) aclCommand() *cobra.Command {
	var q question
	explain := h.printsData(&cobra.Command{
		Use: "explain", Short: "Say what a user would be granted, and which rules decide", Args: cobra.NoArgs,
		Example: `  authserver acl explain --as alice --scope repository:team/app:pull,push
  authserver acl explain --scope repository:public/app:pull     # anonymous
  authserver acl explain --as ci --group builders --ip 10.1.2.3 --scope 'repository:prod/app:*'`,
		RunE: func(cmd *cobra.Command, _ []string) error { return h.aclExplain(cmd.Context(), q) },
	})
	f := explain.Flags()
	f.StringVar(&q.as, "as", "", "name of the user (default: anonymous)")
	f.StringArrayVar(&q.groups, "group", nil, "group that the user's backend reports (may be repeated; default: those of the account, if it is in the database)")
	f.BoolVar(&q.robot, "robot", false, "the name is a robot's")
	f.StringVar(&q.ip, "ip", "", "address of the client")
	f.StringVar(&q.service, "service", "", "service (default: the first one)")
	f.StringVar(&q.claims, "claims", "", "file with the claims of a federated identity, as a JSON object")
	f.StringVar(&q.at, "at", "", "time of the request, as in 2026-01-02T15:04:05Z (default: now)")
	f.StringArrayVar(&q.scopes, "scope", nil, "what is asked, as in repository:team/app:pull,push (may be repeated)")
	return group("acl", "Ask and test the policy", explain, h.aclTestCommand(), h.aclLintCommand(), h.aclDiffCommand())
}

type question struct {
	as, ip, service, at, claims string
	groups, scopes              []string
	robot                       bool
}

func (h *hand) aclExplain(ctx context.Context, q question) error {
	if len(q.scopes) == 0 {
		return misuse{errors.New("--scope is missing; would be right: --scope repository:team/app:pull")}
	}
	who := users.Anonymous()
	if q.as != "" {
		name, err := users.ParseName(q.as)
		if err != nil {
			return misuse{fmt.Errorf("--as: %w", err)}
		}
		who = users.Principal{Name: name, Kind: users.KindUser, Groups: q.groups}
		if q.robot {
			who.Kind = users.KindRobot
		}
	} else if len(q.groups) > 0 || q.robot || q.claims != "" {
		return misuse{errors.New("--group, --robot and --claims need --as")}
	}
	if q.claims != "" {
		file, err := os.Open(q.claims)
		if err != nil {
			return fmt.Errorf("--claims: %w", err)
		}
		defer func() { _ = file.Close() }()
		decoder := json.NewDecoder(file)
		decoder.UseNumber() // whole numbers stay whole, as in policy tests
		if err := decoder.Decode(&who.Claims); err != nil {
			return fmt.Errorf("--claims: %s is no JSON object: %w", q.claims, err)
		}
	}
	from, err := parseIP(q.ip)
	if err != nil {
		return err
	}
	at, err := parseTime(q.at)
	if err != nil {
		return err
	}
	asked, dropped, err := scope.Parse(q.scopes)
	if err != nil {
		return misuse{fmt.Errorf("--scope: %w", err)}
	}
	if len(dropped) > 0 {
		return misuse{fmt.Errorf("--scope: %q is no scope; would be right: repository:team/app:pull,push", dropped[0])}
	}
	c, err := h.loadConfig()
	if err != nil {
		return err
	}
	if who.Name != "" && len(q.groups) == 0 && !q.robot && q.claims == "" {
		h.lookUp(ctx, c, &who)
	}
	policy, err := loadPolicy(c)
	if err != nil {
		return err
	}
	service, err := c.Service(q.service)
	if err != nil {
		return err
	}
	granted, verdicts := policy.Decide(who, from, service.Name, at, asked)
	granted = asked.Intersect(granted)
	if h.output == "json" {
		if verdicts == nil {
			verdicts = []scope.Verdict{}
		}
		return h.printJSON(map[string]any{"principal": who.Name, "kind": who.Kind, "service": service.Name, "asked": asked, "granted": granted, "verdicts": verdicts})
	}
	subject := q.as
	if subject == "" {
		subject = "anonymous"
	}
	fmt.Fprintf(h.stdout, "%s at %s\n", subject, service.Name)
	table := tabwriter.NewWriter(h.stdout, 0, 0, 2, ' ', 0)
	for _, v := range verdicts {
		fmt.Fprintf(table, "%s:%s\t%s\t%s\n", v.Type, v.Name, v.Action, reason(policy, v))
		if !v.Granted && len(v.DeniedBy) == 0 {
			for _, near := range policy.Nearest(who, from, service.Name, at, v.Type, v.Name, v.Action) {
				fmt.Fprintf(table, "\t\t\t%s\n", near)
			}
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	text := granted.String()
	if text == "" {
		text = "nothing"
	}
	_, err = fmt.Fprintf(h.stdout, "granted: %s\n", text)
	if c.ACL.Webhook.Enabled() && len(granted) > 0 {
		_, err = fmt.Fprintln(h.stdout, "acl.webhook has the last word and may take away from it; explain does not ask it")
	}
	return err
}

// lookUp completes a user by its account in the database, if there is one: its kind and its groups.
func (h *hand) lookUp(ctx context.Context, c *config.Config, who *users.Principal) {
	if !c.Database.Enabled() || !slices.ContainsFunc(c.Users, func(block map[string]any) bool { return block["kind"] == "database" }) {
		return
	}
	if missingDatabase(c) { // to ask is no reason to make one
		return
	}
	db, err := openStore(ctx, c)
	if err == nil {
		defer func() { _ = db.Close() }()
		var a users.Account
		switch a, err = db.Account(ctx, who.Name); {
		case errors.Is(err, users.ErrNotFound):
			return
		case err == nil:
			who.Kind, who.Groups = a.Kind, a.Groups
			return
		}
	}
	fmt.Fprintf(h.stderr, "authserver: the groups of accounts are left out, give them with --group: %v\n", err)
}

// reason says which rules made a verdict, and where they stand.
func reason(policy *acl.Policy, v scope.Verdict) string {
	list := func(rules []string) string {
		texts := make([]string, len(rules))
		for i, r := range rules {
			texts[i] = r
			if where := policy.Where(r); where != "" {
				texts[i] += " (" + where + ")"
			}
		}
		return strings.Join(texts, ", ")
	}
	failed := ""
	if len(v.Failed) > 0 {
		failed = "; its condition could not be evaluated: " + list(v.Failed)
	}
	switch {
	case v.Granted:
		return "granted\tby " + list(v.AllowedBy) + failed
	case len(v.DeniedBy) > 0 && len(v.AllowedBy) > 0:
		return "denied\tby " + list(v.DeniedBy) + ", over " + list(v.AllowedBy) + failed
	case len(v.DeniedBy) > 0:
		return "denied\tby " + list(v.DeniedBy) + failed
	}
	return "denied\tno rule allows it" + failed
}

func (h *hand) aclLintCommand() *cobra.Command {
	return h.printsData(&cobra.Command{
		Use: "lint", Short: "Look for what is probably not meant", Args: cobra.NoArgs,
		Long: `Look for rules that are allowed and yet probably wrong: writable by everybody, never reached, push without pull, …

A finding that is meant is silenced in its rule:  silence: [NAME]
Exit status 1 when there is a finding beyond severity info.`,
		RunE: func(*cobra.Command, []string) error { return h.aclLint() },
	})
}

func (h *hand) aclLint() error {
	c, err := h.loadConfig()
	if err != nil {
		return err
	}
	policy, err := loadPolicy(c)
	if err != nil {
		return err
	}
	findings := policy.Lint()
	if h.output == "json" {
		if err := h.printJSON(append([]acl.Finding{}, findings...)); err != nil {
			return err
		}
	}
	bad := 0
	for _, f := range findings {
		if f.Severity != acl.SeverityInfo {
			bad++
		}
		if h.output == "text" {
			fmt.Fprintf(h.stdout, "%s: rule %s: %s: %s (%s)\n", f.Where, f.Rule, f.Severity, f.Text, f.Name)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%s beyond info", count(bad, "finding"))
	}
	if len(findings) == 0 && h.output == "text" {
		fmt.Fprintf(h.stdout, "ok: %s, no findings\n", count(policy.Len(), "rule"))
	}
	return nil
}
