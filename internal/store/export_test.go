package store

import "time"

// Watching sets how often Watch looks, until when it can do without an answer, and how old what is remembered can be.
func (s *Store) Watching(look, stale, keep time.Duration) {
	s.recent.look, s.recent.stale, s.recent.keep = look, stale, keep
}

// LookedAfter tells whether Watch has acted on a look that began after a time.
func (s *Store) LookedAfter(t time.Time) bool {
	r := s.recent
	return time.Duration(r.until.Load())-r.stale > t.Sub(r.start)
}

// Remembers tells whether what was read is remembered now.
func (s *Store) Remembers() bool { return s.recent.good() }
