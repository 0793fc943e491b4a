package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder/vm"
	"github.com/kscratch/kscratch/builder/vm/cluster"
)

func newCluster(e *env) *cobra.Command {
	c := &cobra.Command{Use: "cluster", Short: "Run whole clusters", Args: args(cobra.NoArgs)}
	c.AddCommand(newClusterRun(e))
	return c
}

type clusterFlags struct {
	machines                int
	master, node            string
	keep, accel             string
	memory, cpus, apiPort   int
	waitReady               bool
	timeout, shutdownWithin time.Duration
}

func newClusterRun(e *env) *cobra.Command {
	var r clusterFlags
	c := &cobra.Command{
		Use:   "run",
		Short: "Boot a master and nodes in QEMU, on a network of their own",
		Long: `Boots a master and nodes in QEMU, on a switch in this process: no root, no bridge
of the host's. Each machine is given its address and host name by DHCP, and its
pod CIDR as its only input (none with network.cbr0: auto). The API server is
forwarded to a loopback port. Nothing in the network reaches beyond it.

The images are never written to. What the machines write is thrown away at the
end, when Ctrl-C pulls the plug, or kept in the directory that --keep names, with
which a second run goes on. The first Ctrl-C then shuts the machines down, a
second one pulls the plug.

With --wait-ready, exits with 0 once all nodes are Ready, and says how long that
took and how much memory each machine takes up; with 6 and the tails of the
consoles if they do not come.`,
		Example: "  kscratch image build --role master && kscratch image build --role node\n  kscratch cluster run --nodes 2",
		Args:    args(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return e.runCluster(c, r) },
	}
	f := c.Flags()
	f.IntVar(&r.machines, "nodes", 2, "number of machines, the master among them")
	f.StringVar(&r.master, "master", "out/master.raw", "raw `image` of the master")
	f.StringVar(&r.node, "node", "out/node.raw", "raw `image` of the other nodes")
	f.StringVar(&r.keep, "keep", "", "keep the machines' disks in this `directory`")
	f.StringVar(&r.accel, "accel", "", "`kvm` or tcg, QEMU's emulator; empty means KVM where it works")
	f.IntVar(&r.memory, "memory", 3072, "memory of each machine in `MiB`")
	f.IntVar(&r.cpus, "cpus", 2, "processors of each machine")
	f.IntVar(&r.apiPort, "api-port", 0, "loopback `port` of the API server; 0 means 6443, or any if that is taken")
	f.BoolVar(&r.waitReady, "wait-ready", false, "end once all nodes are Ready")
	f.DurationVar(&r.timeout, "timeout", 15*time.Minute, "how long --wait-ready waits")
	f.DurationVar(&r.shutdownWithin, "shutdown-timeout", 90*time.Second, "how long machines may take to shut down")
	return c
}

func (e *env) runCluster(c *cobra.Command, r clusterFlags) (err error) {
	if r.machines < 1 || r.machines > 100 {
		return usageError{fmt.Errorf("--nodes %d: want 1 to 100, the master among them", r.machines)}
	}
	spec, err := e.spec(c)
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(filepath.Dir(e.file), spec.PKI, "admin.kubeconfig")
	credentials, err := os.ReadFile(kubeconfig)
	if err != nil {
		return fmt.Errorf("reading the credentials of the cluster: %w; run this where the images were built, or name their cluster file with --file", err)
	}
	pods, err := netip.ParsePrefix(spec.Network.ClusterCIDR)
	if err != nil {
		return fmt.Errorf("internal error: an unchecked spec: %w", err)
	}
	dir := r.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "kscratch-cluster-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	out := &consoles{w: os.Stdout}
	if e.quiet {
		out.w = io.Discard
	}
	// Ctrl-C is for the shutdown below; machines end when this function does.
	k, err := cluster.Start(context.WithoutCancel(c.Context()), cluster.Config{
		Name: spec.Name, Dir: dir, Clock: time.Now, Master: r.master, Node: r.node, Machines: r.machines,
		Kubeconfig: credentials, Endpoint: spec.ControlPlane.Endpoint, ClusterCIDR: pods, NoPodCIDR: spec.Network.CBR0 == "auto",
		Accel: vm.Accel(r.accel), Memory: r.memory, CPUs: r.cpus, APIPort: hostPort(r.apiPort),
		Console: out.of, Log: e.logger(), Edit: func(_ string, m *vm.Machine) { m.Unsafe = r.keep == "" },
	})
	defer out.flush()
	if errors.Is(err, syscall.EADDRINUSE) {
		return usageError{fmt.Errorf("--api-port %d: another program listens there", r.apiPort)}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	fmt.Fprintf(os.Stderr, "API server: https://%s\nkubectl --kubeconfig %s --server https://%s get nodes\n", k.Addr(), kubeconfig, k.Addr())
	if r.waitReady {
		err = r.wait(c.Context(), k)
	} else {
		err = k.Wait(c.Context())
	}
	if r.keep == "" {
		return err // nothing to keep in order
	}
	// Another Ctrl-C ends the program, and QEMU with it.
	fmt.Fprintln(os.Stderr, "shutting the machines down")
	return errors.Join(err, k.Shutdown(context.WithoutCancel(c.Context()), r.shutdownWithin))
}

func (r clusterFlags) wait(ctx context.Context, k *cluster.Cluster) error {
	timed, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	if err := k.WaitReady(timed); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &notReadyError{err}
	}
	fmt.Fprintf(os.Stderr, "%d nodes are Ready %.0f s after power-on\n", len(k.Members()), k.Elapsed().Seconds())
	for _, m := range k.Members() {
		fmt.Fprintf(os.Stderr, "%-8s %-15s %4d MiB of memory\n", m.Name, m.IP, k.VM(m).RSS()>>20)
	}
	return nil
}

// consoles writes the consoles of several machines line by line.
type consoles struct {
	mu  sync.Mutex
	w   io.Writer
	all []*console
}

func (c *consoles) of(machine string) io.Writer {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, &console{all: c, prefix: fmt.Sprintf("%-8s| ", machine)})
	return c.all[len(c.all)-1]
}

// flush writes what the machines said last without ending the line.
func (c *consoles) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.all {
		if len(one.rest) > 0 {
			fmt.Fprintf(c.w, "%s%s\n", one.prefix, one.rest)
			one.rest = nil
		}
	}
}

// maxLine is the most of a console's line, in bytes, that is kept until its end.
const maxLine = 16 << 10

// console is one machine's.
type console struct {
	all    *consoles
	prefix string
	rest   []byte // of a line that is not whole
}

// Write writes the whole lines of what it has got.
func (c *console) Write(b []byte) (int, error) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.rest = append(c.rest, b...)
	for {
		line, rest, ok := bytes.Cut(c.rest, []byte("\n"))
		if !ok && len(line) < maxLine {
			return len(b), nil
		}
		if _, err := fmt.Fprintf(c.all.w, "%s%s\n", c.prefix, bytes.TrimRight(line, "\r")); err != nil {
			return 0, err
		}
		c.rest = rest
	}
}
