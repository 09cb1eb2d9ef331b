package store

import (
	"context"
	"fmt"

	"authserver/internal/users"
)

// GroupsOf returns the groups of the accounts from one name to another, by account.
func (s *Store) GroupsOf(ctx context.Context, first, last string) (map[string][]string, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	rows, err := s.db.QueryContext(ctx, s.text("SELECT account, group_name FROM memberships WHERE account >= $1 AND account <= $2 ORDER BY account, group_name"), first, last)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	groups := map[string][]string{}
	for rows.Next() {
		var account, group string
		if err := rows.Scan(&account, &group); err != nil {
			return nil, err
		}
		groups[account] = append(groups[account], group)
	}
	return groups, rows.Err()
}

// GroupsAfter returns at most limit groups whose names come after a name.
func (s *Store) GroupsAfter(ctx context.Context, after string, limit int) ([]string, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	return s.list(ctx, "SELECT name FROM account_groups WHERE name > $1 ORDER BY name LIMIT $2", after, limit)
}

// MembersAfter returns at most limit members of a group whose names come after a name; users.ErrNotFound when there is no
// such group.
func (s *Store) MembersAfter(ctx context.Context, group, after string, limit int) ([]string, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	if known, err := s.list(ctx, "SELECT name FROM account_groups WHERE name = $1", group); err != nil {
		return nil, err
	} else if len(known) == 0 {
		return nil, fmt.Errorf("group %q: %w", group, users.ErrNotFound)
	}
	return s.list(ctx, "SELECT account FROM memberships WHERE group_name = $1 AND account > $2 ORDER BY account LIMIT $3", group, after, limit)
}

// Owner is whose tokens are meant: those of a name in one backend, or with Backend "" in all.
type Owner struct{ Backend, Name string }

const ofOwner = "owner = $1 AND ($2 = '' OR backend = $2)"

// AccessTokensOf returns at most limit tokens of an owner whose ids come after an id, by id.
func (s *Store) AccessTokensOf(ctx context.Context, owner Owner, after string, limit int) ([]users.AccessToken, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	return collect(ctx, s, scanAccessToken, "SELECT "+accessTokenColumns+" FROM access_tokens WHERE "+ofOwner+" AND id > $3 ORDER BY id LIMIT $4",
		owner.Name, owner.Backend, after, limit)
}

// RefreshTokensOf returns at most limit refresh tokens of an owner whose ids come after an id, by id.
func (s *Store) RefreshTokensOf(ctx context.Context, owner Owner, after string, limit int) ([]users.RefreshToken, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	return collect(ctx, s, scanRefreshToken, "SELECT "+refreshTokenColumns+" FROM refresh_tokens WHERE "+ofOwner+" AND id > $3 ORDER BY id LIMIT $4",
		owner.Name, owner.Backend, after, limit)
}

// RevokeAccessTokenOf ends a token if it is the owner's; else users.ErrNotFound.
func (s *Store) RevokeAccessTokenOf(ctx context.Context, owner Owner, id string) error {
	return s.change(ctx, func(on runner) error {
		return s.one(ctx, on, id, "DELETE FROM access_tokens WHERE "+ofOwner+" AND id = $3", owner.Name, owner.Backend, id)
	})
}

// RevokeRefreshTokenOf ends a token if it is the owner's; else users.ErrNotFound.
func (s *Store) RevokeRefreshTokenOf(ctx context.Context, owner Owner, id string) error {
	return s.change(ctx, func(on runner) error {
		return s.one(ctx, on, id, "DELETE FROM refresh_tokens WHERE "+ofOwner+" AND id = $3", owner.Name, owner.Backend, id)
	})
}
