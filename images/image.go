package images

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// maxLayers is the depth at which docker refuses to add a layer.
const maxLayers = 125

// Image is a container image whose layers are all in a content store. It is
// immutable; an [Importer] makes it.
type Image struct {
	Ref    string        // name:tag that docker knows it by, in docker's familiar form
	ID     layers.Digest // of the configuration: docker's image ID
	Digest layers.Digest // of the manifest; empty if it came without one
	Index  layers.Digest // of the index that the manifest was chosen from; may be empty

	config []byte
	layers []Layer
	store  *cache.Store
}

// Layer is one layer of an image.
type Layer struct {
	DiffID layers.Digest // of the uncompressed tar
	Chain  layers.Digest // of this layer on those below it
	Blob   cache.Blob    // the uncompressed tar
	Size   int64         // bytes that docker says the unpacked layer has
}

// RawConfig returns the configuration, the bytes that ID is the digest of.
func (i Image) RawConfig() []byte { return slices.Clone(i.config) }

// Config returns the parsed configuration.
func (i Image) Config() (*v1.ConfigFile, error) {
	c, err := v1.ParseConfigFile(bytes.NewReader(i.config))
	if err != nil {
		return nil, fmt.Errorf("parsing the configuration of %s: %w", i.Ref, err)
	}
	return c, nil
}

// Layers returns the layers, bottom first.
func (i Image) Layers() []Layer { return slices.Clone(i.layers) }

// Size returns the bytes of all uncompressed layer tars.
func (i Image) Size() int64 {
	var n int64
	for _, l := range i.layers {
		n += l.Blob.Size
	}
	return n
}

// As returns the same image under another name.
func (i Image) As(ref string) (Image, error) {
	tag, err := parseRef(ref)
	if err != nil {
		return Image{}, err
	}
	i.Ref = familiar(tag)
	return i, nil
}

// V1 returns the image as go-containerregistry has it, for tools that take
// such a value. Its layers are compressed when they are asked for, so that the
// manifest differs from the one that Digest names.
func (i Image) V1() (v1.Image, error) {
	img, err := partial.UncompressedToImage(core{i})
	if err != nil {
		return nil, fmt.Errorf("opening image %s: %w", i.Ref, err)
	}
	return img, nil
}

// Tar returns the layer's files as they stand in the tar, whiteouts included.
// The content of a file is read where it lies.
func (l Layer) Tar(owner string) layers.Tar {
	return layers.Tar{
		Title: "layer " + string(l.DiffID), Content: l.DiffID, Owner: owner,
		Size: l.Blob.Size, Open: l.Blob.ReaderAt,
	}
}

// chainID returns the identifier of a layer on top of parent, which is empty
// for the bottom layer.
func chainID(parent, diff layers.Digest) layers.Digest {
	if parent == "" {
		return diff
	}
	return layers.DigestOf([]byte(string(parent) + " " + string(diff)))
}

// parseRef parses a reference with a tag; without one the tag is "latest".
func parseRef(ref string, opts ...name.Option) (name.Tag, error) {
	t, err := name.NewTag(ref, opts...)
	if err != nil {
		return name.Tag{}, fmt.Errorf("parsing image name %q: %w", ref, err)
	}
	return t, nil
}

// repository returns the name that docker shows and stores for a repository.
func repository(r name.Repository) string {
	if r.RegistryStr() == name.DefaultRegistry || r.RegistryStr() == "docker.io" {
		return strings.TrimPrefix(r.RepositoryStr(), "library/")
	}
	return r.Name()
}

// Familiar returns a reference as docker shows and stores it, the form that
// [Image].Ref has. Without a tag it is "latest".
func Familiar(ref string) (string, error) {
	t, err := parseRef(ref)
	if err != nil {
		return "", err
	}
	return familiar(t), nil
}

// familiar returns the reference as docker shows and stores it.
func familiar(t name.Tag) string { return repository(t.Context()) + ":" + t.TagStr() }

// core and layerCore show an image to go-containerregistry.
type core struct{ i Image }

func (c core) RawConfigFile() ([]byte, error)      { return c.i.RawConfig(), nil }
func (c core) MediaType() (types.MediaType, error) { return types.DockerManifestSchema2, nil }
func (c core) LayerByDiffID(h v1.Hash) (partial.UncompressedLayer, error) {
	for _, l := range c.i.layers {
		if string(l.DiffID) == h.String() {
			return layerCore{l}, nil
		}
	}
	return nil, fmt.Errorf("image %s has no layer %s", c.i.Ref, h)
}

type layerCore struct{ l Layer }

func (c layerCore) DiffID() (v1.Hash, error)             { return v1.NewHash(string(c.l.DiffID)) }
func (c layerCore) Uncompressed() (io.ReadCloser, error) { return c.l.Blob.ReadCloser() }
func (c layerCore) MediaType() (types.MediaType, error)  { return types.DockerLayer, nil }
