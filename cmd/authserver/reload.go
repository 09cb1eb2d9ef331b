package main

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"authserver/internal/config"
	"authserver/internal/issuer"
	"authserver/internal/users"
)

// What was refused is tried again after firstRetry, and each time after twice as long, up to lastRetry.
const (
	firstRetry = 2 * time.Second
	lastRetry  = time.Minute
)

// events call for a reload.
type events struct {
	hangup      <-chan os.Signal
	keysChanged <-chan struct{} // in the database
}

// attend reloads when it is told to, when files change, and when keys are due.
func (s *service) attend(ctx context.Context, failed <-chan error, e events) error {
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	renew := time.NewTicker(renewEvery)
	defer renew.Stop()
	seen := s.stamp
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-e.keysChanged:
			if s.current.Load().config.Issuer.Keys.Store == config.KeysInDatabase {
				s.reload("keys changed in the database")
			}
		case <-e.hangup:
			s.pause = 0
			if err := s.lasting.audit.Reopen(); err != nil {
				s.lasting.log.Error("the audit log cannot be opened again, the old file stays in use", "error", err.Error())
			}
			s.reload("SIGHUP")
		case <-watch.C:
			// A change is taken up when it has stayed for one look, so that a file that is being written is left alone.
			stamp := stampOf([]string{s.file}) + stampOf(s.current.Load().files)
			if stamp != s.stamp && stamp == seen {
				s.stamp, s.pause = stamp, 0
				s.reload("file change")
			}
			seen = stamp
			if time.Since(s.tried) < s.pause {
				continue
			}
			switch next := s.current.Load().ring.Next; {
			case s.refused: // a full disk, too many open files, a database that was away: not all reasons are in the files
				s.reload(again)
			case !next.IsZero() && time.Now().Round(0).After(next): // on the wall's clock, which replicas share, and which may be set
				s.reload("keys due")
			}
		case <-renew.C:
			s.reload("hourly look at the keys")
			s.sweep(ctx)
		}
	}
}

// again is why a reload is tried that was refused.
const again = "tried again"

// reload builds a new generation and puts it in the place of the old one; a bad one is refused with its reasons, and tried
// again after a while, which doubles.
func (s *service) reload(why string) {
	log := s.lasting.log
	status := "STATUS=serving"
	s.tell("RELOADING=1")
	defer func() { s.tell("READY=1", status) }()
	s.tried, s.pause = time.Now(), min(max(2*s.pause, firstRetry), lastRetry)
	stamp := stampOf([]string{s.file})
	c, err := config.Load(s.file, s.hand.settings(), s.hand.sets)
	var g *generation
	if err == nil {
		g, err = newGeneration(c, s.lasting, s.current.Load(), false)
	}
	s.refused = err != nil
	if err != nil {
		s.lasting.metrics.Reloaded(false)
		level := slog.LevelError
		if why == again && err.Error() == s.reasons { // it has been said
			level = slog.LevelDebug
		}
		s.reasons = err.Error()
		status = "STATUS=the new configuration is refused, the old one stays in use: " + strings.ReplaceAll(s.reasons, "\n", "; ")
		log.Log(context.Background(), level, "the new configuration is refused, the old one stays in use", "why", why, "error", s.reasons)
		return
	}
	if old := s.running; old.Server.Listen != c.Server.Listen || old.Server.OpsListen != c.Server.OpsListen ||
		old.Server.TLS != c.Server.TLS || old.Log.Format != c.Log.Format || old.Server.MaxConnections != c.Server.MaxConnections || old.Audit != c.Audit || old.Database != c.Database || old.Tracing != c.Tracing {
		log.Warn("a change of server.listen, server.ops_listen, server.max_connections, server.tls, log.format, audit, database or tracing needs a restart")
	}
	s.use(g, stamp)
	log.Info("configuration in use", "why", why)
	if g.keysAway != nil {
		s.refused, s.reasons = true, g.keysAway.Error()
		log.Warn("the keys cannot be read again, and those that are loaded stay in use", "error", s.reasons)
	} else if next := g.ring.Next; next.IsZero() || next.After(time.Now()) {
		s.pause = 0
	}
}

// use puts a generation in service. stamp is the configuration file's from before it was read, as the generation's own
// is: a change that came while it was being built is seen at the next look.
func (s *service) use(g *generation, stamp string) {
	var level slog.Level
	_ = level.UnmarshalText([]byte(g.config.Log.Level)) // checked by the configuration
	s.level.Set(level)
	s.lasting.guard.Limit(users.Limits{
		Parallel: s.shareCores(g.config.Passwords.Parallel), Remember: time.Duration(g.config.Passwords.CacheLifetime), Throttle: users.Throttle{
			Account: g.config.Throttle.AccountFailures, Network: g.config.Throttle.NetworkFailures, Window: time.Duration(g.config.Throttle.Window),
		},
	})
	expiry := map[string]time.Time{}
	for _, key := range g.ring.Published() {
		if len(key.Chain) > 0 {
			expiry[key.ID] = key.Chain[0].NotAfter
		}
	}
	root := map[string]time.Time{}
	if g.ring.Root != nil {
		id, end := issuer.RootID(g.ring.Root), g.ring.Root.NotAfter
		expiry[id], root[id] = end, end
	}
	s.lasting.metrics.SigningKeys(expiry)
	s.lasting.metrics.Roots(root)
	for _, warning := range g.ring.Warnings {
		s.lasting.log.Warn(warning)
	}
	s.stamp = stamp + g.stamp
	s.current.Store(g)
	s.lasting.metrics.Reloaded(true)
}

// sparePlaces are places with Go's scheduler beyond those of cores and hashes. Now and then it gives the place of a thread
// that answers requests to one that hashes, with all that waited there: there must be another to take that over.
const sparePlaces = 2

// shareCores returns how many passwords are hashed at once, of so many as the configuration says: 0 is one less than there
// are cores. Each gets a place with Go's scheduler beside those of the cores, so that only the system, which knows that
// hashes give way, divides the cores between them and requests.
func (s *service) shareCores(parallel int) int {
	if s.cores == 0 {
		s.cores = runtime.GOMAXPROCS(0)
	}
	if parallel == 0 {
		parallel = max(1, s.cores-1)
	}
	if want := s.cores + parallel + sparePlaces; runtime.GOMAXPROCS(0) != want {
		runtime.GOMAXPROCS(want)
	}
	return parallel
}
