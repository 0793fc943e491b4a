package builder

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/kscratch/kscratch/ignition/field"
)

// validateEtcd reports what is wrong with the members of etcd.
func validateEtcd(s *Spec, bad report) {
	list := s.Etcd.Members
	switch n := len(list); {
	case n == 0:
		return
	case n%2 == 0:
		bad("etcd.members", fmt.Sprintf("has %d members: an even number bears no more failures than one less", n), "name 1, 3 or 5")
	case n > 5:
		bad("etcd.members", fmt.Sprintf("has %d members, and every write waits for most of them", n), "name 1, 3 or 5")
	}
	for i, m := range list {
		at := field.Index("etcd.members", i)
		matches(bad, at+".name", m.Name, dnsLabel, "a DNS label: lower-case letters, digits and dashes, at most 63")
		if j := slices.IndexFunc(list[:i], func(o EtcdMember) bool { return o.Name == m.Name }); j >= 0 {
			bad(at+".name", fmt.Sprintf("%q is the name of etcd.members[%d], too", m.Name, j), "give each master a name of its own")
		}
		if j := slices.IndexFunc(list[:i], func(o EtcdMember) bool { return o.Address == m.Address }); j >= 0 {
			bad(at+".address", fmt.Sprintf("%q is the address of etcd.members[%d], too", m.Address, j), "give each master an address of its own")
		}
		validateMemberAddress(s.Network, at+".address", m.Address, bad)
	}
}

// validateMemberAddress reports an address that no master can have.
func validateMemberAddress(w Network, at, address string, bad report) {
	a, err := netip.ParseAddr(address)
	if err != nil || !a.Is4() {
		bad(at, fmt.Sprintf("%q is not an IPv4 address", address), "write it like 192.168.1.10")
		return
	}
	if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		bad(at, fmt.Sprintf("%s is not an address that other machines reach", a), "name that of the master's own network card")
		return
	}
	for _, r := range []struct{ name, cidr string }{{"network.clusterCIDR", w.ClusterCIDR}, {"network.serviceCIDR", w.ServiceCIDR}} {
		if p, err := netip.ParsePrefix(r.cidr); err == nil && p.Contains(a) {
			bad(at, fmt.Sprintf("%s is inside %s %s, which is for pods and services", a, r.name, p), "name that of the master's own network card")
			return
		}
	}
	if len(w.NodeCIDRs) > 0 && !slices.ContainsFunc(w.NodeCIDRs, func(c string) bool {
		p, err := netip.ParsePrefix(c)
		return err != nil || p.Contains(a) // a network that is none has been reported
	}) {
		bad(at, fmt.Sprintf("%s is outside of network.nodeCIDRs", a), "name the masters' network there, too")
	}
}
