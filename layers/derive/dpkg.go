package derive

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

var stepDpkg = Step{
	Name: "dpkg",
	Doc:  "the package list that vulnerability scanners read, at /usr/lib/kscratch/dpkg/status, and links to it from /var/lib/dpkg",
	Run:  dpkgStatus,
}

const dpkgDir = "usr/lib/kscratch/dpkg"

// dpkgStatus writes dpkg's database with what scanners need of it. It cannot
// be in /var, which the state partition covers: the real file is in /usr. On
// the node tmpfiles.d makes /var/lib/dpkg a link to it; L+ also replaces the
// link's target after an upgrade. In the image itself the same link is found
// by scanners that read the root file system without booting it.
func dpkgStatus(_ context.Context, in Input) (Result, error) {
	if len(in.Packages) == 0 {
		return Result{}, nil
	}
	pkgs := slices.SortedFunc(slices.Values(in.Packages), func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	var b bytes.Buffer
	for _, p := range pkgs {
		for _, s := range []string{p.Name, p.Version, p.Arch, p.Source} {
			if strings.ContainsAny(s, "\n\r") {
				return Result{}, fmt.Errorf("package %q: a field holds a line break", p.Name)
			}
		}
		fmt.Fprintf(&b, "Package: %s\nStatus: install ok installed\nArchitecture: %s\n", p.Name, p.Arch)
		if p.Source != "" {
			fmt.Fprintf(&b, "Source: %s\n", p.Source)
		}
		fmt.Fprintf(&b, "Version: %s\n\n", p.Version)
	}
	return Result{Drop: []string{"var/lib/dpkg"}, Files: []layers.File{
		file(dpkgDir+"/status", 0o644, b.String()),
		link("var/lib/dpkg", "/"+dpkgDir),
		file("usr/lib/tmpfiles.d/kscratch-dpkg.conf", 0o644, "L+ /var/lib/dpkg - - - - /"+dpkgDir+"\n"),
	}}, nil
}
