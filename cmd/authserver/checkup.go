package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"authserver/internal/acl"
	"authserver/internal/config"
	"authserver/internal/doctor"
	"authserver/internal/issuer"
	"authserver/internal/store"
)

// checkUp looks at what is on this machine, and tells the subject of the wiring what it has found out. It returns nil
// when the configuration cannot be read, for then there is no wiring to look at.
func (h *hand) checkUp(ctx context.Context, s *doctor.Subject, r *doctor.Report) *config.Config {
	c, err := h.loadConfig()
	if err != nil {
		r.Add(faults("config", err)...)
		return nil
	}
	s.PublicURL, s.Services, s.Where = c.Server.PublicURL, services(c), c.Where
	db := checkDatabase(ctx, c, r)
	if db != nil {
		defer func() { _ = db.Close() }()
	}
	file, _ := h.configPath() // it was read
	h.checkGeneration(c, file, db, s, r)
	checkFiles(c, file, r)
	checkTLS(c, r)
	s.Running = checkListeners(ctx, c, r)
	checkClock(r)
	return c
}

// remedied is a fault of a file that says what would be right, or which command mends it.
var remedied = regexp.MustCompile(`^(?:(.+?:\d+): ([^ ]+): )?(.*); (would be right|run): (.+)$`)

// faults is a finding for every line of an error.
func faults(check string, err error) []doctor.Finding {
	var findings []doctor.Finding
	for line := range strings.SplitSeq(err.Error(), "\n") {
		f := fault(check, doctor.Error, line, "serve does not start with it, and a reload is refused.")
		switch m := remedied.FindStringSubmatch(line); {
		case strings.Contains(line, fs.ErrPermission.Error()):
			f.Why = "serve, run by this user, does not start with it."
			f.Fixes = []doctor.Fix{{Side: doctor.Machine, Do: "run doctor as the user of authserver (sudo -u USER authserver doctor), who has to own the file"}}
		case strings.Contains(line, syscall.ENOENT.Error()):
			f.Fixes = []doctor.Fix{{Side: doctor.Ours, Do: "name a file that is there, or put it there; authserver init DIR writes a configuration with all that it names"}}
		case m != nil && m[4] == "run":
			f.Fixes = []doctor.Fix{{Side: doctor.Machine, Do: m[5]}}
		case m != nil && m[1] != "":
			f.Fixes = []doctor.Fix{{Side: doctor.Ours, Where: m[1], Do: m[2] + ": " + m[5]}}
		}
		findings = append(findings, f)
	}
	return findings
}

func fault(check string, severity doctor.Severity, what, why string, fixes ...doctor.Fix) doctor.Finding {
	return doctor.Finding{Check: check, Severity: severity, What: what, Why: why, Fixes: fixes}
}

// checkGeneration builds what serve would, and writes nothing.
func (h *hand) checkGeneration(c *config.Config, file string, db *store.Store, s *doctor.Subject, r *doctor.Report) {
	if c.Issuer.Keys.Store == config.KeysInDatabase && db == nil {
		r.Add(fault("keys", doctor.Note, "the keys are in the database, and were not looked at", "What registries make of our tokens cannot be told."))
		return
	}
	if err := writable(c); err != nil {
		r.Add(faults("files", err)...)
	}
	g, err := h.tryGeneration(c, db)
	if err != nil {
		r.Add(faults("config", err)...)
		return
	}
	for _, warning := range g.ring.Warnings {
		r.Add(fault("keys", doctor.Warning, warning, "Registries refuse the tokens of a key that they do not know, or whose certificate has ended.", doctor.Fix{Side: doctor.Ours, Where: c.Where("issuer.data_dir"), Do: "authserver key list says which keys there are; docs/keys.md, how each is replaced"}))
	}
	r.Add(doctor.Finding{Check: "config", What: fmt.Sprintf("%s: %s, %s, %s", file, count(len(c.Services), "service"), count(g.policy.Len(), "rule"), count(len(c.Users), "user backend"))})
	// Not that of g, in which a key that is due has been replaced already: it is serve that does that.
	k, err := keyConfig(c, db)
	var ring *issuer.Keyring
	if err == nil {
		k.RotateEvery, k.PublishAhead, k.DryRun = math.MaxInt64, 0, true
		ring, err = issuer.OpenKeyring(k)
	}
	if err != nil {
		r.Add(faults("keys", err)...)
		return
	}
	kept, lacking := ring.Kept()
	start := doctor.Fix{Side: doctor.Ours, Do: "authserver serve, or authserver key export"}
	const why = "They are made at the first start. What registries make of our tokens cannot be told before."
	if len(kept.Services()) == 0 {
		s.NoKeys = true
		r.Add(fault("keys", doctor.Note, "there are no keys yet", why, start))
		return
	}
	for _, service := range lacking {
		r.Add(fault("keys", doctor.Note, fmt.Sprintf("there is no key yet for service %q", service), why, start))
	}
	s.Ring = kept
	r.Add(doctor.Finding{Check: "keys", What: fmt.Sprintf("%s; a token for every service was made and verified", count(len(kept.Keys()), "signing key"))})
}

// checkDatabase opens the database as it is; nil when there is none, or it does not answer.
func checkDatabase(ctx context.Context, c *config.Config, r *doctor.Report) *store.Store {
	if !c.Database.Enabled() {
		return nil
	}
	if file := databaseFile(c); file != "" {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrPermission) {
			r.Add(faults("database", err)...)
			return nil
		}
	}
	if missingDatabase(c) {
		r.Add(fault("database", doctor.Note, "there is no "+databaseFile(c)+" yet", "It is made at the first start."))
		return nil
	}
	db, err := newStore(c, nil)
	if err != nil {
		r.Add(faults("database", err)...)
		return nil
	}
	began := time.Now()
	if err := db.Check(ctx); err != nil {
		_ = db.Close()
		why, fix := "Accounts and tokens in it get 503; the users of other backends go on.", "start it, or let this machine reach it; database.url and database.password_file say how"
		if errors.Is(err, store.ErrNewer) {
			why, fix = "serve does not start with it.", "run the program that made it, or a newer one"
		}
		r.Add(fault("database", doctor.Error, err.Error(), why, doctor.Fix{Side: doctor.Ours, Where: c.Where("database.url"), Do: fix}))
		return nil
	}
	r.Add(doctor.Finding{Check: "database", What: fmt.Sprintf("answers in %s", time.Since(began).Round(time.Millisecond))})
	return db
}

// checkFiles looks at who else can read what is secret, and write what decides.
func checkFiles(c *config.Config, file string, r *doctor.Report) {
	const othersRead, othersWrite = 0o004, 0o022
	before := len(r.Findings)
	check := func(name string, bits fs.FileMode, what, why, remedy string) {
		info, err := os.Stat(name)
		if err == nil && info.Mode().Perm()&bits != 0 {
			r.Add(fault("files", doctor.Warning, fmt.Sprintf("%s %s (mode %o)", name, what, info.Mode().Perm()), why, doctor.Fix{Side: doctor.Machine, Do: remedy + " " + doctor.Shell(name)}))
		}
	}
	decides := []string{file}
	for _, pattern := range c.ACL.Files {
		if list, err := acl.Files(pattern); err == nil {
			decides = append(decides, list...)
		}
	}
	secret := []string{databaseFile(c), c.Database.PasswordFile, c.ACL.Webhook.TokenFile, c.ACL.Webhook.TLS.KeyFile, c.Server.TLS.KeyFile, c.Tracing.HeadersFile}
	for i := range c.Users {
		if b, err := describe(c, i); err == nil && b.file != "" {
			decides, secret = append(decides, b.file), append(secret, b.file)
		}
	}
	for _, name := range decides {
		check(name, othersWrite, "can be written by others than its owner", "Whoever can write it decides who may pull and push.", "chmod go-w")
		check(filepath.Dir(name), 0o002, "can be written by everybody", "Whoever can write the folder can replace the files in it.", "chmod o-w")
	}
	for _, name := range secret {
		check(name, othersRead, "can be read by everybody on this machine", "It holds secrets, or hashes that passwords can be guessed from.", "chmod o-rwx")
		if !slices.Contains(decides, name) {
			check(name, othersWrite, "can be written by others than its owner", "Whoever can write it can put another secret in its place.", "chmod go-w")
		}
	}
	check(c.Issuer.DataDir, 0o007, "is open to everybody on this machine", "The keys are in it.", "chmod o-rwx")
	if len(r.Findings) == before {
		r.Add(doctor.Finding{Check: "files", What: "nobody else can read what is secret or write what decides"})
	}
}

// checkTLS looks at the certificate of the public listener.
func checkTLS(c *config.Config, r *doctor.Report) {
	t := c.Server.TLS
	if !t.Enabled() {
		if strings.HasPrefix(c.Server.PublicURL, "https:") && len(c.Server.TrustedProxies) == 0 {
			r.Add(fault("proxy", doctor.Warning, "server.public_url is https, server.tls is not set, and server.trusted_proxies is empty",
				"A proxy speaks TLS for us, and every client seems to have its address: rules with networks do not fit, and one client that guesses passwords holds all others back.",
				doctor.Fix{Side: doctor.Ours, Where: c.Where("server.trusted_proxies"), Do: "server.trusted_proxies: the addresses of the proxy, as in [127.0.0.1/32]"}))
		}
		return
	}
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err == nil && pair.Leaf == nil {
		pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
	}
	where := c.Where("server.tls.cert_file")
	if err != nil {
		r.Add(faults("tls", c.Fault("server.tls.cert_file", err))...)
		return
	}
	renew := doctor.Fix{Side: doctor.Ours, Where: where, Do: "renew " + t.CertFile + "; it is read again when it changes"}
	if u, err := url.Parse(c.Server.PublicURL); err == nil {
		if err := pair.Leaf.VerifyHostname(u.Hostname()); err != nil {
			r.Add(fault("tls", doctor.Error, fmt.Sprintf("%s: %v", t.CertFile, err), "Clients refuse to talk to server.public_url.", renew))
		}
		if u.Scheme != "https" {
			r.Add(fault("tls", doctor.Warning, "server.tls is set, and server.public_url is http", "Clients that are sent there get no answer.", doctor.Fix{Side: doctor.Ours, Where: c.Where("server.public_url"), Do: "server.public_url: https://" + u.Host}))
		}
	}
	switch left := time.Until(pair.Leaf.NotAfter); {
	case left <= 0:
		r.Add(fault("tls", doctor.Error, fmt.Sprintf("%s ended %s", t.CertFile, pair.Leaf.NotAfter.Format(time.DateOnly)), "Clients refuse to talk to server.public_url.", renew))
	case left < 14*24*time.Hour:
		r.Add(fault("tls", doctor.Warning, fmt.Sprintf("%s ends %s", t.CertFile, pair.Leaf.NotAfter.Format(time.DateOnly)), "From then on clients refuse to talk to server.public_url.", renew))
	}
}

// checkListeners tells whether somebody listens where serve would. Who it is, is found out through the public address.
func checkListeners(ctx context.Context, c *config.Config, r *doctor.Report) (public bool) {
	public = checkListener(ctx, c, "server.listen", c.Server.Listen, r)
	if c.Server.OpsListen != "" {
		checkListener(ctx, c, "server.ops_listen", c.Server.OpsListen, r)
	}
	return public
}

func checkListener(ctx context.Context, c *config.Config, key, address string, r *doctor.Report) bool {
	if strings.HasPrefix(address, "systemd:") { // where, is written in its unit
		r.Add(fault("listen", doctor.Note, "systemd opens "+key+"; it was not looked at", "Where it listens, and whether it does, systemd knows alone: systemctl list-sockets."))
		return true
	}
	network, target := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, target = "unix", path
	} else if host, port, err := net.SplitHostPort(address); err == nil && (host == "" || net.ParseIP(host).IsUnspecified()) {
		target = net.JoinHostPort("localhost", port)
	}
	dialer := net.Dialer{Timeout: 2 * time.Second}
	connection, err := dialer.DialContext(ctx, network, target)
	if err != nil {
		r.Add(fault("listen", doctor.Note, "nobody listens at "+key+" "+address, "authserver does not run on this machine, or with another configuration.", doctor.Fix{Side: doctor.Ours, Where: c.Where(key), Do: "authserver serve"}))
		return false
	}
	_ = connection.Close()
	r.Add(doctor.Finding{Check: "listen", What: "somebody listens at " + key + " " + address})
	return true
}
