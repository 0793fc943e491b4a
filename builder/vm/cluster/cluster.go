// Package cluster runs a whole cluster on this machine: a master and nodes in
// QEMU, on a network of package lan, as an ordinary user.
//
// The n-th machine always has the same name, addresses, pod CIDR and disk, so
// that a cluster whose directory is kept goes on where it was. Nodes that share
// two processors with an emulated master would starve it; without KVM they are
// powered on once its API server answers.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kscratch/kscratch/builder/vm"
	"github.com/kscratch/kscratch/builder/vm/lan"
)

// Config describes a cluster. Those fields without a default are required.
type Config struct {
	Name        string           // of the cluster
	Dir         string           // existing directory of the machines' disks
	Clock       func() time.Time // time.Now
	Master      string           // raw image of the master
	Node        string           // raw image of the nodes; needed for more than one machine
	Machines    int              // number of machines, the master among them; 2
	Kubeconfig  []byte           // the administrator's
	Endpoint    string           // host:port of the API server as nodes know it; an address sets the subnet
	ClusterCIDR netip.Prefix     // that pod CIDRs are taken from
	NoPodCIDR   bool             // machines are not given any: the cluster does that
	AtOnce      bool             // nodes are powered on with the master, as other masters have to be

	Accel    vm.Accel
	Memory   int   // of each machine in MiB; vm's default
	CPUs     int   // of each machine; vm's default
	DiskSize int64 // of each machine in bytes; 20 GiB
	APIPort  int   // on the host's loopback interface; 0 means any

	Console func(machine string) io.Writer      // gets a machine's console; nil: nobody
	Edit    func(machine string, m *vm.Machine) // changes a machine before it is powered on; nil: nothing
	Log     *slog.Logger                        // nil: nowhere
}

// Member is a machine of a cluster.
type Member struct {
	Name string       // of the machine: master, node-1, …
	IP   netip.Addr   // its address
	Pod  netip.Prefix // its pod CIDR; invalid if the cluster gives it

	mac net.HardwareAddr
	vm  *vm.VM
	on  time.Time // of powering on
}

// Cluster is a running cluster.
type Cluster struct {
	LAN *lan.LAN

	config  Config
	addr    string // of the API on the host
	api     *vm.API
	members []*Member
	start   time.Time
	cancel  context.CancelFunc
	work    sync.WaitGroup

	mu  sync.Mutex // guards vm and on of members, and err
	err error      // of powering on a node
}

// Start powers a cluster on. It ends with ctx, or with [Cluster.Close].
func Start(ctx context.Context, c Config) (_ *Cluster, err error) {
	if c.Machines == 0 {
		c.Machines = 2
	}
	if c.DiskSize == 0 {
		c.DiskSize = 20 << 30
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p, err := plan(c)
	if err == nil {
		err = built(c.Master, "master")
	}
	if err == nil && c.Machines > 1 {
		err = built(c.Node, "node")
	}
	if err != nil {
		return nil, fmt.Errorf("starting cluster: %w", err)
	}
	network, err := lan.New(p.network)
	if err != nil {
		return nil, fmt.Errorf("starting cluster: %w", err)
	}
	waiting, cancel := context.WithCancel(ctx)
	k := &Cluster{LAN: network, config: c, members: p.members, start: c.Clock(), cancel: cancel}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting cluster: %w", err), k.Close())
		}
	}()
	if k.addr, err = network.Forward(c.APIPort, netip.AddrPortFrom(p.members[0].IP, p.port)); err != nil {
		return nil, err
	}
	if k.api, err = vm.NewAPI(c.Kubeconfig, k.addr); err != nil {
		return nil, err
	}
	if err := k.powerOn(ctx, p.members[0]); err != nil {
		return nil, err
	}
	k.work.Go(func() {
		if err := k.nodes(ctx, waiting); err != nil {
			k.mu.Lock()
			k.err = err
			k.mu.Unlock()
		}
	})
	return k, nil
}

// built complains about an image that is not there.
func built(image, role string) error {
	if _, err := os.Stat(image); err != nil {
		return fmt.Errorf("finding the image of role %s: %w; build it with `kscratch image build --role %s`", role, err, role)
	}
	return nil
}

// nodes powers the nodes on, one after the other, unless waiting ends before
// their turn. They run while ctx lasts.
func (k *Cluster) nodes(ctx, waiting context.Context) error {
	master := k.VM(k.members[0])
	if !master.KVM() && !k.config.AtOnce {
		for {
			if _, err := k.api.Get(waiting, "/readyz"); err == nil {
				break
			}
			select {
			case <-waiting.Done():
				return nil
			case <-master.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
	for _, m := range k.members[1:] {
		if waiting.Err() != nil {
			return nil
		}
		if err := k.powerOn(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// powerOn starts a machine that is off.
func (k *Cluster) powerOn(ctx context.Context, m *Member) error {
	dir := filepath.Join(k.config.Dir, m.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	image := k.config.Node
	if m == k.members[0] {
		image = k.config.Master
	}
	machine := vm.Machine{
		Dir: dir, Clock: k.config.Clock, Disk: image, DiskSize: k.config.DiskSize, Overlay: filepath.Join(dir, "disk.qcow2"),
		Firmware: vm.Firmware{Vars: filepath.Join(dir, "vars.fd")},
		Accel:    k.config.Accel, Memory: k.config.Memory, CPUs: k.config.CPUs, MAC: m.mac.String(), Log: k.config.Log,
	}
	if m.Pod.IsValid() {
		machine.PodCIDR = m.Pod.String()
	}
	if k.config.Console != nil {
		machine.Console = k.config.Console(m.Name)
	}
	if k.config.Edit != nil {
		k.config.Edit(m.Name, &machine)
	}
	var err error
	if machine.Cable, err = k.LAN.Plug(); err != nil {
		return err
	}
	v, err := vm.Start(ctx, machine)
	if err != nil {
		return fmt.Errorf("powering on %s: %w", m.Name, err)
	}
	k.mu.Lock()
	m.vm, m.on = v, k.config.Clock()
	k.mu.Unlock()
	return nil
}

// Members returns the machines, the master first.
func (k *Cluster) Members() []*Member { return k.members }

// VM returns a machine's emulator; nil if it was not powered on yet.
func (k *Cluster) VM(m *Member) *vm.VM {
	k.mu.Lock()
	defer k.mu.Unlock()
	return m.vm
}

// Addr returns the API server's host:port on the host.
func (k *Cluster) Addr() string { return k.addr }

// API returns the API server with the administrator's credentials.
func (k *Cluster) API() *vm.API { return k.api }

// Elapsed returns the time since the master was powered on.
func (k *Cluster) Elapsed() time.Duration { return k.config.Clock().Sub(k.start) }

// PowerOn starts a machine that was switched off, on the disk that it had.
func (k *Cluster) PowerOn(ctx context.Context, m *Member) error { return k.powerOn(ctx, m) }

// WaitReady returns when every machine is a Ready node, by what its kubelet has
// said since it was powered on: a cluster that goes on remembers more. It fails when ctx ends or a machine does; the error has what the API said last
// and the tails of the consoles.
func (k *Cluster) WaitReady(ctx context.Context) error {
	last := errors.New("the API was not asked yet")
	for {
		err := k.look(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		if off := k.off(); off != nil {
			return k.notReady(off, last)
		}
		select {
		case <-ctx.Done():
			return k.notReady(ctx.Err(), last)
		case <-time.After(time.Second):
		}
	}
}

// look returns why the cluster is not Ready.
func (k *Cluster) look(ctx context.Context) error {
	nodes, err := k.api.Nodes(ctx)
	if err != nil {
		return err
	}
	var why []string
	for _, m := range k.members {
		if s := k.state(m, nodes); s != "" {
			why = append(why, m.Name+" "+s)
		}
	}
	if len(why) > 0 {
		return errors.New(strings.Join(why, "; "))
	}
	return nil
}

// state says why a machine is no Ready node; "" if it is one.
func (k *Cluster) state(m *Member, nodes []vm.Node) string {
	k.mu.Lock()
	on := m.on
	k.mu.Unlock()
	i := slices.IndexFunc(nodes, func(n vm.Node) bool { return slices.Contains(n.Addresses, "InternalIP "+m.IP.String()) })
	switch {
	case on.IsZero():
		return "is not powered on"
	case i < 0:
		return "has not joined"
	case nodes[i].Seen.Before(on.Truncate(time.Second)):
		return "has said nothing yet"
	case !nodes[i].Ready:
		return "is not Ready: " + nodes[i].Why
	}
	return ""
}

// off says which machine has ended, or could not be started.
func (k *Cluster) off() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	for _, m := range k.members {
		if m.vm == nil {
			continue
		}
		select {
		case <-m.vm.Done():
			return fmt.Errorf("machine %s went off", m.Name)
		default:
		}
	}
	return nil
}

// tailLines is how much of each console an error has.
const tailLines = 20

func (k *Cluster) notReady(why, last error) error {
	text := fmt.Sprintf("waiting for %d Ready nodes, %.0f s after power-on: %v; API: %v", len(k.members), k.Elapsed().Seconds(), why, last)
	for _, m := range k.members {
		if v := k.VM(m); v != nil {
			text += "\nconsole of " + m.Name + ":\n" + v.Console().Tail(tailLines)
		} else {
			text += "\n" + m.Name + " was not powered on: the master's API server has to answer first"
		}
	}
	return errors.New(text)
}

// Wait returns when the first machine has ended, or ctx.
func (k *Cluster) Wait(ctx context.Context) error {
	for {
		if err := k.off(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// Shutdown presses the power buttons, and pulls the plugs of machines that are
// not off in time.
func (k *Cluster) Shutdown(ctx context.Context, patience time.Duration) error {
	errs := make([]error, len(k.members))
	var wg sync.WaitGroup
	for i, m := range k.members {
		if v := k.VM(m); v != nil {
			wg.Go(func() { errs[i] = v.Stop(ctx, patience) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close switches everything off at once.
func (k *Cluster) Close() error {
	k.cancel()
	k.work.Wait()
	var errs []error
	for _, m := range k.members {
		if v := k.VM(m); v != nil {
			errs = append(errs, v.Off())
		}
	}
	if k.api != nil {
		k.api.Close()
	}
	return errors.Join(append(errs, k.LAN.Close())...)
}

// planned is the addresses of a cluster.
type planned struct {
	network lan.Config
	members []*Member
	port    uint16 // of the API server
}

// firstHost is the last number of the master's address in a subnet of our
// choice; the nodes' follow it.
const firstHost = 10

func plan(c Config) (planned, error) {
	var p planned
	if c.Machines < 1 || c.Machines > 100 {
		return p, fmt.Errorf("%d machines: want 1 to 100", c.Machines)
	}
	host, port, err := net.SplitHostPort(c.Endpoint)
	if err != nil {
		return p, fmt.Errorf("endpoint: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return p, fmt.Errorf("endpoint %s: %w", c.Endpoint, err)
	}
	p.port = uint16(n)
	subnet := netip.MustParsePrefix("192.168.76.0/24")
	first := byte(firstHost)
	names := []string{"api." + c.Name + ".internal"}
	switch ip, err := netip.ParseAddr(host); {
	case err != nil:
		names = append(names, host)
	case ip.IsLoopback():
	case !ip.Is4() || ip.As4()[3] < 2 || int(ip.As4()[3])+c.Machines > 255:
		return p, fmt.Errorf("endpoint %s: want an IPv4 address with room for %d machines above it", c.Endpoint, c.Machines)
	default:
		subnet, first = netip.PrefixFrom(ip, 24).Masked(), ip.As4()[3]
	}
	for i := range c.Machines {
		m := &Member{Name: "master", mac: net.HardwareAddr{0x52, 0x54, 0, 'k', 's', byte(i)}}
		if i > 0 {
			m.Name = "node-" + strconv.Itoa(i)
		}
		b := subnet.Addr().As4()
		b[3] = first + byte(i)
		m.IP = netip.AddrFrom4(b)
		if !c.NoPodCIDR {
			if m.Pod, err = podCIDR(c.ClusterCIDR, i+1); err != nil {
				return p, err
			}
		}
		p.members = append(p.members, m)
		p.network.Hosts = append(p.network.Hosts, lan.Host{Name: m.Name, MAC: m.mac, IP: m.IP})
	}
	if away := netip.MustParsePrefix("203.0.113.0/24"); subnet.Overlaps(away) {
		p.network.Outside = netip.MustParsePrefix("198.51.100.1/24") // also kept for documentation (RFC 5737)
	}
	p.network.Subnet, p.network.Log, p.network.Names = subnet, c.Log, map[string]netip.Addr{}
	for _, name := range names {
		p.network.Names[strings.ToLower(name)] = p.members[0].IP
	}
	return p, nil
}

// podCIDR returns the i-th part of the cluster's range: a /24, or less where
// eight of those do not fit.
func podCIDR(cluster netip.Prefix, i int) (netip.Prefix, error) {
	if !cluster.IsValid() || !cluster.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("cluster CIDR %s: want an IPv4 network", cluster)
	}
	bits := max(24, cluster.Bits()+3)
	if bits > 30 || i >= 1<<(bits-cluster.Bits()) {
		return netip.Prefix{}, fmt.Errorf("cluster CIDR %s has no room for pod CIDR %d", cluster, i)
	}
	b := cluster.Addr().As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n += uint32(i) << (32 - bits)
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), bits), nil
}
