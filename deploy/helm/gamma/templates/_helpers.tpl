{{- define "gamma.labels" -}}
app.kubernetes.io/name: gamma
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "gamma.image" -}}
{{- with .image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.tag }}{{ end }}
{{- end }}
{{- end }}

{{/* Changes when the secrets or the settings do, so that pods restart. */}}
{{- define "gamma.checksums" -}}
{{- $secret := .Values.secret.values -}}
{{- if not $secret -}}
{{- $secret = dig "data" dict (lookup "v1" "Secret" .Release.Namespace .Values.secret.name | default dict) -}}
{{- end -}}
checksum/settings: {{ include "gamma.settings" . | sha256sum }}
checksum/secret: {{ .Values.secret.checksum | default ($secret | toJson | sha256sum) | quote }}
{{- end }}

{{- define "gamma.settings" -}}
{{- $found := dict "GAMMA_SECRETS_DIR" "/run/secrets" -}}
{{- with .Values.store.url }}{{ $_ := set $found "GAMMA_STORE" . }}{{ end -}}
{{- with .Values.traces.endpoint }}{{ $_ := set $found "OTEL_EXPORTER_OTLP_ENDPOINT" . }}{{ end -}}
{{- with .Values.checkpoint -}}
{{- if eq .source "hub" }}{{ $_ := set $found "GAMMA_CHECKPOINT" (required "checkpoint.name" .name) }}
{{- else if ne .source "builtin" }}{{ $_ := set $found "GAMMA_CHECKPOINT" (printf "/models/%s" (required "checkpoint.path" .path)) }}
{{- end }}
{{- end -}}
{{- range $name, $value := .Values.settings }}{{ $_ := set $found $name (toString $value) }}{{ end -}}
{{- toYaml $found }}
{{- end }}

{{- define "gamma.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "gamma.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "gamma.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      app.kubernetes.io/component: {{ . }}
  matchLabelKeys: [pod-template-hash]
{{- end }}

{{/* Class of a pod: `kind` is service or worker. */}}
{{- define "gamma.priority" -}}
{{- $classes := .root.Values.priorityClasses -}}
{{- if $classes.create -}}
priorityClassName: {{ .root.Release.Namespace }}-{{ .kind }}
{{- else if get $classes .kind -}}
priorityClassName: {{ get $classes .kind }}
{{- end }}
{{- end }}

{{/* The volume of secrets, with these `keys` of the Secret. */}}
{{- define "gamma.secrets" -}}
- name: secrets
  secret:
    secretName: {{ .root.Values.secret.name }}
    defaultMode: 0440
    items:
      {{- range .keys }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
{{- end }}

{{/* Volumes, mounts and variables of external services; `bucket`: whether the program uses it. */}}
{{- define "gamma.externalVolumes" -}}
{{- with .root.Values.redis.tlsSecret }}
- name: redis-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- if and .bucket .root.Values.store.url }}
{{- with .root.Values.store.credentialsSecret }}
- name: aws
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .root.Values.store.caSecret }}
- name: aws-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end }}

{{- define "gamma.externalMounts" -}}
{{- if .root.Values.redis.tlsSecret }}
- name: redis-tls
  mountPath: /run/redis
  readOnly: true
{{- end }}
{{- if and .bucket .root.Values.store.url }}
{{- if .root.Values.store.credentialsSecret }}
- name: aws
  mountPath: /run/aws
  readOnly: true
{{- end }}
{{- if .root.Values.store.caSecret }}
- name: aws-ca
  mountPath: /run/aws-ca
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{- define "gamma.bucketVariables" -}}
{{- if .Values.store.url }}
{{- range $name, $value := dict
    "AWS_ENDPOINT_URL" .Values.store.endpoint
    "AWS_REGION" .Values.store.region
    "AWS_SHARED_CREDENTIALS_FILE" (ternary "/run/aws/credentials" "" (ne .Values.store.credentialsSecret ""))
    "AWS_CA_BUNDLE" (ternary "/run/aws-ca/ca.crt" "" (ne .Values.store.caSecret "")) }}
{{- if $value }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The internet without private addresses. */}}
{{- define "gamma.internet" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except:
      - 0.0.0.0/8
      - 10.0.0.0/8
      - 100.64.0.0/10
      - 127.0.0.0/8
      - 168.63.129.16/32
      - 169.254.0.0/16
      - 172.16.0.0/12
      - 192.0.0.0/24
      - 192.168.0.0/16
      - 198.18.0.0/15
      - 224.0.0.0/3
- ipBlock:
    cidr: 2000::/3
{{- end }}

{{/* A NetworkPolicy `name` by which `components` may reach `to` at `ports`. */}}
{{- define "gamma.egress" }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .name }}
  labels: {{- include "gamma.labels" .root | nindent 4 }}
spec:
  podSelector:
    matchExpressions:
      - key: app.kubernetes.io/component
        operator: In
        values: {{ .components | toJson }}
  policyTypes: [Egress]
  egress:
    - to: {{- .to | nindent 8 }}
      ports:
        {{- range .ports }}
        - port: {{ . }}
        {{- end }}
{{- end }}
