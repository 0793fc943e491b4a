// Package staticpod says what a pod may not have that the kubelet runs from a
// file.
//
// Such a pod has no object of the API behind it that an admission plugin could
// look at, so since 1.34 the kubelet refuses one that refers to other objects:
// it logs an error and does not start the pod. What counts as a reference is
// what HasAPIObjectReference in pkg/api/pod of Kubernetes 1.36 says.
package staticpod

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/kscratch/kscratch/ignition/field"
)

// Check returns the fields by which a pod refers to objects of the API: service
// accounts, secrets, config maps, claims and the like. A static pod with one of
// them does not start.
func Check(pod *corev1.Pod) []field.Problem {
	var c check
	s := &pod.Spec
	c.refuse(s.ServiceAccountName != "", "spec.serviceAccountName", "a ServiceAccount")
	c.refuse(s.DeprecatedServiceAccount != "", "spec.serviceAccount", "a ServiceAccount")
	c.refuse(len(s.ResourceClaims) > 0, "spec.resourceClaims", "ResourceClaims")
	c.refuse(len(s.ImagePullSecrets) > 0, "spec.imagePullSecrets", "Secrets")
	c.containers("spec.initContainers", s.InitContainers)
	c.containers("spec.containers", s.Containers)
	for i, e := range s.EphemeralContainers {
		c.env(field.Index("spec.ephemeralContainers", i), e.Env, e.EnvFrom)
	}
	for i := range s.Volumes {
		c.volume(field.Index("spec.volumes", i), &s.Volumes[i].VolumeSource)
	}
	return c.problems
}

type check struct{ problems []field.Problem }

func (c *check) refuse(refers bool, path, to string) {
	if refers {
		c.problems = append(c.problems, field.Problem{
			Path: path, Msg: "refers to " + to + ", which a static pod may not", Fix: "use a file of the node by way of hostPath",
		})
	}
}

func (c *check) containers(path string, list []corev1.Container) {
	for i, e := range list {
		c.env(field.Index(path, i), e.Env, e.EnvFrom)
	}
}

func (c *check) env(path string, env []corev1.EnvVar, from []corev1.EnvFromSource) {
	for i, e := range env {
		if v := e.ValueFrom; v != nil {
			at := field.Index(path+".env", i) + ".valueFrom"
			c.refuse(v.SecretKeyRef != nil, at+".secretKeyRef", "a Secret")
			c.refuse(v.ConfigMapKeyRef != nil, at+".configMapKeyRef", "a ConfigMap")
		}
	}
	for i, e := range from {
		at := field.Index(path+".envFrom", i)
		c.refuse(e.SecretRef != nil, at+".secretRef", "a Secret")
		c.refuse(e.ConfigMapRef != nil, at+".configMapRef", "a ConfigMap")
	}
}

// volume looks for what takes an object of the API, or names a secret of it.
func (c *check) volume(path string, v *corev1.VolumeSource) {
	c.refuse(v.ConfigMap != nil, path+".configMap", "a ConfigMap")
	c.refuse(v.Secret != nil, path+".secret", "a Secret")
	c.refuse(v.CSI != nil, path+".csi", "a CSIDriver")
	c.refuse(v.Glusterfs != nil, path+".glusterfs", "Endpoints")
	c.refuse(v.PersistentVolumeClaim != nil, path+".persistentVolumeClaim", "a PersistentVolumeClaim")
	c.refuse(v.Ephemeral != nil, path+".ephemeral", "a PersistentVolumeClaim")
	c.refuse(v.AzureFile != nil, path+".azureFile", "a Secret")
	c.refuse(v.CephFS != nil && v.CephFS.SecretRef != nil, path+".cephfs.secretRef", "a Secret")
	c.refuse(v.Cinder != nil && v.Cinder.SecretRef != nil, path+".cinder.secretRef", "a Secret")
	c.refuse(v.FlexVolume != nil && v.FlexVolume.SecretRef != nil, path+".flexVolume.secretRef", "a Secret")
	c.refuse(v.RBD != nil && v.RBD.SecretRef != nil, path+".rbd.secretRef", "a Secret")
	c.refuse(v.ScaleIO != nil && v.ScaleIO.SecretRef != nil, path+".scaleIO.secretRef", "a Secret")
	c.refuse(v.ISCSI != nil && v.ISCSI.SecretRef != nil, path+".iscsi.secretRef", "a Secret")
	c.refuse(v.StorageOS != nil && v.StorageOS.SecretRef != nil, path+".storageos.secretRef", "a Secret")
	if v.Projected == nil {
		return
	}
	for i, s := range v.Projected.Sources {
		at := field.Index(path+".projected.sources", i)
		c.refuse(s.ConfigMap != nil, at+".configMap", "a ConfigMap")
		c.refuse(s.Secret != nil, at+".secret", "a Secret")
		c.refuse(s.ServiceAccountToken != nil, at+".serviceAccountToken", "a ServiceAccount")
		c.refuse(s.ClusterTrustBundle != nil, at+".clusterTrustBundle", "a ClusterTrustBundle")
		c.refuse(s.PodCertificate != nil, at+".podCertificate", "a PodCertificateRequest")
	}
}
