package builder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/kubernetes"
)

// How a lock says where an image is from.
const (
	registryScheme = "docker://"       // a registry
	archiveScheme  = "docker-archive:" // docker save
	layoutScheme   = "oci:"            // an OCI layout
	rootfsScheme   = "rootfs:"         // a root file system, as docker import takes it
	serverScheme   = "server:"         // a docker-archive in the server tarball
	distroScheme   = "distro:"         // a program of a Debian package
	programScheme  = "program:"        // one static program
)

// bakedStore is where the root has the image store that docker uses in place.
const bakedStore = "usr/lib/kscratch/docker"

// bake returns the images of a role, and docker's store with them.
func bake(ctx context.Context, s *Spec, l *Lock, role Role, files map[string]cache.Blob, o Options) ([]images.Image, layers.Layer, error) {
	locked := l.images(role)
	imgs := make([]images.Image, len(locked))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for i, im := range locked {
		g.Go(func() error {
			_, stored := o.Store.Lookup(im.Digest)
			img, err := getImage(gctx, s, l, im, files, o)
			if err != nil {
				return imageError(im, err)
			}
			o.input(inputImages, img.Size(), stored)
			imgs[i] = img
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	store, err := images.Store(ctx, imgs, bakedStore)
	return imgs, store, err
}

// imageError says which image cannot be had, and whether it is not what was
// pinned.
func imageError(im LockedImage, err error) error {
	var mismatch *cache.MismatchError
	return &InputError{What: "getting image " + im.Name + " from " + im.From, Tampered: errors.As(err, &mismatch), Err: withFix(err)}
}

func getImage(ctx context.Context, s *Spec, l *Lock, im LockedImage, files map[string]cache.Blob, o Options) (images.Image, error) {
	scheme, rest, _ := strings.Cut(im.From, ":")
	pick := images.Pick{As: im.Name}
	switch scheme + ":" {
	case serverScheme:
		return importer(o).Load(ctx, files[rest].Path, pick)
	case programScheme:
		return compose(ctx, l, im, rest, files[rest], o)
	case distroScheme:
		return distroImage(ctx, s, l, im, o)
	case archiveScheme, layoutScheme:
		return pinned(ctx, im, o, under(o.Dir, rest), func(path string) (images.Image, error) { return importer(o).Load(ctx, path, pick) })
	case rootfsScheme:
		return pinned(ctx, im, o, under(o.Dir, rest), func(path string) (images.Image, error) {
			return importer(o).RootFS(ctx, im.Name, path, images.Config{Created: l.Time, CreatedBy: "kscratch: " + im.From})
		})
	}
	ref := strings.TrimPrefix(im.From, registryScheme)
	r, err := registry(ctx, s, ref, o)
	if err != nil {
		return images.Image{}, err
	}
	return r.Pull(ctx, importer(o), images.Pin{From: ref, Ref: im.Name, Digest: im.Digest})
}

// pinned gives load the file that the lock means: the content store's copy,
// or the file itself if it is still the same.
func pinned(ctx context.Context, im LockedImage, o Options, path string, load func(string) (images.Image, error)) (images.Image, error) {
	named := func(b cache.Blob) (images.Image, error) {
		img, err := load(b.Path)
		if err != nil {
			err = fmt.Errorf("reading %s: %w", path, err)
		}
		return img, err
	}
	b, err := pinnedFile(ctx, im, o, path)
	if err != nil {
		return images.Image{}, err
	}
	return named(b)
}

// pinnedFile returns the file that the lock means.
func pinnedFile(ctx context.Context, im LockedImage, o Options, path string) (cache.Blob, error) {
	if b, ok := o.Store.Lookup(im.Digest); ok {
		return b, nil
	}
	b, err := importer(o).Archive(ctx, path)
	if err == nil && b.Digest != im.Digest {
		err = fmt.Errorf("%s has changed since the lock was made: %w; make a new one with `kscratch lock`",
			path, &cache.MismatchError{Want: im.Digest, Got: b.Digest, Size: b.Size})
	}
	return b, err
}

// compose makes the image of one static program. Its time is a constant: the
// program is what counts, and a new archive index should not change an image.
func compose(ctx context.Context, l *Lock, im LockedImage, name string, program cache.Blob, o Options) (images.Image, error) {
	file := layers.File{
		Path: "usr/local/bin/" + name, Mode: 0o755, Owner: "program:" + name, Size: program.Size, Open: program.ReadCloser,
	}
	config := images.Config{
		Entrypoint: []string{"/usr/local/bin/" + name}, Env: []string{"PATH=/usr/local/bin"},
		CreatedBy: "kscratch: " + im.From,
	}
	return importer(o).Compose(ctx, im.Name, config, layers.Of(im.Name, program.Digest, file))
}

// lockedFiles returns every program and archive that a role needs out of the
// lock's files, by name. What the content store lost is got again from where
// it came from; it must have the same digest.
func lockedFiles(ctx context.Context, s *Spec, l *Lock, role Role, o Options) (map[string]cache.Blob, error) {
	out := map[string]cache.Blob{}
	for _, f := range l.Files {
		b, ok := o.Store.Lookup(f.Digest)
		o.input(inputPrograms, f.Size, ok)
		if !ok {
			var err error
			if b, err = again(ctx, s, f, o); err != nil {
				return nil, err
			}
		}
		out[f.Name] = b
	}
	members := nodePrograms[role]
	for _, im := range l.images(role) {
		if m, ok := strings.CutPrefix(im.From, serverScheme); ok {
			members = append(members[:len(members):len(members)], m)
		}
	}
	extracted, err := kubernetes.Extract(ctx, o.Store, out[serverTarball], "", members...)
	if err != nil {
		t, _ := l.File(serverTarball)
		return nil, &InputError{What: fmt.Sprintf("using Kubernetes %s from %s", t.Version, t.From), Err: err}
	}
	for name, b := range extracted {
		out[name] = b
	}
	if out["pause"], err = pauseProgram(ctx, o); err != nil {
		return nil, err
	}
	return out, nil
}

// nodePrograms are the programs of the server tarball that run outside
// containers, or that an operator types.
var nodePrograms = map[Role][]string{
	Master: {"kubelet", "kube-proxy", "kubectl"},
	Worker: {"kubelet", "kube-proxy"},
}

// again gets a file of the lock that the content store lacks, from where the
// lock has it.
func again(ctx context.Context, s *Spec, f LockedFile, o Options) (cache.Blob, error) {
	if o.Offline && f.From != pathSource {
		return cache.Blob{}, &InputError{What: "getting " + f.Name + " " + f.Version, Err: errOffline}
	}
	s = onlyFrom(s, f.Name, f.From)
	all := entries(s, &Lock{}, opener(ctx, s, o), o)
	i := slices.IndexFunc(all, func(p entry) bool { return p.name == f.Name })
	if i < 0 {
		return cache.Blob{}, fmt.Errorf("getting %s: the cluster file does not ask for it; make a new lock with `kscratch lock`", f.Name)
	}
	got, err := all[i].get(ctx)
	if err != nil {
		return cache.Blob{}, err
	}
	var now LockedFile
	if len(got.files) > 0 {
		now = got.files[0]
	}
	if now.Digest != f.Digest {
		why := "the lock pins another build of it"
		if d := differentBuild(f, now); d != "" {
			why += ": " + d
		}
		return cache.Blob{}, &InputError{What: "getting " + f.Name + " " + f.Version, Tampered: true,
			Err: fmt.Errorf("%w; %s; make a new one with `kscratch lock`",
				&cache.MismatchError{Want: f.Digest, Got: now.Digest, Size: now.Size}, why)}
	}
	b, ok := o.Store.Lookup(f.Digest)
	if !ok {
		return cache.Blob{}, fmt.Errorf("internal error: %s is not in the content store after it was got", f.Name)
	}
	return b, nil
}
