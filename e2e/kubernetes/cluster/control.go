package cluster

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
	"testing"

	"authserver/e2e/harness"
)

// accounts are the API's clients. The kubelet is a node, and so may read only the Secrets of its own pods; kube-proxy has the
// role that it has everywhere. Everybody else is the administrator.
var accounts = []struct{ name, user, groups string }{
	{"admin", "admin", "system:masters"},
	{"kubelet", "system:node:" + nodeName, "system:nodes"},
	{"kube-proxy", "system:kube-proxy", ""},
}

// startControl starts what decides.
func (c *Cluster) startControl(t testing.TB) {
	t.Helper()
	start(t, "etcd", "--data-dir", filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380")

	key, tokens, certificates := filepath.Join(c.dir, "accounts.pem"), filepath.Join(c.dir, "tokens.csv"), filepath.Join(c.dir, "certificates")
	c.writeKey(t, key)
	list := ""
	for _, a := range accounts {
		token := rand.Text()
		list += token + "," + a.user + "," + a.user + `,"` + a.groups + "\"\n"
		write(t, c.kubeconfig(a.name), `apiVersion: v1
kind: Config
clusters: [{name: e2e, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: %[3]s, user: {token: %q}}]
contexts: [{name: e2e, context: {cluster: e2e, user: %[3]s}}]
current-context: e2e
`, api, filepath.Join(certificates, "apiserver.crt"), a.name, token)
	}
	write(t, tokens, "%s", list)
	c.Kubeconfig = c.kubeconfig("admin")

	server := start(t, "kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address="+Address, "--advertise-address="+Address, "--secure-port=6443",
		"--cert-dir="+certificates,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--service-cluster-ip-range="+services,
		"--token-auth-file="+tokens,
		"--authorization-mode=Node,RBAC",
		"--kubelet-preferred-address-types=InternalIP",
		"--enable-admission-plugins=NodeRestriction", // PodSecurity is one of the usual ones
		"--allow-privileged=false")
	server.Await(t, func() error {
		_, err := c.TryKubectl(t, "", "get", "--raw", "/readyz")
		return err
	})
	c.Kubectl(t, "create", "clusterrolebinding", "kube-proxy", "--clusterrole=system:node-proxier", "--user=system:kube-proxy")

	start(t, "kube-controller-manager",
		"--kubeconfig="+c.Kubeconfig, "--leader-elect=false", "--bind-address=127.0.0.1",
		"--service-account-private-key-file="+key, "--root-ca-file="+filepath.Join(certificates, "apiserver.crt"),
		"--use-service-account-credentials")
	start(t, "kube-scheduler",
		"--kubeconfig="+c.Kubeconfig, "--leader-elect=false", "--bind-address=127.0.0.1")
}

// start starts a program that lives as long as the cluster.
func start(t testing.TB, program string, args ...string) *harness.Process {
	t.Helper()
	p := harness.Start(t, nil, harness.Program(t, program), args...)
	t.Cleanup(func() { _ = p.Stop() }) // the status with which they end says nothing
	return p
}

func (c *Cluster) kubeconfig(account string) string {
	return filepath.Join(c.dir, account+".kubeconfig")
}

// writeKey makes the key that signs the tokens of service accounts.
func (c *Cluster) writeKey(t testing.TB, path string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, "%s", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}
