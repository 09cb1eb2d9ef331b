package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"authserver/internal/config"
	"authserver/internal/store"
	"authserver/internal/users"
)

// editor changes the users of one backend.
type editor interface {
	kind() string
	add(ctx context.Context, name, password string, robot bool, groups []string) error
	setPassword(ctx context.Context, name, password string) error
	setDisabled(ctx context.Context, name string, disabled bool) error
	remove(ctx context.Context, name string) error
	show(ctx context.Context, name string) (userLine, error) // users.ErrNotFound when there is no such user
	list(ctx context.Context) ([]userLine, error)
}

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
	var fromStdin, robot bool
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
		case err == nil:
			return fmt.Errorf("user %q: %w, in backend %s", args[0], users.ErrExists, e.kind())
		case !errors.Is(err, users.ErrMissing):
			return err
		}
		var password string
		if !robot {
			var err error
			if password, err = h.readPassword(args[0], fromStdin); err != nil {
				return err
			}
		}
		return all.toAdd().add(ctx, args[0], password, robot, groups)
	})
	add.Flags().BoolVar(&robot, "robot", false, "a robot: it has no password, only access tokens (backend database)")
	add.Flags().StringSliceVar(&groups, "group", nil, "put it into a group, which is made if it is not there (may be repeated; backend database)")
	passwd := onUser("passwd", "Change a user's password", func(ctx context.Context, e editor, name string) error {
		password, err := h.readPassword(name, fromStdin)
		if err != nil {
			return err
		}
		return e.setPassword(ctx, name, password)
	})
	for _, cmd := range []*cobra.Command{add, passwd} {
		cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
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
seconds. Passwords are asked for twice, or read from standard input with --password-stdin; never given as an argument.`
	f.flags(cmd)
	cmd.PersistentFlags().StringVar(&backend, "backend", "", "work on the users blocks of this kind only: database or htpasswd")
	return cmd
}

// editors are the backends whose users can be edited, in the order in which they are asked.
type editors []editor

// find returns the backend that knows a name first, as at a login; users.ErrMissing when none does.
func (all editors) find(ctx context.Context, name string) (editor, userLine, error) {
	for _, e := range all {
		line, err := e.show(ctx, name)
		if !errors.Is(err, users.ErrNotFound) {
			return e, line, err
		}
	}
	return nil, userLine{}, fmt.Errorf("user %q: %w", name, users.ErrMissing)
}

// toAdd is where new users go.
func (all editors) toAdd() editor {
	for _, e := range all {
		if e.kind() == "database" {
			return e
		}
	}
	return all[0]
}

// editUsers opens the backends that can be edited; kind leaves out all others when it is not "".
func (h *hand) editUsers(ctx context.Context, kind string, edit func(editors) error) error {
	c, err := h.loadConfig()
	if err != nil {
		return err
	}
	var chosen []int
	for i, block := range c.Users {
		b, err := describe(c, i)
		if err != nil {
			return err
		}
		if b.edits && (kind == "" || kind == block["kind"]) {
			chosen = append(chosen, i)
		}
	}
	switch {
	case len(chosen) == 0 && kind != "":
		return fmt.Errorf("--backend %s: there is no users block of this kind that can be edited", kind)
	case len(chosen) == 0:
		return errors.New("users: there is no block in the configuration that can be edited (kind: htpasswd or database)")
	}
	var all editors
	for _, i := range chosen {
		if c.Users[i]["kind"] == "database" {
			db, err := openStore(ctx, c)
			if err != nil {
				return err
			}
			defer func() { _ = db.Close() }()
			all = append(all, databaseEditor{db, c})
			continue
		}
		file, err := htpasswdFile(c, i)
		if err != nil {
			return err
		}
		all = append(all, fileEditor{users.HTPasswdFile{Path: file, Cost: c.Passwords.BcryptCost}, c})
	}
	return edit(all)
}

// fileEditor edits an htpasswd file. It works without the database, which may be down, but for what ends tokens.
type fileEditor struct {
	file users.HTPasswdFile
	c    *config.Config
}

func (fileEditor) kind() string { return "htpasswd" }

var errFile = errors.New("an htpasswd file knows names and passwords only; use the database for this (users: - kind: database)")

// add ends the tokens of one of that name who was taken out of the file by other means: the new one is somebody else.
func (e fileEditor) add(ctx context.Context, name, password string, robot bool, groups []string) error {
	if robot || len(groups) > 0 {
		return errFile
	}
	if _, err := e.show(ctx, name); errors.Is(err, users.ErrNotFound) {
		// A database that is down must not keep an administrator from being added: then they stay, as they would in a file that is edited by hand.
		if err := e.endTokens(ctx, name, false); err != nil {
			return err
		}
	}
	return e.file.Add(name, password)
}

func (e fileEditor) setPassword(_ context.Context, name, password string) error {
	return e.file.SetPassword(name, password)
}

func (fileEditor) setDisabled(context.Context, string, bool) error { return errFile }

// remove ends the user's tokens first: the next one of that name is somebody else.
func (e fileEditor) remove(ctx context.Context, name string) error {
	if err := e.endTokens(ctx, name, true); err != nil {
		return err
	}
	return e.file.Remove(name)
}

// endTokens ends the tokens of a name in files; must tells whether a database that does not answer is an error.
func (e fileEditor) endTokens(ctx context.Context, name string, must bool) error {
	db, err := newStore(e.c, nil)
	if err != nil || db == nil {
		return err
	}
	defer func() { _ = db.Close() }()
	switch err := db.Migrate(ctx); {
	case errors.Is(err, store.ErrUnreachable) && !must:
		return nil
	case err != nil:
		return e.c.Fault("database.url", err)
	}
	if name, err = users.ParseName(name); err != nil {
		return err
	}
	return db.RemoveTokens(ctx, e.kind(), name)
}

func (e fileEditor) list(context.Context) ([]userLine, error) {
	names, err := e.file.Names()
	if errors.Is(err, fs.ErrNotExist) {
		names, err = nil, nil
	}
	list := []userLine{}
	for _, name := range names {
		list = append(list, userLine{Name: name, Backend: e.kind(), Kind: users.KindUser, Groups: []string{}})
	}
	return list, err
}

func (e fileEditor) show(ctx context.Context, name string) (userLine, error) {
	list, err := e.list(ctx)
	if err != nil {
		return userLine{}, err
	}
	name, err = users.ParseName(name)
	for _, line := range list {
		if err == nil && line.Name == name {
			return line, nil
		}
	}
	return userLine{}, users.ErrNotFound
}

// databaseEditor edits accounts in the database.
type databaseEditor struct {
	db *store.Store
	c  *config.Config
}

func (databaseEditor) kind() string { return "database" }

func (e databaseEditor) add(ctx context.Context, name, password string, robot bool, groups []string) error {
	name, err := users.ParseAccountName(name)
	if err != nil {
		return err
	}
	now := time.Now()
	a := users.Account{Name: name, Kind: users.KindUser, Created: now}
	if robot {
		a.Kind = users.KindRobot
	} else if a.Password, err = users.HashPassword(password, e.c.Passwords.BcryptCost); err != nil {
		return err
	}
	for _, g := range groups {
		if _, err := users.ParseAccountName(g); err != nil {
			return err
		}
	}
	if err := e.db.AddAccount(ctx, a); err != nil {
		return err
	}
	for _, g := range groups {
		if err := e.db.AddGroup(ctx, g, now); err != nil && !errors.Is(err, users.ErrConflict) {
			return err
		}
		if err := e.db.AddMember(ctx, g, name); err != nil {
			return err
		}
	}
	return nil
}

func (e databaseEditor) setPassword(ctx context.Context, name, password string) error {
	hash, err := users.HashPassword(password, e.c.Passwords.BcryptCost)
	if err != nil {
		return err
	}
	err = e.db.SetPassword(ctx, name, hash, time.Now())
	if errors.Is(err, users.ErrNotFound) { // it was found a moment ago
		err = fmt.Errorf("%q is a robot: it has no password, only access tokens", name)
	}
	return err
}

func (e databaseEditor) setDisabled(ctx context.Context, name string, disabled bool) error {
	return e.db.SetDisabled(ctx, name, disabled, time.Now())
}

func (e databaseEditor) remove(ctx context.Context, name string) error {
	return e.db.RemoveAccount(ctx, name)
}

func (e databaseEditor) show(ctx context.Context, name string) (userLine, error) {
	a, err := e.db.Account(ctx, name)
	return accountLine(a), err
}

// page is how many rows are asked for at once.
const page = 500

func (e databaseEditor) list(ctx context.Context) ([]userLine, error) {
	list := []userLine{}
	for after := ""; ; {
		accounts, err := e.db.Accounts(ctx, after, page)
		if err != nil {
			return nil, err
		}
		for _, a := range accounts {
			list = append(list, accountLine(a))
			after = a.Name
		}
		if len(accounts) < page {
			return list, nil
		}
	}
}

func accountLine(a users.Account) userLine {
	groups := a.Groups
	if groups == nil {
		groups = []string{}
	}
	return userLine{Name: a.Name, Backend: "database", Kind: a.Kind, Disabled: a.Disabled, Groups: groups, Created: &a.Created, Changed: &a.Changed}
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
			if err := db.AddGroup(ctx, name, time.Now()); err != nil && (len(args) == 1 || !errors.Is(err, users.ErrConflict)) {
				return err
			}
			for _, account := range args[1:] {
				if err := db.AddMember(ctx, name, account); err != nil {
					return err
				}
			}
			return nil
		}),
		on("remove GROUP [ACCOUNT...]", "Take accounts out of a group, or without any remove the group", some, func(ctx context.Context, db groupEditor, args []string) error {
			if len(args) == 1 {
				return db.RemoveGroup(ctx, args[0])
			}
			for _, account := range args[1:] {
				if err := db.RemoveMember(ctx, args[0], account); err != nil {
					return err
				}
			}
			return nil
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

// withDatabase opens the database for a command that needs it.
func (h *hand) withDatabase(ctx context.Context, use func(*config.Config, *store.Store) error) error {
	c, err := h.loadConfig()
	if err != nil {
		return err
	}
	db, err := openStore(ctx, c)
	switch {
	case err != nil:
		return err
	case db == nil:
		return c.Fault("database.url", errors.New("none; this needs a database"))
	}
	defer func() { _ = db.Close() }()
	return use(c, db)
}

func (h *hand) databaseCommand() *cobra.Command {
	return group("database", "The database", &cobra.Command{
		Use: "backup FILE", Short: "Copy the database into a file, while it is in use", Args: cobra.ExactArgs(1),
		Long: `Copy the embedded database into a file that is not there yet. The server can go on running. To restore it, stop the
server and put the file in the place of the database (docs/operations.md). PostgreSQL has pg_dump for this.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return h.withDatabase(cmd.Context(), func(_ *config.Config, db *store.Store) error { return db.Backup(cmd.Context(), args[0]) })
		},
	})
}

// readPassword asks twice on a terminal, or takes the first line of standard input.
func (h *hand) readPassword(name string, fromStdin bool) (string, error) {
	if fromStdin {
		line, err := bufio.NewReader(io.LimitReader(h.stdin, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return "", errors.New("standard input holds no password")
		}
		return line, nil
	}
	terminal, ok := h.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(terminal.Fd())) {
		return "", misuse{errors.New("there is no terminal to ask for the password; use --password-stdin")}
	}
	ask := func(prompt string) (string, error) {
		fmt.Fprint(h.stderr, prompt)
		password, err := term.ReadPassword(int(terminal.Fd()))
		fmt.Fprintln(h.stderr)
		return string(password), err
	}
	first, err := ask(fmt.Sprintf("Password for %q: ", name))
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	second, err := ask("Once more: ")
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	if first != second {
		return "", errors.New("the two passwords differ; nothing was changed")
	}
	if first == "" {
		return "", errors.New("a password cannot be empty")
	}
	return first, nil
}
