package users

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// waitingPerTurn bounds the queue for a turn: at bcrypt's cost 12, the last of 64 has its turn after about the 12 s within
// which a request must be answered. Whoever comes after that would wait for nothing.
const waitingPerTurn = 64

// queueRetry is when one who found the queue full may come again.
const queueRetry = 5 * time.Second

// guessEvery is how often somebody's turn comes who is not known, while there are others who are: every fourth time.
const guessEvery = 4

// turns bounds how many work at once and how many wait. Who waits is served in the order of coming, but those who are known
// do not wait behind those who guess.
type turns struct {
	mu      sync.Mutex
	most    int
	working int
	served  int
	known   list.List // of chan struct{}, closed when it is their turn
	others  list.List
}

// set changes how many work at once.
func (t *turns) set(most int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.most = most
	t.next()
}

// take waits for a turn; the caller gives it back unless there is an error: a *Later, or that of the context. A context
// that is done never gets one.
func (t *turns) take(ctx context.Context, known bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	if t.working < t.most { // and nobody waits
		t.working++
		t.mu.Unlock()
		return nil
	}
	queue := &t.others
	if known {
		queue = &t.known
	}
	if queue.Len() >= waitingPerTurn*t.most {
		t.mu.Unlock()
		return &Later{Reason: heldByQueue, After: queueRetry}
	}
	turn := make(chan struct{})
	place := queue.PushBack(turn)
	t.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-turn: // at the same moment: it is somebody else's now
		t.working--
		t.next()
	default:
		queue.Remove(place)
	}
	return ctx.Err()
}

// waiting is how many wait.
func (t *turns) waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known.Len() + t.others.Len()
}

func (t *turns) giveBack() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.working--
	t.next()
}

func (t *turns) next() {
	for t.working < t.most && t.known.Len()+t.others.Len() > 0 {
		queue := &t.known
		if t.served++; t.known.Len() == 0 || t.others.Len() > 0 && t.served%guessEvery == 0 {
			queue = &t.others
		}
		t.working++
		close(queue.Remove(queue.Front()).(chan struct{}))
	}
}
