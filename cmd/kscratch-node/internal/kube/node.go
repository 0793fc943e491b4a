package kube

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// Ready says whether a node's kubelet is well, as far as the cluster knows:
// the controller manager takes that back when the kubelet falls silent.
func Ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// InternalIPs returns the IPv4 addresses under which a node is known to others
// in the cluster.
func InternalIPs(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && ip.Is4() && a.Type == corev1.NodeInternalIP {
			out = append(out, ip)
		}
	}
	return out
}

// Address returns the address of a node, in words if it has none.
func Address(n *corev1.Node) string {
	ips := InternalIPs(n)
	if len(ips) == 0 {
		return "an unknown address"
	}
	return ips[0].String()
}

// PodCIDR returns a node's range of pod addresses.
func PodCIDR(n *corev1.Node) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(n.Spec.PodCIDR)
	return p.Masked(), err == nil && p.Addr().Is4()
}
