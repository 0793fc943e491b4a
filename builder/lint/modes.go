package lint

import (
	"fmt"
	"io/fs"
	"slices"
)

// Privileged is a program that runs with rights that its caller does not have,
// and that a node may have.
type Privileged struct {
	Path, Package string
	Why           string // it is there
}

// Setuid and Setgid list those that run as the user, or with the group, of
// their file. Packages that a node needs bring them.
var (
	Setuid = []Privileged{
		{"/usr/bin/chfn", "passwd", "changes the own line of /etc/passwd"},
		{"/usr/bin/chsh", "passwd", "changes the own line of /etc/passwd"},
		{"/usr/bin/gpasswd", "passwd", "lets administrators of a group change it"},
		{"/usr/bin/mount", "mount", "mounts what fstab lets users mount"},
		{"/usr/bin/newgrp", "login", "changes to another of the own groups"},
		{"/usr/bin/passwd", "passwd", "changes the own password"},
		{"/usr/bin/su", "util-linux", "becomes another user, whose password it asks for"},
		{"/usr/bin/umount", "mount", "undoes the own mounts"},
		{"/usr/lib/dbus-1.0/dbus-daemon-launch-helper", "dbus", "starts services of the bus as their users; only the bus may run it"},
	}
	Setgid = []Privileged{
		{"/usr/bin/chage", "passwd", "group shadow: shows how old the own password is"},
		{"/usr/bin/expiry", "passwd", "group shadow: asks for a new password when the own is too old"},
		{"/usr/bin/wall", "bsdutils", "group tty: writes to the terminals of all"},
		{"/usr/sbin/unix_chkpwd", "libpam-modules-bin", "group shadow: checks the own password"},
	}
)

func fileSetuid(n *node) []Finding {
	var out []Finding
	for p, f := range n.Files {
		for _, k := range []struct {
			bit  fs.FileMode
			what string
			list []Privileged
		}{{fs.ModeSetuid, "set-user-ID", Setuid}, {fs.ModeSetgid, "set-group-ID", Setgid}} {
			known := slices.ContainsFunc(k.list, func(l Privileged) bool { return l.Path == p })
			if !known && f.Mode.IsRegular() && f.Mode&k.bit != 0 {
				out = append(out, Finding{Severity: Warning, Where: n.Files.where(p), What: "is a " + k.what + " program that a node does not need",
					Fix: "leave out the package that brings it, unless it is meant"})
			}
		}
	}
	return out
}

func fileWritable(n *node) []Finding {
	var out []Finding
	for p, f := range n.Files {
		t := f.Mode.Type()
		if f.Mode&0o002 == 0 || f.Mode&modeAbsent != 0 || t != 0 && t != fs.ModeDir || t == fs.ModeDir && f.Mode&fs.ModeSticky != 0 {
			continue
		}
		out = append(out, Finding{Severity: Error, Where: n.Files.where(p), What: fmt.Sprintf("is writable for everybody: it has mode %v", f.Mode), Fix: "take the right away, as in mode 0755 or 0644"})
	}
	return out
}
