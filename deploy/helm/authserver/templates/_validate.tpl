{{/* What cannot work is refused here, all of it at once, each with what would be right. Types and unknown keys are
     values.schema.json's, and what a key of authserver.yaml may say is authserver's own. */}}

{{- define "authserver.validate" -}}
{{- with include "authserver.faults" . | trim -}}
{{- fail (printf "these values cannot work:\n%s\n" .) -}}
{{- end -}}
{{- end -}}

{{- define "authserver.faults" -}}
{{- $v := .Values -}}
{{- $config := include "authserver.config" . | fromYaml -}}
{{- $name := include "authserver.fullname" . -}}
{{- $database := include "authserver.database" . -}}
{{- $keys := include "authserver.keys" . -}}
{{- $many := gt (include "authserver.replicas" . | int) 1 -}}
{{- if not $v.image.repository }}
- image.repository is missing: build the image ("make image"), push it to a registry of yours, and name that, as in registry.example.com/tools/authserver
{{- end }}
{{- $url := $config.server.public_url }}
{{- if not $url }}
- config.server.public_url is missing: the address at which clients reach authserver, as in https://auth.example.com
{{- else if not (regexMatch "^https?://[^/]" $url) }}
- config.server.public_url {{ $url | quote }} has no scheme: https://{{ $url }}
{{- else if and (hasPrefix "http:" $url) (not $v.allowPlainHTTP) }}
- config.server.public_url {{ $url | quote }} is not https, and clients send passwords there: https://{{ trimPrefix "http://" $url }}; or, for trying out, allowPlainHTTP: true
{{- end }}
{{- if not $config.services }}
- config.services is missing: one entry for each registry, its name equal to the registry's auth.token.service, as in [{name: registry.example.com}]
{{- end }}
{{- range $key := list "listen" "ops_listen" }}
{{- $listen := index $config.server $key }}
{{- if not (regexMatch "^(0\\.0\\.0\\.0|\\[::\\])?:[1-9][0-9]*$" (toString $listen)) }}
- config.server.{{ $key }} {{ $listen | quote }} cannot be reached by the {{ ternary "Service" "kubelet's probes" (eq $key "listen") }}: {{ ternary ":5001" ":5002" (eq $key "listen") | quote }}
{{- end }}
{{- end }}
{{- if regexMatch "^postgres(ql)?://([^@/?]*:[^@]*@|.*[?&](ssl)?password[=])" (dig "database" "url" "" $config) }}
- the database's address holds a password, and a ConfigMap is no place for one: leave it out, and put it into a Secret (database.existingSecret)
{{- end }}
{{- range $key, $url := dict "acl.webhook.url" (dig "acl" "webhook" "url" "" $config) "tracing.endpoint" (dig "tracing" "endpoint" "" $config) }}
{{- if regexMatch "[@?]" (toString $url) }}
- config.{{ $key }} holds a user or a query, which may be secret, and a ConfigMap is not: put it into a Secret (extraVolumes), and name its file in {{ ternary "acl.webhook.token_file" "tracing.headers_file" (eq $key "acl.webhook.url") }}
{{- end }}
{{- end }}
{{- if and $many (eq $database "sqlite") }}
- {{ include "authserver.replicas" . }} replicas cannot share SQLite: set database.url to a PostgreSQL, or replicaCount to 1{{ if $v.autoscaling.enabled }} and autoscaling.enabled to false{{ end }}
{{- else if and $many (not (include "authserver.parallel" .)) }}
- {{ include "authserver.replicas" . }} replicas cannot each have keys of their own: set keys.store to database (with PostgreSQL) or to secret, or replicaCount to 1{{ if $v.autoscaling.enabled }} and autoscaling.enabled to false{{ end }}
{{- end }}
{{- if eq $keys "database" }}
{{- if ne $database "postgres" }}
- keys.store is database, but there is no PostgreSQL: set database.url, or keys.store to data_dir
{{- end }}
{{- if not $v.keys.existingSecret }}
- keys.existingSecret is missing: keys in the database are encrypted. Make the Secret, and name it:
    openssl rand -base64 32 >encryption.key
    kubectl -n {{ .Release.Namespace }} create secret generic {{ $name }}-encryption --from-file={{ $v.keys.encryptionKey }}=encryption.key
  or, for one replica that keeps its keys on a volume, set keys.store to data_dir
{{- end }}
{{- else if and (eq $keys "secret") (not (include "authserver.keysSecret" .)) }}
- keys.existingSecret is missing: keys.store is secret, which is a Secret with tls.key and tls.crt; or let cert-manager make one (signingCertificate.enabled)
{{- else if and (eq $keys "data_dir") $v.keys.existingSecret }}
- keys.existingSecret is given, but keys are made on the volume: say with keys.store what is in it, secret (tls.key and tls.crt) or, with PostgreSQL, database (the encryption key)
{{- end }}
{{- if and $v.signingCertificate.enabled (ne $keys "secret") }}
- signingCertificate makes a Secret that keys.store {{ $keys }} does not use: leave keys.store empty
{{- end }}
{{- if and $v.signingCertificate.enabled $v.keys.existingSecret (eq $keys "secret") }}
- keys.existingSecret {{ $v.keys.existingSecret | quote }} and signingCertificate do not go together: cert-manager would write its key over yours. Leave keys.existingSecret empty; signingCertificate.secretName names the Secret that is made
{{- end }}
{{- if and (eq $keys "secret") $many }}
{{- range $config.services }}
{{- if and (ne (default "chain" .verifier) "chain") (not .key_file) }}
- service {{ .name | quote }} has verifier {{ .verifier }}, and each replica would make a key of its own: give it a key_file (extraVolumes), or set keys.store to database
{{- end }}
{{- end }}
{{- end }}
{{- if and $v.database.existingSecret $v.database.url (ne $database "postgres") }}
- database.existingSecret is for PostgreSQL, but database.url is {{ $v.database.url }}
{{- end }}
{{- if and $v.database.existingSecret (not $v.database.url) (dig "database" "url" "" $v.config) }}
- config.database.url and database.existingSecret do not go together: give the address as database.url
{{- end }}
{{- if and (eq $database "none") (not $config.users) }}
- nobody could log in: database.url is none, and users.existingSecret is missing. Make a users file with "authserver user add" or "htpasswd -B", and:
    kubectl -n {{ .Release.Namespace }} create secret generic {{ $name }}-users --from-file={{ $v.users.key }}=users.htpasswd
{{- end }}
{{- range $name, $_ := $v.extraPolicies }}
{{- if has $name (list "policy.yaml" "authserver.yaml") }}
- extraPolicies.{{ $name }} would be in the way of the file of that name: call it otherwise
{{- end }}
{{- if not (has $name $config.acl.files) }}
- extraPolicies.{{ $name }} is not in config.acl.files: leave that out, then it is
{{- end }}
{{- end }}
{{- if and (hasKey $v.config "users") $v.users.existingSecret (not (contains "users.htpasswd" (toYaml $v.config.users))) }}
- users.existingSecret is given, but config.users does not name its file: add {kind: htpasswd, file: users.htpasswd} there
{{- end }}
{{- if and $v.terminationGracePeriodSeconds (lt (int $v.terminationGracePeriodSeconds) (add 36 (include "authserver.seconds" (default "0s" $config.server.shutdown_delay) | int) | int)) }}
- terminationGracePeriodSeconds {{ int $v.terminationGracePeriodSeconds }} is less than config.server.shutdown_delay and the 35 s in which requests are answered: leave it 0, then it is computed
{{- end }}
{{- if and (hasKey $config.server "shutdown_delay") (not (regexMatch "^[0-9]+[sm]$" (toString $config.server.shutdown_delay))) }}
- config.server.shutdown_delay {{ $config.server.shutdown_delay | quote }}: here in whole seconds or minutes, as in 5s
{{- end }}
{{- if and $v.tls.enabled (not $v.tls.existingSecret) (not $v.certificate.enabled) }}
- tls.existingSecret is missing: kubectl -n {{ .Release.Namespace }} create secret tls {{ $name }}-tls --cert=FILE --key=FILE; or certificate.enabled with cert-manager
{{- end }}
{{- if and $v.certificate.enabled $v.tls.existingSecret }}
- tls.existingSecret {{ $v.tls.existingSecret | quote }} and certificate do not go together: cert-manager would write its key over yours. Leave tls.existingSecret empty; certificate.secretName names the Secret that is made
{{- end }}
{{- range $key := list "nodePort" "externalTrafficPolicy" "loadBalancerClass" "loadBalancerSourceRanges" }}
{{- $types := ternary (list "LoadBalancer") (list "NodePort" "LoadBalancer") (hasPrefix "loadBalancer" $key) }}
{{- $value := index $v.service $key }}
{{- if and $value (not (has $v.service.type $types)) }}
- service.{{ $key }} {{ $value | toJson }} is not for service.type {{ $v.service.type }}: set that to {{ join " or " $types }}, or leave {{ $key }} out
{{- end }}
{{- end }}
{{- $selected := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" }}
{{- range $labels, $reserved := dict "podLabels" $selected "commonLabels" (concat $selected (list "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart")) }}
{{- range $key, $_ := index $v $labels }}
{{- if has $key $reserved }}
- {{ $labels }} has {{ $key }}, which is the chart's{{ if has $key $selected }}, and selects the pods{{ end }}: leave it out
{{- end }}
{{- end }}
{{- end }}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) }}
- gateway.parentRefs is missing: the Gateway that takes the route, as in [{name: public, namespace: gateways}]
{{- end }}
{{- if and $v.gateway.enabled $v.tls.enabled }}
- gateway and tls do not go together: a Gateway speaks plain HTTP to the pods. Leave tls.enabled false
{{- end }}
{{- range $key := list "certificate" "signingCertificate" }}
{{- $certificate := index $v $key }}
{{- if and $certificate.enabled (not (dig "name" "" $certificate.issuerRef)) }}
- {{ $key }}.issuerRef.name is missing: cert-manager's Issuer or ClusterIssuer
{{- end }}
{{- end }}
{{- if and $v.autoscaling.enabled (lt (int $v.autoscaling.maxReplicas) (int $v.autoscaling.minReplicas)) }}
- autoscaling.maxReplicas {{ int $v.autoscaling.maxReplicas }} is less than minReplicas {{ int $v.autoscaling.minReplicas }}
{{- end }}
{{- $pdb := $v.podDisruptionBudget }}
{{- $replicas := include "authserver.replicas" . | int }}
{{- $least := toString $pdb.minAvailable }}
{{- if regexMatch "^[0-9]+%$" $least }}{{/* Kubernetes rounds a share up */}}
{{- $least = div (add (mul (trimSuffix "%" $least | int) $replicas) 99) 100 | toString }}
{{- end }}
{{- if and (not (kindIs "invalid" $pdb.minAvailable)) (not (kindIs "invalid" $pdb.maxUnavailable)) }}
- podDisruptionBudget.minAvailable and maxUnavailable exclude one another: give one
{{- else if and $pdb.enabled $many (or (and (regexMatch "^[0-9]+$" $least) (ge (int $least) $replicas)) (has (toString $pdb.maxUnavailable) (list "0" "0%"))) }}
- podDisruptionBudget lets no pod go, so no node could ever be drained: maxUnavailable: 1
{{- end }}
{{- if $v.registry.enabled }}
{{- $service := include "authserver.registryService" . }}
{{- $found := dict }}
{{- range $config.services }}{{ if eq .name $service }}{{ $found = . }}{{ end }}{{ end }}
{{- if and $config.services (not $found) }}
- registry.service {{ $service | quote }} is not one of config.services
{{- else if ne (default "chain" $found.verifier) "chain" }}
- registry.service {{ $service | quote }} has verifier {{ $found.verifier }}: the registry of this chart trusts the root, verifier chain
{{- end }}
{{- if hasKey $v.registry.config "auth" }}
- registry.config.auth is the chart's: without it, or with another, the registry would be open to others than the policy says
{{- end }}
{{- range regexFindAll "(?mi)^[ -]*(secret|secretkey|accountkey|accesskeysecret|private_?key|password|authorization):" (toYaml $v.registry.config) -1 | uniq }}
- registry.config has a {{ trimAll " -:" . }}, and a ConfigMap is no place for one: leave it out, and take it from a Secret (registry.extraEnv)
{{- end }}
{{- if and $v.registry.rootCertificate.configMap $v.registry.rootCertificate.secret }}
- registry.rootCertificate.configMap and secret exclude one another: give one
{{- end }}
{{- end }}
{{- end -}}
