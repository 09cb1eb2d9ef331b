package deploy_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"authserver/e2e/harness"
)

// kustomized is "kubectl kustomize" of an overlay, with the components that it ships with, or with those given.
func kustomized(t testing.TB, overlay string, components ...string) objects {
	t.Helper()
	dir := shipped(t, "kubernetes")
	if len(components) > 0 {
		dir = withComponents(t, dir, overlay, components)
	}
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(dir, "overlays", overlay))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := made.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, stream)
}

// withComponents is a copy of deploy/kubernetes whose overlay takes these components.
func withComponents(t testing.TB, from, overlay string, components []string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlays", overlay, "kustomization.yaml")
	var kustomization map[string]any
	if err := yaml.Unmarshal(harness.ReadFile(t, file), &kustomization); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, c := range components {
		paths = append(paths, "../../components/"+c)
	}
	kustomization["components"] = paths
	write(t, file, []byte(toYAML(t, kustomization)), 0o644)
	return dir
}

// kustomizeSecrets are what README.md of deploy/kubernetes tells to make.
func kustomizeSecrets(t testing.TB) files {
	t.Helper()
	certificate, key := selfSigned(t)
	users, _ := usersFile(t)
	return files{
		"Secret/authserver-secrets": {"encryption.key": encryptionKey(t), "database.password": "not asked for here\n"},
		"Secret/authserver-tls":     {"tls.crt": certificate, "tls.key": key},
		"Secret/authserver-signing": {"tls.crt": certificate, "tls.key": key, "ca.crt": certificate},
		"Secret/authserver-users":   {"users.htpasswd": string(users)},
	}
}

func TestOverlays(t *testing.T) {
	given := kustomizeSecrets(t)
	for overlay, want := range map[string][]string{
		"single": {"ConfigMap/authserver", "ConfigMap/authserver-policy", "Deployment/authserver", "Ingress/authserver", "Namespace/authserver", "NetworkPolicy/authserver",
			"PersistentVolumeClaim/authserver-data", "Service/authserver", "ServiceAccount/authserver"},
		"ha": {"ConfigMap/authserver", "ConfigMap/authserver-policy", "Deployment/authserver", "Ingress/authserver", "Namespace/authserver", "NetworkPolicy/authserver",
			"NetworkPolicy/authserver-database", "PodDisruptionBudget/authserver", "Service/authserver", "ServiceAccount/authserver"},
	} {
		t.Run(overlay, func(t *testing.T) {
			o := kustomized(t, overlay)
			if got := slices.Sorted(slices.Values(o.names())); !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			namespace := named[*corev1.Namespace](t, o, "authserver")
			for _, mode := range []string{"enforce", "audit", "warn"} {
				if level := namespace.Labels["pod-security.kubernetes.io/"+mode]; level != "restricted" {
					t.Errorf("the namespace's level to %s is %q", mode, level)
				}
			}
			for key, object := range o {
				if key != "Namespace/authserver" && object.GetNamespace() != "authserver" {
					t.Errorf("%s is in namespace %q", key, object.GetNamespace())
				}
				if _, secret := object.(*corev1.Secret); secret {
					t.Errorf("%s would be replaced whenever this is applied", key)
				}
			}
			o.hold(t, "Secret/authserver-secrets")
			o.check(t, given)
		})
	}
}

// Every overlay with every component, and with those that go together.
func TestComponents(t *testing.T) {
	given := kustomizeSecrets(t)
	var each []string
	folders, err := os.ReadDir(shipped(t, "kubernetes", "components"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		each = append(each, folder.Name())
	}
	if len(each) < 8 {
		t.Fatalf("components %q", each)
	}
	together := [][]string{
		{"networkpolicy", "ingress", "certificate", "servicemonitor"},
		{"networkpolicy", "gateway", "signing-certificate"},
		{"networkpolicy", "tls", "certificate", "signing-certificate", "servicemonitor"},
	}
	for _, overlay := range []string{"single", "ha"} {
		sets := slices.Clone(together)
		for _, c := range each {
			if c != "autoscaling" || overlay == "ha" { // several replicas of single are what it must not have
				sets = append(sets, []string{c})
			}
		}
		if overlay == "ha" {
			sets = append(sets, []string{"networkpolicy", "tls", "autoscaling", "certificate", "signing-certificate", "servicemonitor"})
		}
		for _, set := range sets {
			t.Run(overlay+"/"+strings.Join(set, "+"), func(t *testing.T) {
				o := kustomized(t, overlay, set...)
				var made []string
				for key := range given {
					if slices.Contains(set, "certificate") || slices.Contains(set, "tls") || key != "Secret/authserver-tls" {
						made = append(made, key)
					}
				}
				o.hold(t, made...)
				o.check(t, given)
			})
		}
	}
}

// What a stranger has to change is marked: no other line has a name that is only an example.
func TestWhatHasToBeChangedIsMarked(t *testing.T) {
	marked := 0
	err := fs.WalkDir(os.DirFS(shipped(t, "kubernetes")), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		for i, line := range bytes.Split(harness.ReadFile(t, shipped(t, "kubernetes", path)), []byte("\n")) {
			value, comment, _ := bytes.Cut(line, []byte("#"))
			switch isMarked := bytes.HasPrefix(comment, []byte(" CHANGE")); {
			case isMarked:
				marked++
			case bytes.Contains(value, []byte("example.com")):
				t.Errorf("%s:%d is not marked: %s", path, i+1, line)
			}
		}
		return nil
	})
	if err != nil || marked < 15 {
		t.Errorf("%d marked lines: %v", marked, err)
	}
}

// Both overlays and "authserver init" begin with the same policy.
func TestPolicyIsThatOfInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "auth")
	stdout(t, nil, harness.Program(t, "authserver"), "init", dir)
	if ours, its := sameYAML(t, harness.ReadFile(t, shipped(t, "kubernetes", "base", "policy.yaml"))), sameYAML(t, harness.ReadFile(t, filepath.Join(dir, "policy.yaml"))); ours != its {
		t.Errorf("%s\ninit's:\n%s", ours, its)
	}
}

// sameYAML is a document without comments and order.
func sameYAML(t testing.TB, text []byte) string {
	t.Helper()
	var v any
	if err := yaml.UnmarshalStrict(text, &v); err != nil {
		t.Fatal(err)
	}
	return toYAML(t, v)
}

// What deploy/kubernetes/README.md says of its files, without a cluster: "kubectl apply -f -" shows what it would be given.
func TestKubernetesReadme(t *testing.T) {
	root := filepath.Join(harness.Root(t), "..")
	for _, step := range harness.Documented(t, "deploy/kubernetes/README.md", "") {
		out := stdout(t, nil, "bash", "-euo", "pipefail", "-c", "cd "+root+"\n"+strings.Replace(step.Command, "kubectl apply -f -", "cat", 1))
		switch {
		case strings.HasPrefix(step.Command, "grep "):
			if n := strings.Count(out, "\n"); n < 10 {
				t.Errorf("%d lines are to be changed: %s", n, out)
			}
		default:
			exactly(t, parse(t, []byte(out)), "PrometheusRule/authserver")
		}
	}
}
