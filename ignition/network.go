package ignition

import "fmt"

// network configures systemd-networkd: DHCP on every wired interface, and the
// pod bridge. The bridge has no address here: kscratch-node gives it the first
// of the node's pod CIDR in a drop-in, which is why the file's name is fixed.
func network(n Node) (part, error) {
	const dir = "/etc/systemd/network/"
	mtu := fmt.Sprintf("MTUBytes=%d", n.Network.MTU)
	const hostname = "UseHostname=no" // kscratch-node names the node, after the lease if it is told so
	return part{
		files: []file{
			text(dir+"10-uplink.network",
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
			),
			text(dir+"50-"+n.Network.Bridge+".netdev",
				"[NetDev]", "Name="+n.Network.Bridge, "Kind=bridge", mtu,
				"[Bridge]", "STP=no",
			),
			text(dir+"50-"+n.Network.Bridge+".network",
				"[Match]", "Name="+n.Network.Bridge, "Kind=bridge",
				"[Link]", mtu, "RequiredForOnline=no",
				"[Network]", "ConfigureWithoutCarrier=yes", "LinkLocalAddressing=no", "IPv6AcceptRA=no",
			),
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
	}, nil
}
