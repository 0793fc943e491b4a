package podcidr

import (
	"context"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/ignition/firstboot"
)

// leases holds networkd's DHCP leases, one file by interface index. The
// format is networkd's own affair, but its only other way out is D-Bus.
const leases = "run/systemd/netif/leases"

// waitName returns the node's name: the fixed one, the one that DHCP gives,
// for which it waits, or the one derived from the pod CIDR, or from the network
// card where there is no such range yet.
func (r *run) waitName(ctx context.Context, pod netip.Prefix) (string, error) {
	if r.cfg.NodeName != "" {
		return r.cfg.NodeName, nil
	}
	from, find := "DHCP", r.leasedName
	switch {
	case !r.cfg.NodeNameFromDHCP && pod.IsValid():
		return firstboot.NodeName(r.cfg.Role, pod), nil
	case !r.cfg.NodeNameFromDHCP:
		from, find = "its network card", r.cardName
	}
	for {
		name, err := find()
		if err == nil {
			return name, nil
		}
		r.say.Cry(fmt.Sprintf("waiting for this node's name from %s: %v. Nothing starts until then.", from, err))
		if err := sleep(ctx, r.Interval); err != nil {
			return "", fmt.Errorf("waiting for a node name from %s: %w", from, err)
		}
	}
}

// cards has a directory for each network interface; those of hardware have a
// link named device.
const cards = "sys/class/net"

// cardName derives a name from the lowest hardware address of the machine's
// network cards. It stays the same when the disk is written anew.
func (r *run) cardName() (string, error) {
	names, err := fs.ReadDir(r.root.FS(), cards)
	if err != nil && !isAbsent(err) {
		return "", err
	}
	lowest := ""
	for _, e := range names {
		dir := cards + "/" + e.Name()
		if _, err := r.root.Stat(dir + "/device"); err != nil {
			continue
		}
		b, err := r.root.ReadFile(dir + "/address")
		if err != nil {
			continue // it has gone
		}
		mac, err := net.ParseMAC(strings.TrimSpace(string(b)))
		if err != nil || len(mac) != 6 {
			continue // not Ethernet
		}
		if s := hex.EncodeToString(mac); lowest == "" || s < lowest {
			lowest = s
		}
	}
	if lowest == "" {
		return "", fmt.Errorf("/%s has no Ethernet card", cards)
	}
	return r.cfg.Role + "-" + lowest, nil
}

// leasedName returns the host name in the lease of the first interface that
// has one.
func (r *run) leasedName() (string, error) {
	names, err := fs.ReadDir(r.root.FS(), leases)
	if err != nil && !isAbsent(err) {
		return "", err
	}
	first, name := -1, ""
	for _, e := range names {
		index, err := strconv.Atoi(e.Name())
		if err != nil || (first >= 0 && index > first) {
			continue
		}
		b, err := r.root.ReadFile(leases + "/" + e.Name())
		if err != nil && !isAbsent(err) {
			return "", err
		}
		if host := leaseHost(string(b)); host != "" {
			first, name = index, host
		}
	}
	if name == "" {
		return "", fmt.Errorf("no lease in /%s has a host name: set option 12 in the DHCP server", leases)
	}
	return name, firstboot.CheckNodeName(name)
}

// leaseHost returns the host name in a lease, in lower case; empty if it has
// none.
func leaseHost(lease string) string {
	for line := range strings.Lines(lease) {
		if host, ok := strings.CutPrefix(line, "HOSTNAME="); ok {
			return strings.ToLower(strings.Trim(strings.TrimSpace(host), `"'`))
		}
	}
	return ""
}
