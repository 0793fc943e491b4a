// Package e2e makes what upstream's end-to-end suite needs: the suite itself,
// e2e.test, and container images with the names that its specs ask for.
//
// Both come from the Kubernetes module, like the programs under test, and from
// Debian packages; nothing is pulled from a registry. An image is made only
// where its content can be had honestly:
//
//	agnhost            the program of the suite's own version, beside the tools that upstream's Dockerfile installs
//	busybox            Debian's static busybox of the same version
//	glibc-dns-testing  upstream's is Debian with dig, and so is this one
//	nautilus           agnhost with the page that the module holds
//	nonroot            an unprivileged user in an image with a shell
//	pause              kscratch's own pause program
//
// Not here: images of other projects (nginx, sample-apiserver, the CSI
// drivers), older agnhosts, and in agnhost the images for its fake registry
// and the CoreDNS of 2019.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers/apt"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/gomod"
	"github.com/kscratch/kscratch/test/userstore"
)

// Version is the Kubernetes release whose suite this is. The tags of the
// images below belong to it.
const Version = "v1.36.3"

// Options say where things are kept and come from. Store, Go and Now are
// required.
type Options struct {
	Store  *cache.Store
	Go     string       // path of the go command
	Env    []string     // of the go command, as [gomod.Options] has it
	Now    time.Time    // against which the Debian archive's dates are checked
	Mirror apt.Mirror   // the zero value is the mirror of this machine's apt
	Log    *slog.Logger // nil discards
}

// Local returns the options of a test on this machine: the content store that
// KSCRATCH_CACHE names, or kscratch's own, where images have left the compiled
// programs; the go command in PATH; and the clock.
func Local(log *slog.Logger) (Options, error) {
	store, err := userstore.Open()
	if err != nil {
		return Options{}, err
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		return Options{}, &gomod.MissingGoError{Recipe: "the e2e suite"}
	}
	return Options{Store: store, Go: goTool, Env: os.Environ(), Now: time.Now(), Log: log}, nil
}

func (o Options) gomod() gomod.Options { return gomod.Options{Go: o.Go, Env: o.Env, Log: o.Log} }

// Suite returns the program e2e.test: compiled, or from the store.
func Suite(ctx context.Context, o Options) (cache.Blob, error) { return program(ctx, "e2e.test", o) }

// Kubectl returns kubectl of the same version, which the suite runs.
func Kubectl(ctx context.Context, o Options) (cache.Blob, error) {
	r, err := gomod.Kubernetes(Version, time.Time{})
	if err != nil {
		return cache.Blob{}, err
	}
	r.Packages = slices.DeleteFunc(r.Packages, func(p gomod.Package) bool { return p.Name != "kubectl" })
	blobs, err := gomod.Build(ctx, o.Store, r, o.gomod())
	return blobs["kubectl"], err
}

func program(ctx context.Context, name string, o Options) (cache.Blob, error) {
	r, err := gomod.KubernetesTests(Version)
	if err != nil {
		return cache.Blob{}, err
	}
	blobs, err := gomod.Build(ctx, o.Store, r, o.gomod())
	return blobs[name], err
}

// Image is a container image in a docker-archive.
type Image struct {
	Name string // that the suite asks for
	Path string // of the archive
}

// Archives writes every image of this package into dir, a docker-archive each,
// for the cluster file's list of images. The same inputs give the same bytes.
func Archives(ctx context.Context, dir string, o Options) ([]Image, error) {
	made, err := compose(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("making the images of the e2e suite: %w", err)
	}
	var out []Image
	for _, im := range made {
		path := filepath.Join(dir, fileName(im.Ref))
		if err := writeArchive(ctx, path, im); err != nil {
			return nil, fmt.Errorf("making the images of the e2e suite: %w", err)
		}
		out = append(out, Image{im.Ref, path})
	}
	return out, nil
}

// fileName turns registry.k8s.io/pause:3.10.2 into pause-3.10.2.tar.
func fileName(ref string) string {
	return strings.ReplaceAll(ref[strings.LastIndexByte(ref, '/')+1:], ":", "-") + ".tar"
}

// writeArchive writes one image; a file that is torn has another name.
func writeArchive(ctx context.Context, path string, im images.Image) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".image-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(images.WriteDockerArchive(ctx, f, im), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Install writes a program from the store to path, executable.
func Install(b cache.Blob, path string) error {
	r, err := b.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
