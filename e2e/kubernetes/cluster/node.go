package cluster

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"authserver/e2e/harness"
)

// pause is the image of every pod's first process. It is never pulled.
const pause = "localhost/pause:1"

// startNode starts what does as decided.
func (c *Cluster) startNode(t testing.TB) {
	t.Helper()
	t.Cleanup(func() { c.unmount(t) })
	c.startContainerd(t)
	c.Import(t, harness.MakeProgram(t, pause, "pause").Archive)

	config := filepath.Join(c.dir, "kubelet.yaml")
	write(t, config, `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: "unix://%[2]s"
cgroupDriver: cgroupfs
cgroupRoot: "/%[3]s"
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [%[1]s]
resolvConf: ""
volumePluginDir: "%[4]s/plugins"
# The machine's disk is not this node's to judge.
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
# As it is everywhere: when a changed ConfigMap arrives is measured.
syncFrequency: 1m
`, Address, c.containerd, c.group, c.dir)
	kubelet := start(t, "kubelet", "--config="+config, "--kubeconfig="+c.kubeconfig("kubelet"),
		"--root-dir="+filepath.Join(c.dir, "kubelet"), "--hostname-override="+nodeName, "--node-ip="+Address)

	config = filepath.Join(c.dir, "proxy.yaml")
	write(t, config, `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %q}
clusterCIDR: %q
hostnameOverride: %q
mode: iptables
# These are the machine's.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, c.kubeconfig("kube-proxy"), pods, nodeName)
	start(t, "kube-proxy", "--config="+config)

	config = filepath.Join(c.dir, "Corefile")
	write(t, config, `cluster.local {
	bind %s
	errors
	kubernetes cluster.local {
		kubeconfig %s
	}
}
`, Address, c.Kubeconfig)
	start(t, "coredns", "-conf", config)

	kubelet.Await(t, func() error {
		_, err := c.TryKubectl(t, "", "wait", "--for=condition=Ready", "node/"+nodeName, "--timeout=5s")
		return err
	})
}

// startContainerd starts it with a root, a state and a socket of its own, and one bridge for the pods.
func (c *Cluster) startContainerd(t testing.TB) {
	t.Helper()
	dir := filepath.Join(c.dir, "containerd")
	c.containerd = filepath.Join(dir, "socket")
	if err := os.MkdirAll(c.registries(), 0o755); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.toml")
	write(t, config, `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
  address = %[2]q
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true # a machine may not let us lower it
  sandbox_image = %[3]q
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "%[1]s/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %[4]q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = %[5]q
`, dir, c.containerd, pause, c.registries(), snapshotter(t))
	write(t, filepath.Join(dir, "cni", "pods.conflist"), `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": true, "hairpinMode": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }, {
    "type": "portmap", "capabilities": {"portMappings": true}
  }]
}
`, pods)
	ctr := harness.Program(t, "ctr")
	// Its containers outlive it: they are ended before it.
	containerd := start(t, "containerd", "--config", config)
	containerd.Await(t, func() error {
		_, err := os.Stat(c.containerd)
		return err
	})
	containerd.Await(t, func() error {
		_, err := harness.Run(t, nil, "", ctr, "-a", c.containerd, "version")
		return err
	})
	t.Cleanup(func() {
		out, err := harness.Run(t, nil, "", ctr, "-a", c.containerd, "-n", "k8s.io", "tasks", "list", "-q")
		if err != nil {
			t.Errorf("ctr tasks list: %v\n%s", err, out)
		}
		if tasks := strings.Fields(out); len(tasks) > 0 {
			// The end of a sandbox may take others along.
			_, _ = harness.Run(t, nil, "", ctr, append([]string{"-a", c.containerd, "-n", "k8s.io", "tasks", "rm", "-f"}, tasks...)...)
		}
	})
}

// snapshotter is overlayfs where it can be mounted, which is not so on top of another overlay.
func snapshotter(t testing.TB) string {
	dir := t.TempDir()
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(dir, "merged")
	options := "lowerdir=" + filepath.Join(dir, "lower") + ",upperdir=" + filepath.Join(dir, "upper") + ",workdir=" + filepath.Join(dir, "work")
	if err := syscall.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return "native"
	}
	if err := syscall.Unmount(merged, 0); err != nil {
		t.Fatal(err)
	}
	return "overlayfs"
}

// unmount takes away what containerd and the kubelet have mounted below the cluster's folder.
func (c *Cluster) unmount(t testing.TB) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
		return
	}
	defer file.Close()
	var points []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], c.dir+"/") {
			points = append(points, fields[4])
		}
	}
	slices.Reverse(points)
	for _, point := range points {
		if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", point, err)
		}
	}
}
