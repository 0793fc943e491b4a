//go:build foreign

package etcoverlay

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMount has the kernel mount the overlay: in a user and mount namespace of
// its own, so that it needs no privilege and leaves nothing behind.
func TestMount(t *testing.T) {
	if os.Getenv("KSCRATCH_IN_NAMESPACE") == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestMount$", "-test.v")
		c.Env = append(os.Environ(), "KSCRATCH_IN_NAMESPACE=1")
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	bootTwice(t)
}

func bootTwice(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	o := Options{Root: filepath.Join(dir, "initrd"), Sysroot: filepath.Join(dir, "sysroot"), Random: strings.NewReader("0123456789abcdef")}
	put(t, o.Root, ImageIDPath, "a\n")
	put(t, o.Sysroot, "etc/machine-id", "")
	put(t, o.Sysroot, "etc/baked", "image\n")
	put(t, o.Sysroot, "var/x", "")
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(o.Sysroot, name))
		must(t, err)
		return string(b)
	}
	lower := filepath.Join(o.Sysroot, "etc")

	must(t, Start(o))
	must(t, Start(o)) // a restart of the unit changes nothing
	if got := read("etc/baked") + read("etc/machine-id"); got != "image\n"+randomID+"\n" {
		t.Errorf("first boot: %q", got)
	}
	put(t, o.Sysroot, "etc/baked", "changed\n")
	must(t, Done(o))
	must(t, unix.Unmount(lower, 0))
	if got := read("etc/baked") + read("etc/machine-id"); got != "image\n" {
		t.Errorf("the image's own /etc has changed: %q", got)
	}

	must(t, Start(o))
	if got := read("etc/baked") + read("etc/machine-id"); got != "changed\n"+randomID+"\n" {
		t.Errorf("second boot: %q", got)
	}
	if _, err := os.Stat(filepath.Join(o.Root, FirstBootPath)); !os.IsNotExist(err) {
		t.Errorf("second boot is taken for a first one: %v", err)
	}
	must(t, unix.Unmount(lower, 0))

	o.Image = "b" // an upgrade: a clean /etc, the same machine
	must(t, Start(o))
	if got := read("etc/baked") + read("etc/machine-id"); got != "image\n"+randomID+"\n" {
		t.Errorf("upgrade: %q", got)
	}
	must(t, unix.Unmount(lower, 0))
}
