package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"authserver/internal/config"
)

// Whatever stands in the file, in the environment and behind --set: a configuration within its documented bounds, or faults
// that say where they are, the same ones each time. What was read, written down as a file, is read as itself. A password that
// stands in an address is in no fault.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(text) < 1<<10 && i%3 == 0 { // they are many
			f.Add(string(text), "", "")
		}
	}
	for _, seed := range [][2]string{
		{"AUTHSERVER_ISSUER__NAME=x", ""}, {"AUTHSERVER_SERVER__LISTEN=:1\nAUTHSERVER_SERVER=", ""}, {"AUTHSERVER_ISSUER__NAME=a\nAUTHSERVER_ISSUER__NAME__DATA_DIR=/b", ""}, {"", "issuer.name=a\nissuer.name.data_dir=/b"},
		{"AUTHSERVER_SERVER__CORS_ORIGINS=http://a\nAUTHSERVER_SERVER__CORS_ORIGINS__LISTEN=:1", "log.level=debug"}, {"AUTHSERVER_DATABASE__URL=postgres://u:PASSWORD@h/db", "database.max_connections=7"},
		{"AUTHSERVER_SERVER__PUBLIC_URL=https://u:PASSWORD@h/ x", ""}, {"AUTHSERVER_ACL__WEBHOOK__URL=http://u:PASSWORD@h:0/", ""}, {"AUTHSERVER_PORT=tcp://10.0.0.1:80\nAUTHSERVER_SERVICE_HOST=10.0.0.1", ""},
		{"AUTHSERVER_REFRESH_TOKENS__ENABLED=true\nAUTHSERVER_DATABASE__URL=none", "acl.files=a,b"}, {"AUTHSERVER_=x\nAUTHSERVER___=y\nAUTHSERVER_A____B=z", "=\n.=x\na..b=c"}, {"AUTHSERVER_SERVICES__0__NAME=x", "services=a"},
		{"AUTHSERVER_ISSUER__TOKEN_LIFETIME=1e3h", "passwords.bcrypt_cost=+9"},
	} {
		f.Add(minimal, seed[0], seed[1])
		f.Add(minimal+"server: {trusted_proxies: [10.0.0.0/8, unix]}\nusers: [{kind: htpasswd, file: u}]\nacl: {files: [p], webhook: {url: \"https://opa.example.com\"}}\n", seed[0], seed[1])
	}
	dir := f.TempDir()
	file := filepath.Join(dir, "authserver.yaml")
	f.Fuzz(func(t *testing.T, text, environ, sets string) {
		write := func(data []byte) {
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write([]byte(text))
		split := func(s string) []string {
			if s == "" {
				return nil
			}
			return strings.Split(s, "\n")
		}
		c, err := config.Load(file, split(environ), split(sets))
		for range 3 {
			again, second := config.Load(file, split(environ), split(sets))
			if (c == nil) == (err == nil) || fmt.Sprint(err) != fmt.Sprint(second) || c != nil && !reflect.DeepEqual(values(c), values(again)) {
				t.Fatalf("%+v, %v\nthen %+v, %v", c, err, again, second)
			}
		}
		if err != nil {
			for _, one := range each(err) {
				if m := one.Error(); !strings.HasPrefix(m, file+":") && !strings.HasPrefix(m, "environment AUTHSERVER_") && !strings.HasPrefix(m, "flag --set: ") {
					t.Fatalf("a fault without its place: %q", m)
				}
			}
			for _, key := range []string{"SERVER__PUBLIC_URL", "DATABASE__URL", "ACL__WEBHOOK__URL"} { // a URL with a user's password
				if at := strings.Index(environ, "AUTHSERVER_"+key+"="); at >= 0 && strings.Contains(err.Error(), "PASSWORD@") && !strings.Contains(sets+text, "PASSWORD") && strings.Count(environ, "PASSWORD") == 1 && userPart(environ[at:]) {
					t.Fatalf("the password is told: %v", err)
				}
			}
			return
		}
		within := func(what string, d, low, high time.Duration) {
			if d < low || d > high {
				t.Fatalf("%s is %v", what, d)
			}
		}
		within("issuer.token_lifetime", time.Duration(c.Issuer.TokenLifetime), time.Minute, 24*time.Hour)
		within("issuer.keys.rotate_every", time.Duration(c.Issuer.Keys.RotateEvery), time.Hour, 4320*time.Hour)
		within("database.timeout", time.Duration(c.Database.Timeout), 100*time.Millisecond, 10*time.Second)
		within("refresh_tokens.idle_lifetime", time.Duration(c.Refresh.IdleLifetime), time.Minute, 5*8760*time.Hour)
		names := map[string]bool{}
		for _, s := range c.Services {
			within("token_lifetime of "+s.Name, time.Duration(s.TokenLifetime), time.Minute, 24*time.Hour)
			if s.Name == "" || names[s.Name] || s.Issuer == "" || s.Verifier == "" || s.Algorithm == "" {
				t.Fatalf("service %+v", s)
			}
			names[s.Name] = true
		}
		if len(c.Services) == 0 || len(c.ACL.Files) == 0 || c.Issuer.Name == "" || c.Passwords.BcryptCost < 4 || c.Passwords.BcryptCost > 16 || strings.ContainsAny(c.Server.PublicURL, "\" ?#") {
			t.Fatalf("%+v", c)
		}
		for i := range c.Users {
			if kind, _ := c.Users[i]["kind"].(string); kind == "" {
				t.Fatalf("users[%d]: %v", i, c.Users[i])
			}
		}

		// What config show would show, as a file in the same place.
		var shown map[string]any
		data, err := yaml.Marshal(c)
		if err == nil {
			err = yaml.Unmarshal(data, &shown)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !c.ACL.Webhook.Enabled() {
			delete(shown["acl"].(map[string]any), "webhook") // given without an address it is a fault
		}
		if data, err = yaml.Marshal(shown); err != nil {
			t.Fatal(err)
		}
		write(data)
		again, err := config.Load(file, nil, nil)
		if err != nil && strings.Contains(err.Error(), "holds a password") { // which is for the environment
			return
		}
		if err != nil || !reflect.DeepEqual(values(again), values(c)) {
			t.Fatalf("%v\nread again %+v\n%v\n%s", values(c), again, err, data)
		}
	})
}

// each takes joined errors apart.
func each(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, each(e)...)
	}
	return all
}

// values are those of a configuration, without where they stand.
func values(c *config.Config) string {
	text, err := yaml.Marshal(c)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// userPart tells whether PASSWORD is the password in the address that an environment variable begins with.
func userPart(variable string) bool {
	line, _, _ := strings.Cut(variable, "\n")
	_, address, _ := strings.Cut(line, "=")
	scheme, rest, ok := strings.Cut(address, "://")
	user, _, found := strings.Cut(rest, ":PASSWORD@")
	return ok && found && !strings.ContainsAny(scheme+user, "/?#@: ")
}
