package peers

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/kube"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// node returns a node that is so many hours old.
func node(name, pod string, age int, ips ...string) *corev1.Node {
	n := &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(-age) * time.Hour)),
		},
		Spec: corev1.NodeSpec{PodCIDR: pod},
	}
	for _, ip := range ips {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	return n
}

func TestPeers(t *testing.T) {
	self := kube.Self{
		Config: firstboot.Config{ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16")},
		Name:   "self", Pod: netip.MustParsePrefix("10.244.1.0/24"), Addrs: []netip.Addr{netip.MustParseAddr("192.168.76.10")},
	}
	own := node("self", "10.244.1.0/24", 9, "192.168.76.10")
	for _, tt := range []struct {
		name    string
		nodes   []*corev1.Node
		want    map[string]string
		remarks string // contained in the one remark; empty: none
	}{
		{"alone", nil, nil, ""},
		{"two peers", []*corev1.Node{node("a", "10.244.2.0/24", 1, "192.168.76.11"), node("b", "10.244.4.0/22", 2, "192.168.76.12")},
			map[string]string{"10.244.2.0/24": "192.168.76.11", "10.244.4.0/22": "192.168.76.12"}, ""},
		{"first IPv4 address", []*corev1.Node{node("a", "10.244.2.0/24", 1, "fd00::1", "192.168.76.11", "10.0.0.1")},
			map[string]string{"10.244.2.0/24": "192.168.76.11"}, ""},
		{"not published", []*corev1.Node{node("a", "", 1, "192.168.76.11")}, nil, ""},
		{"no address", []*corev1.Node{node("a", "10.244.2.0/24", 1)}, nil, "node a: it has no internal IPv4 address"},
		{"own address", []*corev1.Node{node("a", "10.244.2.0/24", 1, "192.168.76.10")}, nil, "192.168.76.10 is this machine's"},
		{"outside", []*corev1.Node{node("a", "10.245.2.0/24", 1, "192.168.76.11")}, nil, "10.245.2.0/24 is not in the cluster's"},
		{"everything", []*corev1.Node{node("a", "10.0.0.0/8", 1, "192.168.76.11")}, nil, "10.0.0.0/8 is not in the cluster's"},
		{"own range", []*corev1.Node{node("a", "10.244.1.128/25", 99, "192.168.76.11")}, nil, "overlaps that of this node"},
		{"the older one has it", []*corev1.Node{node("a", "10.244.2.0/24", 1, "192.168.76.11"), node("b", "10.244.2.0/25", 2, "192.168.76.12")},
			map[string]string{"10.244.2.0/25": "192.168.76.12"}, "node a: its pod CIDR 10.244.2.0/24 overlaps that of node b"},
	} {
		got, remarks := peers(self, append([]*corev1.Node{own}, tt.nodes...))
		want := map[netip.Prefix]netip.Addr{}
		for p, a := range tt.want {
			want[netip.MustParsePrefix(p)] = netip.MustParseAddr(a)
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, want)
		}
		if all := strings.Join(remarks, "\n"); (all == "") != (tt.remarks == "") || !strings.Contains(all, tt.remarks) || len(remarks) > 1 {
			t.Errorf("%s: got remarks %q, want %q", tt.name, all, tt.remarks)
		}
	}
}
