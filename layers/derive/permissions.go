package derive

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/kscratch/kscratch/layers"
)

var stepPermissions = Step{
	Name: "permissions",
	Doc:  "owner, group and mode that postinsts set with dpkg-statoverride or chown, because the group has no fixed id",
	Run:  permissions,
}

// statOverrides are by name of account. iproute2's postinst would give ip
// capabilities only on a debconf answer that is not the default; no package
// of a node sets capabilities otherwise.
var statOverrides = []struct {
	path, owner, group string
	mode               fs.FileMode
}{
	{"usr/lib/dbus-1.0/dbus-daemon-launch-helper", "root", "messagebus", fs.ModeSetuid | 0o754},
	{"etc/ssl/private", "root", "root", 0o700},
	{"etc/credstore", "root", "root", 0o700},
	{"etc/credstore.encrypted", "root", "root", 0o700},
}

func permissions(_ context.Context, in Input) (Result, error) {
	var files []layers.File
	for _, o := range statOverrides {
		f, ok := in.Tree.Lookup(o.path)
		if !ok {
			continue
		}
		uid, gid, err := in.idsOf(o.owner, o.group)
		if err != nil {
			return Result{}, fmt.Errorf("owner of /%s: %w", o.path, err)
		}
		f.UID, f.GID = uid, gid
		f.Mode = f.Mode.Type() | o.mode
		files = append(files, f)
	}
	return Result{Files: files}, nil
}
