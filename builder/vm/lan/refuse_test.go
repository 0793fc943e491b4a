package lan

import (
	"net"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// packet4 is an IPv4 packet in a frame to the gateway.
func packet4(from, to string, protocol tcpip.TransportProtocolNumber, fragment uint16, body []byte) []byte {
	b := frame(net.HardwareAddr(gatewayMAC), macA, 0x0800, "")
	ip := make(header.IPv4, header.IPv4MinimumSize)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip) + len(body)), TTL: 64, Protocol: uint8(protocol), FragmentOffset: fragment,
		SrcAddr: tcpip.AddrFrom4(netip.MustParseAddr(from).As4()), DstAddr: tcpip.AddrFrom4(netip.MustParseAddr(to).As4()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	return append(append(b, ip...), body...)
}

// TestRefuse: who may be told is told, and nobody else.
func TestRefuse(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("192.168.76.1"), netip.MustParseAddr("203.0.113.1")}
	eight := make([]byte, 8)
	ping := append([]byte{byte(header.ICMPv4Echo)}, eight...)
	unreachable := append([]byte{byte(header.ICMPv4DstUnreachable)}, eight...)
	broken := packet4("10.244.1.7", "192.0.2.1", header.TCPProtocolNumber, 0, eight)
	broken[headerSize+3]++ // longer than the frame
	for _, tt := range []struct {
		name  string
		frame []byte
		told  bool
	}{
		{"a machine", packet4("192.168.76.10", "192.0.2.1", header.TCPProtocolNumber, 0, eight), true},
		{"a pod", packet4("10.244.1.7", "192.0.2.1", header.UDPProtocolNumber, 0, eight), true},
		{"a ping", packet4("10.244.1.7", "192.0.2.1", header.ICMPv4ProtocolNumber, 0, ping), true},
		{"a long packet", packet4("10.244.1.7", "192.0.2.1", header.TCPProtocolNumber, 0, make([]byte, 1480)), true},
		{"an error", packet4("10.244.1.7", "192.0.2.1", header.ICMPv4ProtocolNumber, 0, unreachable), false},
		{"an empty error", packet4("10.244.1.7", "192.0.2.1", header.ICMPv4ProtocolNumber, 0, nil), false},
		{"a later fragment", packet4("10.244.1.7", "192.0.2.1", header.UDPProtocolNumber, 64, eight), false},
		{"the gateway", packet4("192.168.76.10", "192.168.76.1", header.TCPProtocolNumber, 0, eight), false},
		{"its other side", packet4("192.168.76.10", "203.0.113.1", header.TCPProtocolNumber, 0, eight), false},
		{"everybody", packet4("192.168.76.10", "255.255.255.255", header.UDPProtocolNumber, 0, eight), false},
		{"a group", packet4("192.168.76.10", "224.0.0.251", header.UDPProtocolNumber, 0, eight), false},
		{"nobody yet", packet4("0.0.0.0", "192.0.2.1", header.UDPProtocolNumber, 0, eight), false},
		{"another machine", frame(macB, macA, 0x0800, string(packet4("192.168.76.10", "192.0.2.1", header.TCPProtocolNumber, 0, eight)[headerSize:])), false},
		{"no IP", frame(net.HardwareAddr(gatewayMAC), macA, 0x88b5, string(make([]byte, 46))), false},
		{"a broken packet", broken, false},
		{"a short frame", frame(net.HardwareAddr(gatewayMAC), macA, 0x0800, "E"), false},
	} {
		got := refuse(tt.frame, own)
		if (got != nil) != tt.told {
			t.Errorf("%s: got %x", tt.name, got)
		}
		if got != nil {
			checkRefusal(t, tt.name, tt.frame, got)
		}
	}
}

// checkRefusal: the answer is to the one who asked, has sums that hold, and
// enough of the question to tell which one it was.
func checkRefusal(t *testing.T, name string, question, answer []byte) {
	t.Helper()
	ip, asked := header.IPv4(answer[headerSize:]), header.IPv4(question[headerSize:])
	icmp := header.ICMPv4(ip.Payload())
	switch {
	case net.HardwareAddr(answer[:6]).String() != macA.String() || ip.DestinationAddress() != asked.SourceAddress():
		t.Errorf("%s: answered %s, %s", name, net.HardwareAddr(answer[:6]), ip.DestinationAddress())
	case !ip.IsValid(len(ip)) || ip.CalculateChecksum() != 0xffff || checksum.Checksum(icmp, 0) != 0xffff:
		t.Errorf("%s: broken packet %x", name, answer)
	case icmp.Type() != header.ICMPv4DstUnreachable || icmp.Code() != prohibited || len(ip) > maxRefusal:
		t.Errorf("%s: type %d, code %d, %d bytes", name, icmp.Type(), icmp.Code(), len(ip))
	case string(icmp.Payload()[:28]) != string(asked[:28]):
		t.Errorf("%s: quotes %x", name, icmp.Payload())
	}
}

// FuzzRefuse: no machine can make the gateway fail, or answer an answer.
func FuzzRefuse(f *testing.F) {
	own := []netip.Addr{netip.MustParseAddr("192.168.76.1"), netip.MustParseAddr("203.0.113.1")}
	f.Add(packet4("10.244.1.7", "192.0.2.1", header.TCPProtocolNumber, 0, make([]byte, 8)))
	f.Add(packet4("10.244.1.7", "192.0.2.1", header.ICMPv4ProtocolNumber, 0, []byte{8, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		answer := refuse(b, own)
		if answer == nil {
			return
		}
		copy(answer, gatewayMAC) // as if a machine had sent it back
		if again := refuse(answer, own); again != nil {
			t.Errorf("answered twice: %x, %x", answer, again)
		}
	})
}

// TestElsewhere: a machine that calls somebody who is not in the network is
// told, and need not wait.
func TestElsewhere(t *testing.T) {
	l := start(t)
	c := plug(t, l)
	c.send(packet4("10.244.1.7", "192.0.2.1", header.TCPProtocolNumber, 0, make([]byte, 20)))
	answer := c.next(func(f []byte) bool {
		ip := header.IPv4(f[headerSize:])
		return header.Ethernet(f).Type() == header.IPv4ProtocolNumber && ip.TransportProtocol() == header.ICMPv4ProtocolNumber
	})
	if src := header.IPv4(answer[headerSize:]).SourceAddress(); src.String() != "192.168.76.1" {
		t.Errorf("answer from %s", src)
	}
}
