package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"authserver/internal/users"
)

// userLine is what is shown of a user.
type userLine struct {
	Name     string     `json:"name"`
	Backend  string     `json:"backend"`
	Kind     users.Kind `json:"kind"`
	Disabled bool       `json:"disabled"`
	Groups   []string   `json:"groups"`
	Created  *time.Time `json:"created,omitempty"`
	Changed  *time.Time `json:"changed,omitempty"`
}

func (h *hand) userCommand() *cobra.Command {
	var backend string
	var fromStdin, robot, ifMissing bool
	var generateTo string
	var groups []string
	var f far
	withEditors := func(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, e editors, args []string) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
			if f.server != "" {
				if backend != "" || fromStdin && f.fromStdin {
					return misuse{errors.New("--server goes without --backend, and standard input holds one password: put the one for --login into " + passwordVariable)}
				}
				r, err := h.dial(f)
				if err != nil {
					return err
				}
				return run(cmd.Context(), editors{remoteEditor{r}}, args)
			}
			return h.editUsers(cmd.Context(), backend, func(e editors) error { return run(cmd.Context(), e, args) })
		}}
	}
	// onUser makes a command on a user that is there, in whatever backend.
	onUser := func(use, short string, run func(ctx context.Context, e editor, name string) error) *cobra.Command {
		return withEditors(use+" NAME", short, cobra.ExactArgs(1), func(ctx context.Context, all editors, args []string) error {
			e, line, err := all.find(ctx, args[0])
			if err != nil {
				return err
			}
			return run(ctx, e, line.Name) // as it is kept, not as it was typed: tokens go by it
		})
	}
	add := withEditors("add NAME", "Add a user, or a robot", cobra.ExactArgs(1), func(ctx context.Context, all editors, args []string) error {
		switch e, _, err := all.find(ctx, args[0]); {
		case err == nil && ifMissing:
			_, err := fmt.Fprintf(h.stdout, "user %q is there, in backend %s; nothing was changed\n", args[0], e.kind())
			return err
		case err == nil:
			return fmt.Errorf("user %q: %w, in backend %s", args[0], users.ErrExists, e.kind())
		case !errors.Is(err, users.ErrMissing):
			return err
		}
		add := func(password string) error { return all.toAdd().add(ctx, args[0], password, robot, groups) }
		if robot {
			if generateTo != "" {
				return misuse{errors.New("--generate-to is for users: a robot has no password, only access tokens (authserver token create)")}
			}
			return add("")
		}
		return h.withPassword(args[0], fromStdin, generateTo, add)
	})
	add.Flags().BoolVar(&ifMissing, "if-missing", false, "do nothing, and succeed, when there is such a user already")
	add.Flags().BoolVar(&robot, "robot", false, "a robot: it has no password, only access tokens (backend database)")
	add.Flags().StringSliceVar(&groups, "group", nil, "put it into a group, which is made if it is not there (may be repeated; backend database)")
	passwd := onUser("passwd", "Change a user's password", func(ctx context.Context, e editor, name string) error {
		return h.withPassword(name, fromStdin, generateTo, func(password string) error { return e.setPassword(ctx, name, password) })
	})
	for _, cmd := range []*cobra.Command{add, passwd} {
		cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
		cmd.Flags().StringVar(&generateTo, "generate-to", "", "make a password, and write it into this file (mode 0600) instead of asking for one")
	}
	cmd := group("user", "Users and their passwords", add,
		h.printsData(withEditors("list", "List users", cobra.NoArgs, func(ctx context.Context, all editors, _ []string) error {
			lines := []userLine{}
			for _, e := range all {
				list, err := e.list(ctx)
				if err != nil {
					return err
				}
				lines = append(lines, list...)
			}
			return h.printUsers(lines)
		})),
		h.printsData(onUser("show", "Show a user", func(ctx context.Context, e editor, name string) error {
			line, err := e.show(ctx, name)
			if err != nil {
				return err
			}
			return h.printUser(line)
		})),
		passwd,
		onUser("disable", "Lock a user out (backend database)", func(ctx context.Context, e editor, name string) error {
			return e.setDisabled(ctx, name, true)
		}),
		onUser("enable", "Let a user in again (backend database)", func(ctx context.Context, e editor, name string) error {
			return e.setDisabled(ctx, name, false)
		}),
		onUser("remove", "Remove a user and its tokens", func(ctx context.Context, e editor, name string) error {
			return e.remove(ctx, name)
		}),
	)
	cmd.Long = `Users and their passwords: those of the database and of htpasswd files. New ones go into the database if the
configuration has a users block of kind database, else into the htpasswd file. A running server sees a change within
seconds. Passwords are asked for twice, read from standard input with --password-stdin, or made and written into a file
with --generate-to; never given as an argument.`
	f.flags(cmd)
	cmd.PersistentFlags().StringVar(&backend, "backend", "", "work on the users blocks of this kind only: database or htpasswd")
	return cmd
}

func (h *hand) printUsers(list []userLine) error {
	if h.output == "json" {
		return h.printJSON(list)
	}
	table := tabwriter.NewWriter(h.stdout, 0, 0, 2, ' ', 0)
	for _, u := range list {
		notes := ""
		if u.Kind == users.KindRobot {
			notes = "\trobot"
		}
		if u.Disabled {
			notes += "\tdisabled"
		}
		fmt.Fprintf(table, "%s%s\n", u.Name, notes)
	}
	return table.Flush()
}

func (h *hand) printUser(u userLine) error {
	if h.output == "json" {
		return h.printJSON(u)
	}
	fmt.Fprintf(h.stdout, "name:     %s\nbackend:  %s\nkind:     %s\ndisabled: %t\ngroups:   %s\n", u.Name, u.Backend, u.Kind, u.Disabled, strings.Join(u.Groups, ", "))
	if u.Created != nil {
		fmt.Fprintf(h.stdout, "created:  %s\nchanged:  %s\n", u.Created.Format(time.RFC3339), u.Changed.Format(time.RFC3339))
	}
	return nil
}
