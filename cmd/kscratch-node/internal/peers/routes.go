package peers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Protocol marks the routes that are ours (rtm_protocol in rtnetlink(7)); the
// numbers above 4 are free for anyone, and this one is in no list of iproute2.
const Protocol = 75

// metric is worse than that of any route which somebody else may have set to
// the same pods, such as one of network.routes: those win.
const metric = 2048

// table is the kernel's routes to pod CIDRs.
type table struct{}

// watch calls changed for each change to the kernel's routes, links and
// addresses until ctx ends. Links are of interest as the kernel says nothing of
// the routes that it drops with one.
func (table) watch(ctx context.Context, changed func()) error {
	updates := make(chan netlink.RouteUpdate, 64)
	if err := netlink.RouteSubscribe(updates, ctx.Done()); err != nil {
		return fmt.Errorf("watching the kernel's routes: %w", err)
	}
	links := make(chan netlink.LinkUpdate, 64)
	if err := netlink.LinkSubscribe(links, ctx.Done()); err != nil {
		return fmt.Errorf("watching the kernel's links: %w", err)
	}
	addrs := make(chan netlink.AddrUpdate, 64)
	if err := netlink.AddrSubscribe(addrs, ctx.Done()); err != nil {
		return fmt.Errorf("watching the kernel's addresses: %w", err)
	}
	go each(updates, func(u netlink.RouteUpdate) {
		if u.Type == unix.RTM_DELROUTE || u.Protocol != Protocol {
			changed()
		}
	})
	go each(links, func(netlink.LinkUpdate) { changed() })
	go each(addrs, func(netlink.AddrUpdate) { changed() })
	return nil
}

func each[T any](updates <-chan T, f func(T)) {
	for u := range updates {
		f(u)
	}
}

// set makes our routes those of want, from pod CIDR to the node's address. It
// does all it can, and returns what it could not by pod CIDR.
func (table) set(want map[netip.Prefix]netip.Addr) (changed []string, failed map[netip.Prefix]error, err error) {
	have, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: Protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, nil, fmt.Errorf("reading the kernel's routes: %w", err)
	}
	failed = map[netip.Prefix]error{}
	there := map[netip.Prefix]bool{}
	for _, r := range have {
		to, via := prefixOf(r.Dst), addrOf(r.Gw)
		if w, ok := want[to]; ok && w == via && r.Priority == metric {
			there[to] = true
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			failed[to] = fmt.Errorf("removing the route to %s via %s: %w", to, via, err)
			continue
		}
		changed = append(changed, fmt.Sprintf("removed %s via %s", to, via))
	}
	for _, to := range slices.SortedFunc(maps.Keys(want), netip.Prefix.Compare) {
		if there[to] {
			continue
		}
		via := want[to]
		if err := netlink.RouteReplace(route(to, via)); err != nil {
			failed[to] = fmt.Errorf("adding a route to %s via %s: %w; the two nodes must share a link, or a router must know the way (network.routeController: false)", to, via, err)
			continue
		}
		changed = append(changed, fmt.Sprintf("added %s via %s", to, via))
	}
	return changed, failed, nil
}

func route(to netip.Prefix, via netip.Addr) *netlink.Route {
	return &netlink.Route{
		Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), 32)}, Gw: via.AsSlice(), Protocol: Protocol, Priority: metric,
	}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), ones)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
