package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

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
			defer leave(ctx, db)
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
	defer leave(ctx, db)
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
