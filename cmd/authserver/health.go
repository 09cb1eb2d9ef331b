package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"authserver/internal/config"
)

// health is what a container's health check is told. It is its own process, every few seconds: it reads one key of the
// configuration, and opens no key, no policy and no database.
type health struct {
	live    bool
	timeout time.Duration
}

func (h *hand) healthCommand() *cobra.Command {
	var c health
	cmd := &cobra.Command{
		Use: "health", Short: "Ask the server on this machine whether it is ready", Args: cobra.NoArgs,
		Long: `Ask /readyz on server.ops_listen whether the server is ready, for the health check of a container; exit status 0 if it is.

Of the configuration only server.ops_listen is read. Faults elsewhere in it do not count, because a server that has
refused a changed file still serves by the old one. If the file cannot be read at all, the address is the default one,
or the one that AUTHSERVER_SERVER__OPS_LISTEN or --set say.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return h.health(cmd.Context(), c) },
	}
	cmd.Flags().BoolVar(&c.live, "live", false, "ask /livez instead: whether it runs, ready or not")
	cmd.Flags().DurationVar(&c.timeout, "timeout", 3*time.Second, "how long to wait for the answer")
	return cmd
}

func (h *hand) health(ctx context.Context, c health) error {
	if c.timeout <= 0 {
		return misuse{fmt.Errorf("--timeout %s is no time to wait; 3s is usual", c.timeout)}
	}
	file, unread := h.configPath()
	address, err := config.OpsListen(file, h.settings(), h.sets)
	if unread == nil {
		unread = err
	}
	path, state := "/readyz", "ready"
	if c.live {
		path, state = "/livez", "alive"
	}
	if err := ask(ctx, address, path, c.timeout); err != nil {
		err = fmt.Errorf("not %s: %w", state, err)
		if unread != nil {
			err = fmt.Errorf("%w (server.ops_listen could not be looked up: %s)", err, strings.ReplaceAll(unread.Error(), "\n", "; "))
		}
		return err
	}
	_, err = fmt.Fprintln(h.stdout, state)
	return err
}

// ask is nil when the ops listener answers a path with 200.
func ask(ctx context.Context, address, path string, timeout time.Duration) error {
	if address == "" {
		return errors.New("server.ops_listen is empty, so there is nobody to ask; set it to an address that only this machine reaches, such as 127.0.0.1:5002")
	}
	network, host := "tcp", address // one without a host, or with a wildcard, is dialled on this machine
	if socket, ok := strings.CutPrefix(address, "unix:"); ok {
		network, host = "unix", socket
	} else if strings.HasPrefix(address, "systemd:") {
		return fmt.Errorf("server.ops_listen is %s, whose address systemd alone knows; give it a host and a port", address)
	} else if strings.HasSuffix(address, ":0") {
		return fmt.Errorf("server.ops_listen is %s, a port that is chosen at the start; give it a number", address)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{ // not the default one: no proxy of the environment stands between us
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, host)
		},
	}
	response, err := transport.RoundTrip(request)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s on %s does not answer within %s", path, address, timeout)
	case err != nil:
		return fmt.Errorf("%s on %s: %w", path, address, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 200))
		said := strings.Map(func(c rune) rune { // whoever has the port now must not steer a terminal
			if !unicode.IsPrint(c) {
				return '?'
			}
			return c
		}, response.Status+": "+strings.Join(strings.Fields(string(text)), " "))
		return fmt.Errorf("%s on %s answers %s", path, address, said)
	}
	return nil
}
