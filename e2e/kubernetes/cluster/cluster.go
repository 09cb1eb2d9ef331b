// Package cluster starts a Kubernetes of one node: etcd, API server, controller manager, scheduler, containerd, kubelet,
// kube-proxy and CoreDNS, all of them the real programs. It runs in what isolated.sh gives it, so addresses and ports are always the same
// and two clusters do not meet.
package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

const (
	// Address is the node's. The registry, PostgreSQL and whatever else the tests start listen there.
	Address  = "10.0.0.1"
	pods     = "10.244.0.0/16"
	services = "10.96.0.0/16"
	api      = "https://" + Address + ":6443"
	nodeName = "node"
)

// A Cluster is a running one.
type Cluster struct {
	Kubeconfig string // of its administrator
	dir        string
	group      string // the control group of its pods
	containerd string // its socket
}

// Start starts a cluster, and waits until its node is ready. It is stopped when the test ends; what each program said last
// is shown when the test has failed.
func Start(t testing.TB) *Cluster {
	t.Helper()
	group := os.Getenv("KUBERNETES")
	if !strings.HasPrefix(group, "authserver-kubernetes-") {
		t.Fatal("a cluster runs in a world of its own: use e2e/kubernetes.sh")
	}
	c := &Cluster{dir: harness.ShortTempDir(t), group: group}
	began := time.Now()
	c.startControl(t)
	t.Logf("API server, controller manager and scheduler after %s", since(began))
	c.startNode(t)
	t.Logf("node ready after %s\n%s", since(began), c.Kubectl(t, "get", "nodes", "-o", "wide"))
	return c
}

// Show is what somebody would look at first.
func (c *Cluster) Show(t testing.TB) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
	} {
		out, err := c.TryKubectl(t, "", args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Environment is what kubectl and helm need to talk to this cluster. The programs that the tests have built come first.
func (c *Cluster) Environment(t testing.TB) []string {
	t.Helper()
	return []string{
		"KUBECONFIG=" + c.Kubeconfig,
		"PATH=" + filepath.Join(harness.Root(t), ".cache", "bin") + ":" + os.Getenv("PATH"),
	}
}

// TryKubectl runs kubectl and returns what it printed.
func (c *Cluster) TryKubectl(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	return harness.Run(t, c.Environment(t), stdin, harness.Program(t, "kubectl"), args...)
}

// Kubectl runs kubectl, which has to succeed.
func (c *Cluster) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return c.Apply(t, "", args...)
}

// Apply is Kubectl with an input.
func (c *Cluster) Apply(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := c.TryKubectl(t, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Get reads objects, as in Get(t, &pods, "pods", "-n", "authserver").
func (c *Cluster) Get(t testing.TB, into any, args ...string) {
	t.Helper()
	if err := c.TryGet(t, into, args...); err != nil {
		t.Fatal(err)
	}
}

// TryGet is Get of what may not be there.
func (c *Cluster) TryGet(t testing.TB, into any, args ...string) error {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(harness.Program(t, "kubectl"), append([]string{"get", "-o", "json"}, args...)...)
	cmd.Env = append(os.Environ(), c.Environment(t)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("kubectl get %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return json.Unmarshal(stdout.Bytes(), into)
}

// Import gives the node an image, as written by "docker save".
func (c *Cluster) Import(t testing.TB, archive string) {
	t.Helper()
	harness.MustRun(t, nil, "", harness.Program(t, "ctr"), "-a", c.containerd, "-n", "k8s.io", "images", "import", archive)
}

// Name gives an address a name that the node knows, and not the pods. A name has one address: the last.
func (c *Cluster) Name(t testing.TB, address, name string) {
	t.Helper()
	const hosts = "/etc/hosts" // this cluster's own: see isolated.sh
	var lines strings.Builder
	for line := range strings.Lines(string(harness.ReadFile(t, hosts))) {
		if !slices.Contains(strings.Fields(line), name) {
			lines.WriteString(line)
		}
	}
	fmt.Fprintf(&lines, "%s %s\n", address, name)
	if err := os.WriteFile(hosts, []byte(lines.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Plain says that the node is to speak plain HTTP with a registry.
func (c *Cluster) Plain(t testing.TB, registry string) {
	t.Helper()
	write(t, filepath.Join(c.registries(), registry, "hosts.toml"), "server = %q\n[host.%[1]q]\ncapabilities = [\"pull\", \"resolve\"]\n", "http://"+registry)
}

func (c *Cluster) registries() string { return filepath.Join(c.dir, "registries") }

func since(began time.Time) time.Duration { return time.Since(began).Round(100 * time.Millisecond) }

func write(t testing.TB, path, format string, args ...any) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
}
