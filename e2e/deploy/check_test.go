package deploy_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"authserver/e2e/harness"
)

// check asks authserver itself: the container's files, laid out as the manifests say, and its flags and environment, for
// "config check" and "acl lint". Where PostgreSQL is wanted it is a real one, at another address.
func (o objects) check(t *testing.T, given files) {
	t.Helper()
	root := o.rootfs(t, given)
	program(t, root)
	_, c := o.server(t)
	env := environment(t, c, given)
	if o.wantsPostgres(t) {
		env = append(env, "AUTHSERVER_DATABASE__URL="+harness.Database(t))
	}
	for _, command := range [][]string{{"config", "check"}, {"acl", "lint"}} {
		out, err := o.run(t, root, env, "", slices.Concat(command, flags(t, c))...)
		if err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
}

// What others keep, policies and users, does not replace the configuration, whatever else it holds.
func TestWhatIsOfOthersReplacesNoConfiguration(t *testing.T) {
	theirs := map[string]string{"authserver.yaml": "server: {listen: \":666\"}\n", "policy.yaml": "rules: []\n", "users.htpasswd": "\n"}
	for name, c := range map[string]struct {
		o            objects
		from, policy string
	}{
		"chart":     {o: chart(t, "existingPolicyConfigMap: theirs"), from: "ConfigMap/theirs", policy: theirs["policy.yaml"]},
		"kustomize": {o: kustomized(t, "single"), from: "Secret/authserver-users"},
	} {
		root := c.o.rootfs(t, files{c.from: theirs})
		want := map[string]string{"authserver.yaml": named[*corev1.ConfigMap](t, c.o, "authserver").Data["authserver.yaml"], "policy.yaml": c.policy}
		if c.policy == "" {
			want["policy.yaml"] = named[*corev1.ConfigMap](t, c.o, "authserver-policy").Data["policy.yaml"]
		}
		for file, text := range want {
			if got := string(harness.ReadFile(t, filepath.Join(root, "etc", "authserver", file))); got != text {
				t.Errorf("%s: %s of the pod is\n%s", name, file, got)
			}
		}
	}
}

// run runs a command of authserver in the container's place.
func (o objects) run(t testing.TB, root string, env []string, stdin string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("/authserver", args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", env, inside(root)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	err := cmd.Run()
	return out.String(), err
}

// wantsPostgres tells whether authserver.yaml, or a Secret in the environment, names a PostgreSQL.
func (o objects) wantsPostgres(t testing.TB) bool {
	t.Helper()
	_, c := o.server(t)
	for _, e := range c.Env {
		if e.Name == "AUTHSERVER_DATABASE__URL" {
			return true
		}
	}
	return strings.HasPrefix(o.config(t).Database.URL, "postgres")
}

// encryptionKey is what "openssl rand -base64 32" prints.
func encryptionKey(t testing.TB) string {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return base64.StdEncoding.EncodeToString(key) + "\n"
}

// selfSigned is a certificate that signs itself, and its key, as cert-manager writes them.
func selfSigned(t testing.TB) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "auth.example.com"}, DNSNames: []string{"auth.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", pkcs8)
}
