package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"authserver/internal/users"
)

// Times of Watch. What another process has changed is seen within staleAfter: the next look comes after lookEvery, and
// when looks fail, nothing is remembered that was not confirmed so long.
// What is only noted has no revision: keepFor is how old it can be, such as another process's note that a token was used.
const (
	lookEvery  = 250 * time.Millisecond
	lookInFile = 50 * time.Millisecond // SQLite: nobody else is asked
	staleAfter = 2 * time.Second
	keepFor    = time.Minute
)

// mostRecent bounds each of the tables of what was read lately. An account or a token takes about half a kilobyte.
const mostRecent = 10_000

// Parts of the database that have a revision.
const (
	partAccounts = "accounts"
	partKeys     = "keys"
)

// recent remembers accounts and tokens as they were read last, so that who asks again and again is answered without SQL.
// It is good for as long as the revision of the database stays; without Watch it remembers nothing.
type recent struct {
	start time.Time
	until atomic.Int64 // nanoseconds since start: until then nobody else can have changed anything that is remembered

	look, stale, keep time.Duration
	changed           atomic.Bool // by this process

	mu      sync.RWMutex
	epoch   uint64 // changes whenever everything is forgotten
	account table[users.Account]
	nobody  table[struct{}] // names without an account, apart: whoever sends a million of them drives nobody else out
	access  table[users.AccessToken]
	refresh table[users.RefreshToken]
}

func newRecent(look time.Duration) *recent {
	return &recent{start: time.Now(), look: look, stale: staleAfter, keep: keepFor}
}

type table[V any] map[string]entry[V]

type entry[V any] struct {
	v    V
	read time.Duration // since start
}

func (t *table[V]) put(key string, v V, read time.Duration) {
	if *t == nil {
		*t = table[V]{}
	}
	if _, again := (*t)[key]; !again && len(*t) >= mostRecent {
		for drop := range *t {
			delete(*t, drop) // whichever the map begins with
			break
		}
	}
	(*t)[key] = entry[V]{v, read}
}

func (r *recent) now() time.Duration { return time.Since(r.start) }

// good tells whether what is remembered can be used now.
func (r *recent) good() bool { return int64(r.now()) < r.until.Load() }

// forget drops everything.
func (r *recent) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	r.account, r.nobody, r.access, r.refresh = nil, nil, nil, nil
}

// recalled returns what a table has under a key, or reads it. What was read is not remembered when everything was
// forgotten meanwhile: it may be older than the change.
func recalled[V any](r *recent, t *table[V], key string, read func() (V, error)) (V, error) {
	if !r.good() {
		return read()
	}
	began := r.now()
	r.mu.RLock()
	one, ok := (*t)[key]
	epoch := r.epoch
	r.mu.RUnlock()
	if ok && began-one.read < r.keep {
		return one.v, nil
	}
	v, err := read()
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.epoch == epoch {
			t.put(key, v, began)
		}
	}
	return v, err
}

// isNobody tells whether a name is remembered to have no account.
func (r *recent) isNobody(name string) (known bool, epoch uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	one, known := r.nobody[name]
	return known && r.now()-one.read < r.keep && r.good(), r.epoch
}

func (r *recent) noteNobody(name string, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch == epoch && r.good() {
		r.nobody.put(name, struct{}{}, r.now())
	}
}

// used notes the use of a token in what is remembered of it, as it is noted in the database.
func used[V any](r *recent, t *table[V], is func(V) bool, set func(*V)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, one := range *t {
		if is(one.v) {
			set(&one.v)
			(*t)[key] = one
			return
		}
	}
}

// Watch remembers what is read from now on, until ctx ends, and looks whether somebody else has changed it. onKeys is
// called at first, and after signing keys were changed.
func (s *Store) Watch(ctx context.Context, onKeys func()) {
	r := s.recent
	var last map[string]int64
	for {
		began := r.now()
		if now, err := s.revisions(ctx); err == nil {
			// What could not be used for a while is not good again, even at the same revision: a database that takes the
			// place of one that was lost may lack its last changes, and have got as many others since.
			if now[partAccounts] != last[partAccounts] || !r.good() {
				r.forget()
			}
			if last == nil || now[partKeys] != last[partKeys] { // at first too: they may have changed since they were read
				onKeys()
			}
			last = now
			r.until.Store(int64(began + r.stale))
		}
		select {
		case <-ctx.Done():
			r.until.Store(0)
			return
		case <-time.After(r.look):
		}
	}
}

func (s *Store) revisions(ctx context.Context) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.recent.stale) // and no metric: nobody waits for it
	defer cancel()
	rows, err := s.db.QueryContext(ctx, "SELECT part, number FROM revisions")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	found := map[string]int64{}
	for rows.Next() {
		var part string
		var number int64
		if err := rows.Scan(&part, &number); err != nil {
			return nil, err
		}
		found[part] = number
	}
	return found, rows.Err()
}

// Settle waits until processes that Watch have seen what this one has changed: a command that locks somebody out returns when
// they are out. It returns at once when nothing was changed, or ctx is done.
func (s *Store) Settle(ctx context.Context) {
	if !s.recent.changed.Load() {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(s.recent.look + s.recent.look/2): // one look, and its answer
	}
}

// change is tx for what others may remember: accounts, groups and tokens that end.
func (s *Store) change(ctx context.Context, do func(runner) error) error {
	done := false
	err := s.tx(ctx, func(on runner) error {
		err := do(on)
		if err == nil {
			err = s.revise(ctx, on, partAccounts)
		}
		done = err == nil
		return err
	})
	if done { // also when there is an error: it may have come through all the same
		s.recent.forget()
		s.recent.changed.Store(true)
	}
	return err
}

// revise is the last statement of a change: those that follow wait for it.
func (s *Store) revise(ctx context.Context, on runner, part string) error {
	_, err := s.exec(ctx, on, "UPDATE revisions SET number = number + 1 WHERE part = $1", part)
	return err
}

// Account implements users.Accounts.
func (s *Store) Account(ctx context.Context, name string) (users.Account, error) {
	nobody, epoch := s.recent.isNobody(name)
	if nobody {
		return users.Account{}, users.ErrNotFound
	}
	a, err := recalled(s.recent, &s.recent.account, name, func() (users.Account, error) { return s.readAccount(ctx, name) })
	if errors.Is(err, users.ErrNotFound) {
		s.recent.noteNobody(name, epoch)
	}
	return a, err
}
