// Command authserver is the token server for container registries: see authserver --help.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"authserver/internal/config"
)

// version is set by the build: -ldflags "-X main.version=…". So are the others where there is no repository to build from, as
// for the image; else Go itself knows them.
var version, revision, date = "dev", "unknown", "unknown"

// Exit statuses: done, no, misuse.
const (
	exitOK     = 0
	exitNo     = 1
	exitMisuse = 2
)

func main() {
	os.Exit(run(&hand{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()}, os.Args[1:]))
}

// hand is what a command has of the world, so that tests can hand it another.
type hand struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
	configFile     string
	sets           []string
	output         string // -o
}

// misuse is an error in how a command was called.
type misuse struct{ error }

// program is every command there is. started tells afterwards whether a command's own code was reached, so that what went
// wrong is no misuse.
func (h *hand) program(started *bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "authserver",
		Short: "Token server for container registries",
		Long: `authserver gives tokens to clients of a container registry (docker, containerd, podman, crane, …): the registry
sends them here, they log in, the policy decides, and the registry checks the signed token.

Start with:  authserver init DIR  &&  authserver serve --config DIR/authserver.yaml`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		*started = true
		if h.output != "text" && h.output != "json" {
			return misuse{fmt.Errorf("-o %s is not known; it is text or json", h.output)}
		}
		return nil
	}
	flags := root.PersistentFlags()
	flags.StringVar(&h.configFile, "config", "", "configuration file (default ./authserver.yaml, then /etc/authserver/authserver.yaml)")
	flags.StringArrayVar(&h.sets, "set", nil, "set a key of the configuration, as in --set log.level=debug (may be repeated)")
	root.AddCommand(
		h.initCommand(), h.serveCommand(), h.healthCommand(), h.doctorCommand(),
		h.configCommand(), h.aclCommand(), h.keyCommand(),
		h.userCommand(), h.groupCommand(), h.tokenCommand(), h.databaseCommand(),
		h.importCommand(), h.versionCommand(), h.manCommand(),
	)
	return root
}

// run is the program: it returns the exit status.
func run(h *hand, args []string) int {
	started := false
	root := h.program(&started)
	root.SetArgs(args)
	root.SetIn(h.stdin)
	root.SetOut(h.stdout)
	root.SetErr(h.stderr)
	h.output = "text"

	cmd, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(h.stderr, "authserver: %s\n", line)
	}
	var m misuse
	if !started || errors.As(err, &m) {
		fmt.Fprintf(h.stderr, "authserver: see \"%s --help\"\n", cmd.CommandPath())
		return exitMisuse
	}
	return exitNo
}

// printsData gives a command the flag -o.
func (h *hand) printsData(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&h.output, "output", "o", "text", "text or json")
	return cmd
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		_ = cmd.Help()
		return misuse{fmt.Errorf("%s needs a command", cmd.CommandPath())}
	}}
	cmd.AddCommand(commands...)
	return cmd
}

// configPath is the configuration file to read.
func (h *hand) configPath() (string, error) {
	if h.configFile != "" {
		return h.configFile, nil
	}
	const local, system = "authserver.yaml", "/etc/authserver/authserver.yaml"
	for _, file := range []string{local, system} {
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("there is neither ./%s nor %s; make one with \"authserver init\", or name it with --config", local, system)
}

func (h *hand) loadConfig() (*config.Config, error) {
	file, err := h.configPath()
	if err != nil {
		return nil, err
	}
	return config.Load(file, h.settings(), h.sets)
}

func (h *hand) versionCommand() *cobra.Command {
	return h.printsData(&cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := build()
			if h.output == "json" {
				return h.printJSON(b)
			}
			_, err := fmt.Fprintf(h.stdout, "authserver %s (revision %s of %s, %s, %s)\n", b.Version, b.Revision, b.Date, b.Go, b.Platform)
			return err
		},
	})
}

type buildInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Date     string `json:"date"` // of the revision: builds of one revision are equal
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func build() buildInfo {
	b := buildInfo{Version: version, Revision: revision, Date: date, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.time":
				b.Date = s.Value
			}
		}
	}
	return b
}
