package issuer

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"authserver/internal/durable"
)

// Shelf is where keys are kept, each under a name such as chain/es256.key.
type Shelf interface {
	Read(name string) ([]byte, error) // fs.ErrNotExist when there is none
	Write(name string, data []byte) error
	Remove(name string) error          // no error when there is none
	List(dir string) ([]string, error) // names below a folder, sorted; none when there is no such folder
	Where(name string) string          // for people
}

// Vault lets one process at a time at a shelf.
type Vault interface {
	Open(do func(Shelf) error) error
}

// Folder is a data folder as a vault. Processes that share it wait for each other.
func Folder(dir string) Vault { return folder(dir) }

type folder string

func (f folder) Open(do func(Shelf) error) error {
	dir := string(f)
	err := os.MkdirAll(filepath.Dir(dir), 0o700)
	if err == nil {
		err = durable.Mkdir(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	// Whoever can write there can put in a root of their own.
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("data folder: everybody on this machine can write to %s; run: chmod o-w %s", dir, dir)
	}
	unlock, err := durable.Lock(dir)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	defer unlock()
	if err := f.sweep(); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	return do(f)
}

// sweep removes what a process that died was writing: it may hold a key, under a name that nobody looks at.
func (f folder) sweep() error {
	for dir, prefix := range map[string]string{".": ".root.", chainFolder: ".", "pinned": ".", "jwks": "."} {
		entries, err := os.ReadDir(f.Where(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			// As durable names it.
			if name := e.Name(); strings.HasPrefix(name, prefix) && (strings.Contains(name, keySuffix+".") || strings.Contains(name, certificateSuffix+".")) {
				if err := f.Remove(dir + "/" + name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (f folder) Where(name string) string { return filepath.Join(string(f), name) }

func (f folder) Read(name string) ([]byte, error) {
	if strings.HasSuffix(name, keySuffix) {
		return readSecret(f.Where(name))
	}
	return readPEM(f.Where(name))
}

func (f folder) Write(name string, data []byte) error {
	file := f.Where(name)
	if err := durable.Mkdir(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if strings.HasSuffix(name, keySuffix) {
		mode = 0o600
	}
	return durable.WriteFile(file, data, mode)
}

func (f folder) Remove(name string) error {
	if _, err := os.Lstat(f.Where(name)); errors.Is(err, fs.ErrNotExist) {
		return nil // asked first, because a folder that cannot be written to would say no
	}
	return os.Remove(f.Where(name))
}

func (f folder) List(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(f.Where(dir), func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !e.IsDir() && !strings.HasPrefix(e.Name(), "."): // those are being written
			name, err := filepath.Rel(string(f), path)
			names = append(names, filepath.ToSlash(name))
			return err
		}
		return nil
	})
	return names, err
}

// trial reads a vault and keeps what is written to itself.
func trial(v Vault) Vault { return trialOf{v} }

type trialOf struct{ Vault }

func (t trialOf) Open(do func(Shelf) error) error {
	if f, ok := t.Vault.(folder); ok {
		return do(newOverlay(f)) // a folder that is not there is not made for a look
	}
	return t.Vault.Open(func(s Shelf) error { return do(newOverlay(s)) })
}

// overlay is a shelf that keeps changes to itself until they are replayed.
type overlay struct {
	Shelf
	changed map[string][]byte // nil = removed
	steps   []change
}

type change struct {
	name string
	data []byte // nil = removed
}

func newOverlay(s Shelf) *overlay { return &overlay{Shelf: s, changed: map[string][]byte{}} }

func (o *overlay) Read(name string) ([]byte, error) {
	data, ok := o.changed[name]
	switch {
	case !ok:
		return o.Shelf.Read(name)
	case data == nil:
		return nil, fs.ErrNotExist
	}
	return data, nil
}

func (o *overlay) Write(name string, data []byte) error {
	o.changed[name] = data
	o.steps = append(o.steps, change{name, data})
	return nil
}

func (o *overlay) Remove(name string) error { return o.Write(name, nil) }

func (o *overlay) List(dir string) ([]string, error) {
	names, err := o.Shelf.List(dir)
	for name, data := range o.changed {
		names = slices.DeleteFunc(names, func(n string) bool { return n == name })
		if data != nil && strings.HasPrefix(name, dir+"/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, err
}

// replay makes the changes below, each in its turn.
func (o *overlay) replay() error {
	for _, step := range o.steps {
		var err error
		if step.data == nil {
			err = o.Shelf.Remove(step.name)
		} else {
			err = o.Shelf.Write(step.name, step.data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Table is a database's table of keys: its update function runs do in one transaction, alone, and keeps what do leaves in
// the map.
type Table func(do func(rows map[string]string) error) error

// Sealed is a table as a vault. Everything in it, public or not, is encrypted and bound to its name (AES-256-GCM): whoever
// can write to the database can neither read a key nor put in one of their own. secrets are as SealingKeys reads them:
// the first encrypts, all decrypt, so that it can be changed.
func Sealed(table Table, secrets [][]byte) (Vault, error) {
	v := sealed{table: table}
	for _, secret := range secrets {
		block, err := aes.NewCipher(secret)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, err
		}
		v.aeads = append(v.aeads, aead)
	}
	return v, nil
}

const sealingKeySize = 32

// SealingKeys reads keys for Sealed: 32 bytes in base64, one a line.
func SealingKeys(file string) ([][]byte, error) {
	data, err := readSecret(file)
	if err != nil {
		return nil, err
	}
	var keys [][]byte
	for n, line := range strings.Split(string(data), "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != sealingKeySize {
			return nil, fmt.Errorf("%s: line %d is not %d bytes in base64; would be right: the output of \"openssl rand -base64 32\"", file, n+1, sealingKeySize)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: empty; would be right: the output of \"openssl rand -base64 32\"", file)
	}
	return keys, nil
}

type sealed struct {
	table Table
	aeads []cipher.AEAD
}

func (v sealed) Open(do func(Shelf) error) error {
	return v.table(func(rows map[string]string) error { return do(sealedShelf{v, rows}) })
}

type sealedShelf struct {
	sealed
	rows map[string]string
}

func (s sealedShelf) Where(name string) string { return "database:" + name }

func (s sealedShelf) Read(name string) ([]byte, error) {
	text, ok := s.rows[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	box, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%s: damaged", s.Where(name))
	}
	for _, aead := range s.aeads {
		if data, err := aead.Open(nil, nil, box, []byte(name)); err == nil {
			return data, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", s.Where(name), errSealed)
}

// errSealed is for the operator to mend: a key that we cannot read is not one that we may replace.
var errSealed = errors.New("cannot be decrypted with issuer.keys.encryption_key_file; bring the right key back")

func (s sealedShelf) Write(name string, data []byte) error {
	s.rows[name] = base64.StdEncoding.EncodeToString(s.aeads[0].Seal(nil, nil, data, []byte(name)))
	return nil
}

func (s sealedShelf) Remove(name string) error {
	delete(s.rows, name)
	return nil
}

func (s sealedShelf) List(dir string) ([]string, error) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.rows)) {
		if strings.HasPrefix(name, dir+"/") {
			names = append(names, name)
		}
	}
	return names, nil
}

// Reseal encrypts what a sealed vault holds anew with the first of its keys, so that the others are needed no more. It
// returns how much needed it.
func Reseal(v Vault) (int, error) {
	s, ok := v.(sealed)
	if !ok {
		return 0, ErrNotSealed
	}
	count := 0
	err := s.table(func(rows map[string]string) error {
		count = 0
		first, all := sealedShelf{sealed{aeads: s.aeads[:1]}, rows}, sealedShelf{s, rows}
		for _, name := range slices.Sorted(maps.Keys(rows)) {
			if _, err := first.Read(name); err == nil {
				continue
			}
			data, err := all.Read(name)
			if err != nil {
				return err
			}
			if err := first.Write(name, data); err != nil {
				return err
			}
			count++
		}
		return nil
	})
	return count, err
}
