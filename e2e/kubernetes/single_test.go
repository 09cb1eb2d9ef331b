package kubernetes_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/e2e/kubernetes/cluster"
)

const (
	adminPassword = "admin's own password"
	alicePassword = "alice's own password"
	bobPassword   = "bob's own password"
)

// overlays/single: accounts and keys on a volume; what may be changed without a restart.
func single(t *testing.T, c *cluster.Cluster) {
	dir := overlays(t)
	overlay := filepath.Join(dir, "overlays", "single")
	volume(t, c, "single", "1Gi")
	c.Kubectl(t, "apply", "-k", overlay)
	d := deployment{c, "authserver", "authserver", "app.kubernetes.io/name=authserver"}
	d.onEnd(t, func() { c.Kubectl(t, "delete", "-k", overlay, "--timeout=2m") })
	d.rolledOut(t)
	refusesUnrestricted(t, d)

	const in = "deployment/authserver"
	d.exec(t, in, adminPassword+"\n", "user", "add", "admin", "--password-stdin")
	d.exec(t, in, alicePassword+"\n", "user", "add", "alice", "--password-stdin")
	a := d.service(t)
	startRegistry(t, c, d.exec(t, in, "", "key", "export"))
	pulls(t, c, "alice", alicePassword)
	pullsByPage(t, c, "alice", alicePassword)

	const scope = "repository:team/app:pull"
	if grants(t, a, "alice", alicePassword, scope) {
		t.Errorf("alice has %s from the start", scope)
	}
	before := d.pods(t)
	edit(t, filepath.Join(dir, "base", "policy.yaml"), "rules:\n", `rules:
  - name: team
    subjects: ["user:alice"]
    repositories: ["team/**"]
    actions: [pull]

`)
	c.Kubectl(t, "apply", "-k", overlay)
	t.Logf("a ConfigMap's edit changed a decision after %s", until(t, "the new policy", 3*time.Minute, func() bool {
		return grants(t, a, "alice", alicePassword, scope)
	}))
	after := d.pods(t)
	if len(after) != 1 || after[0].UID != before[0].UID || after[0].Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the pod is another one, or was restarted:\n%s", d.ns(t, "", "get", "pods"))
	}

	// What was on the volume survives the pod.
	d.ns(t, "", "delete", "pod", before[0].Name)
	d.rolledOut(t)
	if !grants(t, a, "alice", alicePassword, scope) {
		t.Error("alice was lost with the pod")
	}
	t.Logf("events\n%s", d.events(t))
}

// volume makes the PersistentVolume that a provisioner would make.
func volume(t *testing.T, c *cluster.Cluster, name, size string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "volume")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65532, 65532); err != nil { // fsGroup does not reach a hostPath
		t.Fatal(err)
	}
	c.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: %s}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: %s}
  persistentVolumeReclaimPolicy: Retain
  hostPath: {path: %q, type: Directory}
`, name, size, dir), "apply", "-f", "-")
	t.Cleanup(func() { c.Kubectl(t, "delete", "pv", name, "--timeout=1m") })
	c.Kubectl(t, "wait", "--for=jsonpath={.status.phase}=Available", "pv/"+name, "--timeout=1m")
}

// refusesUnrestricted shows that Pod Security is enforced: a pod that does not ask for less than it is given is not let in.
func refusesUnrestricted(t *testing.T, d deployment) {
	t.Helper()
	out, err := d.TryKubectl(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: careless, namespace: %s}
spec: {containers: [{name: authserver, image: %s}]}
`, d.namespace, image), "apply", "-f", "-")
	if err == nil || !strings.Contains(out, `violates PodSecurity "restricted`) {
		t.Errorf("a careless pod was let in: %v\n%s", err, out)
	}
	t.Logf("a careless pod\n%s", out)
}
