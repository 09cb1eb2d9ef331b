package deploy_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// drain is what authserver takes at most between SIGTERM and its end, in seconds.
const drain = 35

// user is the user of the image.
const user = 65532

// hold checks what must be so of every set of objects, whoever has rendered it. Secrets, and ConfigMaps that are not
// among the objects, must be among those that the operator makes.
func (o objects) hold(t *testing.T, made ...string) {
	t.Helper()
	for _, p := range o.pods() {
		restricted(t, p)
		frugal(t, p)
		o.mounts(t, p, made)
	}
	o.selects(t)
	o.leads(t)
	o.survives(t)
}

// restricted asks Kubernetes' own checks.
func restricted(t *testing.T, p pod) {
	t.Helper()
	if result := podSecurity(p.meta, p.spec); !result.Allowed {
		t.Errorf("%s: %s", p.of, result.ForbiddenDetail())
	}
}

func podSecurity(meta metav1.ObjectMeta, spec corev1.PodSpec) policy.AggregateCheckResult {
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	return policy.AggregateCheckResults(podSecurityChecks.EvaluatePod(level, &meta, &spec))
}

var podSecurityChecks = func() policy.Evaluator {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(err)
	}
	return evaluator
}()

// frugal is what Pod Security does not look at.
func frugal(t *testing.T, p pod) {
	t.Helper()
	no := func(what string, v *bool) {
		t.Helper()
		if v == nil || *v {
			t.Errorf("%s: %s is not false", p.of, what)
		}
	}
	no("automountServiceAccountToken", p.spec.AutomountServiceAccountToken)
	no("enableServiceLinks", p.spec.EnableServiceLinks) // AUTHSERVER_* and REGISTRY_* are configuration
	for name, id := range map[string]*int64{
		"runAsUser": p.spec.SecurityContext.RunAsUser, "runAsGroup": p.spec.SecurityContext.RunAsGroup, "fsGroup": p.spec.SecurityContext.FSGroup,
	} {
		if id == nil || *id != user {
			t.Errorf("%s: %s is not %d", p.of, name, user)
		}
	}
	for _, c := range p.spec.Containers {
		if ro := c.SecurityContext.ReadOnlyRootFilesystem; ro == nil || !*ro {
			t.Errorf("%s: the root file system is writable", p.of)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: resources %+v", p.of, c.Resources)
		}
		for _, e := range c.Env {
			if name := strings.ToLower(e.Name); e.Value != "" && (strings.Contains(name, "password") || strings.Contains(name, "secret")) {
				t.Errorf("%s: %s stands in the manifest", p.of, e.Name)
			}
		}
		if !strings.ContainsAny(c.Image, ":@") {
			t.Errorf("%s: image %q", p.of, c.Image)
		}
	}
}

// mounts checks that volumes are there, are used, and come from something that is there or that the operator makes.
func (o objects) mounts(t *testing.T, p pod, made []string) {
	t.Helper()
	there := func(key string, optional *bool) {
		t.Helper()
		if o[key] == nil && !slices.Contains(made, key) && (optional == nil || !*optional) {
			t.Errorf("%s wants %s, which nobody makes", p.of, key)
		}
	}
	secret := func(what string, mode *int32) {
		t.Helper()
		if mode == nil || *mode != 0o440 {
			t.Errorf("%s: %s can be read by anybody", p.of, what)
		}
	}
	volumes := map[string]bool{}
	for _, v := range p.spec.Volumes {
		volumes[v.Name] = false
		switch {
		case v.Projected != nil:
			secret(v.Name, v.Projected.DefaultMode)
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					there("ConfigMap/"+s.ConfigMap.Name, s.ConfigMap.Optional)
				}
				if s.Secret != nil {
					there("Secret/"+s.Secret.Name, s.Secret.Optional)
				}
			}
		case v.Secret != nil:
			secret(v.Name, v.Secret.DefaultMode)
			there("Secret/"+v.Secret.SecretName, v.Secret.Optional)
		case v.ConfigMap != nil:
			there("ConfigMap/"+v.ConfigMap.Name, v.ConfigMap.Optional)
		case v.PersistentVolumeClaim != nil:
			there("PersistentVolumeClaim/"+v.PersistentVolumeClaim.ClaimName, nil)
		case v.EmptyDir == nil:
			t.Errorf("%s: volume %+v", p.of, v)
		}
	}
	for _, c := range p.spec.Containers {
		for _, m := range c.VolumeMounts {
			if _, ok := volumes[m.Name]; !ok {
				t.Errorf("%s mounts %s, which is no volume", p.of, m.Name)
			}
			volumes[m.Name] = true
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				there("Secret/"+e.ValueFrom.SecretKeyRef.Name, nil)
			}
		}
	}
	for name, used := range volumes {
		if !used {
			t.Errorf("%s: nothing mounts %s", p.of, name)
		}
	}
	if p.spec.ServiceAccountName != "default" {
		there("ServiceAccount/"+p.spec.ServiceAccountName, nil)
	}
}

// ports are the named ports of the pods that have these labels; none when there is no such pod.
func (o objects) ports(selector map[string]string) map[string]int32 {
	ports := map[string]int32{}
	for _, p := range o.pods() {
		if !labels.SelectorFromSet(selector).Matches(labels.Set(p.meta.Labels)) {
			continue
		}
		for _, c := range p.spec.Containers {
			for _, port := range c.Ports {
				ports[port.Name] = port.ContainerPort
			}
		}
	}
	return ports
}

// selects checks that what selects pods finds some, and the ports that it names.
func (o objects) selects(t *testing.T) {
	t.Helper()
	for _, s := range all[*corev1.Service](o) {
		ports := o.ports(s.Spec.Selector)
		for _, p := range s.Spec.Ports {
			if ports[p.TargetPort.StrVal] == 0 {
				t.Errorf("Service %s: no port %s in %v", s.Name, &p.TargetPort, ports)
			}
			if (p.TargetPort.StrVal == "ops") != (s.Spec.ClusterIP == corev1.ClusterIPNone) {
				t.Errorf("Service %s gives out %s", s.Name, &p.TargetPort)
			}
		}
	}
	for _, n := range all[*networkingv1.NetworkPolicy](o) {
		ports := o.ports(n.Spec.PodSelector.MatchLabels)
		if len(ports) == 0 {
			t.Errorf("NetworkPolicy %s selects nothing", n.Name)
		}
		for _, rule := range n.Spec.Ingress {
			for _, p := range rule.Ports {
				if p.Port.StrVal != "" && ports[p.Port.StrVal] == 0 {
					t.Errorf("NetworkPolicy %s: no port %s", n.Name, p.Port)
				}
				if p.Port.StrVal == "ops" && len(rule.From) == 0 {
					t.Errorf("NetworkPolicy %s: everybody may read profiles", n.Name)
				}
			}
		}
	}
	for _, d := range all[*appsv1.Deployment](o) {
		if !labels.SelectorFromSet(d.Spec.Selector.MatchLabels).Matches(labels.Set(d.Spec.Template.Labels)) {
			t.Errorf("Deployment %s does not select its own pods", d.Name)
		}
		for _, c := range d.Spec.Template.Spec.TopologySpreadConstraints {
			if !labels.SelectorFromSet(c.LabelSelector.MatchLabels).Matches(labels.Set(d.Spec.Template.Labels)) {
				t.Errorf("Deployment %s is spread over pods of another", d.Name)
			}
		}
	}
}

// leads checks that what comes from outside is led to ports that Services have.
func (o objects) leads(t *testing.T) {
	t.Helper()
	ports := func(service string) (names []string, numbers []int32) {
		for _, p := range named[*corev1.Service](t, o, service).Spec.Ports {
			names, numbers = append(names, p.Name), append(numbers, p.Port)
		}
		return names, numbers
	}
	for _, i := range all[*networkingv1.Ingress](o) {
		var hosts []string
		for _, tls := range i.Spec.TLS {
			hosts = append(hosts, tls.Hosts...)
		}
		for _, rule := range i.Spec.Rules {
			if !slices.Contains(hosts, rule.Host) || rule.Host == "" {
				t.Errorf("Ingress %s: %q without TLS", i.Name, rule.Host)
			}
			for _, path := range rule.HTTP.Paths {
				if names, _ := ports(path.Backend.Service.Name); !slices.Contains(names, path.Backend.Service.Port.Name) {
					t.Errorf("Ingress %s leads to port %s of %q", i.Name, path.Backend.Service.Port.Name, names)
				}
			}
		}
	}
	for _, r := range all[*gateway.HTTPRoute](o) {
		if len(r.Spec.Hostnames) == 0 || len(r.Spec.ParentRefs) == 0 {
			t.Errorf("HTTPRoute %s is for every host, or of no Gateway", r.Name)
		}
		for _, rule := range r.Spec.Rules {
			for _, backend := range rule.BackendRefs {
				if _, numbers := ports(string(backend.Name)); !slices.Contains(numbers, int32(*backend.Port)) {
					t.Errorf("HTTPRoute %s leads to port %d of %v", r.Name, *backend.Port, numbers)
				}
			}
		}
	}
	for _, h := range all[*autoscalingv2.HorizontalPodAutoscaler](o) {
		d := named[*appsv1.Deployment](t, o, h.Spec.ScaleTargetRef.Name)
		if d.Spec.Replicas != nil {
			t.Errorf("Deployment %s names %d replicas, and an upgrade would undo what was scaled", d.Name, *d.Spec.Replicas)
		}
	}
}

// survives checks what is lost when a pod of authserver goes: with several nothing, with one no more than it must be.
func (o objects) survives(t *testing.T) {
	t.Helper()
	d, c := o.server(t)
	if grace := d.Spec.Template.Spec.TerminationGracePeriodSeconds; grace == nil || *grace <= drain+5 {
		t.Errorf("terminationGracePeriodSeconds is not more than shutdown_delay and %d s", drain)
	}
	for path, probe := range map[string]*corev1.Probe{"/readyz": c.ReadinessProbe, "/livez": c.LivenessProbe, "/livez ": c.StartupProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != strings.TrimSpace(path) || probe.HTTPGet.Port != intstr.FromString("ops") {
			t.Errorf("no probe for %s on the ops port: %+v", path, probe)
		}
	}
	private := slices.ContainsFunc(d.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool {
		if v.PersistentVolumeClaim == nil {
			return v.EmptyDir != nil
		}
		claim, ours := o["PersistentVolumeClaim/"+v.PersistentVolumeClaim.ClaimName].(*corev1.PersistentVolumeClaim)
		return !ours || !slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteMany)
	})
	one := d.Spec.Replicas != nil && *d.Spec.Replicas <= 1
	switch s := d.Spec.Strategy; {
	case private && (!one || s.Type != appsv1.RecreateDeploymentStrategyType):
		t.Errorf("two pods of %s on one volume: %s", d.Name, s.Type)
	case !private && (s.Type != appsv1.RollingUpdateDeploymentStrategyType || s.RollingUpdate.MaxUnavailable.IntValue() != 0 || s.RollingUpdate.MaxSurge.IntValue() < 1):
		t.Errorf("an update of %s takes a pod away before there is another: %+v", d.Name, s)
	}
	budgets := all[*policyv1.PodDisruptionBudget](o)
	if one && len(budgets) > 0 {
		t.Error("one replica with a PodDisruptionBudget: its node can never be drained")
	}
	for _, b := range budgets {
		if !maps.Equal(b.Spec.Selector.MatchLabels, d.Spec.Selector.MatchLabels) {
			t.Errorf("PodDisruptionBudget %s is not for %s", b.Name, d.Name)
		}
	}
}

// The checks above would say so.
func TestPodSecurityRefusesCapabilities(t *testing.T) {
	d, _ := kustomized(t, "single").server(t)
	open := d.Spec.Template.Spec.DeepCopy()
	open.Containers[0].SecurityContext.Capabilities = nil
	if podSecurity(d.Spec.Template.ObjectMeta, *open).Allowed {
		t.Error("the checks allow capabilities")
	}
}
