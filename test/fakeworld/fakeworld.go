// Package fakeworld makes everything outside of kscratch that a build of a
// node image needs, small and on this machine: a signed Debian archive with
// every package that [builder.Spec.PackageNames] asks for and every file that
// [builder.InitrdPaths] does, a Kubernetes server tarball, container images, a
// program, and a cluster file that names them all. A test then runs the whole
// of kscratch, offline and in a second.
//
// Everything is deterministic. The programs are valid executables that end at
// once: an image of this world is whole in form, and does not boot.
package fakeworld

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/kubernetes"
	"github.com/kscratch/kscratch/test/aptfake"
)

// The files of a world.
const (
	ClusterFile = "cluster.yaml"
	Archive     = "debian"
	Keyring     = "debian.pgp"
	Tarball     = "kubernetes-server-linux-amd64.tar.gz"
	CRIDockerd  = "cri-dockerd"
	EtcdImage   = "etcd.tar"
	DNSImage    = "coredns.tar"
)

// Cluster is the cluster file of a world. The archives are named relative to
// the working directory of the process, so that a world may be anywhere and its
// lock be copied.
const Cluster = `kubernetes: {sources: [path], tarball: ` + Tarball + `}
components:
  criDockerd: {sources: [path], path: ` + CRIDockerd + `}
  etcd: {sources: [path], path: ` + EtcdImage + `}
  coreDNS: {sources: [path], path: ` + DNSImage + `}
  pause: {sources: [modules]}
base:
  mirror: file:///proc/self/cwd/` + Archive + `
  securityMirror: file:///proc/self/cwd/` + Archive + `-security
  keyring: ` + Keyring + `
disk: {esp: 512, root: 512}
`

// Write makes a world in a directory that is there. More are further packages
// of the archive.
func Write(ctx context.Context, dir string, more ...aptfake.Deb) (err error) {
	debs, err := Debs()
	if err != nil {
		return err
	}
	keys, err := aptfake.Write(dir, append(debs, more...)...)
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{
		Keyring: keys, ClusterFile: []byte(Cluster), CRIDockerd: Program("cri-dockerd"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return fmt.Errorf("writing world: %w", err)
		}
	}
	tmp, err := os.MkdirTemp("", "fakeworld-")
	if err != nil {
		return fmt.Errorf("writing world: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	store, err := cache.Open(tmp)
	if err != nil {
		return err
	}
	for name, program := range map[string]string{EtcdImage: "etcd", DNSImage: "coredns"} {
		if err := writeImage(ctx, store, filepath.Join(dir, name), program); err != nil {
			return err
		}
	}
	return WriteTarball(ctx, filepath.Join(dir, Tarball), elf.EM_X86_64)
}

// WriteTarball writes a server tarball whose programs outside of containers
// say that they are for machine.
func WriteTarball(ctx context.Context, path string, machine elf.Machine) (err error) {
	tmp, err := os.MkdirTemp("", "fakeworld-")
	if err != nil {
		return fmt.Errorf("writing tarball: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	store, err := cache.Open(tmp)
	if err != nil {
		return err
	}
	programs := map[string]cache.Blob{}
	for _, name := range kubernetes.Programs {
		if programs[name], err = put(ctx, store, program(name, machine)); err != nil {
			return err
		}
	}
	return create(path, func(w io.Writer) error {
		version := builder.Default().Kubernetes.Version
		return kubernetes.Write(ctx, w, programs, kubernetes.WriteOptions{Version: version})
	})
}

// writeImage writes a docker-archive of an image with one program.
func writeImage(ctx context.Context, store *cache.Store, path, name string) error {
	files := layers.Of(name, layers.DigestOf(Program(name)), layers.Regular("usr/local/bin/"+name, 0o755, name, Program(name)))
	img, err := images.Importer{Store: store}.Compose(ctx, "example.org/"+name+":v1", images.Config{Entrypoint: []string{name}}, files)
	if err != nil {
		return err
	}
	return create(path, func(w io.Writer) error { return images.WriteDockerArchive(ctx, w, img) })
}

func put(ctx context.Context, store *cache.Store, b []byte) (cache.Blob, error) {
	return store.Put(ctx, func(_ context.Context, w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(b))
		return err
	})
}

func create(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
