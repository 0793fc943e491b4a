package lint

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/kscratch/kscratch/ignition"
)

const daemonJSON = "/etc/docker/daemon.json"

// block is a range of addresses with a use.
type block struct {
	where, use string
	netip.Prefix
}

// special are ranges that mean something else to every machine (RFC 6890).
var special = []block{
	{use: "loopback addresses", Prefix: netip.MustParsePrefix("127.0.0.0/8")},
	{use: "link-local addresses", Prefix: netip.MustParsePrefix("169.254.0.0/16")},
	{use: "multicast and reserved addresses", Prefix: netip.MustParsePrefix("224.0.0.0/3")},
	{use: "this host", Prefix: netip.MustParsePrefix("0.0.0.0/8")},
}

// pools are the ranges of docker's own networks where daemon.json has no
// default-address-pools (libnetwork/ipamutils of moby).
var pools = []string{"172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16", "172.20.0.0/14", "172.24.0.0/14", "172.28.0.0/14", "192.168.0.0/16"}

func cidrOverlap(n *node) []Finding {
	w := n.Network
	const apart = "choose ranges that share no address"
	cluster := block{"network.clusterCIDR", "pods", w.ClusterCIDR}
	service := block{"network.serviceCIDR", "services", w.ServiceCIDR}
	var out []Finding
	clash := func(s Severity, a, b block, fix string) {
		if a.IsValid() && b.IsValid() && a.Overlaps(b.Prefix) {
			out = append(out, Finding{Severity: s, Where: a.where, What: fmt.Sprintf("%s for %s overlaps %s for %s", a.Prefix, a.use, b.Prefix, b.use), Fix: fix})
		}
	}
	clash(Error, service, cluster, apart)
	for _, s := range special {
		clash(Error, cluster, s, apart)
		clash(Error, service, s, apart)
	}
	var nodes []block
	for i, p := range w.Nodes {
		b := block{fmt.Sprintf("network.nodeCIDRs[%d]", i), "nodes", p}
		nodes = append(nodes, b)
		clash(Error, b, cluster, apart)
		clash(Error, b, service, apart)
	}
	own, where, ok := n.dockerPools()
	if !ok {
		out = append(out, Finding{Severity: Error, Where: where, What: "default-address-pools is no list of base and size", Fix: "write it like [{base: 172.30.0.0/16, size: 24}]"})
	}
	for _, b := range own {
		s := Error
		if b.where == "" {
			s, b.where = Warning, where
		}
		clash(s, b, cluster, "set docker.options.default-address-pools to ranges of their own")
		clash(s, b, service, "set docker.options.default-address-pools to ranges of their own")
		if s == Error {
			for _, node := range nodes {
				clash(s, b, node, apart)
			}
		}
	}
	for i, r := range w.Routes {
		out = append(out, route(i, r, service, nodes)...)
	}
	return out
}

// route judges a static route. Parts of the pods' range are what such routes
// are for, and a default route may cover everything.
func route(i int, r ignition.Route, service block, nodes []block) []Finding {
	where := fmt.Sprintf("network.routes[%d]", i)
	var out []Finding
	if r.To.Bits() > 0 && r.To.Contains(r.Via) {
		out = append(out, Finding{Severity: Error, Where: where, What: fmt.Sprintf("the way to %s is by %s, which is a part of it", r.To, r.Via),
			Fix: "name a next hop outside of the destination"})
	}
	inside := func(p netip.Prefix) bool {
		return p.IsValid() && r.To.Bits() >= p.Bits() && p.Overlaps(r.To)
	}
	if inside(service.Prefix) {
		out = append(out, Finding{Severity: Warning, Where: where, What: fmt.Sprintf("%s lies in %s for services, which kube-proxy answers for on each node", r.To, service.Prefix),
			Fix: "leave the route out"})
	}
	if service.IsValid() && service.Contains(r.Via) {
		out = append(out, Finding{Severity: Error, Where: where, What: fmt.Sprintf("the next hop %s is an address for services", r.Via), Fix: "name a machine"})
	}
	for _, node := range nodes {
		if inside(node.Prefix) {
			out = append(out, Finding{Severity: Warning, Where: where, What: fmt.Sprintf("%s lies in %s for nodes, which are on the link", r.To, node.Prefix), Fix: "leave the route out"})
		}
	}
	return out
}

// dockerPools returns the ranges of docker's own networks. Docker's defaults
// have no place.
func (n *node) dockerPools() (out []block, where string, ok bool) {
	const use = "docker's own networks"
	where = n.Files.where(daemonJSON)
	conf, _ := n.daemon()
	if conf.Pools == nil {
		for _, p := range pools {
			out = append(out, block{"", use, netip.MustParsePrefix(p)})
		}
		return out, where, true
	}
	var list []struct{ Base netip.Prefix }
	if err := json.Unmarshal(conf.Pools, &list); err != nil {
		return nil, where, false
	}
	for _, p := range list {
		out = append(out, block{where, use, p.Base.Masked()})
	}
	return out, where, true
}

func clusterDNS(n *node) []Finding {
	w := n.Network
	if !w.DNS.IsValid() || !w.ServiceCIDR.IsValid() {
		return nil
	}
	const where = "network.clusterDNS"
	if !w.ServiceCIDR.Contains(w.DNS) {
		return found(Error, where, fmt.Sprintf("%s is outside of %s for services", w.DNS, w.ServiceCIDR), "use the tenth address of network.serviceCIDR")
	}
	if w.DNS == w.ServiceIP() || w.DNS == w.ServiceCIDR.Masked().Addr() {
		return found(Error, where, fmt.Sprintf("%s is taken: the API server has the first address of %s", w.DNS, w.ServiceCIDR), "use the tenth address of network.serviceCIDR")
	}
	conf, err := n.kubelet()
	if err != nil || len(conf.ClusterDNS) == 0 || conf.ClusterDNS[0] == w.DNS.String() {
		return nil
	}
	return found(Error, n.Files.where(kubeletYAML), fmt.Sprintf("clusterDNS is %s, and the DNS service has %s", conf.ClusterDNS[0], w.DNS), "set network.clusterDNS")
}
