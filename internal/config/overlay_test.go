package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/config"
)

func TestTheEnvironmentLiesOverTheFile(t *testing.T) {
	c, _, err := load(t, minimal+"issuer: {name: from-file, token_lifetime: 7m}\npasswords: {bcrypt_cost: 10}\n", []string{
		"AUTHSERVER_ISSUER__NAME=from-environment",
		"AUTHSERVER_ISSUER__KEYS__ALGORITHM=RS384",
		"AUTHSERVER_ISSUER__KEYS__ROTATE_EVERY=100h",
		"AUTHSERVER_PASSWORDS__BCRYPT_COST=5",
		"AUTHSERVER_SERVER__TRUSTED_PROXIES=10.0.0.0/8, unix,",
		"AUTHSERVER_SERVER__PUBLIC_URL=https://auth.example.com",
		"AUTHSERVER_SERVER__OPS_LISTEN=",
		"PATH=/bin", "authserver_issuer__name=lower", "XAUTHSERVER_ISSUER__NAME=other", "NOTHING",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Issuer.Name != "from-environment" || c.Issuer.Keys.Algorithm != "RS384" ||
		time.Duration(c.Issuer.Keys.RotateEvery) != 100*time.Hour || c.Passwords.BcryptCost != 5 ||
		!slices.Equal(c.Server.TrustedProxies, []string{"10.0.0.0/8", "unix"}) ||
		c.Server.PublicURL != "https://auth.example.com" || c.Server.OpsListen != "" {
		t.Errorf("%+v", c)
	}
	if time.Duration(c.Issuer.TokenLifetime) != 7*time.Minute {
		t.Errorf("a key beside an overridden one was lost: %v", c.Issuer.TokenLifetime)
	}
}

func TestFlagsLieOverTheEnvironment(t *testing.T) {
	c := good(t,
		[]string{"AUTHSERVER_ISSUER__NAME=from-environment", "AUTHSERVER_LOG__LEVEL=debug"},
		[]string{"issuer.name=from-flag", "issuer.name=from-last-flag", "server.cors_origins=https://a.example.com,https://b.example.com", "audit.output=file:/a=b"})
	if c.Issuer.Name != "from-last-flag" || c.Log.Level != "debug" || len(c.Server.CORSOrigins) != 2 || c.Audit.Output != "file:/a=b" {
		t.Errorf("%+v", c)
	}
}

// Which of the two counted was left to chance, and issuer.name.data_dir was taken for issuer.data_dir.
func TestOfTwoVariablesOneIsNotBelowTheOther(t *testing.T) {
	for _, c := range []struct {
		environ, sets []string
		want          string
	}{
		{[]string{"AUTHSERVER_ISSUER__NAME=a", "AUTHSERVER_ISSUER__NAME__DATA_DIR=/b"}, nil,
			"environment AUTHSERVER_ISSUER__NAME__DATA_DIR: issuer.name.data_dir: environment AUTHSERVER_ISSUER__NAME gives issuer.name a value already; remove one of them"},
		{[]string{"AUTHSERVER_SERVER__CORS_ORIGINS__X__LISTEN=:1", "AUTHSERVER_SERVER__CORS_ORIGINS=http://a"}, nil,
			"environment AUTHSERVER_SERVER__CORS_ORIGINS__X__LISTEN: server.cors_origins.x.listen: environment AUTHSERVER_SERVER__CORS_ORIGINS gives server.cors_origins a value already; remove one of them"},
		{nil, []string{"log.level.format=text", "log.level=debug"}, "flag --set: log.level.format: flag --set gives log.level a value already; remove one of them"},
	} {
		for range 20 {
			_, err := config.Load("testdata/good.yaml", c.environ, c.sets)
			wantFaults(t, err, c.want)
		}
	}
}

func TestNothingButWhatIsHandedInIsRead(t *testing.T) {
	t.Setenv("AUTHSERVER_ISSUER__NAME", "from-the-process")
	if c := good(t, nil, nil); c.Issuer.Name != "authserver" {
		t.Errorf("issuer.name = %q", c.Issuer.Name)
	}
}

func TestAFaultInAVariableNamesTheVariable(t *testing.T) {
	top := "unknown key; known here: server, issuer, services, users, acl, passwords, throttle, database, refresh_tokens, log, audit, tracing"
	for variable, want := range map[string]string{
		"AUTHSERVER_NAME=x":                          "name: " + top,
		"AUTHSERVER_ISSUER_NAME=x":                   "issuer_name: " + top, // one _ too few
		"AUTHSERVER_ISSUER__NAM=x":                   "issuer.nam: unknown key; known here: name, token_lifetime, data_dir, keys",
		"AUTHSERVER_ISSUER__TOKEN_LIFETIME=300":      `issuer.token_lifetime: "300" is no duration; would be right: 90s, 5m or 720h`,
		"AUTHSERVER_ISSUER__TOKEN_LIFETIME=1s":       "issuer.token_lifetime: 1s is out of range; would be right: 1m to 24h",
		"AUTHSERVER_ISSUER__NAME=":                   "issuer.name: missing; it must be byte for byte what the registry's configuration says",
		"AUTHSERVER_PASSWORDS__BCRYPT_COST=many":     "passwords.bcrypt_cost: text where a whole number belongs",
		"AUTHSERVER_PASSWORDS__BCRYPT_COST=99":       "passwords.bcrypt_cost: 99 is out of range; would be right: 4 to 16, 12 is the default",
		"AUTHSERVER_ISSUER=x":                        "issuer: text where a mapping belongs",
		"AUTHSERVER_SERVICES=registry.local":         "services: text where a list belongs",
		"AUTHSERVER_USERS=htpasswd":                  "users: text where a list belongs",
		"AUTHSERVER_ACL__FILES=,":                    "acl.files: missing; without a policy nobody may do anything, would be right: files: [policy.yaml]",
		"AUTHSERVER_SERVER__TRUSTED_PROXIES=unix,me": `server.trusted_proxies[1]: "me" is no network; would be right: 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7, or unix`,
	} {
		t.Run(variable, func(t *testing.T) {
			// AUTHSERVER_SERVICES leaves no service; what follows from that is no fault of interest here.
			_, err := config.Load("testdata/good.yaml", []string{variable}, nil)
			name, _, _ := strings.Cut(variable, "=")
			got := strings.Split(fmt.Sprint(err), "\n")
			if want := "environment " + name + ": " + want; !slices.Contains(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestAFaultInAFlagNamesTheFlag(t *testing.T) {
	for set, want := range map[string]string{
		"issuer.name":                 `flag --set: "issuer.name" is not key.path=value`,
		"=x":                          `flag --set: "=x" is not key.path=value`,
		"issuer.nam=x":                "flag --set: issuer.nam: unknown key; known here: name, token_lifetime, data_dir, keys",
		"passwords.bcrypt_cost=three": "flag --set: passwords.bcrypt_cost: text where a whole number belongs",
		"log.level=loud":              `flag --set: log.level: "loud" is not known; would be right: debug, info, warn, error`,
	} {
		_, err := config.Load("testdata/good.yaml", nil, []string{set})
		wantFaults(t, err, want)
	}
}

func TestFaultsOfFileEnvironmentAndFlagsAreReportedTogether(t *testing.T) {
	_, dir, err := load(t, minimal+"log: {level: loud}\nlgo: {}\n", []string{"AUTHSERVER_NAME=x", "AUTHSERVER_ISSUER__KEYS__ALGORITHM=HS256"}, []string{"audit.output=paper", "x"})
	known := "unknown key; known here: server, issuer, services, users, acl, passwords, throttle, database, refresh_tokens, log, audit, tracing"
	wantFaults(t, err,
		dir+`/authserver.yaml:5: log.level: "loud" is not known; would be right: debug, info, warn, error`,
		dir+"/authserver.yaml:6: lgo: "+known,
		"environment AUTHSERVER_NAME: name: "+known,
		`environment AUTHSERVER_ISSUER__KEYS__ALGORITHM: issuer.keys.algorithm: "HS256" is not known; would be right: ES256, ES384, RS256, RS384, RS512, EdDSA`,
		`flag --set: audit.output: "paper" is not known; would be right: stderr, stdout or file:/path`,
		`flag --set: "x" is not key.path=value`,
	)
}

// A Kubernetes Service called authserver (or authserver-…) puts these into every pod of its namespace.
func TestServiceLinkVariablesOfKubernetesAreNoSettings(t *testing.T) {
	links := []string{
		"AUTHSERVER_SERVICE_HOST=10.96.0.7",
		"AUTHSERVER_SERVICE_PORT=5001",
		"AUTHSERVER_SERVICE_PORT_HTTP=5001",
		"AUTHSERVER_PORT=tcp://10.96.0.7:5001",
		"AUTHSERVER_PORT_5001_TCP=tcp://10.96.0.7:5001",
		"AUTHSERVER_PORT_5001_TCP_PROTO=tcp",
		"AUTHSERVER_PORT_5001_TCP_PORT=5001",
		"AUTHSERVER_PORT_5001_TCP_ADDR=10.96.0.7",
		"AUTHSERVER_PORT_53_UDP_ADDR=10.96.0.7",
		"AUTHSERVER_OPS_SERVICE_HOST=10.96.0.8",
		"AUTHSERVER_OPS_PORT=tcp://10.96.0.8:5002",
		"AUTHSERVER_OPS_PORT_5002_TCP_ADDR=10.96.0.8",
	}
	if _, err := config.Load("testdata/good.yaml", links, nil); err != nil {
		t.Error(err)
	}
}

// Kubernetes writes an address into …_PORT; a number there is somebody who means to set a port.
func TestAPortThatIsANumberIsAFault(t *testing.T) {
	for _, name := range []string{"AUTHSERVER_PORT", "AUTHSERVER_HTTP_PORT", "AUTHSERVER_SERVER_PORT"} {
		if _, err := config.Load("testdata/good.yaml", []string{name + "=8080"}, nil); err == nil || !strings.Contains(err.Error(), "environment "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFaultInAMappingThatAVariableBeganNamesTheVariable(t *testing.T) {
	_, err := config.Load("testdata/good.yaml", []string{"AUTHSERVER_LDAP__X=none"}, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "environment AUTHSERVER_LDAP__X: ldap: unknown key") {
		t.Errorf("got %v", err)
	}
}

func TestWhatOnlyLooksLikeAServiceLinkIsAFault(t *testing.T) {
	for _, name := range []string{
		"AUTHSERVER_SERVER__OPS_PORT", "AUTHSERVER_SERVER__PORT", "AUTHSERVER_SERVICE_HOSTS", "AUTHSERVER_PORTS",
		"AUTHSERVER_PORT_TCP", "AUTHSERVER_SERVICE", "AUTHSERVER_PORT_5001_TCP_ADDR__X",
	} {
		if _, err := config.Load("testdata/good.yaml", []string{name + "=tcp://10.96.0.7:5001"}, nil); err == nil {
			t.Errorf("%s was ignored", name)
		}
	}
}

// The environment is the one place beside files where a secret may stand: a flag is seen by whoever lists processes.
func TestThePasswordOfTheDatabaseComesFromTheEnvironmentOrAFile(t *testing.T) {
	for _, url := range []string{"postgres://u:hunter2@h/d", "postgresql://u@h/d?password=hunter2", "postgres://u@h/d?sslpassword=hunter2"} {
		c, _, err := load(t, minimal, []string{"AUTHSERVER_DATABASE__URL=" + url}, nil)
		if err != nil || c.Database.URL != url {
			t.Errorf("environment: %v", err)
		}
		_, _, err = load(t, minimal, nil, []string{"database.url=" + url})
		wantFaults(t, err, "flag --set: database.url: holds a password; it belongs into database.password_file, or the whole key into the environment")
	}
	_, _, err := load(t, minimal, []string{"AUTHSERVER_DATABASE__URL=postgres://u:hunter2@h/d"}, []string{"database.url=postgres://u:hunter2@h/d"})
	wantFaults(t, err, "flag --set: database.url: holds a password; it belongs into database.password_file, or the whole key into the environment")
	for _, url := range []string{"none", "sqlite:a.db", "sqlite:/var/lib/a b.db", "postgres://u@h:5432/d?sslmode=verify-full", "postgres:///d?host=/run/postgresql", "postgres://u@h1,h2/d"} {
		if c, _, err := load(t, minimal, nil, []string{"database.url=" + url}); err != nil || c.Database.URL != url || c.Database.Enabled() != (url != "none") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// A health check has to find the server whatever else has become of the file that it was started with.
func TestTheOpsListenerIsFoundInAFileWithFaults(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"server: {ops_listen: \":9\", none: 1}\nissuer: 7\n": ":9",
		"server: {ops_listen: unix:ops.sock}\n":              "unix:" + filepath.Join(dir, "ops.sock"),
		"server: {ops_listen: 5}\n":                          "127.0.0.1:5002",
		"server: [a]\n":                                      "127.0.0.1:5002",
		"services: [{name: r}]\n":                            "127.0.0.1:5002",
		"server: {ops_listen: \"\"}\n":                       "",
	} {
		file := filepath.Join(dir, "authserver.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := config.OpsListen(file, nil, nil); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
		if got, err := config.OpsListen(file, []string{"AUTHSERVER_SERVER__OPS_LISTEN=:7"}, nil); got != ":7" || err != nil {
			t.Errorf("environment: %q, %v", got, err)
		}
		if got, err := config.OpsListen(file, []string{"AUTHSERVER_SERVER__OPS_LISTEN=:7"}, []string{"server.ops_listen=:8"}); got != ":8" || err != nil {
			t.Errorf("flag: %q, %v", got, err)
		}
	}
	if got, err := config.OpsListen(filepath.Join(dir, "none.yaml"), nil, []string{"server.ops_listen=:8"}); got != ":8" || err == nil {
		t.Errorf("no file: %q, %v", got, err)
	}
}
