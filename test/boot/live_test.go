//go:build boot

package boot

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder/vm"
)

// convert writes the image under test in another format.
func convert(t *testing.T, format, ext string) string {
	t.Helper()
	out := filepath.Join(config.Dir, "medium"+ext)
	if err := os.MkdirAll(config.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(out) })
	command(t, *program, "image", "convert", config.Image.Raw, "--format", format, "--output", out)
	return out
}

func command(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// blankDisk returns a disk with nothing on it, for a node of the cluster.
func blankDisk(t *testing.T) *Disk {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "blank.raw")
	f, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	return NewDisk(t, config, Image{Raw: raw, Kubeconfig: config.Image.Kubeconfig})
}

// netMemory is what the machine has in MiB: the root is in memory, too.
const netMemory = 4608

// TestPXE boots the kernel and the initrd of a network set, as iPXE would, with
// a blank disk, again with the state that is then there, and without any disk;
// with -short without any, for the disks of [TestISO] are no others.
func TestPXE(t *testing.T) {
	dir := t.TempDir()
	command(t, "tar", "-C", dir, "-xf", convert(t, "pxe", ".pxe.tar"))
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	set := func(more string) func(*vm.Machine) {
		return func(m *vm.Machine) {
			m.Kernel, m.Initrd = filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd")
			m.Cmdline, m.Memory = strings.TrimSpace(string(cmdline))+more, netMemory
		}
	}
	if !testing.Short() {
		live(t, set(""))
	}
	t.Run("in memory", func(t *testing.T) {
		// The disk is not touched.
		ctx := within(t, longTime)
		n := Boot(t, config, blankDisk(t), Options{PodCIDR: liveCIDR, Medium: set(" kscratch.state=memory")})
		liveNode(t, n, ctx)
		checkLive(t, n, ctx, "/dev/loop")
		outputs(t, n, ctx, map[string]string{"head -c 1048576 /dev/vda | tr -d '\\0' | wc -c": "0"})
		if !testing.Short() {
			checkUnits(t, n, ctx)
		}
		n.Shutdown(ctx)
	})
}

// TestISO boots a CD with a blank disk, and again.
func TestISO(t *testing.T) {
	cd := convert(t, "iso", ".iso")
	live(t, func(m *vm.Machine) { m.CD = cd })
}

const liveCIDR = "10.244.1.0/24"

// live boots a medium twice with the same disk, which is blank at first. With
// -short it is enough that docker runs, which needs the root and the state; the
// kubelet does no more with them than on any disk.
func live(t *testing.T, medium func(*vm.Machine)) {
	d := blankDisk(t)
	var first string // what must be the same
	same := func(n *Node, ctx context.Context) string {
		if testing.Short() {
			return n.Output(ctx, "cat /etc/machine-id /run/kscratch/node.env /var/lib/kept")
		}
		return fmt.Sprint(identify(n, ctx))
	}
	t.Run("blank disk", func(t *testing.T) {
		ctx := within(t, longTime)
		n := Boot(t, config, d, Options{PodCIDR: liveCIDR, Medium: medium})
		liveNode(t, n, ctx)
		checkReadOnly(t, n, ctx)
		checkLive(t, n, ctx, "/dev/vda1")
		n.Output(ctx, "echo schnitzel > /var/lib/kept")
		if !testing.Short() {
			checkPod(t, n, ctx, liveCIDR)
			checkUnits(t, n, ctx)
			n.Kubectl(ctx, "", "create", "configmap", "kept", "--from-literal=word=schnitzel")
		}
		first = same(n, ctx)
		n.Shutdown(ctx)
	})
	t.Run("the same disk", func(t *testing.T) {
		if first == "" {
			t.Fatal("there was no first boot")
		}
		ctx := within(t, longTime)
		n := Boot(t, config, d, Options{Medium: medium})
		liveNode(t, n, ctx)
		if got := same(n, ctx); got != first {
			t.Errorf("after the second boot: got %s, want %s", got, first)
		}
		checkLive(t, n, ctx, "/dev/vda1")
		if !testing.Short() {
			checkUnits(t, n, ctx)
		}
		n.Shutdown(ctx)
	})
}

// liveNode waits for a Ready node, or with -short until docker runs.
func liveNode(t *testing.T, n *Node, ctx context.Context) {
	t.Helper()
	if testing.Short() {
		checkCIDR(t, n, ctx, liveCIDR)
		n.Eventually(ctx, "systemctl is-active docker.service")
		return
	}
	ready := n.WaitReady(ctx)
	report(t, n, ctx, ready)
	checkNode(t, n, ctx, ready.Node, liveCIDR)
}

// checkLive: both halves of the root are on one loop device that cannot be
// written to, and the state is where it should be.
func checkLive(t *testing.T, n *Node, ctx context.Context, state string) {
	t.Helper()
	outputs(t, n, ctx, map[string]string{
		"cd /sys/class/block/$(basename $(readlink -f /dev/mapper/root))/slaves && echo * | sed 's/loop[0-9]*p[0-9]*/loop/g'": "loop loop",
		"cat /sys/class/block/$(basename $(readlink -f /dev/mapper/root))/ro":                                                 "1",
	})
	if got := n.Output(ctx, "findmnt -n -o SOURCE /var"); !strings.HasPrefix(got, state) {
		t.Errorf("the state is on %s, want %s", got, state)
	}
}
