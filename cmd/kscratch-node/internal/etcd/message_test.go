package etcd

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// TestMessages: each is one line that says what to do.
func TestMessages(t *testing.T) {
	members := []firstboot.EtcdMember{{Name: "a", Address: netip.MustParseAddr("192.0.2.1")}, {Name: "b", Address: netip.MustParseAddr("192.0.2.2")}}
	for _, c := range []struct{ got, want string }{
		{notAMember([]netip.Addr{netip.MustParseAddr("192.0.2.9")}, members), "it has the addresses [192.0.2.9], and etcd.members of the cluster file has a (192.0.2.1), b (192.0.2.2)"},
		{waiting([]string{"b"}, members), "waiting for b (192.0.2.2) to form the cluster. All masters have to run once for that: switch them on"},
		{waiting(nil, members), "all members are here; waiting for them to agree."},
		{noMajority([]string{"a", "b"}, members), "no majority: waiting for a (192.0.2.1), b (192.0.2.2)."},
		{held(strings.Repeat("0123456789", 6)), "held for a restore (012345678901) that has not ended"},
		{refused("a", "/d", formation.Verdict{Why: formation.LostDisk}), "this disk holds nothing of it: it is new, or its data was lost. On the operator's machine run: kscratch etcd replace-member a."},
		{refused("a", "/d", formation.Verdict{Why: formation.OtherCluster, Cluster: strings.Repeat("0123456789", 6)}), "most members are of cluster 012345678901, and the data in /d is of another one"},
		{refused("a", "/d", formation.Verdict{Why: formation.Removed}), "it was removed from the cluster. On the operator's machine run: kscratch etcd replace-member a."},
		{refused("a", "/d", formation.Verdict{Why: formation.Taken}), "another disk has taken its place since"},
	} {
		if !strings.Contains(c.got, c.want) || !strings.HasPrefix(c.got, "etcd: ") || strings.Contains(c.got, "\n") {
			t.Errorf("got  %s\nwant %s", c.got, c.want)
		}
	}
}
