package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

const (
	maxConfig   = 8 << 20  // bytes of a configuration or manifest; docker's own limit is 4 MiB
	defaultMax  = 16 << 30 // bytes of one uncompressed layer or archive
	concurrency = 4        // layers fetched and inflated at once
)

// Importer brings images into a content store. Only Store is required.
type Importer struct {
	Store   *cache.Store
	Arch    string       // architecture wanted, as Go names it; "amd64" if empty
	MaxSize int64        // bytes that one layer or archive may have uncompressed; 16 GiB if zero
	Log     *slog.Logger // what was done; nothing is logged if nil
}

func (m Importer) arch() string {
	if m.Arch == "" {
		return "amd64"
	}
	return m.Arch
}

func (m Importer) max() int64 {
	if m.MaxSize <= 0 {
		return defaultMax
	}
	return m.MaxSize
}

func (m Importer) log() *slog.Logger {
	if m.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return m.Log
}

// PlatformError says that an image is for other machines.
type PlatformError struct {
	Ref  string
	Has  []string // platforms that are there, as os/arch
	Want string   // the platform asked for
}

func (e *PlatformError) Error() string {
	return fmt.Sprintf("image %s is for %s, want %s", e.Ref, join(e.Has), e.Want)
}

// opener opens the i-th layer of an image, compressed or not.
type opener func(ctx context.Context, i int) (io.ReadCloser, error)

// assemble makes an image from its configuration and its layers.
func (m Importer) assemble(ctx context.Context, ref string, config []byte, n int, open opener) (Image, error) {
	tag, err := parseRef(ref)
	if err != nil {
		return Image{}, err
	}
	diffs, err := m.diffIDs(ref, config)
	if err != nil {
		return Image{}, err
	}
	if len(diffs) != n {
		return Image{}, fmt.Errorf("image %s: its configuration names %d layers, its manifest %d", ref, len(diffs), n)
	}
	out := make([]Layer, n)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(concurrency)
	for i, d := range diffs {
		g.Go(func() (err error) {
			out[i], err = m.layer(gctx, d, func(ctx context.Context) (io.ReadCloser, error) { return open(ctx, i) })
			if err != nil {
				return fmt.Errorf("reading layer %d of image %s: %w", i+1, ref, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return Image{}, err
	}
	var chain layers.Digest
	for i := range out {
		chain = chainID(chain, out[i].DiffID)
		out[i].Chain = chain
	}
	img := Image{Ref: familiar(tag), ID: layers.DigestOf(config), config: config, layers: out, store: m.Store}
	m.log().Debug("image ready", "ref", img.Ref, "id", img.ID, "layers", n, "bytes", img.Size())
	return img, nil
}

// diffIDs returns the layers that a configuration names, after checks of the
// configuration itself.
func (m Importer) diffIDs(ref string, config []byte) ([]layers.Digest, error) {
	c, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return nil, fmt.Errorf("parsing the configuration of image %s: %w", ref, err)
	}
	if c.OS != "linux" || c.Architecture != m.arch() {
		return nil, &PlatformError{Ref: ref, Has: []string{c.OS + "/" + c.Architecture}, Want: "linux/" + m.arch()}
	}
	if c.RootFS.Type != "layers" {
		return nil, fmt.Errorf("image %s: root file system of type %q, want layers", ref, c.RootFS.Type)
	}
	if len(c.RootFS.DiffIDs) > maxLayers {
		return nil, fmt.Errorf("image %s: has %d layers; docker takes %d", ref, len(c.RootFS.DiffIDs), maxLayers)
	}
	var out []layers.Digest
	for _, h := range c.RootFS.DiffIDs {
		d := layers.Digest(h.String())
		if err := d.Check(); err != nil {
			return nil, fmt.Errorf("image %s: %w", ref, err)
		}
		out = append(out, d)
	}
	return out, nil
}

// layer returns the layer with a diff ID from the store, which it fills if
// need be.
func (m Importer) layer(ctx context.Context, diff layers.Digest, open func(context.Context) (io.ReadCloser, error)) (Layer, error) {
	b, err := m.Store.Fetch(ctx, diff, func(ctx context.Context, w io.Writer) error {
		r, err := open(ctx)
		if err != nil {
			return err
		}
		defer r.Close()
		return inflate(ctx, w, r, m.max())
	})
	if err != nil {
		return Layer{}, err
	}
	return inspect(diff, b)
}

// inspect checks that a layer can be baked and measures it.
func inspect(diff layers.Digest, b cache.Blob) (Layer, error) {
	l := Layer{DiffID: diff, Blob: b}
	size, err := unpackedSize(b)
	if err != nil {
		return Layer{}, err
	}
	l.Size = size
	_, err = unpack(l, "layer")
	return l, err
}
