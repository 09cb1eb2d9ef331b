package deploy_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"authserver/e2e/harness"
)

// What a stranger does after "helm install", by the words of NOTES: the first user, the root certificate, the stanza in
// the configuration of a registry 3.1.2, login, push. The chart's container is run by dockerd, and so is the chart's own
// registry; "kubectl exec deploy/authserver" is "docker exec" here.
func chartFlow(t *testing.T, d docker) {
	listen, ops, existing, own := localhost(t), localhost(t), localhost(t), localhost(t)
	values := fmt.Sprintf(`allowPlainHTTP: true
config:
  server: {public_url: "http://%s", shutdown_delay: 1s}
  services: [{name: "%s"}, {name: "%s"}]
registry: {enabled: true, service: "%s"}
`, listen, existing, own, own)
	o, text := chart(t, values), notes(t, values)
	t.Logf("NOTES:\n%s", indented(text))
	r := runPod(t, d, "chart", listen, ops, o, nil)
	r.process(t)

	// 1. and 2.
	const password = "correct horse battery staple"
	dir := t.TempDir()
	for _, command := range noted(t, text, "kubectl -n registry-auth exec ") {
		if add, ok := strings.CutPrefix(command, "-it deploy/authserver -- authserver user add "); ok {
			r.authserver(password+"\n", "user", "add", add, "--password-stdin")
		} else if export, ok := strings.CutPrefix(command, "deploy/authserver -- authserver key export > "); ok {
			write(t, filepath.Join(dir, export), []byte(r.output("exec", r.name, "authserver", "key", "export")), 0o644)
		} else {
			t.Errorf("NOTES say %q", command)
		}
	}
	root := string(harness.ReadFile(t, filepath.Join(dir, "root.crt")))

	// The registry that is there already: NOTES' stanza in its configuration.
	config := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", t.TempDir(), existing) + stanzas(t, text)[existing]
	config = strings.Replace(config, "/etc/registry/root.crt", filepath.Join(dir, "root.crt"), 1)
	write(t, filepath.Join(dir, "config.yml"), []byte(config), 0o644)
	registry := harness.Start(t, []string{"OTEL_TRACES_EXPORTER=none"}, harness.Program(t, "registry-3.1.2"), "serve", filepath.Join(dir, "config.yml"))
	registry.Await(t, func() error { return answers("http://"+existing+"/v2/", http.StatusUnauthorized) })

	// The chart's own waits for the ConfigMap that NOTES tell to make.
	made := noted(t, text, "kubectl -n registry-auth create configmap ")
	if len(made) != 1 || made[0] != "authserver-root --from-file=root.crt=root.crt" {
		t.Errorf("NOTES say %q", made)
	}
	runRegistry(t, d, o, own, files{"ConfigMap/authserver-root": {"root.crt": root}})

	for _, login := range noted(t, text, "docker login ") {
		host, _, _ := strings.Cut(login, " ")
		if out, err := d.try("wrong\n", append([]string{"login"}, append(strings.Fields(login), "--password-stdin")...)...); err == nil {
			t.Errorf("a wrong password is taken: %s", out)
		}
		d.must(password+"\n", append([]string{"login"}, append(strings.Fields(login), "--password-stdin")...)...)
		name := host + "/team/hello"
		d.must("", "tag", image, name)
		d.must("", "push", name)
		d.must("", "rmi", name)
		d.must("", "pull", name)
		d.must("", "logout", host)
		if out, err := d.try("", "pull", name); err == nil || !strings.Contains(out, "denied") {
			t.Errorf("pulled without logging in: %v\n%s", err, out)
		}
	}

	// helm test, at the address that the Service for health would have.
	test := named[*corev1.Pod](t, o, "authserver-test").Spec.Containers[0]
	if len(test.Args) != 3 || test.Args[2] != "server.ops_listen=authserver-ops:5002" {
		t.Fatalf("%q", test.Args)
	}
	d.must("", "run", "--rm", "--network", "host", "--read-only", "--user", fmt.Sprint(user), image, test.Args[0], test.Args[1], "server.ops_listen="+ops)
	if out, err := d.try("", "run", "--rm", "--network", "host", image, test.Args[0], test.Args[1], "server.ops_listen="+localhost(t)); err == nil {
		t.Errorf("helm test finds nobody, and is content: %s", out)
	}
	d.must("", "rm", "--force", "chart-registry")
	r.stop(r.name)
}

// noted are the commands of NOTES that begin with these words, without them.
func noted(t testing.TB, notes, words string) []string {
	t.Helper()
	var commands []string
	for line := range strings.SplitSeq(notes, "\n") {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), words); ok {
			commands = append(commands, command)
		}
	}
	if len(commands) == 0 {
		t.Fatalf("NOTES do not say %s\n%s", words, notes)
	}
	return commands
}

// stanzas are those of NOTES, by the service that each names.
func stanzas(t testing.TB, notes string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, block := range regexp.MustCompile(`(?m)^ {5}auth:\n(?: {7}.*\n)+`).FindAllString(notes, -1) {
		var config struct {
			Auth struct {
				Token struct {
					Service string `json:"service"`
				} `json:"token"`
			} `json:"auth"`
		}
		text := regexp.MustCompile(`(?m)^ {5}`).ReplaceAllString(block, "")
		if err := yaml.Unmarshal([]byte(text), &config); err != nil {
			t.Fatal(err)
		}
		found[config.Auth.Token.Service] = text
	}
	return found
}

// runRegistry runs the container of the chart's registry.
func runRegistry(t *testing.T, d docker, o objects, host string, given files) {
	t.Helper()
	spec := registryOf(t, o)
	c := spec.Containers[0]
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, s := range spec.Volumes[0].Projected.Sources {
		if s.ConfigMap != nil {
			o.project(t, dir, "ConfigMap/"+s.ConfigMap.Name, s.ConfigMap.Items, nil, *spec.Volumes[0].Projected.DefaultMode, given)
		}
	}
	d.registryImage(c.Image)
	args := []string{"run", "--detach", "--name", "chart-registry", "--network", "host", "--read-only", "--user", fmt.Sprintf("%d:%d", user, user), "--cap-drop", "ALL",
		"--env", "REGISTRY_HTTP_ADDR=" + host, "--tmpfs", fmt.Sprintf("/var/lib/registry:uid=%d", user),
		"--mount", "type=bind,source=" + dir + ",target=" + c.VolumeMounts[0].MountPath + ",readonly"}
	for _, e := range c.Env {
		args = append(args, "--env", e.Name+"="+e.Value)
	}
	d.must("", slices.Concat(args, []string{c.Image}, c.Args)...)
	d.await("chart-registry", "http://"+host+c.ReadinessProbe.HTTPGet.Path, http.StatusOK)
	d.await("chart-registry", "http://"+host+"/v2/", http.StatusUnauthorized)
}

func registryOf(t testing.TB, o objects) corev1.PodSpec {
	t.Helper()
	for _, p := range o.pods() {
		if p.of == "Deployment/authserver-registry" {
			return p.spec
		}
	}
	t.Fatal("there is no registry")
	return corev1.PodSpec{}
}

// answers is nil when a server answers with a status.
func answers(url string, want int) error {
	code, err := status(url)
	if err == nil && code != want {
		err = fmt.Errorf("status %d", code)
	}
	return err
}

// What each kind of installation keeps nowhere but in PostgreSQL and Secrets is served from a read-only file system by
// the chart's arguments, environment and files.
func TestChartServesWithoutAVolume(t *testing.T) {
	given := chartSecrets(t)
	users, password := usersFile(t)
	given["Secret/people"]["users.htpasswd"] = string(users)
	for _, shape := range []struct{ name, values, scheme string }{
		{"postgres", postgres + "users: {existingSecret: people}", "http"},
		{"address in a Secret", "users: {existingSecret: people}\ndatabase: {existingSecret: cluster-app, urlKey: uri}\nkeys: {existingSecret: sealing}", "http"},
		{"stateless", "database: {url: none}\nusers: {existingSecret: people}\nkeys: {store: secret, existingSecret: signing}", "http"},
		{"TLS", postgres + "users: {existingSecret: people}\ntls: {enabled: true, existingSecret: web}", "https"},
	} {
		t.Run(shape.name, func(t *testing.T) {
			o := chart(t, shape.values)
			root := o.rootfs(t, given)
			program(t, root)
			_, c := o.server(t)
			listen, ops := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)) // nobody resolves names there
			env := append(environment(t, c, given), "AUTHSERVER_SERVER__LISTEN="+listen, "AUTHSERVER_SERVER__OPS_LISTEN="+ops, "AUTHSERVER_SERVER__SHUTDOWN_DELAY=0s")
			if o.wantsPostgres(t) {
				env = append(env, "AUTHSERVER_DATABASE__URL="+harness.Database(t))
			}
			who := fmt.Sprintf("--userspec=%d:%d", user, user)
			p := harness.Start(t, env, "chroot", slices.Concat([]string{who, "--groups=" + fmt.Sprint(user), root, "/authserver"}, c.Args)...)
			p.Await(t, func() error { return answers("http://"+ops+"/readyz", http.StatusOK) })
			fetchTokenBy(t, &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}},
				shape.scheme+"://"+listen, "admin", password, "registry.example.com", "repository:team/app:pull,push")
			if written, err := os.ReadDir(filepath.Join(root, "var", "lib", "authserver")); err != nil || len(written) > 0 {
				t.Errorf("written: %v %v", written, err)
			}
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
