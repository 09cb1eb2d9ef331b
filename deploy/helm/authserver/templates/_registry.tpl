{{/* What a registry has to know, and where it finds what it is to trust. */}}

{{/* auth.token of a Distribution configuration. Call with (list . service "path of the root certificate"). */}}
{{- define "authserver.stanza" -}}
{{- $root := index . 0 -}}
{{- $service := index . 1 -}}
auth:
  token:
    realm: {{ $root.Values.config.server.public_url }}/token
    service: {{ $service.name }}
    issuer: {{ default (dig "issuer" "name" "authserver" $root.Values.config) $service.issuer }}
    rootcertbundle: {{ index . 2 }}
{{- end -}}

{{/* The host at which clients find the registry of this chart, without a port. */}}
{{- define "authserver.registryHost" -}}
{{- default (include "authserver.registryService" .) .Values.registry.host | regexFind "^[^:/]*" -}}
{{- end -}}

{{- define "authserver.registryTLSSecret" -}}
{{- default (printf "%s-registry-tls" (include "authserver.fullname" .)) .Values.registry.tlsSecret -}}
{{- end -}}

{{/* The ConfigMap or Secret with the root certificate, as {kind, name, key}. */}}
{{- define "authserver.rootCertificate" -}}
{{- $given := .Values.registry.rootCertificate -}}
{{- if $given.configMap -}}
{{- dict "kind" "configMap" "name" $given.configMap "key" (default "root.crt" $given.key) | toYaml -}}
{{- else if $given.secret -}}
{{- dict "kind" "secret" "name" $given.secret "key" (default "ca.crt" $given.key) | toYaml -}}
{{- else if eq (include "authserver.keys" .) "secret" -}}
{{- dict "kind" "secret" "name" (include "authserver.keysSecret" .) "key" (default "ca.crt" $given.key) | toYaml -}}
{{- else -}}
{{- dict "kind" "configMap" "name" (printf "%s-root" (include "authserver.fullname" .)) "key" (default "root.crt" $given.key) | toYaml -}}
{{- end -}}
{{- end -}}

{{/* config.yml of the registry of this chart. */}}
{{- define "authserver.registryConfig" -}}
{{- $service := dict "name" (include "authserver.registryService" .) -}}
{{- range .Values.config.services }}{{ if eq .name $service.name }}{{ $service = . }}{{ end }}{{ end -}}
{{- $config := include "authserver.stanza" (list . $service "/etc/registry/root.crt") | fromYaml -}}
{{- $_ := set $config "version" 0.1 -}}
{{- $_ := set $config "http" (dict "addr" ":5000" "headers" (dict "X-Content-Type-Options" (list "nosniff"))) -}}
{{- if not (omit (default dict .Values.registry.config.storage) "delete" "cache" "maintenance" "redirect" "tag") -}}
{{- $_ := set $config "storage" (dict "filesystem" (dict "rootdirectory" "/var/lib/registry")) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.registry.config)) -}}
{{- end -}}

{{/* "true" where the registry keeps its images on a volume. */}}
{{- define "authserver.registryVolume" -}}
{{- if hasKey (include "authserver.registryConfig" . | fromYaml).storage "filesystem" -}}
true
{{- end -}}
{{- end -}}
