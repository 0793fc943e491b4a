// Package lan is a small network for the machines of package vm, in this
// process and as an ordinary user: a switch, and a gateway that gives
// addresses and names.
//
// Machines are plugged in with [LAN.Plug]. Frames pass between them whatever
// addresses are in them, so that nodes can route pods' packets to each other.
// The gateway answers DHCP (RFC 2131) with the address and the host name that
// belong to a hardware address, and DNS (RFC 1035) with the names that it was
// given; any other name does not exist. Nothing leaves the network, and who
// tries is told so (ICMP, RFC 1812): the host is reached by nobody, and reaches
// machines with [LAN.Forward] and [LAN.Dial].
//
// The gateway has a second address that is not in the machines' network.
// [LAN.DialOutside] uses it, as a stranger from afar would.
//
// The switch learns where hardware addresses are, as IEEE 802.1D says, without
// spanning trees, ageing or VLANs. A machine that does not take its frames
// loses them, as on a real switch, and holds up nobody. The gateway's protocol
// stack is gVisor's. IPv6 is carried, and not spoken.
package lan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Host is a machine that the gateway knows.
type Host struct {
	Name string           // its host name
	MAC  net.HardwareAddr // of its network card
	IP   netip.Addr       // that it is given
}

// Config describes a network. The zero value is one without hosts.
type Config struct {
	Subnet  netip.Prefix          // 192.168.76.0/24; the gateway has the first address
	Outside netip.Prefix          // address and network of the gateway's other side; 203.0.113.1/24 (RFC 5737)
	Hosts   []Host                // what DHCP gives, and DNS knows
	Names   map[string]netip.Addr // further names that DNS knows, without a final dot
	Domain  string                // of the hosts; internal
	Log     *slog.Logger          // nil: nowhere
}

// LAN is a running network.
type LAN struct {
	config   Config
	gateway  *gateway
	sw       *fabric
	patience time.Duration // with machines that say nothing
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu      sync.Mutex
	closers []func() error
	closed  bool
}

// New starts a network.
func New(c Config) (*LAN, error) {
	if !c.Subnet.IsValid() {
		c.Subnet = netip.MustParsePrefix("192.168.76.0/24")
	}
	if !c.Outside.IsValid() {
		c.Outside = netip.MustParsePrefix("203.0.113.1/24")
	}
	c.Domain = cmp.Or(c.Domain, "internal")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("making a network: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &LAN{config: c, sw: newFabric(), patience: patience, cancel: cancel}
	g, err := newGateway(c)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("making a network: %w", err)
	}
	l.gateway = g
	own := []netip.Addr{c.Gateway(), c.Outside.Addr()}
	var up *socket
	up = l.sw.plug(func(frame []byte) {
		if answer := refuse(frame, own); answer != nil {
			l.sw.forward(up, answer)
			return
		}
		g.receive(frame)
	})
	l.work.Go(func() { g.send(ctx, func(frame []byte) { l.sw.forward(up, frame) }) })
	if err := l.serve(); err != nil {
		return nil, errors.Join(fmt.Errorf("making a network: %w", err), l.Close())
	}
	return l, nil
}

func (c Config) check() error {
	if !c.Subnet.Addr().Is4() || c.Subnet != c.Subnet.Masked() || c.Subnet.Bits() > 29 {
		return fmt.Errorf("subnet %s: want an IPv4 network of /29 or wider", c.Subnet)
	}
	if c.Outside.Overlaps(c.Subnet) {
		return fmt.Errorf("outside %s overlaps the subnet %s", c.Outside, c.Subnet)
	}
	seen := map[string]string{c.Gateway().String(): "the gateway"}
	for _, h := range c.Hosts {
		if !c.Subnet.Contains(h.IP) {
			return fmt.Errorf("host %s: address %s is not in the subnet %s", h.Name, h.IP, c.Subnet)
		}
		if len(h.MAC) != 6 {
			return fmt.Errorf("host %s: %q is not an Ethernet address", h.Name, h.MAC)
		}
		for _, k := range []string{h.IP.String(), h.MAC.String(), h.Name} {
			if other, ok := seen[k]; ok {
				return fmt.Errorf("host %s: %s is %s's, too", h.Name, k, other)
			}
			seen[k] = h.Name
		}
	}
	return nil
}

// Gateway returns the gateway's address in the subnet.
func (c Config) Gateway() netip.Addr { return c.Subnet.Addr().Next() }

// Close ends the network: connections through it, listeners, and the cables.
func (l *LAN) Close() error {
	l.mu.Lock()
	closers := l.closers
	l.closers, l.closed = nil, true
	l.mu.Unlock()
	var errs []error
	for _, c := range closers {
		if err := c(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	l.cancel()
	l.gateway.close()
	l.work.Wait()
	return errors.Join(errs...)
}

// run starts work that ends by close, which [LAN.Close] calls and waits for;
// false, and nothing is started, if the network has ended already.
func (l *LAN) run(close func() error, work ...func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.closers = append(l.closers, close)
	for _, w := range work {
		l.work.Go(w)
	}
	return true
}

// errEnded is what a network that is closed says.
var errEnded = errors.New("the network has ended")
