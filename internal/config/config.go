// Package config is authserver.yaml: its keys, their defaults and bounds, and how file, environment and flags are laid
// over each other. It is the only room that knows koanf. What a users[] block holds is known to its backend alone.
package config

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"authserver/internal/document"
	"authserver/internal/network"
)

// Config is the effective configuration. Paths in it are absolute or relative to the working directory.
type Config struct {
	Server    Server           `yaml:"server"`
	Issuer    Issuer           `yaml:"issuer"`
	Services  []Service        `yaml:"services"`
	Users     []map[string]any `yaml:"users"` // decoded by DecodeUsers
	ACL       ACL              `yaml:"acl"`
	Passwords Passwords        `yaml:"passwords"`
	Throttle  Throttle         `yaml:"throttle"`
	Database  Database         `yaml:"database"`
	Refresh   RefreshTokens    `yaml:"refresh_tokens"`
	Log       Log              `yaml:"log"`
	Audit     Audit            `yaml:"audit"`
	Tracing   Tracing          `yaml:"tracing"`

	dir   string                   // relative paths start here
	where func(path string) string // place of a key path
	given func(path string) bool   // whether the file has a key path
}

// Server is how clients and operators reach the process.
type Server struct {
	Listen         string   `yaml:"listen"`          // host:port, unix:/path, or systemd:NAME
	PublicURL      string   `yaml:"public_url"`      // realm = public_url + /token
	TLS            TLS      `yaml:"tls"`             // none = plain HTTP
	TrustedProxies []string `yaml:"trusted_proxies"` // CIDRs, and "unix" for the peers of a unix socket
	CORSOrigins    []string `yaml:"cors_origins"`    // exact origins of browser programs
	OpsListen      string   `yaml:"ops_listen"`      // the same; empty = no ops listener
	MaxConnections int      `yaml:"max_connections"` // to the public listener

	ShutdownDelay document.Duration `yaml:"shutdown_delay"` // from SIGTERM until no more connections are taken
}

// TLS is the certificate of the public listener.
type TLS struct {
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	MinVersion string `yaml:"min_version"` // "1.2" or "1.3"
}

// Enabled tells whether the listener speaks TLS.
func (t TLS) Enabled() bool { return t.CertFile != "" }

// Issuer is what stands in tokens, and where keys are kept.
type Issuer struct {
	Name          string            `yaml:"name"`
	TokenLifetime document.Duration `yaml:"token_lifetime"`
	DataDir       string            `yaml:"data_dir"`
	Keys          Keys              `yaml:"keys"`
}

// Keys are the signing keys of services that have none of their own.
type Keys struct {
	Algorithm       string            `yaml:"algorithm"`
	RotateEvery     document.Duration `yaml:"rotate_every"`        // a new leaf under the root, verifier chain only
	PublishAhead    document.Duration `yaml:"publish_ahead"`       // how long it is published before it signs
	Store           string            `yaml:"store"`               // data_dir or database
	EncryptionFile  string            `yaml:"encryption_key_file"` // of keys in the database
	KeyFile         string            `yaml:"key_file"`            // bring your own, verifier chain
	CertificateFile string            `yaml:"certificate_file"`
}

// Where keys are kept.
const (
	KeysInDataDir  = "data_dir"
	KeysInDatabase = "database" // shared by replicas
)

// Service is one audience: the `service` that a registry names in its challenge.
type Service struct {
	Name            string            `yaml:"name"`
	Verifier        string            `yaml:"verifier"`       // chain, pinned or jwks
	TokenLifetime   document.Duration `yaml:"token_lifetime"` // 0 = issuer.token_lifetime
	Issuer          string            `yaml:"issuer"`         // "" = issuer.name
	Algorithm       string            `yaml:"algorithm"`      // "" = issuer.keys.algorithm
	KeyFile         string            `yaml:"key_file"`       // bring your own, for this service
	CertificateFile string            `yaml:"certificate_file"`
}

// ACL names the policy, and who is asked after it.
type ACL struct {
	Files   []string `yaml:"files"`
	Webhook Webhook  `yaml:"webhook"`
}

// Webhook is an external decision on what the policy grants.
type Webhook struct {
	URL       string            `yaml:"url"`        // "" = none
	TokenFile string            `yaml:"token_file"` // a bearer token
	TLS       WebhookTLS        `yaml:"tls"`
	Timeout   document.Duration `yaml:"timeout"`
	Parallel  int               `yaml:"parallel"` // questions under way at once
	Pause     document.Duration `yaml:"pause"`    // for which nobody is asked after failures in a row
}

// WebhookTLS is whom we trust there, and who we are.
type WebhookTLS struct {
	CAFile   string `yaml:"ca_file"` // "" = the system's certificates
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// Enabled tells whether anybody is asked.
func (w Webhook) Enabled() bool { return w.URL != "" }

// InClear tells whether questions and answers cross a network without TLS.
func (w Webhook) InClear() bool {
	u, err := url.Parse(w.URL)
	return err == nil && inClear(u)
}

// inClear tells whether what is sent to an address crosses a network without TLS.
func inClear(u *url.URL) bool {
	return u.Scheme == "http" && !network.IsLocal(u.Hostname())
}

// Passwords are how passwords are hashed, checked and remembered.
type Passwords struct {
	BcryptCost    int               `yaml:"bcrypt_cost"`    // of new hashes
	CacheLifetime document.Duration `yaml:"cache_lifetime"` // for which a password that was right is remembered
	Parallel      int               `yaml:"parallel"`       // checks at once; 0 = one core stays free
}

// Throttle is how many wrong passwords are taken in a window.
type Throttle struct {
	AccountFailures int               `yaml:"account_failures"` // for one account from one network; 0 = no limit
	NetworkFailures int               `yaml:"network_failures"` // from one network; 0 = no limit
	Window          document.Duration `yaml:"window"`
}

// Database is where accounts and tokens are kept.
type Database struct {
	URL            string            `yaml:"url"` // sqlite:FILE, postgres://… or none
	PasswordFile   string            `yaml:"password_file"`
	MaxConnections int               `yaml:"max_connections"` // PostgreSQL
	Timeout        document.Duration `yaml:"timeout"`         // of one statement
}

// Enabled tells whether there is a database.
func (d Database) Enabled() bool { return d.URL != "none" }

// RefreshTokens are logins that clients keep instead of a password.
type RefreshTokens struct {
	Enabled      bool              `yaml:"enabled"`
	IdleLifetime document.Duration `yaml:"idle_lifetime"` // since the last use
	MaxLifetime  document.Duration `yaml:"max_lifetime"`  // since the login
}

// Log is the operator's log, on stderr.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Audit is where decisions are written, a JSON line each.
type Audit struct {
	Output string `yaml:"output"` // stderr, stdout or file:/path
}

// Tracing is an OpenTelemetry collector that is told of requests.
type Tracing struct {
	Endpoint    string `yaml:"endpoint"`      // OTLP over HTTP; "" = none
	SampleOneIn int    `yaml:"sample_one_in"` // requests, of which one is traced
	HeadersFile string `yaml:"headers_file"`  // "Name: value" lines
	ServiceName string `yaml:"service_name"`
}

// Enabled tells whether anything is traced.
func (t Tracing) Enabled() bool { return t.Endpoint != "" }

// Defaults is the configuration of an absent key.
func Defaults() Config {
	return Config{
		Server: Server{
			Listen:    "127.0.0.1:5001",
			PublicURL: "http://localhost:5001",
			TLS:       TLS{MinVersion: "1.2"},
			OpsListen: "127.0.0.1:5002",

			MaxConnections: 10_000,
		},
		Issuer: Issuer{
			Name:          "authserver",
			TokenLifetime: document.Duration(5 * time.Minute),
			DataDir:       "data",
			Keys:          Keys{Algorithm: "ES256", RotateEvery: document.Duration(720 * time.Hour), PublishAhead: document.Duration(10 * time.Minute), Store: KeysInDataDir},
		},
		ACL: ACL{Webhook: Webhook{
			Timeout: document.Duration(2 * time.Second), Parallel: 64, Pause: document.Duration(5 * time.Second),
		}},
		Passwords: Passwords{BcryptCost: 12, CacheLifetime: document.Duration(5 * time.Minute)},
		Throttle:  Throttle{AccountFailures: 10, NetworkFailures: 300, Window: document.Duration(5 * time.Minute)},
		Database:  Database{URL: "sqlite:authserver.db", MaxConnections: 10, Timeout: document.Duration(5 * time.Second)},
		Refresh:   RefreshTokens{IdleLifetime: document.Duration(720 * time.Hour), MaxLifetime: document.Duration(8760 * time.Hour)},
		Log:       Log{Level: "info", Format: "json"},
		Audit:     Audit{Output: "stderr"},
		Tracing:   Tracing{SampleOneIn: 100, ServiceName: "authserver"},
	}
}

// Service returns the service of a name, or an error that lists those there are. "" is the first one.
func (c *Config) Service(name string) (Service, error) {
	var names []string
	for _, s := range c.Services {
		if s.Name == name || name == "" {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Service{}, fmt.Errorf("service %q is not one of services[].name: %s", name, strings.Join(names, ", "))
}

// Realm is the token endpoint's address, as a registry's auth.token.realm names it.
func (c *Config) Realm() string { return c.Server.PublicURL + "/token" }

// Where is the place of a key path: file:line, the environment variable, or the flag that set it.
func (c *Config) Where(path string) string { return c.where(path) }

// Fault is a fault at a key path, for what only the rooms that use a value can find out.
func (c *Config) Fault(path string, err error) error {
	return &document.Fault{Where: c.where(path), Key: path, Problem: err.Error()}
}
