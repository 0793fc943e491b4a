package lan

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Ports of the services (RFC 2131, RFC 1035).
const (
	dhcpServerPort = 67
	dhcpClientPort = 68
	dnsPort        = 53
)

// lease is how long an address is promised: longer than any test.
const lease = 24 * time.Hour

// serve starts DHCP and DNS.
func (l *LAN) serve() error {
	conn, err := l.dhcpSocket()
	if err != nil {
		return fmt.Errorf("starting DHCP: %w", err)
	}
	l.run(conn.Close, func() { l.dhcp(conn) })

	at := full(netip.AddrPortFrom(l.config.Gateway(), dnsPort))
	pc, err := gonet.DialUDP(l.gateway.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return fmt.Errorf("starting DNS: %w", err)
	}
	ln, err := gonet.ListenTCP(l.gateway.stack, at, ipv4.ProtocolNumber)
	if err != nil {
		pc.Close()
		return fmt.Errorf("starting DNS: %w", err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: l}, {Listener: ln, Handler: l}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		l.run(s.Shutdown, func() { _ = s.ActivateAndServe() }) // it ends when it is shut down
		<-started
	}
	return nil
}

// dhcpSocket listens to broadcasts, which takes more than gonet offers.
func (l *LAN) dhcpSocket() (*gonet.UDPConn, error) {
	var wq waiter.Queue
	ep, err := l.gateway.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &wq)
	if err != nil {
		return nil, fmt.Errorf("%s", err)
	}
	ep.SocketOptions().SetBroadcast(true)
	if err := ep.Bind(tcpip.FullAddress{NIC: nic, Port: dhcpServerPort}); err != nil {
		ep.Close()
		return nil, fmt.Errorf("%s", err)
	}
	return gonet.NewUDPConn(&wq, ep), nil
}

// dhcp answers clients until conn is closed.
func (l *LAN) dhcp(conn *gonet.UDPConn) {
	buf := make([]byte, mtu)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		m, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			l.config.Log.Debug("DHCP message", "error", err)
			continue
		}
		reply, err := l.config.offer(m)
		if err != nil {
			l.config.Log.Debug("DHCP request", "from", m.ClientHWAddr, "error", err)
			continue
		}
		if _, err := conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: whereTo(m, reply), Port: dhcpClientPort}); err != nil {
			l.config.Log.Debug("DHCP answer", "to", m.ClientHWAddr, "error", err)
		}
	}
}

// whereTo says where an answer goes (RFC 2131, section 4.1): to a client that
// has its address, which takes no broadcasts by then, else to everybody.
func whereTo(m, reply *dhcpv4.DHCPv4) net.IP {
	if m.ClientIPAddr.IsUnspecified() || reply.MessageType() == dhcpv4.MessageTypeNak {
		return net.IPv4bcast
	}
	return m.ClientIPAddr
}

// offer answers a client that is known.
func (c Config) offer(m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	i := slices.IndexFunc(c.Hosts, func(h Host) bool { return bytes.Equal(h.MAC, m.ClientHWAddr) })
	if i < 0 {
		return nil, fmt.Errorf("hardware address %s is not known", m.ClientHWAddr)
	}
	h, gateway := c.Hosts[i], net.IP(c.Gateway().AsSlice())
	ours := []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptServerIdentifier(gateway))}
	given := slices.Concat(ours, []dhcpv4.Modifier{
		dhcpv4.WithServerIP(gateway),
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(c.Subnet.Bits(), 32))),
		dhcpv4.WithOption(dhcpv4.OptRouter(gateway)),
		dhcpv4.WithOption(dhcpv4.OptDNS(gateway)),
		dhcpv4.WithOption(dhcpv4.OptDomainName(c.Domain)),
		dhcpv4.WithOption(dhcpv4.OptHostName(h.Name)),
		dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(mtu)}),
	})
	leased := slices.Concat(given, []dhcpv4.Modifier{
		dhcpv4.WithYourIP(h.IP.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(lease)),
	})
	reply := func(kind dhcpv4.MessageType, with []dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
		return dhcpv4.NewReplyFromRequest(m, append(slices.Clip(with), dhcpv4.WithMessageType(kind))...)
	}
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return reply(dhcpv4.MessageTypeOffer, leased)
	case dhcpv4.MessageTypeInform: // it has an address, and asks for the rest
		return reply(dhcpv4.MessageTypeAck, given)
	case dhcpv4.MessageTypeRequest:
		if want := wanted(m); want != nil && !want.Equal(h.IP.AsSlice()) {
			return reply(dhcpv4.MessageTypeNak, ours)
		}
		return reply(dhcpv4.MessageTypeAck, leased)
	}
	return nil, fmt.Errorf("%s needs no answer", m.MessageType())
}

// wanted returns the address that a client wants to have or keep, nil if it
// does not say.
func wanted(m *dhcpv4.DHCPv4) net.IP {
	if ip := m.RequestedIPAddress(); ip != nil || m.ClientIPAddr.IsUnspecified() {
		return ip
	}
	return m.ClientIPAddr
}

// ServeDNS answers a question about the network's names.
func (l *LAN) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	for _, question := range q.Question {
		ip, ok := l.config.lookup(question.Name)
		switch {
		case !ok:
			m.Rcode = dns.RcodeNameError
		case question.Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: ip.AsSlice(),
			})
		}
	}
	if err := w.WriteMsg(m); err != nil {
		l.config.Log.Debug("DNS answer", "error", err)
	}
}

func (c Config) lookup(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if ip, ok := c.Names[name]; ok {
		return ip, true
	}
	short := strings.TrimSuffix(name, "."+c.Domain)
	for _, h := range c.Hosts {
		if h.Name == short {
			return h.IP, true
		}
	}
	return netip.Addr{}, false
}
