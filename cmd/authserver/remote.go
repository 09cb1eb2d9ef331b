package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"authserver/internal/network"
	"authserver/internal/users"
)

// passwordVariable holds the password for --server. It is no key of the configuration.
const passwordVariable = "AUTHSERVER_PASSWORD"

// settings is the environment without what is no key of the configuration.
func (h *hand) settings() []string {
	return slices.DeleteFunc(slices.Clone(h.environ), func(e string) bool { return strings.HasPrefix(e, passwordVariable+"=") })
}

// far says which server a command works on instead of the database, and who logs in there.
type far struct {
	server, login string
	fromStdin     bool
	stdinFlag     string // the name of the flag that sets fromStdin
}

// flags adds --server to the commands of a group.
func (f *far) flags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.server, "server", "", "work on a running server at this address, over its API, instead of on the database")
	flags.StringVar(&f.login, "login", "", "who logs in at --server; the password is in "+passwordVariable+", or is asked for")
	f.stdinFlag = "--login-password-stdin"
	flags.BoolVar(&f.fromStdin, "login-password-stdin", false, "read the password for --login from standard input")
}

// remote is a server's API.
type remote struct {
	base, login, password string
	client                *http.Client
}

// dial makes the client of --server.
func (h *hand) dial(f far) (*remote, error) {
	u, err := url.Parse(f.server)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, misuse{fmt.Errorf("--server: %q is no address; would be right: https://auth.example.com", f.server)}
	}
	if u.Scheme == "http" && !network.IsLocal(u.Hostname()) {
		return nil, misuse{errors.New("--server: the password would be sent in clear; use https")}
	}
	if f.login == "" {
		return nil, misuse{errors.New("--login is needed with --server: who logs in there")}
	}
	password, err := h.loginPassword(f)
	if err != nil {
		return nil, err
	}
	return &remote{strings.TrimRight(f.server, "/") + "/api/v1", f.login, password, &http.Client{
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the password is for this address
	}}, nil
}

// dialFor is dial for the tokens of an owner.
func (h *hand) dialFor(f far, owner string) (*remote, error) {
	if owner == "" {
		return nil, misuse{errors.New("--user is needed with --server: whose tokens")}
	}
	return h.dial(f)
}

// loginPassword is the password of who logs in somewhere: from standard input, the environment, or a terminal.
func (h *hand) loginPassword(f far) (string, error) {
	if f.fromStdin {
		return h.readPassword(f.login, true)
	}
	for _, e := range h.environ {
		if value, ok := strings.CutPrefix(e, passwordVariable+"="); ok && value != "" {
			return value, nil
		}
	}
	terminal, ok := h.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(terminal.Fd())) {
		return "", misuse{errors.New("there is no terminal to ask for the password; use " + passwordVariable + " or " + f.stdinFlag)}
	}
	fmt.Fprintf(h.stderr, "Password of %q at %s: ", f.login, f.server)
	password, err := term.ReadPassword(int(terminal.Fd()))
	fmt.Fprintln(h.stderr)
	return string(password), err
}

// do asks for an operation; out nil leaves the answer unread.
func (r *remote) do(ctx context.Context, method, path string, in, out any, ifMatch string) (etag string, err error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return "", err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, r.base+path, body)
	if err != nil {
		return "", err
	}
	request.SetBasicAuth(r.login, r.password)
	request.Header.Set("Accept", "application/json")
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if ifMatch != "" {
		request.Header.Set("If-Match", ifMatch)
	}
	response, err := r.client.Do(request)
	if err != nil {
		var outage net.Error
		if errors.As(err, &outage) && outage.Timeout() {
			return "", fmt.Errorf("%s does not answer", r.base)
		}
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return "", err
	}
	if response.StatusCode >= 300 {
		return "", answerError(response.StatusCode, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			return "", fmt.Errorf("%s answers what cannot be read: %w", r.base, err)
		}
	}
	return response.Header.Get("ETag"), nil
}

// answerError is the error of a problem (RFC 9457).
func answerError(status int, answer []byte) error {
	var p struct {
		Detail string `json:"detail"`
		Errors []struct{ Message, Location string }
	}
	if json.Unmarshal(answer, &p) != nil || p.Detail == "" {
		return fmt.Errorf("the server answers %d; is there an authserver at this address?", status)
	}
	for _, e := range p.Errors {
		p.Detail += fmt.Sprintf("; %s: %s", e.Location, e.Message)
	}
	if status == http.StatusNotFound {
		return fmt.Errorf("the server says: %s: %w", p.Detail, users.ErrNotFound)
	}
	return fmt.Errorf("the server says: %s (%d)", p.Detail, status)
}

// all reads the pages of a list.
func all[T any](ctx context.Context, r *remote, path string) ([]T, error) {
	list := []T{}
	for after := ""; ; {
		var part struct {
			Items []T
			Next  string
		}
		if _, err := r.do(ctx, http.MethodGet, fmt.Sprintf("%s?limit=%d&after=%s", path, page, url.QueryEscape(after)), nil, &part, ""); err != nil {
			return nil, err
		}
		list = append(list, part.Items...)
		if part.Next == "" {
			return list, nil
		}
		after = part.Next
	}
}

// at is a path with names in it.
func at(format string, names ...any) string {
	for i, name := range names {
		names[i] = url.PathEscape(name.(string))
	}
	return fmt.Sprintf(format, names...)
}

// remoteEditor edits accounts of the database over the API.
type remoteEditor struct{ *remote }

func (remoteEditor) kind() string { return "database" }

func (e remoteEditor) add(ctx context.Context, name, password string, robot bool, groups []string) error {
	account := map[string]string{"name": name, "kind": string(users.KindUser), "password": password}
	if robot {
		account = map[string]string{"name": name, "kind": string(users.KindRobot)}
	}
	if _, err := e.do(ctx, http.MethodPost, "/users", account, nil, ""); err != nil {
		return err
	}
	for _, g := range groups {
		if err := e.AddGroup(ctx, g, time.Time{}); err != nil {
			return err
		}
		if err := e.AddMember(ctx, g, name); err != nil {
			return err
		}
	}
	return nil
}

func (e remoteEditor) setPassword(ctx context.Context, name, password string) error {
	_, err := e.do(ctx, http.MethodPut, at("/users/%s/password", name), map[string]string{"password": password}, nil, "")
	return err
}

func (e remoteEditor) setDisabled(ctx context.Context, name string, disabled bool) error {
	_, err := e.do(ctx, http.MethodPatch, at("/users/%s", name), map[string]bool{"disabled": disabled}, nil, "*")
	return err
}

func (e remoteEditor) remove(ctx context.Context, name string) error {
	_, err := e.do(ctx, http.MethodDelete, at("/users/%s", name), nil, nil, "*")
	return err
}

func (e remoteEditor) show(ctx context.Context, name string) (userLine, error) {
	line := userLine{Backend: "database"}
	_, err := e.do(ctx, http.MethodGet, at("/users/%s", name), nil, &line, "")
	return line, err
}

func (e remoteEditor) list(ctx context.Context) ([]userLine, error) {
	list, err := all[userLine](ctx, e.remote, "/users")
	for i := range list {
		list[i].Backend = "database"
	}
	return list, err
}

// groupEditor changes groups.
type groupEditor interface {
	AddGroup(ctx context.Context, name string, now time.Time) error
	RemoveGroup(ctx context.Context, name string) error
	AddMember(ctx context.Context, group, account string) error
	RemoveMember(ctx context.Context, group, account string) error
	Groups(ctx context.Context) ([]string, error)
	Members(ctx context.Context, group string) ([]string, error)
}

func (r *remote) AddGroup(ctx context.Context, name string, _ time.Time) error {
	_, err := r.do(ctx, http.MethodPut, at("/groups/%s", name), nil, nil, "")
	return err
}

func (r *remote) RemoveGroup(ctx context.Context, name string) error {
	_, err := r.do(ctx, http.MethodDelete, at("/groups/%s", name), nil, nil, "")
	return err
}

func (r *remote) AddMember(ctx context.Context, group, account string) error {
	_, err := r.do(ctx, http.MethodPut, at("/groups/%s/members/%s", group, account), nil, nil, "")
	return err
}

func (r *remote) RemoveMember(ctx context.Context, group, account string) error {
	_, err := r.do(ctx, http.MethodDelete, at("/groups/%s/members/%s", group, account), nil, nil, "")
	return err
}

func (r *remote) Groups(ctx context.Context) ([]string, error) {
	groups, err := all[struct{ Name string }](ctx, r, "/groups")
	names := []string{}
	for _, g := range groups {
		names = append(names, g.Name)
	}
	return names, err
}

func (r *remote) Members(ctx context.Context, group string) ([]string, error) {
	members, err := all[struct{ Account string }](ctx, r, at("/groups/%s/members", group))
	names := []string{}
	for _, m := range members {
		names = append(names, m.Account)
	}
	return names, err
}

// createToken makes an access token.
func (r *remote) createToken(ctx context.Context, t newToken) (madeToken, error) {
	body := map[string]any{"name": t.name, "lifetime": t.expires}
	if len(t.scopes) > 0 {
		body["scopes"] = t.scopes
	}
	if len(t.networks) > 0 {
		body["networks"] = t.networks
	}
	var made madeToken
	_, err := r.do(ctx, http.MethodPost, at("/users/%s/tokens", t.user), body, &made, "")
	return made, err
}

func (r *remote) tokens(ctx context.Context, owner string) ([]tokenLine, error) {
	return all[tokenLine](ctx, r, at("/users/%s/tokens", owner))
}

func (r *remote) revokeToken(ctx context.Context, owner, id string) error {
	_, err := r.do(ctx, http.MethodDelete, at("/users/%s/tokens/%s", owner, id), nil, nil, "")
	return err
}
