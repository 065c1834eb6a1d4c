{{- define "egressd.labels" -}}
app.kubernetes.io/name: egressd
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "egressd.selector" -}}
app.kubernetes.io/name: egressd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "egressd.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "egressd.configMap" -}}
{{ .Values.existingConfigMap | default "egressd-policy" }}
{{- end }}

{{- define "egressd.seccomp" -}}
type: {{ .Values.seccompProfile.type }}
{{- if eq .Values.seccompProfile.type "Localhost" }}
localhostProfile: {{ .Values.seccompProfile.localhostProfile | quote }}
{{- end }}
{{- end }}

{{- define "egressd.probe" -}}
httpGet:
  {{- if not .root.Values.metrics.onNodeAddress }}
  host: 127.0.0.1
  {{- end }}
  path: {{ .path }}
  port: {{ .root.Values.metrics.port }}
{{- end }}
