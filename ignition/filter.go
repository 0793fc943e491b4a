package ignition

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// filterPath has the packet filter's rules that are ours; the rest is
// kube-proxy's.
const filterPath = "/etc/kscratch/filter.nft"

// filter loads our rules into nftables: who may reach the cluster's own ports,
// where that is what keeps them safe, and whose address pods have outside.
func filter(n Node) (part, error) {
	var tables []string
	if n.anonymous() {
		tables = append(tables, firewall(n))
	}
	if n.Network.Masquerade {
		tables = append(tables, masquerade(n.Network))
	}
	if len(tables) == 0 {
		return part{}, nil
	}
	return part{
		files: []file{{filterPath, 0o644, []byte(strings.Join(tables, "\n"))}},
		units: []unit{{name: "kscratch-filter.service", enabled: true, contents: ini(
			"[Unit]",
			"Description=Packet filter of this node",
			"DefaultDependencies=no",
			"Wants=network-pre.target",
			"After=local-fs.target systemd-modules-load.service",
			"Before=network-pre.target shutdown.target",
			"Conflicts=shutdown.target",
			"[Service]",
			"Type=oneshot",
			"RemainAfterExit=yes",
			"ExecStart=/usr/sbin/nft --file "+filterPath,
			"[Install]",
			"RequiredBy=network-pre.target",
		)}},
	}, nil
}

// clusterPorts are etcd's (clients, peers, and where there are several members,
// kscratch-node's), the API server's and the kubelet's: whoever reaches them
// where nobody has to say who they are rules the cluster.
func (n Node) clusterPorts() string {
	if len(n.Etcd.Members) > 0 {
		return "{ 2379, 2380, 2382, 6443, 10250 }"
	}
	return "{ 2379, 2380, 6443, 10250 }"
}

// firewall refuses everyone who is neither a node nor a pod. Loading it again
// replaces it. It comes before kube-proxy's rules and does not look at what
// those forward.
func firewall(n Node) string {
	w := n.Network
	return fmt.Sprintf(`table inet kscratch-firewall
delete table inet kscratch-firewall
table inet kscratch-firewall {
	set cluster {
		type ipv4_addr
		flags interval
		auto-merge
		elements = { %s }
	}
	chain input {
		type filter hook input priority filter - 10; policy accept;
		iifname "lo" accept
		tcp dport %s jump ours
	}
	chain ours {
		ip saddr @cluster accept
		reject with tcp reset
	}
}
`, elements(slices.Concat([]netip.Prefix{w.ClusterCIDR}, w.Nodes)), n.clusterPorts())
}

// masquerade gives pods their node's address where nobody knows theirs.
func masquerade(w Network) string {
	return fmt.Sprintf(`table ip kscratch-masquerade
delete table ip kscratch-masquerade
table ip kscratch-masquerade {
	set internal {
		type ipv4_addr
		flags interval
		auto-merge
		elements = { %s }
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr %s ip daddr != @internal masquerade
	}
}
`, elements(slices.Concat([]netip.Prefix{w.ClusterCIDR}, w.Internal, w.Nodes)), w.ClusterCIDR)
}

func elements(ps []netip.Prefix) string {
	var out []string
	for _, p := range ps {
		if s := p.String(); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return strings.Join(out, ", ")
}
