package lan

import (
	"context"
	"errors"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// The gateway's network card. Its address is of the locally administered ones.
const (
	nic        = 1
	mtu        = 1500
	gatewayMAC = "\x02\x6b\x73\x00\x00\x01"
)

// gateway is gVisor's protocol stack with one card.
type gateway struct {
	stack *stack.Stack
	card  *channel.Endpoint
}

func newGateway(c Config) (*gateway, error) {
	// A channel endpoint has no room for Ethernet's header in its MTU.
	card := channel.New(queue, mtu+header.EthernetMinimumSize, gatewayMAC)
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	g := &gateway{s, card}
	if err := s.CreateNIC(nic, ethernet.New(card)); err != nil {
		return nil, errors.New(err.String())
	}
	var routes []tcpip.Route
	for _, p := range []netip.Prefix{netip.PrefixFrom(c.Gateway(), c.Subnet.Bits()), c.Outside} {
		addr := tcpip.ProtocolAddress{
			Protocol:          ipv4.ProtocolNumber,
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(p.Addr().As4()), PrefixLen: p.Bits()},
		}
		if err := s.AddProtocolAddress(nic, addr, stack.AddressProperties{}); err != nil {
			return nil, errors.New(err.String())
		}
	}
	subnet := tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(c.Subnet.Addr().As4()), PrefixLen: c.Subnet.Bits()}
	routes = append(routes, tcpip.Route{Destination: subnet.Subnet(), NIC: nic})
	// DHCP's broadcasts.
	routes = append(routes, tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: nic})
	s.SetRouteTable(routes)
	return g, nil
}

// receive takes a frame from the switch.
func (g *gateway) receive(frame []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	defer pkt.DecRef()
	g.card.InjectInbound(0, pkt) // the header says what it is
}

// send gives the gateway's frames to the switch until ctx ends.
func (g *gateway) send(ctx context.Context, forward func([]byte)) {
	for {
		pkt := g.card.ReadContext(ctx)
		if pkt == nil {
			return
		}
		view := pkt.ToView()
		forward(view.AsSlice())
		view.Release()
		pkt.DecRef()
	}
}

func (g *gateway) close() {
	g.stack.Close()
	g.card.Close()
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(a.Addr().As4()), Port: a.Port()}
}
