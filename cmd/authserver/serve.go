package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"authserver/internal/audit"
	"authserver/internal/config"
	"authserver/internal/metrics"
	"authserver/internal/network"
	"authserver/internal/server"
	"authserver/internal/store"
	"authserver/internal/systemd"
	"authserver/internal/users"
)

const (
	drainTimeout = 35 * time.Second // longer than any answer takes
	watchEvery   = 500 * time.Millisecond
	renewEvery   = time.Hour // how often keys are looked at

	databaseEvery = 2 * time.Second // how often a database is tried that did not answer at the start
)

func (h *hand) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "serve", Short: "Give tokens", Args: cobra.NoArgs,
		Long: `Give tokens until SIGTERM or SIGINT, then answer what is under way and exit 0.

Keys that the data folder lacks are made. SIGHUP, or a change of the configuration, the policy, a users file or a key, loads
all of them anew; when something is wrong with them, the old ones stay in use and the log says why.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			return h.serve(ctx)
		},
	}
}

// service is the running process.
type service struct {
	hand    *hand
	file    string // configuration
	lasting lasting
	level   *slog.LevelVar
	current atomic.Pointer[generation]
	ready   atomic.Bool
	running *config.Config // what the listeners and logs were made from
	stamp   string         // of the files that current was made from, or that were refused last
	tried   time.Time      // when it was reloaded last
	pause   time.Duration  // after that, before it is tried again
	refused bool           // it was, and reasons says why
	reasons string
	cores   int // that Go's scheduler was given
	manager systemd.Manager
}

// ballast is memory that nobody touches, so that it takes none. Go collects garbage when as much of it as data has come
// together; with the few megabytes of data that a usual configuration is, that would be fifty times a second under load.
const ballastSize = 32 << 20

func (h *hand) serve(ctx context.Context) error {
	ballast := make([]byte, ballastSize)
	defer runtime.KeepAlive(ballast)
	// From the first moment to the last: a SIGHUP that nobody waits for ends a process, and log rotation sends it at any time.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	file, err := h.configPath()
	if err != nil {
		return err
	}
	stamp := stampOf([]string{file})
	c, err := config.Load(file, h.settings(), h.sets)
	if err != nil {
		return err
	}
	s := &service{hand: h, file: file, running: c, level: new(slog.LevelVar), manager: systemd.FromEnvironment(h.environ)}
	b := build()
	m := metrics.New(b.Version, b.Revision, b.Go)
	record, err := audit.Open(c.Audit.Output, h.stdout, h.stderr)
	if err != nil {
		return err
	}
	record.Observe = m.Audited
	s.lasting = lasting{log: newLogger(h.stderr, c.Log.Format, s.level), metrics: m, audit: record, guard: users.NewGuard(users.GuardEvents{Check: m.PasswordCheck, Recalled: m.Recalled, HeldBack: m.HeldBack})}
	tracer, sendSpans, err := openTracer(c, s.lasting.log, m)
	if err != nil {
		return err
	}
	defer sendSpans()
	s.lasting.tracer = tracer
	if s.lasting.store, err = newStore(c, m.Database); err != nil {
		return err
	}
	if s.lasting.store != nil {
		defer func() { _ = s.lasting.store.Close() }()
		m.WatchDatabase(s.lasting.store.DB(), s.lasting.store.Ping)
		if err := s.migrate(ctx, c); err != nil {
			return err
		}
	}
	g, err := newGeneration(c, s.lasting, nil, false)
	if err != nil {
		return err
	}
	s.use(g, stamp)
	s.advise()
	keysChanged := make(chan struct{}, 1)
	if s.lasting.store != nil {
		go s.lasting.store.Watch(ctx, func() {
			select {
			case keysChanged <- struct{}{}:
			default: // one is under way already
			}
		})
	}

	public, err := s.listen(c.Server.Listen)
	if err != nil {
		return c.Fault("server.listen", err)
	}
	var ops net.Listener
	if c.Server.OpsListen != "" {
		if ops, err = s.listen(c.Server.OpsListen); err != nil {
			_ = public.Close()
			return c.Fault("server.ops_listen", err)
		}
	}
	for _, name := range s.manager.Left(strings.TrimPrefix(c.Server.Listen, "systemd:"), strings.TrimPrefix(c.Server.OpsListen, "systemd:")) {
		s.lasting.log.Warn("nobody answers at a socket of the service manager: neither server.listen nor server.ops_listen names it", "listen", "systemd:"+name)
	}
	return s.run(ctx, public, ops, events{hangup, keysChanged})
}

// run serves on both listeners until ctx is done or one of them fails.
func (s *service) run(ctx context.Context, public, ops net.Listener, e events) error {
	c, log := s.running, s.lasting.log
	publicServer := server.NewHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.current.Load().handler.ServeHTTP(w, r) // one generation for the whole request
	}), log)
	limited := server.LimitConnections(public, c.Server.MaxConnections)
	publicServer.ConnState = limited.State
	s.watch(limited)
	failed := make(chan error, 2)
	serve := func(srv *http.Server, ln net.Listener, withTLS bool) {
		var err error
		if withTLS {
			err = srv.ServeTLS(ln, "", "")
		} else {
			err = srv.Serve(ln)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}
	if c.Server.TLS.Enabled() {
		certificate, err := server.LoadCertificate(c.Server.TLS.CertFile, c.Server.TLS.KeyFile, log)
		if err != nil {
			return c.Fault("server.tls.cert_file", err)
		}
		publicServer.TLSConfig = certificate.Config(c.Server.TLS.MinVersion)
		s.lasting.metrics.WatchCertificate(certificate.End)
	}
	go serve(publicServer, limited, c.Server.TLS.Enabled())
	opsServer := server.NewHTTP(server.NewOps(s.lasting.metrics, s.ready.Load), log)
	opsServer.WriteTimeout = 2 * time.Minute // profiles take their time
	opsListen := ""
	if ops != nil {
		go serve(opsServer, ops, false)
		opsListen = ops.Addr().String()
	}
	s.ready.Store(true)
	log.Info("serving", "version", version, "listen", public.Addr().String(), "ops_listen", opsListen, "tls", c.Server.TLS.Enabled(), "realm", c.Realm())

	s.tell("READY=1", "STATUS=serving")

	err := s.attend(ctx, failed, e)
	s.ready.Store(false)
	log.Info("shutting down")
	longest := time.Duration(s.current.Load().config.Server.ShutdownDelay) + drainTimeout
	s.tell("STOPPING=1", "STATUS=answering what is under way", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", longest.Microseconds()))
	if err == nil {
		s.linger(failed)
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	// The ops listener answers /readyz until the last token is given; a profile that somebody still takes is cut short.
	return errors.Join(err, publicServer.Shutdown(drain), opsServer.Close())
}

// watch shows in the metrics what can be asked at any time.
func (s *service) watch(public *server.Connections) {
	m := s.lasting.metrics
	m.WatchReady(s.ready.Load)
	m.WatchConnections(public.Count)
	m.WatchWaiting(s.lasting.guard.Waiting)
	disks := map[string]string{"data": s.running.Issuer.DataDir}
	if file := s.lasting.audit.File(); file != "" {
		disks["audit"] = filepath.Dir(file)
	}
	m.WatchDisks(disks)
}

// listen opens an address, or takes over the socket that the service manager has opened.
func (s *service) listen(address string) (net.Listener, error) {
	if name, ok := strings.CutPrefix(address, "systemd:"); ok {
		return s.manager.Listener(name)
	}
	return server.Listen(address)
}

// tell tells the service manager, if there is one.
func (s *service) tell(lines ...string) {
	if err := s.manager.Notify(lines...); err != nil {
		s.lasting.log.Warn("the service manager cannot be told how things are", "error", err.Error())
	}
}

// linger goes on serving, not ready, for as long as proxies need to notice.
func (s *service) linger(failed <-chan error) {
	select {
	case <-time.After(time.Duration(s.current.Load().config.Server.ShutdownDelay)):
	case <-failed:
	}
}

// migrate brings the database up to date. One that does not answer keeps nobody else waiting: it is tried again until it
// does, and its users get 503 so long.
func (s *service) migrate(ctx context.Context, c *config.Config) error {
	err := s.lasting.store.Migrate(ctx)
	if !errors.Is(err, store.ErrUnreachable) {
		if err != nil {
			err = c.Fault("database.url", err)
		}
		return err
	}
	s.lasting.log.Error("the database does not answer; what needs it is answered 503 until it does", "error", err.Error())
	go func() {
		said := ""
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(databaseEvery):
			}
			switch err := s.lasting.store.Migrate(ctx); {
			case err == nil:
				s.lasting.log.Info("the database answers")
				return
			case !errors.Is(err, store.ErrUnreachable) && err.Error() != said:
				said = err.Error()
				s.lasting.log.Error("the database answers, but cannot be used", "error", said)
			}
		}
	}()
	return nil
}

// sweep deletes tokens that have ended.
func (s *service) sweep(ctx context.Context) {
	if s.lasting.store == nil {
		return
	}
	c, now := s.current.Load().config, time.Now()
	n, err := s.lasting.store.Sweep(ctx, now, now.Add(-time.Duration(c.Refresh.IdleLifetime)), now.Add(-time.Duration(c.Refresh.MaxLifetime)))
	if err != nil {
		s.lasting.log.Warn("tokens that have ended could not be deleted; they are refused all the same", "error", err.Error())
	} else if n > 0 {
		s.lasting.log.Info("tokens that have ended were deleted", "count", n)
	}
}

// advise warns of a realm that some clients refuse (all of them measured): it works on the operator's machine with
// docker, and fails in somebody's pipeline.
func (s *service) advise() {
	c := s.current.Load().config
	if !c.Database.Enabled() {
		s.lasting.log.Info("there is no database (database.url: none): accounts, access tokens and refresh tokens are off")
	}
	if c.ACL.Webhook.InClear() {
		s.lasting.log.Warn("acl.webhook.url is not https: whoever is on the way reads and changes the decisions, unless a service mesh encrypts them", "url", c.ACL.Webhook.URL)
	}
	for _, service := range c.Services {
		if strings.Contains(service.Name, " ") {
			s.lasting.log.Warn("a name in services holds a blank, which some clients (Jib, Terraform) send on as it is and fail; use hyphens, here and in the registry's auth.token.service", "service", service.Name)
		}
	}
	u, err := url.Parse(c.Server.PublicURL)
	if err != nil {
		return
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	switch {
	case ip != nil && (ip.IsLoopback() || ip.IsPrivate()):
		s.lasting.log.Warn("server.public_url is a private address: crane and oras refuse such a realm unless the registry has the same one; use a host name", "public_url", c.Server.PublicURL)
	case u.Scheme == "http" && !network.IsLocal(host):
		s.lasting.log.Warn("server.public_url is not https: passwords cross the network in clear, and clients refuse it when the registry is https", "public_url", c.Server.PublicURL)
	}
}

func newLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
