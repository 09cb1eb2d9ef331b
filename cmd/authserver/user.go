package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"authserver/internal/users"
)

func (h *hand) userCommand() *cobra.Command {
	var backend string
	var fromStdin bool
	// edit makes a command on one user of the users file.
	edit := func(use, short string, takesPassword bool, change func(f users.HTPasswdFile, name, password string) error) *cobra.Command {
		cmd := &cobra.Command{Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
			file, err := h.usersFile(backend)
			if err != nil {
				return err
			}
			var password string
			if takesPassword {
				if password, err = h.readPassword(args[0], fromStdin); err != nil {
					return err
				}
			}
			return change(file.HTPasswdFile, args[0], password)
		}}
		if takesPassword {
			cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
		}
		return cmd
	}
	list := h.printsData(&cobra.Command{Use: "list", Short: "List users", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		file, err := h.usersFile(backend)
		if err != nil {
			return err
		}
		return h.userList(file)
	}})
	cmd := group("user", "Users and their passwords",
		edit("add", "Add a user", true, users.HTPasswdFile.Add),
		list,
		edit("passwd", "Change a user's password", true, users.HTPasswdFile.SetPassword),
		edit("remove", "Remove a user", false, func(f users.HTPasswdFile, name, _ string) error { return f.Remove(name) }),
	)
	cmd.Long = `Users and their passwords, in the htpasswd file that the configuration names. A running server sees a change within
seconds. Passwords are asked for twice, or read from standard input with --password-stdin; never given as an argument.`
	cmd.PersistentFlags().StringVar(&backend, "backend", "", "kind of the users[] block to work on (default: the first that can be edited)")
	return cmd
}

// editable is a users[] block whose users we can edit.
type editable struct {
	users.HTPasswdFile
	kind string
}

// usersFile is the first block that can be edited, of the kind that is asked for.
func (h *hand) usersFile(kind string) (editable, error) {
	c, err := h.loadConfig()
	if err != nil {
		return editable{}, err
	}
	for i, block := range c.Users {
		b, err := describe(c, i)
		if err != nil {
			return editable{}, err
		}
		if b.edits && (kind == "" || kind == block["kind"]) {
			return editable{users.HTPasswdFile{Path: b.file, Cost: c.Passwords.BcryptCost}, block["kind"].(string)}, nil
		}
	}
	if kind != "" {
		return editable{}, fmt.Errorf("--backend %s: there is no users block of this kind that can be edited", kind)
	}
	return editable{}, errors.New("users: there is no block in the configuration that can be edited (kind: htpasswd)")
}

func (h *hand) userList(file editable) error {
	names, err := file.Names()
	if errors.Is(err, fs.ErrNotExist) {
		names, err = nil, nil
	}
	if err != nil {
		return err
	}
	if h.output == "json" {
		type user struct {
			Name    string `json:"name"`
			Backend string `json:"backend"`
		}
		list := []user{}
		for _, name := range names {
			list = append(list, user{name, file.kind})
		}
		return h.printJSON(list)
	}
	for _, name := range names {
		fmt.Fprintln(h.stdout, name)
	}
	return nil
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
