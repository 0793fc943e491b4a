package builder

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/builder/initrd"
	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/deb"
)

// distroRevision changes whenever images made from Debian packages do.
const distroRevision = "distro/1"

// distroPrograms are the components that Debian has: the package, and the
// program in it.
var distroPrograms = map[string]struct{ pkg, program string }{
	"etcd": {"etcd-server", "usr/bin/etcd"},
}

// lockDistro makes the image of a component from Debian's packages of the
// archive, and pins it with those packages that something in it is from.
func lockDistro(ctx context.Context, s *Spec, l *Lock, name, version string, im LockedImage, open archive, o Options) (LockedImage, error) {
	index, err := open()
	if err != nil {
		return im, err
	}
	d := distroPrograms[name]
	im.From = distroScheme + d.pkg
	// base-files has /lib64, where programs look for the dynamic linker.
	pkgs, err := index.Resolve([]string{d.pkg, "base-files"})
	if err != nil {
		return im, err
	}
	for _, p := range pkgs {
		locked := lockedPackage(p)
		if at := index.Date().UTC(); !at.Equal(l.Time) {
			locked.Index = at // the lock's other packages stay
		}
		im.Packages = append(im.Packages, locked)
		if has := upstreamVersion(p.Version); p.Name == d.pkg && has != strings.TrimPrefix(version, "v") {
			return im, fmt.Errorf("%s is what Debian %s has, not %s; set components.%s.version to v%s", p, s.Base.Suite, version, name, has)
		}
	}
	tree, err := distroTree(ctx, s, l, d.program, im.Packages, o)
	if err != nil {
		return im, err
	}
	im.Packages = slices.DeleteFunc(im.Packages, func(p LockedPackage) bool { return !owns(tree, p) })
	img, err := composeDistro(ctx, im, d.program, tree, o)
	im.Digest = img.ID
	return im, err
}

// upstreamVersion returns what upstream calls a version of Debian's
// (deb-version(7)): without epoch, revision and marks of a repacked source.
func upstreamVersion(v string) string {
	if _, rest, ok := strings.Cut(v, ":"); ok {
		v = rest
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		v = v[:i]
	}
	if i := strings.IndexAny(v, "+~"); i >= 0 {
		v = v[:i]
	}
	return v
}

// distroImage makes the image of a component again from what the lock pins.
func distroImage(ctx context.Context, s *Spec, l *Lock, im LockedImage, o Options) (images.Image, error) {
	for _, d := range distroPrograms {
		if distroScheme+d.pkg != im.From {
			continue
		}
		tree, err := distroTree(ctx, s, l, d.program, im.Packages, o)
		if err != nil {
			return images.Image{}, err
		}
		img, err := composeDistro(ctx, im, d.program, tree, o)
		if err == nil && img.ID != im.Digest {
			err = fmt.Errorf("making it from its packages: %w; make a new lock with `kscratch lock`",
				&cache.MismatchError{Want: im.Digest, Got: img.ID, Size: int64(len(img.RawConfig()))})
		}
		return img, err
	}
	return images.Image{}, fmt.Errorf("this kscratch does not know how to make it; make a new lock with `kscratch lock`")
}

// distroTree returns a program of Debian packages with what it needs to run,
// and the terms under which all that may be given away.
func distroTree(ctx context.Context, s *Spec, l *Lock, program string, pkgs []LockedPackage, o Options) (*layers.Tree, error) {
	debs := make([]*deb.Package, len(pkgs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, p := range pkgs {
		g.Go(func() (err error) {
			debs[i], err = unpack(gctx, s, l, p, o)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all, err := layers.Merge(debLayers(debs)...)
	if err != nil {
		return nil, fmt.Errorf("combining the Debian packages: %w", err)
	}
	want := []string{program}
	tree, err := initrd.Select(all, want, nil, initrd.SelectOptions{})
	if err != nil {
		return nil, err
	}
	for _, p := range pkgs {
		terms := "usr/share/doc/" + p.Name + "/copyright"
		if _, ok := all.Lookup(terms); ok && owns(tree, p) {
			want = append(want, terms)
		}
	}
	return initrd.Select(all, want, nil, initrd.SelectOptions{})
}

// owns reports whether something in a tree other than a directory is from a
// package.
func owns(t *layers.Tree, p LockedPackage) bool {
	for f := range t.Files() {
		if !f.Mode.IsDir() && f.Owner == "deb:"+p.Name+"="+p.Version {
			return true
		}
	}
	return false
}

// composeDistro makes an image of a tree, in which every directory belongs to
// root and every date is 1970: what the packages share must not depend on which
// of them came first.
func composeDistro(ctx context.Context, im LockedImage, program string, t *layers.Tree, o Options) (images.Image, error) {
	parts := []string{distroRevision, program}
	for _, p := range im.Packages {
		parts = append(parts, string(p.Digest))
	}
	var files []layers.File
	for f := range t.Files() {
		if f.Mode.IsDir() {
			f = layers.Dir(f.Path, fs.FileMode(0o755), f.Owner)
		}
		files = append(files, f)
	}
	config := images.Config{
		Entrypoint: []string{"/" + program}, Env: []string{"PATH=/usr/bin"}, CreatedBy: "kscratch: " + im.From,
	}
	return importer(o).Compose(ctx, im.Name, config, layers.Of(im.Name, layers.DigestOfParts(parts...), files...))
}
