package peers

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/crier"
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

// TestTakeover: a node object that another machine wrote is left alone, and
// cried about once that machine can no longer be the one before this.
func TestTakeover(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "dev"), 0o755), os.WriteFile(filepath.Join(dir, "dev/console"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	log := slog.New(slog.DiscardHandler)
	a := &agent{ // without an API: it must not be asked
		self: kube.Self{Name: "self", Pod: netip.MustParsePrefix("10.244.1.0/24"), MachineID: "mine", UUID: "mine"},
		log:  log, say: &crier.Crier{Root: root, Log: log},
	}
	own := node("self", "", 1, "192.168.76.12")
	own.Status.NodeInfo.MachineID = "theirs"
	for _, tt := range []struct {
		name  string
		since time.Duration
		cries bool
	}{{"just now", 0, false}, {"for a minute", time.Minute, false}, {"for long", time.Hour, true}} {
		if tt.since > 0 {
			a.other = time.Now().Add(-tt.since)
		}
		if remark := a.publish(t.Context(), own); remark != "" {
			t.Errorf("%s: %s", tt.name, remark)
		}
		b, err := root.ReadFile("dev/console")
		if err != nil || strings.Contains(string(b), "another machine, at 192.168.76.12, says that it is node self") != tt.cries {
			t.Errorf("%s: console %q, %v", tt.name, b, err)
		}
	}
	own.Spec.PodCIDR = "10.244.1.0/24"
	own.Status.NodeInfo.MachineID, own.Status.NodeInfo.SystemUUID = "mine", "MINE"
	if a.publish(t.Context(), own); !a.other.IsZero() {
		t.Error("the machine itself has spoken, and is still another one")
	}
}
