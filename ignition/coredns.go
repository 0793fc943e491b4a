package ignition

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Names and the label by which Kubernetes knows its DNS server; the first is
// what tools look for.
const (
	dnsService = "kube-dns"
	dnsName    = "coredns"
	dnsRole    = "system:coredns"
)

var dnsLabels = map[string]string{"k8s-app": dnsService}

// coreDNS runs the cluster's DNS server, unless there is no image for it.
func coreDNS(n Node) (part, error) {
	if n.Images.CoreDNS == "" {
		return part{}, nil
	}
	b, err := manifestOf(
		corev1.ServiceAccount{TypeMeta: kind("v1", "ServiceAccount"), ObjectMeta: dnsMeta(dnsName)},
		dnsClusterRole(), dnsBinding(), dnsConfig(n), dnsDeployment(n), dnsServiceObject(n),
	)
	if err != nil {
		return part{}, err
	}
	return n.onMaster(part{files: []file{{bootstrapDir + "/20-coredns.yaml", 0o644, b}}}), nil
}

func kind(version, name string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version, Kind: name}
}

func dnsMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem, Labels: dnsLabels}
}

func dnsClusterRole() rbacv1.ClusterRole {
	objects := rule("", "namespaces", "list", "watch")
	objects.Resources = append(objects.Resources, "pods", "services")
	return clusterRole(dnsRole, objects, rule("discovery.k8s.io", "endpointslices", "list", "watch"))
}

func dnsBinding() rbacv1.ClusterRoleBinding {
	b := binding(dnsRole, dnsRole, rbacv1.ServiceAccountKind, dnsName)
	b.Subjects[0].APIGroup, b.Subjects[0].Namespace = "", metav1.NamespaceSystem
	return b
}

// dnsConfig answers for the cluster's domain and hands the rest to the
// resolvers of the node.
func dnsConfig(n Node) corev1.ConfigMap {
	corefile := fmt.Sprintf(`.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes %s in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
        max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
`, n.Network.Domain)
	return corev1.ConfigMap{
		TypeMeta: kind("v1", "ConfigMap"), ObjectMeta: dnsMeta(dnsName), Data: map[string]string{"Corefile": corefile},
	}
}

func dnsServiceObject(n Node) corev1.Service {
	m := dnsMeta(dnsService)
	m.Labels = map[string]string{"k8s-app": dnsService, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
	return corev1.Service{
		TypeMeta: kind("v1", "Service"), ObjectMeta: m,
		Spec: corev1.ServiceSpec{
			ClusterIP: n.Network.DNS.String(), Selector: dnsLabels,
			Ports: []corev1.ServicePort{
				{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(53)},
				{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(53)},
				{Name: "metrics", Port: 9153, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(9153)},
			},
		},
	}
}

// dnsDeployment runs one server: there may be one node only.
func dnsDeployment(n Node) appsv1.Deployment {
	return appsv1.Deployment{
		TypeMeta: kind(appsv1.SchemeGroupVersion.String(), "Deployment"), ObjectMeta: dnsMeta(dnsName),
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(1)),
			Selector: &metav1.LabelSelector{MatchLabels: dnsLabels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: dnsLabels},
				Spec: corev1.PodSpec{
					PriorityClassName: "system-cluster-critical", ServiceAccountName: dnsName, DNSPolicy: corev1.DNSDefault,
					NodeSelector: map[string]string{corev1.LabelOSStable: "linux"},
					Tolerations: []corev1.Toleration{
						{Key: "CriticalAddonsOnly", Operator: corev1.TolerationOpExists},
						{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule},
					},
					Containers: []corev1.Container{dnsContainer(n)},
					Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{
						ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: dnsName}},
					}}},
				},
			},
		},
	}
}

func dnsContainer(n Node) corev1.Container {
	probe := func(at string, port, failures int32) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: at, Port: intstr.FromInt32(port)}},
			PeriodSeconds: 10, TimeoutSeconds: 15, FailureThreshold: failures,
		}
	}
	return corev1.Container{
		Name: dnsName, Image: n.Images.CoreDNS, ImagePullPolicy: corev1.PullIfNotPresent,
		Args: []string{"-conf", "/etc/coredns/Corefile"},
		Ports: []corev1.ContainerPort{
			{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP},
			{Name: "dns-tcp", ContainerPort: 53, Protocol: corev1.ProtocolTCP},
			{Name: "metrics", ContainerPort: 9153, Protocol: corev1.ProtocolTCP},
		},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("70Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("170Mi")},
		},
		StartupProbe:   probe("/health", 8080, 30),
		LivenessProbe:  probe("/health", 8080, 6),
		ReadinessProbe: probe("/ready", 8181, 3),
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
			Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_BIND_SERVICE"}, Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/coredns", ReadOnly: true}},
	}
}
