package etcd

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/kscratch/kscratch/cmd/internal/memberapi"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// TestListening: etcd has stopped when its ports refuse, and at no other error.
func TestListening(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.99.1.1"), memberapi.PeerPort)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		name, address string
		ctx           context.Context
		want          bool
	}{
		{"refuses", "127.99.1.2", t.Context(), false},
		{"one port of two", "127.99.1.1", t.Context(), true},
		{"no time to ask", "127.99.1.2", over, true},
		{"no way there", "255.255.255.255", t.Context(), true},
	} {
		p := peers{self: firstboot.EtcdMember{Address: netip.MustParseAddr(c.address)}}
		if got := p.listening(c.ctx); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}
