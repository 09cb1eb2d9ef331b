package users

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
	"time"
)

// Bounds of what is remembered. An entry takes about 120 bytes, so all together stay below 32 MiB; when there are more,
// the oldest are forgotten, and cost a comparison when they come again.
const (
	shards      = 64 // so that requests do not wait for one another
	mostRight   = 1 << 17
	mostWrong   = 1 << 16
	trustedFor  = 24 * time.Hour // for which a password that was right is no guess
	wrongAtMost = 10 * time.Minute
)

// digest stands for a name, the stored hash, and a password that was given.
type digest [sha256.Size]byte

// memory knows which passwords were right or wrong lately, and not the passwords: what it keeps is an HMAC under a key
// that is nowhere but here. The stored hash goes into it, so a password that was changed is forgotten at once.
type memory struct {
	hmacs  sync.Pool
	shards [shards]shard
}

type shard struct {
	mu           sync.RWMutex
	right, wrong table[digest]
}

func newMemory() *memory {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	m := &memory{hmacs: sync.Pool{New: func() any { return hmac.New(sha256.New, key[:]) }}}
	for i := range m.shards {
		m.shards[i].right.most, m.shards[i].wrong.most = mostRight/shards, mostWrong/shards
	}
	return m
}

func (m *memory) digest(name string, stored []byte, password string) digest {
	h := m.hmacs.Get().(hash.Hash)
	defer m.hmacs.Put(h)
	h.Reset()
	// Each part with its length, so that no other parts make the same text. Names and hashes are bounded by who reads them.
	text := make([]byte, 0, 512)
	for _, part := range [...]string{name, string(stored), password} {
		text = binary.AppendUvarint(text, uint64(len(part)))
		text = append(text, part...)
	}
	_, _ = h.Write(text)
	var d digest
	h.Sum(d[:0])
	return d
}

func (m *memory) shard(d digest) *shard { return &m.shards[d[0]%shards] }

// recollection is what is remembered.
type recollection int

const (
	nothing     recollection = iota
	rightLately              // it need not be compared
	rightOnce                // it must be compared, but is no guess
	wrongLately              // it need not be compared
)

func (m *memory) recall(d digest, now time.Duration, l *Limits) recollection {
	s := m.shard(d)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if at, ok := s.right.entries[d]; ok {
		switch age := now - at; {
		case age < l.Remember:
			return rightLately
		case age < trustedFor:
			return rightOnce
		}
	}
	if at, ok := s.wrong.entries[d]; ok && now-at < l.wrongFor() {
		return wrongLately
	}
	return nothing
}

// wrongFor is how long a wrong password is answered without comparing it: a fleet that was not told the new one costs
// as little as one that was.
func (l *Limits) wrongFor() time.Duration {
	return min(max(l.Remember, l.Throttle.Window), wrongAtMost)
}

func (m *memory) right(d digest, now time.Duration, l *Limits) {
	if l.Remember == 0 && !l.Throttle.enabled() {
		return
	}
	s := m.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.right.put(d, now)
}

func (m *memory) wrong(d digest, now time.Duration, l *Limits) {
	if l.wrongFor() == 0 {
		return
	}
	s := m.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong.put(d, now)
}

// table keeps the newest entries, each with the time since the process began.
type table[K comparable] struct {
	entries map[K]time.Duration
	order   []K // a ring, oldest at next once it is full
	next    int
	most    int
}

func (t *table[K]) put(key K, at time.Duration) {
	if t.entries == nil {
		t.entries = map[K]time.Duration{}
	}
	if _, again := t.entries[key]; !again {
		if len(t.order) < t.most {
			t.order = append(t.order, key)
		} else {
			delete(t.entries, t.order[t.next])
			t.order[t.next] = key
			t.next = (t.next + 1) % t.most
		}
	}
	t.entries[key] = at
}
