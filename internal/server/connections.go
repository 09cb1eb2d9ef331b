package server

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"authserver/internal/metrics"
)

// Descriptors that are kept back from connections: for the database, files, the ops listener, and what a reload opens.
const keptDescriptors = 128

// evictFrom is among how many connections the one is looked for that makes room: enough to find an old one, and no work
// that somebody who opens connections could make us do.
const evictFrom = 64

// Connections bounds how many connections a listener has. Past the bound, one that does nothing makes room: who opens
// thousands and sends nothing loses his own, and not those of others.
type Connections struct {
	net.Listener
	most int

	mu   sync.Mutex
	open map[*connection]struct{}

	closedIdle, closedNew uint64 // because there were too many
}

// Count tells what becomes of connections.
func (c *Connections) Count() metrics.Connections {
	c.mu.Lock()
	defer c.mu.Unlock()
	return metrics.Connections{Open: len(c.open), Limit: c.most, ClosedIdle: c.closedIdle, ClosedNew: c.closedNew}
}

// connection knows since when it does nothing.
type connection struct {
	net.Conn
	idle  atomic.Int64 // unix nanoseconds; 0 = a request is under way
	owner *Connections
	once  sync.Once
}

// LimitConnections bounds ln to most connections, and to what the process may open files for.
func LimitConnections(ln net.Listener, most int) *Connections {
	return &Connections{Listener: ln, most: min(most, descriptors()), open: map[*connection]struct{}{}}
}

// descriptors is how many connections the limit of open files allows.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1 << 20
	}
	n := int(min(limit.Cur, 1<<20))
	return max(n-min(keptDescriptors, n/2), 1)
}

// Accept implements net.Listener.
func (c *Connections) Accept() (net.Conn, error) {
	for {
		inner, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		one := &connection{Conn: inner, owner: c}
		one.idle.Store(time.Now().UnixNano())
		victim, ok := c.add(one)
		if victim != nil {
			_ = victim.Close()
		}
		if ok {
			return one, nil
		}
		_ = inner.Close() // all are at work
	}
}

// add takes a connection in, and returns the one that has to go for it.
func (c *Connections) add(one *connection) (victim *connection, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= c.most {
		if victim = c.idlest(); victim == nil {
			c.closedNew++
			return nil, false
		}
		c.closedIdle++
		delete(c.open, victim)
	}
	c.open[one] = struct{}{}
	return victim, true
}

// idlest is the one of a few that has done nothing for longest; nil when all are at work.
func (c *Connections) idlest() *connection {
	var found *connection
	least, seen := int64(0), 0
	for one := range c.open {
		if since := one.idle.Load(); since != 0 && (found == nil || since < least) {
			found, least = one, since
		}
		if seen++; seen == evictFrom {
			break
		}
	}
	return found
}

// Close implements net.Conn.
func (one *connection) Close() error {
	one.once.Do(func() {
		one.owner.mu.Lock()
		defer one.owner.mu.Unlock()
		delete(one.owner.open, one)
	})
	return one.Conn.Close()
}

// State is an http.Server's ConnState.
func (c *Connections) State(conn net.Conn, state http.ConnState) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	one, ok := conn.(*connection)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		one.idle.Store(0)
	case http.StateNew, http.StateIdle:
		one.idle.Store(time.Now().UnixNano())
	}
}
