// Package kubernetes_test installs what deploy/ ships for Kubernetes in a real cluster of one node, and uses it.
package kubernetes_test

import (
	"os"
	"testing"

	"authserver/e2e/kubernetes/cluster"
)

// All share one cluster.
func TestKubernetes(t *testing.T) {
	if os.Getenv("KUBERNETES") == "" {
		t.Skip("make e2e-kubernetes runs these tests")
	}
	c := cluster.Start(t)
	_ = c
}
