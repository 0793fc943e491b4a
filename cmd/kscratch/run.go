package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder/vm"
)

// apiPort is where the API server listens in the guest, and on loopback if
// that port is free: admin.kubeconfig names it.
const apiPort = 6443

// notReadyError says that the node did not come up.
type notReadyError struct{ error }

func (e *notReadyError) Unwrap() error { return e.error }

type runFlags struct {
	podCIDR, disk, ignition, kernelArgs, accel string
	memory, cpus, apiPort                      int
	diskSize                                   int64
	waitReady, outbound                        bool
	timeout                                    time.Duration
}

func newImageRun(e *env) *cobra.Command {
	var r runFlags
	c := &cobra.Command{
		Use:   "run IMAGE",
		Short: "Boot a disk image in QEMU",
		Long: `Boots a disk image in QEMU, with KVM where it works. The serial console goes to
standard output, and the API server is forwarded to a loopback port. The image
itself is never written to: what the node writes is thrown away at the end, or
kept in the file that --disk names.

With --wait-ready, exits with 0 once the node is Ready and says how long it
took; with 6 and the tail of the console if it does not come.`,
		Example: "  kscratch image run out/master.raw --pod-cidr 10.244.1.0/24",
		Args:    args(cobra.ExactArgs(1)),
		RunE:    func(c *cobra.Command, a []string) error { return e.runImage(c, a[0], r) },
	}
	f := c.Flags()
	f.StringVar(&r.podCIDR, "pod-cidr", "", "the node's `range` of pod addresses, such as 10.244.1.0/24")
	f.StringVar(&r.disk, "disk", "", "keep what the node writes in this qcow2 `file`, made if missing")
	f.Int64Var(&r.diskSize, "disk-size", 20, "size of the disk in `GiB`")
	f.StringVar(&r.ignition, "ignition", "", "Ignition `config` handed to the node, as a cloud would")
	f.StringVar(&r.kernelArgs, "kernel-args", "", "further kernel `arguments`")
	f.IntVar(&r.memory, "memory", 3072, "memory in `MiB`")
	f.IntVar(&r.cpus, "cpus", 2, "number of processors")
	f.IntVar(&r.apiPort, "api-port", 0, "loopback `port` of the API server; 0 means 6443, or any if that is taken")
	f.StringVar(&r.accel, "accel", "", "`kvm` or tcg, QEMU's emulator; empty means KVM where it works")
	f.BoolVar(&r.outbound, "outbound", false, "let the node reach the networks that this machine reaches")
	f.BoolVar(&r.waitReady, "wait-ready", false, "end once the node is Ready")
	f.DurationVar(&r.timeout, "timeout", 10*time.Minute, "how long --wait-ready waits")
	return c
}

func (e *env) runImage(c *cobra.Command, image string, r runFlags) (err error) {
	spec, err := e.spec(c)
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(filepath.Dir(e.file), spec.PKI, "admin.kubeconfig")
	credentials, err := os.ReadFile(kubeconfig)
	if err != nil {
		return fmt.Errorf("reading the credentials of the cluster: %w; run this where the image was built, or name its cluster file with --file", err)
	}
	m, err := r.machine(image, e.quiet)
	if err != nil {
		return err
	}
	m.Dir, err = os.MkdirTemp("", "kscratch-run-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(m.Dir)) }()
	m.Log = e.logger()
	machine, err := vm.Start(c.Context(), m)
	if err != nil {
		return err
	}
	addr := machine.Addr(apiPort)
	fmt.Fprintf(os.Stderr, "API server: https://%s\nkubectl --kubeconfig %s --server https://%s get nodes\n", addr, kubeconfig, addr)
	if r.waitReady {
		return r.wait(c.Context(), machine, credentials)
	}
	return machine.Wait()
}

func (r runFlags) machine(image string, quiet bool) (vm.Machine, error) {
	if _, err := os.Stat(image); err != nil {
		return vm.Machine{}, err
	}
	var console io.Writer = os.Stdout
	if quiet {
		console = nil
	}
	return vm.Machine{
		Clock: time.Now, Disk: image, DiskSize: r.diskSize << 30, Overlay: r.disk, Snapshot: r.disk == "", Unsafe: r.disk == "",
		Accel: vm.Accel(r.accel), Memory: r.memory, CPUs: r.cpus, PodCIDR: r.podCIDR, KernelArgs: r.kernelArgs, Ignition: r.ignition,
		Forwards: []vm.Forward{{Host: hostPort(r.apiPort), Guest: apiPort}}, Console: console, Outbound: r.outbound,
	}, nil
}

// hostPort returns the port asked for, or 6443 if it is free, or 0 for any.
func hostPort(asked int) int {
	if asked != 0 {
		return asked
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(apiPort)))
	if err != nil {
		return 0
	}
	if l.Close() != nil {
		return 0
	}
	return apiPort
}

func (r runFlags) wait(ctx context.Context, machine *vm.VM, credentials []byte) (err error) {
	defer func() { err = errors.Join(err, machine.Off()) }()
	api, err := vm.NewAPI(credentials, machine.Addr(apiPort))
	if err != nil {
		return err
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	ready, err := machine.WaitReady(ctx, api)
	if err != nil {
		return &notReadyError{err}
	}
	fmt.Fprintf(os.Stderr, "node %s is Ready %.0f s after power-on (API server after %.0f s)\n",
		ready.Name, ready.After.Seconds(), ready.APIAfter.Seconds())
	return nil
}
