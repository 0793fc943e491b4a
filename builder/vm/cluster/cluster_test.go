package cluster

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/builder/vm"
)

func TestPlan(t *testing.T) {
	pods := netip.MustParsePrefix("10.244.0.0/16")
	p, err := plan(Config{Name: "kscratch", Machines: 3, Endpoint: "127.0.0.1:6443", ClusterCIDR: pods})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range p.members {
		got = append(got, m.Name+" "+m.IP.String()+" "+m.Pod.String()+" "+m.mac.String())
	}
	want := "master 192.168.76.10 10.244.1.0/24 52:54:00:6b:73:00\nnode-1 192.168.76.11 10.244.2.0/24 52:54:00:6b:73:01\n" +
		"node-2 192.168.76.12 10.244.3.0/24 52:54:00:6b:73:02"
	if s := strings.Join(got, "\n"); s != want || p.port != 6443 || p.network.Names["api.kscratch.internal"] != p.members[0].IP {
		t.Errorf("got\n%s\nport %d, names %v, want\n%s", s, p.port, p.network.Names, want)
	}

	p, err = plan(Config{Name: "c", Machines: 2, Endpoint: "10.1.2.50:443", NoPodCIDR: true})
	if err != nil || p.network.Subnet.String() != "10.1.2.0/24" || p.members[1].IP.String() != "10.1.2.51" || p.members[1].Pod.IsValid() || p.port != 443 {
		t.Errorf("an address: got %+v, %v", p, err)
	}
	p, err = plan(Config{Name: "c", Machines: 1, Endpoint: "K8s.example.org:6443", ClusterCIDR: pods})
	if err != nil || p.network.Names["k8s.example.org"] != p.members[0].IP {
		t.Errorf("a name: got %v, %v", p.network.Names, err)
	}
	p, err = plan(Config{Name: "c", Machines: 1, Endpoint: "203.0.113.7:6443", ClusterCIDR: pods})
	if err != nil || p.network.Outside.Overlaps(p.network.Subnet) {
		t.Errorf("in the gateway's outer network: got %v, %v", p.network, err)
	}
	for _, tt := range []struct {
		name string
		c    Config
		want string
	}{
		{"too many", Config{Machines: 101, Endpoint: "a:1"}, "1 to 100"},
		{"none", Config{Machines: -1, Endpoint: "a:1"}, "1 to 100"},
		{"no port", Config{Machines: 1, Endpoint: "a"}, "missing port"},
		{"port", Config{Machines: 1, Endpoint: "a:70000"}, "out of range"},
		{"IPv6", Config{Machines: 1, Endpoint: "[fd00::1]:6443"}, "want an IPv4 address"},
		{"at the end of a subnet", Config{Machines: 3, Endpoint: "10.0.0.253:6443"}, "room for 3 machines"},
		{"no room for pods", Config{Machines: 8, Endpoint: "a:1", ClusterCIDR: netip.MustParsePrefix("10.0.0.0/24")}, "no room for pod CIDR 8"},
		{"no range", Config{Machines: 1, Endpoint: "a:1"}, "want an IPv4 network"},
	} {
		if _, err := plan(tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestState: a node counts if it is the machine's and has spoken since.
func TestState(t *testing.T) {
	on := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	m := &Member{Name: "node-1", IP: netip.MustParseAddr("192.168.76.11"), on: on}
	node := func(ip string, ready bool, seen time.Duration) vm.Node {
		return vm.Node{Addresses: []string{"Hostname n", "InternalIP " + ip}, Ready: ready, Why: "no CNI", Seen: on.Add(seen).Truncate(time.Second)}
	}
	for _, tt := range []struct {
		name  string
		m     *Member
		nodes []vm.Node
		want  string
	}{
		{"off", &Member{IP: m.IP}, nil, "is not powered on"},
		{"nobody", m, nil, "has not joined"},
		{"another", m, []vm.Node{node("192.168.76.10", true, time.Minute)}, "has not joined"},
		{"of the last run", m, []vm.Node{node("192.168.76.11", true, -time.Hour)}, "has said nothing yet"},
		{"not Ready", m, []vm.Node{node("192.168.76.11", false, time.Minute)}, "is not Ready: no CNI"},
		{"Ready", m, []vm.Node{node("192.168.76.10", false, 0), node("192.168.76.11", true, 0)}, ""},
	} {
		if got := new(Cluster).state(tt.m, tt.nodes); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
