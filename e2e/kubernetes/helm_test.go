package kubernetes_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"authserver/e2e/harness"
	"authserver/e2e/kubernetes/cluster"
)

// restricted makes a namespace in which Pod Security is enforced, for a release of the chart of the same name.
func restricted(t *testing.T, c *cluster.Cluster, name string) deployment {
	t.Helper()
	c.Kubectl(t, "create", "namespace", name)
	c.Kubectl(t, "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
	d := deployment{c, name, name + "-authserver", "app.kubernetes.io/component=server"}
	if strings.Contains(name, "authserver") {
		d.name = name
	}
	d.onEnd(t, func() { c.Kubectl(t, "delete", "namespace", name, "--timeout=2m") })
	refusesUnrestricted(t, d)
	return d
}

// helm runs helm on the release, and returns what it printed.
func (d deployment) helm(t *testing.T, verb string, args ...string) string {
	t.Helper()
	home := t.TempDir()
	environment := append(d.Environment(t), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	began := time.Now()
	out := harness.MustRun(t, environment, "", harness.Program(t, "helm"), append([]string{verb, d.namespace, "-n", d.namespace}, args...)...)
	t.Logf("helm %s took %s", verb, since(began))
	return out
}

// chart is where the chart is, and a file with values for it.
func chart(t *testing.T, values string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	repository, tag, _ := strings.Cut(image, ":")
	put(t, file, fmt.Sprintf(`
image: {repository: %s, tag: %s}
allowPlainHTTP: true # in front of a test stands no Ingress
config:
  server: {public_url: "http://auth.example.com"}
  issuer: {name: auth.example.com}
  services: [{name: %s}]
`, repository, tag, registry)+values)
	return []string{filepath.Join(harness.Root(t), "..", "deploy", "helm", "authserver"), "--values", file, "--wait", "--timeout", "2m"}
}

// The chart with its registry, from nothing to an image that is pulled; users in a file, which changes while it runs.
func helmSingle(t *testing.T, c *cluster.Cluster) {
	const registryImage = "docker.io/library/registry:3"
	c.Import(t, harness.MakeProgram(t, registryImage, "registry-3.1.2").Archive)
	volume(t, c, "helm-data", "1Gi")
	volume(t, c, "helm-registry", "20Gi")
	d := restricted(t, c, "authserver")

	users := t.TempDir()
	file := filepath.Join(users, "users.htpasswd")
	put(t, file, "")
	put(t, filepath.Join(users, "policy.yaml"), "rules: []\n")
	put(t, filepath.Join(users, "authserver.yaml"), fmt.Sprintf(`
server: {public_url: "https://auth.example.com"}
services: [{name: %s}]
users: [{kind: htpasswd, file: users.htpasswd}]
acl: {files: [policy.yaml]}
database: {url: none}
`, registry))
	add := func(name, password string) {
		t.Helper()
		harness.MustRun(t, nil, password+"\n", harness.Program(t, "authserver"), "user", "add", name, "--password-stdin",
			"--config", filepath.Join(users, "authserver.yaml"))
	}
	add("admin", adminPassword)
	add("alice", alicePassword)
	d.ns(t, "", "create", "secret", "generic", "authserver-users", "--from-file="+file)

	const values = `
users: {existingSecret: authserver-users}
registry: {enabled: true}
`
	arguments := chart(t, values)
	notes := d.helm(t, "install", slices.DeleteFunc(arguments, func(s string) bool { return s == "--wait" })...)
	t.Log(notes)
	d.rolledOut(t)
	d.follow(t, notes, "key export >", "create configmap")
	d.ns(t, "", "rollout", "status", "deployment/"+d.name+"-registry", "--timeout=2m")
	d.helm(t, "test")

	a := d.service(t)
	var service corev1.Service
	c.Get(t, &service, "service", "-n", d.namespace, d.name+"-registry")
	c.Name(t, service.Spec.ClusterIP, registry)
	c.Plain(t, registry)
	pulls(t, c, "alice", alicePassword)

	const scope = "repository:team/app:pull"
	before := d.pods(t)
	add("bob", bobPassword)
	d.ns(t, d.ns(t, "", "create", "secret", "generic", "authserver-users", "--from-file="+file, "--dry-run=client", "-o", "yaml"), "apply", "-f", "-")
	d.helm(t, "upgrade", chart(t, values+`
policy:
  groups: {team: [bob]}
  rules:
    - {name: team, subjects: ["group:team"], repositories: ["team/**"], actions: [pull]}
`)...)
	began := time.Now()
	until(t, "bob", 3*time.Minute, func() bool { return a.Ask(t, "bob", bobPassword, registry).Status == http.StatusOK })
	t.Logf("a Secret's edit let a user in after %s", since(began))
	until(t, "the new policy", 3*time.Minute, func() bool { return grants(t, a, "bob", bobPassword, scope) })
	t.Logf("helm upgrade changed a decision after %s", since(began))
	if after := d.pods(t); len(after) != 1 || after[0].UID != before[0].UID || after[0].Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the pod is another one, or was restarted:\n%s", d.ns(t, "", "get", "pods"))
	}

	d.helm(t, "uninstall", "--wait", "--cascade", "foreground")
	left := d.ns(t, "", "get", "all,configmaps,secrets,serviceaccounts,pvc,ingress,networkpolicies,pdb,hpa", "-o", "name")
	want := []string{
		"configmap/authserver-root", "configmap/kube-root-ca.crt", "secret/authserver-users", "serviceaccount/default",
		"persistentvolumeclaim/authserver", "persistentvolumeclaim/authserver-registry",
	}
	if got := strings.Fields(left); !slices.Equal(got, want) {
		t.Errorf("helm uninstall has left\n%s", left)
	}
	t.Logf("left after helm uninstall\n%s", left)
}

// follow runs the commands of NOTES.txt that hold one of these words, in a folder of their own.
func (d deployment) follow(t *testing.T, notes string, words ...string) {
	t.Helper()
	dir := t.TempDir()
	for _, word := range words {
		found := false
		for line := range strings.Lines(notes) {
			command := strings.TrimSpace(line)
			if !strings.HasPrefix(command, "kubectl ") || !strings.Contains(command, word) {
				continue
			}
			found = true
			out := harness.MustRun(t, append(d.Environment(t), "DIR="+dir), "", "/bin/sh", "-c", `cd "$DIR" && `+command)
			t.Logf("$ %s\n%s", command, out)
		}
		if !found {
			t.Errorf("NOTES have no command with %q", word)
		}
	}
}

// The chart with three replicas on PostgreSQL: upgrades and rollbacks that nobody notices.
func helmHA(t *testing.T, c *cluster.Cluster) {
	d := restricted(t, c, "release")
	key := make([]byte, 32)
	rand.Read(key)
	d.ns(t, "", "create", "secret", "generic", "keys", "--from-literal=encryption.key="+base64.StdEncoding.EncodeToString(key))
	values := fmt.Sprintf(`
replicaCount: 3
database: {url: %q}
keys: {existingSecret: keys}
`, postgres(t))
	d.helm(t, "install", chart(t, values)...)
	d.rolledOut(t)
	if n := len(d.pods(t)); n != 3 {
		t.Fatalf("%d pods", n)
	}
	d.exec(t, "deployment/"+d.name, alicePassword+"\n", "user", "add", "alice", "--password-stdin")
	d.helm(t, "test")
	a := d.service(t)
	under(t, "helm upgrade", a, "alice", alicePassword, func() {
		d.helm(t, "upgrade", chart(t, values+"podAnnotations: {changed: once}\n")...)
	})
	under(t, "helm rollback", a, "alice", alicePassword, func() {
		d.helm(t, "rollback", "1", "--wait", "--timeout", "2m")
	})
	d.helm(t, "uninstall", "--wait", "--cascade", "foreground")
	left := d.ns(t, "", "get", "all,configmaps,secrets,serviceaccounts,pvc,ingress,networkpolicies,pdb,hpa", "-o", "name")
	if got := strings.Fields(left); !slices.Equal(got, []string{"configmap/kube-root-ca.crt", "secret/keys", "serviceaccount/default"}) {
		t.Errorf("helm uninstall has left\n%s", left)
	}
}
