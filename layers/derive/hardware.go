package derive

import (
	"context"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/derive/hwdb"
)

var stepHardware = Step{
	Name: "hwdb",
	Doc:  "udev's binary hardware database from hwdb.d (systemd-hwdb --usr update); the sources are dropped",
	Run:  hardware,
}

func hardware(_ context.Context, in Input) (Result, error) {
	files, err := in.confs(".hwdb", "etc/udev/hwdb.d", "usr/lib/udev/hwdb.d")
	if err != nil || len(files) == 0 {
		return Result{}, err
	}
	var sources []hwdb.Source
	for _, f := range files {
		b, err := f.Read()
		if err != nil {
			return Result{}, err
		}
		sources = append(sources, hwdb.Source{Path: "/" + f.Path, Content: b})
	}
	b, err := hwdb.Compile(in.systemdVersion(), sources)
	return Result{
		Files: []layers.File{file("usr/lib/udev/hwdb.bin", 0o444, string(b))},
		Drop:  []string{"usr/lib/udev/hwdb.d"},
	}, err
}

// systemdVersion returns the upstream version of the systemd package, or that
// of Debian 13 if it is not listed.
func (in Input) systemdVersion() uint64 {
	for _, p := range in.Packages {
		if p.Name != "systemd" {
			continue
		}
		digits := strings.IndexFunc(p.Version+".", func(r rune) bool { return r < '0' || r > '9' })
		if n, err := strconv.ParseUint(p.Version[:digits], 10, 16); err == nil {
			return n
		}
	}
	return 257
}
