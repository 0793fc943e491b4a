package ignition

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// staticPod is a pod of one container that the kubelet runs from a file. Such
// a pod can refer to no object of the API: it has files of the node only.
type staticPod struct {
	name, image string
	command     []string
	mounts      []mount
	cpu         string // requested
	memory      string // requested
	probes      probes
}

// mount is a path of the node, at the same path in the container.
type mount struct {
	name     string // of the volume
	path     string
	kind     corev1.HostPathType
	writable bool
}

// probes is where a component says that it lives and that it is ready, at
// 127.0.0.1.
type probes struct {
	scheme      corev1.URIScheme
	port        int
	live, ready string // paths
}

func (s staticPod) pod() corev1.Pod {
	return corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: s.name, Namespace: metav1.NamespaceSystem,
			Labels: map[string]string{"component": s.name, "tier": "control-plane"},
		},
		Spec: corev1.PodSpec{
			HostNetwork:       true,
			PriorityClassName: "system-node-critical",
			SecurityContext: &corev1.PodSecurityContext{
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{s.container()},
			Volumes:    s.volumes(),
		},
	}
}

// container gives the component ten minutes to start, since a machine without
// KVM needs some of them, and then little patience.
func (s staticPod) container() corev1.Container {
	c := corev1.Container{
		Name: s.name, Image: s.image, ImagePullPolicy: corev1.PullIfNotPresent, Command: s.command,
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse(s.cpu),
			corev1.ResourceMemory: resource.MustParse(s.memory),
		}},
		StartupProbe:   s.probe(s.probes.live, 5, 120),
		LivenessProbe:  s.probe(s.probes.live, 10, 8),
		ReadinessProbe: s.probe(s.probes.ready, 5, 3),
	}
	for _, m := range s.mounts {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: m.name, MountPath: m.path, ReadOnly: !m.writable})
	}
	return c
}

func (s staticPod) probe(at string, seconds, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Host: host, Path: at, Port: intstr.FromInt(s.probes.port), Scheme: s.probes.scheme,
		}},
		PeriodSeconds: seconds, TimeoutSeconds: 15, FailureThreshold: failures,
	}
}

func (s staticPod) volumes() []corev1.Volume {
	var out []corev1.Volume
	for _, m := range s.mounts {
		out = append(out, corev1.Volume{Name: m.name, VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: m.path, Type: &m.kind},
		}})
	}
	return out
}

// manifest returns the part that is one static pod on a master.
func (n Node) manifest(s staticPod) (part, error) {
	if n.Role != Master {
		return part{}, nil
	}
	pod, err := n.patched(s.pod())
	if err != nil {
		return part{}, err
	}
	b, err := asYAML(pod)
	if err != nil {
		return part{}, fmt.Errorf("writing the manifest of %s: %w", s.name, err)
	}
	return part{files: []file{{manifestDir + "/" + s.name + ".yaml", 0o600, b}}}, nil
}
