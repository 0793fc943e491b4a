package derive

import (
	"context"
	"path"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

var stepDrop = Step{
	Name: "drop",
	Doc:  "paths that a running node never reads; the kernel's configuration goes to its modules",
	Run:  dropUnread,
}

// unread is everything that is dropped, with the reason. An entry ending in
// "/*" drops what is below a directory and keeps the directory.
var unread = []string{
	// documentation, translations and packaging aids; copyright files stay, see dropUnread
	"usr/share/doc/*", "usr/share/doc-base", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian",
	"usr/share/bug", "usr/share/menu", "usr/share/pixmaps", "usr/share/metainfo", "usr/share/dict",
	"usr/local/man",
	"usr/share/bash-completion", "usr/share/fish", "usr/share/zsh",
	// the kernel is in the UKI, the initrd's parts are in the initrd
	"boot/*", "usr/lib/dracut", "usr/share/initramfs-tools", "usr/lib/initramfs-tools", "etc/initramfs-tools", "etc/initramfs",
	"etc/kernel", "usr/share/kernel", "usr/lib/kernel",
	"usr/lib/systemd/boot", "usr/lib/linux",
	// package management: nothing is installed on a node
	"etc/apt", "etc/dpkg/dpkg.cfg.d", "usr/share/debconf", "usr/share/perl5/Debconf", "etc/debconf.conf",
	"var/cache/debconf", "var/cache/adduser", "var/lib/dpkg", "var/lib/pam", "var/backups",
	// System V init and cron: systemd runs neither
	"etc/init.d", "etc/rc0.d", "etc/rc1.d", "etc/rc2.d", "etc/rc3.d", "etc/rc4.d", "etc/rc5.d", "etc/rc6.d", "etc/rcS.d",
	"etc/cron.d", "etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/cron.monthly",
	// other network configuration than networkd's
	"etc/network", "etc/dhcp",
}

// dropUnread drops the list. Licences ask that copyright notices travel with
// the programs: usr/share/doc/*/copyright and common-licenses stay.
func dropUnread(_ context.Context, in Input) (Result, error) {
	var r Result
	for _, p := range unread {
		parent, all := strings.CutSuffix(p, "/*")
		switch {
		case parent == "usr/share/doc":
			r.Drop = append(r.Drop, unreadDocs(in)...)
		case all:
			r.Drop = append(r.Drop, children(in, parent)...)
		default:
			r.Drop = append(r.Drop, p)
		}
	}
	// What the kernel was built with is read on nodes, by checks of what it can
	// do; they look here, too.
	configs, err := in.Tree.Glob("boot/config-*")
	for _, f := range configs {
		f.Path = path.Join("usr/lib/modules", strings.TrimPrefix(path.Base(f.Path), "config-"), "config")
		r.Files = append(r.Files, f)
	}
	return r, err
}

func children(in Input, d string) []string {
	var out []string
	for f := range in.Tree.Under(d) {
		if path.Dir(f.Path) == d {
			out = append(out, f.Path)
		}
	}
	return out
}

// unreadDocs returns what is below usr/share/doc but for the copyright files,
// the directories above them, and links between package directories, through
// which several packages of one source share a copyright file.
func unreadDocs(in Input) []string {
	const doc = "usr/share/doc"
	keep := map[string]bool{doc: true}
	for f := range in.Tree.Under(doc) {
		if path.Base(f.Path) == "copyright" || path.Dir(f.Path) == doc && f.Link != "" {
			for p := f.Path; p != doc && p != "."; p = path.Dir(p) {
				keep[p] = true
			}
		}
	}
	var out []string
	var gone layers.File
	for f := range in.Tree.Under(doc) {
		below := gone.Path != "" && strings.HasPrefix(f.Path, gone.Path+"/")
		if !keep[f.Path] && !below {
			gone = f
			out = append(out, f.Path)
		}
	}
	return out
}
