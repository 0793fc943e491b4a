package lan

import (
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// prohibited is ICMP's code for what a filter does not let pass (RFC 1812,
// section 5.2.7.1). Linux fails a connection at once that gets it.
const prohibited = header.ICMPv4Code(13)

// maxRefusal is the most that an ICMP error has of IP (RFC 1812, section 4.3.2.3).
const maxRefusal = 576

// refuse returns the frame that answers one which is for beyond the network,
// and nil for any other. Whoever is told nothing waits for minutes.
//
// The answer goes to the machine that the frame is from, which knows the way
// to the pod that sent it. gVisor's stack as a router would do much of this;
// the version in use panics on errors that machines can cause.
func refuse(frame []byte, own []netip.Addr) []byte {
	if len(frame) < headerSize+header.IPv4MinimumSize || string(frame[:6]) != gatewayMAC {
		return nil
	}
	eth, packet := header.Ethernet(frame), header.IPv4(frame[headerSize:])
	if eth.Type() != header.IPv4ProtocolNumber || !packet.IsValid(len(packet)) || !mayBeTold(packet) {
		return nil
	}
	if dst := packet.DestinationAddress(); slices.Contains(own, netip.AddrFrom4(dst.As4())) {
		return nil
	}
	quote := packet[:min(int(packet.TotalLength()), maxRefusal-header.IPv4MinimumSize-header.ICMPv4MinimumSize)]
	size := header.IPv4MinimumSize + header.ICMPv4MinimumSize + len(quote)
	answer := make([]byte, headerSize+size)
	header.Ethernet(answer).Encode(&header.EthernetFields{
		SrcAddr: gatewayMAC, DstAddr: eth.SourceAddress(), Type: header.IPv4ProtocolNumber,
	})
	ip := header.IPv4(answer[headerSize:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(size), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
		SrcAddr: tcpip.AddrFrom4(own[0].As4()), DstAddr: packet.SourceAddress(),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	icmp := header.ICMPv4(ip.Payload())
	icmp.SetType(header.ICMPv4DstUnreachable)
	icmp.SetCode(prohibited)
	copy(icmp.Payload(), quote)
	icmp.SetChecksum(^checksum.Checksum(icmp, 0))
	return answer
}

// mayBeTold reports whether an ICMP error may answer a packet (RFC 1122,
// section 3.2.2): one to and from a single machine, its first fragment, and
// not an error itself.
func mayBeTold(packet header.IPv4) bool {
	dst, src := packet.DestinationAddress(), netip.AddrFrom4(packet.SourceAddress().As4())
	if dst == header.IPv4Broadcast || header.IsV4MulticastAddress(dst) || packet.FragmentOffset() != 0 {
		return false
	}
	if src.IsUnspecified() || src.IsMulticast() || src.IsLoopback() {
		return false
	}
	if packet.TransportProtocol() != header.ICMPv4ProtocolNumber {
		return true
	}
	icmp := packet.Payload()
	return len(icmp) > 0 && header.ICMPv4Type(icmp[0]) == header.ICMPv4Echo
}
