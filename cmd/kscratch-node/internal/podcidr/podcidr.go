// Package podcidr gives a node its pod CIDR: it finds the value, waits for one
// if there is none, remembers it, gives the pod bridge its first address
// through systemd-networkd, and names the node after it.
//
// Sources, the first that holds anything decides:
//
//  1. systemd credential kscratch.pod-cidr: of the unit ($CREDENTIALS_DIRECTORY),
//     of the system (SMBIOS type 11, fw_cfg, systemd.set_credential=: in
//     /run/credentials/@system), or a *.cred file on the EFI system partition (in
//     /run/credentials/@encrypted; and while waiting, the partition itself, so
//     that a file put there now counts). Plain text, or encrypted by
//     systemd-creds.
//  2. kernel argument kscratch.pod_cidr=
//  3. /etc/kscratch/pod-cidr, which an Ignition config of the user's may write
//  4. /var/lib/kscratch/pod-cidr, the value used last
//
// A source with a bad value stops the search: falling through to a lower one
// would start the node under a name and a range that its operator did not
// ask for. The node says which source is bad and why, starts nothing and keeps
// looking, so that a value that is put right, or given by a higher source,
// takes effect without a reboot.
//
// A value that differs from the remembered one wins: whoever gave it meant it.
// If the node's name changes with it, the kubelet's certificate, which is for
// the old name, is removed, so that the kubelet asks for a new one.
//
// Where the cluster gives nodes their pod CIDRs (podCIDRByCluster in the
// configuration), none of this is waited for: the node is only named, after
// the address of its network card.
//
// It does not remove addresses of an earlier range from a bridge, nor
// containers with such addresses: the value changes between boots only.
package podcidr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/atomicfile"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/crier"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// Paths below the root of the file system.
const (
	userPath       = "etc/kscratch/pod-cidr"
	rememberedPath = "var/lib/kscratch/pod-cidr"
	namePath       = "var/lib/kscratch/node-name"
	envPath        = "run/kscratch/node.env"
)

// Options are the surroundings of a node. All but Root have useful zero
// values.
type Options struct {
	Root         string                  // directory of the node's file system: "/" on a node
	Credentials  string                  // $CREDENTIALS_DIRECTORY, an absolute path below Root
	NotifySocket string                  // $NOTIFY_SOCKET
	Interval     time.Duration           // between looks at the sources; 2 s
	Repeat       time.Duration           // between repetitions of a message; 30 s
	BridgeWait   time.Duration           // until networkd is asked again; 60 s
	Networkctl   string                  // program; /usr/bin/networkctl
	SystemdCreds string                  // program; /usr/bin/systemd-creds
	SetHostname  func(name []byte) error // sets the transient host name; nil: it stays
	Log          *slog.Logger            // nil: nowhere
}

func (o Options) withDefaults() Options {
	o.Interval = orElse(o.Interval, 2*time.Second)
	o.Repeat = orElse(o.Repeat, 30*time.Second)
	o.BridgeWait = orElse(o.BridgeWait, time.Minute)
	o.Networkctl = orElse(o.Networkctl, "/usr/bin/networkctl")
	o.SystemdCreds = orElse(o.SystemdCreds, "/usr/bin/systemd-creds")
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func orElse[T comparable](v, zero T) T {
	var none T
	if v == none {
		return zero
	}
	return v
}

// Node is what a node has become.
type Node struct {
	Name   string
	Pod    netip.Prefix // the pod CIDR; invalid if the cluster gives it
	Bridge netip.Prefix // the bridge's address
	Source string       // where the pod CIDR came from
}

// Run gives the node its pod CIDR and returns when the bridge has its address,
// however long that takes: while there is nothing valid to work with, it says
// so on the console and in the log and keeps looking. It fails when ctx ends,
// when the configuration of the image is bad, or when a file cannot be
// written.
func Run(ctx context.Context, o Options) (_ Node, err error) {
	o = o.withDefaults()
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return Node{}, fmt.Errorf("opening root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	text, err := root.ReadFile(firstboot.ConfigPath)
	if err != nil {
		return Node{}, fmt.Errorf("reading configuration: %w", err)
	}
	cfg, err := firstboot.ParseConfig(text)
	if err != nil {
		return Node{}, err
	}
	r := &run{Options: o, root: root, cfg: cfg, say: &crier.Crier{
		Root: root, Log: o.Log, Notify: o.NotifySocket, Repeat: o.Repeat,
	}}
	return r.node(ctx)
}

// run is one run: its options and what they lead to.
type run struct {
	Options
	root *os.Root
	cfg  firstboot.Config
	say  *crier.Crier
}

func (r *run) node(ctx context.Context) (n Node, err error) {
	if !r.cfg.PodCIDRByCluster {
		if n, err = r.place(ctx); err != nil {
			return Node{}, err
		}
	}
	if n.Name, err = r.waitName(ctx, n.Pod); err != nil {
		return Node{}, err
	}
	if err := r.rename(n.Name); err != nil {
		return Node{}, err
	}
	return n, r.publish(n)
}

// place gives the node its pod CIDR and the bridge its address.
func (r *run) place(ctx context.Context) (Node, error) {
	f := &finder{run: r}
	found, err := f.wait(ctx)
	if err != nil {
		return Node{}, err
	}
	if err := r.remember(found); err != nil {
		return Node{}, err
	}
	n := Node{Pod: found.cidr, Bridge: firstboot.BridgeAddress(found.cidr), Source: found.source}
	return n, r.waitBridge(ctx, n.Bridge)
}

// remember keeps the pod CIDR for boots on which none is given.
func (r *run) remember(c choice) error {
	old, err := r.root.ReadFile(rememberedPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading remembered pod CIDR: %w", err)
	}
	was := strings.TrimSpace(string(old))
	if was == c.cidr.String() {
		return nil
	}
	if was != "" {
		r.Log.Warn("pod CIDR changes: the given value wins over the remembered one", "given", c.cidr, "by", c.source, "remembered", was)
	}
	return atomicfile.Write(r.root, rememberedPath, []byte(c.cidr.String()+"\n"), 0o644)
}

// rename makes a kubelet that has had another name ask for a new certificate:
// with the old one the API server would refuse it. The name is stored last,
// so that an interrupted change is done again.
func (r *run) rename(name string) error {
	old, err := r.root.ReadFile(namePath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading remembered node name: %w", err)
	}
	was := strings.TrimSpace(string(old))
	if was == name {
		return nil
	}
	if was != "" {
		r.Log.Warn("node name changes: removing the kubelet's certificate for the old name", "name", name, "was", was)
		for _, p := range []string{"var/lib/kubelet/pki", "var/lib/kubelet/kubeconfig"} {
			if err := r.root.RemoveAll(p); err != nil {
				return fmt.Errorf("removing /%s of node %s: %w", p, was, err)
			}
		}
	}
	return atomicfile.Write(r.root, namePath, []byte(name+"\n"), 0o644)
}

// publish tells the rest of the system, node.env last: who finds that file
// finds all else in place.
func (r *run) publish(n Node) error {
	if r.SetHostname != nil {
		if err := r.SetHostname([]byte(n.Name)); err != nil {
			return fmt.Errorf("setting host name %s: %w", n.Name, err)
		}
	}
	env := fmt.Sprintf("KSCRATCH_NODE_NAME=%s\n", n.Name)
	if n.Pod.IsValid() {
		env += fmt.Sprintf("KSCRATCH_POD_CIDR=%s\nKSCRATCH_BRIDGE_ADDRESS=%s\n", n.Pod, n.Bridge)
	}
	if err := atomicfile.Write(r.root, envPath, []byte(env), 0o644); err != nil {
		return err
	}
	if !n.Pod.IsValid() {
		r.Log.Info("node has its name, the cluster gives it its pod CIDR", "node", n.Name)
		r.say.Status("node " + n.Name)
		return nil
	}
	r.Log.Info("node has its pod CIDR", "node", n.Name, "cidr", n.Pod, "from", n.Source, "bridge", n.Bridge)
	r.say.Status(fmt.Sprintf("node %s, pod CIDR %s", n.Name, n.Pod))
	return nil
}

// sleep waits for d or for the end of ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
