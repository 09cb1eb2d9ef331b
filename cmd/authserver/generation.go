package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"authserver/internal/acl"
	"authserver/internal/api"
	"authserver/internal/audit"
	"authserver/internal/config"
	"authserver/internal/durable"
	"authserver/internal/issuer"
	"authserver/internal/metrics"
	"authserver/internal/network"
	"authserver/internal/scope"
	"authserver/internal/server"
	"authserver/internal/store"
	"authserver/internal/tracing"
	"authserver/internal/users"
	"authserver/internal/webhook"
)

// lasting is what outlives a reload.
type lasting struct {
	log     *slog.Logger
	metrics *metrics.Metrics
	audit   *audit.Log
	guard   *users.Guard
	store   *store.Store    // nil = there is no database
	tracer  *tracing.Tracer // nil = nothing is traced
}

// generation is everything that a configuration makes. It is built aside, checked, and used as a whole or not at all.
type generation struct {
	config  *config.Config
	handler http.Handler
	ring    *issuer.Keyring
	policy  *acl.Policy
	// keysAway says why the keys could not be read: then they are those of the generation before.
	keysAway error
	files    []string // a change of one of them calls for the next generation
	stamp    string   // of files, from before they were read
}

// newGeneration builds a generation. Every fault of configuration, policy, users and keys is returned, joined.
// previous is the one in use, nil when there is none.
func newGeneration(c *config.Config, l lasting, previous *generation, dryRun bool) (*generation, error) {
	g := &generation{config: c, files: files(c)}
	g.stamp = stampOf(g.files)
	var faults []error
	note := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}

	policy, err := loadPolicy(c)
	note(err)
	g.policy = policy

	guard := l.guard.ForChain()
	backends, err := openBackends(c, guard, l.store)
	note(err)

	ring, err := openKeyring(c, l.store, dryRun)
	if err != nil && previous.hasKeysOf(c) && l.store.Ping(context.Background()) != nil {
		// The database is away, and keys have nothing to do with what has changed: somebody may be locking somebody out.
		ring, g.keysAway, err = previous.ring, err, nil
	}
	note(err)

	last, err := openWebhook(c, policy, l)
	note(err)
	_, err = traceHeaders(c) // a restart must find them
	note(err)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	g.ring = ring

	chain := users.NewChain(backends, guard, l.metrics.Authentication)
	minting := issuer.Config{Services: services(c), Keyring: ring, Policy: policy, Reviewer: last, Audit: l.audit, Users: chain}
	if l.store != nil {
		access := users.NewAccessTokens(l.store, chain, time.Now)
		refresh := users.NewRefreshTokens(l.store, chain, time.Duration(c.Refresh.IdleLifetime), time.Duration(c.Refresh.MaxLifetime))
		minting.Users = access
		if c.Refresh.Enabled {
			minting.Logins = refresh
		} else {
			refresh = nil
		}
		minting.Opaque = users.NewOpaqueTokens(l.store, access, refresh)
	}
	mint, err := issuer.New(minting)
	if err != nil {
		return nil, err
	}
	jwks, err := issuer.JWKS(ring.Published())
	if err != nil {
		return nil, err
	}
	programs, err := newAPI(c, l, mint, policy, chain, guard)
	if err != nil {
		return nil, err
	}
	proxies, trustUnix := proxies(c.Server.TrustedProxies)
	g.handler = server.New(server.Config{
		Issuer: mint, API: programs, JWKS: jwks, Realm: c.Issuer.Name, PublicURL: c.Server.PublicURL, Refresh: c.Refresh.Enabled, TrustedProxies: proxies, TrustUnix: trustUnix,
		CORSOrigins: c.Server.CORSOrigins, Log: l.log, Metrics: l.metrics, Tracer: l.tracer,
	})
	return g, nil
}

// tryGeneration builds what serve would, with tokens minted and verified, and writes nothing. db is nil for no database.
func (h *hand) tryGeneration(c *config.Config, db *store.Store) (*generation, error) {
	return newGeneration(c, lasting{
		log: slog.New(slog.DiscardHandler), metrics: metrics.New("", "", ""), audit: audit.New(h.stderr), guard: users.NewGuard(users.GuardEvents{}), store: db,
	}, nil, true)
}

// hasKeysOf tells whether a generation has the keys, from the database, that a configuration asks for.
func (g *generation) hasKeysOf(c *config.Config) bool {
	return g != nil && c.Issuer.Keys.Store == config.KeysInDatabase && g.config.Issuer == c.Issuer && slices.Equal(g.config.Services, c.Services)
}

// newAPI makes what programs talk to, nil when there is no database.
func newAPI(c *config.Config, l lasting, mint *issuer.Issuer, policy *acl.Policy, chain *users.Chain, guard *users.Guard) (server.API, error) {
	if l.store == nil {
		return nil, nil
	}
	return api.New(api.Config{
		Issuer: mint, Store: l.store, Chain: chain, Guard: guard, Cost: c.Passwords.BcryptCost, Groups: policy.Groups, Audit: l.audit,
		Realm: c.Issuer.Name, PublicURL: c.Server.PublicURL, Log: l.log, Now: time.Now,
	})
}

// backend is a users[] block, read and not yet opened.
type backend struct {
	file  string // it is made from, "" for none
	edits bool   // the user commands can change it
	open  func(*users.Guard, *store.Store) (users.Authenticator, error)
}

// describe reads users[i]. This is the one switch that names all backends.
func describe(c *config.Config, i int) (backend, error) {
	switch kind := c.Users[i]["kind"]; kind {
	case "htpasswd":
		file, err := htpasswdFile(c, i)
		return backend{file, true, func(guard *users.Guard, _ *store.Store) (users.Authenticator, error) {
			return users.LoadHTPasswd(file, guard)
		}}, err
	case "database":
		return backend{"", true, func(guard *users.Guard, accounts *store.Store) (users.Authenticator, error) {
			return users.NewDatabase(accounts, guard, c.Passwords.BcryptCost), nil
		}}, c.DecodeUsers(i, &users.DatabaseOptions{})
	default:
		return backend{}, c.Fault(fmt.Sprintf("users[%d].kind", i), fmt.Errorf("%q is not known; would be right: htpasswd or database", kind))
	}
}

// openBackends makes the identity backends in the order of users[].
func openBackends(c *config.Config, guard *users.Guard, accounts *store.Store) ([]users.Authenticator, error) {
	var opened []users.Authenticator
	var faults []error
	for i := range c.Users {
		b, err := describe(c, i)
		if err == nil {
			var a users.Authenticator
			if a, err = b.open(guard, accounts); err == nil {
				opened = append(opened, a)
			}
		}
		if err != nil {
			faults = append(faults, err)
		}
	}
	return opened, errors.Join(faults...)
}

// htpasswdFile is the file of users[i], whose kind is htpasswd.
func htpasswdFile(c *config.Config, i int) (string, error) {
	var options users.HTPasswdOptions
	if err := c.DecodeUsers(i, &options); err != nil {
		return "", err
	}
	if options.File == "" {
		return "", c.Fault(fmt.Sprintf("users[%d].file", i), errors.New("missing; would be right: file: users.htpasswd"))
	}
	return c.Path(options.File), nil
}

// loadPolicy compiles the policy and holds it against the services: a rule that is limited to a service we do not serve
// is a typing error, and if it denies, a hole.
func loadPolicy(c *config.Config) (*acl.Policy, error) {
	policy, err := acl.Load(c.ACL.Files)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, s := range c.Services {
		known[s.Name] = true
	}
	var faults []error
	for service, rule := range policy.Services() {
		if !known[service] {
			faults = append(faults, fmt.Errorf("%s: rule %q: services: %q is not one of services[].name in the configuration", policy.Where(rule), rule, service))
		}
	}
	return policy, errors.Join(faults...)
}

// reviewer puts the webhook behind a policy.
type reviewer struct {
	policy *acl.Policy
	client *webhook.Client
}

// Review implements issuer.Reviewer. The webhook is told of all groups, as conditions are.
func (r reviewer) Review(ctx context.Context, q issuer.Review) (scope.Set, error) {
	q.Who.Groups = r.policy.Groups(q.Who)
	return r.client.Review(ctx, webhook.Question(q))
}

// openWebhook makes the reviewer of acl.webhook, nil when there is none.
func openWebhook(c *config.Config, policy *acl.Policy, l lasting) (issuer.Reviewer, error) {
	w := c.ACL.Webhook
	if !w.Enabled() {
		return nil, nil
	}
	client, err := webhook.New(webhook.Config{
		URL: w.URL, TokenFile: w.TokenFile, CAFile: w.TLS.CAFile, CertFile: w.TLS.CertFile, KeyFile: w.TLS.KeyFile,
		Timeout: time.Duration(w.Timeout), Parallel: w.Parallel, Pause: time.Duration(w.Pause),
		Observe: l.metrics.Review,
		OnChange: func(state string) {
			l.log.Warn("acl.webhook: the circuit breaker changes; while it is open nobody is asked, and requests are answered 503", "state", state)
		},
	})
	if err != nil {
		return nil, c.Fault("acl.webhook", err)
	}
	return reviewer{policy, client}, nil
}

// openStore opens the database; nil when there is none.
func openStore(ctx context.Context, c *config.Config) (*store.Store, error) {
	s, err := newStore(c, nil)
	if err != nil || s == nil {
		return nil, err
	}
	if err := s.Migrate(ctx); err != nil {
		_ = s.Close()
		return nil, c.Fault("database.url", err)
	}
	return s, nil
}

// newStore is openStore for who can wait until the database answers, or only looks. An embedded database that is not there is made.
func newStore(c *config.Config, observe func(operation string, took time.Duration)) (*store.Store, error) {
	d := c.Database
	if !d.Enabled() {
		return nil, nil
	}
	if data := c.Issuer.DataDir; databaseFile(c) != "" {
		if err := errors.Join(os.MkdirAll(filepath.Dir(data), 0o700), durable.Mkdir(data, 0o700)); err != nil {
			return nil, c.Fault("issuer.data_dir", err)
		}
	}
	s, err := store.New(store.Config{
		URL: d.URL, Dir: c.Issuer.DataDir, PasswordFile: d.PasswordFile, MaxConnections: d.MaxConnections, Timeout: time.Duration(d.Timeout), Observe: observe,
	})
	if err != nil {
		return nil, c.Fault("database.url", err)
	}
	return s, nil
}

func services(c *config.Config) []issuer.Service {
	list := make([]issuer.Service, len(c.Services))
	for i, s := range c.Services {
		list[i] = issuer.Service{
			Name: s.Name, Issuer: s.Issuer, Verifier: s.Verifier, Algorithm: s.Algorithm,
			Lifetime: time.Duration(s.TokenLifetime), KeyFile: s.KeyFile, CertificateFile: s.CertificateFile,
		}
	}
	return list
}

func openKeyring(c *config.Config, db *store.Store, dryRun bool) (*issuer.Keyring, error) {
	k, err := keyConfig(c, db)
	if err != nil {
		return nil, err
	}
	k.DryRun = dryRun
	return issuer.OpenKeyring(k)
}

// keyConfig says which keys there must be, and where: in the data folder, or in the database, which replicas share.
func keyConfig(c *config.Config, db *store.Store) (issuer.KeyConfig, error) {
	k := issuer.KeyConfig{
		DataDir: c.Issuer.DataDir, Name: c.Issuer.Name, Services: services(c),
		RotateEvery: time.Duration(c.Issuer.Keys.RotateEvery), PublishAhead: time.Duration(c.Issuer.Keys.PublishAhead),
		KeyFile: c.Issuer.Keys.KeyFile, CertificateFile: c.Issuer.Keys.CertificateFile,
		Now: time.Now,
	}
	if c.Issuer.Keys.Store != config.KeysInDatabase {
		return k, nil
	}
	secrets, err := issuer.SealingKeys(c.Issuer.Keys.EncryptionFile)
	if err != nil {
		return k, c.Fault("issuer.keys.encryption_key_file", err)
	}
	k.Vault, err = issuer.Sealed(func(do func(rows map[string]string) error) error {
		if db == nil { // config check opens no database: it tries keys as a first start would make them
			return do(map[string]string{})
		}
		if err := db.UpdateKeys(context.Background(), time.Now(), do); err != nil {
			return fmt.Errorf("keys in the database: %w", err)
		}
		return nil
	}, secrets)
	return k, err
}

// proxies reads server.trusted_proxies, which the configuration has checked.
func proxies(list []string) (networks []netip.Prefix, trustUnix bool) {
	for _, s := range list {
		if n, err := network.Parse(s); err == nil {
			networks = append(networks, n)
		} else {
			trustUnix = trustUnix || s == "unix"
		}
	}
	return networks, trustUnix
}

// files are what a generation is made from, beside the configuration file.
func files(c *config.Config) []string {
	list := append([]string{}, c.ACL.Files...)
	for i := range c.Users {
		if b, err := describe(c, i); err == nil && b.file != "" {
			list = append(list, b.file)
		}
	}
	keys := c.Issuer.Keys
	for _, s := range c.Services {
		list = append(list, s.KeyFile, s.CertificateFile)
	}
	if keys.Store == config.KeysInDataDir { // which another process may write, or a key command
		for _, name := range []string{"root.*", "chain/*", "pinned/*", "jwks/*"} {
			list = append(list, filepath.Join(c.Issuer.DataDir, name))
		}
	}
	list = append(list, keys.KeyFile, keys.CertificateFile, keys.EncryptionFile, c.ACL.Webhook.TokenFile, c.ACL.Webhook.TLS.CAFile, c.ACL.Webhook.TLS.CertFile, c.ACL.Webhook.TLS.KeyFile)
	return slices.DeleteFunc(list, func(file string) bool { return file == "" })
}

// stampOf tells one state of files and file globs from another. Links are followed, so that a swapped link (a mounted
// ConfigMap) is a change.
func stampOf(patterns []string) string {
	var stamp strings.Builder
	for _, pattern := range patterns {
		files, err := acl.Files(pattern)
		if err != nil {
			fmt.Fprintf(&stamp, "%s %v\n", pattern, err)
		}
		for _, file := range files {
			info, err := os.Stat(file)
			if err != nil {
				fmt.Fprintf(&stamp, "%s %v\n", file, err)
				continue
			}
			var inode uint64
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				inode = stat.Ino
			}
			fmt.Fprintf(&stamp, "%s %d %d %d\n", file, inode, info.ModTime().UnixNano(), info.Size())
		}
	}
	return stamp.String()
}
