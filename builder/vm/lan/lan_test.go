package lan

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

var (
	macA = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0xa}
	macB = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0xb}
	ipA  = netip.MustParseAddr("192.168.76.10")
	ipB  = netip.MustParseAddr("192.168.76.11")
)

func start(t *testing.T) *LAN {
	t.Helper()
	l, err := New(Config{
		Hosts: []Host{{"master", macA, ipA}, {"node", macB, ipB}},
		Names: map[string]netip.Addr{"api.kscratch.internal": ipA},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// cable is a machine's end, frame by frame.
type cable struct {
	t *testing.T
	net.Conn
}

func plug(t *testing.T, l *LAN) cable {
	t.Helper()
	f, err := l.Plug()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return cable{t, conn}
}

func (c cable) send(frame []byte) {
	c.t.Helper()
	b := binary.BigEndian.AppendUint32(nil, uint32(len(frame)))
	if _, err := c.Write(append(b, frame...)); err != nil {
		c.t.Fatal(err)
	}
}

// next returns the next frame that wanted says yes to.
func (c cable) next(wanted func([]byte) bool) []byte {
	c.t.Helper()
	timeout := time.AfterFunc(10*time.Second, func() { c.Close() })
	defer timeout.Stop()
	for range 1000 {
		var n [4]byte
		if _, err := io.ReadFull(c, n[:]); err != nil {
			c.t.Fatalf("waiting for a frame: %v", err)
		}
		b := make([]byte, binary.BigEndian.Uint32(n[:]))
		if _, err := io.ReadFull(c, b); err != nil {
			c.t.Fatal(err)
		}
		if wanted(b) {
			return b
		}
	}
	c.t.Fatal("1000 other frames")
	return nil
}

func frame(dst, src net.HardwareAddr, kind uint16, body string) []byte {
	b := append(append(bytes.Clone(dst), src...), byte(kind>>8), byte(kind))
	return append(b, body...)
}

var everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// TestSwitch: frames go where their destination is, whatever is in them.
func TestSwitch(t *testing.T) {
	l := start(t)
	a, b, c := plug(t, l), plug(t, l), plug(t, l)
	const experimental = 0x88b5
	a.send(frame(everybody, macA, experimental, "hello, all"))
	said := func(s string) func([]byte) bool {
		return func(f []byte) bool { return strings.HasSuffix(string(f), s) }
	}
	b.next(said("hello, all"))
	c.next(said("hello, all"))
	b.send(frame(macA, macB, experimental, "hello, a"))
	a.next(said("hello, a"))
	a.send(frame(macB, macA, experimental, "for b alone"))
	a.send(frame(everybody, macA, experimental, "bye"))
	b.next(said("for b alone"))
	c.next(func(f []byte) bool {
		if said("for b alone")(f) || said("hello, a")(f) {
			t.Errorf("the third machine got %q", f)
		}
		return said("bye")(f)
	})
	a.send([]byte("short"))
	a.send(frame(macB, macA, experimental, "after a short frame"))
	b.next(said("after a short frame"))
	// A machine that breaks the rules is cut off; the others are not.
	if _, err := c.Write([]byte{0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 4*maxFrame {
		t.Errorf("after a frame of 4 GiB: %d bytes, %v", len(rest), err)
	}
	a.send(frame(macB, macA, experimental, "still here"))
	b.next(said("still here"))
}

// TestSlow: a machine that reads nothing loses frames, and nobody else does.
func TestSlow(t *testing.T) {
	l := start(t)
	a, b, _ := plug(t, l), plug(t, l), plug(t, l)
	body := strings.Repeat("x", 1400)
	done := make(chan bool)
	go func() {
		for range 500 {
			b.next(func(f []byte) bool { return len(f) > 1000 })
		}
		close(done)
	}()
	for range 4000 { // b loses many, too, on a machine that is busy
		a.send(frame(everybody, macA, 0x88b5, body))
		time.Sleep(20 * time.Microsecond)
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the slow machine holds up the other")
	}
}

// guest runs gVisor's stack at the end of a cable.
func guest(t *testing.T, l *LAN, mac net.HardwareAddr, ip netip.Addr) *gateway {
	t.Helper()
	c := plug(t, l)
	g, err := newGateway(Config{Subnet: netip.MustParsePrefix("198.18.0.0/30"), Outside: netip.PrefixFrom(ip, 24)})
	if err != nil {
		t.Fatal(err)
	}
	if e := g.stack.SetNICAddress(nic, tcpip.LinkAddress(mac)); e != nil {
		t.Fatal(e)
	}
	subnet := tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(ip.As4()), PrefixLen: 24}.Subnet()
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: subnet, NIC: nic},
		{Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFrom4(netip.MustParseAddr("192.168.76.1").As4()), NIC: nic},
	})
	ctx, cancel := context.WithCancel(context.Background())
	sent, received := make(chan bool), make(chan bool)
	go func() {
		g.send(ctx, func(f []byte) { _, _ = c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...)) })
		close(sent)
	}()
	go func() {
		receive(c, g.receive)
		close(received)
	}()
	t.Cleanup(func() {
		cancel()
		c.Close()
		<-sent
		<-received
		g.close()
	})
	return g
}

// TestDial reaches a machine from the gateway, from outside and through a
// port of the host, and sees where each comes from.
func TestDial(t *testing.T) {
	l := start(t)
	g := guest(t, l, macB, ipB)
	to := netip.AddrPortFrom(ipB, 80)
	ln, err := gonet.ListenTCP(g.stack, full(to), ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan bool)
	go func() {
		defer close(served)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, "hello, "+host)
			c.Close()
		}
	}()
	addr, err := l.Forward(0, to)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, want string
		dial       func() (net.Conn, error)
	}{
		{"gateway", "hello, 192.168.76.1", func() (net.Conn, error) { return l.Dial(t.Context(), to) }},
		{"outside", "hello, 203.0.113.1", func() (net.Conn, error) { return l.DialOutside(t.Context(), to) }},
		{"host", "hello, 192.168.76.1", func() (net.Conn, error) { return net.Dial("tcp4", addr) }},
	} {
		c, err := tt.dial()
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got, err := io.ReadAll(c)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
		c.Close()
	}
	if _, err := l.Dial(t.Context(), netip.AddrPortFrom(ipB, 81)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a closed port: %v", err)
	}
	port := netip.MustParseAddrPort(addr).Port()
	if _, err := l.Forward(int(port), to); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a port that is taken: %v", err)
	}
	ln.Close()
	<-served
}

// TestSwitchedOff: a client of the host's learns that a machine went off
// without a word, whether the client waits or talks.
func TestSwitchedOff(t *testing.T) {
	l := start(t)
	l.patience = 3 * time.Second
	g := guest(t, l, macB, ipB)
	to := netip.AddrPortFrom(ipB, 80)
	ln, err := gonet.ListenTCP(g.stack, full(to), ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr, err := l.Forward(0, to)
	if err != nil {
		t.Fatal(err)
	}
	var clients []net.Conn
	for range 2 {
		c, err := net.Dial("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := ln.Accept(); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	if err := g.stack.RemoveNIC(nic); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(clients[0], "hello?"); err != nil {
		t.Fatal(err)
	}
	for i, c := range clients {
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("client %d: %v", i, err)
		}
	}
	if _, err := l.Dial(t.Context(), to); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dialing: %v", err)
	}
}

// TestDNS asks by UDP and TCP.
func TestDNS(t *testing.T) {
	l := start(t)
	g := guest(t, l, macB, ipB)
	server := full(netip.MustParseAddrPort("192.168.76.1:53"))
	for _, tt := range []struct {
		name  string
		kind  uint16
		rcode int
		want  string
	}{
		{"master.internal.", dns.TypeA, dns.RcodeSuccess, "192.168.76.10"},
		{"node.", dns.TypeA, dns.RcodeSuccess, "192.168.76.11"},
		{"API.kscratch.internal.", dns.TypeA, dns.RcodeSuccess, "192.168.76.10"},
		{"master.internal.", dns.TypeAAAA, dns.RcodeSuccess, ""},
		{"example.org.", dns.TypeA, dns.RcodeNameError, ""},
	} {
		udp, err := gonet.DialUDP(g.stack, nil, &server, ipv4.ProtocolNumber)
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := gonet.DialContextTCP(t.Context(), g.stack, server, ipv4.ProtocolNumber)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []net.Conn{udp, tcp} {
			q := new(dns.Msg).SetQuestion(tt.name, tt.kind)
			conn := &dns.Conn{Conn: c}
			if c == net.Conn(udp) {
				conn.Conn = packet{udp}
			}
			if err := conn.WriteMsg(q); err != nil {
				t.Fatal(err)
			}
			m, err := conn.ReadMsg()
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, rr := range m.Answer {
				got += rr.(*dns.A).A.String()
			}
			if m.Rcode != tt.rcode || got != tt.want {
				t.Errorf("%s: got %s %q, want %s %q", tt.name, dns.RcodeToString[m.Rcode], got, dns.RcodeToString[tt.rcode], tt.want)
			}
			c.Close()
		}
	}
}

// packet makes package dns see a datagram socket.
type packet struct{ *gonet.UDPConn }

// TestDHCP asks as a client without an address does.
func TestDHCP(t *testing.T) {
	l := start(t)
	c := plug(t, l)
	ask := func(mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		m, err := dhcpv4.NewDiscovery(macB, mods...)
		if err != nil {
			t.Fatal(err)
		}
		c.send(datagram(macB, 68, 67, m.ToBytes()))
		f := c.next(func(f []byte) bool { return bytes.Contains(f, []byte{99, 130, 83, 99}) })
		reply, err := dhcpv4.FromBytes(f[headerSize+20+8:])
		if err != nil {
			t.Fatal(err)
		}
		if reply.TransactionID != m.TransactionID {
			t.Error("answer to another question")
		}
		return reply
	}
	offer := ask()
	ack := ask(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest))
	if offer.MessageType() != dhcpv4.MessageTypeOffer || ack.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("got %s and %s", offer.MessageType(), ack.MessageType())
	}
	if ack.YourIPAddr.String() != "192.168.76.11" || ack.HostName() != "node" || ack.DomainName() != "internal" ||
		ack.Router()[0].String() != "192.168.76.1" || ack.DNS()[0].String() != "192.168.76.1" || net.IP(ack.SubnetMask()).String() != "255.255.255.0" {
		t.Errorf("got %s", ack.Summary())
	}
	if _, err := l.config.offer(&dhcpv4.DHCPv4{ClientHWAddr: net.HardwareAddr{1, 2, 3, 4, 5, 6}}); err == nil {
		t.Error("a stranger got an address")
	}
}

// TestOffer: the answer to every kind of question (RFC 2131, table 3), and
// where it goes.
func TestOffer(t *testing.T) {
	c := start(t).config
	ip := func(s string) net.IP { return net.ParseIP(s).To4() }
	for _, tt := range []struct {
		name      string
		kind      dhcpv4.MessageType
		has, asks string // the client's address, and the one that it asks for
		want      string // kind, address and lease of the answer, and where it goes
	}{
		{"new", dhcpv4.MessageTypeDiscover, "", "", "OFFER 192.168.76.11 24h0m0s to 255.255.255.255"},
		{"new, with a wish", dhcpv4.MessageTypeDiscover, "", "10.0.0.9", "OFFER 192.168.76.11 24h0m0s to 255.255.255.255"},
		{"selecting", dhcpv4.MessageTypeRequest, "", "192.168.76.11", "ACK 192.168.76.11 24h0m0s to 255.255.255.255"},
		{"renewing", dhcpv4.MessageTypeRequest, "192.168.76.11", "", "ACK 192.168.76.11 24h0m0s to 192.168.76.11"},
		{"from another network", dhcpv4.MessageTypeRequest, "", "10.0.0.9", "NAK 0.0.0.0 0s to 255.255.255.255"},
		{"renewing another's", dhcpv4.MessageTypeRequest, "192.168.76.10", "", "NAK 0.0.0.0 0s to 255.255.255.255"},
		{"asking for names", dhcpv4.MessageTypeInform, "192.168.76.11", "", "ACK 0.0.0.0 0s to 192.168.76.11"},
		{"giving it back", dhcpv4.MessageTypeRelease, "192.168.76.11", "", ""},
		{"in use", dhcpv4.MessageTypeDecline, "", "192.168.76.11", ""},
	} {
		m, err := dhcpv4.New(dhcpv4.WithHwAddr(macB), dhcpv4.WithMessageType(tt.kind))
		if err != nil {
			t.Fatal(err)
		}
		if tt.has != "" {
			m.ClientIPAddr = ip(tt.has)
		}
		if tt.asks != "" {
			m.UpdateOption(dhcpv4.OptRequestedIPAddress(ip(tt.asks)))
		}
		got := ""
		if reply, err := c.offer(m); err == nil {
			got = fmt.Sprintf("%s %s %v to %s", reply.MessageType(), reply.YourIPAddr, reply.IPAddressLeaseTime(0), whereTo(m, reply))
			if reply.ServerIdentifier().String() != "192.168.76.1" {
				t.Errorf("%s: %s does not say whose it is", tt.name, reply.Summary())
			}
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// datagram is a broadcast from 0.0.0.0.
func datagram(src net.HardwareAddr, from, to uint16, body []byte) []byte {
	b := frame(everybody, src, 0x0800, "")
	ip := make(header.IPv4, header.IPv4MinimumSize)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(header.IPv4MinimumSize + header.UDPMinimumSize + len(body)), TTL: 64, Protocol: 17,
		DstAddr: header.IPv4Broadcast, SrcAddr: header.IPv4Any,
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	udp := make(header.UDP, header.UDPMinimumSize)
	udp.Encode(&header.UDPFields{SrcPort: from, DstPort: to, Length: uint16(header.UDPMinimumSize + len(body))})
	return append(append(append(b, ip...), udp...), body...)
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Config
		want string
	}{
		{"outside the subnet", Config{Hosts: []Host{{"a", macA, netip.MustParseAddr("10.0.0.1")}}}, "not in the subnet"},
		{"the gateway's address", Config{Hosts: []Host{{"a", macA, netip.MustParseAddr("192.168.76.1")}}}, "192.168.76.1 is the gateway's, too"},
		{"twice", Config{Hosts: []Host{{"a", macA, ipA}, {"b", macA, ipB}}}, "52:54:00:00:00:0a is a's, too"},
		{"IPv6", Config{Subnet: netip.MustParsePrefix("fd00::/64")}, "want an IPv4 network"},
		{"no Ethernet", Config{Hosts: []Host{{"a", nil, ipA}}}, "not an Ethernet address"},
		{"overlap", Config{Outside: netip.MustParsePrefix("192.168.76.200/25")}, "overlaps"},
	} {
		if _, err := New(tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestClose: nothing of a network is left.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	l, err := New(Config{Hosts: []Host{{"a", macA, ipA}}})
	if err != nil {
		t.Fatal(err)
	}
	c := plug(t, l)
	addr, err := l.Forward(0, netip.AddrPortFrom(ipA, 80))
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp4", addr) // waits for a machine that is not there
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the cable: %v", err)
	}
	if _, err := l.Plug(); err == nil {
		t.Error("plugged into a network that has ended")
	}
	for range 500 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("goroutines: %d before, %d after\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}
