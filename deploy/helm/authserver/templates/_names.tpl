{{/* Names and labels. */}}

{{- define "authserver.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's name, with the chart's where that is not in it; short enough for what is put behind it. */}}
{{- define "authserver.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "authserver.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects a part's pods; it never changes. Call with (list . "server"). */}}
{{- define "authserver.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "authserver.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "authserver.labels" -}}
{{- $root := index . 0 -}}
{{ include "authserver.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "authserver.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "authserver.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* repository:tag or repository@digest. Call with (list image defaultTag). */}}
{{- define "authserver.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 1) $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "authserver.tlsSecret" -}}
{{- if .Values.tls.existingSecret -}}
{{- .Values.tls.existingSecret -}}
{{- else -}}
{{- default (printf "%s-tls" (include "authserver.fullname" .)) .Values.certificate.secretName -}}
{{- end -}}
{{- end -}}

{{- define "authserver.keysSecret" -}}
{{- if .Values.keys.existingSecret -}}
{{- .Values.keys.existingSecret -}}
{{- else if .Values.signingCertificate.enabled -}}
{{- default (printf "%s-signing" (include "authserver.fullname" .)) .Values.signingCertificate.secretName -}}
{{- end -}}
{{- end -}}

{{- define "authserver.host" -}}
{{- regexReplaceAll "^[a-z]+://([^/:]*).*$" .Values.config.server.public_url "${1}" -}}
{{- end -}}

{{- define "authserver.port" -}}
{{- if .Values.service.port -}}
{{- .Values.service.port -}}
{{- else if .Values.tls.enabled -}}
443
{{- else -}}
80
{{- end -}}
{{- end -}}
