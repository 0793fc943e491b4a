package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/deb"
)

// withRecord returns a root with the record of what it is made of.
func withRecord(ctx context.Context, l *Lock, role Role, root *layers.Tree, p parts, o Options) (*layers.Tree, error) {
	r := record.Root{
		Format: record.Format, Role: string(role), ID: rootVersion(l, role), Time: l.Time,
		Packages: recordPackages(l.packages(role), p.pkgs), Images: recordImages(p.baked),
	}
	for _, f := range l.Files {
		r.Programs = append(r.Programs, record.Program{Name: f.Name, Version: f.Version, Size: f.Size, Digest: f.Digest})
	}
	var err error
	if r.Files, err = recordFiles(ctx, root, p, o); err != nil {
		return nil, fmt.Errorf("recording what is in the root: %w", err)
	}
	r.Files[record.Owner] = map[string]string{record.RootPath: ""}
	b, err := record.Encode(r)
	if err != nil {
		return nil, err
	}
	f := layers.Regular(record.RootPath, 0o644, record.Owner, b)
	f.ModTime = l.Time
	return layers.Merge(layerOf(root), layers.Of("record", "", f))
}

func recordPackages(locked []LockedPackage, pkgs []*deb.Package) []record.Package {
	needs := dependencies(pkgs)
	var out []record.Package
	for i, p := range locked {
		c := pkgs[i].Control
		out = append(out, record.Package{
			Name: p.Name, Version: p.Version, Arch: p.Arch, Source: p.Source, SourceVersion: p.SourceVersion,
			Size: p.Size, Digest: p.Digest,
			Maintainer: c.Get("Maintainer"), Homepage: c.Get("Homepage"), Depends: needs[p.Name],
		})
	}
	return out
}

// dependencies returns the names of the packages, of those there are, that
// each one depends on: by their own names, or by what they provide.
func dependencies(pkgs []*deb.Package) map[string][]string {
	by := map[string][]string{}
	for _, p := range pkgs {
		by[p.Name] = append(by[p.Name], p.Name)
		for _, name := range relationNames(p.Control.Get("Provides")) {
			by[name] = append(by[name], p.Name)
		}
	}
	out := map[string][]string{}
	for _, p := range pkgs {
		var needs []string
		for _, name := range relationNames(p.Control.Get("Pre-Depends") + "," + p.Control.Get("Depends")) {
			needs = append(needs, by[name]...)
		}
		slices.Sort(needs)
		out[p.Name] = slices.DeleteFunc(slices.Compact(needs), func(n string) bool { return n == p.Name })
	}
	return out
}

// relationNames returns the names in a relationship field, alternatives
// included. Versions do not matter here: what is there was chosen by them.
func relationNames(field string) (names []string) {
	for _, r := range strings.FieldsFunc(field, func(c rune) bool { return c == ',' || c == '|' }) {
		if name := strings.FieldsFunc(r, func(c rune) bool { return strings.ContainsRune(" \t\n(:", c) }); len(name) > 0 {
			names = append(names, name[0])
		}
	}
	return names
}

func recordImages(baked []images.Image) []record.Image {
	var out []record.Image
	for _, im := range baked {
		r := record.Image{Name: im.Ref, ID: im.ID, Digest: im.Digest, Size: im.Size()}
		for _, l := range im.Layers() {
			r.Layers = append(r.Layers, record.Layer{DiffID: l.DiffID, Size: l.Blob.Size, Dir: path.Join(bakedStore, l.Dir())})
		}
		out = append(out, r)
	}
	return out
}

// recordFiles returns the digest of every file by owner and path. Those of
// packages and of container images are computed once and kept in the content
// store, so that a build reads little more than what it derives.
func recordFiles(ctx context.Context, root *layers.Tree, p parts, o Options) (map[string]map[string]string, error) {
	known, err := knownDigests(ctx, p, o)
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]string{}
	for f := range root.Files() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if out[f.Owner] == nil {
			out[f.Owner] = map[string]string{}
		}
		sum := ""
		if f.Mode.IsRegular() {
			if sum = known[fileKey(f)]; sum == "" {
				if sum, err = sumOf(f); err != nil {
					return nil, err
				}
			}
		}
		out[f.Owner][f.Path] = sum
	}
	return out, nil
}

// fileKey tells the files of a build apart. The size is a part of it so that
// a file that was given other content on its way is not taken for the same.
func fileKey(f layers.File) string {
	return f.Owner + "\x00" + f.Path + "\x00" + strconv.FormatInt(f.Size, 10)
}

// knownDigests returns the digests of the files of all packages and images, by
// [fileKey].
func knownDigests(ctx context.Context, p parts, o Options) (map[string]string, error) {
	ls := append(debLayers(p.pkgs), p.store)
	found := make([]map[string]string, len(ls))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, l := range ls {
		g.Go(func() (err error) {
			found[i], err = layerDigests(ctx, l, o)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, sums := range found {
		for k, sum := range sums {
			out[k] = sum
		}
	}
	return out, nil
}

// layerDigests hashes the files of a layer, or remembers what they have.
func layerDigests(ctx context.Context, l layers.Layer, o Options) (map[string]string, error) {
	return cache.Value(ctx, o.Store, "digests", "1 "+string(l.Digest()), func(ctx context.Context) (map[string]string, error) {
		sums := map[string]string{}
		for f, err := range l.Files() {
			if err == nil {
				err = ctx.Err()
			}
			if err == nil && f.Mode.IsRegular() {
				sums[fileKey(f)], err = sumOf(f)
			}
			if err != nil {
				return nil, err
			}
		}
		return sums, nil
	})
}

// sumOf returns the SHA-256 of a file's content in hexadecimal.
func sumOf(f layers.File) (string, error) {
	r, err := f.Open()
	if err != nil {
		return "", fmt.Errorf("reading %q of %s: %w", f.Path, f.Owner, err)
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", fmt.Errorf("reading %q of %s: %w", f.Path, f.Owner, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// buildFiles are the record of a build and what it can be done anew with.
func buildFiles(s *Spec, l *Lock, role Role, version, owner string, told told, boot BootFiles, o Options) ([]layers.File, error) {
	spec, err := s.encode()
	if err != nil {
		return nil, err
	}
	r := record.Build{
		Format: record.Format, Role: string(role), Version: version, Root: rootVersion(l, role), Time: l.Time,
		Cluster: s.Name, Security: s.Security,
		Lock: l.Digest(), Spec: l.Inputs.Spec, PKI: l.Inputs.PKI, Kscratch: l.Inputs.Kscratch,
		Keys: keys(s, l, role), Sources: sources(l, role), Butane: told.butane, Secrets: recordSecrets(told.secrets),
	}
	if r.Boot, err = boot.digests(); err != nil {
		return nil, err
	}
	b, err := record.Encode(r)
	if err != nil {
		return nil, err
	}
	files, err := namedFiles(s, role, o)
	if err != nil {
		return nil, err
	}
	return []layers.File{
		layers.Regular(record.BuildPath, 0o644, owner, b), layers.Regular(record.SpecPath, 0o600, owner, spec),
		layers.Regular(record.LockPath, 0o644, owner, l.encode()), layers.Regular(record.FilesPath, 0o600, owner, files),
	}, nil
}

// digests names the files by what they are for.
func (b BootFiles) digests() (map[string]layers.Digest, error) {
	out := map[string]layers.Digest{}
	for name, f := range map[string]layers.File{"loader": b.Loader, "kernel": b.Kernel, "stub": b.Stub} {
		sum, err := sumOf(f)
		if err != nil {
			return nil, err
		}
		out[name] = layers.Digest("sha256:" + sum)
	}
	return out, nil
}

// namedFiles returns the files that the cluster file names for a role's nodes,
// and what Butane files include, as JSON by their names in the cluster file or
// relative to it. Passwords are not among them.
func namedFiles(s *Spec, role Role, o Options) ([]byte, error) {
	files := map[string]record.File{}
	add := func(name string, exec bool) ([]byte, error) {
		b, err := o.readFile(name)
		if err != nil {
			return nil, fmt.Errorf("recording the files that the cluster file names: %w", err)
		}
		files[name] = record.File{Content: b, Exec: exec}
		return b, nil
	}
	for _, name := range slices.Concat(s.Butane, s.RoleButane[string(role)]) {
		b, err := add(name, false)
		if err != nil {
			return nil, err
		}
		for _, l := range ignition.Locals(b, o.includes(name)) {
			path := filepath.Join(filepath.Dir(name), l.Name)
			if l.Link != "" {
				files[path] = record.File{Link: l.Link}
			} else if _, err := add(path, l.Exec); err != nil {
				return nil, err
			}
		}
	}
	var others []string
	for _, p := range s.Manifests.Patches {
		others = append(others, p.File)
	}
	for _, r := range s.Docker.Registries {
		others = append(others, r.CA)
	}
	for _, name := range others {
		if name == "" {
			continue
		}
		if _, err := add(name, false); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(files)
	if err != nil {
		return nil, fmt.Errorf("internal error: rendering the named files: %w", err)
	}
	return append(b, '\n'), nil
}

func recordSecrets(in []ignition.Secret) []record.Secret {
	out := []record.Secret{}
	for _, s := range in {
		out = append(out, record.Secret{Path: s.Path, Use: s.Use})
	}
	return out
}

// sources says where each part of an image came from.
func sources(l *Lock, role Role) map[string]string {
	out := map[string]string{}
	for _, p := range l.packages(role) {
		out["deb:"+p.Name] = p.Archive + " " + p.Path
	}
	for _, f := range l.Files {
		out["program:"+f.Name] = f.From
	}
	for _, im := range l.images(role) {
		if name, err := images.Familiar(im.Name); err == nil {
			out["image:"+name] = im.From
		}
	}
	return out
}

// keys says which key of the cluster file asks for each part of an image. Of
// two that ask for a package, the one that names it counts.
func keys(s *Spec, l *Lock, role Role) map[string]string {
	out := map[string]string{}
	for _, p := range packages {
		out["deb:"+p] = "kscratch"
	}
	if s.Network.CBR0 == "auto" {
		out["deb:containernetworking-plugins"] = "network.cbr0"
	}
	out["deb:"+kernels[s.Base.Kernel]] = "base.kernel"
	list := func(key string, names []string) {
		for i, p := range names {
			name, _, _ := strings.Cut(p, "=")
			out["deb:"+name] = fmt.Sprintf("%s[%d]", key, i)
		}
	}
	list("base.packages", s.Base.Packages)
	list("base.rolePackages."+string(role), s.Base.RolePackages[string(role)])
	for name, key := range map[string]string{
		serverTarball: "kubernetes.version", "cri-dockerd": "components.criDockerd", flanneld: "components.flannel",
		"etcd": "components.etcd", "coredns": "components.coreDNS",
	} {
		if _, ok := l.File(name); ok {
			out["program:"+name] = key
		}
	}
	c := s.Components
	image := func(ref, key string) {
		// A name that is none was refused when the image was got.
		if name, err := images.Familiar(ref); err == nil {
			out["image:"+name] = key
		}
	}
	for _, name := range controlPlane {
		image(kubeRef(name, s), "kubernetes.version")
	}
	image(componentRef("etcd", c.Etcd), "components.etcd")
	image(componentRef("coredns", c.CoreDNS), "components.coreDNS")
	image(componentRef("pause", c.Pause), "components.pause")
	for i, im := range s.Images {
		image(im.Name, fmt.Sprintf("images[%d]", i))
	}
	return out
}
