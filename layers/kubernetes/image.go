package kubernetes

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kscratch/kscratch/layers/cache"
)

// registry is in the tags of all released images.
const registry = "registry.k8s.io"

// imageTag is the tag of a version: a tag may not hold a plus sign.
func imageTag(version string) string { return strings.ReplaceAll(version, "+", "_") }

// archive is a docker-archive whose size is known before it is written.
type archive struct {
	ref  name.Tag
	img  v1.Image
	size int64 // bytes
}

// newArchive wraps a program into an image and names it as releases do:
// registry.k8s.io/<program>-<arch>:<version>.
func newArchive(program string, blob cache.Blob, o WriteOptions) (archive, error) {
	ref, err := name.NewTag(fmt.Sprintf("%s/%s-%s:%s", registry, program, o.arch(), imageTag(o.Version)), name.StrictValidation)
	if err != nil {
		return archive{}, fmt.Errorf("naming image of %s: %w", program, err)
	}
	img, err := programImage(program, blob, o)
	if err != nil {
		return archive{}, fmt.Errorf("making image of %s: %w", program, err)
	}
	size, err := tarball.CalculateSize(map[name.Reference]v1.Image{ref: img})
	if err != nil {
		return archive{}, fmt.Errorf("making image of %s: %w", program, err)
	}
	return archive{ref, img, size}, nil
}

func (a archive) writeTo(w io.Writer) error { return tarball.Write(a.ref, a.img, w) }

func programImage(program string, blob cache.Blob, o WriteOptions) (v1.Image, error) {
	layer, err := newProgramLayer("usr/local/bin/"+program, blob, o.epoch())
	if err != nil {
		return nil, err
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: o.epoch()}, CreatedBy: "kscratch tarball build: " + program + " " + o.Version},
	})
	if err != nil {
		return nil, err
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Created = "linux", o.arch(), v1.Time{Time: o.epoch()}
	c.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	c.Config.Cmd = []string{program}
	return mutate.ConfigFile(img, c)
}

// programLayer is an uncompressed image layer with one program. It is read
// from the store each time, so that a large one needs no memory.
type programLayer struct {
	path  string
	blob  cache.Blob
	epoch time.Time
	hash  v1.Hash
	size  int64
}

func newProgramLayer(path string, blob cache.Blob, epoch time.Time) (*programLayer, error) {
	l := &programLayer{path: path, blob: blob, epoch: epoch}
	h := sha256.New()
	r, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if l.size, err = io.Copy(h, r); err != nil {
		return nil, err
	}
	l.hash = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
	return l, nil
}

func (l *programLayer) Digest() (v1.Hash, error) { return l.hash, nil }
func (l *programLayer) DiffID() (v1.Hash, error) { return l.hash, nil }
func (l *programLayer) Size() (int64, error)     { return l.size, nil }
func (l *programLayer) MediaType() (types.MediaType, error) {
	return types.DockerUncompressedLayer, nil
}
func (l *programLayer) Compressed() (io.ReadCloser, error) { return l.Uncompressed() }
func (l *programLayer) Uncompressed() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(l.write(w)) }()
	return r, nil
}

// write writes the layer: the program, the directories above it, and /tmp.
func (l *programLayer) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	for i, c := range l.path {
		if c != '/' {
			continue
		}
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: l.path[:i+1], Mode: 0o755, ModTime: l.epoch, Format: tar.FormatUSTAR}); err != nil {
			return err
		}
	}
	if err := addBlob(tw, l.path, 0o755, l.epoch, l.blob); err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777, ModTime: l.epoch, Format: tar.FormatUSTAR}); err != nil {
		return err
	}
	return tw.Close()
}

// addBlob adds a regular file with the content of a blob.
func addBlob(tw *tar.Writer, path string, mode int64, epoch time.Time, b cache.Blob) error {
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: mode, Size: b.Size, ModTime: epoch, Format: tar.FormatUSTAR}); err != nil {
		return err
	}
	f, err := b.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, f)
	return err
}
