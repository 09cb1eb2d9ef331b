package store

import "time"

// Watching sets how often Watch looks, until when it can do without an answer, and how old what is remembered can be.
func (s *Store) Watching(look, stale, keep time.Duration) {
	s.recent.look, s.recent.stale, s.recent.keep = look, stale, keep
}

// Remembers tells whether what was read is remembered now.
func (s *Store) Remembers() bool { return s.recent.good() }
