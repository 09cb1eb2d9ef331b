// Bench measures authserver beside bare programs that do only what cannot be left out, on one machine in one run. It is
// what is behind "make bench". Servers, clients and attackers are processes of their own: this program, in other roles.
package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	sizes
	binary           string
	cost             int    // of bcrypt, of remembered users
	only             string // cases, "" = all
	set              list
	profile          string // file
	peer             string // NAME=URL
	peerUser         string
	peerPasswordFile string
}

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// A bench is one run.
type bench struct {
	options
	report
	ctx  context.Context // of all processes; done when the run is called off
	self string          // this program
	dir  string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	role := ""
	if len(args) > 0 {
		role = args[0]
	}
	switch {
	case role == "load" && len(args) == 1:
		return runLoad(os.Stdin, os.Stdout)
	case role == "limit" && len(args) == 3:
		return runLimit(args[1], args[2])
	case role == "bcrypt" && len(args) == 4:
		var numbers [3]int
		for i := range numbers {
			var err error
			if numbers[i], err = strconv.Atoi(args[1+i]); err != nil {
				return err
			}
		}
		return runBcrypt(os.Stdout, numbers[0], numbers[1], numbers[2])
	}
	return measure(args)
}

// measure is the role that starts the others.
func measure(args []string) error {
	b := bench{options: options{sizes: fullSizes}}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&b.binary, "authserver", "bin/authserver", "the authserver binary")
	flags.IntVar(&b.cost, "cost", 12, "bcrypt cost of remembered users")
	flags.StringVar(&b.only, "only", "", "cases, as in a,b,e (default all)")
	flags.Var(&b.set, "set", "key.path=value, laid over every authserver's configuration (may be repeated)")
	flags.StringVar(&b.profile, "profile", "", "write a CPU profile of authserver under ES256 to this file")
	flags.StringVar(&b.peer, "peer", os.Getenv("PEER"), "NAME=URL of another token endpoint that is running (PEER)")
	flags.StringVar(&b.peerUser, "peer-user", os.Getenv("PEER_USER"), "a user there (PEER_USER)")
	flags.StringVar(&b.peerPasswordFile, "peer-password-file", os.Getenv("PEER_PASSWORD_FILE"), "file with the user's password (PEER_PASSWORD_FILE)")
	quick := flags.Bool("quick", false, "a short run: the figures are rougher")
	requests := flags.Int("requests", 0, "requests that memory has to stay flat over (default 1000000, 100000 with -quick)")
	output := flags.String("o", "text", "text or json")
	svg := flags.String("svg", "", "draw a picture into this file")
	markdown := flags.String("markdown", "", "write the table into this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || strings.Trim(b.only, "abcdefgh,") != "" || *output != "text" && *output != "json" {
		return fmt.Errorf("called wrongly: %s; see -help", strings.Join(args, " "))
	}
	if *quick {
		b.sizes = quickSizes
	}
	if *requests > 0 {
		b.requests = *requests
	}
	if err := b.all(); err != nil {
		return err
	}

	if *output == "json" {
		b.writeJSON(os.Stdout)
	} else {
		b.writeText(os.Stdout)
	}
	for file, write := range map[string]func(*bytes.Buffer){
		*svg:      func(out *bytes.Buffer) { b.draw(out) },
		*markdown: func(out *bytes.Buffer) { b.writeMarkdown(out) },
	} {
		if file == "" {
			continue
		}
		var out bytes.Buffer
		write(&out)
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if n := len(b.Errors); n > 0 {
		return fmt.Errorf("%d errors", n)
	}
	return nil
}

// all does every case that is wanted. A case that fails does not keep the others from being done.
func (b *bench) all() (err error) {
	if b.binary, err = filepath.Abs(b.binary); err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if err := b.describe(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "authserver-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	var cancel context.CancelFunc
	b.ctx, cancel = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()

	begun := time.Now()
	for _, c := range []struct {
		names string
		do    func() error
	}{
		{"ab", b.againstLimit},
		{"c", b.besidePeer},
		{"d", b.firstLogins},
		{"e", b.disturbed},
		{"f", b.firstTokens},
		{"g", b.footprint},
		{"h", b.grown},
	} {
		if b.ctx.Err() != nil || b.only != "" && !strings.ContainsAny(b.only, c.names) {
			continue
		}
		if err := c.do(); err != nil {
			b.fail("case %s: %v", c.names, err)
		}
	}
	if b.ctx.Err() != nil {
		b.fail("called off")
	}
	b.Seconds = time.Since(begun).Seconds()
	return nil
}

// row takes a figure into the report.
func (b *bench) row(r row) {
	b.Rows = append(b.Rows, r)
	fmt.Fprintln(os.Stderr, strings.Join(r.cells(), "  "))
}

// fail takes what must not be into the report.
func (b *bench) fail(format string, args ...any) {
	b.Errors = append(b.Errors, fmt.Sprintf(format, args...))
	fmt.Fprintln(os.Stderr, "error:", b.Errors[len(b.Errors)-1])
}

// describe tells which program is measured where.
func (b *bench) describe() error {
	info, err := buildinfo.ReadFile(b.binary)
	if err != nil {
		return err
	}
	version, err := exec.Command(b.binary, "version").Output()
	if err != nil {
		return fmt.Errorf("%s version: %w", b.binary, err)
	}
	cpu := runtime.GOARCH
	text, _ := os.ReadFile("/proc/cpuinfo") // not every machine names its model
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			cpu = strings.TrimSpace(value)
			break
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	others, _, _ := strings.Cut(string(load), " ")
	b.Machine = fmt.Sprintf("%s, %d cores, Linux %s, %s, load of others %s", cpu, runtime.NumCPU(), bytes.TrimSpace(kernel), info.GoVersion, others)
	b.Authserver = string(bytes.TrimSpace(version))
	return nil
}

// start starts an authserver and waits until it is ready.
func (b *bench) start(s setup) (*target, error) {
	t, err := b.prepare(s)
	if err != nil {
		return nil, err
	}
	if err := t.serve(b.ctx); err != nil {
		return nil, err
	}
	return t, t.await(func() error { _, err := get("http://" + t.ops + "/readyz"); return err })
}

// stop stops a server, which must have been there until now.
func (b *bench) stop(server interface{ stop() error }) {
	if err := server.stop(); err != nil {
		b.fail("%v", err)
	}
}

// load does a job in a process of its own.
func (b *bench) load(j job) (outcome, error) {
	var o outcome
	input, err := json.Marshal(j)
	if err != nil {
		return o, err
	}
	output, err := b.role(bytes.NewReader(input), "load")
	if err != nil {
		return o, err
	}
	return o, json.Unmarshal(output, &o)
}

// bcryptRate is how many checks of a password are done in a second when nothing else is.
func (b *bench) bcryptRate(cost, parallel, checks int) (float64, error) {
	output, err := b.role(nil, "bcrypt", strconv.Itoa(cost), strconv.Itoa(parallel), strconv.Itoa(checks))
	if err != nil {
		return 0, err
	}
	took, err := time.ParseDuration(string(bytes.TrimSpace(output)))
	return float64(checks) / took.Seconds(), err
}

func (b *bench) role(input *bytes.Reader, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(b.ctx, b.self, args...)
	if input != nil {
		cmd.Stdin = input
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", args[0], err, stderr.Bytes())
	}
	return output, nil
}
