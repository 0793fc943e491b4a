// Package boot boots disk images in QEMU and looks into the running node.
//
// [Boot] starts an image on a [Disk] that takes all writes, with a root shell
// in the guest that only this test gives it: Ignition user configuration
// through fw_cfg adds a unit that runs commands from a virtio serial port. The
// image under test is the one that users get. Consoles, journals and the
// stages of each boot are kept when a test fails.
//
// The tests themselves have the build tag "boot": each boot takes a minute or
// more of emulation where KVM is missing. [StartCluster] is [Boot] for several
// machines at once.
package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/builder/vm"
)

// apiPort is where the API server listens in the guest.
const apiPort = 6443

// Config is what all boots of a test run share.
type Config struct {
	Image   Image
	Kubectl string // path of the program
	Dir     string // for disks and artifacts
	Accel   vm.Accel
	CPUs    int // of each machine
	Memory  int // of each machine, MiB
}

// Disk is what a node keeps between boots.
type Disk struct {
	image   Image
	dir     string
	boots   int
	overlay string
	vars    string
}

// diskSize is the virtual size of a node's disk in bytes: room for both slots
// and a state partition.
const diskSize = 16 << 30

// NewDisk returns a new disk with the image on it, for one test.
func NewDisk(t testing.TB, c Config, im Image) *Disk {
	t.Helper()
	dir := filepath.Join(c.Dir, strings.ReplaceAll(t.Name(), "/", "-"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &Disk{image: im, dir: dir, overlay: filepath.Join(dir, "disk.qcow2"), vars: filepath.Join(dir, "vars.fd")}
	t.Cleanup(func() {
		os.Remove(d.overlay)
		os.Remove(d.vars)
		if t.Failed() {
			t.Logf("consoles and journals: %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return d
}

// Options are the inputs of one boot. The zero value is a boot without any.
type Options struct {
	PodCIDR    string            // as an SMBIOS credential
	FwCfg      map[string]string // fw_cfg items by name
	KernelArgs string            // through SMBIOS and systemd-stub
	Files      map[string]string // written by Ignition on the first boot of the disk
	Allow      []vm.Allowed      // console lines that this boot may print
	Cable      *os.File          // to a switch, in the place of a forwarded API server
	MAC        string            // hardware address
	Medium     func(*vm.Machine) // makes the machine boot from another medium than the disk
}

// Node is a running machine.
type Node struct {
	VM  *vm.VM
	API *vm.API

	t      testing.TB
	c      Config
	image  Image
	server string // URL of the API server
	dir    string // artifacts of this boot
	shell  *shell
	deny   *vm.Denylist
}

// Boot powers a machine on. When the test ends, the machine is switched off if
// it still runs, and its console must not have broken a rule of the denylist.
func Boot(t testing.TB, c Config, d *Disk, o Options) *Node {
	t.Helper()
	d.boots++
	n := &Node{t: t, c: c, image: d.image, dir: filepath.Join(d.dir, fmt.Sprintf("boot-%d", d.boots))}
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	deny, err := vm.NewDenylist(vm.Rules(), o.Allow)
	if err != nil {
		t.Fatal(err)
	}
	n.deny = deny
	if err := n.start(d, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.end)
	return n
}

func (n *Node) start(d *Disk, o Options) error {
	ignition := filepath.Join(n.dir, "user.ign")
	b, err := ignitionConfig(o.Files)
	if err != nil {
		return err
	}
	if err := os.WriteFile(ignition, b, 0o600); err != nil {
		return err
	}
	transcript, err := os.Create(filepath.Join(n.dir, "console.log"))
	if err != nil {
		return err
	}
	forwards := []vm.Forward{{Guest: apiPort}}
	if o.Cable != nil {
		forwards = nil
	}
	m := vm.Machine{
		Dir: n.dir, Clock: time.Now,
		Disk: d.image.Raw, DiskSize: diskSize, Overlay: d.overlay, Unsafe: true,
		Firmware: vm.Firmware{Vars: d.vars},
		Accel:    n.c.Accel, CPUs: n.c.CPUs, Memory: n.c.Memory,
		PodCIDR: o.PodCIDR, FwCfg: o.FwCfg, KernelArgs: o.KernelArgs, Ignition: ignition,
		Forwards: forwards, Cable: o.Cable, MAC: o.MAC, Ports: []string{shellPort},
		Transcript: transcript,
	}
	if o.Medium != nil {
		o.Medium(&m)
	}
	n.VM, err = vm.Start(context.Background(), m)
	if err != nil {
		return errors.Join(err, transcript.Close())
	}
	n.t.Cleanup(func() { transcript.Close() })
	n.shell = newShell(n.VM.Port(shellPort))
	config, err := os.ReadFile(d.image.Kubeconfig)
	if err != nil {
		return errors.Join(err, n.VM.Off())
	}
	if o.Cable != nil {
		return nil
	}
	n.server = "https://" + n.VM.Addr(apiPort)
	if n.API, err = vm.NewAPI(config, n.VM.Addr(apiPort)); err != nil {
		return errors.Join(err, n.VM.Off())
	}
	return nil
}

// end judges the boot and switches the machine off.
func (n *Node) end() {
	for _, f := range n.deny.ScanAll(n.VM.Console().Lines()) {
		n.t.Errorf("console of %s: %s", filepath.Base(n.dir), f)
	}
	if n.running() {
		if n.t.Failed() {
			n.keepJournal()
		}
		if err := n.VM.Off(); err != nil {
			n.t.Errorf("switching the machine off: %v", err)
		}
	}
	if n.API != nil {
		n.API.Close()
	}
}

// In returns the node for use in a subtest: what goes wrong is the subtest's.
func (n *Node) In(t testing.TB) *Node {
	c := *n
	c.t = t
	return &c
}

func (n *Node) running() bool {
	select {
	case <-n.VM.Done():
		return false
	default:
		return true
	}
}

// keepJournal saves the guest's journal, if the guest can still be asked.
func (n *Node) keepJournal() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := n.shell.run(ctx, "journalctl -b -o short-monotonic --no-pager; systemctl --no-pager --failed; systemctl list-jobs")
	if err != nil {
		n.t.Logf("the journal could not be had: %v; console:\n%s", err, n.VM.Console().Tail(40))
		return
	}
	if err := os.WriteFile(filepath.Join(n.dir, "journal.txt"), []byte(r.Stdout), 0o644); err != nil {
		n.t.Error(err)
	}
}

// Run runs a bash script as root in the guest.
func (n *Node) Run(ctx context.Context, script string) (Result, error) {
	return n.shell.run(ctx, script)
}

// Output runs a script that must succeed and returns what it wrote, without
// the white space around it.
func (n *Node) Output(ctx context.Context, script string) string {
	n.t.Helper()
	r, err := n.Run(ctx, script)
	if err != nil {
		n.t.Fatal(err)
	}
	if r.Code != 0 {
		n.t.Fatalf("%s: exit status %d: %s", script, r.Code, r.Text())
	}
	return strings.TrimSpace(r.Stdout)
}

// Eventually runs a script every second until it succeeds, and returns what it
// then wrote. The test ends if ctx does before.
func (n *Node) Eventually(ctx context.Context, script string) string {
	n.t.Helper()
	var last string
	for {
		r, err := n.Run(ctx, script)
		if err == nil && r.Code == 0 {
			return strings.TrimSpace(r.Stdout)
		}
		last = fmt.Sprintf("exit status %d: %s", r.Code, r.Text())
		if err != nil {
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			n.t.Fatalf("%s: not in time: %s; console:\n%s", script, last, n.VM.Console().Tail(40))
		case <-n.VM.Done():
			n.t.Fatalf("%s: the machine went off; console:\n%s", script, n.VM.Console().Tail(40))
		case <-time.After(time.Second):
		}
	}
}

// Kubectl runs the host's kubectl as the cluster's administrator; it must
// succeed.
func (n *Node) Kubectl(ctx context.Context, stdin string, args ...string) string {
	n.t.Helper()
	all := append([]string{"--kubeconfig", n.image.Kubeconfig, "--server", n.server}, args...)
	cmd := exec.CommandContext(ctx, n.c.Kubectl, all...)
	// A home of its own: no configuration and no cache of the user.
	cmd.Env = []string{"HOME=" + n.dir}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		n.t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(out.String())
}

// WaitReady waits until the machine is a Ready node.
func (n *Node) WaitReady(ctx context.Context) vm.Ready {
	n.t.Helper()
	r, err := n.VM.WaitReady(ctx, n.API)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// Shutdown powers the guest down in an orderly way.
func (n *Node) Shutdown(ctx context.Context) {
	n.t.Helper()
	// The shell may be gone before it can answer: what counts is that the
	// machine goes off.
	_, err := n.Run(ctx, "systemctl --no-block poweroff")
	select {
	case <-n.VM.Done():
		if err := n.VM.Wait(); err != nil {
			n.t.Error(err)
		}
	case <-ctx.Done():
		n.t.Fatalf("the guest does not power down (%v); console:\n%s", err, n.VM.Console().Tail(40))
	}
}

// Cut writes everything out and then takes the power away.
func (n *Node) Cut(ctx context.Context) {
	n.t.Helper()
	n.Output(ctx, "sync")
	if err := n.VM.Off(); err != nil {
		n.t.Error(err)
	}
}
