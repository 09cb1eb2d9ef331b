package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"authserver/internal/durable"
)

// withPassword sets a password that is asked for, read, or made and kept in a file. The file is there first: a password
// that is set and that nobody knows would be of no use.
func (h *hand) withPassword(name string, fromStdin bool, generateTo string, set func(password string) error) error {
	if generateTo == "" {
		password, err := h.readPassword(name, fromStdin)
		if err != nil {
			return err
		}
		return set(password)
	}
	if fromStdin {
		return misuse{errors.New("--password-stdin and --generate-to: a password is given, or made")}
	}
	undo := func() error { return os.Remove(generateTo) }
	if info, err := os.Lstat(generateTo); err == nil && info.Mode().IsRegular() { // the password until now, perhaps
		before, err := os.ReadFile(generateTo)
		if err != nil {
			return err
		}
		undo = func() error { return durable.WriteSecret(generateTo, before) }
	}
	password := rand.Text() // 130 bits
	if err := durable.WriteSecret(generateTo, []byte(password+"\n")); err != nil {
		return err
	}
	if err := set(password); err != nil {
		return errors.Join(err, undo())
	}
	_, err := fmt.Fprintf(h.stdout, "the password of %q is in %s\n", name, generateTo)
	return err
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
