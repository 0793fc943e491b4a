package derive

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

var stepLdso = Step{
	Name: "ldso",
	Doc:  "no ld.so.cache: proves that the dynamic linker finds every library without one (libc-bin's ldconfig)",
	Run:  checkLibraryPath,
}

// builtinLibraryDirs are what Debian's ld.so for amd64 searches by itself, in
// this order, with merged /usr (ld.so --help prints the list).
var builtinLibraryDirs = []string{"usr/lib/x86_64-linux-gnu", "usr/lib"}

// checkLibraryPath looks at what ldconfig would have put into the cache. A
// cache is needed for two things. One is directories of ld.so.conf that the
// linker does not search by itself: if one of them has a library, that is an
// error here. The other is links from a library's soname to its file, which
// Debian's packages ship, and Debian policy 8.1 demands that they do. Leaving
// the cache out costs a few failing opens at the start of a program and saves
// a format. ldconfig.service, which would write a cache into the overlay of
// /etc on the first boot, is masked.
func checkLibraryPath(_ context.Context, in Input) (Result, error) {
	dirs, err := in.ldsoDirs("etc/ld.so.conf")
	if err != nil {
		return Result{}, err
	}
	conf, err := in.Tree.Glob("etc/ld.so.conf.d/*.conf")
	if err != nil {
		return Result{}, err
	}
	for _, f := range conf {
		more, err := in.ldsoDirs(f.Path)
		if err != nil {
			return Result{}, err
		}
		dirs = append(dirs, more...)
	}
	for _, d := range dirs {
		f, err := in.Tree.Resolve(strings.Trim(d, "/"))
		if err != nil || slices.Contains(builtinLibraryDirs, f.Path) {
			continue
		}
		for _, l := range children(in, f.Path) {
			if strings.Contains(path.Base(l), ".so") {
				return Result{}, fmt.Errorf("/%s is found only with an ld.so.cache, which is not made", l)
			}
		}
	}
	var mask []layers.File
	if in.has(usrUnits + "/ldconfig.service") {
		mask = append(mask, link(etcUnits+"/ldconfig.service", "/dev/null"))
	}
	return Result{Files: mask, Drop: []string{"etc/ld.so.cache"}}, nil
}

// ldsoDirs reads the directories of a linker configuration; includes are
// covered by reading all of ld.so.conf.d, the only place Debian includes.
func (in Input) ldsoDirs(p string) ([]string, error) {
	if !in.has(p) {
		return nil, nil
	}
	b, err := in.Tree.ReadFile(p)
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		w := strings.Fields(line)
		if len(w) == 0 || w[0] == "hwcap" || w[0] == "include" {
			continue
		}
		out = append(out, w...)
	}
	return out, nil
}
