package harness

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Options say what an authserver is to be like. The zero value is what
// "authserver init" makes.
type Options struct {
	Service string            // the one service of init; "registry.test" when empty
	Policy  string            // replaces init's policy.yaml
	Users   map[string]string // name to password, besides admin
	// Config, when set, replaces init's authserver.yaml. It holds everything
	// but the server section.
	Config string
	Set    []string // key.path=value, laid over the configuration
	// Database is database.url; the default, a file in the data folder, when empty.
	Database string
	// RefreshTokens are given to clients that ask for them.
	RefreshTokens bool
	// Under is a program and its arguments, which runs authserver.
	Under []string
}

// Authserver is a running authserver.
type Authserver struct {
	*Process
	Dir      string // authserver.yaml, policy.yaml, users.htpasswd, data
	URL      string // http://localhost:PORT
	Ops      string // http://127.0.0.1:PORT
	Service  string
	Issuer   string
	Root     string   // path of the root certificate
	Password string   // of admin
	Sets     []string // key.path=value, laid over the configuration by Restart
	binary   string
	under    []string
}

// StartAuthserver runs "authserver init", applies o, and serves.
func StartAuthserver(t testing.TB, o Options) *Authserver {
	t.Helper()
	if o.Service == "" {
		o.Service = "registry.test"
	}
	a := &Authserver{
		Dir:     filepath.Join(t.TempDir(), "auth"),
		Service: o.Service,
		binary:  Program(t, "authserver"),
		under:   o.Under,
	}
	port := FreePort(t)
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	ops := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	a.URL, a.Ops = fmt.Sprintf("http://localhost:%d", port), "http://"+ops

	out := a.run(t, "", "init", a.Dir, "--service", o.Service, "--public-url", a.URL,
		"--listen", listen, "--ops-listen", ops, "--set", "passwords.bcrypt_cost=4", "-o", "json")
	var made struct {
		Admin    string `json:"admin"`
		Password string `json:"password"`
		Root     string `json:"root_certificate"`
		Issuer   string `json:"issuer"`
	}
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatalf("authserver init -o json: %v\n%s", err, out)
	}
	a.Password, a.Root, a.Issuer = made.Password, made.Root, made.Issuer

	if o.Config != "" {
		write(t, a.config(), "server:\n  listen: %q\n  public_url: %q\n  ops_listen: %q\n%s", listen, a.URL, ops, o.Config)
	}
	more := ""
	if o.Config == "" {
		more = "passwords:\n  bcrypt_cost: 4\n" // as in Command
	}
	if o.Database != "" {
		more += fmt.Sprintf("database:\n  url: %q\n", o.Database)
	}
	if o.RefreshTokens {
		more += "refresh_tokens:\n  enabled: true\n"
	}
	write(t, a.config(), "%s\n%s", ReadFile(t, a.config()), more)
	if o.Policy != "" {
		write(t, filepath.Join(a.Dir, "policy.yaml"), "%s", o.Policy)
	}
	for name, password := range o.Users {
		a.AddUser(t, name, password)
	}

	a.Sets = o.Set
	a.Restart(t)
	return a
}

// Restart starts it once more, after its end, and waits until it is ready.
func (a *Authserver) Restart(t testing.TB) {
	t.Helper()
	args := append(slices.Clone(a.under), a.binary, "serve", "--config", a.config())
	for _, set := range a.Sets {
		args = append(args, "--set", set)
	}
	a.Process = Start(t, nil, args[0], args[1:]...)
	a.Await(t, func() error { return expect(a.Ops+"/readyz", http.StatusOK) })
}

// Replica starts another process on the same folder and database, with addresses of its own.
func (a *Authserver) Replica(t testing.TB, sets ...string) *Authserver {
	t.Helper()
	b := *a
	port, ops := FreePort(t), FreePort(t)
	b.URL, b.Ops = fmt.Sprintf("http://localhost:%d", port), fmt.Sprintf("http://127.0.0.1:%d", ops)
	b.Sets = append([]string{fmt.Sprintf("server.listen=127.0.0.1:%d", port), fmt.Sprintf("server.ops_listen=127.0.0.1:%d", ops)}, sets...)
	b.Restart(t)
	return &b
}

func (a *Authserver) config() string { return filepath.Join(a.Dir, "authserver.yaml") }

// run runs an authserver command that has to succeed and returns its standard output.
func (a *Authserver) run(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := output(a.binary, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// AddUser adds a user by the command; a running server learns of it at its next reload.
func (a *Authserver) AddUser(t testing.TB, name, password string) {
	t.Helper()
	a.Command(t, password+"\n", "user", "add", name, "--password-stdin")
}

// Command runs an authserver command on a's configuration that has to succeed, and returns what it printed on standard
// output.
func (a *Authserver) Command(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	// At its usual cost bcrypt would take most of the time of all tests together.
	return a.run(t, stdin, append(args, "--config", a.config(), "--set", "passwords.bcrypt_cost=4")...)
}

// AccessToken makes an access token of a user, and returns it and its id; args are flags of "token create".
func (a *Authserver) AccessToken(t testing.TB, user, name string, args ...string) (secret, id string) {
	t.Helper()
	out := a.Command(t, "", append([]string{"token", "create", "--user", user, "--name", name, "-o", "json"}, args...)...)
	var made struct{ Token, ID string }
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Token == "" || made.ID == "" {
		t.Fatalf("authserver token create -o json: %v\n%s", err, out)
	}
	return made.Token, made.ID
}

// Export is the key or certificate that a verifier of the service needs;
// format is pem or jwks. It returns the path of a file.
func (a *Authserver) Export(t testing.TB, format, service string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), service+"."+format)
	write(t, path, "%s", a.run(t, "", "key", "export", "--format", format, "--service", service, "--config", a.config()))
	return path
}

// An Answer is what the token endpoint says.
type Answer struct {
	Status      int         `json:"-"`
	Header      http.Header `json:"-"`
	Body        string      `json:"-"`
	Token       string      `json:"token"`
	AccessToken string      `json:"access_token"`
	ExpiresIn   int         `json:"expires_in"`
	// RefreshToken is there when it was asked for and there is one.
	RefreshToken string `json:"refresh_token"`
}

// Granted is what the token of an answer holds, as scopes.
func (a Answer) Granted(t testing.TB) string {
	t.Helper()
	if a.Status != http.StatusOK {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(a.Token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Access []struct {
			Type, Name string
			Actions    []string
		}
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	var scopes []string
	for _, a := range claims.Access {
		scopes = append(scopes, a.Type+":"+a.Name+":"+strings.Join(a.Actions, ","))
	}
	return strings.Join(scopes, " ")
}

// Metrics is what /metrics shows.
func (a *Authserver) Metrics(t testing.TB) string {
	t.Helper()
	response, err := http.Get(a.Ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Ask asks the token endpoint like most clients do. An empty user is anonymous.
func (a *Authserver) Ask(t testing.TB, user, password, service string, scopes ...string) Answer {
	t.Helper()
	return a.Get(t, user, password, url.Values{"service": {service}, "scope": scopes})
}

// Get asks the token endpoint by GET. An empty user without a password is anonymous.
func (a *Authserver) Get(t testing.TB, user, password string, query url.Values) Answer {
	t.Helper()
	request, err := http.NewRequest("GET", a.URL+"/token?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" || password != "" {
		request.SetBasicAuth(user, password)
	}
	return answer(t, request)
}

// Post asks the token endpoint by POST (OAuth2).
func (a *Authserver) Post(t testing.TB, form url.Values) Answer {
	t.Helper()
	return a.post(t, "/token", form)
}

// Revoke ends a token by RFC 7009.
func (a *Authserver) Revoke(t testing.TB, token string) {
	t.Helper()
	if answer := a.post(t, "/revoke", url.Values{"token": {token}}); answer.Status != http.StatusOK {
		t.Fatalf("revoke: status %d: %s", answer.Status, answer.Body)
	}
}

func (a *Authserver) post(t testing.TB, path string, form url.Values) Answer {
	t.Helper()
	request, err := http.NewRequest("POST", a.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return answer(t, request)
}

func answer(t testing.TB, request *http.Request) Answer {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer := Answer{Status: response.StatusCode, Header: response.Header, Body: string(body)}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("token endpoint: status %d: %v\n%s", response.StatusCode, err, body)
	}
	return answer
}

// Token is Ask for a request that has to be answered with a token.
func (a *Authserver) Token(t testing.TB, user, password, service string, scopes ...string) string {
	t.Helper()
	answer := a.Ask(t, user, password, service, scopes...)
	if answer.Status != http.StatusOK || answer.Token == "" || answer.Token != answer.AccessToken {
		t.Fatalf("no token for %q: status %d: %s", user, answer.Status, answer.Body)
	}
	return answer.Token
}

// expect reports how the status of url differs from the wanted one.
func expect(url string, status int) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != status {
		return fmt.Errorf("%s: status %d, want %d", url, response.StatusCode, status)
	}
	return nil
}

// ReadFile is os.ReadFile that cannot fail.
func ReadFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
