package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"authserver/internal/config"
	"authserver/internal/store"
	"authserver/internal/users"
)

// each does something to every name, whatever becomes of the others. When something could not be done, it says what was; done
// is what was before.
func each(done, names []string, do func(name string) error) error {
	var faults []error
	for _, name := range names {
		if err := do(name); err != nil {
			faults = append(faults, err)
		} else {
			done = append(done, name)
		}
	}
	if len(faults) > 0 && len(done) > 0 {
		faults = append(faults, fmt.Errorf("done all the same: %s", strings.Join(done, ", ")))
	}
	return errors.Join(faults...)
}

func (h *hand) groupCommand() *cobra.Command {
	var f far
	on := func(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, db groupEditor, args []string) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
			if f.server != "" {
				r, err := h.dial(f)
				if err != nil {
					return err
				}
				return run(cmd.Context(), r, args)
			}
			return h.withDatabase(cmd.Context(), func(_ *config.Config, db *store.Store) error { return run(cmd.Context(), db, args) })
		}}
	}
	some := cobra.MinimumNArgs(1)
	cmd := group("group", "Groups of the accounts in the database",
		on("add GROUP [ACCOUNT...]", "Make a group, and put accounts into it", some, func(ctx context.Context, db groupEditor, args []string) error {
			name, err := users.ParseAccountName(args[0])
			if err != nil {
				return err
			}
			var made []string
			switch err := db.AddGroup(ctx, name, time.Now()); {
			case err == nil:
				made = []string{"group " + name}
			case len(args) == 1 || !errors.Is(err, users.ErrConflict):
				return err
			}
			return each(made, args[1:], func(account string) error { return db.AddMember(ctx, name, account) })
		}),
		on("remove GROUP [ACCOUNT...]", "Take accounts out of a group, or without any remove the group", some, func(ctx context.Context, db groupEditor, args []string) error {
			if len(args) == 1 {
				return db.RemoveGroup(ctx, args[0])
			}
			return each(nil, args[1:], func(account string) error { return db.RemoveMember(ctx, args[0], account) })
		}),
		h.printsData(on("list [GROUP]", "List groups, or who is in one", cobra.MaximumNArgs(1), func(ctx context.Context, db groupEditor, args []string) error {
			names, err := []string(nil), error(nil)
			if len(args) == 1 {
				names, err = db.Members(ctx, args[0])
			} else {
				names, err = db.Groups(ctx)
			}
			if err != nil {
				return err
			}
			if h.output == "json" {
				return h.printJSON(names)
			}
			for _, name := range names {
				fmt.Fprintln(h.stdout, name)
			}
			return nil
		})),
	)
	cmd.Long = `Groups of the accounts in the database. What a group may do is said in the policy (subjects: ["group:NAME"]), where groups
can have members too; both count.`
	f.flags(cmd)
	return cmd
}
