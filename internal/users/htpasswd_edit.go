package users

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"authserver/internal/durable"
)

// Errors of editing a users file.
var (
	ErrExists  = errors.New("the user exists already")
	ErrMissing = errors.New("there is no such user")
)

// HTPasswdFile edits a users file. Each edit holds a lock on its folder, keeps the other lines (comments too) as
// they are, and replaces the file as a whole: a reader sees the old or the new one, never half.
type HTPasswdFile struct {
	Path string
	Cost int // of new hashes
}

// Names returns the users in the order of the file.
func (f HTPasswdFile) Names() ([]string, error) {
	data, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, err
	}
	entries, err := parseHTPasswd(f.Path, data)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.name
	}
	return names, nil
}

// Add appends a user; ErrExists when the name is taken. A missing file is made.
func (f HTPasswdFile) Add(name, password string) error {
	return f.editPassword(name, password, func(lines []string, at int, entry string) ([]string, error) {
		if at >= 0 {
			return nil, fmt.Errorf("user %q in %s: %w; \"user passwd\" changes a password", name, f.Path, ErrExists)
		}
		return append(lines, entry), nil
	})
}

// SetPassword replaces a user's hash; ErrMissing when there is no such user.
func (f HTPasswdFile) SetPassword(name, password string) error {
	return f.editPassword(name, password, func(lines []string, at int, entry string) ([]string, error) {
		if at < 0 {
			return nil, fmt.Errorf("user %q in %s: %w", name, f.Path, ErrMissing)
		}
		lines[at] = entry
		return lines, nil
	})
}

// Remove deletes a user; ErrMissing when there is no such user.
func (f HTPasswdFile) Remove(name string) error {
	return f.edit(name, func(lines []string, at int) ([]string, error) {
		if at < 0 {
			return nil, fmt.Errorf("user %q in %s: %w", name, f.Path, ErrMissing)
		}
		return slices.Delete(lines, at, at+1), nil
	})
}

// editPassword is edit for a change that puts in entry, the line of name with a new password.
func (f HTPasswdFile) editPassword(name, password string, change func(lines []string, at int, entry string) ([]string, error)) error {
	entry, err := htpasswdLine(name, password, f.Cost) // before the lock: it is slow
	if err != nil {
		return err
	}
	return f.edit(name, func(lines []string, at int) ([]string, error) { return change(lines, at, entry) })
}

// edit applies change to the file's lines; at is the index of name's line, or -1.
func (f HTPasswdFile) edit(name string, change func(lines []string, at int) ([]string, error)) error {
	name, err := ParseHTPasswdName(name)
	if err != nil {
		return err
	}
	// A link is edited where it points to: that is where others lock.
	if target, err := filepath.EvalSymlinks(f.Path); err == nil {
		f.Path = target
	}
	unlock, err := durable.Lock(filepath.Dir(f.Path))
	if err != nil {
		return fmt.Errorf("users file %s: its folder cannot be used: %w; make it first", f.Path, cause(err))
	}
	defer unlock()
	data, err := os.ReadFile(f.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// A line is found by its name alone: what is wrong with a hash is mended by replacing it.
	var lines []string
	at := -1
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		if found, _, _ := strings.Cut(strings.TrimSpace(line), ":"); norm.NFC.String(found) == name {
			if at >= 0 {
				continue // a second line of that name goes: with it, who is removed could log in still
			}
			at = len(lines)
		}
		lines = append(lines, line)
	}
	if lines, err = change(lines, at); err != nil {
		return err
	}
	text := strings.Join(lines, "\n")
	if text != "" {
		text += "\n"
	}
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(f.Path); err == nil { // a registry may read the same file
		mode = info.Mode().Perm()
	}
	return durable.WriteFile(f.Path, []byte(text), mode)
}

// ParseHTPasswdName is ParseName for a users file, where a line that begins with # is a comment.
func ParseHTPasswdName(name string) (string, error) {
	if strings.HasPrefix(name, "#") {
		return "", errors.New("a user name in an htpasswd file cannot begin with #: the line would be a comment")
	}
	return ParseName(name)
}

// HTPasswdLine returns the line of a user whose password is hashed already.
func HTPasswdLine(name, hash string) (string, error) {
	name, err := ParseHTPasswdName(name)
	if err != nil {
		return "", err
	}
	if _, err := hashCost(hash); err != nil {
		return "", err
	}
	return name + ":" + hash, nil
}

func htpasswdLine(name, password string, cost int) (string, error) {
	name, err := ParseHTPasswdName(name)
	if err != nil {
		return "", err
	}
	hash, err := HashPassword(password, cost)
	if err != nil {
		return "", err
	}
	return name + ":" + hash, nil
}

// Reset makes the file anew, with one user.
func (f HTPasswdFile) Reset(name, password string) error {
	line, err := htpasswdLine(name, password, f.Cost)
	if err != nil {
		return err
	}
	return durable.WriteFile(f.Path, []byte(line+"\n"), 0o600)
}
