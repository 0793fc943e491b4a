package podcidr

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/ignition/firstboot"
)

// leases holds networkd's DHCP leases, one file by interface index. The
// format is networkd's own affair, but its only other way out is D-Bus.
const leases = "run/systemd/netif/leases"

// waitName returns the node's name: the fixed one, the one that DHCP gives,
// for which it waits, or the one derived from the pod CIDR.
func (r *run) waitName(ctx context.Context, pod netip.Prefix) (string, error) {
	if r.cfg.NodeName != "" {
		return r.cfg.NodeName, nil
	}
	if !r.cfg.NodeNameFromDHCP {
		return firstboot.NodeName(r.cfg.Role, pod), nil
	}
	for {
		name, err := r.leasedName()
		if err == nil {
			return name, nil
		}
		r.say.cry(fmt.Sprintf("waiting for this node's name from DHCP: %v. Nothing starts until then.", err))
		if err := sleep(ctx, r.Interval); err != nil {
			return "", fmt.Errorf("waiting for a node name from DHCP: %w", err)
		}
	}
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
