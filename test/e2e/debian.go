package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/apt"
	"github.com/kscratch/kscratch/layers/deb"
	"github.com/kscratch/kscratch/layers/derive"
	"github.com/kscratch/kscratch/layers/fetch"
)

// tools are the Debian packages of the images with a userland: what upstream's
// Dockerfiles for agnhost and glibc-dns-testing install, and a shell to run it.
var tools = []string{
	"base-files", "base-passwd", "bash", "coreutils", "dash", "findutils", "grep", "hostname", "libc-bin", "netbase", "sed",
	"bind9-dnsutils", "curl", "iperf", "iproute2", "netcat-openbsd", "util-linux",
	busyboxPackage, // Alpine's userland is busybox: it fills what the others leave
}

const busyboxPackage = "busybox-static"

// epoch is the date of everything in the images: their content is what counts.
var epoch = time.Unix(0, 0)

// unpack fetches the packages and all that they depend on.
func unpack(ctx context.Context, names []string, o Options) ([]*deb.Package, error) {
	m := o.Mirror
	if m == (apt.Mirror{}) {
		var err error
		if m, err = apt.HostMirror("/"); err != nil {
			return nil, err
		}
	}
	index, err := apt.Open(ctx, o.Store, m, o.Now, apt.Options{Log: o.Log})
	if err != nil {
		return nil, err
	}
	wanted, err := index.Resolve(names)
	if err != nil {
		return nil, err
	}
	out := make([]*deb.Package, len(wanted))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, p := range wanted {
		g.Go(func() error {
			b, err := m.Fetch(gctx, fetch.Options{Log: o.Log}, o.Store, p)
			if err != nil {
				return err
			}
			out[i], err = deb.Layer(gctx, o.Store, b, p.String(), deb.Options{})
			return err
		})
	}
	return out, g.Wait()
}

// userland is a root file system of Debian packages, as their maintainer
// scripts would leave it, with busybox for the tools that are not among them.
type userland struct {
	tree    *layers.Tree
	busybox layers.File
	applets []string
	digest  layers.Digest
}

func newUserland(ctx context.Context, o Options) (*userland, error) {
	pkgs, err := unpack(ctx, tools, o)
	if err != nil {
		return nil, err
	}
	var (
		ls    []layers.Layer
		known []derive.Package
		parts []string
	)
	for _, p := range pkgs {
		ls = append(ls, p.Layer)
		parts = append(parts, string(p.Layer.Digest()))
		known = append(known, derive.Package{Name: p.Name, Version: p.Version, Arch: p.Arch, Source: p.Control.Get("Source")})
	}
	tree, err := layers.Merge(ls...)
	if err != nil {
		return nil, err
	}
	if tree, _, err = derive.Run(ctx, tree, derive.Options{Packages: known, Time: epoch, Cache: o.Store, Log: o.Log}); err != nil {
		return nil, err
	}
	derived, err := derivedParts(tree)
	if err != nil {
		return nil, err
	}
	u := &userland{tree: tree, digest: layers.DigestOfParts(append(parts, derived...)...)}
	if u.busybox, err = tree.Resolve("usr/bin/busybox"); err != nil {
		return nil, err
	}
	u.applets, err = applets(ctx, u.busybox)
	return u, err
}

// derivedParts returns what a tree has beyond the content of its packages: the
// names of all files, and what the files hold that our own code has made.
func derivedParts(tree *layers.Tree) ([]string, error) {
	var parts []string
	for f := range tree.Files() {
		parts = append(parts, f.Path, f.Mode.String(), f.Link)
		if f.Open == nil || !strings.HasPrefix(f.Owner, "derive:") {
			continue
		}
		b, err := f.Read()
		if err != nil {
			return nil, err
		}
		parts = append(parts, string(b))
	}
	return parts, nil
}

// layer returns the whole root. Commands that are not there are busybox.
func (u *userland) layer() layers.Layer {
	var files []layers.File
	for f := range u.tree.Files() {
		files = append(files, f)
	}
	// netcat's postinst asks the alternatives for this name.
	links := map[string]string{"nc": "nc.openbsd"}
	for _, a := range u.applets {
		if _, ok := links[a]; !ok {
			links[a] = "busybox"
		}
	}
	for a, to := range links {
		_, bin := u.tree.Lookup("usr/bin/" + a)
		_, sbin := u.tree.Lookup("usr/sbin/" + a)
		if !bin && !sbin {
			files = append(files, layers.Symlink("usr/bin/"+a, to, u.busybox.Owner))
		}
	}
	slices.SortFunc(files, func(a, b layers.File) int { return strings.Compare(a.Path, b.Path) })
	return layers.Of("debian", u.digest, files...)
}

// small returns the root of the busybox image: that program and its links.
func (u *userland) small() layers.Layer {
	const owner = "e2e:busybox"
	program := u.busybox
	program.Path = "bin/busybox"
	files := []layers.File{
		program,
		layers.Regular("etc/passwd", 0o644, owner, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")),
		layers.Regular("etc/group", 0o644, owner, []byte("root:x:0:\nnobody:x:65534:\n")),
		layers.Dir("home", 0o755, owner), layers.Dir("root", 0o700, owner),
		layers.Dir("tmp", os.ModeSticky|0o777, owner), layers.Dir("var", 0o755, owner),
		layers.Symlink("usr/bin/env", "../../bin/busybox", owner),
	}
	for _, a := range u.applets {
		if a != "busybox" {
			files = append(files, layers.Symlink("bin/"+a, "busybox", owner))
		}
	}
	return layers.Of("busybox", layers.DigestOfParts("1", string(u.digest)), files...)
}

// applets asks busybox which commands it is. It is static: any Linux of its
// architecture runs it.
func applets(ctx context.Context, busybox layers.File) ([]string, error) {
	b, err := busybox.Read()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "busybox-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "busybox")
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, exe, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("asking busybox for its applets: %w", err)
	}
	return strings.Fields(string(out)), nil
}
