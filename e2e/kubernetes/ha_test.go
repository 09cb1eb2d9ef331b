package kubernetes_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"authserver/e2e/harness"
	"authserver/e2e/kubernetes/cluster"
)

// overlays/ha: three replicas on one PostgreSQL are one authserver, whatever becomes of one of them.
func highlyAvailable(t *testing.T, c *cluster.Cluster) {
	dir := overlays(t)
	overlay := filepath.Join(dir, "overlays", "ha")
	edit(t, filepath.Join(overlay, "authserver.yaml"),
		"postgres://authserver@postgres.example.com:5432/authserver?sslmode=verify-full", postgres(t))
	c.Kubectl(t, "apply", "-f", filepath.Join(dir, "base", "namespace.yaml"))
	d := deployment{c, "authserver", "authserver", "app.kubernetes.io/name=authserver"}
	d.onEnd(t, func() { c.Kubectl(t, "delete", "-k", overlay, "--timeout=2m") })
	d.ns(t, "", "create", "secret", "generic", "authserver-secrets",
		"--from-literal=database.password=not asked for", "--from-literal=encryption.key="+base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text())[:32]))
	c.Kubectl(t, "apply", "-k", overlay)
	d.rolledOut(t)

	pods := d.pods(t)
	if len(pods) != 3 {
		t.Fatalf("%d pods", len(pods))
	}
	d.exec(t, "pod/"+pods[0].Name, adminPassword+"\n", "user", "add", "admin", "--password-stdin")
	d.exec(t, "pod/"+pods[1].Name, alicePassword+"\n", "user", "add", "alice", "--password-stdin")
	a := d.service(t)
	root := d.exec(t, "pod/"+pods[0].Name, "", "key", "export")
	startRegistry(t, c, root)
	push(t, "alice/app", "alice", alicePassword)
	for _, pod := range pods {
		if other := d.exec(t, "pod/"+pod.Name, "", "key", "export"); other != root {
			t.Errorf("%s has another root certificate", pod.Name)
		}
		took := until(t, "alice in "+pod.Name, 10*time.Second, func() bool {
			return grants(t, replica(pod), "alice", alicePassword, "repository:alice/app:pull")
		})
		token := replica(pod).Token(t, "alice", alicePassword, registry, "repository:alice/app:pull")
		if status := manifest(t, "alice/app", token); status != http.StatusOK {
			t.Errorf("the registry does not take the token of %s: status %d", pod.Name, status)
		}
		t.Logf("%s, %s: alice after %s, its token is taken by the registry", pod.Name, pod.Status.PodIP, took)
	}

	under(t, "rolling update", a, "alice", alicePassword, func() {
		d.ns(t, "", "patch", "deployment", d.name, "-p", `{"spec":{"template":{"metadata":{"annotations":{"changed":"yes"}}}}}`)
		d.rolledOut(t)
		for _, pod := range d.pods(t) {
			if slices.ContainsFunc(pods, func(old corev1.Pod) bool { return old.UID == pod.UID }) {
				t.Errorf("%s was not replaced", pod.Name)
			}
		}
		d.gone(t, pods...)
	})
	under(t, "deletion of a pod", a, "alice", alicePassword, func() {
		pod := d.pods(t)[0]
		d.ns(t, "", "delete", "pod", pod.Name)
		d.rolledOut(t)
	})
	under(t, "eviction of a pod", a, "alice", alicePassword, func() {
		pods := d.pods(t)
		if out, err := d.evict(t, pods[0]); err != nil {
			t.Fatalf("eviction: %v\n%s", err, out)
		}
		out, err := d.evict(t, pods[1])
		if err == nil || !strings.Contains(out, "disruption budget") {
			t.Errorf("a second eviction at once: %v\n%s", err, out)
		}
		t.Logf("a second eviction at once: %s", out)
		d.gone(t, pods[0])
		d.rolledOut(t)
	})
	under(t, "SIGTERM on the node", a, "alice", alicePassword, func() {
		pod := d.pods(t)[0]
		d.signal(t, pod, syscall.SIGTERM)
		d.restarted(t, pod)
	})
	// Who dies cannot say goodbye: what was under way is lost, and what comes until the kubelet has noticed.
	var killed time.Time
	var last time.Duration
	for _, l := range lostUnder(t, "SIGKILL on the node", a, "alice", alicePassword, func() {
		pod := d.pods(t)[1]
		killed = time.Now()
		d.signal(t, pod, syscall.SIGKILL)
		d.restarted(t, pod)
	}) {
		last = l.at.Sub(killed)
	}
	t.Logf("the last of them after %s", last.Round(time.Millisecond))
	if last > 10*time.Second {
		t.Errorf("a dead process was asked for %s", last)
	}
	t.Logf("events\n%s", d.events(t))
}

// replica is the authserver in one pod.
func replica(pod corev1.Pod) *harness.Authserver { return at("http://" + pod.Status.PodIP + ":5001") }

// gone waits until pods have ended.
func (d deployment) gone(t testing.TB, pods ...corev1.Pod) {
	t.Helper()
	for _, pod := range pods {
		d.ns(t, "", "wait", "--for=delete", "pod/"+pod.Name, "--timeout=2m")
	}
}

// evict asks for a pod's eviction, as "kubectl drain" does.
func (d deployment) evict(t testing.TB, pod corev1.Pod) (string, error) {
	t.Helper()
	return d.TryKubectl(t, fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": %q}}`, pod.Name, d.namespace),
		"create", "--raw", "/api/v1/namespaces/"+d.namespace+"/pods/"+pod.Name+"/eviction", "-f", "-")
}

// signal sends a signal to the process of a pod's only container, behind Kubernetes' back.
func (d deployment) signal(t testing.TB, pod corev1.Pod, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(process(t, pod), signal); err != nil {
		t.Fatal(err)
	}
}

// restarted waits until the kubelet has started a pod's container again, for the first time.
func (d deployment) restarted(t testing.TB, pod corev1.Pod) {
	t.Helper()
	until(t, "the container is started again", time.Minute, func() bool {
		var now corev1.Pod
		d.Get(t, &now, "pod", "-n", d.namespace, pod.Name)
		return now.Status.ContainerStatuses[0].RestartCount == 1 && now.Status.ContainerStatuses[0].Ready
	})
}

// process is the process of a pod's only container, seen from the node.
func process(t testing.TB, pod corev1.Pod) int {
	t.Helper()
	id := strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "containerd://")
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range groups {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), id) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/cgroup", &pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	t.Fatalf("no process of %s", pod.Name)
	return 0
}

// manifest is the status with which the registry answers who has a token and wants the manifest of an image.
func manifest(t testing.TB, repository, token string) int {
	t.Helper()
	request, err := http.NewRequest("GET", "http://"+registry+"/v2/"+repository+"/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Accept", "application/vnd.docker.distribution.manifest.v2+json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// postgres is the address of a PostgreSQL for the pods. It listens on the node's loopback alone.
func postgres(t *testing.T) string {
	t.Helper()
	_, behind, _ := strings.Cut(harness.StartPostgres(t).URL, "@")
	target, rest, _ := strings.Cut(behind, "/")
	listener, err := net.Listen("tcp", cluster.Address+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer server.Close()
				go func() {
					defer server.Close()
					_, _ = io.Copy(server, client)
				}()
				_, _ = io.Copy(client, server)
			}()
		}
	}()
	return "postgres://authserver@" + listener.Addr().String() + "/" + rest
}
