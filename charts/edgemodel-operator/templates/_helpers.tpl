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
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
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
priorityClassName: {{ . | quote }}
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
  {{- if and (eq .component "operator") (include "edgemodel.dockerSecret" .root) }}
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

{{/* The configuration file of the programs: the type Settings says what each key means. A value that is null is left
     out, and means what the programs take without it. */}}
{{- define "edgemodel.config" -}}
{{- include "edgemodel.checkNetworks" . -}}
{{- $config := dict
      "runtimes" (.Values.runtimes | default dict)
      "registries" .Values.registries
      "sources" .Values.sources
      "builds" (include "edgemodel.builds" . | fromYaml)
      "signing" .Values.signing
      "signer" (dict "serviceName" "edgemodel-signer" "secretName" "edgemodel-signer-tls" "configMapName" "edgemodel-signer-ca" "operatorAccount" "edgemodel-operator" "tokenFile" "/var/run/secrets/edgemodel-signer/token" "port" 8443)
      "admission" (dict "serviceName" "edgemodel-admission" "secretName" "edgemodel-admission-tls" "webhookName" "edgemodel-admission" "port" 8443)
      "audit" (dict "intervalSeconds" .Values.audit.intervalSeconds "namespaceSelector" (include "edgemodel.judgedNamespaces" . | fromJson))
      "acceleratorClasses" (.Values.acceleratorClasses | default list)
      "tmpSizeLimit" (.Values.operator.tmpSizeLimit | default "10Gi" | toString)
      "metricsPort" 8080
-}}
{{- with .Values.logLevel -}}{{- $_ := set $config "logLevel" . -}}{{- end -}}
{{- with .Values.operator.maxConcurrentBuilds -}}{{- $_ := set $config "maxConcurrentBuilds" . -}}{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Where images are built, as YAML. Quantities may be given as numbers; the programs read texts. */}}
{{- define "edgemodel.builds" -}}
{{- $builds := deepCopy (.Values.builds | default dict) -}}
{{- $_ := set $builds "image" (.Values.image.digest | empty | ternary "" (include "edgemodel.image" .)) -}}
{{- $resources := dict "requests" dict "limits" dict -}}
{{- range $kind, $quantities := $builds.resources -}}
{{- range $name, $quantity := $quantities -}}
{{- $_ := set (get $resources $kind) $name (toString $quantity) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $builds "resources" $resources -}}
{{- with $builds.docker -}}
{{- $_ := set . "tlsSecretDir" (.tlsSecret | empty | ternary "" "/etc/edgemodel-docker") -}}
{{- $_ := unset . "tlsSecret" -}}
{{- end -}}
{{- toYaml $builds -}}
{{- end -}}

{{/* The Secret with which the operator speaks to Docker Engines, if one is named. */}}
{{- define "edgemodel.dockerSecret" -}}
{{- with (.Values.builds | default dict).docker -}}{{- .tlsSecret -}}{{- end -}}
{{- end -}}

{{/* Refuses networks of IPv4 that are written with the address of a host; the programs refuse those of IPv6. */}}
{{- define "edgemodel.checkNetworks" -}}
{{- range concat (.Values.sources.deniedNetworks | default list) (.Values.sources.allowedNetworks | default list) -}}
{{- if not (contains ":" .) -}}
{{- $parts := splitList "/" . -}}
{{- $address := 0 -}}
{{- range splitList "." (first $parts) -}}{{- $address = add (mul $address 256) (atoi .) -}}{{- end -}}
{{- $size := 1 -}}
{{- range until (sub 32 (atoi (last $parts)) | int) -}}{{- $size = mul $size 2 -}}{{- end -}}
{{- if mod $address $size -}}
{{- fail (printf "sources names the network %s, which has bits of a host: write its first address, or /32 for one address" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
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
    namespace: {{ .root.Release.Namespace | quote }}
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
      values: [{{ .Release.Namespace | quote }}, kube-system]
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
