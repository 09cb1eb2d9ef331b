package deploy_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"authserver/e2e/harness"
)

// A running is the container of authserver that manifests describe, run by dockerd.
type running struct {
	docker
	name        string
	listen, ops string // localhost:PORT
	container   corev1.Container
	root        string
}

// runPod runs the container with the arguments, environment, files, modes, user and restrictions of the manifests. Only
// the ports are others, since dockerd has no network here but the host's.
func runPod(t *testing.T, d docker, name, listen, ops string, o objects, given files) running {
	t.Helper()
	deployment, c := o.server(t)
	spec := deployment.Spec.Template.Spec
	r := running{docker: d, name: name, listen: listen, ops: ops, container: c, root: o.rootfs(t, given)}
	args := []string{"run", "--detach", "--name", name, "--network", "host",
		"--user", fmt.Sprintf("%d:%d", *spec.SecurityContext.RunAsUser, *spec.SecurityContext.RunAsGroup),
		"--group-add", fmt.Sprint(*spec.SecurityContext.FSGroup),
		"--env", "AUTHSERVER_SERVER__LISTEN=" + r.listen, "--env", "AUTHSERVER_SERVER__OPS_LISTEN=" + r.ops,
	}
	if !*c.SecurityContext.AllowPrivilegeEscalation {
		args = append(args, "--security-opt", "no-new-privileges:true")
	}
	if *c.SecurityContext.ReadOnlyRootFilesystem {
		args = append(args, "--read-only")
	}
	for _, capability := range c.SecurityContext.Capabilities.Drop {
		args = append(args, "--cap-drop", string(capability))
	}
	for _, variable := range environment(t, c, given) {
		args = append(args, "--env", variable)
	}
	if err := os.Chmod(r.root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.VolumeMounts {
		mount := "type=bind,source=" + r.root + m.MountPath + ",target=" + m.MountPath
		if m.ReadOnly {
			mount += ",readonly"
		}
		args = append(args, "--mount", mount)
	}
	d.must("", slices.Concat(args, []string{image}, c.Args)...)
	r.await(name, "http://"+r.ops+c.StartupProbe.HTTPGet.Path, http.StatusOK)
	r.await(name, "http://"+r.ops+c.LivenessProbe.HTTPGet.Path, http.StatusOK)
	r.await(name, "http://"+r.ops+c.ReadinessProbe.HTTPGet.Path, http.StatusOK)
	return r
}

// authserver is "kubectl exec … -- authserver …".
func (r running) authserver(stdin string, args ...string) {
	r.t.Helper()
	r.must(stdin, slices.Concat([]string{"exec", "--interactive", r.name, "authserver"}, args)...)
}

// process checks what the kernel says of it.
func (r running) process(t *testing.T) {
	t.Helper()
	status := map[string]string{}
	for _, line := range strings.Split(string(harness.ReadFile(t, "/proc/"+r.inspect(r.name, "{{.State.Pid}}")+"/status")), "\n") {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.Join(strings.Fields(value), " ")
	}
	for key, want := range map[string]string{
		"Uid": "65532 65532 65532 65532", "Gid": "65532 65532 65532 65532", "CapEff": "0000000000000000", "NoNewPrivs": "1",
	} {
		if status[key] != want {
			t.Errorf("%s of the process is %q, want %q", key, status[key], want)
		}
	}
	t.Logf("the process: Uid %s, CapEff %s, NoNewPrivs %s, Seccomp %s, VmRSS %s", status["Uid"], status["CapEff"], status["NoNewPrivs"], status["Seccomp"], status["VmRSS"])
}

// overlays/single as it is shipped: the first user, a token, and the same root after a restart.
func kustomizeFlow(t *testing.T, d docker) {
	r := runPod(t, d, "kustomize", localhost(t), localhost(t), kustomized(t, "single"), nil)
	r.process(t)
	const password = "correct horse battery staple"
	r.authserver(password+"\n", "user", "add", "admin", "--password-stdin")
	token := func() {
		t.Helper()
		fetchToken(t, "http://"+r.listen, "admin", password, "registry.example.com", "repository:team/app:pull,push")
	}
	token()
	root := r.output("exec", r.name, "authserver", "key", "export")
	if !strings.HasPrefix(root, "-----BEGIN CERTIFICATE-----") {
		t.Errorf("key export: %s", root)
	}
	r.stop(r.name)

	// The volume has the keys and the account: what registries trust is still right.
	r.must("", "start", r.name)
	r.await(r.name, "http://"+r.ops+"/readyz", http.StatusOK)
	token()
	if again := r.output("exec", r.name, "authserver", "key", "export"); again != root {
		t.Error("there is another root certificate after a restart")
	}
	r.stop(r.name)
}
