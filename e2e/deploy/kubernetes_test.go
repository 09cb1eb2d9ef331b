package deploy_test

import (
	"bytes"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/intstr"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"authserver/e2e/harness"
)

// drain is what authserver takes at most between SIGTERM and its end, in seconds.
const drain = 35

// user is the user of the image.
const user = 65532

// decode reads one manifest as the API server does with fieldValidation=Strict: a field that its type does not have is
// an error, and so is one that is there twice.
func decode(manifest []byte) (runtime.Object, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if err := appsv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	object, _, err := decoder.Decode(manifest, nil, nil)
	return object, err
}

// manifests are the objects of a cluster.
type manifests struct {
	namespace  *corev1.Namespace
	account    *corev1.ServiceAccount
	config     *corev1.ConfigMap
	secret     *corev1.Secret
	claim      *corev1.PersistentVolumeClaim
	deployment *appsv1.Deployment
	service    *corev1.Service
}

func (m *manifests) add(t testing.TB, manifest []byte) metav1.Object {
	t.Helper()
	object, err := decode(manifest)
	if err != nil {
		t.Fatalf("%v in\n%s", err, manifest)
	}
	switch object := object.(type) {
	case *corev1.Namespace:
		m.namespace = object
	case *corev1.ServiceAccount:
		m.account = object
	case *corev1.ConfigMap:
		m.config = object
	case *corev1.Secret:
		m.secret = object
	case *corev1.PersistentVolumeClaim:
		m.claim = object
	case *appsv1.Deployment:
		m.deployment = object
	case *corev1.Service:
		m.service = object
	default:
		t.Fatalf("a %T", object)
	}
	return object.(metav1.Object)
}

// load reads every manifest file.
func load(t testing.TB) manifests {
	t.Helper()
	files, err := filepath.Glob(shipped(t, "kubernetes", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var m manifests
	for _, file := range files {
		if filepath.Base(file) != "kustomization.yaml" {
			m.add(t, harness.ReadFile(t, file))
		}
	}
	fields := reflect.ValueOf(m)
	for i := range fields.NumField() {
		if fields.Field(i).IsNil() {
			t.Fatalf("no manifest for %s", fields.Type().Field(i).Name)
		}
	}
	return m
}

// render is "kubectl kustomize".
func render(t testing.TB) manifests {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), shipped(t, "kubernetes"))
	if err != nil {
		t.Fatal(err)
	}
	var m manifests
	for _, resource := range made.Resources() {
		manifest, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object := m.add(t, manifest)
		if _, isNamespace := object.(*corev1.Namespace); !isNamespace && object.GetNamespace() != m.namespace.Name {
			t.Errorf("%s is in namespace %q", object.GetName(), object.GetNamespace())
		}
	}
	return m
}

func TestManifestsHaveNoUnknownField(t *testing.T) {
	load(t)

	// And the decoder would say so.
	good := harness.ReadFile(t, shipped(t, "kubernetes", "deployment.yaml"))
	bad := bytes.Replace(good, []byte("readOnlyRootFilesystem"), []byte("readOnlyRootFileSystem"), 1)
	if _, err := decode(bad); err == nil || !strings.Contains(err.Error(), "unknown field") {
		t.Errorf("a misspelt field: %v", err)
	}
}

func TestKustomizationRendersEverythingButTheUsers(t *testing.T) {
	m := render(t)
	if m.secret != nil {
		t.Error("the Secret is rendered: applying again would empty the users")
	}
	if m.account == nil || m.config == nil || m.claim == nil || m.deployment == nil || m.service == nil {
		t.Errorf("not everything is rendered: %+v", m)
	}
	if image := container(t, m).Image; !strings.Contains(image, "/") || !strings.Contains(image, ":") {
		t.Errorf("image %q has not been replaced", image)
	}
	if secret := load(t).secret; secret.Namespace != m.namespace.Name {
		t.Errorf("the Secret is for namespace %q, the rest for %q", secret.Namespace, m.namespace.Name)
	}
}

func container(t testing.TB, m manifests) corev1.Container {
	t.Helper()
	containers := m.deployment.Spec.Template.Spec.Containers
	if len(containers) != 1 {
		t.Fatalf("%d containers", len(containers))
	}
	return containers[0]
}

// Kubernetes' own checks say whether the pod is restricted.
func TestPodIsRestricted(t *testing.T) {
	m := render(t)
	for _, mode := range []string{"enforce", "warn"} {
		if level := m.namespace.Labels["pod-security.kubernetes.io/"+mode]; level != "restricted" {
			t.Errorf("the namespace's level to %s is %q", mode, level)
		}
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	template := m.deployment.Spec.Template
	evaluate := func(spec *corev1.PodSpec) policy.AggregateCheckResult {
		return policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &template.ObjectMeta, spec))
	}
	if result := evaluate(&template.Spec); !result.Allowed {
		t.Error(result.ForbiddenDetail())
	}
	open := template.Spec.DeepCopy()
	open.Containers[0].SecurityContext.Capabilities = nil
	if evaluate(open).Allowed {
		t.Error("the checks allow capabilities")
	}
}

// What Pod Security does not look at.
func TestPodHasNoMoreThanItNeeds(t *testing.T) {
	m := render(t)
	pod, c := m.deployment.Spec.Template.Spec, container(t, m)
	no := func(what string, p *bool) {
		t.Helper()
		if p == nil || *p {
			t.Errorf("%s is not false", what)
		}
	}
	no("the pod's automountServiceAccountToken", pod.AutomountServiceAccountToken)
	no("the account's automountServiceAccountToken", m.account.AutomountServiceAccountToken)
	no("enableServiceLinks", pod.EnableServiceLinks)
	if pod.ServiceAccountName != m.account.Name {
		t.Errorf("service account %q", pod.ServiceAccountName)
	}
	if ro := c.SecurityContext.ReadOnlyRootFilesystem; ro == nil || !*ro {
		t.Error("the root file system is writable")
	}
	for name, id := range map[string]*int64{
		"runAsUser": pod.SecurityContext.RunAsUser, "runAsGroup": pod.SecurityContext.RunAsGroup, "fsGroup": pod.SecurityContext.FSGroup,
	} {
		if id == nil || *id != user {
			t.Errorf("%s is not the image's %d", name, user)
		}
	}
	if len(c.Env)+len(c.EnvFrom) > 0 {
		t.Error("the environment is no place for secrets, and the configuration has a file")
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("resources %+v", c.Resources)
	}
	if grace := pod.TerminationGracePeriodSeconds; grace == nil || *grace <= drain {
		t.Errorf("terminationGracePeriodSeconds is not more than %d", drain)
	}
	// Two pods on one data folder of one node.
	if *m.deployment.Spec.Replicas != 1 || m.deployment.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		t.Errorf("%d replicas, strategy %q on a volume of mode %q", *m.deployment.Spec.Replicas, m.deployment.Spec.Strategy.Type, m.claim.Spec.AccessModes)
	}
}

// Names in one manifest that mean something in another, and in the configuration.
func TestManifestsFitTogether(t *testing.T) {
	m, secret := render(t), load(t).secret
	pod, c := m.deployment.Spec.Template.Spec, container(t, m)
	config := mounted(t, m).show(t)

	port := func(listen string) intstr.IntOrString {
		host, number, _ := strings.Cut(listen, ":")
		if host != "" {
			t.Errorf("listens on %q: the kubelet and the Service reach the pod's own address only", listen)
		}
		return intstr.Parse(number)
	}
	ports := map[string]intstr.IntOrString{}
	for _, p := range c.Ports {
		ports[p.Name] = intstr.FromInt32(p.ContainerPort)
	}
	if ports["http"] != port(config.Server.Listen) || ports["ops"] != port(config.Server.OpsListen) {
		t.Errorf("ports %v, but authserver listens on %s and %s", ports, config.Server.Listen, config.Server.OpsListen)
	}
	for path, probe := range map[string]*corev1.Probe{"/readyz": c.ReadinessProbe, "/livez": c.LivenessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "ops" {
			t.Errorf("no probe for %s on the ops port: %+v", path, probe)
		}
	}
	if s := m.service.Spec.Ports; len(s) != 1 || s[0].TargetPort.StrVal != "http" {
		t.Errorf("the Service must give out the port http and no other: %+v", s)
	}
	for name, selector := range map[string]map[string]string{"Deployment": m.deployment.Spec.Selector.MatchLabels, "Service": m.service.Spec.Selector} {
		for key, value := range selector {
			if m.deployment.Spec.Template.Labels[key] != value {
				t.Errorf("the %s selects %s=%s, which the pods do not have", name, key, value)
			}
		}
	}

	mounts := map[string]string{}
	for _, mount := range c.VolumeMounts {
		mounts[mount.Name] = mount.MountPath
	}
	if !slices.Contains(c.Args, mounts["config"]+"/authserver.yaml") {
		t.Errorf("the configuration is at %s, the arguments are %q", mounts["config"], c.Args)
	}
	if config.Issuer.DataDir != mounts["data"] {
		t.Errorf("data_dir is %s, the volume is at %s", config.Issuer.DataDir, mounts["data"])
	}
	for _, volume := range pod.Volumes {
		switch {
		case volume.Projected != nil:
			sources := volume.Projected.Sources
			if len(sources) != 2 || sources[0].ConfigMap.Name != m.config.Name || sources[1].Secret.Name != secret.Name {
				t.Errorf("sources of %s: %+v", volume.Name, sources)
			}
			if mode := volume.Projected.DefaultMode; mode == nil || *mode != 0o440 {
				t.Errorf("%s can be read by anybody", volume.Name)
			}
		case volume.PersistentVolumeClaim == nil || volume.PersistentVolumeClaim.ClaimName != m.claim.Name:
			t.Errorf("volume %s: %+v", volume.Name, volume)
		}
	}
}

// mounted is the folder that the pod sees as /etc/authserver, with users.
func mounted(t testing.TB, m manifests) folder {
	t.Helper()
	if len(m.config.Data) != 2 {
		t.Fatalf("the ConfigMap has %d files", len(m.config.Data))
	}
	return newFolder(t, []byte(m.config.Data["authserver.yaml"]), []byte(m.config.Data["policy.yaml"]))
}

func TestConfigMapPassesConfigCheck(t *testing.T) {
	mounted(t, render(t)).check(t)
}

// The Secret's form is a users file, and it lets nobody in.
func TestSecretHasNoUser(t *testing.T) {
	m := load(t)
	if len(m.secret.Data) != 0 || len(m.secret.StringData) != 1 {
		t.Fatalf("%d and %d files", len(m.secret.Data), len(m.secret.StringData))
	}
	f := mounted(t, m)
	write(t, filepath.Join(f.dir, "users.htpasswd"), []byte(m.secret.StringData["users.htpasswd"]), 0o600)
	f.check(t)
	if users := stdout(t, nil, harness.Program(t, "authserver"), "user", "list", "--config", f.config()); strings.TrimSpace(users) != "" {
		t.Errorf("users: %s", users)
	}
}
