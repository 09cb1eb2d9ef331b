package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

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
