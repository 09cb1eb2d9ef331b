package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"authserver/internal/users"
)

const accessTokenColumns = "id, owner, backend, name, shown, scopes, networks, created, expires, last_used, last_from"

func scanAccessToken(row interface{ Scan(...any) error }) (users.AccessToken, error) {
	var t users.AccessToken
	var scopes, networks string
	var created, expires, lastUsed int64
	err := row.Scan(&t.ID, &t.Owner, &t.Backend, &t.Name, &t.Shown, &scopes, &networks, &created, &expires, &lastUsed, &t.LastFrom)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return users.AccessToken{}, users.ErrNotFound
	case err != nil:
		return users.AccessToken{}, err
	}
	// A limit that cannot be read is no reason to be without one.
	if err := errors.Join(json.Unmarshal([]byte(scopes), &t.Scopes), json.Unmarshal([]byte(networks), &t.Networks)); err != nil {
		return users.AccessToken{}, fmt.Errorf("access token %s is damaged: %w", t.ID, err)
	}
	t.Created, t.Expires, t.LastUsed = fromMicros(created), fromMicros(expires), fromMicros(lastUsed)
	return t, nil
}

// AddAccessToken keeps a token; users.ErrConflict when its owner has one of that name.
func (s *Store) AddAccessToken(ctx context.Context, hash string, t users.AccessToken) error {
	scopes, err := json.Marshal(t.Scopes)
	if err != nil {
		return err
	}
	networks, err := json.Marshal(t.Networks)
	if err != nil {
		return err
	}
	return s.tx(ctx, func(on runner) error {
		_, err := s.exec(ctx, on, "INSERT INTO access_tokens (hash, "+accessTokenColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, '')",
			hash, t.ID, t.Owner, t.Backend, t.Name, t.Shown, string(scopes), string(networks), micros(t.Created), micros(t.Expires))
		if conflict(err) {
			return fmt.Errorf("token %q of %q: %w", t.Name, t.Owner, users.ErrConflict)
		}
		return err
	})
}

// AccessToken implements users.AccessTokenStore.
func (s *Store) AccessToken(ctx context.Context, hash string) (users.AccessToken, error) {
	return recalled(s.recent, &s.recent.access, hash, func() (users.AccessToken, error) { return s.readAccessToken(ctx, hash) })
}

func (s *Store) readAccessToken(ctx context.Context, hash string) (users.AccessToken, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	return scanAccessToken(s.db.QueryRowContext(ctx, s.text("SELECT "+accessTokenColumns+" FROM access_tokens WHERE hash = $1"), hash))
}

// AccessTokens returns at most limit tokens whose ids come after an id, by id: of one owner, or with "" of all.
func (s *Store) AccessTokens(ctx context.Context, owner, after string, limit int) ([]users.AccessToken, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	query, args := "SELECT "+accessTokenColumns+" FROM access_tokens WHERE id > $1 ORDER BY id LIMIT $2", []any{after, limit}
	if owner != "" {
		query, args = "SELECT "+accessTokenColumns+" FROM access_tokens WHERE id > $1 AND owner = $3 ORDER BY id LIMIT $2", append(args, owner)
	}
	return collect(ctx, s, scanAccessToken, query, args...)
}

// AccessTokenUsed implements users.AccessTokenStore.
func (s *Store) AccessTokenUsed(ctx context.Context, id string, at time.Time, from string) error {
	err := s.tx(ctx, func(on runner) error {
		_, err := s.exec(ctx, on, "UPDATE access_tokens SET last_used = $2, last_from = $3 WHERE id = $1 AND last_used < $2", id, micros(at), from)
		return err
	})
	if err == nil {
		used(s.recent, &s.recent.access, func(t users.AccessToken) bool { return t.ID == id }, func(t *users.AccessToken) { t.LastUsed, t.LastFrom = at, from })
	}
	return err
}

// RevokeAccessToken ends a token.
func (s *Store) RevokeAccessToken(ctx context.Context, id string) error {
	return s.change(ctx, func(on runner) error { return s.one(ctx, on, id, "DELETE FROM access_tokens WHERE id = $1", id) })
}

const refreshTokenColumns = "id, owner, backend, mark, service, client, created, last_used"

func scanRefreshToken(row interface{ Scan(...any) error }) (users.RefreshToken, error) {
	var t users.RefreshToken
	var created, lastUsed int64
	err := row.Scan(&t.ID, &t.Owner, &t.Backend, &t.Mark, &t.Service, &t.Client, &created, &lastUsed)
	if errors.Is(err, sql.ErrNoRows) {
		err = users.ErrNotFound
	}
	t.Created, t.LastUsed = fromMicros(created), fromMicros(lastUsed)
	return t, err
}

// mostLogins bounds the refresh tokens of an account for one service. Every login of docker asks for one, and a pipeline
// that logs in anew at each run would add rows for a year; those that were not used for longest end.
const mostLogins = 100

// AddRefreshToken implements users.RefreshTokenStore.
func (s *Store) AddRefreshToken(ctx context.Context, hash string, t users.RefreshToken) error {
	trimmed := int64(0)
	err := s.tx(ctx, func(on runner) error {
		_, err := s.exec(ctx, on, "INSERT INTO refresh_tokens (hash, "+refreshTokenColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
			hash, t.ID, t.Owner, t.Backend, t.Mark, t.Service, t.Client, micros(t.Created), micros(t.LastUsed))
		if err != nil {
			return err
		}
		trimmed, err = s.exec(ctx, on, "DELETE FROM refresh_tokens WHERE backend = $1 AND owner = $2 AND service = $3 AND id <> $4 AND id NOT IN ("+
			"SELECT id FROM refresh_tokens WHERE backend = $1 AND owner = $2 AND service = $3 AND id <> $4 ORDER BY last_used DESC, id LIMIT $5)",
			t.Backend, t.Owner, t.Service, t.ID, mostLogins-1)
		if err != nil || trimmed == 0 {
			return err
		}
		return s.revise(ctx, on, partAccounts)
	})
	if trimmed > 0 {
		s.recent.forget()
	}
	return err
}

// RefreshToken implements users.RefreshTokenStore.
func (s *Store) RefreshToken(ctx context.Context, hash string) (users.RefreshToken, error) {
	return recalled(s.recent, &s.recent.refresh, hash, func() (users.RefreshToken, error) { return s.readRefreshToken(ctx, hash) })
}

func (s *Store) readRefreshToken(ctx context.Context, hash string) (users.RefreshToken, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	return scanRefreshToken(s.db.QueryRowContext(ctx, s.text("SELECT "+refreshTokenColumns+" FROM refresh_tokens WHERE hash = $1"), hash))
}

// RefreshTokenUsed implements users.RefreshTokenStore.
func (s *Store) RefreshTokenUsed(ctx context.Context, id string, at time.Time) error {
	err := s.tx(ctx, func(on runner) error {
		_, err := s.exec(ctx, on, "UPDATE refresh_tokens SET last_used = $2 WHERE id = $1 AND last_used < $2", id, micros(at))
		return err
	})
	if err == nil {
		used(s.recent, &s.recent.refresh, func(t users.RefreshToken) bool { return t.ID == id }, func(t *users.RefreshToken) { t.LastUsed = at })
	}
	return err
}

// RevokeRefreshToken ends a token.
func (s *Store) RevokeRefreshToken(ctx context.Context, id string) error {
	return s.change(ctx, func(on runner) error { return s.one(ctx, on, id, "DELETE FROM refresh_tokens WHERE id = $1", id) })
}

// Sweep deletes what has ended: access tokens past their expiry (kept a week, so that lists can say why one is refused),
// and refresh tokens that were last used, or made, before a time.
func (s *Store) Sweep(ctx context.Context, now, lastUsedBefore, createdBefore time.Time) (deleted int64, err error) {
	err = s.tx(ctx, func(on runner) error { // nobody need know: who remembers one that has ended refuses it by its dates
		access, err := s.exec(ctx, on, "DELETE FROM access_tokens WHERE expires > 0 AND expires < $1", micros(now.Add(-7*24*time.Hour)))
		if err != nil {
			return err
		}
		refresh, err := s.exec(ctx, on, "DELETE FROM refresh_tokens WHERE last_used < $1 OR created < $2", micros(lastUsedBefore), micros(createdBefore))
		deleted = access + refresh
		return err
	})
	return deleted, err
}
