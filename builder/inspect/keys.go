package inspect

import (
	"path"
	"slices"
)

// What the first boot writes, and the keys of the cluster file that decide
// about it; the first pattern that matches counts. A test changes every key and
// sees which paths change.
var keysOf = []struct {
	pattern string
	keys    []string
}{
	{"/etc/docker/daemon.json", []string{"docker.insecureRegistries", "docker.ipMasq", "docker.options", "network.mtu", "network.mode", "network.cbr0", "network.flannel.backend", "network.uplinkMTU", "docker.dataRoot", "docker.logDriver", "docker.logMaxSize", "docker.logMaxFiles", "docker.userlandProxy", "docker.liveRestore", "network.bridge"}},
	{"/etc/docker/certs.d/*/*", []string{"docker.registries"}},
	{"/etc/kubernetes/registries.json", []string{"docker.registries", "docker.registries[0].passwordFile"}},
	{"/etc/tmpfiles.d/kscratch-registries.conf", []string{"docker.registries", "kubelet.rootDir"}},
	{"/etc/tmpfiles.d/kscratch.conf", []string{"kubelet.rootDir", "docker.dataRoot"}},
	{"/etc/hosts", []string{"name", "controlPlane.endpoint"}},
	{"/etc/kscratch/node.json", []string{"kubelet.rootDir", "network.clusterCIDR", "network.serviceCIDR", "network.cbr0", "network.mode", "network.routeController", "kubelet.nodeNames", "security", "network.clusterDomain", "name", "controlPlane.endpoint", "controlPlane.extraSANs", "docker.dataRoot", "network.bridge", "etcd.members"}},
	{"/etc/kscratch/etcd.yaml", []string{"components.etcd", "security", "etcd.members", "etcd.extraFlags", "manifests.patches"}},
	{"/etc/kscratch/filter.nft", []string{"etcd.members", "security", "network.masquerade", "network.nonMasqueradeCIDRs", "network.nodeCIDRs", "network.clusterCIDR", "network.serviceCIDR"}},
	{"/etc/kscratch/flannel.json", []string{"network.mode", "network.flannel.backend", "network.clusterCIDR"}},
	{"/etc/kubernetes/manifests/etcd.yaml", []string{"components.etcd", "security", "etcd.extraFlags", "manifests.patches", "etcd.members"}},
	{"/etc/kubernetes/manifests/kube-apiserver.yaml", []string{"kubernetes.version", "network.serviceCIDR", "network.clusterDomain", "network.nodeCIDRs", "controlPlane.endpoint", "security", "controlPlane.apiServer.extraFlags", "manifests.patches", "etcd.members"}},
	{"/etc/kubernetes/manifests/kube-controller-manager.yaml", []string{"kubernetes.version", "name", "network.clusterCIDR", "network.serviceCIDR", "network.cbr0", "network.mode", "security", "controlPlane.controllerManager.extraFlags", "manifests.patches", "etcd.members"}},
	{"/etc/kubernetes/manifests/kube-scheduler.yaml", []string{"kubernetes.version", "security", "controlPlane.scheduler.extraFlags", "manifests.patches", "etcd.members"}},
	{"/etc/kubernetes/bootstrap/20-coredns.yaml", []string{"components.coreDNS", "network.clusterDNS", "network.clusterDomain"}},
	{"/etc/modules-load.d/kscratch-flannel.conf", []string{"network.mode", "network.flannel.backend"}},
	{"/etc/kubernetes/authentication.yaml", []string{"security"}},
	{"/etc/kubernetes/bootstrap/*", []string{"security"}},
	{"/etc/kubernetes/kube-proxy.yaml", []string{"kubeProxy.mode", "network.clusterCIDR", "network.nodeCIDRs", "kubeProxy.extraConfig", "network.bridge"}},
	{"/etc/kubernetes/kubelet.yaml", []string{"kubelet.rootDir", "kubelet.registerNode", "network.clusterDNS", "network.clusterDomain", "controlPlane.schedulable", "network.cbr0", "security", "kubelet.maxPods", "kubelet.extraConfig"}},
	{"/etc/kubernetes/*.kubeconfig", []string{"pki", "name", "controlPlane.endpoint", "security"}},
	{"/etc/kubernetes/pki/*", []string{"pki"}},
	{"/etc/kubernetes/pki/etcd/*", []string{"pki"}},
	{"/etc/systemd/network/50-*", []string{"network.clusterDNS", "network.clusterDomain", "network.mtu", "network.cbr0", "network.mode", "network.routes", "network.flannel.backend", "network.uplinkMTU", "network.bridge"}},
	{"/etc/systemd/network/*", []string{"network.routes", "network.uplinkMTU", "network.cbr0", "network.mode"}},
	{"/etc/systemd/system/kubelet.service", []string{"network.clusterDNS", "kubelet.rootDir", "kubelet.registerNode", "kubelet.nodeNames", "controlPlane.schedulable", "network.cbr0", "security", "kubelet.extraFlags", "kubelet.maxPods", "kubelet.extraConfig"}},
	{"/etc/systemd/system/kube-proxy.service", []string{"kubeProxy.extraFlags", "kubeProxy.extraConfig"}},
	{"/etc/systemd/system/cri-docker.service", []string{"network.flannel.backend", "network.uplinkMTU", "network.mode", "components.pause", "network.cbr0", "network.mtu"}},
	{"/etc/systemd/system/containerd.service.d/*", []string{"docker.nofile"}},
	{"/etc/systemd/system/docker.service.d/*", []string{"docker.nofile", "network.cbr0", "docker.dataRoot"}},
	{"/etc/systemd/system/kscratch-filter.service", []string{"security", "network.masquerade"}},
	{"/etc/systemd/system/flanneld.service", []string{"network.mode"}},
	{"/etc/systemd/system/kscratch-etcd.service", []string{"etcd.members"}},
	{"/etc/systemd/system/kscratch-*", []string{"kubelet.rootDir", "security", "network.cbr0", "network.mode", "network.routeController", "docker.dataRoot"}},
}

// ConfigKeys returns the keys that decide about a path which the first boot
// writes; none for what is the same in every image of a role.
func ConfigKeys(p string) []string {
	for _, k := range keysOf {
		if ok, err := path.Match(k.pattern, p); ok && err == nil {
			return slices.Clone(k.keys)
		}
	}
	return nil
}
