package users

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// HTPasswd is the backend `kind: htpasswd`: a file of name:hash lines, the same that a registry's own htpasswd auth
// reads (distribution registry/auth/htpasswd). It is immutable; a reload reads the file into a new one.
type HTPasswd struct {
	users map[string]htpasswdEntry
	guard *Guard
}

// HTPasswdOptions is a users[] block of kind htpasswd.
type HTPasswdOptions struct {
	File string `yaml:"file"` // relative to the configuration file
}

// LoadHTPasswd reads a users file; guard is the chain's. All faults are returned at once (errors.Join), each as "file:line: …".
func LoadHTPasswd(file string, guard *Guard) (*HTPasswd, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be read: %w; \"authserver user add NAME\" makes one", file, cause(err))
	}
	entries, err := parseHTPasswd(file, data)
	if err != nil {
		return nil, err
	}
	h := &HTPasswd{users: make(map[string]htpasswdEntry, len(entries)), guard: guard}
	for _, e := range entries {
		h.users[e.name] = e
		guard.expect(e.cost)
	}
	if len(entries) == 0 {
		guard.expect(DefaultCost)
	}
	return h, nil
}

// cause strips the path that os puts into its errors, where the message names it already.
func cause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

type htpasswdEntry struct {
	line int
	name string
	hash []byte
	cost int
	mark string
}

// parseHTPasswd reads name:hash lines; blank lines and lines that begin with # are passed over, as registries do. What
// stands on a bad line is not repeated in the error: it may be a password.
func parseHTPasswd(file string, data []byte) ([]htpasswdEntry, error) {
	var entries []htpasswdEntry
	var faults []error
	seen := map[string]int{}
	for i, raw := range bytes.Split(data, []byte("\n")) {
		text := strings.TrimSpace(string(raw))
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("%s:%d: "+format, append([]any{file, i + 1}, args...)...))
		}
		name, hash, ok := strings.Cut(text, ":")
		if !ok {
			fault("not a name:hash line")
			continue
		}
		name, err := ParseName(name)
		if err != nil {
			fault("%w", err)
			continue
		}
		cost, err := hashCost(hash)
		if err != nil {
			fault("user %q: %w; set the password anew with \"authserver user passwd\" or \"htpasswd -B\"", name, err)
			continue
		}
		if first, twice := seen[name]; twice {
			fault("user %q stands on line %d already; remove one of them", name, first)
			continue
		}
		seen[name] = i + 1
		entries = append(entries, htpasswdEntry{line: i + 1, name: name, hash: []byte(hash), cost: cost, mark: mark(hash)})
	}
	return entries, errors.Join(faults...)
}

// Lookup implements Directory.
func (h *HTPasswd) Lookup(_ context.Context, name string) (Principal, string, error) {
	user, known := h.users[name]
	if !known {
		return Principal{}, "", ErrUnknown
	}
	return Principal{Name: name, Kind: KindUser}, user.mark, nil
}

// Name implements Authenticator.
func (h *HTPasswd) Name() string { return "htpasswd" }

// Authenticate implements Authenticator.
func (h *HTPasswd) Authenticate(ctx context.Context, c Credentials) (Principal, error) {
	user, known := h.users[c.Username]
	if !known {
		return Principal{}, ErrUnknown
	}
	ok, err := h.guard.check(ctx, c, user.hash, user.cost)
	switch {
	case err != nil:
		return Principal{}, err
	case !ok:
		return Principal{}, ErrRefused
	}
	return Principal{Name: c.Username, Kind: KindUser, Mark: user.mark}, nil
}
