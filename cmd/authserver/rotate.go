package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"authserver/internal/config"
	"authserver/internal/doctor"
	"authserver/internal/issuer"
)

// rotation is what key rotate is asked for.
type rotation struct {
	service                          string
	root, activate, plan, encryption bool
}

func (h *hand) rotateCommand() *cobra.Command {
	var r rotation
	cmd := h.printsData(&cobra.Command{
		Use: "rotate", Short: "Replace signing keys", Args: cobra.NoArgs,
		Long: `Replace signing keys. A running server sees it within two seconds; nothing needs a restart here.

Without a flag, the signing keys of all services with verifier chain are replaced at once: their registries trust the
root, and notice nothing. The server does the same by itself every issuer.keys.rotate_every.

A registry that was given the key itself (verifier pinned or jwks), or the root, has to be told first. That takes two
steps, and --plan says where you are: the first makes the next key, --activate lets it sign.

--encryption replaces no signing key: it encrypts those in the database anew, with the first line of
issuer.keys.encryption_key_file, so that the other lines are needed no more.`,
		Example: `  authserver key rotate
  authserver key rotate --service zot.example.com --plan
  authserver key rotate --service zot.example.com
  authserver key rotate --service zot.example.com --activate
  authserver key rotate --root`,
		RunE: func(cmd *cobra.Command, _ []string) error { return h.rotate(cmd.Context(), r) },
	})
	cmd.Flags().StringVar(&r.service, "service", "", "the key of this service")
	cmd.Flags().BoolVar(&r.root, "root", false, "the root, which registries with verifier chain trust")
	cmd.Flags().BoolVar(&r.activate, "activate", false, "let the next key sign")
	cmd.Flags().BoolVar(&r.encryption, "encryption", false, "what keys in the database are encrypted with")
	cmd.Flags().BoolVar(&r.plan, "plan", false, "say what there is to do, and do nothing")
	return cmd
}

func (h *hand) rotate(ctx context.Context, r rotation) error {
	return h.withKeys(ctx, func(c *config.Config, k issuer.KeyConfig) error {
		verifier := issuer.VerifierChain
		if r.service != "" {
			s, err := c.Service(r.service)
			if err != nil {
				return err
			}
			verifier = s.Verifier
		}
		switch {
		case r.encryption && (r.root || r.service != "" || r.activate || r.plan):
			return misuse{errors.New("--encryption goes with no other flag of rotate")}
		case r.encryption:
			return h.reseal(k)
		case r.root && r.service != "":
			return misuse{errors.New("--root and --service are two different keys")}
		case r.plan && r.activate:
			return misuse{errors.New("--plan does nothing, and --activate does")}
		case r.activate && !r.root && verifier == issuer.VerifierChain:
			return misuse{errors.New("--activate is for --root, and for the --service of a registry that was given the key itself; other keys sign at once")}
		}
		ring, err := apply(k, r, verifier)
		switch {
		case errors.Is(err, issuer.ErrOwnKey):
			return fmt.Errorf("service %q: %w", r.service, err)
		case errors.Is(err, issuer.ErrNoNext):
			return fmt.Errorf("%w: authserver key rotate %s", err, r.target())
		case err != nil:
			return err
		}
		return h.report(c, ring, r, verifier)
	})
}

// reseal encrypts the keys in the database anew.
func (h *hand) reseal(k issuer.KeyConfig) error {
	count, err := issuer.Reseal(k.Vault)
	if err != nil {
		return err
	}
	if h.output == "json" {
		return h.printJSON(struct {
			Encrypted int `json:"encrypted"`
		}{count})
	}
	_, err = fmt.Fprintf(h.stdout, "Encrypted anew: %d. No other line of issuer.keys.encryption_key_file than the first is needed now.\n", count)
	return err
}

func (r rotation) target() string {
	if r.root {
		return "--root"
	}
	return "--service " + doctor.Shell(r.service)
}

// apply does what is asked.
func apply(k issuer.KeyConfig, r rotation, verifier string) (*issuer.Keyring, error) {
	switch {
	case r.plan:
		k.DryRun = true
		return issuer.OpenKeyring(k)
	case r.root && r.activate:
		return issuer.ActivateRoot(k)
	case r.root:
		return issuer.StageRoot(k)
	case verifier == issuer.VerifierChain:
		return issuer.RotateLeaves(k, r.service)
	case r.activate:
		return issuer.Activate(k, r.service)
	}
	return issuer.Stage(k, r.service)
}

// step is one of a plan.
type step struct {
	Done    bool   `json:"done"`
	Command string `json:"command,omitempty"` // "" when it is done elsewhere
	What    string `json:"what"`
}

type rotationReport struct {
	Verifier string    `json:"verifier"`
	Keys     []keyLine `json:"keys"` // those concerned
	Steps    []step    `json:"steps"`
}

func (h *hand) report(c *config.Config, ring *issuer.Keyring, r rotation, verifier string) error {
	out := rotationReport{Verifier: verifier, Keys: concerned(ring, r), Steps: steps(c, ring, r, verifier)}
	if h.output == "json" {
		return h.printJSON(out)
	}
	for _, l := range out.Keys {
		fmt.Fprintf(h.stdout, "%-9s  %s  %s\n", l.State, l.ID, strings.Join(l.Services, ","))
	}
	fmt.Fprintln(h.stdout)
	for n, s := range out.Steps {
		mark := " "
		if s.Done {
			mark = "x"
		}
		fmt.Fprintf(h.stdout, "%d. [%s] ", n+1, mark)
		if s.Command != "" {
			fmt.Fprintf(h.stdout, "%s\n       ", s.Command)
		}
		fmt.Fprintln(h.stdout, s.What)
	}
	return nil
}

func concerned(ring *issuer.Keyring, r rotation) []keyLine {
	return slices.DeleteFunc(keyLines(ring), func(l keyLine) bool {
		switch {
		case r.root:
			return !l.isRoot()
		case r.service != "":
			return !slices.Contains(l.Services, r.service) || l.isRoot()
		}
		return l.Verifier != issuer.VerifierChain || l.isRoot()
	})
}

// steps say what there is to do for a rotation, and what of it is done.
func steps(c *config.Config, ring *issuer.Keyring, r rotation, verifier string) []step {
	wait := "the longest token lifetime (" + longestLifetime(c).String() + ")"
	begin := "authserver key rotate " + r.target()
	switch {
	case r.root:
		staged := r.activate || ring.NextRoot != nil
		return []step{
			{staged, begin, "makes the next root; nothing is signed under it yet"},
			{r.activate, "authserver key export > token-bundle.pem", "holds both roots: give it to every registry with verifier chain (rootcertbundle), and restart them"},
			{r.activate, begin + " --activate", "signing keys are made under the next root; every registry must have it by now"},
			{false, "authserver key export > token-bundle.pem", "after " + wait + ": holds the new root alone; give it to the registries when it suits you"},
		}
	case verifier == issuer.VerifierPinned:
		return []step{
			{r.activate || ring.NextFor(r.service) != nil, begin, "makes the next key; nothing is signed with it yet"},
			{r.activate, "authserver key export " + r.target() + " --next > signer.crt", "put it beside the registry's old one, and restart nothing yet"},
			{r.activate, begin + " --activate", "from now on the registry's old certificate refuses new tokens"},
			{false, "", "at the same moment: put signer.crt in the place of the old one, and restart the registry. It knows one key only: " +
				"tokens given before are refused from then on, and clients that are in the middle of a push have to begin again"},
		}
	case verifier == issuer.VerifierJWKS:
		return []step{
			{r.activate || ring.NextFor(r.service) != nil, begin, "makes the next key, and publishes it in the JWKS; nothing is signed with it yet"},
			{r.activate, "authserver key export " + r.target() + " --format jwks > jwks.json", "holds both keys: give it to the registry of " + strings.Join(sharing(ring, r.service), ", ") + ", and restart it"},
			{r.activate, begin + " --activate", "tokens are signed with the next key; the registry must have it by now"},
			{false, "authserver key export " + r.target() + " --format jwks > jwks.json", "after " + wait + ": holds the new key alone; give it to the registry when it suits you"},
		}
	}
	return []step{{!r.plan, "authserver key rotate", "makes new signing keys, and takes them into use; registries trust the root, and notice nothing"}}
}

// sharing are the services that sign with the key of one.
func sharing(ring *issuer.Keyring, service string) []string {
	return slices.DeleteFunc(slices.Clone(ring.Services()), func(s string) bool { return ring.For(s) != ring.For(service) })
}

func longestLifetime(c *config.Config) time.Duration {
	longest := time.Duration(0)
	for _, s := range c.Services {
		longest = max(longest, time.Duration(s.TokenLifetime))
	}
	return longest
}

func (h *hand) revokeCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke KID", Short: "Remove a key that must go at once, as when it was stolen", Args: cobra.ExactArgs(1),
		Long: `Remove a key that must go at once, as when it was stolen, and put another in its place. It says what the operators of
registries have to do then; until they have, their registries refuse our tokens, or still take those of the thief.

Registries with verifier chain trust whatever is certified under the root and look at no revocation list, so for a key
under the root the root is replaced, with all keys under it. "authserver key list" names the keys.`,
		RunE: func(cmd *cobra.Command, args []string) error { return h.revoke(cmd.Context(), args[0], yes) },
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func (h *hand) revoke(ctx context.Context, id string, yes bool) error {
	return h.withKeys(ctx, func(_ *config.Config, k issuer.KeyConfig) error {
		k.DryRun = !yes
		_, r, err := issuer.Revoke(k, id)
		if err != nil {
			return fmt.Errorf("key %q: %w", id, err)
		}
		for _, line := range consequences(r) {
			fmt.Fprintln(h.stdout, line)
		}
		if !yes {
			return errors.New("nothing was done yet; add --yes to do it")
		}
		return nil
	})
}

// consequences are what the operators of registries have to do after a key was revoked.
func consequences(r issuer.Revocation) []string {
	names := strings.Join(r.Services, ", ")
	const bundle = "  authserver key export > token-bundle.pem   # rootcertbundle; then restart the registry"
	var each []string
	for _, s := range r.Services {
		each = append(each, "  authserver key export --service "+doctor.Shell(s)+"   # --format jwks where it has a JWKS; then restart the registry")
	}
	switch {
	case r.Root && r.Signs:
		return []string{
			"The root is replaced, with all signing keys under it. The registries of " + names + " refuse our tokens until each has the new one:",
			bundle,
			"Until a registry has it, and the old root is gone from its bundle, it takes tokens that the thief signs.",
		}
	case r.Root:
		return []string{
			"That root is removed; tokens are signed as before. A registry of " + names + " that has it takes tokens that the thief signs, until it has the bundle without it:",
			bundle,
		}
	case r.Signs:
		return append([]string{"The key is replaced. The registries of " + names + " refuse our tokens, and take those of the thief, until each has the new one:"}, each...)
	}
	return append([]string{"The key is removed; tokens are signed as before. A registry of " + names + " that has it takes tokens that the thief signs, until it has what comes without it:"}, each...)
}
