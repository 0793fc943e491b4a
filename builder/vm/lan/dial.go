package lan

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Dial opens a TCP connection to a machine from the gateway's address in the
// subnet.
func (l *LAN) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return l.dial(ctx, l.config.Gateway(), to)
}

// DialOutside opens a TCP connection to a machine from outside of the subnet.
func (l *LAN) DialOutside(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return l.dial(ctx, l.config.Outside.Addr(), to)
}

// dial is what gonet does, with an end to patience.
func (l *LAN) dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	var queue waiter.Queue
	ep, err := l.gateway.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if err != nil {
		return nil, fmt.Errorf("dialing %s from %s: %s", to, from, err)
	}
	if err = ep.Bind(full(netip.AddrPortFrom(from, 0))); err == nil {
		err = connect(ctx, ep, &queue, to)
	}
	if err == nil {
		err = probe(ep, l.patience)
	}
	if err == nil {
		return gonet.NewTCPConn(&queue, ep), nil
	}
	ep.Close()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("dialing %s from %s: %w", to, from, ctx.Err())
	}
	return nil, fmt.Errorf("dialing %s from %s: %s", to, from, err)
}

// patience is how long a machine may leave a call, data or probes unanswered.
// One that is switched off says no goodbye.
const patience = 30 * time.Second

// probe makes ep end after so much silence. Before it is connected, this would
// start no timer.
func probe(ep tcpip.Endpoint, patience time.Duration) tcpip.Error {
	const probes = 4
	idle, every, limit := tcpip.KeepaliveIdleOption(patience/3), tcpip.KeepaliveIntervalOption(patience/6), tcpip.TCPUserTimeoutOption(patience)
	for _, o := range []tcpip.SettableSocketOption{&idle, &every, &limit} {
		if err := ep.SetSockOpt(o); err != nil {
			return err
		}
	}
	if err := ep.SetSockOptInt(tcpip.KeepaliveCountOption, probes); err != nil {
		return err
	}
	ep.SocketOptions().SetKeepAlive(true)
	return nil
}

// connect returns when ep is connected, cannot be, or ctx ends.
func connect(ctx context.Context, ep tcpip.Endpoint, queue *waiter.Queue, to netip.AddrPort) tcpip.Error {
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	err := ep.Connect(full(to))
	if _, ok := err.(*tcpip.ErrConnectStarted); !ok {
		return err
	}
	select {
	case <-ctx.Done():
		return &tcpip.ErrAborted{}
	case <-ready:
		return ep.LastError()
	}
}

// Forward makes a port of the host's loopback interface lead to a machine, and
// returns its address. Port 0 means any free one.
func (l *LAN) Forward(port int, to netip.AddrPort) (string, error) {
	ln, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return "", fmt.Errorf("forwarding a port to %s: %w", to, err)
	}
	if !l.run(ln.Close, func() { l.accept(ln, to) }) {
		ln.Close()
		return "", fmt.Errorf("forwarding a port to %s: %w", to, errEnded)
	}
	return ln.Addr().String(), nil
}

// accept serves clients until ln is closed, and their connections with it.
func (l *LAN) accept(ln net.Listener, to netip.AddrPort) {
	ctx, cancel := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		conns.Go(func() { l.splice(ctx, c, to) })
	}
}

// splice connects a client of the host's with a machine until both have said
// all, or ctx ends.
func (l *LAN) splice(ctx context.Context, client net.Conn, to netip.AddrPort) {
	defer client.Close()
	machine, err := l.Dial(ctx, to)
	if err != nil {
		l.config.Log.Debug("forwarding", "error", err)
		return
	}
	defer machine.Close()
	stop := context.AfterFunc(ctx, func() {
		client.Close()
		machine.Close()
	})
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { pipe(machine, client) })
	both.Go(func() { pipe(client, machine) })
	both.Wait()
}

// pipe copies until the end, which it passes on.
func pipe(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite() // a connection that is gone needs no end
		return
	}
	to.Close()
	from.Close()
}
