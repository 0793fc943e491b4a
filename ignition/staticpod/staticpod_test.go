package staticpod_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kscratch/kscratch/ignition/staticpod"
)

func TestCheck(t *testing.T) {
	for _, tt := range []struct{ name, spec, want string }{
		{"files of the node", "{volumes: [{name: a, hostPath: {path: /a}}, {name: b, emptyDir: {}}]}", ""},
		{"what the kubelet knows by itself", "{volumes: [{name: a, downwardAPI: {}}, {name: b, projected: {sources: [{downwardAPI: {}}]}}]," +
			"containers: [{name: a, env: [{name: A, value: b}, {name: B, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]}]}", ""},
		{"account", "{serviceAccountName: a, serviceAccount: b}", "spec.serviceAccountName spec.serviceAccount"},
		{"claims", "{resourceClaims: [{name: a}], imagePullSecrets: [{name: a}]}", "spec.resourceClaims spec.imagePullSecrets"},
		{"environment", "{containers: [{name: a}, {name: b, env: [{name: A}, {name: B, valueFrom: {secretKeyRef: {key: k}}}, " +
			"{name: C, valueFrom: {configMapKeyRef: {key: k}}}], envFrom: [{secretRef: {}}, {configMapRef: {}}]}]}",
			"spec.containers[1].env[1].valueFrom.secretKeyRef spec.containers[1].env[2].valueFrom.configMapKeyRef " +
				"spec.containers[1].envFrom[0].secretRef spec.containers[1].envFrom[1].configMapRef"},
		{"other containers", "{initContainers: [{name: a, envFrom: [{secretRef: {}}]}], ephemeralContainers: [{name: a, envFrom: [{secretRef: {}}]}]}",
			"spec.initContainers[0].envFrom[0].secretRef spec.ephemeralContainers[0].envFrom[0].secretRef"},
		{"volumes", "{volumes: [{configMap: {}}, {secret: {}}, {csi: {}}, {glusterfs: {}}, {persistentVolumeClaim: {}}, {ephemeral: {}}, {azureFile: {}}]}",
			"spec.volumes[0].configMap spec.volumes[1].secret spec.volumes[2].csi spec.volumes[3].glusterfs " +
				"spec.volumes[4].persistentVolumeClaim spec.volumes[5].ephemeral spec.volumes[6].azureFile"},
		{"secrets of volumes", "{volumes: [{cephfs: {secretRef: {}}}, {cinder: {secretRef: {}}}, {flexVolume: {secretRef: {}}}, {rbd: {secretRef: {}}}, " +
			"{scaleIO: {secretRef: {}}}, {iscsi: {secretRef: {}}}, {storageos: {secretRef: {}}}, {iscsi: {}}]}",
			"spec.volumes[0].cephfs.secretRef spec.volumes[1].cinder.secretRef spec.volumes[2].flexVolume.secretRef spec.volumes[3].rbd.secretRef " +
				"spec.volumes[4].scaleIO.secretRef spec.volumes[5].iscsi.secretRef spec.volumes[6].storageos.secretRef"},
		{"projected", "{volumes: [{projected: {sources: [{configMap: {}}, {secret: {}}, {serviceAccountToken: {}}, {clusterTrustBundle: {}}, {podCertificate: {}}]}}]}",
			"spec.volumes[0].projected.sources[0].configMap spec.volumes[0].projected.sources[1].secret spec.volumes[0].projected.sources[2].serviceAccountToken " +
				"spec.volumes[0].projected.sources[3].clusterTrustBundle spec.volumes[0].projected.sources[4].podCertificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var pod corev1.Pod
			if err := yaml.UnmarshalStrict([]byte("spec: "+tt.spec), &pod); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range staticpod.Check(&pod) {
				got = append(got, p.Path)
				if !strings.Contains(p.Msg, "which a static pod may not") || p.Fix == "" {
					t.Errorf("%+v", p)
				}
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
