package fakeworld

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/lint"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/test/aptfake"
)

// Kernel is the release of the one kernel of a world, as uname -r says it.
const Kernel = "6.12.1-cloud-amd64"

// Debs returns the packages of a world: each that a master asks for by name,
// and the kernel. Their files are those that the content table has, and what
// else of the initrd's files a build would not make itself.
func Debs() ([]aptfake.Deb, error) {
	files := map[string][]layers.File{}
	there := map[string]bool{}
	add := func(pkg string, f layers.File) {
		if !there[f.Path] {
			files[pkg], there[f.Path] = append(files[pkg], f), true
		}
	}
	for _, c := range contents() {
		add(c.pkg, c.file)
	}
	for _, p := range builder.InitrdPaths() {
		if !slices.Contains(derived, p) {
			add(packageOf(p), fileAt(p))
		}
	}
	var out []aptfake.Deb
	for _, name := range append(builder.Default().PackageNames(builder.Master), "linux-image-"+Kernel) {
		d := aptfake.Deb{Name: name, Files: files[name]}
		switch name {
		case "linux-image-cloud-amd64":
			d.Depends = "linux-image-" + Kernel
		case "docker.io":
			d.Version = "26.1.5+dfsg1-9" // cri-dockerd does not go with any
		}
		out = append(out, d)
	}
	return out, nil
}

// derived are the paths of an initrd that no package has: a build makes them.
var derived = []string{"etc/passwd", "etc/group", "etc/nsswitch.conf", "usr/bin/kscratch-node"}

// packageOf says which package has a path.
func packageOf(p string) string {
	for _, o := range []struct{ pattern, pkg string }{
		{"usr/lib/udev/rules.d/*-dm*", "cryptsetup-bin"},
		{"usr/lib/udev/*", "udev"}, {"usr/lib/udev/*/*", "udev"},
		{"usr/lib/systemd/system/*veritysetup*", "systemd-cryptsetup"},
		{"usr/lib/systemd/system/*cryptsetup*", "systemd-cryptsetup"},
		{"usr/lib/systemd/*veritysetup*", "systemd-cryptsetup"},
		{"usr/lib/systemd/*/*veritysetup*", "systemd-cryptsetup"},
		{"usr/lib/systemd/system/*repart*", "systemd-repart"}, {"usr/bin/systemd-repart", "systemd-repart"},
		{"usr/lib/systemd/system/*udev*", "udev"}, {"usr/lib/systemd/*udev*", "udev"}, {"usr/bin/udevadm", "udev"},
		{"usr/bin/mount", "mount"}, {"usr/bin/umount", "mount"},
		{"usr/bin/kmod", "kmod"}, {"usr/sbin/modprobe", "kmod"},
		{"usr/sbin/dmsetup", "cryptsetup-bin"},
		{"usr/sbin/*.ext4", "e2fsprogs"}, {"etc/mke2fs.conf", "e2fsprogs"},
		{"usr/sbin/fsck", "util-linux"},
		{"usr/bin/echo", "coreutils"}, {"usr/bin/sleep", "coreutils"},
	} {
		if ok, err := path.Match(o.pattern, p); ok && err == nil {
			return o.pkg
		}
	}
	return "systemd"
}

// fileAt returns a file that fits a path: a unit, rules, a program.
func fileAt(p string) layers.File {
	switch {
	case strings.HasPrefix(p, "usr/lib/systemd/system/"):
		return text(p, "[Unit]\nDescription="+path.Base(p)+"\n")
	case path.Ext(p) == ".rules", path.Ext(p) == ".conf":
		return text(p, "# "+path.Base(p)+"\n")
	}
	return bin(p)
}

func text(p, s string) layers.File { return layers.Regular(p, 0o644, "fakeworld", []byte(s)) }

func bin(p string) layers.File {
	return layers.Regular(p, 0o755, "fakeworld", Program(path.Base(p)))
}

func link(p, target string) layers.File { return layers.Symlink(p, target, "fakeworld") }

type content struct {
	pkg  string
	file layers.File
}

// contents are the files that a build looks for by name, and some of each kind
// that it has to treat in a way of its own.
func contents() []content {
	const (
		boot     = "usr/lib/systemd/boot/efi/"
		dracut   = "usr/lib/dracut/modules.d/30ignition/"
		modules  = "usr/lib/modules/" + Kernel + "/"
		kernel   = "linux-image-" + Kernel
		accounts = "usr/share/base-passwd/"
	)
	su := bin("usr/bin/su")
	su.Mode |= fs.ModeSetuid
	wall := bin("usr/bin/wall")
	wall.Mode |= fs.ModeSetgid
	wall.GID = 5
	mail := layers.Dir("var/mail", 0o775, "fakeworld")
	mail.GID = 8
	out := []content{
		{"base-files", link("bin", "usr/bin")},
		{"base-files", link("sbin", "usr/sbin")},
		{"base-files", link("lib", "usr/lib")},
		{"base-files", link("lib64", "usr/lib64")},
		{"base-files", layers.Dir("usr/lib64", 0o755, "fakeworld")},
		{"base-files", layers.Dir("root", 0o700, "fakeworld")},
		{"base-files", layers.Dir("tmp", 0o777|fs.ModeSticky, "fakeworld")},
		{"base-files", mail},
		{"base-files", text("usr/lib/os-release", "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\nVERSION_ID=\"13\"\n")},
		{"base-files", link("etc/os-release", "../usr/lib/os-release")},
		{"base-passwd", text(accounts+"passwd.master", "root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")},
		{"base-passwd", text(accounts+"group.master", "root:*:0:\ntty:*:5:\nmail:*:8:\nshadow:*:42:\nnogroup:*:65534:\n")},
		{"bash", bin("usr/bin/bash")},
		{"bash", text("usr/share/doc/bash/README", "Read me.\n")},
		{"bash", text("usr/share/doc/bash/copyright", "Made for a test.\n")},
		{"dash", bin("usr/bin/dash")},
		{"dash", link("usr/bin/sh", "dash")},
		{"systemd-boot-efi", layers.Regular(boot+"systemd-bootx64.efi", 0o644, "fakeworld", efi())},
		{"systemd-boot-efi", layers.Regular(boot+"linuxx64.efi.stub", 0o644, "fakeworld", efi())},
		{"ignition", bin(dracut + "ignition")},
		{"ignition", text(dracut+"ignition-fetch-offline.service", "[Unit]\n")},
		{"ignition", text(dracut+"ignition-files.service", "[Unit]\n")},
		{"login", su},
		{"util-linux", wall},
		{"coreutils", bin("usr/bin/env")},
		{"coreutils", bin("usr/bin/install")},
		{"coreutils", bin("usr/bin/rm")},
		{"kmod", bin("usr/bin/kmod")},
		{"kmod", link("usr/sbin/modprobe", "../bin/kmod")},
		{"dbus", text("usr/lib/sysusers.d/dbus.conf", "u messagebus - \"System message bus\"\n")},
		{"systemd", text("usr/lib/sysusers.d/systemd-journal.conf", "g systemd-journal - -\n")},
		{"systemd", fileAt("usr/lib/systemd/system/boot-complete.target")},
		{"systemd", fileAt("usr/lib/systemd/system/systemd-networkd.service")},
		{"systemd", fileAt("usr/lib/systemd/system/systemd-networkd-wait-online.service")},
		{"systemd", bin("usr/lib/systemd/systemd-networkd-wait-online")},
		{"systemd-resolved", fileAt("usr/lib/systemd/system/systemd-resolved.service")},
		{"systemd-resolved", bin("usr/bin/resolvectl")},
		{"systemd-timesyncd", fileAt("usr/lib/systemd/system/systemd-timesyncd.service")},
		{"systemd", text("usr/lib/tmpfiles.d/var.conf", "d /var 0755 - - -\n")},
		{"docker.io", bin("usr/sbin/dockerd")},
		{"docker.io", text("usr/lib/systemd/system/docker.service", "[Install]\nWantedBy=multi-user.target\n")},
		{"containerd", bin("usr/bin/containerd")},
		{"containerd", fileAt("usr/lib/systemd/system/containerd.service")},
		{"iptables", bin("usr/sbin/xtables-nft-multi")},
		{"nftables", bin("usr/sbin/nft")},
		{kernel, layers.Regular("boot/vmlinuz-"+Kernel, 0o644, "fakeworld", efi())},
		{kernel, text("boot/config-"+Kernel, kernelConfig())},
		{kernel, text(modules+"modules.builtin", "kernel/fs/erofs/erofs.ko\n")},
		{kernel, text(modules+"modules.order", "kernel/drivers/md/dm-mod.ko\nkernel/drivers/md/dm-verity.ko\nkernel/fs/overlayfs/overlay.ko\n")},
	}
	for p, info := range map[string]string{
		"drivers/md/dm-mod.ko": "name=dm_mod", "drivers/md/dm-verity.ko": "name=dm_verity\x00depends=dm-mod",
		"fs/overlayfs/overlay.ko": "name=overlay\x00alias=fs-overlay", "drivers/net/dummy.ko": "name=dummy",
	} {
		out = append(out, content{kernel, layers.Regular(modules+"kernel/"+p, 0o644, "fakeworld", module(info+"\x00license=GPL\x00"))})
	}
	return out
}

// kernelConfig has what a node needs of a kernel, all of it built in.
func kernelConfig() string {
	var b strings.Builder
	for _, o := range lint.KernelOptions() {
		b.WriteString("CONFIG_" + o + "=y\n")
	}
	return b.String()
}
