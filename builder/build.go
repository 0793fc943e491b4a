package builder

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/builder/programs"
	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/deb"
	"github.com/kscratch/kscratch/layers/derive"
	"github.com/kscratch/kscratch/layers/kubernetes"
)

// Image is everything that goes onto the disk of a node, before any format.
type Image struct {
	Role    Role
	Version string    // of the image: sorts by age, names the lock
	Time    time.Time // of every file
	Root    *layers.Tree
	RootID  string       // version of the root alone: the cluster file's settings do not change it
	Initrd  *layers.Tree // the part that only the root decides
	Config  *layers.Tree // the part of the initrd that the cluster file decides
	Boot    BootFiles
	Args    string // kernel command line, without the root hash
	Disk    Disk

	manifest Manifest
	lock     *Lock
	generic  []byte      // the archive of Initrd, once it is made
	packed   *packedRoot // a root that was built before; Root and Initrd are nil then
}

// BootFiles are what the firmware and the boot loader read.
type BootFiles struct {
	Loader  layers.File // systemd-boot
	Stub    layers.File // systemd-stub
	Kernel  layers.File
	Release string // of the kernel, as uname -r says it
}

// Build makes the image of a role from a lock. The same lock, cluster file and
// PKI give the same image. What [Lint] calls an error stops it before there is
// anything to pack, as a *[LintError]; warnings go to the log.
func Build(ctx context.Context, s *Spec, l *Lock, role Role, o Options) (*Image, error) {
	p, err := collect(ctx, s, l, role, o)
	if err != nil {
		return nil, err
	}
	if err := p.judge(ctx, s, l, role, o); err != nil {
		return nil, err
	}
	root, err := withRecord(ctx, l, role, p.root, p.parts, o)
	if err != nil {
		return nil, err
	}
	initrd, err := initrdTree(ctx, p.base, root, l, o)
	if err != nil {
		return nil, err
	}
	return &Image{
		Role: role, Version: p.version, Time: l.Time, Root: root, RootID: rootVersion(l, role), Initrd: initrd, Config: p.config,
		Boot: p.boot, Args: kernelArgs(s), Disk: s.Disk,
		manifest: newManifest(l, role, p.version, bakedImages(l, role, p.parts.baked), p.changes, p.told), lock: l,
	}, nil
}

// pieces are what an image is made of.
type pieces struct {
	version string
	parts   parts
	base    *layers.Tree // Debian alone
	boot    BootFiles
	root    *layers.Tree
	changes []derive.Change
	config  *layers.Tree
	told    told
}

// collect gets and renders all that an image is made of.
func collect(ctx context.Context, s *Spec, l *Lock, role Role, o Options) (pieces, error) {
	p := pieces{version: imageVersion(l, role)}
	var err error
	if p.parts, err = gather(ctx, s, l, role, o); err != nil {
		return p, err
	}
	if p.base, err = layers.Merge(debLayers(p.parts.pkgs)...); err != nil {
		return p, fmt.Errorf("combining the Debian packages: %w", err)
	}
	if p.boot, err = bootFiles(p.base); err != nil {
		return p, err
	}
	if err := checkFlags(ctx, s, l, role, p.parts.files, p.parts.baked, o); err != nil {
		return p, err
	}
	if p.root, p.changes, err = rootTree(ctx, l, role, p.base, p.parts.pkgs, p.parts.files, p.parts.store, o); err != nil {
		return p, err
	}
	p.config, p.told, err = configTree(s, l, role, p.version, p.boot, o)
	return p, err
}

// parts are what a root is put together from.
type parts struct {
	pkgs  []*deb.Package
	files map[string]cache.Blob // programs and archives, by name
	baked []images.Image
	store layers.Layer // docker's, with the baked images
}

// gather gets the parts, Debian's packages beside everything else: each has
// decompressors that use one processor at times.
func gather(ctx context.Context, s *Spec, l *Lock, role Role, o Options) (parts, error) {
	var p parts
	if err := supply(ctx, s, l, []Role{role}, o); err != nil {
		return p, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		p.pkgs, err = debian(ctx, s, l, role, o)
		return err
	})
	g.Go(func() (err error) {
		if p.files, err = lockedFiles(ctx, s, l, role, o); err != nil {
			return err
		}
		p.baked, p.store, err = bake(ctx, s, l, role, p.files, o)
		return err
	})
	return p, g.Wait()
}

// imageVersion names an image: the time of its lock, then the lock itself.
func imageVersion(l *Lock, role Role) string {
	return versionOf(l.Time, layers.DigestOfParts(string(l.Digest()), string(role)))
}

// rootVersion names a root, which the cluster file's settings do not change.
func rootVersion(l *Lock, role Role) string { return versionOf(l.Time, rootDigest(l, role)) }

// rootDigest covers what a root is made of.
func rootDigest(l *Lock, role Role) layers.Digest {
	parts := []string{string(role), string(l.Inputs.Kscratch)}
	for _, p := range l.packages(role) {
		parts = append(parts, string(p.Digest))
	}
	for _, f := range l.Files {
		parts = append(parts, f.Name, f.Version, string(f.Digest)) // its files are owned by the version
	}
	for _, im := range l.images(role) {
		parts = append(parts, im.Name, string(im.Digest))
	}
	return layers.DigestOfParts(parts...)
}

func versionOf(t time.Time, d layers.Digest) string {
	return t.UTC().Format("20060102.1504") + "-" + d.Hex()[:8]
}

// imageID names the images of a role, all versions of them.
func imageID(role Role) string { return "kscratch-" + string(role) }

// rootTree puts the operating system together: Debian, what its maintainer
// scripts would have done, Kubernetes, the container images, and our program.
func rootTree(ctx context.Context, l *Lock, role Role, base *layers.Tree, pkgs []*deb.Package,
	files map[string]cache.Blob, store layers.Layer, o Options) (*layers.Tree, []derive.Change, error) {
	root, changes, err := derive.Run(ctx, base, derive.Options{
		Packages: derivePackages(pkgs), ImageID: imageID(role), ImageVersion: rootVersion(l, role),
		Time: l.Time, Cache: o.Store, Log: o.log(),
	})
	if err != nil {
		return nil, nil, err
	}
	t, _ := l.File(serverTarball)
	node, err := embedded(ctx, programs.Node, o)
	if err != nil {
		return nil, nil, err
	}
	kube := map[string]cache.Blob{}
	for _, name := range nodePrograms[role] {
		kube[name] = files[name]
	}
	all := []layers.Layer{
		layerOf(root), store,
		kubernetes.Layer("kubernetes", "kubernetes="+t.Version, kube),
		kubernetes.Layer("programs", "kscratch:programs", map[string]cache.Blob{"kscratch-node": node}),
	}
	for _, name := range []string{"cri-dockerd", flanneld} {
		if f, ok := l.File(name); ok {
			all = append(all, kubernetes.Layer(name, name+"="+f.Version, map[string]cache.Blob{name: files[name]}))
		}
	}
	// Overlay would let a program take a Debian file's place unseen: merge.
	root, err = layers.Merge(all...)
	if err != nil {
		return nil, nil, fmt.Errorf("combining the root: %w", err)
	}
	return root.Map(func(f layers.File) layers.File { f.ModTime = l.Time; return f }), changes, nil
}

// layerOf makes a tree a layer again.
func layerOf(t *layers.Tree) layers.Layer {
	files := make([]layers.File, 0, t.Len())
	for f := range t.Files() {
		files = append(files, f)
	}
	return layers.Of("root", "", files...)
}

func derivePackages(pkgs []*deb.Package) []derive.Package {
	out := make([]derive.Package, len(pkgs))
	for i, p := range pkgs {
		out[i] = derive.Package{Name: p.Name, Version: p.Version, Arch: p.Arch, Source: p.Control.Get("Source")}
	}
	return out
}

// bootFiles finds the boot loader, the stub and the one kernel.
func bootFiles(base *layers.Tree) (BootFiles, error) {
	const dir = "usr/lib/systemd/boot/efi/"
	b := BootFiles{}
	for _, f := range []struct {
		to   *layers.File
		path string
	}{{&b.Loader, dir + "systemd-bootx64.efi"}, {&b.Stub, dir + "linuxx64.efi.stub"}} {
		found, ok := base.Lookup(f.path)
		if !ok {
			return b, fmt.Errorf("finding the boot loader: the root has no /%s: is the package systemd-boot-efi in it?", f.path)
		}
		*f.to = found
	}
	kernels, err := base.Glob("boot/vmlinuz-*")
	if err != nil {
		return b, err
	}
	if len(kernels) != 1 {
		return b, fmt.Errorf("finding the kernel: want one /boot/vmlinuz-*, found %d", len(kernels))
	}
	b.Kernel = kernels[0]
	b.Release = strings.TrimPrefix(path.Base(kernels[0].Path), "vmlinuz-")
	return b, nil
}

// configTree is the part of the initrd that the cluster file decides: what
// Ignition applies, how the disk is divided, and the name of all this.
func configTree(s *Spec, l *Lock, role Role, version string, boot BootFiles, o Options) (*layers.Tree, told, error) {
	told, err := ignitionConfig(s, l, role, o)
	if err != nil {
		return nil, told, err
	}
	const owner = "spec:cluster"
	files, err := buildFiles(s, l, role, version, owner, told, boot, o)
	if err != nil {
		return nil, told, err
	}
	files = append(files,
		layers.Regular("usr/lib/ignition/base.d/50-kscratch.ign", 0o600, owner, told.config),
		layers.Regular("etc/kscratch/image-id", 0o644, owner, []byte(imageID(role)+"_"+version+"\n")),
	)
	for name, body := range repart(s.Disk) {
		files = append(files, layers.Regular("usr/lib/repart.d/"+name, 0o644, owner, []byte(body)))
	}
	t, err := layers.Merge(layers.Of("config", "", files...))
	if err != nil {
		return nil, told, err
	}
	return t.Map(func(f layers.File) layers.File { f.ModTime = l.Time; return f }), told, nil
}
