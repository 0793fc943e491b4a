package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// Config is what an image that we make says about its containers.
type Config struct {
	Entrypoint []string          // the program and its first arguments
	Cmd        []string          // arguments that a container may replace
	Env        []string          // NAME=value
	User       string            // name or number, with a group after ":"; root if empty
	WorkingDir string            // absolute; "/" if empty
	Labels     map[string]string // for people and tools
	Ports      []string          // such as 2379/tcp
	StopSignal string            // such as SIGTERM
	Created    time.Time         // a given epoch, never the time of the build
	CreatedBy  string            // one line of history: where the content is from
}

// Compose makes an image with a layer for each of ls, bottom first: images
// with equal layers share them. Modification times later than c.Created, and
// those not set, become c.Created.
func (m Importer) Compose(ctx context.Context, ref string, c Config, ls ...layers.Layer) (Image, error) {
	var blobs []cache.Blob
	for _, l := range ls {
		b, err := m.composeLayer(ctx, c.Created, l)
		if err != nil {
			return Image{}, fmt.Errorf("composing image %s: %w", ref, err)
		}
		blobs = append(blobs, b)
	}
	return m.fromLayers(ctx, ref, c, blobs...)
}

func (m Importer) composeLayer(ctx context.Context, created time.Time, l layers.Layer) (cache.Blob, error) {
	tree, err := layers.Merge(l)
	if err != nil {
		return cache.Blob{}, err
	}
	key := layers.DigestOfParts("1", string(l.Digest()), created.UTC().Format(time.RFC3339))
	return m.Store.Compute(ctx, "compose", string(key), func(ctx context.Context, w io.Writer) error {
		return writeTree(ctx, w, tree, created)
	})
}

// RootFS makes an image of one layer from a tar of a whole root file system,
// compressed or not, as `docker import` does. Whiteouts in it are whiteouts.
// Its errors do not name the file, as those of [Importer.Load].
func (m Importer) RootFS(ctx context.Context, ref, file string, c Config) (Image, error) {
	b, err := m.Store.Put(ctx, func(ctx context.Context, w io.Writer) (err error) {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		return inflate(ctx, w, f, m.max())
	})
	if err == nil {
		err = checkBlob(b)
	}
	if err != nil {
		return Image{}, fmt.Errorf("importing the root file system: %w", err)
	}
	img, err := m.fromLayers(ctx, ref, c, b)
	if err != nil {
		return Image{}, fmt.Errorf("importing the root file system: %w", err)
	}
	return img, nil
}

func checkBlob(b cache.Blob) error {
	f, err := b.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	return checkTar(f)
}

func (m Importer) fromLayers(ctx context.Context, ref string, c Config, bs ...cache.Blob) (Image, error) {
	raw, err := json.Marshal(m.configFile(c, bs))
	if err != nil {
		return Image{}, fmt.Errorf("writing the configuration of image %s: %w", ref, err)
	}
	return m.assemble(ctx, ref, raw, len(bs), func(_ context.Context, i int) (io.ReadCloser, error) { return bs[i].ReadCloser() })
}

func (m Importer) configFile(c Config, bs []cache.Blob) v1.ConfigFile {
	created := v1.Time{Time: c.Created.UTC().Truncate(time.Second)}
	out := v1.ConfigFile{
		Architecture: m.arch(), OS: "linux", Created: created, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir,
			Labels: c.Labels, ExposedPorts: map[string]struct{}{}, StopSignal: c.StopSignal,
		},
	}
	for _, p := range c.Ports {
		out.Config.ExposedPorts[p] = struct{}{}
	}
	for _, b := range bs {
		out.RootFS.DiffIDs = append(out.RootFS.DiffIDs, v1.Hash{Algorithm: "sha256", Hex: b.Digest.Hex()})
		out.History = append(out.History, v1.History{Created: created, CreatedBy: c.CreatedBy})
	}
	return out
}

// writeTree writes a tree as a layer's tar.
func writeTree(ctx context.Context, w io.Writer, t *layers.Tree, created time.Time) error {
	tw := tar.NewWriter(w)
	for f := range t.Files() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.Path == "." {
			continue
		}
		if err := writeFile(tw, f, created); err != nil {
			return fmt.Errorf("writing /%s of %s: %w", f.Path, f.Owner, err)
		}
	}
	return tw.Close()
}

func writeFile(tw *tar.Writer, f layers.File, created time.Time) error {
	h := &tar.Header{
		Name: f.Path, Mode: int64(f.Mode.Perm()) | special(f.Mode), Uid: int(f.UID), Gid: int(f.GID),
		Size: f.Size, Linkname: f.Link, ModTime: clamp(f.ModTime, created),
		Devmajor: int64(unix.Major(f.Rdev)), Devminor: int64(unix.Minor(f.Rdev)),
	}
	switch f.Mode.Type() {
	case 0:
		h.Typeflag = tar.TypeReg
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
	case fs.ModeSymlink:
		h.Typeflag = tar.TypeSymlink
	case fs.ModeDevice | fs.ModeCharDevice:
		h.Typeflag = tar.TypeChar
	case fs.ModeDevice:
		h.Typeflag = tar.TypeBlock
	case fs.ModeNamedPipe:
		h.Typeflag = tar.TypeFifo
	default:
		return fmt.Errorf("type %v does not fit into a layer", f.Mode.Type())
	}
	for k, v := range f.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	if err := tw.WriteHeader(h); err != nil || f.Open == nil {
		return err
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(tw, r)
	return err
}

// special returns the mode bits of tar that fs.FileMode keeps elsewhere.
func special(m fs.FileMode) int64 {
	var out int64
	for bit, v := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			out |= v
		}
	}
	return out
}

func clamp(t, max time.Time) time.Time {
	if t.IsZero() || t.After(max) {
		t = max
	}
	return t.UTC().Truncate(time.Second)
}
