package builder

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/builder/initrd"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/derive"
)

// initrdFiles are our own files of the initrd: units and drop-ins.
//
//go:embed all:initrdfs
var initrdFiles embed.FS

// initrdPaths is what the initrd takes over from the operating system; what
// these need (libraries, link targets, interpreters) comes with them.
var initrdPaths = []string{
	"bin", "sbin", "lib", "lib64", // links of the merged /usr
	"etc/passwd", "etc/group", "etc/nsswitch.conf", "usr/lib/os-release",
	"usr/lib/systemd/systemd", "usr/lib/systemd/systemd-executor",
	"usr/lib/systemd/systemd-journald", "usr/lib/systemd/systemd-udevd",
	"usr/lib/systemd/systemd-fsck", "usr/lib/systemd/systemd-veritysetup",
	"usr/lib/systemd/systemd-modules-load", "usr/lib/systemd/systemd-shutdown",
	"usr/lib/systemd/systemd-sysroot-fstab-check",
	"usr/lib/systemd/system-generators/systemd-fstab-generator",
	"usr/lib/systemd/system-generators/systemd-veritysetup-generator",
	"usr/lib/systemd/system-generators/systemd-debug-generator",
	"usr/bin/systemctl", "usr/bin/journalctl", "usr/bin/udevadm", "usr/bin/systemd-repart",
	"usr/bin/mount", "usr/bin/umount", "usr/bin/echo", "usr/bin/sleep",
	"usr/bin/kmod", "usr/sbin/modprobe", "usr/sbin/dmsetup", "usr/sbin/mkfs.ext4", "usr/sbin/fsck", "usr/sbin/fsck.ext4",
	"etc/mke2fs.conf",
	"usr/bin/kscratch-node",
	"usr/lib/udev/ata_id", "usr/lib/udev/scsi_id",
	"usr/lib/udev/rules.d/50-udev-default.rules", "usr/lib/udev/rules.d/55-dm.rules",
	"usr/lib/udev/rules.d/60-block.rules", "usr/lib/udev/rules.d/60-persistent-storage.rules",
	"usr/lib/udev/rules.d/60-persistent-storage-dm.rules", "usr/lib/udev/rules.d/80-drivers.rules",
	"usr/lib/udev/rules.d/95-dm-notify.rules", "usr/lib/udev/rules.d/99-systemd.rules",
}

// initrdUnits are the stock units of the initrd, below usr/lib/systemd/system.
var initrdUnits = []string{
	"basic.target", "cryptsetup.target", "emergency.target", "final.target",
	"initrd-cleanup.service", "initrd-fs.target", "initrd-parse-etc.service",
	"initrd-root-device.target", "initrd-root-fs.target", "initrd-switch-root.service",
	"initrd-switch-root.target", "initrd-udevadm-cleanup-db.service", "initrd-usr-fs.target",
	"initrd.target", "local-fs-pre.target", "local-fs.target", "modprobe@.service", "paths.target",
	"reboot.target", "remote-veritysetup.target", "shutdown.target", "slices.target", "sockets.target",
	"swap.target", "sysinit.target", "systemd-fsck@.service", "systemd-journald-dev-log.socket",
	"systemd-journald.service", "systemd-journald.socket", "systemd-modules-load.service",
	"systemd-reboot.service", "systemd-repart.service", "systemd-udev-trigger.service",
	"systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udevd.service",
	"timers.target", "tmp.mount", "umount.target", `system-systemd\x2dveritysetup.slice`,
	"veritysetup-pre.target", "veritysetup.target", "systemd-poweroff.service", "poweroff.target",
}

// initrdWants pulls units in: target directory below the unit directory, and
// the units.
var initrdWants = []struct {
	dir   string
	units []string
}{
	{"sysinit.target.wants", []string{"kscratch-live.service", "systemd-journald.service", "systemd-modules-load.service",
		"systemd-udevd.service", "systemd-udev-trigger.service", "veritysetup.target"}},
	{"sockets.target.wants", []string{"systemd-journald-dev-log.socket", "systemd-journald.socket",
		"systemd-udevd-control.socket", "systemd-udevd-kernel.socket"}},
	{"initrd-root-device.target.wants", []string{"remote-veritysetup.target"}},
	{"initrd-fs.target.requires", []string{"systemd-repart.service", "sysroot-var.mount", "kscratch-etc.service"}},
	{"initrd.target.requires", []string{"ignition-fetch-offline.service", "ignition-files.service",
		"kscratch-configured.service"}},
}

// initrdModules are the kernel modules that finding and mounting the root may
// need: buses and disks of the common hypervisors, then file systems. A kernel
// that has one built in, or does not have it at all, goes without.
var initrdModules = []string{
	"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "virtio_console", "virtio_rng",
	"ahci", "ata_piix", "nvme", "sd_mod", "sr_mod", "usb_storage", "uas", "xhci_pci",
	"hv_storvsc", "hv_vmbus", "vmw_pvscsi", "xen_blkfront", "mmc_block", "sdhci_pci",
	"dm_mod", "dm_verity", "loop", "overlay", "erofs", "ext4", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8",
	"crc32c_generic", "crc32c_intel", "sha256_generic", "sha256_ssse3", "libcrc32c",
	"ip_tables", // systemd loads it early
	"qemu_fw_cfg", "dmi_sysfs", "efivarfs", "autofs4",
}

const (
	unitDir     = "usr/lib/systemd/system"
	ignitionDir = "usr/lib/dracut/modules.d/30ignition"
	initrdOwner = "kscratch:initrd"
)

// InitrdPaths returns the paths that every initrd takes over from the root,
// relative to it. What these need comes with them.
func InitrdPaths() []string {
	want := slices.Clone(initrdPaths)
	for _, u := range initrdUnits {
		want = append(want, path.Join(unitDir, u))
	}
	return want
}

// InitrdOwn reports whether a file of an initrd may differ from the one at its
// path in the root: it is one of ours, or made for the modules of the initrd.
func InitrdOwn(p string) bool {
	if _, err := initrdFiles.ReadFile("initrdfs/" + p); err == nil || p == "etc/machine-id" {
		return true
	}
	index, _ := path.Match("usr/lib/modules/*/modules.*", p)
	return index
}

// initrdTree returns the part of an initrd that the root decides. Debian's own
// tree, base, has what the root does without: Ignition.
func initrdTree(ctx context.Context, base, root *layers.Tree, l *Lock, o Options) (*layers.Tree, error) {
	own, err := initrdLayer(base)
	if err != nil {
		return nil, err
	}
	want := InitrdPaths()
	whole, err := layers.Overlay(root, own)
	if err != nil {
		return nil, fmt.Errorf("making the initrd: %w", err)
	}
	for f, err := range own.Files() {
		if err != nil {
			return nil, fmt.Errorf("making the initrd: %w", err)
		}
		want = append(want, f.Path)
	}
	for i, p := range want {
		want[i] = strings.ReplaceAll(p, `\`, `\\`) // a want is a pattern, in which a backslash quotes
	}
	t, err := initrd.Select(whole, want, modulesIn(root), initrd.SelectOptions{})
	if err != nil {
		return nil, fmt.Errorf("making the initrd: %w", err)
	}
	if t, err = derive.Modules(ctx, t, derive.Options{Time: l.Time, Cache: o.Store, Log: o.log()}); err != nil {
		return nil, fmt.Errorf("making the initrd: %w", err)
	}
	return t, nil
}

// modulesIn returns those of initrdModules that are files of the root.
func modulesIn(root *layers.Tree) []string {
	there := map[string]bool{}
	for f := range root.Under("usr/lib/modules") {
		name, _, ok := strings.Cut(path.Base(f.Path), ".ko")
		if ok {
			there[strings.ReplaceAll(name, "-", "_")] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(initrdModules), func(m string) bool { return !there[m] })
}

// initrdLayer returns our own files of the initrd, and Ignition from Debian's
// packages put where dracut would have put it.
func initrdLayer(base *layers.Tree) (layers.Layer, error) {
	var files []layers.File
	err := fs.WalkDir(initrdFiles, "initrdfs", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := initrdFiles.ReadFile(p)
		files = append(files, layers.Regular(strings.TrimPrefix(p, "initrdfs/"), 0o644, initrdOwner, b))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("internal error: reading our own initrd files: %w", err)
	}
	for _, m := range []struct{ from, to string }{
		{"ignition", "usr/bin/ignition"},
		{"ignition-fetch-offline.service", unitDir + "/ignition-fetch-offline.service"},
		{"ignition-files.service", unitDir + "/ignition-files.service"},
	} {
		f, ok := base.Lookup(path.Join(ignitionDir, m.from))
		if !ok {
			return nil, fmt.Errorf("making the initrd: Debian has no /%s: is the package ignition in it?", path.Join(ignitionDir, m.from))
		}
		f.Path = m.to
		files = append(files, f)
	}
	for _, w := range initrdWants {
		for _, u := range w.units {
			files = append(files, layers.Symlink(path.Join(unitDir, w.dir, u), "../"+u, initrdOwner))
		}
	}
	files = append(files,
		layers.Symlink("init", "usr/lib/systemd/systemd", initrdOwner),
		layers.Symlink(unitDir+"/default.target", "initrd.target", initrdOwner),
		layers.Symlink("etc/initrd-release", "../usr/lib/os-release", initrdOwner),
		layers.Symlink("etc/os-release", "../usr/lib/os-release", initrdOwner),
		layers.Regular("etc/machine-id", 0o444, initrdOwner, nil),
		// Ignition calls setfiles whether there is SELinux or not.
		layers.Symlink("usr/sbin/setfiles", "../bin/kscratch-node", initrdOwner),
		layers.Symlink("var/run", "../run", initrdOwner),
	)
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "sysroot", "root"} {
		files = append(files, layers.Dir(d, 0o755, initrdOwner))
	}
	return layers.Of("initrd", "", files...), nil
}
