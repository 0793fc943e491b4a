package podcidr

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"time"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/atomicfile"
)

// networkdState is there once systemd-networkd has read its configuration.
const networkdState = "run/systemd/netif/state"

// looks is how often we look at the bridge within an Interval.
const looks = 10

// waitBridge tells networkd the bridge's address and waits until it is set.
func (r *run) waitBridge(ctx context.Context, want netip.Prefix) error {
	name := fmt.Sprintf("run/systemd/network/50-%s.network.d/10-pod-cidr.conf", r.cfg.Bridge)
	text := fmt.Sprintf("[Network]\nAddress=%s\n", want)
	if err := atomicfile.Write(r.root, name, []byte(text), 0o644); err != nil {
		return err
	}
	for {
		err := r.tryBridge(ctx, want)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for address %s on %s: %w", want, r.cfg.Bridge, ctx.Err())
		}
		// Each try takes BridgeWait, so every failure is said.
		r.say.Forget()
		r.say.Cry(fmt.Sprintf("%s has no address %s after %v: %v. Asking again.", r.cfg.Bridge, want, r.BridgeWait, err))
	}
}

// tryBridge waits for BridgeWait. It asks networkd to read the drop-in until
// that succeeds once; a networkd that starts later reads it anyway.
func (r *run) tryBridge(ctx context.Context, want netip.Prefix) error {
	pause := r.Interval / looks
	asked := false
	var askErr, lookErr error
	for n := range max(1, int(r.BridgeWait/pause)) {
		if lookErr = checkAddress(r.cfg.Bridge, want); lookErr == nil {
			return nil
		}
		if !asked && n%looks == 0 {
			askErr = r.askNetworkd(ctx)
			asked = askErr == nil
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	if askErr != nil {
		return askErr
	}
	return lookErr
}

// checkAddress reports whether an interface has an address.
func checkAddress(name string, want netip.Prefix) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p == want {
			return nil
		}
	}
	return fmt.Errorf("its addresses are %v", addrs)
}

// askNetworkd makes a running networkd read its configuration again.
func (r *run) askNetworkd(ctx context.Context) error {
	if _, err := r.root.Stat(networkdState); err != nil {
		return fmt.Errorf("systemd-networkd is not running: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := output(exec.CommandContext(ctx, r.Networkctl, "reload")); err != nil {
		return fmt.Errorf("reloading systemd-networkd: %w", err)
	}
	return nil
}
