package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"authserver/internal/users"
)

const accountColumns = "name, kind, password, disabled, created, changed"

// scanAccount reads accountColumns, and what is selected after them into more.
func scanAccount(row interface{ Scan(...any) error }, more ...any) (users.Account, error) {
	var a users.Account
	var created, changed int64
	err := row.Scan(append([]any{&a.Name, &a.Kind, &a.Password, &a.Disabled, &created, &changed}, more...)...)
	a.Created, a.Changed = fromMicros(created), fromMicros(changed)
	if errors.Is(err, sql.ErrNoRows) {
		err = users.ErrNotFound
	}
	return a, err
}

// readAccount returns an account with its groups: one question, so that they belong together, and so that a name that
// nobody has takes as long as one that somebody has.
func (s *Store) readAccount(ctx context.Context, name string) (users.Account, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	type row struct {
		users.Account
		group sql.NullString
	}
	rows, err := collect(ctx, s, func(r interface{ Scan(...any) error }) (row, error) {
		var one row
		var err error
		one.Account, err = scanAccount(r, &one.group)
		return one, err
	}, "SELECT "+accountColumns+", group_name FROM accounts LEFT JOIN memberships ON account = name WHERE name = $1 ORDER BY group_name", name)
	if err != nil {
		return users.Account{}, err
	}
	if len(rows) == 0 {
		return users.Account{}, users.ErrNotFound
	}
	a := rows[0].Account
	a.Groups = []string{}
	for _, r := range rows {
		if r.group.Valid {
			a.Groups = append(a.Groups, r.group.String)
		}
	}
	return a, nil
}

// list runs a query for one column of text.
func (s *Store) list(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := s.db.QueryContext(ctx, s.text(query), args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	list := []string{}
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, rows.Err()
}

// Accounts returns at most limit accounts whose names come after a name, by name, without their groups.
func (s *Store) Accounts(ctx context.Context, after string, limit int) ([]users.Account, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	one := func(row interface{ Scan(...any) error }) (users.Account, error) { return scanAccount(row) }
	return collect(ctx, s, one, "SELECT "+accountColumns+" FROM accounts WHERE name > $1 ORDER BY name LIMIT $2", after, limit)
}

// PasswordForms implements users.Accounts.
func (s *Store) PasswordForms(ctx context.Context) ([]string, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	return s.list(ctx, "SELECT DISTINCT SUBSTR(password, 1, 6) FROM accounts WHERE password <> '' ORDER BY 1")
}

// AddAccount adds an account; users.ErrConflict when the name is taken.
func (s *Store) AddAccount(ctx context.Context, a users.Account) error {
	return s.change(ctx, func(on runner) error {
		_, err := s.exec(ctx, on, "INSERT INTO accounts ("+accountColumns+") VALUES ($1, $2, $3, $4, $5, $6)",
			a.Name, string(a.Kind), a.Password, a.Disabled, micros(a.Created), micros(a.Created))
		if conflict(err) {
			return fmt.Errorf("account %q: %w", a.Name, users.ErrConflict)
		}
		if err != nil {
			return err
		}
		// Those of one of that name who was removed while they were made.
		return s.removeTokens(ctx, on, "database", a.Name)
	})
}

// SetPassword changes the password of a user. Its refresh tokens end with the old one.
func (s *Store) SetPassword(ctx context.Context, name, hash string, now time.Time) error {
	return s.change(ctx, func(on runner) error { return s.setPassword(ctx, on, name, hash, now) })
}

func (s *Store) setPassword(ctx context.Context, on runner, name, hash string, now time.Time) error {
	if err := s.one(ctx, on, name, "UPDATE accounts SET password = $2, changed = $3 WHERE name = $1 AND kind = 'user'", name, hash, micros(now)); err != nil {
		return err
	}
	return s.endLogins(ctx, on, "database", name)
}

// SetDisabled locks an account out, or lets it in again.
func (s *Store) SetDisabled(ctx context.Context, name string, disabled bool, now time.Time) error {
	return s.change(ctx, func(on runner) error { return s.setDisabled(ctx, on, name, disabled, now) })
}

func (s *Store) setDisabled(ctx context.Context, on runner, name string, disabled bool, now time.Time) error {
	if err := s.one(ctx, on, name, "UPDATE accounts SET disabled = $2, changed = $3 WHERE name = $1", name, disabled, micros(now)); err != nil {
		return err
	}
	if !disabled {
		return nil
	}
	return s.endLogins(ctx, on, "database", name)
}

// RemoveAccount deletes an account, and with it its memberships and tokens: the next one of that name is somebody else.
func (s *Store) RemoveAccount(ctx context.Context, name string) error {
	return s.change(ctx, func(on runner) error { return s.removeAccount(ctx, on, name) })
}

func (s *Store) removeAccount(ctx context.Context, on runner, name string) error {
	if err := s.one(ctx, on, name, "DELETE FROM accounts WHERE name = $1", name); err != nil {
		return err
	}
	return s.removeTokens(ctx, on, "database", name)
}

// RemoveTokens ends all tokens of a name in a backend.
func (s *Store) RemoveTokens(ctx context.Context, backend, owner string) error {
	return s.change(ctx, func(on runner) error { return s.removeTokens(ctx, on, backend, owner) })
}

func (s *Store) removeTokens(ctx context.Context, on runner, backend, owner string) error {
	if _, err := s.exec(ctx, on, "DELETE FROM access_tokens WHERE backend = $1 AND owner = $2", backend, owner); err != nil {
		return err
	}
	return s.endLogins(ctx, on, backend, owner)
}

func (s *Store) endLogins(ctx context.Context, on runner, backend, owner string) error {
	_, err := s.exec(ctx, on, "DELETE FROM refresh_tokens WHERE backend = $1 AND owner = $2", backend, owner)
	return err
}

// one runs a statement that must change something.
func (s *Store) one(ctx context.Context, on runner, what, query string, args ...any) error {
	n, err := s.exec(ctx, on, query, args...)
	if err == nil && n == 0 {
		err = fmt.Errorf("%q: %w", what, users.ErrNotFound)
	}
	return err
}

// Groups returns the names of all groups.
func (s *Store) Groups(ctx context.Context) ([]string, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	return s.list(ctx, "SELECT name FROM account_groups ORDER BY name")
}

// Members returns who is in a group; users.ErrNotFound when there is no such group.
func (s *Store) Members(ctx context.Context, group string) ([]string, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	if known, err := s.list(ctx, "SELECT name FROM account_groups WHERE name = $1", group); err != nil {
		return nil, err
	} else if len(known) == 0 {
		return nil, fmt.Errorf("group %q: %w", group, users.ErrNotFound)
	}
	return s.list(ctx, "SELECT account FROM memberships WHERE group_name = $1 ORDER BY account", group)
}

// AddGroup makes a group; users.ErrConflict when it is there.
func (s *Store) AddGroup(ctx context.Context, name string, now time.Time) error {
	return s.change(ctx, func(on runner) error {
		_, err := s.exec(ctx, on, "INSERT INTO account_groups (name, created) VALUES ($1, $2)", name, micros(now))
		if conflict(err) {
			return fmt.Errorf("group %q: %w", name, users.ErrConflict)
		}
		return err
	})
}

// RemoveGroup deletes a group.
func (s *Store) RemoveGroup(ctx context.Context, name string) error {
	return s.change(ctx, func(on runner) error { return s.one(ctx, on, name, "DELETE FROM account_groups WHERE name = $1", name) })
}

// AddMember puts an account into a group. It is no error when it is there.
func (s *Store) AddMember(ctx context.Context, group, account string) error {
	return s.change(ctx, func(on runner) error {
		for _, must := range [][2]string{{"SELECT COUNT(*) FROM account_groups WHERE name = $1", group}, {"SELECT COUNT(*) FROM accounts WHERE name = $1", account}} {
			var n int
			if err := on.QueryRowContext(ctx, s.text(must[0]), must[1]).Scan(&n); err != nil {
				return err
			} else if n == 0 {
				return fmt.Errorf("%q: %w", must[1], users.ErrNotFound)
			}
		}
		_, err := s.exec(ctx, on, "INSERT INTO memberships (group_name, account) VALUES ($1, $2) ON CONFLICT DO NOTHING", group, account)
		return err
	})
}

// RemoveMember takes an account out of a group.
func (s *Store) RemoveMember(ctx context.Context, group, account string) error {
	return s.change(ctx, func(on runner) error {
		return s.one(ctx, on, account, "DELETE FROM memberships WHERE group_name = $1 AND account = $2", group, account)
	})
}
