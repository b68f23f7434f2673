{{- define "xe.image" -}}
{{- $image := index .root.Values.image .which -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.name }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .root.Chart.AppVersion .root.Values.image.tag }}{{ end -}}
{{- end }}

{{/* The kms section of both programs' configuration. */}}
{{- define "xe.kms" -}}
{{- $kms := .Values.kms -}}
{{- if and (not $kms.provider) (not $kms.later) -}}
{{- fail "kms.provider is not set: choose who wraps data keys, one of local, aws, gcp, azure, openbao (docs/kms.md)" -}}
{{- end -}}
{{- $section := dict "timeoutSeconds" (int $kms.timeoutSeconds) "leaseSeconds" (int $kms.leaseSeconds) -}}
{{- if $kms.provider -}}
{{- $settings := $kms.settings -}}
{{- if eq $kms.provider "local" -}}{{- $settings = dict "kekFile" "/etc/xdp-encryptor/kek" -}}{{- end -}}
{{- if not $settings -}}
{{- fail (printf "kms.settings is empty: provider %s needs to know at least the key (docs/kms.md)" $kms.provider) -}}
{{- end -}}
{{- $_ := set $section "provider" $kms.provider -}}
{{- $_ := set $section $kms.provider $settings -}}
{{- end -}}
{{- if $kms.ca.configMap -}}{{- $_ := set $section "caFile" "/etc/xdp-encryptor/ca.pem" -}}{{- end -}}
{{- toPrettyJson $section -}}
{{- end }}

{{/* Volumes and mounts that the KMS needs, of both programs. */}}
{{- define "xe.kmsMounts" -}}
{{- if eq .Values.kms.provider "local" }}
# A plain file, not the link that a whole Secret would be: who owns a KEK file, and its mode, are checked. It does not follow
# changes of the Secret: restart the pods then.
- {name: kek, mountPath: /etc/xdp-encryptor/kek, subPath: {{ .Values.kms.kekSecret.key }}, readOnly: true}
{{- end }}
{{- if .Values.kms.ca.configMap }}
- {name: ca, mountPath: /etc/xdp-encryptor/ca.pem, subPath: {{ .Values.kms.ca.key }}, readOnly: true}
{{- end }}
{{- if .Values.kms.token.audience }}
- {name: kms-token, mountPath: /var/run/secrets/tokens, readOnly: true}
{{- end }}
{{- end }}

{{- define "xe.kmsVolumes" -}}
{{- if eq .Values.kms.provider "local" }}
- name: kek
  secret:
    secretName: {{ .Values.kms.kekSecret.name }}
    defaultMode: 0400
{{- end }}
{{- if .Values.kms.ca.configMap }}
- name: ca
  configMap:
    name: {{ .Values.kms.ca.configMap }}
{{- end }}
{{- if .Values.kms.token.audience }}
- name: kms-token
  projected:
    defaultMode: 0400
    sources:
      - serviceAccountToken:
          path: kms
          audience: {{ .Values.kms.token.audience }}
          expirationSeconds: {{ int .Values.kms.token.expirationSeconds }}
{{- end }}
{{- end }}

{{- define "xe.keymgrPort" -}}
{{- regexFind "[0-9]+$" .Values.keymgr.listen -}}
{{- end }}

{{/* Not empty when somebody else than the node itself can reach keymgr's metrics. */}}
{{- define "xe.keymgrIsOpen" -}}
{{- if not (regexMatch "^(127\\.|localhost:|\\[::1\\])" .Values.keymgr.listen) -}}yes{{- end -}}
{{- end }}

{{/* Where the kubelet asks keymgr how it is: on the node's loopback, of the family that keymgr listens with. */}}
{{- define "xe.keymgrProbeHost" -}}
{{- if hasPrefix "[" .Values.keymgr.listen -}}"::1"{{- else -}}127.0.0.1{{- end -}}
{{- end }}
