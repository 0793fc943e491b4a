package ignition

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/ignition/firstboot"
)

func members(n int) (out []firstboot.EtcdMember) {
	for i := range n {
		out = append(out, firstboot.EtcdMember{Name: string(rune('a' + i)), Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})})
	}
	return out
}

// TestMembers shows everything that three members of etcd change on a master.
// On a node they change nothing.
func TestMembers(t *testing.T) {
	for _, role := range []Role{Master, Worker} {
		n := testNode(role)
		_, plain, err := Ignition(n)
		if err != nil {
			t.Fatal(err)
		}
		had := map[string]string{}
		for _, e := range plain.Entries {
			had[e.Path] = string(e.Body)
		}
		n.Etcd.Members = members(3)
		_, got, err := Ignition(n)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		for _, e := range got.Entries {
			if body, ok := had[e.Path]; !ok || body != string(e.Body) {
				fmt.Fprintf(&b, "== %s %s %s\n%s\n", e.Path, e.Mode, e.Note, e.Body)
			}
			delete(had, e.Path)
		}
		for path := range had {
			fmt.Fprintf(&b, "== %s is gone\n", path)
		}
		if role == Worker {
			if b.Len() > 0 {
				t.Errorf("on a node:\n%s", b.Bytes())
			}
			continue
		}
		golden(t, "master-etcd-members.txt", b.Bytes())
	}
}

func TestMembersAreChecked(t *testing.T) {
	for _, c := range []struct {
		members []firstboot.EtcdMember
		want    string
	}{
		{members(1), ""},
		{members(2), "members of etcd: etcd.members: 2 of them: want 1, 3 or 5"},
		{append(members(2), members(1)...), `members of etcd: etcd member "a": its name or address stands twice`},
	} {
		n := testNode(Master)
		n.Etcd.Members = c.members
		_, err := Butane(n)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%d members: got %v, want %s", len(c.members), err, c.want)
		}
	}
}

// TestMembersBehindAFirewall: the port of kscratch-node's own is closed to
// strangers, too.
func TestMembersBehindAFirewall(t *testing.T) {
	n := testNode(Master)
	n.Security, n.Network.Nodes, n.Etcd.Members = Firewall, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, members(3)
	_, r, err := Ignition(n)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.Entries {
		if e.Path == filterPath && strings.Contains(string(e.Body), "{ 2379, 2380, 2382, 6443, 10250 }") {
			return
		}
	}
	t.Error("port 2382 is open to everybody")
}
