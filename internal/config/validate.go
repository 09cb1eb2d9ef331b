package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"authserver/internal/document"
	"authserver/internal/network"
)

// Bounds of token lifetimes. Clients take a lifetime under 60 s for 60 s (Distribution's token.md, expires_in), and a
// token cannot be called back, so a day is the longest.
const (
	MinTokenLifetime = time.Minute
	MaxTokenLifetime = 24 * time.Hour
	minRotateEvery   = time.Hour
	maxRotateEvery   = 180 * 24 * time.Hour // leaves live a year
)

// Verifiers and Algorithms are the values that services[] may name.
var (
	Verifiers  = []string{"chain", "pinned", "jwks"}
	Algorithms = []string{"ES256", "ES384", "RS256", "RS384", "RS512", "EdDSA"}
)

type validation struct {
	c      *Config
	faults []error
}

func (v *validation) fault(path, format string, args ...any) {
	v.faults = append(v.faults, &document.Fault{Where: v.c.where(path), Key: path, Problem: fmt.Sprintf(format, args...)})
}

func (v *validation) oneOf(path, value string, allowed []string) bool {
	if !slices.Contains(allowed, value) {
		v.fault(path, "%q is not known; would be right: %s", value, strings.Join(allowed, ", "))
		return false
	}
	return true
}

func (v *validation) between(path string, value document.Duration, low, high time.Duration) {
	if d := time.Duration(value); d < low || d > high {
		v.fault(path, "%s is out of range; would be right: %s to %s", text(value), text(document.Duration(low)), text(document.Duration(high)))
	}
}

func (v *validation) number(path string, value, low, high, standard int) {
	if value < low || value > high {
		v.fault(path, "%d is out of range; would be right: %d to %d, %d is the default", value, low, high, standard)
	}
}

func text(d document.Duration) string {
	b, _ := d.MarshalText() // never fails
	return string(b)
}

// validate returns every fault that the values themselves show.
func (c *Config) validate() []error {
	v := &validation{c: c}
	v.server()
	v.issuer()
	v.services()
	for i, block := range c.Users {
		kind, ok := block["kind"].(string)
		if !ok || kind == "" {
			v.fault(fmt.Sprintf("users[%d].kind", i), "missing; would be right: kind: htpasswd")
		}
	}
	if len(c.ACL.Files) == 0 {
		v.fault("acl.files", "missing; without a policy nobody may do anything, would be right: files: [policy.yaml]")
	}
	v.webhook()
	v.database()
	v.passwords()
	v.tracing()
	v.oneOf("log.level", c.Log.Level, []string{"debug", "info", "warn", "error"})
	v.oneOf("log.format", c.Log.Format, []string{"json", "text"})
	if file, ok := strings.CutPrefix(c.Audit.Output, "file:"); ok && file == "" || !ok && c.Audit.Output != "stderr" && c.Audit.Output != "stdout" {
		v.fault("audit.output", "%q is not known; would be right: stderr, stdout or file:/path", c.Audit.Output)
	}
	return v.faults
}

// Bounds of the password guard. A password that was changed is out at once whatever is remembered, so an hour is only
// about memory; a window under a second holds nobody back.
const (
	maxCacheLifetime = time.Hour
	maxParallel      = 1024
	maxFailures      = 1_000_000
	minWindow        = time.Second
	maxWindow        = time.Hour
)

func (v *validation) passwords() {
	p, t, d := v.c.Passwords, v.c.Throttle, Defaults()
	v.number("passwords.bcrypt_cost", p.BcryptCost, 4, 16, d.Passwords.BcryptCost)
	v.between("passwords.cache_lifetime", p.CacheLifetime, 0, maxCacheLifetime)
	v.number("passwords.parallel", p.Parallel, 0, maxParallel, d.Passwords.Parallel)
	v.number("throttle.account_failures", t.AccountFailures, 0, maxFailures, d.Throttle.AccountFailures)
	v.number("throttle.network_failures", t.NetworkFailures, 0, maxFailures, d.Throttle.NetworkFailures)
	v.between("throttle.window", t.Window, minWindow, maxWindow)
}

// Bounds of server.max_connections: a proxy keeps a few open, and a process has about a million descriptors at most.
const (
	minServerConnections = 16
	maxServerConnections = 1_000_000
	maxShutdownDelay     = 5 * time.Minute
)

func (v *validation) server() {
	s := v.c.Server
	v.address("server.listen", s.Listen)
	if s.OpsListen != "" {
		v.address("server.ops_listen", s.OpsListen)
		if s.OpsListen == s.Listen && !strings.HasSuffix(s.Listen, ":0") {
			v.fault("server.ops_listen", "the same address as server.listen; metrics and profiles need one of their own")
		}
	}
	v.number("server.max_connections", s.MaxConnections, minServerConnections, maxServerConnections, Defaults().Server.MaxConnections)
	v.between("server.shutdown_delay", s.ShutdownDelay, 0, maxShutdownDelay)
	v.publicURL(s.PublicURL)
	if (s.TLS.CertFile == "") != (s.TLS.KeyFile == "") {
		v.fault("server.tls", "cert_file and key_file go together; give both or neither")
	}
	v.oneOf("server.tls.min_version", s.TLS.MinVersion, []string{"1.2", "1.3"})
	for i, proxy := range s.TrustedProxies {
		if _, err := network.Parse(proxy); err != nil && proxy != "unix" {
			v.fault(fmt.Sprintf("server.trusted_proxies[%d]", i), "%v, or unix", err)
		}
	}
	for i, origin := range s.CORSOrigins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != origin || strings.Contains(origin, "*") {
			v.fault(fmt.Sprintf("server.cors_origins[%d]", i), "%q is no origin; would be right: https://ui.example.com, without a path", origin)
		}
	}
}

// address takes host:port, unix:/path and systemd:NAME.
func (v *validation) address(path, listen string) {
	for _, scheme := range []string{"unix:", "systemd:"} {
		if name, ok := strings.CutPrefix(listen, scheme); ok && name != "" {
			return
		}
	}
	host, port, err := net.SplitHostPort(listen)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || n > 65535 || strings.ContainsAny(host, " /") {
		v.fault(path, "%q is no address; would be right: 127.0.0.1:5001, :5001, unix:/run/authserver.sock or systemd:authserver.socket", listen)
	}
}

// publicURL takes what every client can use as a realm: several join the query to it as text, or split the challenge at
// commas and equals signs (Jib, libvirt-sandbox, Terraform), and Watchtower lower-cases it.
func (v *validation) publicURL(s string) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		v.fault("server.public_url", "%q is no address of a web server; would be right: https://auth.example.com", redactURL(s))
	case u.User != nil:
		v.fault("server.public_url", "holds a user or a password; everybody is shown this address, remove them")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.ContainsAny(s, "?#,=\"& +%"):
		v.fault("server.public_url", "%q holds a character that clients trip over; would be right: scheme, host and a plain path", s)
	case strings.HasSuffix(s, "/"):
		v.fault("server.public_url", "%q ends with a slash; would be right: %s", s, strings.TrimRight(s, "/"))
	case strings.ToLower(s) != s:
		v.fault("server.public_url", "%q has upper-case letters, which some clients lower-case; would be right: %s", s, strings.ToLower(s))
	}
}

// redactURL keeps the user part of an address out of messages.
func redactURL(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return "…" + s[i:]
	}
	return s
}

// Bounds of acl.webhook: a question must fit into the time of an answer (12 s), beside the password.
const (
	minWebhookTimeout, maxWebhookTimeout = 10 * time.Millisecond, 8 * time.Second
	minWebhookPause, maxWebhookPause     = 100 * time.Millisecond, 10 * time.Minute
	maxWebhookParallel                   = 10_000
)

func (v *validation) webhook() {
	w := v.c.ACL.Webhook
	if !w.Enabled() {
		if v.c.given("acl.webhook") {
			v.fault("acl.webhook.url", "missing; would be right: http://127.0.0.1:8181/v1/data/registry/access, or no acl.webhook at all")
		}
		return
	}
	u, err := url.Parse(w.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !portOrNone(u.Host):
		v.fault("acl.webhook.url", "%q is no address of a web server; would be right: https://opa.example.com/v1/data/registry/access", redactURL(w.URL))
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		v.fault("acl.webhook.url", "holds a user, a query or a fragment; a secret belongs into acl.webhook.token_file")
	case w.InClear() && w.TokenFile != "":
		v.fault("acl.webhook.url", "%q is not https, and would carry the token of acl.webhook.token_file in clear", w.URL)
	case u.Scheme == "http" && w.TLS != (WebhookTLS{}):
		v.fault("acl.webhook.tls", "given, but acl.webhook.url is not https")
	}
	if (w.TLS.CertFile == "") != (w.TLS.KeyFile == "") {
		v.fault("acl.webhook.tls", "cert_file and key_file go together; give both or neither")
	}
	v.between("acl.webhook.timeout", w.Timeout, minWebhookTimeout, maxWebhookTimeout)
	v.between("acl.webhook.pause", w.Pause, minWebhookPause, maxWebhookPause)
	v.number("acl.webhook.parallel", w.Parallel, 1, maxWebhookParallel, Defaults().ACL.Webhook.Parallel)
}

const maxSampleOneIn = 1_000_000

func (v *validation) tracing() {
	t := v.c.Tracing
	v.number("tracing.sample_one_in", t.SampleOneIn, 1, maxSampleOneIn, Defaults().Tracing.SampleOneIn)
	if t.ServiceName == "" {
		v.fault("tracing.service_name", "empty; would be right: authserver")
	}
	if !t.Enabled() {
		return
	}
	u, err := url.Parse(t.Endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !portOrNone(u.Host):
		v.fault("tracing.endpoint", "%q is no address of a web server; would be right: http://127.0.0.1:4318/v1/traces", redactURL(t.Endpoint))
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		v.fault("tracing.endpoint", "holds a user, a query or a fragment; a secret belongs into tracing.headers_file")
	case u.Path == "" || u.Path == "/":
		v.fault("tracing.endpoint", "%q has no path; would be right: %s/v1/traces", t.Endpoint, strings.TrimSuffix(t.Endpoint, "/"))
	case t.HeadersFile != "" && inClear(u):
		v.fault("tracing.endpoint", "%q is not https, and would carry what is in tracing.headers_file in clear", t.Endpoint)
	}
}

// portOrNone tells whether what follows the host of a URL can be a port, or is nothing; "unix:" is no host.
func portOrNone(host string) bool {
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || strings.HasSuffix(host, "]") {
		return true
	}
	port, err := strconv.ParseUint(host[colon+1:], 10, 16)
	return err == nil && port > 0
}

// Bounds of the database's keys: a statement must fit into the time of an answer (12 s), beside the password.
const (
	minStatement, maxStatement           = 100 * time.Millisecond, 10 * time.Second
	maxConnections                       = 1000
	minRefreshLifetime, maxRefreshForAll = time.Minute, 5 * 8760 * time.Hour
)

func (v *validation) database() {
	d := v.c.Database
	switch scheme, rest, _ := strings.Cut(d.URL, ":"); {
	case d.URL == "none":
	case scheme == "sqlite" && rest != "" && !strings.ContainsAny(rest, "?#"):
	case scheme == "postgres" || scheme == "postgresql":
		u, err := url.Parse(d.URL)
		if err != nil || u.Host == "" && u.Query().Get("host") == "" {
			v.fault("database.url", "cannot be read; would be right: postgres://user@host:5432/name?sslmode=verify-full")
			break
		}
		_, hasPassword := u.User.Password()
		if (hasPassword || u.Query().Has("password") || u.Query().Has("sslpassword")) && !strings.HasPrefix(v.c.where("database.url"), "environment ") {
			v.fault("database.url", "holds a password; it belongs into database.password_file, or the whole key into the environment")
		}
	default:
		v.fault("database.url", "%s; would be right: sqlite:authserver.db, postgres://user@host/name or none", notDatabase(d.URL))
	}
	if d.PasswordFile != "" && !strings.HasPrefix(d.URL, "postgres") {
		v.fault("database.password_file", "is for PostgreSQL only")
	}
	v.number("database.max_connections", d.MaxConnections, 1, maxConnections, Defaults().Database.MaxConnections)
	v.between("database.timeout", d.Timeout, minStatement, maxStatement)
	v.between("refresh_tokens.idle_lifetime", v.c.Refresh.IdleLifetime, minRefreshLifetime, maxRefreshForAll)
	v.between("refresh_tokens.max_lifetime", v.c.Refresh.MaxLifetime, minRefreshLifetime, maxRefreshForAll)
	if v.c.Refresh.Enabled && !d.Enabled() {
		v.fault("refresh_tokens.enabled", "needs a database, but database.url is none")
	}
	for i, block := range v.c.Users {
		if block["kind"] == "database" && !d.Enabled() {
			v.fault(fmt.Sprintf("users[%d].kind", i), "database, but database.url is none")
		}
	}
}

// notDatabase says what is no database. Only what can be a scheme is repeated: PostgreSQL's host=… password=… has none.
func notDatabase(s string) string {
	scheme, _, ok := strings.Cut(s, ":")
	if !ok || scheme == "" || strings.ContainsFunc(scheme, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		return "no database"
	}
	return strconv.Quote(scheme+":…") + " is no database"
}

func (v *validation) issuer() {
	i := v.c.Issuer
	v.claim("issuer.name", i.Name)
	v.between("issuer.token_lifetime", i.TokenLifetime, MinTokenLifetime, MaxTokenLifetime)
	v.between("issuer.keys.rotate_every", i.Keys.RotateEvery, minRotateEvery, maxRotateEvery)
	v.oneOf("issuer.keys.algorithm", i.Keys.Algorithm, Algorithms)
	if i.DataDir == "" {
		v.fault("issuer.data_dir", "missing; would be right: data")
	}
	v.between("issuer.keys.publish_ahead", i.Keys.PublishAhead, 0, max(time.Duration(i.Keys.RotateEvery), minRotateEvery)/2)
	v.oneOf("issuer.keys.store", i.Keys.Store, []string{KeysInDataDir, KeysInDatabase})
	switch inDatabase := i.Keys.Store == KeysInDatabase; {
	case inDatabase && !strings.HasPrefix(v.c.Database.URL, "postgres"):
		v.fault("issuer.keys.store", "database, but database.url is not PostgreSQL; a single process keeps its keys in data_dir")
	case inDatabase && i.Keys.EncryptionFile == "":
		v.fault("issuer.keys.encryption_key_file", "missing; keys in the database are encrypted, would be right: a file made with \"openssl rand -base64 32\"")
	case !inDatabase && i.Keys.EncryptionFile != "":
		v.fault("issuer.keys.encryption_key_file", "is for issuer.keys.store: database only")
	}
	if (i.Keys.KeyFile == "") != (i.Keys.CertificateFile == "") {
		v.fault("issuer.keys", "key_file and certificate_file go together; give both or neither")
	}
}

// claim takes what may stand in iss and aud: registries compare it byte by byte.
func (v *validation) claim(path, s string) {
	switch {
	case s == "":
		v.fault(path, "missing; it must be byte for byte what the registry's configuration says")
	case len(s) > 255:
		v.fault(path, "longer than 255 bytes")
	case strings.TrimSpace(s) != s || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > 0x7e }):
		v.fault(path, "%q holds a blank at an end, a control character or a letter beyond ASCII", s)
	}
}

func (v *validation) services() {
	if len(v.c.Services) == 0 {
		v.fault("services", "missing; would be right: a list with one name for each registry, equal to its auth.token.service")
	}
	seen := map[string]int{}
	for i := range v.c.Services {
		s, path := &v.c.Services[i], fmt.Sprintf("services[%d]", i)
		v.claim(path+".name", s.Name)
		if strings.ContainsAny(s.Name, "&+%#\",=\\") {
			v.fault(path+".name", "%q holds one of & + %% # , = \" \\, which clients put into a query or split a challenge at", s.Name)
		}
		if first, twice := seen[s.Name]; twice && s.Name != "" {
			v.fault(path+".name", "%q is services[%d] already", s.Name, first)
		}
		seen[s.Name] = i
		if s.Verifier == "" {
			s.Verifier = "chain"
		}
		if s.Issuer == "" {
			s.Issuer = v.c.Issuer.Name
		} else {
			v.claim(path+".issuer", s.Issuer)
		}
		if s.TokenLifetime == 0 && !v.c.given(path+".token_lifetime") {
			s.TokenLifetime = v.c.Issuer.TokenLifetime
		} else {
			v.between(path+".token_lifetime", s.TokenLifetime, MinTokenLifetime, MaxTokenLifetime)
		}
		source := path + ".algorithm"
		if s.Algorithm == "" {
			s.Algorithm, source = v.c.Issuer.Keys.Algorithm, "issuer.keys.algorithm"
		} else {
			v.oneOf(source, s.Algorithm, Algorithms)
		}
		if v.oneOf(path+".verifier", s.Verifier, Verifiers) && s.Verifier == "chain" && s.Algorithm == "EdDSA" {
			v.fault(source, "EdDSA does not go with verifier chain (services[%d] %q): registries up to 2.8.3, GitLab's and Notary refuse it, "+
				"and crash at start on an Ed25519 certificate; would be right: ES256, or verifier: jwks for a registry 3.x", i, s.Name)
		}
		if (s.KeyFile == "") != (s.CertificateFile == "") && (s.Verifier != "jwks" || s.KeyFile == "") {
			v.fault(path, "key_file and certificate_file go together; give both or neither (verifier jwks needs key_file alone)")
		}
	}
}
