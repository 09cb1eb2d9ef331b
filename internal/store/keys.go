package store

import (
	"context"
	"fmt"
	"maps"
	"time"
)

// UpdateKeys runs do on the signing keys, name to encrypted content, and keeps what it leaves in the map: all of it, or
// nothing when there is an error. One process at a time does, and others are told of changes (Watch). do may run more
// than once.
func (s *Store) UpdateKeys(ctx context.Context, now time.Time, do func(rows map[string]string) error) error {
	// Mostly there is nothing to change. Who only looks waits for nobody, and keeps nobody waiting.
	rows, err := s.look(ctx)
	if err != nil {
		return err
	}
	was := maps.Clone(rows)
	if err := do(rows); err != nil || maps.Equal(was, rows) {
		return err
	}
	return s.tx(ctx, func(on runner) error {
		if !s.sqlite { // whose transactions are alone already
			// A process that is frozen while it has the lock loses it.
			if _, err := s.exec(ctx, on, fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d", s.limit.Milliseconds())); err != nil {
				return err
			}
			if _, err := s.exec(ctx, on, "LOCK TABLE signing_keys IN EXCLUSIVE MODE"); err != nil {
				return err
			}
		}
		rows, err := s.keys(ctx, on)
		if err != nil {
			return err
		}
		was := maps.Clone(rows)
		if err := do(rows); err != nil || maps.Equal(was, rows) {
			return err
		}
		for name := range was {
			if _, kept := rows[name]; !kept {
				if _, err := s.exec(ctx, on, "DELETE FROM signing_keys WHERE name = $1", name); err != nil {
					return err
				}
			}
		}
		for name, content := range rows {
			if had, ok := was[name]; ok && had == content {
				continue
			}
			if _, err := s.exec(ctx, on, "INSERT INTO signing_keys (name, content, changed) VALUES ($1, $2, $3) "+
				"ON CONFLICT (name) DO UPDATE SET content = excluded.content, changed = excluded.changed", name, content, micros(now)); err != nil {
				return err
			}
		}
		return s.revise(ctx, on, partKeys)
	})
}

func (s *Store) look(ctx context.Context) (map[string]string, error) {
	ctx, cancel := s.begin(ctx, "read")
	defer cancel()
	return s.keys(ctx, s.db)
}

func (s *Store) keys(ctx context.Context, on runner) (map[string]string, error) {
	rows, err := on.QueryContext(ctx, "SELECT name, content FROM signing_keys")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	found := map[string]string{}
	for rows.Next() {
		var name, content string
		if err := rows.Scan(&name, &content); err != nil {
			return nil, err
		}
		found[name] = content
	}
	return found, rows.Err()
}
