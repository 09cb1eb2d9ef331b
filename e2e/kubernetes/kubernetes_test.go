// Package kubernetes_test installs what deploy/ ships for Kubernetes in a real cluster of one node, and uses it.
package kubernetes_test

import (
	"os"
	"testing"

	"authserver/e2e/harness"
	"authserver/e2e/kubernetes/cluster"
)

// image is the one that the overlays and the chart are told to run. It is put on the node, and nowhere else.
const image = "registry.example.com/tools/authserver:dev"

// What these pages tell their readers to type is typed.
const (
	walkPage      = "docs/kubernetes.md"
	kubeletPage   = "docs/clients/kubelet.md"
	kustomizePage = "deploy/kubernetes/README.md"
)

// All share one cluster.
func TestKubernetes(t *testing.T) {
	if os.Getenv("KUBERNETES") == "" {
		t.Skip("make e2e-kubernetes runs these tests")
	}
	c := cluster.Start(t)
	c.Import(t, harness.MakeProgram(t, image, "authserver", "var/lib/authserver", "run/authserver").Archive) // see deploy/Dockerfile
	for _, part := range []struct {
		name string
		run  func(*testing.T, *cluster.Cluster)
	}{
		{"single", single},
		{"ha", highlyAvailable},
		{"helm-single", helmSingle},
		{"helm-ha", helmHA},
		{"components", components},
		{"page", walk},
		{"kustomize-page", kustomize},
		{"kustomize-page-ha", kustomizeHA},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, c) })
	}
}
