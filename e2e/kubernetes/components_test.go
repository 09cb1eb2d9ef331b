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

// definitions are where modules have the kinds that are not Kubernetes' own.
var definitions = map[string]string{
	"github.com/cert-manager/cert-manager": "deploy/crds",
	"sigs.k8s.io/gateway-api":              "config/crd/standard",
}

// The API server takes every component with every overlay, by its own rules and by those that come with cert-manager and the
// Gateway API. Nothing is run. The Prometheus Operator's kinds are in no module: for those see ../deploy.
func components(t *testing.T, c *cluster.Cluster) {
	for module, folder := range definitions {
		dir := strings.TrimSpace(harness.MustRun(t, nil, "", "go", "list", "-m", "-f", "{{.Dir}}", module))
		files, err := filepath.Glob(filepath.Join(dir, folder, "*.io_*s.yaml"))
		if err != nil || len(files) < 4 {
			t.Fatalf("%s has %d definitions: %v", module, len(files), err)
		}
		c.Kubectl(t, append([]string{"apply", "--server-side", "-f"}, strings.Split(strings.Join(files, " -f "), " ")...)...)
	}
	c.Kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=1m")
	c.Kubectl(t, "apply", "-f", filepath.Join(overlays(t), "base", "namespace.yaml"))
	t.Cleanup(func() { c.Kubectl(t, "delete", "namespace", "authserver", "--timeout=1m") })

	taken := map[string]bool{"servicemonitor": true}
	for _, overlay := range []string{"single", "ha"} {
		for _, wayIn := range []string{"ingress", "gateway", "tls"} {
			names := []string{"networkpolicy", "certificate", "signing-certificate", wayIn}
			if overlay == "ha" {
				names = append(names, "autoscaling")
			}
			list := "components:\n"
			for _, name := range names {
				taken[name] = true
				list += "  - ../../components/" + name + "\n"
			}
			dir := filepath.Join(overlays(t), "overlays", overlay)
			kustomization := filepath.Join(dir, "kustomization.yaml")
			block := regexp.MustCompile(`(?m)^components:\n( .*\n)+`)
			put(t, kustomization, block.ReplaceAllString(string(harness.ReadFile(t, kustomization)), list))
			t.Logf("%s with %v\n%s", overlay, names, c.Kubectl(t, "apply", "-k", dir, "--dry-run=server"))
		}
	}
	folders, err := os.ReadDir(filepath.Join(overlays(t), "components"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if !taken[folder.Name()] {
			t.Errorf("nothing takes components/%s", folder.Name())
		}
	}
}
