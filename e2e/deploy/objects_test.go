package deploy_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"authserver/e2e/harness"
)

// scheme is every kind that deploy/ may hold; another one fails.
var scheme = func() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme, autoscalingv2.AddToScheme,
		monitoring.AddToScheme, certmanager.AddToScheme, gateway.Install,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return scheme
}()

// decode reads one manifest as the API server does with fieldValidation=Strict: a field that its type does not have is
// an error, and so is one that is there twice.
func decode(manifest []byte) (runtime.Object, error) {
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	object, _, err := decoder.Decode(manifest, nil, nil)
	return object, err
}

// objects are what is applied to a cluster, by kind/name.
type objects map[string]metav1.Object

// parse reads a stream of manifests.
func parse(t testing.TB, stream []byte) objects {
	t.Helper()
	o := objects{}
	documents := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(stream)))
	defer documents.Close()
	for {
		manifest := make([]byte, 1<<20)
		n, err := documents.Read(manifest)
		if err == io.EOF {
			return o
		}
		if err != nil {
			t.Fatal(err)
		}
		if manifest = manifest[:n]; len(bytes.TrimSpace(manifest)) > 0 {
			o.add(t, manifest)
		}
	}
}

func (o objects) add(t testing.TB, manifest []byte) {
	t.Helper()
	decoded, err := decode(manifest)
	if err != nil {
		t.Fatalf("%v in\n%s", err, manifest)
	}
	object := decoded.(metav1.Object)
	key := decoded.GetObjectKind().GroupVersionKind().Kind + "/" + object.GetName()
	if o[key] != nil {
		t.Errorf("%s is there twice", key)
	}
	o[key] = object
}

// all are the objects of one type.
func all[T metav1.Object](o objects) []T {
	var found []T
	for _, object := range o {
		if typed, ok := object.(T); ok {
			found = append(found, typed)
		}
	}
	return found
}

// named is an object of a type.
func named[T metav1.Object](t testing.TB, o objects, name string) T {
	t.Helper()
	for _, object := range all[T](o) {
		if object.GetName() == name {
			return object
		}
	}
	var none T
	t.Fatalf("there is no %T %q", none, name)
	return none
}

// A pod is what a Deployment, or a manifest of its own, makes the kubelet run.
type pod struct {
	of   string // kind/name
	meta metav1.ObjectMeta
	spec corev1.PodSpec
}

func (o objects) pods() []pod {
	var pods []pod
	for key, object := range o {
		switch object := object.(type) {
		case *appsv1.Deployment:
			pods = append(pods, pod{key, object.Spec.Template.ObjectMeta, object.Spec.Template.Spec})
		case *corev1.Pod:
			pods = append(pods, pod{key, object.ObjectMeta, object.Spec})
		}
	}
	return pods
}

// server is the Deployment of authserver, and its one container.
func (o objects) server(t testing.TB) (*appsv1.Deployment, corev1.Container) {
	t.Helper()
	for _, d := range all[*appsv1.Deployment](o) {
		if containers := d.Spec.Template.Spec.Containers; len(containers) == 1 && containers[0].Name == "authserver" {
			return d, containers[0]
		}
	}
	t.Fatal("there is no Deployment of authserver")
	return nil, corev1.Container{}
}

// config is the part of authserver.yaml that the manifests depend on.
func (o objects) config(t testing.TB) effective {
	t.Helper()
	d, _ := o.server(t)
	var config effective
	if err := yaml.Unmarshal([]byte(named[*corev1.ConfigMap](t, o, d.Name).Data["authserver.yaml"]), &config); err != nil {
		t.Fatal(err)
	}
	return config
}

func TestDecodingIsStrict(t *testing.T) {
	good := harness.ReadFile(t, shipped(t, "kubernetes", "base", "deployment.yaml"))
	if _, err := decode(good); err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]string{
		"unknown field":  strings.Replace(string(good), "readOnlyRootFilesystem", "readOnlyRootFileSystem", 1),
		"already set":    strings.Replace(string(good), "replicas: 3", "replicas: 3\n  replicas: 3", 1),
		"no kind":        strings.Replace(string(good), "apiVersion: apps/v1", "apiVersion: apps/v9", 1),
		"cannot unmarsh": strings.Replace(string(good), "replicas: 3", "replicas: three", 1),
	} {
		if _, err := decode([]byte(bad)); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, manifest := range []string{
		"apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: x}\nspec: {selector: {}, endpoints: [{prot: ops}]}",
		"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: x}\nspec: {secretName: x, issuerRef: {nmae: y}}",
		"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x}\nspec: {hostname: [x]}",
	} {
		if _, err := decode([]byte(manifest)); err == nil || !strings.Contains(err.Error(), "unknown field") {
			t.Errorf("%v: %s", err, manifest)
		}
	}
}

// names are the kind/name of every object.
func (o objects) names() []string {
	var names []string
	for key := range o {
		names = append(names, key)
	}
	return names
}
