package ignition

import "fmt"

const networkDir = "/etc/systemd/network/"

// network configures systemd-networkd: DHCP on every wired interface, and the
// pod bridge, unless kubenet makes that.
func network(n Node) (part, error) {
	p := part{
		files: []file{
			uplink(n.Network),
			// Routes of kscratch-node, flanneld and kube-proxy's rules are theirs.
			text("/etc/systemd/networkd.conf.d/10-kscratch.conf",
				"[Network]", "ManageForeignRoutes=no", "ManageForeignRoutingPolicyRules=no",
			),
			text("/etc/iproute2/rt_protos.d/kscratch.conf", "75 kscratch"),
			text("/etc/systemd/resolved.conf.d/10-kscratch.conf",
				"[Resolve]", "LLMNR=no", "MulticastDNS=no",
			),
			// Docker copies the file into containers, and Go programs read it.
			text("/etc/hosts", "127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"),
		},
		units: []unit{
			{name: "systemd-networkd.service", enabled: true},
			{name: "systemd-resolved.service", enabled: true},
			{name: "systemd-networkd-wait-online.service", enabled: true, dropins: []dropin{{"10-kscratch.conf", ini(
				"[Service]",
				"ExecStart=", // one interface with a cable is enough
				"ExecStart=/usr/lib/systemd/systemd-networkd-wait-online --any --timeout=60",
			)}}},
		},
	}
	if n.Network.Auto {
		p.units = append(p.units, clusterDNS(n.Network))
	} else {
		p.files = append(p.files, bridge(n.Network)...)
	}
	return p, nil
}

func uplink(w Network) file {
	const hostname = "UseHostname=no" // kscratch-node names the node, after the lease if it is told so
	lines := []string{
		"[Match]", "Name=en* eth*", "Type=ether", "Kind=!*", // no kind: not a bridge, veth or the like
		"[Link]", "RequiredForOnline=routable", "RequiredFamilyForOnline=ipv4",
		"[Network]", "DHCP=yes",
		// The address is reserved for the machine, not for what is installed on it.
		"[DHCPv4]", "ClientIdentifier=mac", hostname,
		"[DHCPv6]", hostname,
		// The API server and the kubelet take the address of the
		// interface with the default route. A network without a router
		// has none; this one counts only then.
		"[Route]", "Destination=0.0.0.0/0", "Scope=link", "Metric=4294967295",
	}
	for _, r := range w.Routes {
		lines = append(lines, "[Route]", "Destination="+r.To.String(), "Gateway="+r.Via.String())
	}
	return text(networkDir+"10-uplink.network", lines...)
}

// bridge makes the pod bridge. It has no address here: kscratch-node gives it
// the first of the node's pod CIDR in a drop-in, which is why the file's name
// is fixed.
//
// What the node itself asks for in the cluster's domain goes to the cluster's
// DNS server, with the bridge's address as the sender, which every node has a
// route back to.
func bridge(w Network) []file {
	mtu := fmt.Sprintf("MTUBytes=%d", w.MTU)
	return []file{
		text(networkDir+"50-"+w.Bridge+".netdev",
			"[NetDev]", "Name="+w.Bridge, "Kind=bridge", mtu,
			"[Bridge]", "STP=no",
		),
		text(networkDir+"50-"+w.Bridge+".network",
			"[Match]", "Name="+w.Bridge, "Kind=bridge",
			"[Link]", mtu, "RequiredForOnline=no",
			"[Network]", "ConfigureWithoutCarrier=yes", "LinkLocalAddressing=no", "IPv6AcceptRA=no",
			"DNS="+w.DNS.String(), "Domains=~"+w.Domain, "DNSDefaultRoute=no",
		),
	}
}

// clusterDNS tells systemd-resolved what [bridge] says in a file, each time that
// kubenet has made the bridge: networkd has no part in that one.
func clusterDNS(w Network) unit {
	device := "sys-subsystem-net-devices-" + w.Bridge + ".device"
	return unit{name: "kscratch-cluster-dns.service", enabled: true, contents: ini(
		"[Unit]", "Description=Names of the cluster's services on this node",
		"BindsTo="+device,
		"After="+device+" systemd-resolved.service",
		"[Service]", "Type=oneshot", "RemainAfterExit=yes",
		"ExecStart=/usr/bin/resolvectl dns "+w.Bridge+" "+w.DNS.String(),
		"ExecStart=/usr/bin/resolvectl domain "+w.Bridge+" ~"+w.Domain,
		"ExecStart=/usr/bin/resolvectl default-route "+w.Bridge+" no",
		"[Install]", "WantedBy="+device,
	)}
}
