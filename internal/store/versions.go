package store

import (
	"context"
	"fmt"
	"time"

	"authserver/internal/users"
)

// SetDisabledIf is SetDisabled for an account as it was changed last at a time; users.ErrChanged when it is another by now.
func (s *Store) SetDisabledIf(ctx context.Context, name string, changed time.Time, disabled bool, now time.Time) error {
	return s.change(ctx, func(on runner) error {
		if err := s.unchanged(ctx, on, name, changed); err != nil {
			return err
		}
		return s.setDisabled(ctx, on, name, disabled, now)
	})
}

// SetPasswordIf is SetPassword for an account as it was changed last at a time; users.ErrChanged when it is another by now.
func (s *Store) SetPasswordIf(ctx context.Context, name string, changed time.Time, hash string, now time.Time) error {
	return s.change(ctx, func(on runner) error {
		if err := s.unchanged(ctx, on, name, changed); err != nil {
			return err
		}
		return s.setPassword(ctx, on, name, hash, now)
	})
}

// RemoveAccountIf is RemoveAccount for an account as it was changed last at a time; users.ErrChanged when it is another by now.
func (s *Store) RemoveAccountIf(ctx context.Context, name string, changed time.Time) error {
	return s.change(ctx, func(on runner) error {
		if err := s.unchanged(ctx, on, name, changed); err != nil {
			return err
		}
		return s.removeAccount(ctx, on, name)
	})
}

// unchanged writes, although nothing new, so that nobody else changes the account before the transaction ends.
func (s *Store) unchanged(ctx context.Context, on runner, name string, changed time.Time) error {
	n, err := s.exec(ctx, on, "UPDATE accounts SET changed = changed WHERE name = $1 AND changed = $2", name, micros(changed))
	if err == nil && n == 0 {
		err = fmt.Errorf("account %q: %w", name, users.ErrChanged)
	}
	return err
}
