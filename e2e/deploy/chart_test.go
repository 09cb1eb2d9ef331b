package deploy_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"

	"authserver/e2e/harness"
)

// kubeVersions are those that the chart is rendered for: its oldest, one between, and the newest.
var kubeVersions = []string{"1.27.0", "1.31.4", "1.34.2"}

// smallest are the values that have to be given.
const smallest = `
image: {repository: registry.example.com/tools/authserver, tag: dev}
config:
  server: {public_url: https://auth.example.com}
  services: [{name: registry.example.com}]
`

// helm runs helm on the chart, with values over the smallest ones.
func helm(t testing.TB, command []string, chart, values string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "smallest.yaml"), []byte(smallest), 0o644)
	write(t, filepath.Join(dir, "values.yaml"), []byte(values), 0o644)
	args := slices.Concat(command, []string{chart, "--namespace", "registry-auth", "--values", filepath.Join(dir, "smallest.yaml"), "--values", filepath.Join(dir, "values.yaml")})
	return harness.Run(t, nil, "", harness.Program(t, "helm"), args...)
}

// template is "helm template" of the chart.
func template(t testing.TB, kubeVersion, values string) []byte {
	t.Helper()
	out, err := helm(t, []string{"template", "authserver", "--kube-version", kubeVersion}, shipped(t, "helm", "authserver"), values)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return []byte(out)
}

// chart is what the chart renders.
func chart(t testing.TB, values string) objects {
	t.Helper()
	return parse(t, template(t, kubeVersions[len(kubeVersions)-1], values))
}

const postgres = `
database: {url: "postgres://authserver@db.example.com:6432/authserver?sslmode=verify-full", existingSecret: pg}
keys: {existingSecret: sealing}
`

// What ingress-nginx has to be told: its bound on what clients send, else 1m, and what the pods speak, else HTTP.
const (
	bodySize        = "nginx.ingress.kubernetes.io/proxy-body-size"
	backendProtocol = "nginx.ingress.kubernetes.io/backend-protocol"
)

// matrix are combinations of values that work; sees is what is special about each.
var matrix = []struct {
	name, values string
	made         []string // what the operator has made
	sees         func(t *testing.T, o objects)
}{
	{name: "smallest", sees: func(t *testing.T, o objects) {
		exactly(t, o, "ConfigMap/authserver", "ConfigMap/authserver-policy", "Deployment/authserver", "NetworkPolicy/authserver", "PersistentVolumeClaim/authserver", "Pod/authserver-test",
			"Service/authserver", "Service/authserver-ops", "ServiceAccount/authserver")
	}},
	{name: "users of a file", values: "users: {existingSecret: people, key: htpasswd}", made: []string{"Secret/people"}},
	{name: "postgres", values: postgres, made: []string{"Secret/pg", "Secret/sealing"}, sees: func(t *testing.T, o objects) {
		if claims := all[*corev1.PersistentVolumeClaim](o); len(claims) > 0 {
			t.Errorf("a volume that nothing is kept on: %v", claims)
		}
		egress := named[*networkingv1.NetworkPolicy](t, o, "authserver").Spec.Egress
		if last := egress[len(egress)-1].Ports; len(egress) != 2 || len(last) != 1 || last[0].Port.IntValue() != 6432 {
			t.Errorf("egress %+v", egress)
		}
	}},
	{name: "three replicas", values: postgres + "replicaCount: 3", made: []string{"Secret/pg", "Secret/sealing"}, sees: func(t *testing.T, o objects) {
		d, _ := o.server(t)
		if *d.Spec.Replicas != 3 || len(d.Spec.Template.Spec.TopologySpreadConstraints) != 2 {
			t.Errorf("%d replicas, spread %+v", *d.Spec.Replicas, d.Spec.Template.Spec.TopologySpreadConstraints)
		}
		if b := named[*policyv1.PodDisruptionBudget](t, o, "authserver"); b.Spec.MaxUnavailable.IntValue() != 1 {
			t.Errorf("%+v", b.Spec)
		}
	}},
	{name: "two thirds stay", values: postgres + "replicaCount: 3\npodDisruptionBudget: {minAvailable: 66%}", made: []string{"Secret/pg", "Secret/sealing"}}, // rounded up, two of three
	{name: "address from a Secret", values: "replicaCount: 2\ndatabase: {existingSecret: cluster-app, urlKey: uri}\nkeys: {existingSecret: sealing}", made: []string{"Secret/cluster-app", "Secret/sealing"}},
	{name: "autoscaling", values: postgres + "autoscaling: {enabled: true, minReplicas: 2, maxReplicas: 6, cpu: 500m}\npodDisruptionBudget: {minAvailable: 50%}",
		made: []string{"Secret/pg", "Secret/sealing"}, sees: func(t *testing.T, o objects) {
			if h := named[*autoscalingv2.HorizontalPodAutoscaler](t, o, "authserver"); *h.Spec.MinReplicas != 2 || h.Spec.Metrics[0].Resource.Target.AverageValue.String() != "500m" {
				t.Errorf("%+v", h.Spec)
			}
			if b := named[*policyv1.PodDisruptionBudget](t, o, "authserver"); b.Spec.MinAvailable.String() != "50%" || b.Spec.MaxUnavailable != nil {
				t.Errorf("%+v", b.Spec)
			}
		}},
	{name: "without any state", values: "replicaCount: 2\ndatabase: {url: none}\nusers: {existingSecret: people}\nkeys: {store: secret, existingSecret: signing}",
		made: []string{"Secret/people", "Secret/signing"}, sees: func(t *testing.T, o objects) {
			if claims := all[*corev1.PersistentVolumeClaim](o); len(claims) > 0 {
				t.Errorf("a volume that nothing is kept on: %v", claims)
			}
		}},
	{name: "signing key of cert-manager", values: "signingCertificate: {enabled: true, issuerRef: {name: tokens}}", made: []string{"Secret/authserver-signing"}},
	{name: "TLS of its own", values: "tls: {enabled: true, existingSecret: web}\nservice: {type: LoadBalancer, externalTrafficPolicy: Local, loadBalancerSourceRanges: [192.0.2.0/24]}",
		made: []string{"Secret/web"}, sees: func(t *testing.T, o objects) {
			if p := named[*corev1.Service](t, o, "authserver").Spec.Ports[0]; p.Port != 443 || p.Name != "https" {
				t.Errorf("%+v", p)
			}
		}},
	{name: "TLS of cert-manager", values: "tls: {enabled: true}\ncertificate: {enabled: true, issuerRef: {name: le, kind: ClusterIssuer}, duration: 2160h}", made: []string{"Secret/authserver-tls"}},
	{name: "ingress", values: "ingress: {enabled: true, className: nginx, annotations: {a/b: c}}\ncertificate: {enabled: true, issuerRef: {name: le}}", sees: func(t *testing.T, o objects) {
		i := named[*networkingv1.Ingress](t, o, "authserver")
		if i.Spec.Rules[0].Host != "auth.example.com" || i.Spec.TLS[0].SecretName != "authserver-tls" {
			t.Errorf("%+v", i.Spec)
		}
	}},
	{name: "ingress before TLS", values: "ingress: {enabled: true, host: auth2.example.com, tlsSecret: other}\ntls: {enabled: true, existingSecret: web}\nregistry: {enabled: true}",
		made: []string{"Secret/web", "ConfigMap/authserver-root"}, sees: func(t *testing.T, o objects) {
			for name, want := range map[string]string{"authserver": "HTTPS", "authserver-registry": ""} {
				if i := named[*networkingv1.Ingress](t, o, name); i.Annotations[backendProtocol] != want {
					t.Errorf("%s: %q", name, i.Annotations)
				}
			}
		}},
	{name: "ingress of their own words", values: "ingress: {enabled: true, annotations: {" + backendProtocol + ": GRPCS}}\ntls: {enabled: true, existingSecret: web}",
		made: []string{"Secret/web"}, sees: func(t *testing.T, o objects) {
			if i := named[*networkingv1.Ingress](t, o, "authserver"); i.Annotations[backendProtocol] != "GRPCS" {
				t.Errorf("%q", i.Annotations)
			}
		}},
	{name: "gateway", values: "gateway: {enabled: true, parentRefs: [{name: public, namespace: gateways, sectionName: https}]}"},
	{name: "metrics", values: "serviceMonitor: {enabled: true, labels: {release: prometheus}, interval: 15s, scrapeTimeout: 10s, relabelings: [{action: labeldrop, regex: pod}]}"},
	{name: "network", values: `networkPolicy:
  ingressFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}]
  metricsFrom: []
  extraEgress: [{ports: [{port: 443, protocol: TCP}]}]
config: {acl: {webhook: {url: "http://opa.policy:8181/v1/data/registry/access"}}, tracing: {endpoint: "https://otel.example.com/v1/traces"}}`, sees: func(t *testing.T, o objects) {
		n := named[*networkingv1.NetworkPolicy](t, o, "authserver")
		if len(n.Spec.Egress) != 4 || n.Spec.Egress[1].Ports[0].Port.IntValue() != 8181 || n.Spec.Egress[2].Ports[0].Port.IntValue() != 443 || len(n.Spec.Ingress[0].From) != 1 || len(n.Spec.Ingress[1].From) != 1 {
			t.Errorf("%+v", n.Spec)
		}
	}},
	{name: "open network", values: "networkPolicy: {enabled: false}", sees: func(t *testing.T, o objects) {
		if all[*networkingv1.NetworkPolicy](o) != nil {
			t.Error("a NetworkPolicy")
		}
	}},
	{name: "configuration", values: `config:
  server: {listen: "0.0.0.0:8080", ops_listen: "[::]:9090", shutdown_delay: 1m, trusted_proxies: [10.0.0.0/8], max_connections: 1000000}
  issuer: {name: https://auth.example.com, token_lifetime: 15m, keys: {algorithm: ES384}}
  services: [{name: registry.example.com, token_lifetime: 1h}, {name: zot.example.com, verifier: pinned}, {name: three.example.com, verifier: jwks}]
  passwords: {bcrypt_cost: 10}
  throttle: {account_failures: 5}
  refresh_tokens: {enabled: true}
  log: {format: text}
  audit: {output: stdout}
policy: {combining: first-applicable, groups: {ops: [root]}, rules: [{name: all, subjects: ["group:ops"], repositories: ["**"], actions: ["*"]}]}`, sees: func(t *testing.T, o objects) {
		d, c := o.server(t)
		if c.Ports[0].ContainerPort != 8080 || c.Ports[1].ContainerPort != 9090 || *d.Spec.Template.Spec.TerminationGracePeriodSeconds != 100 {
			t.Errorf("%+v, grace %d", c.Ports, *d.Spec.Template.Spec.TerminationGracePeriodSeconds)
		}
	}},
	{name: "policy of others", values: "existingPolicyConfigMap: their-policy", made: []string{"ConfigMap/their-policy"}, sees: func(t *testing.T, o objects) {
		if o["ConfigMap/authserver-policy"] != nil {
			t.Error("a policy that nobody reads")
		}
	}},
	{name: "more policies", values: "extraPolicies: {cluster.yaml: {rules: [{name: nodes, subjects: [\"robot:cluster\"], repositories: [\"**\"], actions: [pull]}]}, a.yaml: {groups: {ops: [eve]}, rules: [{name: ops, subjects: [\"group:ops\"], repositories: [\"ops/**\"], actions: [pull]}]}}", sees: func(t *testing.T, o objects) {
		if files := o.config(t).ACL.Files; !slices.Equal(files, []string{"policy.yaml", "a.yaml", "cluster.yaml"}) {
			t.Errorf("acl.files %q", files)
		}
	}},
	{name: "more policies beside those of others", values: "existingPolicyConfigMap: their-policy\nextraPolicies: {x.yaml: {rules: [{name: nodes, subjects: [\"robot:cluster\"], repositories: [\"**\"], actions: [pull]}]}}",
		made: []string{"ConfigMap/their-policy"}},
	{name: "volume", values: "persistence: {size: 5Gi, storageClass: fast, annotations: {x: z}, keep: false, accessModes: [ReadWriteOncePod]}"},
	{name: "volume of others", values: "persistence: {existingClaim: theirs}", made: []string{"PersistentVolumeClaim/theirs"}},
	{name: "nothing kept", values: "persistence: {enabled: false}"},
	{name: "shared volume", values: "replicaCount: 2\ndatabase: {url: \"postgres://a@db/a\"}\nkeys: {store: data_dir}\npersistence: {accessModes: [ReadWriteMany]}"},
	{name: "scheduling", values: `image: {tag: "", digest: "sha256:` + strings.Repeat("ab", 32) + `", pullPolicy: Always, pullSecrets: [{name: regcred}]}
nodeSelector: {disk: ssd}
tolerations: [{key: infra, operator: Exists}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [a]}]}]}}}
topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app.kubernetes.io/component: server}}}]
priorityClassName: system-cluster-critical
podAnnotations: {a: b}
podLabels: {team: infra}
commonLabels: {cost: "42"}
terminationGracePeriodSeconds: 90
resources: {requests: {cpu: 1, memory: 1Gi}, limits: {memory: 1Gi, cpu: 2}}
serviceAccount: {name: tokens, annotations: {eks.amazonaws.com/role-arn: arn}}`, sees: func(t *testing.T, o objects) {
		d, c := o.server(t)
		if !strings.HasSuffix(c.Image, "authserver@sha256:"+strings.Repeat("ab", 32)) || d.Spec.Template.Labels["team"] != "infra" || d.Spec.Template.Spec.ServiceAccountName != "tokens" {
			t.Errorf("%s %v", c.Image, d.Spec.Template)
		}
	}},
	{name: "more volumes", values: `extraVolumes: [{name: ca, configMap: {name: db-ca}}]
extraVolumeMounts: [{name: ca, mountPath: /etc/db-ca, readOnly: true}]
extraEnv: [{name: AUTHSERVER_LOG__LEVEL, value: debug}]
serviceAccount: {create: false}`, made: []string{"ConfigMap/db-ca"}},
	{name: "names", values: "fullnameOverride: tokens\nnameOverride: auth", sees: func(t *testing.T, o objects) { named[*appsv1.Deployment](t, o, "tokens") }},
	{name: "plain HTTP", values: "allowPlainHTTP: true\nconfig: {server: {public_url: \"http://auth.lab:30080\"}}\nservice: {type: NodePort, nodePort: 30080}"},
	{name: "registry", values: "registry: {enabled: true}\ningress: {enabled: true}\ncertificate: {enabled: true, issuerRef: {name: le}}", made: []string{"ConfigMap/authserver-root"}, sees: func(t *testing.T, o objects) {
		if i := named[*networkingv1.Ingress](t, o, "authserver-registry"); i.Spec.Rules[0].Host != "registry.example.com" || i.Annotations[bodySize] != "0" {
			t.Errorf("%q %+v", i.Annotations, i.Spec)
		}
		if i := named[*networkingv1.Ingress](t, o, "authserver"); i.Annotations != nil {
			t.Errorf("who asks for tokens may send what is as large as a layer: %q", i.Annotations)
		}
	}},
	{name: "registry of small layers", values: "registry: {enabled: true}\ningress: {enabled: true, annotations: {" + bodySize + ": 100m, a/b: c}}", made: []string{"ConfigMap/authserver-root"}, sees: func(t *testing.T, o objects) {
		if i := named[*networkingv1.Ingress](t, o, "authserver-registry"); i.Annotations[bodySize] != "100m" || i.Annotations["a/b"] != "c" {
			t.Errorf("%q", i.Annotations)
		}
	}},
	{name: "registry of a known root", values: "registry: {enabled: true, config: {storage: {s3: {bucket: b, region: r}, delete: {enabled: false}}}}\nsigningCertificate: {enabled: true, issuerRef: {name: tokens}}\n" +
		"gateway: {enabled: true, parentRefs: [{name: public}]}", made: []string{"Secret/authserver-signing"}, sees: func(t *testing.T, o objects) {
		config := named[*corev1.ConfigMap](t, o, "authserver-registry").Data["config.yml"]
		if strings.Contains(config, "filesystem") || !strings.Contains(config, "bucket: b") || o["PersistentVolumeClaim/authserver-registry"] != nil {
			t.Error(config)
		}
		d := named[*appsv1.Deployment](t, o, "authserver-registry")
		for _, s := range d.Spec.Template.Spec.Volumes[0].Projected.Sources {
			if s.Secret != nil && (len(s.Secret.Items) != 1 || s.Secret.Items[0].Key != "ca.crt") {
				t.Errorf("the registry sees more than the public certificate: %+v", s.Secret.Items)
			}
		}
	}},
	{name: "registry of its own root", values: "registry: {enabled: true, service: other.example.com, rootCertificate: {secret: r, key: x.pem}, persistence: {enabled: false}}\n" +
		"config: {services: [{name: registry.example.com, verifier: jwks}, {name: other.example.com}]}", made: []string{"Secret/r"}},
	{name: "everything", values: postgres + `autoscaling: {enabled: true}
ingress: {enabled: true}
gateway: {enabled: true, parentRefs: [{name: public}]}
certificate: {enabled: true, issuerRef: {name: le}}
signingCertificate: {enabled: true, issuerRef: {name: tokens}}
keys: {existingSecret: ""}
serviceMonitor: {enabled: true}
users: {existingSecret: people}
registry: {enabled: true}`, made: []string{"Secret/pg", "Secret/people", "Secret/authserver-signing"}},
}

// exactly checks that these are all objects.
func exactly(t *testing.T, o objects, want ...string) {
	t.Helper()
	if got := slices.Sorted(slices.Values(o.names())); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// chartSecrets is what the operator has made, for every name in the matrix.
func chartSecrets(t testing.TB) files {
	t.Helper()
	certificate, key := selfSigned(t)
	pair := map[string]string{"tls.crt": certificate, "tls.key": key, "ca.crt": certificate}
	users, _ := usersFile(t)
	policy := string(harness.ReadFile(t, shipped(t, "kubernetes", "base", "policy.yaml")))
	return files{
		"Secret/people": {"htpasswd": string(users), "users.htpasswd": string(users)}, "Secret/pg": {"password": "not asked for here\n"}, "Secret/sealing": {"encryption.key": encryptionKey(t)},
		"Secret/cluster-app": {"uri": "postgresql://app:hidden@cluster-rw:5432/app"}, "Secret/signing": pair, "Secret/authserver-signing": pair, "Secret/web": pair, "Secret/authserver-tls": pair,
		"ConfigMap/their-policy": {"policy.yaml": policy}, "ConfigMap/db-ca": {"ca.crt": certificate},
	}
}

func TestChart(t *testing.T) {
	given := chartSecrets(t)
	if len(matrix) < 20 {
		t.Fatalf("%d combinations", len(matrix))
	}
	for _, m := range matrix {
		t.Run(m.name, func(t *testing.T) {
			var streams [][]byte
			for _, version := range kubeVersions {
				streams = append(streams, template(t, version, m.values))
			}
			for i, stream := range streams {
				if !bytes.Equal(stream, streams[0]) {
					t.Errorf("for Kubernetes %s it renders something else than for %s", kubeVersions[i], kubeVersions[0])
				}
			}
			o := parse(t, streams[0])
			o.hold(t, m.made...)
			if m.sees != nil {
				m.sees(t, o)
			}
			o.check(t, given)
			if out, err := helm(t, []string{"lint", "--strict", "--quiet"}, shipped(t, "helm", "authserver"), m.values); err != nil {
				t.Errorf("helm lint: %v\n%s", err, out)
			}
		})
	}
}

// Chart and kustomize run the same container in the same way.
func TestChartAndOverlaysAgree(t *testing.T) {
	for overlay, values := range map[string]string{"single": "", "ha": postgres + "replicaCount: 3"} {
		ours, c := chart(t, values).server(t)
		theirs, k := kustomized(t, overlay).server(t)
		for what, pair := range map[string][2]any{
			"securityContext of the pod": {ours.Spec.Template.Spec.SecurityContext, theirs.Spec.Template.Spec.SecurityContext},
			"securityContext":            {c.SecurityContext, k.SecurityContext},
			"ports":                      {c.Ports, k.Ports},
			"arguments":                  {c.Args, k.Args},
			"startup probe":              {c.StartupProbe, k.StartupProbe},
			"readiness probe":            {c.ReadinessProbe, k.ReadinessProbe},
			"liveness probe":             {c.LivenessProbe, k.LivenessProbe},
			"resources":                  {c.Resources, k.Resources},
			"environment":                {c.Env, k.Env},
			"grace period":               {ours.Spec.Template.Spec.TerminationGracePeriodSeconds, theirs.Spec.Template.Spec.TerminationGracePeriodSeconds},
			"strategy":                   {ours.Spec.Strategy, theirs.Spec.Strategy},
			"replicas":                   {ours.Spec.Replicas, theirs.Spec.Replicas},
		} {
			if a, b := toYAML(t, pair[0]), toYAML(t, pair[1]); a != b {
				t.Errorf("%s: %s: the chart has\n%s\nthe overlay\n%s", overlay, what, a, b)
			}
		}
	}
	policy := func(o objects, name string) string {
		return sameYAML(t, []byte(named[*corev1.ConfigMap](t, o, name).Data["policy.yaml"]))
	}
	if a, b := policy(chart(t, ""), "authserver-policy"), policy(kustomized(t, "single"), "authserver-policy"); a != b {
		t.Errorf("policies:\n%s\n%s", a, b)
	}
}

// As many connections as are let in are held by the memory that the pod may have: up to 90 KB each were measured, with TLS and
// HTTP/2, all of them asking at once.
func TestMemoryHoldsTheConnections(t *testing.T) {
	for name, o := range map[string]objects{"chart": chart(t, ""), "single": kustomized(t, "single"), "ha": kustomized(t, "ha")} {
		_, c := o.server(t)
		limit, connections := c.Resources.Limits.Memory().Value(), o.config(t).Server.MaxConnections
		if connections == 0 {
			connections = 10000 // authserver's own
		}
		if need := connections * 90_000; need > limit*88/100 {
			t.Errorf("%s: %d connections need %d MiB, and the limit is %d MiB", name, connections, need>>20, limit>>20)
		}
	}
}

// Go is told of the limit of memory, however it is written, unless somebody has told it already.
func TestGoKnowsTheLimitOfMemory(t *testing.T) {
	for values, want := range map[string][]string{
		"":                                                        {"GOMEMLIMIT=450MiB"},
		"resources: {limits: {memory: 1Gi}}":                      {"GOMEMLIMIT=901MiB"},
		"resources: {limits: {memory: 1.5Gi}}":                    {"GOMEMLIMIT=1351MiB"},
		"resources: {limits: {memory: 500M}}":                     {"GOMEMLIMIT=419MiB"},
		"resources: {limits: {memory: 1073741824}}":               {"GOMEMLIMIT=901MiB"},
		"resources: {limits: {memory: null}}":                     nil,
		"resources: {limits: null}":                               nil,
		"resources: null":                                         nil,
		"resources: {limits: {memory: 0}}":                        nil,
		"extraEnv: [{name: GOMEMLIMIT, value: 300MiB}]":           {"GOMEMLIMIT=300MiB"},
		"extraEnv: [{name: AUTHSERVER_LOG__LEVEL, value: debug}]": {"GOMEMLIMIT=450MiB", "AUTHSERVER_LOG__LEVEL=debug"},
	} {
		_, c := chart(t, values).server(t)
		if got := environment(t, c, nil); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", values, got, want)
		}
	}
}

// Pods are rolled for what a running process does not take up, and for nothing else.
func TestWhatRollsThePods(t *testing.T) {
	template := func(values string) string {
		t.Helper()
		d, _ := chart(t, values).server(t)
		return toYAML(t, d.Spec.Template)
	}
	before := template("")
	for values, rolls := range map[string]bool{
		"policy: {groups: {admins: [alice]}}":                                                  false,
		"config: {issuer: {token_lifetime: 10m}}":                                              false,
		"config: {services: [{name: other.example.com}]}":                                      false,
		"config: {server: {trusted_proxies: [10.0.0.0/8], public_url: https://b.example.com}}": false,
		"config: {log: {level: debug}}":                                                        false,
		"commonLabels: {}":                                                                     false,
		"config: {log: {format: text}}":                                                        true,
		"config: {audit: {output: stdout}}":                                                    true,
		"config: {server: {max_connections: 500}}":                                             true,
		"config: {server: {tls: {min_version: \"1.3\"}}}":                                      true,
		"config: {tracing: {endpoint: https://otel.example.com/v1/traces}}":                    true,
		"config: {database: {timeout: 2s}}":                                                    true,
		"image: {tag: other}":                                                                  true,
	} {
		if changed := template(values) != before; changed != rolls {
			t.Errorf("%s: rolls the pods: %t", values, changed)
		}
	}
}

// Every values.yaml that a page shows works.
func TestChartOfThePages(t *testing.T) {
	given := chartSecrets(t)
	given["Secret/authserver-secrets"] = map[string]string{"database.password": "x", "encryption.key": encryptionKey(t)}
	given["Secret/authserver-db-app"] = map[string]string{"uri": "postgresql://app:hidden@authserver-db-rw:5432/app"}
	given["Secret/authserver-users"] = given["Secret/people"]
	given["ConfigMap/postgres-ca"] = given["ConfigMap/db-ca"]
	given["ConfigMap/authserver-root"] = map[string]string{"root.crt": ""}
	shown := 0
	for _, page := range []string{"deploy/helm/authserver/README.md", "docs/kubernetes.md"} {
		text := string(harness.ReadFile(t, filepath.Join(harness.Root(t), "..", page)))
		for _, block := range regexp.MustCompile("(?s)```yaml\n# values.yaml\n(.*?)```").FindAllStringSubmatch(text, -1) {
			shown++
			o := chart(t, block[1])
			o.hold(t, slices.Collect(maps.Keys(given))...)
			o.check(t, given)
		}
	}
	if shown < 8 {
		t.Errorf("only %d were found", shown)
	}
}

// A release that is called by another name than the chart has both in its names.
func TestNamesOfAnotherRelease(t *testing.T) {
	out, err := helm(t, []string{"template", strings.Repeat("long-", 9) + "name"}, shipped(t, "helm", "authserver"), "registry: {enabled: true}")
	if err != nil {
		t.Fatal(out)
	}
	o := parse(t, []byte(out))
	o.hold(t, "ConfigMap/"+strings.Repeat("long-", 9)+"nam-root")
	for _, name := range o.names() {
		if _, short, _ := strings.Cut(name, "/"); len(short) > 63 || strings.HasSuffix(short, "-") {
			t.Errorf("%s has %d letters", name, len(short))
		}
	}
}

// notes are what helm prints after an installation: the text of NOTES.txt, as a template of a copy of the chart.
func notes(t testing.TB, values string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(shipped(t, "helm", "authserver"))); err != nil {
		t.Fatal(err)
	}
	text := harness.ReadFile(t, filepath.Join(dir, "templates", "NOTES.txt"))
	write(t, filepath.Join(dir, "templates", "notes.yaml"), slices.Concat([]byte(`{{- define "notes" -}}`), text, []byte("{{- end -}}\nnotes: {{ include \"notes\" . | quote }}\n")), 0o644)
	out, err := helm(t, []string{"template", "authserver", "--show-only", "templates/notes.yaml"}, dir, values)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var made struct {
		Notes string `json:"notes"`
	}
	if err := yaml.Unmarshal([]byte(out), &made); err != nil || made.Notes == "" {
		t.Fatalf("%v\n%s", err, out)
	}
	return made.Notes
}
