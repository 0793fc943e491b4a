package ignition

// sysctl sets kernel parameters and loads the modules that have them.
//
// The kubelet runs with protectKernelDefaults and would not start with other
// values of the second group (pkg/kubelet/cm/container_manager_linux.go).
func sysctl(Node) (part, error) {
	return part{files: []file{
		text("/etc/modules-load.d/kscratch.conf", "overlay", "br_netfilter", "nf_conntrack"),
		text("/etc/sysctl.d/90-kscratch.conf",
			"# Pods are routed, and what crosses their bridge passes kube-proxy's rules.",
			"net.ipv4.ip_forward = 1",
			"net.bridge.bridge-nf-call-iptables = 1",
			"net.bridge.bridge-nf-call-ip6tables = 1",
			"# What the kubelet insists on.",
			"vm.overcommit_memory = 1",
			"vm.panic_on_oom = 0",
			"kernel.panic = 10",
			"kernel.panic_on_oops = 1",
			"kernel.keys.root_maxkeys = 1000000",
			"kernel.keys.root_maxbytes = 25000000",
			"# Pods share one root user's limits.",
			"fs.inotify.max_user_instances = 8192",
			"fs.inotify.max_user_watches = 524288",
			"vm.max_map_count = 262144",
		),
	}}, nil
}
