package builder

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/gomod"
	"github.com/kscratch/kscratch/layers/kubernetes"
)

// Names of sources that are treated in ways of their own.
const (
	releaseSource = "release" // what upstream publishes
	pathSource    = "path"    // a file of this machine
	modulesSource = "modules" // built from Go modules
)

// serverTarball is the name of Kubernetes' server tarball in a lock.
const serverTarball = "kubernetes-server"

// source is one place to look for an input.
type source[T any] struct {
	name string
	get  func(context.Context) (T, error)
}

// first tries the sources named, in their order, and logs in one line which
// one served and why those before it did not. Content that is not what was
// signed or pinned ends the search.
func first[T any](ctx context.Context, log *slog.Logger, what string, names []string, known ...source[T]) (got T, from string, err error) {
	var reasons []error
	for _, name := range names {
		for _, s := range known {
			if s.name != name {
				continue
			}
			got, err := s.get(ctx)
			if err == nil {
				attrs := []any{"source", name}
				if len(reasons) > 0 {
					attrs = append(attrs, "not", errors.Join(reasons...))
				}
				log.Info("got "+what, attrs...)
				return got, name, nil
			}
			var mismatch *cache.MismatchError
			if ctx.Err() != nil || errors.As(err, &mismatch) {
				return got, "", &InputError{What: what, Tampered: mismatch != nil, Err: err}
			}
			reasons = append(reasons, fmt.Errorf("%s: %w", name, err))
		}
	}
	return got, "", &InputError{What: what, Err: fmt.Errorf("no source has it: %w", errors.Join(reasons...))}
}

// tarball gets Kubernetes' server tarball from the first source that has it.
func tarball(ctx context.Context, s *Spec, o Options) (LockedFile, error) {
	k := s.Kubernetes
	sources, err := kubernetes.Sources(o.Store, k.Sources, kubernetes.Options{
		Path: under(o.Dir, k.Tarball), BaseURL: k.Release, Fetch: o.fetch(), Go: goOptions(o), Log: o.log(),
	})
	if err != nil {
		return LockedFile{}, err
	}
	t, err := kubernetes.Get(ctx, k.Version, o.log(), sources...)
	if err != nil {
		var sum *kubernetes.ChecksumError
		return LockedFile{}, &InputError{What: "getting Kubernetes " + k.Version, Tampered: errors.As(err, &sum), Err: err}
	}
	f := LockedFile{Name: serverTarball, Version: k.Version, From: t.Origin, Size: t.Blob.Size, Digest: t.Blob.Digest}
	if f.From != modulesSource {
		return f, nil
	}
	r, err := gomod.Kubernetes(k.Version, time.Time{})
	if err != nil {
		return LockedFile{}, err
	}
	programs, err := kubernetes.Extract(ctx, o.Store, t.Blob, "", gomod.KubernetesPrograms...)
	if err != nil {
		return LockedFile{}, err
	}
	return withModules(f, r, slices.Collect(maps.Values(programs))...)
}

// goOptions says how programs are built. Offline, the go command has what its
// module cache holds: it asks no proxy, no repository of a private module and,
// as it would even then, no checksum database.
func goOptions(o Options) gomod.Options {
	env := o.Env
	if o.Offline {
		env = append(slices.Clone(env), "GOPROXY=off", "GONOPROXY=none", "GOSUMDB=off")
	}
	return gomod.Options{Go: o.Go, Env: env, Log: o.log()}
}

// criDockerd gets cri-dockerd from the first source that has it.
func criDockerd(ctx context.Context, p Program, o Options) (LockedFile, error) {
	return program(ctx, criDockerdName, p, kubernetes.CRIDockerd, gomod.CRIDockerd(p.Version), o)
}

// The names of programs in a lock.
const (
	criDockerdName = "cri-dockerd"
	flanneld       = "flanneld"
)

// flannel gets flanneld from the first source that has it.
func flannel(ctx context.Context, p Program, o Options) (LockedFile, error) {
	return program(ctx, flanneld, p, kubernetes.Flannel, gomod.Flannel(p.Version), o)
}

// released gets a program of a release.
type released func(ctx context.Context, store *cache.Store, version string, want layers.Digest, o kubernetes.Options) (cache.Blob, error)

func program(ctx context.Context, name string, p Program, release released, r gomod.Recipe, o Options) (LockedFile, error) {
	blob, from, err := first(ctx, o.log(), name+" "+p.Version, p.Sources,
		source[cache.Blob]{releaseSource, func(ctx context.Context) (cache.Blob, error) {
			return release(ctx, o.Store, p.Version, sha256Digest(p.SHA256), kubernetes.Options{
				BaseURL: p.Release, Fetch: o.fetch(), Log: o.log(),
			})
		}},
		source[cache.Blob]{pathSource, func(ctx context.Context) (cache.Blob, error) { return localProgram(ctx, under(o.Dir, p.Path), o) }},
		source[cache.Blob]{modulesSource, func(ctx context.Context) (cache.Blob, error) {
			blobs, err := gomod.Build(ctx, o.Store, r, goOptions(o))
			return blobs[name], err
		}},
	)
	if err != nil {
		return LockedFile{}, err
	}
	f := LockedFile{Name: name, Version: p.Version, From: from, Size: blob.Size, Digest: blob.Digest}
	if from == releaseSource {
		f.Asked = sha256Digest(p.SHA256)
	}
	if from != modulesSource {
		return f, nil
	}
	return withModules(f, r, blob)
}

// sha256Digest returns the digest with so many hex digits; "" if there are none.
func sha256Digest(hex string) layers.Digest {
	if hex == "" {
		return ""
	}
	return layers.Digest("sha256:" + hex)
}

// localProgram takes a program of this machine into the content store.
func localProgram(ctx context.Context, path string, o Options) (cache.Blob, error) {
	f, err := elf.Open(path)
	if err != nil {
		return cache.Blob{}, fmt.Errorf("reading program %s: %w", path, err)
	}
	machine := f.Machine
	if err := f.Close(); err != nil {
		return cache.Blob{}, err
	}
	if machine != elf.EM_X86_64 {
		return cache.Blob{}, fmt.Errorf("reading program %s: it is for %v, want %v", path, machine, elf.EM_X86_64)
	}
	return localFile(ctx, path, o)
}

func localFile(ctx context.Context, path string, o Options) (cache.Blob, error) {
	return o.Store.Put(ctx, func(_ context.Context, w io.Writer) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
}

// componentRef returns the name:tag of a component's image, as upstream tags it.
func componentRef(name string, c Component) string {
	tag := c.Version
	if name == "etcd" {
		tag = strings.TrimPrefix(tag, "v") + "-0"
	}
	return c.Image + ":" + tag
}

// component pins a component that runs as a container: its image, and the
// program inside if it is built rather than pulled.
func component(ctx context.Context, s *Spec, l *Lock, name string, c Component, r gomod.Recipe, open archive, o Options) (LockedImage, []LockedFile, error) {
	type found struct {
		image LockedImage
		files []LockedFile
	}
	ref := componentRef(name, c)
	f, _, err := first(ctx, o.log(), name+" "+c.Version, c.Sources,
		source[found]{"registry", func(ctx context.Context) (found, error) {
			im, _, err := lockImage(ctx, s, nil, LockedImage{Name: ref, From: registryScheme + ref}, o)
			return found{image: im}, withFix(err)
		}},
		source[found]{pathSource, func(ctx context.Context) (found, error) {
			im, _, err := lockImage(ctx, s, nil, LockedImage{Name: ref, From: archiveScheme + c.Path}, o)
			return found{image: im}, err
		}},
		source[found]{"distro", func(ctx context.Context) (found, error) {
			im, err := lockDistro(ctx, s, l, name, c.Version, LockedImage{Name: ref}, open, o)
			return found{image: im}, err
		}},
		source[found]{modulesSource, func(ctx context.Context) (found, error) {
			if name == "pause" {
				b, err := pauseProgram(ctx, o)
				return found{image: LockedImage{Name: ref, From: programScheme + name, Digest: b.Digest}}, err
			}
			blobs, err := gomod.Build(ctx, o.Store, r, goOptions(o))
			if err != nil {
				return found{}, err
			}
			b := blobs[name]
			f, err := withModules(LockedFile{Name: name, Version: c.Version, From: modulesSource, Size: b.Size, Digest: b.Digest}, r, b)
			return found{LockedImage{Name: ref, From: programScheme + name, Digest: f.Digest}, []LockedFile{f}}, err
		}},
	)
	return f.image, f.files, err
}

func importer(o Options) images.Importer { return images.Importer{Store: o.Store, Log: o.log()} }

// embedded stores one of our own programs.
func embedded(ctx context.Context, get func() ([]byte, error), o Options) (cache.Blob, error) {
	b, err := get()
	if err != nil {
		return cache.Blob{}, err
	}
	return o.Store.Fetch(ctx, layers.DigestOf(b), func(_ context.Context, w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}
