package ignition

import (
	"encoding/json"
	"fmt"
)

// flannel runs flanneld, which carries packets between pods on different
// nodes. It takes this node's range from its Node object, under the kubelet's
// identity, and leaves the packet filter alone.
func flannel(n Node) (part, error) {
	if n.Network.Mode != Flannel {
		return part{}, nil
	}
	const path = "/etc/kscratch/flannel.json"
	conf, err := json.MarshalIndent(map[string]any{
		"Network": n.Network.ClusterCIDR, "EnableIPv4": true, "Backend": map[string]string{"Type": string(n.Network.Backend)},
	}, "", "  ")
	if err != nil {
		return part{}, fmt.Errorf("writing %s: %w", path, err)
	}
	return part{
		files: []file{
			{path, 0o644, append(conf, '\n')},
			text("/etc/modules-load.d/kscratch-flannel.conf", "vxlan"),
		},
		units: []unit{{name: "flanneld.service", enabled: true, contents: ini(
			"[Unit]",
			"Description=Pod network between nodes",
			"Documentation=https://github.com/flannel-io/flannel",
			"Wants=network-online.target",
			"Requires=kscratch-pod-cidr.service",
			"After=network-online.target kscratch-pod-cidr.service kscratch-cluster.service kubelet.service",
			"StartLimitIntervalSec=0",
			"[Service]",
			"Type=notify",
			"EnvironmentFile="+nodeEnv,
			`ExecStartPre=/usr/bin/bash -c 'until test -s `+n.kubeletKubeconfig()+`; do sleep 1; done'`,
			command("/usr/bin/env", "NODE_NAME=${KSCRATCH_NODE_NAME}", "/usr/bin/flanneld",
				"--kube-subnet-mgr", "--kubeconfig-file="+n.kubeletKubeconfig(), "--net-config-path="+path,
				"--iptables-forward-rules=false", "--ip-masq=false"),
			"TimeoutStartSec=infinity",
			"Restart=always",
			"RestartSec=5",
			"[Install]",
			"WantedBy=multi-user.target",
		)}},
	}, nil
}
