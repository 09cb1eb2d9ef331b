package config_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/config"
	"authserver/internal/document"
)

// load reads text as a configuration file in a folder of its own.
func load(t *testing.T, text string, environ, sets []string) (*config.Config, string, error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "authserver.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, environ, sets)
	return c, dir, err
}

func good(t *testing.T, environ, sets []string) *config.Config {
	t.Helper()
	c, err := config.Load("testdata/good.yaml", environ, sets)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const minimal = "services:\n  - name: registry.local\nacl:\n  files: [policy.yaml]\n"

func TestAbsentKeysHaveTheirDocumentedDefaults(t *testing.T) {
	c, dir, err := load(t, minimal, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, pair := range map[string][2]any{
		"server.listen":             {c.Server.Listen, "127.0.0.1:5001"},
		"server.public_url":         {c.Server.PublicURL, "http://localhost:5001"},
		"server.ops_listen":         {c.Server.OpsListen, "127.0.0.1:5002"},
		"server.tls":                {c.Server.TLS, config.TLS{MinVersion: "1.2"}},
		"server.trusted_proxies":    {len(c.Server.TrustedProxies), 0},
		"server.cors_origins":       {len(c.Server.CORSOrigins), 0},
		"issuer.name":               {c.Issuer.Name, "authserver"},
		"issuer.token_lifetime":     {time.Duration(c.Issuer.TokenLifetime), 5 * time.Minute},
		"issuer.data_dir":           {c.Issuer.DataDir, filepath.Join(dir, "data")},
		"issuer.keys.algorithm":     {c.Issuer.Keys.Algorithm, "ES256"},
		"issuer.keys.rotate_every":  {time.Duration(c.Issuer.Keys.RotateEvery), 720 * time.Hour},
		"issuer.keys.publish_ahead": {time.Duration(c.Issuer.Keys.PublishAhead), 10 * time.Minute},
		"issuer.keys.store":         {c.Issuer.Keys.Store, "data_dir"},
		"server.max_connections":    {c.Server.MaxConnections, 10000},
		"passwords":                 {c.Passwords, config.Passwords{BcryptCost: 12, CacheLifetime: document.Duration(5 * time.Minute)}},
		"throttle":                  {c.Throttle, config.Throttle{AccountFailures: 10, NetworkFailures: 300, Window: document.Duration(5 * time.Minute)}},
		"log":                       {c.Log, config.Log{Level: "info", Format: "json"}},
		"audit.output":              {c.Audit.Output, "stderr"},
		"tracing":                   {c.Tracing, config.Tracing{SampleOneIn: 100, ServiceName: "authserver"}},
		"users":                     {len(c.Users), 0},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s = %v, want %v", path, pair[0], pair[1])
		}
	}
	if c.Server.TLS.Enabled() {
		t.Error("TLS is on without a certificate")
	}
	if got, want := c.Realm(), "http://localhost:5001/token"; got != want {
		t.Errorf("realm %q, want %q", got, want)
	}
}

func TestAServiceTakesWhatItDoesNotSayFromTheIssuer(t *testing.T) {
	c, _, err := load(t, `
issuer: {name: "https://auth.example.com", token_lifetime: 7m, keys: {algorithm: ES384}}
services:
  - name: plain
  - name: own
    verifier: pinned
    issuer: https://pulp.example.com/token/
    token_lifetime: 1h
    algorithm: RS256
acl: {files: [policy.yaml]}
`, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Service{
		{Name: "plain", Verifier: "chain", Issuer: "https://auth.example.com", TokenLifetime: document.Duration(7 * time.Minute), Algorithm: "ES384"},
		{Name: "own", Verifier: "pinned", Issuer: "https://pulp.example.com/token/", TokenLifetime: document.Duration(time.Hour), Algorithm: "RS256"},
	}
	if !reflect.DeepEqual(c.Services, want) {
		t.Errorf("got  %+v\nwant %+v", c.Services, want)
	}
}

func TestEdDSAIsTakenWhereNoVerifierCrashesOnIt(t *testing.T) {
	for _, verifier := range []string{"jwks", "pinned"} {
		text := fmt.Sprintf("services: [{name: a, algorithm: EdDSA, verifier: %s}]\nacl: {files: [p]}\n", verifier)
		if _, _, err := load(t, text, nil, nil); err != nil {
			t.Errorf("%s: %v", verifier, err)
		}
	}
}

func TestBoundsThemselvesAreInRange(t *testing.T) {
	for _, set := range []string{
		"issuer.token_lifetime=60s", "issuer.token_lifetime=24h", "issuer.keys.rotate_every=1h", "issuer.keys.rotate_every=4320h",
		"passwords.bcrypt_cost=4", "passwords.bcrypt_cost=16", "passwords.cache_lifetime=0s", "passwords.cache_lifetime=1h", "passwords.parallel=1024",
		"throttle.account_failures=0", "throttle.network_failures=0", "throttle.window=1s", "throttle.window=1h", "server.max_connections=16", "issuer.keys.publish_ahead=0s", "issuer.name=" + strings.Repeat("a", 255),
		"server.listen=:0", "server.listen=:65535", "server.listen=[::1]:5001", "server.listen=unix:/run/a.sock", "server.ops_listen=",
		"server.public_url=https://auth.example.com/auth", "server.public_url=http://[::1]:5001", "server.public_url=https://10.0.0.1:8443",
		"server.trusted_proxies=2001:db8::/32,unix", "server.cors_origins=http://localhost:8080", "audit.output=stdout",
	} {
		if _, err := config.Load("testdata/good.yaml", nil, []string{set}); err != nil {
			t.Errorf("%s: %v", set, err)
		}
	}
}

func TestTwoPortsChosenByTheSystemAreNotTheSameAddress(t *testing.T) {
	good(t, nil, []string{"server.listen=127.0.0.1:0", "server.ops_listen=127.0.0.1:0"})
}

func TestRelativePathsStartAtTheConfigurationFile(t *testing.T) {
	c, dir, err := load(t, `
server:
  listen: unix:run/public.sock
  ops_listen: unix:/run/ops.sock
  tls: {cert_file: tls/a.crt, key_file: /etc/a.key}
issuer:
  data_dir: ./data
  keys: {key_file: k/a.key, certificate_file: ../a.crt}
services:
  - {name: a, key_file: s.key, certificate_file: /abs/s.crt}
acl: {files: [policy.yaml, "/abs/policy.yaml", "policies/*.yaml"]}
audit: {output: "file:log/audit.json"}
`, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	in := func(p string) string { return filepath.Join(dir, p) }
	got := []string{
		c.Server.Listen, c.Server.OpsListen, c.Server.TLS.CertFile, c.Server.TLS.KeyFile, c.Issuer.DataDir, c.Issuer.Keys.KeyFile,
		c.Issuer.Keys.CertificateFile, c.Services[0].KeyFile, c.Services[0].CertificateFile, c.ACL.Files[0], c.ACL.Files[1],
		c.ACL.Files[2], c.Audit.Output, c.Path("users.htpasswd"), c.Path("/abs/users.htpasswd"), c.Path(""),
	}
	want := []string{
		"unix:" + in("run/public.sock"), "unix:/run/ops.sock", in("tls/a.crt"), "/etc/a.key", in("data"), in("k/a.key"),
		in("../a.crt"), in("s.key"), "/abs/s.crt", in("policy.yaml"), "/abs/policy.yaml",
		in("policies/*.yaml"), "file:" + in("log/audit.json"), in("users.htpasswd"), "/abs/users.htpasswd", "",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if !c.Server.TLS.Enabled() {
		t.Error("TLS is off with a certificate")
	}
}

func TestRelativePathsFromEnvironmentAndFlagsStartThereToo(t *testing.T) {
	c, dir, err := load(t, minimal, []string{"AUTHSERVER_ISSUER__DATA_DIR=d"}, []string{"acl.files=a.yaml,/b.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Issuer.DataDir, filepath.Join(dir, "d"); got != want {
		t.Errorf("data_dir %q, want %q", got, want)
	}
	if got, want := c.ACL.Files, []string{filepath.Join(dir, "a.yaml"), "/b.yaml"}; !slices.Equal(got, want) {
		t.Errorf("acl.files %q, want %q", got, want)
	}
}

type htpasswdOptions struct {
	File string `yaml:"file"`
}

func TestAUsersBlockIsDecodedByItsBackend(t *testing.T) {
	c := good(t, nil, nil)
	var options htpasswdOptions
	if err := c.DecodeUsers(0, &options); err != nil || options.File != "users.htpasswd" {
		t.Errorf("%+v, %v", options, err)
	}
	if _, still := c.Users[0]["kind"]; !still {
		t.Error("decoding took the kind out of the configuration")
	}
}

func TestFaultsOfAUsersBlockCarryItsPlace(t *testing.T) {
	c, dir, err := load(t, minimal+"users:\n  - kind: htpasswd\n    file: 5\n  - kind: htpasswd\n    files: a\n", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "authserver.yaml")
	wantFaults(t, c.DecodeUsers(0, &htpasswdOptions{}), file+":7: users[0].file: a whole number where text belongs; put it in quotes")
	wantFaults(t, c.DecodeUsers(1, &htpasswdOptions{}), file+":9: users[1].files: unknown key; known here: file")
}

func TestRoomsThatUseAValueReportFaultsAtItsPlace(t *testing.T) {
	c := good(t, []string{"AUTHSERVER_ISSUER__NAME=a"}, []string{"log.level=warn"})
	for path, want := range map[string]string{
		"users[0].file": "testdata/good.yaml:8: users[0].file: boom",
		"users[0]":      "testdata/good.yaml:7: users[0]: boom",
		"issuer.name":   "environment AUTHSERVER_ISSUER__NAME: issuer.name: boom",
		"log.level":     "flag --set: log.level: boom",
		"audit.output":  "testdata/good.yaml: audit.output: boom",
	} {
		if got := c.Fault(path, errors.New("boom")).Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if where, _, _ := strings.Cut(want, ": "); c.Where(path) != where {
			t.Errorf("Where(%s) = %s, want %s", path, c.Where(path), where)
		}
	}
}

// settings is every key that DESIGN and docs name, with a value that is not its default, as YAML and as it arrives.
var settings = map[string][2]string{
	"server.listen":                   {`"0.0.0.0:80"`, "0.0.0.0:80"},
	"server.public_url":               {"https://auth.example.com", "https://auth.example.com"},
	"server.tls.cert_file":            {"/t.crt", "/t.crt"},
	"server.tls.key_file":             {"/t.key", "/t.key"},
	"server.tls.min_version":          {`"1.3"`, "1.3"},
	"server.trusted_proxies":          {"[10.0.0.0/8, unix]", "[10.0.0.0/8 unix]"},
	"server.cors_origins":             {`["https://ui.example.com"]`, "[https://ui.example.com]"},
	"server.ops_listen":               {`"127.0.0.1:99"`, "127.0.0.1:99"},
	"issuer.name":                     {"somebody", "somebody"},
	"issuer.token_lifetime":           {"2m", "2m"},
	"issuer.data_dir":                 {"/d", "/d"},
	"issuer.keys.algorithm":           {"RS256", "RS256"},
	"issuer.keys.rotate_every":        {"48h", "48h"},
	"issuer.keys.key_file":            {"/i.key", "/i.key"},
	"issuer.keys.certificate_file":    {"/i.crt", "/i.crt"},
	"services[].name":                 {"other.local", "other.local"},
	"services[].verifier":             {"pinned", "pinned"},
	"services[].token_lifetime":       {"3m", "3m"},
	"services[].issuer":               {"nobody", "nobody"},
	"services[].algorithm":            {"RS512", "RS512"},
	"services[].key_file":             {"/s.key", "/s.key"},
	"services[].certificate_file":     {"/s.crt", "/s.crt"},
	"users":                           {"[{kind: ldap, deep: {er: 1}}]", "[map[deep:map[er:1] kind:ldap]]"},
	"acl.files":                       {"[/a.yaml, /b.yaml]", "[/a.yaml /b.yaml]"},
	"acl.webhook.url":                 {"https://opa.example.com/v1/data/x", "https://opa.example.com/v1/data/x"},
	"acl.webhook.token_file":          {"/w.token", "/w.token"},
	"acl.webhook.tls.ca_file":         {"/w-ca.crt", "/w-ca.crt"},
	"acl.webhook.tls.cert_file":       {"/w.crt", "/w.crt"},
	"acl.webhook.tls.key_file":        {"/w.key", "/w.key"},
	"acl.webhook.timeout":             {"1s", "1s"},
	"acl.webhook.parallel":            {"7", "7"},
	"acl.webhook.pause":               {"1m", "1m"},
	"issuer.keys.publish_ahead":       {"7m", "7m"},
	"issuer.keys.store":               {"database", "database"},
	"issuer.keys.encryption_key_file": {"/k/wrap", "/k/wrap"},
	"server.max_connections":          {"77", "77"},
	"server.shutdown_delay":           {"9s", "9s"},
	"passwords.bcrypt_cost":           {"5", "5"},
	"passwords.cache_lifetime":        {"3m", "3m"},
	"passwords.parallel":              {"3", "3"},
	"throttle.account_failures":       {"7", "7"},
	"throttle.network_failures":       {"70", "70"},
	"throttle.window":                 {"2m", "2m"},
	"database.url":                    {"postgres://auth@db.example.com/auth", "postgres://auth@db.example.com/auth"},
	"database.password_file":          {"/db.password", "/db.password"},
	"database.max_connections":        {"7", "7"},
	"database.timeout":                {"1s", "1s"},
	"refresh_tokens.enabled":          {"true", "true"},
	"refresh_tokens.idle_lifetime":    {"48h", "48h"},
	"refresh_tokens.max_lifetime":     {"72h", "72h"},
	"log.level":                       {"debug", "debug"},
	"log.format":                      {"text", "text"},
	"audit.output":                    {"stdout", "stdout"},
	"tracing.endpoint":                {"https://otel.example.com/v1/traces", "https://otel.example.com/v1/traces"},
	"tracing.sample_one_in":           {"7", "7"},
	"tracing.headers_file":            {"/otel.headers", "/otel.headers"},
	"tracing.service_name":            {"token-server", "token-server"},
}

// walk calls visit for every setting of a configuration struct, lists of blocks as name[].
func walk(v reflect.Value, path string, visit func(path, field string, v reflect.Value)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		key, value := document.Join(path, field.Tag.Get("yaml")), v.Field(i)
		switch {
		case value.Kind() == reflect.Struct:
			walk(value, key, visit)
		case value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct:
			element := reflect.New(value.Type().Elem()).Elem()
			if value.Len() > 0 {
				element = value.Index(0)
			}
			walk(element, key+"[]", visit)
		default:
			visit(key, field.Name, value)
		}
	}
}

func show(v reflect.Value) string {
	if d, ok := v.Interface().(document.Duration); ok {
		text, _ := d.MarshalText()
		return string(text)
	}
	return fmt.Sprint(v.Interface())
}

func TestEveryFieldIsAKeyAndEveryKeyAField(t *testing.T) {
	var fields []string
	walk(reflect.ValueOf(config.Config{}), "", func(path, _ string, _ reflect.Value) { fields = append(fields, path) })
	slices.Sort(fields)
	if want := slices.Sorted(maps.Keys(settings)); !slices.Equal(fields, want) {
		t.Errorf("fields %q\nwant   %q", fields, want)
	}
}

func TestEveryKeyOfTheFileArrives(t *testing.T) {
	// Nest the keys again: {server: {listen: …}}.
	tree := map[string]any{}
	for path, value := range settings {
		at, keys := tree, strings.Split(path, ".")
		for _, key := range keys[:len(keys)-1] {
			if at[key] == nil {
				at[key] = map[string]any{}
			}
			at = at[key].(map[string]any)
		}
		at[keys[len(keys)-1]] = value[0]
	}
	var text strings.Builder
	var write func(indent string, at map[string]any)
	write = func(indent string, at map[string]any) {
		for _, key := range slices.Sorted(maps.Keys(at)) {
			name, isList := strings.CutSuffix(key, "[]")
			switch value := at[key].(type) {
			case string:
				fmt.Fprintf(&text, "%s%s: %s\n", indent, key, value)
			case map[string]any:
				fmt.Fprintf(&text, "%s%s:\n", indent, name)
				if isList {
					fmt.Fprintf(&text, "%s  -\n", indent)
				}
				write(indent+"    ", value)
			}
		}
	}
	write("", tree)
	c, _, err := load(t, text.String(), nil, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	walk(reflect.ValueOf(*c), "", func(path, _ string, v reflect.Value) {
		if got, want := show(v), settings[path][1]; got != want {
			t.Errorf("%s = %s, want %s", path, got, want)
		}
	})
	defaults, _, err := load(t, minimal, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	walk(reflect.ValueOf(*defaults), "", func(path, _ string, v reflect.Value) {
		if show(v) == settings[path][1] {
			t.Errorf("%s: the test sets it to its default, and so shows nothing", path)
		}
	})
}

// A setting that nobody reads promises what is not done.
func TestEverySettingIsReadByTheProgram(t *testing.T) {
	files, err := filepath.Glob("../../cmd/authserver/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no program found: %v", err)
	}
	read := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				read[s.Sel.Name] = true
			}
			return true
		})
	}
	walk(reflect.ValueOf(config.Config{}), "", func(path, field string, _ reflect.Value) {
		if !read[field] {
			t.Errorf("%s is read by nobody in cmd", path)
		}
	})
}
