package kubernetes_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"authserver/e2e/harness"
	"authserver/e2e/kubernetes/cluster"
)

// A reader types what pages say, in a folder that has deploy/ as they changed it.
type reader struct {
	deployment
	dir  string
	here *strings.Replacer // what a page says, and what that is here
}

func newReader(t *testing.T, c *cluster.Cluster, here ...string) reader {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "deploy"), os.DirFS(filepath.Join(harness.Root(t), "..", "deploy"))); err != nil {
		t.Fatal(err)
	}
	return reader{deployment{c, "authserver", "authserver", "app.kubernetes.io/name=authserver"}, dir, strings.NewReplacer(here...)}
}

// follows types the commands of a part of a page. After each it does what is the reader's own business.
func (r reader) follows(t *testing.T, page, part string, after func(command string)) {
	t.Helper()
	for _, step := range harness.Documented(t, page, part) {
		out := harness.MustRun(t, append(r.Environment(t), "DIR="+r.dir), "", "bash", "-euo", "pipefail", "-c", `cd "$DIR"; `+r.here.Replace(step.Command))
		t.Logf("$ %s\n%s", step.Command, out)
		for line := range strings.Lines(step.Prints) {
			if line = strings.TrimSpace(line); line != "…" && !strings.Contains(out, line) {
				t.Errorf("%s: %s\nprints\n%snot %q", page, step.Command, out, line)
			}
		}
		after(step.Command)
	}
}

func (r reader) file(name string) string { return filepath.Join(r.dir, name) }

// The walk, from nothing to a pod whose image a kubelet has pulled, and then with several replicas.
func walk(t *testing.T, c *cluster.Cluster) {
	r := newReader(t, c, `tag: "1.0"`, "tag: dev", "https://auth", "http://auth", "config:\n", "allowPlainHTTP: true # no Ingress here\nconfig:\n")
	volume(t, c, "page", "1Gi")
	r.onEnd(t, func() {
		c.Kubectl(t, "delete", "namespace", "authserver", "apps", "--ignore-not-found", "--timeout=2m")
	})
	r.follows(t, walkPage, "page", func(command string) {
		switch {
		case strings.Contains(command, "> root.crt"): // the registry is set up, and somebody pushes
			r.service(t)
			startRegistry(t, c, string(harness.ReadFile(t, r.file("root.crt"))))
			push(t, "team/app", "admin", strings.TrimSpace(string(harness.ReadFile(t, r.file("admin.password")))))
		case strings.Contains(command, "create namespace apps"):
			c.Kubectl(t, "-n", "apps", "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
		}
	})
	t.Logf("events\n%s", deployment{Cluster: c, namespace: "apps"}.events(t))

	put(t, r.file("database.password"), "not asked for")
	r.follows(t, walkPage, "several", func(string) {})
	text := string(harness.ReadFile(t, filepath.Join(harness.Root(t), "..", walkPage)))
	values := regexp.MustCompile("(?s)```yaml\n# values.yaml\n(.*?)```").FindStringSubmatch(text)
	if values == nil {
		t.Fatalf("%s has no values.yaml", walkPage)
	}
	address := regexp.MustCompile(`postgres://\S+`)
	put(t, r.file("several.yaml"), address.ReplaceAllLiteralString(values[1], postgres(t)))
	out := harness.MustRun(t, r.Environment(t), "", harness.Program(t, "helm"), "upgrade", "authserver", r.file("deploy/helm/authserver"), "-n", r.namespace,
		"--values", r.file("values.yaml"), "--values", r.file("several.yaml"), "--wait", "--timeout", "3m")
	t.Log(out)
	if n := len(r.pods(t)); n < 3 {
		t.Errorf("%d pods", n)
	}
	root := r.exec(t, "deployment/authserver", "", "key", "export")
	if root == string(harness.ReadFile(t, r.file("root.crt"))) {
		t.Error("the root is that of the volume")
	}
	for _, pod := range r.pods(t) {
		if other := r.exec(t, "pod/"+pod.Name, "", "key", "export"); other != root {
			t.Errorf("%s has another root certificate", pod.Name)
		}
	}
}

// kustomize, one replica.
func kustomize(t *testing.T, c *cluster.Cluster) {
	r := newReader(t, c)
	volume(t, c, "kustomize-page", "1Gi")
	r.onEnd(t, func() { c.Kubectl(t, "delete", "-k", r.file("deploy/kubernetes/overlays/single"), "--timeout=2m") })
	harness.MustRun(t, nil, "", harness.Program(t, "authserver"), "init", r.file("init"))
	put(t, r.file("users.htpasswd"), string(harness.ReadFile(t, r.file("init/users.htpasswd"))))
	certificate, key := harness.NewCA(t).Issue(t, "auth.example.com")
	put(t, r.file("tls.crt"), string(harness.ReadFile(t, certificate)))
	put(t, r.file("tls.key"), string(harness.ReadFile(t, key)))
	r.follows(t, kustomizePage, "kustomize", func(string) {})
	r.rolledOut(t)
	password := strings.TrimSpace(string(harness.ReadFile(t, r.file("admin.password"))))
	if !grants(t, r.service(t), "admin", password, "repository:team/app:pull") {
		t.Error("admin gets no token")
	}
}

// kustomize, several.
func kustomizeHA(t *testing.T, c *cluster.Cluster) {
	r := newReader(t, c)
	put(t, r.file("database.password"), "not asked for")
	edit(t, r.file("deploy/kubernetes/overlays/ha/authserver.yaml"), "postgres://authserver@postgres.example.com:5432/authserver?sslmode=verify-full", postgres(t))
	r.onEnd(t, func() { c.Kubectl(t, "delete", "-k", r.file("deploy/kubernetes/overlays/ha"), "--timeout=2m") })
	r.follows(t, kustomizePage, "kustomize-ha", func(string) {})
	if n := len(r.pods(t)); n != 3 {
		t.Errorf("%d pods", n)
	}
}

// pullsByPage pulls as the kubelet's page says, in the namespace that is there from the start.
func pullsByPage(t *testing.T, c *cluster.Cluster, user, password string) {
	t.Helper()
	r := newReader(t, c)
	if err := os.Mkdir(r.file("pull"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, r.file("pull/config.json"), credentials(t, user, password))
	put(t, r.file("cluster.token"), password)
	r.follows(t, kubeletPage, "kubelet", func(string) {})
	c.Kubectl(t, "run", "app", "--image="+registry+"/"+user+"/app:1", "--image-pull-policy=Always")
	c.Kubectl(t, "wait", "--for=condition=Ready", "pod/app", "--timeout=1m")
	c.Kubectl(t, "delete", "pod", "app", "--now")
	c.Kubectl(t, "delete", "secret", "registry")
}
