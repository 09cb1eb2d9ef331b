package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"authserver/e2e/harness"
	"authserver/e2e/kubernetes/cluster"
)

const registry = "registry.example.com"

// startRegistry starts a registry 3.1.2 on the node, as registry.example.com, that trusts a root certificate.
func startRegistry(t *testing.T, c *cluster.Cluster, root string) {
	t.Helper()
	dir := t.TempDir()
	bundle, config := filepath.Join(dir, "root.crt"), filepath.Join(dir, "registry.yml")
	put(t, bundle, root)
	put(t, config, fmt.Sprintf(`version: 0.1
log: {level: info}
storage:
  filesystem: {rootdirectory: %q}
http: {addr: "%s:80"}
auth:
  token:
    realm: http://auth.example.com/token
    service: %s
    issuer: auth.example.com
    rootcertbundle: %q
`, filepath.Join(dir, "storage"), cluster.Address, registry, bundle))
	c.Name(t, cluster.Address, registry)
	c.Plain(t, registry)
	server := harness.Start(t, []string{"OTEL_TRACES_EXPORTER=none"}, harness.Program(t, "registry-3.1.2"), "serve", config)
	server.Await(t, func() error {
		response, err := http.Get("http://" + registry + "/v2/")
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("status %d", response.StatusCode)
		}
		return nil
	})
}

// push pushes an image that waits.
func push(t *testing.T, repository, user, password string) {
	t.Helper()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "config.json"), credentials(t, user, password))
	archive := harness.MakeProgram(t, registry+"/"+repository+":1", "pause").Archive
	harness.MustRun(t, []string{"DOCKER_CONFIG=" + dir}, "", harness.Program(t, "crane"), "push", "--insecure", archive, registry+"/"+repository+":1")
}

// credentials are a docker client's config.json.
func credentials(t *testing.T, user, password string) string {
	t.Helper()
	config, err := json.Marshal(map[string]any{"auths": map[string]any{registry: map[string]string{"username": user, "password": password}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(config)
}

// pulls makes the kubelet pull with the rights of an imagePullSecret, without, and as nobody.
func pulls(t *testing.T, c *cluster.Cluster, user, password string) {
	push(t, user+"/app", user, password)
	push(t, "public/app", "admin", adminPassword)

	const apps = "apps"
	c.Kubectl(t, "create", "namespace", apps)
	t.Cleanup(func() { c.Kubectl(t, "delete", "namespace", apps, "--timeout=1m") })
	d := deployment{Cluster: c, namespace: apps}
	d.ns(t, "", "create", "secret", "docker-registry", "pull", "--docker-server="+registry, "--docker-username="+user, "--docker-password="+password)
	d.ns(t, "", "create", "secret", "docker-registry", "mistaken", "--docker-server="+registry, "--docker-username="+user, "--docker-password=wrong")
	until(t, "a service account", 30*time.Second, func() bool {
		_, err := c.TryKubectl(t, "", "-n", apps, "get", "serviceaccount", "default")
		return err == nil
	})
	for _, pod := range []struct {
		name, image, secret string
		refused             string // the registry's or containerd's words in the event
	}{
		{"private", user + "/app:1", "pull", ""},
		{"private-without", user + "/app:1", "", "authorization failed"},
		{"private-mistaken", user + "/app:1", "mistaken", "401"},
		{"public", "public/app:1", "", ""},
	} {
		secret := ""
		if pod.secret != "" {
			secret = "imagePullSecrets: [{name: " + pod.secret + "}]"
		}
		d.ns(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  %s
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: %s/%s, imagePullPolicy: Always}]
`, pod.name, secret, registry, pod.image), "apply", "-f", "-")
		until(t, pod.name+" is pulled, or refused", time.Minute, func() bool {
			var got corev1.Pod
			c.Get(t, &got, "pod", "-n", apps, pod.name)
			if got.Status.Phase == corev1.PodRunning && pod.refused != "" {
				t.Fatalf("%s was pulled", pod.name)
			}
			for _, s := range got.Status.ContainerStatuses {
				if w := s.State.Waiting; w != nil && (w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff") {
					if pod.refused == "" {
						t.Fatalf("%s: %s: %s", pod.name, w.Reason, w.Message)
					}
					return strings.Contains(w.Message, pod.refused)
				}
			}
			return got.Status.Phase == corev1.PodRunning
		})
	}
	t.Logf("pulls\n%s\n%s", d.ns(t, "", "get", "pods"), d.events(t))
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
