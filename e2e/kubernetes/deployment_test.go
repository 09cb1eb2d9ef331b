package kubernetes_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"authserver/e2e/harness"
	"authserver/e2e/kubernetes/cluster"
)

// A deployment is an authserver in the cluster: a Deployment and a Service of one name.
type deployment struct {
	*cluster.Cluster
	namespace, name string
	selector        string // of its pods
}

// ns runs kubectl in the namespace; it has to succeed.
func (d deployment) ns(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	return d.Apply(t, stdin, append([]string{"-n", d.namespace}, args...)...)
}

// onEnd takes the deployment away when the test ends. When it has failed, what became of the pods is shown first.
func (d deployment) onEnd(t *testing.T, uninstall func()) {
	t.Helper()
	t.Cleanup(uninstall)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		d.Show(t)
		out, err := d.TryKubectl(t, "", "-n", d.namespace, "logs", "-l", d.selector, "--all-containers", "--prefix", "--tail=15")
		t.Logf("logs: %v\n%s", err, out)
	})
}

// rolledOut waits until every pod is the newest and Ready.
func (d deployment) rolledOut(t testing.TB) {
	t.Helper()
	began := time.Now()
	d.ns(t, "", "rollout", "status", "deployment/"+d.name, "--timeout=2m")
	t.Logf("rolled out after %s\n%s", since(began), d.ns(t, "", "get", "pods", "-o", "wide"))
}

// pods are those that have not been told to end.
func (d deployment) pods(t testing.TB) (living []corev1.Pod) {
	t.Helper()
	var list corev1.PodList
	d.Get(t, &list, "pods", "-n", d.namespace, "-l", d.selector)
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			living = append(living, pod)
		}
	}
	return living
}

// events are what the cluster has to say of the namespace.
func (d deployment) events(t testing.TB) string {
	t.Helper()
	return d.ns(t, "", "get", "events", "--sort-by=.lastTimestamp",
		"-o", "custom-columns=TYPE:.type,REASON:.reason,OBJECT:.involvedObject.name,COUNT:.count,MESSAGE:.message")
}

// exec runs authserver in a pod, or in deployment/NAME.
func (d deployment) exec(t testing.TB, in, stdin string, args ...string) string {
	t.Helper()
	return d.ns(t, stdin, append([]string{"exec", "-i", in, "--", "authserver"}, args...)...)
}

// service is the authserver behind the Service's address, which kube-proxy makes reachable.
func (d deployment) service(t testing.TB) *harness.Authserver {
	t.Helper()
	var service corev1.Service
	d.Get(t, &service, "service", "-n", d.namespace, d.name)
	d.Name(t, service.Spec.ClusterIP, "auth.example.com")
	return at("http://" + service.Spec.ClusterIP)
}

// at is an authserver with an address.
func at(url string) *harness.Authserver {
	return &harness.Authserver{URL: url, Service: "registry.example.com", Issuer: "auth.example.com"}
}

// grants reports whether a user is given all of a scope.
func grants(t testing.TB, a *harness.Authserver, user, password, scope string) bool {
	t.Helper()
	answer := a.Ask(t, user, password, a.Service, scope)
	return answer.Status == http.StatusOK && slices.Contains(strings.Fields(answer.Granted(t)), scope)
}

// overlays is a copy of deploy/kubernetes, to be changed as its users change theirs.
func overlays(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "kubernetes")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(harness.Root(t), "..", "deploy", "kubernetes"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// edit replaces a text that must be there.
func edit(t testing.TB, path, old, new string) {
	t.Helper()
	text := string(harness.ReadFile(t, path))
	if !strings.Contains(text, old) {
		t.Fatalf("%s has no %q", path, old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(text, old, new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// until waits for what takes the cluster a while, and returns how long it took.
func until(t testing.TB, what string, limit time.Duration, done func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !done() {
		if time.Since(began) > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return since(began)
}

func since(began time.Time) time.Duration { return time.Since(began).Round(100 * time.Millisecond) }
