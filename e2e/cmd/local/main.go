// Local runs authserver and a real registry next to each other on this machine:
// what is behind "make run". The first run sets everything up in one directory,
// later runs use what is there.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 40 * time.Second // longer than authserver takes to answer what is under way
	tailLines    = 20
)

type options struct {
	dir          string
	authserver   string // binaries
	registry     string
	authPort     int
	opsPort      int
	registryPort int
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "run", "directory for configuration, keys, images and logs")
	flag.StringVar(&o.authserver, "authserver", "bin/authserver", "the authserver binary")
	flag.StringVar(&o.registry, "registry", "e2e/.cache/bin/registry-3.1.2", "the registry binary")
	flag.IntVar(&o.registryPort, "registry-port", 5000, "port of the registry")
	flag.IntVar(&o.authPort, "auth-port", 5001, "port of the token endpoint")
	flag.IntVar(&o.opsPort, "ops-port", 5002, "port of health and metrics")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "local: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "local:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	if err := portsFree(o); err != nil {
		return err
	}
	if err := setUp(ctx, o, dir); err != nil {
		return interrupted(ctx, err)
	}

	// Ports may differ from those of the first run. The environment overrides
	// both configuration files, so that these never need to be rewritten.
	auth, err := start(dir, "authserver", []string{
		"AUTHSERVER_SERVER__LISTEN=" + address(o.authPort),
		"AUTHSERVER_SERVER__PUBLIC_URL=" + publicURL(o),
		"AUTHSERVER_SERVER__OPS_LISTEN=" + address(o.opsPort),
	}, o.authserver, "serve", "--config", filepath.Join(dir, "authserver.yaml"))
	if err != nil {
		return err
	}
	defer auth.stop()
	if err := auth.wait(ctx, fmt.Sprintf("http://localhost:%d/readyz", o.opsPort), http.StatusOK); err != nil {
		return interrupted(ctx, err)
	}

	registry, err := start(dir, "registry", []string{
		"OTEL_TRACES_EXPORTER=none", // version 3 sends traces to localhost:4318 unless told not to
		"REGISTRY_HTTP_ADDR=" + address(o.registryPort),
		"REGISTRY_AUTH_TOKEN_REALM=" + publicURL(o) + "/token",
	}, o.registry, "serve", filepath.Join(dir, "registry.yml"))
	if err != nil {
		return err
	}
	defer registry.stop()
	if err := registry.wait(ctx, fmt.Sprintf("http://localhost:%d/v2/", o.registryPort), http.StatusUnauthorized); err != nil {
		return interrupted(ctx, err)
	}

	printHelp(o)
	select {
	case <-ctx.Done():
		fmt.Println("\nStopping both.")
		return nil
	case <-auth.done:
		return auth.died()
	case <-registry.done:
		return registry.died()
	}
}

// interrupted turns a failure into success when it is the user who has cut things short.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Both listen on IPv4 loopback and are named "localhost" everywhere: several
// clients refuse a token server that is addressed by a loopback IP literal.
func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func publicURL(o options) string { return fmt.Sprintf("http://localhost:%d", o.authPort) }

func portsFree(o options) error {
	meant := map[int]string{}
	for _, p := range []struct {
		port           int
		what, variable string
	}{
		{o.registryPort, "the registry", "PORT"},
		{o.authPort, "the token endpoint", "AUTH_PORT"},
		{o.opsPort, "health and metrics", "OPS_PORT"},
	} {
		if other, taken := meant[p.port]; taken {
			return fmt.Errorf("port %d is meant for both %s and %s; choose another: make run %s=…", p.port, other, p.what, p.variable)
		}
		meant[p.port] = p.what
		// Another program may hold the port for IPv6 only, and "localhost" would
		// lead to it. An address that this machine does not have is free.
		for _, host := range []string{"127.0.0.1", "::1"} {
			listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(p.port)))
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("port %d, meant for %s, is taken by another program; choose another: make run %s=…", p.port, p.what, p.variable)
			}
			if err == nil {
				listener.Close()
			}
		}
	}
	return nil
}

// setUp makes what dir lacks. Files that exist are left as they are.
func setUp(ctx context.Context, o options, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "registry.yml")); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	fmt.Println("First run: setting up", o.dir)
	args := []string{"init", dir,
		"--service", "registry.local", "--public-url", publicURL(o),
		"--listen", address(o.authPort), "--ops-listen", address(o.opsPort), "-o", "json"}
	// A set-up of ours that was cut short is begun again; a configuration that somebody else made is not overwritten.
	begun := filepath.Join(dir, ".setting-up")
	if _, err := os.Stat(begun); err == nil {
		args = append(args, "--force")
	}
	if _, err := os.Stat(filepath.Join(dir, "authserver.yaml")); errors.Is(err, fs.ErrNotExist) {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(begun, nil, 0o600)); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, o.authserver, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("authserver init: %w\n%s", err, stderr.Bytes())
	}
	var made struct {
		Password string `json:"password"`
		Root     string `json:"root_certificate"`
		Issuer   string `json:"issuer"`
		Service  string `json:"service"`
	}
	if err := json.Unmarshal(out, &made); err != nil {
		return fmt.Errorf("reading what authserver init printed: %w", err)
	}
	root, err := filepath.Abs(made.Root)
	if err != nil {
		return err
	}
	if err := os.WriteFile(passwordFile(dir), []byte(made.Password+"\n"), 0o600); err != nil {
		return err
	}
	config := fmt.Sprintf(registryConfig, filepath.Join(dir, "registry-data"), address(o.registryPort),
		publicURL(o), made.Service, made.Issuer, root)
	// The last file: where it is, all the others are, too.
	if err := os.WriteFile(filepath.Join(dir, "registry.yml"), []byte(config), 0o644); err != nil {
		return err
	}
	if err := os.Remove(begun); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

const registryConfig = `version: 0.1
log:
  level: info
storage:
  filesystem:
    rootdirectory: %q
  delete:
    enabled: true
http:
  addr: %q # "make run" sets this and the realm below from its ports
auth:
  token:
    realm: "%s/token"
    service: %q
    issuer: %q
    rootcertbundle: %q
`

func passwordFile(dir string) string { return filepath.Join(dir, "admin-password") }

func printHelp(o options) {
	registry := fmt.Sprintf("localhost:%d", o.registryPort)
	fmt.Printf(`
Ready: registry %[1]s, token server %[2]s, metrics http://localhost:%[3]d/metrics
The password of admin is in %[4]s. In another terminal:

  docker login %[1]s -u admin

Then try:

  docker pull alpine && docker tag alpine %[1]s/admin/alpine
  docker push %[1]s/admin/alpine
  %[5]s user add alice --config %[6]s

Logs: %[7]s. Ctrl-C stops both.
`, registry, publicURL(o), o.opsPort, passwordFile(o.dir), o.authserver,
		filepath.Join(o.dir, "authserver.yaml"), filepath.Join(o.dir, "*.log"))
}

// A process is a server that this program has started.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended, for whatever reason
	err  error         // why; valid after done
}

func start(dir, name string, environment []string, binary string, args ...string) (*process, error) {
	log := filepath.Join(dir, name+".log")
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()

	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stdout, cmd.Stderr = file, file
	// A group of its own: Ctrl-C reaches this program only, which then stops the
	// registry first, while tokens can still be had.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &process{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// wait returns when url answers with status, or with the reason why it never will.
func (p *process) wait(ctx context.Context, url string, status int) error {
	client := http.Client{Timeout: time.Second}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("%s does not answer on %s after %s", p.name, url, startTimeout))
	defer cancel()
	for {
		if response, err := client.Get(url); err == nil {
			response.Body.Close()
			if response.StatusCode == status {
				return nil
			}
		}
		select {
		case <-p.done:
			return p.died()
		case <-ctx.Done():
			return fmt.Errorf("%w%s", context.Cause(ctx), p.tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (p *process) died() error {
	reason := "exit status 0"
	if p.err != nil {
		reason = p.err.Error()
	}
	return fmt.Errorf("%s has stopped: %s%s", p.name, reason, p.tail())
}

// tail is the end of the log, for an error message.
func (p *process) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return fmt.Sprintf("\nThe end of %s:\n  %s", p.log, strings.Join(lines, "\n  "))
}

func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.cmd.Process.Kill()
		<-p.done
	}
}
