package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/text/unicode/norm"

	"authserver/internal/acl"
	"authserver/internal/config"
	"authserver/internal/network"
	"authserver/internal/store"
	"authserver/internal/users"
)

// newToken is what `token create` is told.
type newToken struct {
	user, name, expires string
	scopes, networks    []string
}

func (h *hand) tokenCommand() *cobra.Command {
	var t newToken
	var there far
	create := h.printsData(&cobra.Command{
		Use: "create", Short: "Make an access token for a user or a robot, and print it once", Args: cobra.NoArgs,
		Long: `Make an access token. It is used as the password of its owner, and may do what both its owner and its scopes allow, decided
anew at every use. It is printed once and kept nowhere; what is kept is its hash.`,
		Example: `  authserver token create --user alice --name laptop
  authserver token create --user ci --name pipeline --expires 365d --scope 'repository:team/**:pull,push' --from-cidr 10.0.0.0/8`,
		RunE: func(cmd *cobra.Command, _ []string) error { return h.tokenCreate(cmd.Context(), t, there) },
	})
	f := create.Flags()
	f.StringVar(&t.user, "user", "", "owner: a user or robot of any backend (required)")
	f.StringVar(&t.name, "name", "", "name of the token (required)")
	f.StringVar(&t.expires, "expires", "90d", "how long it is good, as in 90d or 12h, or never")
	f.StringArrayVar(&t.scopes, "scope", nil, "what it may do at most; names are patterns (may be repeated; default: whatever its owner may)")
	f.StringSliceVar(&t.networks, "from-cidr", nil, "networks that it can be used from (may be repeated; default: all)")

	var owner string
	list := h.printsData(&cobra.Command{
		Use: "list", Short: "List access tokens", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			owner := norm.NFC.String(owner)
			if there.server != "" {
				r, err := h.dialFor(there, owner)
				if err != nil {
					return err
				}
				lines, err := r.tokens(cmd.Context(), owner)
				if err != nil {
					return err
				}
				return h.printTokens(lines)
			}
			return h.withDatabase(cmd.Context(), func(_ *config.Config, db *store.Store) error { return h.tokenList(cmd.Context(), db, owner) })
		},
	})
	list.Flags().StringVar(&owner, "user", "", "of this owner (default: all)")
	var whose string
	revoke := &cobra.Command{
		Use: "revoke ID...", Short: "End access tokens", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if there.server != "" {
				r, err := h.dialFor(there, whose)
				if err != nil {
					return err
				}
				return each(nil, args, func(id string) error { return r.revokeToken(cmd.Context(), whose, id) })
			}
			return h.withDatabase(cmd.Context(), func(_ *config.Config, db *store.Store) error {
				return each(nil, args, func(id string) error {
					if whose != "" {
						return db.RevokeAccessTokenOf(cmd.Context(), store.Owner{Name: whose}, id)
					}
					return db.RevokeAccessToken(cmd.Context(), id)
				})
			})
		},
	}
	revoke.Flags().StringVar(&whose, "user", "", "of this owner only (needed with --server)")
	cmd := group("token", "Access tokens", create, list, revoke)
	there.flags(cmd)
	return cmd
}

// madeToken is what `token create` prints.
type madeToken struct {
	Token   string     `json:"token"`
	ID      string     `json:"id"`
	Owner   string     `json:"owner"`
	Name    string     `json:"name"`
	Expires *time.Time `json:"expires"`
}

func (h *hand) tokenCreate(ctx context.Context, t newToken, there far) error {
	now := time.Now()
	expires, err := parseExpiry(t.expires, now)
	if err != nil {
		return misuse{fmt.Errorf("--expires: %w", err)}
	}
	if t.user == "" || t.name == "" {
		return misuse{errors.New("--user and --name are needed: whose token it is, and what it is called")}
	}
	if len(t.name) > users.MaxNameLength {
		return misuse{fmt.Errorf("--name: at most %d bytes", users.MaxNameLength)}
	}
	if t.name, err = users.ParseName(t.name); err != nil {
		return misuse{fmt.Errorf("--name: %w", err)}
	}
	if t.user, err = users.ParseName(t.user); err != nil {
		return misuse{fmt.Errorf("--user: %w", err)}
	}
	if err := acl.CheckLimit(t.scopes); err != nil {
		return misuse{fmt.Errorf("--scope: %w", err)}
	}
	var networks []netip.Prefix
	for _, s := range t.networks {
		n, err := network.Parse(s)
		if err != nil {
			return misuse{fmt.Errorf("--from-cidr: %w", err)}
		}
		networks = append(networks, n)
	}
	if there.server != "" {
		r, err := h.dialFor(there, t.user)
		if err != nil {
			return err
		}
		made, err := r.createToken(ctx, t)
		if err != nil {
			return err
		}
		return h.printMade(made)
	}
	return h.withDatabase(ctx, func(c *config.Config, db *store.Store) error {
		guard := users.NewGuard(users.GuardEvents{})
		backends, err := openBackends(c, guard, db)
		if err != nil {
			return err
		}
		owner, _, err := users.NewChain(backends, guard, nil).Lookup(ctx, t.user)
		switch {
		case errors.Is(err, users.ErrUnknown):
			return fmt.Errorf("--user: there is no %q in a backend that can be looked up", t.user)
		case errors.Is(err, users.ErrRefused):
			return fmt.Errorf("--user: %q is disabled", t.user)
		case err != nil:
			return err
		}
		secret, hash, shown := users.NewAccessToken()
		token := users.AccessToken{
			ID: users.NewID(), Owner: owner.Name, Backend: owner.Backend, Name: t.name, Shown: shown,
			Scopes: t.scopes, Networks: networks, Created: now, Expires: expires,
		}
		if err := db.AddAccessToken(ctx, hash, token); err != nil {
			return err
		}
		return h.printMade(madeToken{secret, token.ID, token.Owner, token.Name, never(expires)})
	})
}

func (h *hand) printMade(m madeToken) error {
	if h.output == "json" {
		return h.printJSON(m)
	}
	until := "never expires"
	if m.Expires != nil {
		until = "expires " + m.Expires.UTC().Format(time.RFC3339)
	}
	_, err := fmt.Fprintf(h.stdout, "%s\n", m.Token)
	fmt.Fprintf(h.stderr, "Token %s of %s, %s; shown this once. Use it as the password of %s.\n", m.ID, m.Owner, until, m.Owner)
	return err
}

// parseExpiry reads 90d, 12h or never.
func parseExpiry(s string, now time.Time) (time.Time, error) {
	if s == "never" {
		return time.Time{}, nil
	}
	lifetime, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		lifetime = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || lifetime <= 0 {
		return time.Time{}, fmt.Errorf("%q is no time to come; would be right: 90d, 12h or never", s)
	}
	return now.Add(lifetime), nil
}

// never is nil for the zero time.
func never(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// tokenLine is what is shown of a token.
type tokenLine struct {
	ID       string         `json:"id"`
	Owner    string         `json:"owner"`
	Backend  string         `json:"backend"`
	Name     string         `json:"name"`
	Shown    string         `json:"prefix"`
	Scopes   []string       `json:"scopes"` // null = whatever the owner may
	Networks []netip.Prefix `json:"networks"`
	Created  time.Time      `json:"created"`
	Expires  *time.Time     `json:"expires"` // null = never
	LastUsed *time.Time     `json:"last_used"`
	LastFrom string         `json:"last_used_from"`
}

func (h *hand) tokenList(ctx context.Context, db *store.Store, owner string) error {
	lines := []tokenLine{}
	for after := ""; ; {
		tokens, err := db.AccessTokens(ctx, owner, after, page)
		if err != nil {
			return err
		}
		for _, t := range tokens {
			lines = append(lines, tokenLine{t.ID, t.Owner, t.Backend, t.Name, t.Shown, t.Scopes, t.Networks, t.Created, never(t.Expires), never(t.LastUsed), t.LastFrom})
			after = t.ID
		}
		if len(tokens) < page {
			break
		}
	}
	return h.printTokens(lines)
}

func (h *hand) printTokens(lines []tokenLine) error {
	if h.output == "json" {
		return h.printJSON(lines)
	}
	day := func(t *time.Time) string {
		if t == nil {
			return "never"
		}
		return t.Format(time.DateOnly)
	}
	table := tabwriter.NewWriter(h.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tOWNER\tNAME\tPREFIX\tCREATED\tEXPIRES\tLAST USED\tSCOPES")
	for _, t := range lines {
		used, scopes := day(t.LastUsed), "all"
		if t.LastUsed != nil {
			used = t.LastUsed.Format("2006-01-02 15:04")
			if t.LastFrom != "" {
				used += " from " + t.LastFrom
			}
		}
		if t.Scopes != nil {
			scopes = strings.Join(t.Scopes, " ")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s…\t%s\t%s\t%s\t%s\n", t.ID, t.Owner, t.Name, t.Shown, day(&t.Created), day(t.Expires), used, scopes)
	}
	return table.Flush()
}
