package deploy_test

import (
	"strings"
	"testing"
)

// refusals are values that cannot work, and the words that say so, with what would be right.
var refusals = []struct{ values, says string }{
	{"image: {repository: \"\"}", "image.repository is missing: build the image (\"make image\")"},
	{"config: {server: {public_url: \"\"}}", "config.server.public_url is missing"},
	{"config: {server: {public_url: auth.example.com}}", "config.server.public_url \"auth.example.com\" has no scheme: https://auth.example.com"},
	{"config: {server: {public_url: \"http://auth.example.com\"}}", "is not https, and clients send passwords there: https://auth.example.com; or, for trying out, allowPlainHTTP: true"},
	{"config: {services: []}", "config.services is missing: one entry for each registry"},
	{"config: {server: {listen: \"127.0.0.1:5001\"}}", "config.server.listen \"127.0.0.1:5001\" cannot be reached by the Service: \":5001\""},
	{"config: {server: {listen: \"unix:/run/authserver.sock\"}}", "cannot be reached by the Service"},
	{"config: {server: {ops_listen: \"\"}}", "config.server.ops_listen \"\" cannot be reached by the kubelet's probes: \":5002\""},
	{"config: {server: {shutdown_delay: 500ms}}", "config.server.shutdown_delay \"500ms\": here in whole seconds or minutes"},
	{"terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds 30 is less than"},
	{"replicaCount: 2", "2 replicas cannot share SQLite: set database.url to a PostgreSQL, or replicaCount to 1"},
	{"autoscaling: {enabled: true}", "3 replicas cannot share SQLite: set database.url to a PostgreSQL, or replicaCount to 1 and autoscaling.enabled to false"},
	{"replicaCount: 2\nconfig: {database: {url: none}}\nusers: {existingSecret: people}", "2 replicas cannot each have keys of their own"},
	{"replicaCount: 2\ndatabase: {url: \"postgres://a@db/a\"}\nkeys: {store: data_dir}\npersistence: {enabled: false, accessModes: [ReadWriteMany]}", "2 replicas cannot each have keys of their own"},
	{"database: {url: \"postgres://a@db/a\"}", "keys.existingSecret is missing: keys in the database are encrypted"},
	{"database: {existingSecret: pg}", "kubectl -n registry-auth create secret generic authserver-encryption --from-file=encryption.key=encryption.key"},
	{"keys: {store: database, existingSecret: k}", "keys.store is database, but there is no PostgreSQL"},
	{"keys: {store: secret}", "keys.existingSecret is missing: keys.store is secret"},
	{"keys: {existingSecret: k}", "keys.existingSecret is given, but keys are made on the volume"},
	{"signingCertificate: {enabled: true, issuerRef: {name: x}}\nkeys: {store: data_dir}", "signingCertificate makes a Secret that keys.store data_dir does not use"},
	{"signingCertificate: {enabled: true, issuerRef: {name: x}}\nkeys: {existingSecret: mine}",
		"keys.existingSecret \"mine\" and signingCertificate do not go together: cert-manager would write its key over yours. Leave keys.existingSecret empty; signingCertificate.secretName names the Secret that is made"},
	{"replicaCount: 2\ndatabase: {url: none}\nusers: {existingSecret: people}\nkeys: {store: secret, existingSecret: k}\nconfig: {services: [{name: zot, verifier: pinned}]}",
		"service \"zot\" has verifier pinned, and each replica would make a key of its own"},
	{"database: {url: \"postgres://a:b@db/a\"}\nkeys: {existingSecret: k}", "the database's address holds a password, and a ConfigMap is no place for one"},
	{"database: {url: \"postgres://a@db/a?password=b\"}\nkeys: {existingSecret: k}", "holds a password"},
	{"database: {url: \"postgres://a:b/c@db/a\"}\nkeys: {existingSecret: k}", "holds a password"}, // authserver refuses it, when it is there already
	{"config: {acl: {webhook: {url: \"https://a:b@hook/review\"}}}", "config.acl.webhook.url holds a user or a query, which may be secret, and a ConfigMap is not"},
	{"config: {tracing: {endpoint: \"https://collector/v1/traces?key=b\"}}", "config.tracing.endpoint holds a user or a query"},
	{"database: {url: \"sqlite:other.db\", existingSecret: pg}", "database.existingSecret is for PostgreSQL"},
	{"config: {database: {url: \"postgres://a@db/a\"}}\ndatabase: {existingSecret: pg}\nkeys: {existingSecret: k}", "config.database.url and database.existingSecret do not go together: give the address as database.url"},
	{"database: {url: none}", "nobody could log in: database.url is none, and users.existingSecret is missing"},
	{"config: {users: [{kind: database}]}\nusers: {existingSecret: people}", "config.users does not name its file"},
	{"extraPolicies: {policy.yaml: {rules: [{name: x, subjects: [anyone], repositories: [x], actions: [pull]}]}}", "extraPolicies.policy.yaml would be in the way"},
	{"extraPolicies: {x.yaml: {rules: [{name: x, subjects: [anyone], repositories: [x], actions: [pull]}]}}\nconfig: {acl: {files: [policy.yaml]}}", "extraPolicies.x.yaml is not in config.acl.files"},
	{"tls: {enabled: true}", "tls.existingSecret is missing: kubectl -n registry-auth create secret tls authserver-tls"},
	{"tls: {enabled: true, existingSecret: mine}\ncertificate: {enabled: true, issuerRef: {name: x}}",
		"tls.existingSecret \"mine\" and certificate do not go together: cert-manager would write its key over yours. Leave tls.existingSecret empty; certificate.secretName names the Secret that is made"},
	{"tls: {existingSecret: mine}\ningress: {enabled: true}\ncertificate: {enabled: true, issuerRef: {name: x}}", "tls.existingSecret \"mine\" and certificate do not go together"},
	{"service: {nodePort: 30080}", "service.nodePort 30080 is not for service.type ClusterIP: set that to NodePort or LoadBalancer, or leave nodePort out"},
	{"service: {externalTrafficPolicy: Local}", "service.externalTrafficPolicy \"Local\" is not for service.type ClusterIP: set that to NodePort or LoadBalancer, or leave externalTrafficPolicy out"},
	{"service: {type: NodePort, loadBalancerClass: x}", "service.loadBalancerClass \"x\" is not for service.type NodePort: set that to LoadBalancer, or leave loadBalancerClass out"},
	{"service: {loadBalancerSourceRanges: [192.0.2.0/24]}", "service.loadBalancerSourceRanges [\"192.0.2.0/24\"] is not for service.type ClusterIP: set that to LoadBalancer"},
	{"podLabels: {app.kubernetes.io/component: x}", "podLabels has app.kubernetes.io/component, which is the chart's, and selects the pods: leave it out"},
	{"commonLabels: {app.kubernetes.io/name: x}", "commonLabels has app.kubernetes.io/name, which is the chart's, and selects the pods: leave it out"},
	{"commonLabels: {app.kubernetes.io/managed-by: x}", "commonLabels has app.kubernetes.io/managed-by, which is the chart's: leave it out"},
	{"gateway: {enabled: true}", "gateway.parentRefs is missing"},
	{"gateway: {enabled: true, parentRefs: [{name: x}]}\ntls: {enabled: true, existingSecret: x}", "gateway and tls do not go together"},
	{"certificate: {enabled: true}", "certificate.issuerRef.name is missing"},
	{"signingCertificate: {enabled: true}", "signingCertificate.issuerRef.name is missing"},
	{postgres + "autoscaling: {enabled: true, minReplicas: 5, maxReplicas: 2}", "autoscaling.maxReplicas 2 is less than minReplicas 5"},
	{"podDisruptionBudget: {minAvailable: 1, maxUnavailable: 1}", "podDisruptionBudget.minAvailable and maxUnavailable exclude one another"},
	{postgres + "replicaCount: 2\npodDisruptionBudget: {minAvailable: 2}", "podDisruptionBudget lets no pod go"},
	{postgres + "replicaCount: 2\npodDisruptionBudget: {minAvailable: 100%}", "podDisruptionBudget lets no pod go"},
	{postgres + "replicaCount: 3\npodDisruptionBudget: {minAvailable: 75%}", "podDisruptionBudget lets no pod go"}, // 2.25 of 3: all
	{postgres + "autoscaling: {enabled: true}\npodDisruptionBudget: {minAvailable: 67%}", "podDisruptionBudget lets no pod go"},
	{postgres + "replicaCount: 2\npodDisruptionBudget: {maxUnavailable: 0}", "podDisruptionBudget lets no pod go"},
	{"registry: {enabled: true, service: other}", "registry.service \"other\" is not one of config.services"},
	{"registry: {enabled: true}\nconfig: {services: [{name: zot, verifier: pinned}]}", "registry.service \"zot\" has verifier pinned"},
	{"registry: {enabled: true, rootCertificate: {configMap: a, secret: b}}", "registry.rootCertificate.configMap and secret exclude one another"},
	{"registry: {enabled: true, config: {auth: null}}", "registry.config.auth is the chart's: without it, or with another, the registry would be open to others than the policy says"},
	{"registry: {enabled: true, config: {auth: {token: {issuer: other}}}}", "registry.config.auth is the chart's"},
	{"registry: {enabled: true, config: {storage: {s3: {bucket: b, secretkey: x}}}}", "registry.config has a secretkey, and a ConfigMap is no place for one: leave it out, and take it from a Secret (registry.extraEnv)"},
	{"registry: {enabled: true, config: {http: {secret: x}}}", "registry.config has a secret, and a ConfigMap"},
	{"registry: {enabled: true, config: {proxy: {remoteurl: \"https://x\", password: x}}}", "registry.config has a password"},

	// values.schema.json
	{"replicas: 3", "additional properties 'replicas' not allowed"},
	{"image: {tga: x}", "additional properties 'tga' not allowed"},
	{"config: {sevrer: {}}", "additional properties 'sevrer' not allowed"},
	{"config: {issuer: {nmae: x}}", "at '/config/issuer': additional properties 'nmae' not allowed"},
	{"config: {issuer: {token_lifetime: 300}}", "at '/config/issuer/token_lifetime': got number, want string"},
	{"policy: {rules: [{name: x, subjects: [anyone], repositories: [x], acts: [pull]}]}", "additional properties 'acts' not allowed"},
	{"policy: {rule: []}", "additional properties 'rule' not allowed"},
	{"registry: {persistence: {claim: x}}", "additional properties 'claim' not allowed"},
	{"replicaCount: three", "at '/replicaCount': got string, want integer"},
	{"service: {type: ExternalName}", "at '/service/type'"},
	{"image: {digest: \"sha256:abc\"}", "at '/image/digest'"},
	{"image: {pullPolicy: Sometimes}", "at '/image/pullPolicy'"},
	{"podAnnotations: {a: 1}", "at '/podAnnotations/a': got number, want string"},
	{"config: {services: [{verifier: chain}]}", "at '/config/services/0': missing property 'name'"},
	{"config: {services: [{name: x, verifier: chian}]}", "at '/config/services/0/verifier'"},
	{"keys: {store: vault}", "at '/keys/store'"},
	{"persistence: {size: big}", "at '/persistence/size'"},
	{"users: {existingSecret: Not_A_Name}", "at '/users/existingSecret'"},
}

func TestChartRefusesWhatCannotWork(t *testing.T) {
	for _, r := range refusals {
		out, err := helm(t, []string{"template", "authserver"}, shipped(t, "helm", "authserver"), r.values)
		if err == nil || !strings.Contains(out, r.says) {
			t.Errorf("%s\n  is not refused with %q: %v\n%.600s", r.values, r.says, err, out)
		}
	}
}

// Nothing given at all: everything that is missing is said at once.
func TestChartSaysAllThatIsMissing(t *testing.T) {
	out, err := helm(t, []string{"template", "authserver"}, shipped(t, "helm", "authserver"), `{image: {repository: ""}, config: {server: {public_url: ""}, services: []}, replicaCount: 2}`)
	for _, says := range []string{"image.repository is missing", "public_url is missing", "config.services is missing", "2 replicas cannot share SQLite"} {
		if err == nil || !strings.Contains(out, says) {
			t.Errorf("no %q in %s", says, out)
		}
	}
}

// A cluster that does not know what the chart uses is told so.
func TestChartRefusesAnOldKubernetes(t *testing.T) {
	out, err := helm(t, []string{"template", "authserver", "--kube-version", "1.26.15"}, shipped(t, "helm", "authserver"), "")
	if err == nil || !strings.Contains(out, "chart requires kubeVersion: >=1.27.0-0 which is incompatible with Kubernetes v1.26.15") {
		t.Errorf("%v: %s", err, out)
	}
}

// A value that the chart would let through is still authserver's to refuse.
func TestConfigCheckRefusesWhatTheChartDoesNotKnow(t *testing.T) {
	o := chart(t, "config: {issuer: {token_lifetime: 48h}}")
	root := o.rootfs(t, nil)
	program(t, root)
	_, c := o.server(t)
	if out, err := o.run(t, root, nil, "", append([]string{"config", "check"}, flags(t, c)...)...); err == nil || !strings.Contains(out, "issuer.token_lifetime: 48h is out of range") {
		t.Errorf("%v: %s", err, out)
	}
}
