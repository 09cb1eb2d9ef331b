{{/* What the values come to: where state is kept, and authserver.yaml. */}}

{{/* sqlite, postgres or none. */}}
{{- define "authserver.database" -}}
{{- $url := dig "database" "url" .Values.database.url .Values.config -}}
{{- if eq $url "none" -}}
none
{{- else if or (hasPrefix "postgres" $url) (and (not $url) .Values.database.existingSecret) -}}
postgres
{{- else -}}
sqlite
{{- end -}}
{{- end -}}

{{/* data_dir, database or secret. */}}
{{- define "authserver.keys" -}}
{{- if .Values.keys.store -}}
{{- .Values.keys.store -}}
{{- else if .Values.signingCertificate.enabled -}}
secret
{{- else if eq (include "authserver.database" .) "postgres" -}}
database
{{- else -}}
data_dir
{{- end -}}
{{- end -}}

{{/* "true" where something has to be kept in a volume. */}}
{{- define "authserver.stateful" -}}
{{- if or (eq (include "authserver.database" .) "sqlite") (eq (include "authserver.keys" .) "data_dir") -}}
true
{{- end -}}
{{- end -}}

{{/* "true" where two pods may run at once. */}}
{{- define "authserver.parallel" -}}
{{- if not (include "authserver.stateful" .) -}}
true
{{- else if and (ne (include "authserver.database" .) "sqlite") .Values.persistence.enabled (has "ReadWriteMany" .Values.persistence.accessModes) -}}
true
{{- end -}}
{{- end -}}

{{- define "authserver.replicas" -}}
{{- if .Values.autoscaling.enabled -}}
{{- int .Values.autoscaling.minReplicas -}}
{{- else -}}
{{- int .Values.replicaCount -}}
{{- end -}}
{{- end -}}

{{/* authserver.yaml: what the other values say, and over it .Values.config. */}}
{{- define "authserver.config" -}}
{{- $config := dict "issuer" (dict "data_dir" "/var/lib/authserver") -}}
{{- $_ := set $config "acl" (dict "files" (concat (list "policy.yaml") (keys .Values.extraPolicies | sortAlpha))) -}}
{{- $database := include "authserver.database" . -}}
{{- $users := list -}}
{{- if .Values.users.existingSecret -}}
{{- $users = append $users (dict "kind" "htpasswd" "file" "users.htpasswd") -}}
{{- end -}}
{{- if ne $database "none" -}}
{{- $users = append $users (dict "kind" "database") -}}
{{- end -}}
{{- $_ := set $config "users" $users -}}
{{- if .Values.database.url -}}
{{- $_ := set $config "database" (dict "url" .Values.database.url) -}}
{{- if .Values.database.existingSecret -}}
{{- $_ := set $config.database "password_file" "/run/secrets/authserver/database.password" -}}
{{- end -}}
{{- end -}}
{{- $keys := include "authserver.keys" . -}}
{{- if eq $keys "database" -}}
{{- $_ := set $config.issuer "keys" (dict "store" "database" "encryption_key_file" "/run/secrets/authserver/encryption.key") -}}
{{- else if eq $keys "secret" -}}
{{- $_ := set $config.issuer "keys" (dict "key_file" "/run/secrets/signing/tls.key" "certificate_file" "/run/secrets/signing/tls.crt") -}}
{{- end -}}
{{- if .Values.tls.enabled -}}
{{- $_ := set $config "server" (dict "tls" (dict "cert_file" "/run/secrets/tls/tls.crt" "key_file" "/run/secrets/tls/tls.key")) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.config)) -}}
{{- end -}}

{{/* A hash of what a running process does not take up (docs/operations.md): only a change of this rolls the pods. */}}
{{- define "authserver.restart" -}}
{{- $config := include "authserver.config" . | fromYaml -}}
{{- $server := default dict $config.server -}}
{{- $log := default dict $config.log -}}
{{- dict "server" (pick $server "listen" "ops_listen" "max_connections" "tls") "log" (pick $log "format") "audit" $config.audit "database" $config.database "tracing" $config.tracing | toYaml | sha256sum -}}
{{- end -}}

{{/* The port of host:port, :port or [::]:port. */}}
{{- define "authserver.listen" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{/* Seconds of 5s or 2m. */}}
{{- define "authserver.seconds" -}}
{{- $text := . | toString -}}
{{- if regexMatch "^[0-9]+m$" $text -}}
{{- mul 60 (trimSuffix "m" $text | int) -}}
{{- else -}}
{{- trimSuffix "s" $text | int -}}
{{- end -}}
{{- end -}}

{{- define "authserver.grace" -}}
{{- if .Values.terminationGracePeriodSeconds -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- else -}}
{{- add 40 (include "authserver.seconds" (default "0s" .Values.config.server.shutdown_delay) | int) -}}
{{- end -}}
{{- end -}}

{{/* GOMEMLIMIT: 88 % of the limit of memory, so that garbage is collected before the kernel kills. Nothing where there is no
     such limit, or extraEnv has its own. */}}
{{- define "authserver.memory" -}}
{{- $limit := get (default dict (default dict .Values.resources).limits) "memory" -}}
{{- $limit = ternary (printf "%.0f" $limit) (toString $limit) (kindIs "float64" $limit) -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $own := false -}}
{{- range .Values.extraEnv }}{{ if eq .name "GOMEMLIMIT" }}{{ $own = true }}{{ end }}{{ end -}}
{{- if and (regexMatch "[1-9]" $limit) (regexMatch "^[0-9]+(\\.[0-9]+)?([kMGT]|[KMGT]i)?$" $limit) (not $own) -}}
{{- printf "%.0fMiB" (divf (mulf (regexFind "^[0-9.]+" $limit) (get $units (regexFind "[A-Za-z]*$" $limit)) 0.88) 1048576 | floor) -}}
{{- end -}}
{{- end -}}

{{/* The service that the registry of this chart is. */}}
{{- define "authserver.registryService" -}}
{{- if .Values.registry.service -}}
{{- .Values.registry.service -}}
{{- else -}}
{{- with first (default list .Values.config.services) }}{{ .name }}{{ end -}}
{{- end -}}
{{- end -}}
