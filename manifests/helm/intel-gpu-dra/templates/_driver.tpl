{{/* Minor of Kubernetes 1.x: what the API server says, "1.33+" of some vendors included. */}}
{{- define "driver.minor" -}}
{{- regexFind "[0-9]+" .Capabilities.KubeVersion.Minor -}}
{{- end }}

{{/* "true" up to 1.30, where a controller of the driver allocates. */}}
{{- define "driver.classic" -}}
{{- if le (include "driver.minor" . | int) 30 }}true{{ end -}}
{{- end }}

{{- define "driver.controller" -}}
{{- if kindIs "invalid" .Values.controller.enabled | ternary (include "driver.classic" .) .Values.controller.enabled }}true{{ end -}}
{{- end }}

{{/* "true" where old and new plugin may serve side by side: kubelets from 1.33 on. */}}
{{- define "driver.sideBySide" -}}
{{- $kubelet := .Values.oldestKubelet | default (printf "1.%s" (include "driver.minor" .)) -}}
{{- if ge (regexFind "[0-9]+$" $kubelet | int) 33 }}true{{ end -}}
{{- end }}

{{- define "driver.openshift" -}}
{{- if kindIs "invalid" .Values.openshift.enabled | ternary (.Capabilities.APIVersions.Has "security.openshift.io/v1") .Values.openshift.enabled }}true{{ end -}}
{{- end }}

{{/* Served version of admission policies, empty without. */}}
{{- define "driver.policies" -}}
{{- if kindIs "invalid" .Values.admissionPolicies.enabled | or .Values.admissionPolicies.enabled -}}
{{- if ge (include "driver.minor" . | int) 30 -}}
v1
{{- else if or .Values.admissionPolicies.enabled (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1beta1/ValidatingAdmissionPolicy") -}}
v1beta1
{{- end -}}
{{- end -}}
{{- end }}

{{/* "true" if the hook is to be there: Helm speaks with an API server, or is told so. */}}
{{- define "driver.cleanup" -}}
{{- $helm := lookup "v1" "Namespace" "" "kube-system" | empty | not -}}
{{- if kindIs "invalid" .Values.cleanup.enabled | ternary $helm .Values.cleanup.enabled }}true{{ end -}}
{{- end }}

{{/* Version of resource.k8s.io that classes are written in: the newest that is served. Up to 1.33 none is unless it is switched on. */}}
{{- define "driver.resourceApi" -}}
{{- $versions := get (dict "31" "v1alpha3" "32" "v1beta1 v1alpha3" "33" "v1beta2 v1beta1") (include "driver.minor" .) | default "v1" | splitList " " -}}
{{- $served := list -}}
{{- range $versions }}{{ if $.Capabilities.APIVersions.Has (printf "resource.k8s.io/%s" .) }}{{ $served = append $served . }}{{ end }}{{ end -}}
{{- concat $served $versions | first -}}
{{- end }}

{{/* Cluster-wide names differ between the two kinds of DRA, as their rights do. */}}
{{- define "driver.prefix" -}}
intel-gpu-dra{{ if include "driver.classic" . }}-classic{{ end }}
{{- end }}

{{- define "driver.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* Of a component, as selectors have them: dict "component" NAME. They never change. */}}
{{- define "driver.selector" -}}
app.kubernetes.io/name: intel-gpu-dra
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "driver.image" -}}
{{ .Values.image.repository }}{{ if .simulated }}-simulated{{ end }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "driver.linuxOnAmd64" -}}
- {key: kubernetes.io/os, operator: In, values: [linux]}
- {key: kubernetes.io/arch, operator: In, values: [amd64]}
{{- end }}

{{/* What is not wrong in itself but goes wrong together; the schema has said the rest. */}}
{{- define "driver.check" -}}
{{- $minor := include "driver.minor" . -}}
{{- $settings := .Values.nodePlugin.settings -}}
{{- $source := $settings | dig "deviceEvents" "source" "kernel" -}}
{{- $mode := $settings | dig "sriov" "mode" "auto" -}}
{{- if and (eq $source "udev") (not .Values.nodePlugin.hostNetwork) -}}
{{- fail "nodePlugin.settings.deviceEvents.source: udev needs nodePlugin.hostNetwork: true - udevd's events do not leave the host's network namespace, and no new GPU would be noticed. Or leave the source at kernel, which every pod hears." -}}
{{- end -}}
{{- if not .Values.nodePlugin.hostUsers -}}
{{- fail "nodePlugin.hostUsers: false cannot be - the kernel sends its device events to no user namespace but the first, and no new GPU would be noticed." -}}
{{- end -}}
{{- if not (or .Values.nodePlugin.privileged .Values.simulate.enabled) -}}
{{- if or (eq $mode "fixed") (eq $mode "on-demand") -}}
{{- fail (printf "nodePlugin.settings.sriov.mode: %s needs nodePlugin.privileged: true - Virtual Functions are made by writing to /sys, which only a privileged container may. Or set the mode to off." $mode) -}}
{{- end -}}
{{- if and (include "driver.classic" .) (eq $mode "auto") -}}
{{- fail (printf "nodePlugin.privileged: false needs nodePlugin.settings.sriov.mode: off on Kubernetes 1.%s - Virtual Functions are made there for every claim that asks, by writing to /sys." $minor) -}}
{{- end -}}
{{- if $settings | dig "health" "recovery" "mode" "off" | ne "off" -}}
{{- fail "nodePlugin.settings.health.recovery needs nodePlugin.privileged: true - a card is recovered by writing to /sys. Or set its mode to off." -}}
{{- end -}}
{{- end -}}
{{- if and (include "driver.classic" .) (not (include "driver.controller" .)) -}}
{{- fail (printf "controller.enabled: false cannot be on Kubernetes 1.%s - up to 1.30 it is the controller that allocates; no pod would get a GPU." $minor) -}}
{{- end -}}
{{- if and .Values.alertReceiver.enabled (not (include "driver.controller" .)) -}}
{{- fail "alertReceiver.enabled needs controller.enabled: true - the controller takes the alerts." -}}
{{- end -}}
{{- if and .Values.webhook.enabled (not (include "driver.controller" .)) -}}
{{- fail "webhook.enabled needs controller.enabled: true - the controller judges the claims." -}}
{{- end -}}
{{- if and .Values.webhook.enabled (include "driver.classic" .) -}}
{{- fail (printf "webhook.enabled cannot be on Kubernetes 1.%s - claims have no configuration of the driver in them before 1.31; the custom resources' schemas check theirs." $minor) -}}
{{- end -}}
{{- if and .Values.webhook.enabled (eq .Values.webhook.certificate.from "certManager") (not (.Capabilities.APIVersions.Has "cert-manager.io/v1")) -}}
{{- fail "webhook.certificate.from: certManager needs cert-manager, and the API server does not serve cert-manager.io/v1. Install it first, or let the chart make the certificate: from: helm. (For `helm template`: --api-versions cert-manager.io/v1)" -}}
{{- end -}}
{{- if and .Values.classes.extendedResourceName (lt ($minor | int) 34) -}}
{{- fail (printf "classes.extendedResourceName needs Kubernetes 1.34, with the feature gate DRAExtendedResource; this is 1.%s." $minor) -}}
{{- end -}}
{{- if and .Values.monitoring.enabled (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- fail "monitoring.enabled needs the Prometheus operator, and the API server does not serve monitoring.coreos.com/v1. Install it first; without it see docs/monitoring.md. (For `helm template`: --api-versions monitoring.coreos.com/v1)" -}}
{{- end -}}
{{- if .Values.oldestKubelet -}}
{{- if gt (regexFind "[0-9]+$" .Values.oldestKubelet | int) ($minor | int) -}}
{{- fail (printf "oldestKubelet: %s is newer than the API server, 1.%s; kubelets cannot be." .Values.oldestKubelet $minor) -}}
{{- end -}}
{{- if and (ge ($minor | int) 31) (lt (regexFind "[0-9]+$" .Values.oldestKubelet | int) 31) -}}
{{- fail (printf "oldestKubelet: %s with an API server of 1.%s: kubelets up to 1.30 ask it for classic claims, which it does not have any more. Upgrade these nodes first." .Values.oldestKubelet $minor) -}}
{{- end -}}
{{- end -}}
{{- end }}
