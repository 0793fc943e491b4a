package etcd

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// The texts for people. Each says what is the matter, and what to do.

func notAMember(addrs []netip.Addr, members []firstboot.EtcdMember) string {
	return fmt.Sprintf("etcd: this machine is no member: it has the addresses %v, and etcd.members of the cluster file has %s. Waiting for one of those: see to DHCP, or change the file and build the image anew.",
		addrs, list(names(members), members))
}

// list writes members with their addresses.
func list(of []string, members []firstboot.EtcdMember) string {
	var out []string
	for _, m := range members {
		for _, name := range of {
			if m.Name == name {
				out = append(out, fmt.Sprintf("%s (%s)", m.Name, m.Address))
			}
		}
	}
	return strings.Join(out, ", ")
}

func waiting(missing []string, members []firstboot.EtcdMember) string {
	if len(missing) == 0 {
		return "etcd: all members are here; waiting for them to agree."
	}
	return fmt.Sprintf("etcd: waiting for %s to form the cluster. All masters have to run once for that: switch them on, and let them reach each other on TCP ports 2379, 2380 and 2382.",
		list(missing, members))
}

func noMajority(silent []string, members []firstboot.EtcdMember) string {
	return fmt.Sprintf("etcd: no majority: waiting for %s.", list(silent, members))
}

func held(id string) string {
	return fmt.Sprintf("etcd: held for a restore (%.12s) that has not ended. On the operator's machine run: kscratch etcd restore FILE, or kscratch etcd restore --release.", id)
}

func failed(err error) string {
	return fmt.Sprintf("etcd: kscratch-node cannot look after this member, and tries again: %s.", strings.ReplaceAll(err.Error(), "\n", "; "))
}

func refused(name, dataDir string, v formation.Verdict) string {
	const run = "On the operator's machine run: kscratch etcd replace-member "
	switch v.Why {
	case formation.OtherCluster:
		return fmt.Sprintf("etcd: member %s refuses to start: most members are of cluster %.12s, and the data in %s is of another one. %s%s. The data is then kept aside.",
			name, v.Cluster, dataDir, run, name)
	case formation.Removed:
		return fmt.Sprintf("etcd: member %s refuses to start: it was removed from the cluster. %s%s.", name, run, name)
	case formation.Taken:
		return fmt.Sprintf("etcd: member %s refuses to start: it was replaced, but another disk has taken its place since. %s%s.", name, run, name)
	}
	return fmt.Sprintf("etcd: member %s refuses to start: the cluster exists, and this disk holds nothing of it: it is new, or its data was lost. %s%s.", name, run, name)
}
