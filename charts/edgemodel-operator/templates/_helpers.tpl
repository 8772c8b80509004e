{{/* The image of all programs. */}}
{{- define "edgemodel.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels that choose the pods of a component. Call with (dict "root" $ "component" NAME). */}}
{{- define "edgemodel.selector" -}}
app.kubernetes.io/name: edgemodel-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{/* Labels of every object of a component. */}}
{{- define "edgemodel.labels" -}}
{{ include "edgemodel.selector" . }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: edgemodel
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{/* What both pods have in common. Call with (dict "root" $ "component" NAME "values" VALUES). */}}
{{- define "edgemodel.podBasics" -}}
serviceAccountName: edgemodel-{{ .component }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* What both containers have in common. */}}
{{- define "edgemodel.containerBasics" -}}
image: {{ include "edgemodel.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [{{ .component }}]
env:
  - name: POD_NAMESPACE
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
  - name: POD_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
startupProbe:
  httpGet:
    path: /healthz
    port: metrics
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /healthz
    port: metrics
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 3
  timeoutSeconds: 3
{{- with .values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - name: config
    mountPath: /etc/edgemodel
    readOnly: true
  - name: tmp
    mountPath: /tmp
  {{- if and (eq .component "operator") .root.Values.builds.docker.tlsSecret }}
  - name: docker
    mountPath: /etc/edgemodel-docker
    readOnly: true
  {{- end }}
  {{- if eq .component "operator" }}
  - name: signer-token
    mountPath: /var/run/secrets/edgemodel-signer
    readOnly: true
  {{- end }}
{{- end -}}

{{/* The configuration file of the programs: the type Settings says what each key means. */}}
{{- define "edgemodel.config" -}}
{{- $classes := .Values.acceleratorClasses | default list -}}
{{- $sources := dict "maxBytes" (int64 .Values.sources.maxBytes) "timeoutSeconds" (int64 .Values.sources.timeoutSeconds) "deniedNetworks" (.Values.sources.deniedNetworks | default list) "allowedNetworks" (.Values.sources.allowedNetworks | default list) -}}
{{- $config := dict
      "runtimes" (.Values.runtimes | default dict)
      "registries" .Values.registries
      "sources" $sources
      "builds" (include "edgemodel.builds" . | fromYaml)
      "signing" .Values.signing
      "signer" (dict "serviceName" "edgemodel-signer" "secretName" "edgemodel-signer-tls" "configMapName" "edgemodel-signer-ca" "operatorAccount" "edgemodel-operator" "tokenFile" "/var/run/secrets/edgemodel-signer/token" "port" 8443)
      "admission" (dict "serviceName" "edgemodel-admission" "secretName" "edgemodel-admission-tls" "webhookName" "edgemodel-admission" "port" 8443)
      "audit" (dict "intervalSeconds" (int64 .Values.audit.intervalSeconds) "namespaceSelector" (include "edgemodel.judgedNamespaces" . | fromJson))
      "acceleratorClasses" $classes
      "logLevel" .Values.logLevel
      "maxConcurrentBuilds" (int64 .Values.operator.maxConcurrentBuilds)
      "metricsPort" 8080
-}}
{{- toYaml $config -}}
{{- end -}}

{{/* Where images are built. Helm reads large numbers as floats; quantities may be given as numbers. */}}
{{- define "edgemodel.builds" -}}
{{- $builds := .Values.builds -}}
mode: {{ $builds.mode }}
image: {{ with .Values.image }}{{ if .digest }}{{ .repository }}@{{ .digest }}{{ else }}""{{ end }}{{ end }}
imagePullSecrets: {{ $builds.imagePullSecrets | default list | toJson }}
converters: {{ $builds.converters | default dict | toJson }}
resources:
  {{- range $kind := list "requests" "limits" }}
  {{ $kind }}:
    {{- range $name, $quantity := get ($builds.resources | default dict) $kind | default dict }}
    {{ $name }}: {{ $quantity | toString | quote }}
    {{- else }} {}
    {{- end }}
  {{- end }}
nodeSelector: {{ $builds.nodeSelector | default dict | toJson }}
workSizeLimit: {{ $builds.workSizeLimit }}
timeoutSeconds: {{ int64 $builds.timeoutSeconds }}
maxConcurrentJobs: {{ $builds.maxConcurrentJobs }}
finishedSeconds: {{ int64 $builds.finishedSeconds }}
{{- with $builds.buildah }}
buildah:
  image: {{ .image | quote }}
  userNamespaces: {{ .userNamespaces }}
  network: {{ .network | quote }}
  maxImageBytes: {{ int64 .maxImageBytes }}
{{- end }}
{{- with $builds.docker }}
docker:
  engines: {{ .engines | default dict | toJson }}
  tlsSecretDir: {{ .tlsSecret | empty | ternary "" "/etc/edgemodel-docker" | quote }}
  emulation: {{ .emulation }}
  network: {{ .network | quote }}
  memoryBytes: {{ int64 .memoryBytes }}
  timeoutSeconds: {{ int64 .timeoutSeconds }}
  maxImageBytes: {{ int64 .maxImageBytes }}
{{- end }}
{{- end -}}

{{/* What all webhooks have in common. Call with (dict "root" $ "path" PATH). */}}
{{- define "edgemodel.webhookBasics" -}}
matchPolicy: Equivalent
sideEffects: {{ .sideEffects | default "None" }}
timeoutSeconds: 10
admissionReviewVersions: [v1]
clientConfig:
  service:
    name: edgemodel-admission
    namespace: {{ .root.Release.Namespace }}
    path: {{ .path }}
    port: 443
{{- end -}}

{{/* The selector of the namespaces that are judged, before those that never are; as JSON. Helm merges maps: were
     the label in values.yaml, a selector of one's own would only be added to it, and {} would change nothing. */}}
{{- define "edgemodel.judgedNamespaces" -}}
{{- $given := .Values.admission.namespaceSelector -}}
{{- if not (kindIs "map" $given) -}}
{{- fail "admission.namespaceSelector is null: set admission.allNamespaces to judge every namespace, or write {} to judge those with the label edgemodel.dev/verify-images=enforce" -}}
{{- end -}}
{{- $selector := dict -}}
{{- range $part := list "matchLabels" "matchExpressions" -}}
{{- with get $given $part -}}{{- $_ := set $selector $part . -}}{{- end -}}
{{- end -}}
{{- if and .Values.admission.allNamespaces $selector -}}
{{- fail "admission.allNamespaces judges every namespace and admission.namespaceSelector only some: give one of them" -}}
{{- else if or .Values.admission.allNamespaces $selector -}}
{{- toJson $selector -}}
{{- else -}}
{{- dict "matchLabels" (dict "edgemodel.dev/verify-images" "enforce") | toJson -}}
{{- end -}}
{{- end -}}

{{/* The namespaces that are judged. */}}
{{- define "edgemodel.guardedNamespaces" -}}
{{- $selector := include "edgemodel.judgedNamespaces" . | fromJson -}}
namespaceSelector:
  {{- with $selector.matchLabels }}
  matchLabels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  matchExpressions:
    # This label is set by the API server and says the name: a tenant cannot imitate it. Were the webhook to
    # judge its own pods, a site that lost power could not start it again.
    - key: kubernetes.io/metadata.name
      operator: NotIn
      values: [{{ .Release.Namespace }}, kube-system]
    {{- with $selector.matchExpressions }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* CEL: all images that a pod would run, as a list. Call with the variable that holds the pod. */}}
{{- define "edgemodel.imagesOf" -}}
{{ . }}.spec.containers.map(one, one.?image.orValue("")) +
{{ . }}.spec.?initContainers.orValue([]).map(one, one.?image.orValue("")) +
{{ . }}.spec.?ephemeralContainers.orValue([]).map(one, one.?image.orValue("")) +
{{ . }}.spec.?volumes.orValue([]).filter(one, has(one.image)).map(one, one.image.?reference.orValue(""))
{{- end -}}

{{/* Asks only about what would run something new. Labels, finalizers and deletions pass also while no replica
     answers: else an outage would keep pods from going. */}}
{{- define "edgemodel.runsSomethingNew" -}}
- name: runs-something-new
  expression: >-
    request.operation != "UPDATE" ||
    ({{ include "edgemodel.imagesOf" "object" | nindent 4 | trim }}) !=
    ({{ include "edgemodel.imagesOf" "oldObject" | nindent 4 | trim }})
{{- end -}}
