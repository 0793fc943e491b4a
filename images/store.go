package images

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// storeVersion goes into digests of what [Store] makes; a change of the output
// must change it.
const storeVersion = "images.Store 1"

// linkLength is the number of characters of a short name in overlay2/l.
const linkLength = 26

// Store lays images out as docker's overlay2 image store in the directory at,
// a clean path relative to the root such as usr/lib/kscratch/docker: as files
// of which each is owned by the image that it came with. A layer in several
// images is there once and is owned by the first of them by name. Two images
// under one name are an error.
//
// The directory itself is for root alone, as docker's is: set-uid programs of
// an image must not be within reach of a node's users.
func Store(ctx context.Context, imgs []Image, at string) (layers.Layer, error) {
	b, err := newBaker(imgs, at)
	if err != nil {
		return nil, fmt.Errorf("baking images: %w", err)
	}
	if err := b.splitAll(ctx); err != nil {
		return nil, fmt.Errorf("baking images: %w", err)
	}
	for _, c := range b.order {
		if err := b.layer(c); err != nil {
			return nil, fmt.Errorf("baking layer %s of image %s: %w", c.DiffID, b.owners[c.Chain].Ref, err)
		}
	}
	if err := b.metadata(); err != nil {
		return nil, fmt.Errorf("baking images: %w", err)
	}
	return layers.Of("images", b.digest(), b.files...), nil
}

// baker collects the files of a store.
type baker struct {
	at     string
	imgs   []Image // by name
	order  []Layer // each chain once, parents first
	owners map[layers.Digest]Image
	parent map[layers.Digest]layers.Digest
	splits map[layers.Digest]cache.Blob
	lower  map[layers.Digest]string
	files  []layers.File
}

func newBaker(imgs []Image, at string) (*baker, error) {
	if !fs.ValidPath(at) || at == "." {
		return nil, fmt.Errorf("directory %q: not a clean relative path", at)
	}
	b := &baker{
		at: at, imgs: slices.Clone(imgs), owners: map[layers.Digest]Image{},
		parent: map[layers.Digest]layers.Digest{}, splits: map[layers.Digest]cache.Blob{}, lower: map[layers.Digest]string{},
	}
	slices.SortFunc(b.imgs, func(x, y Image) int { return strings.Compare(x.Ref, y.Ref) })
	for i, img := range b.imgs {
		if i > 0 && b.imgs[i-1].Ref == img.Ref {
			return nil, fmt.Errorf("two images are named %s", img.Ref)
		}
		var below layers.Digest
		for _, l := range img.layers {
			if _, ok := b.owners[l.Chain]; !ok {
				b.owners[l.Chain], b.parent[l.Chain] = img, below
				b.order = append(b.order, l)
			}
			below = l.Chain
		}
	}
	return b, nil
}

func (b *baker) digest() layers.Digest {
	parts := []string{storeVersion, b.at}
	for _, img := range b.imgs {
		parts = append(parts, img.Ref, string(img.ID), string(img.Digest), string(img.Index))
	}
	return layers.DigestOfParts(parts...)
}

func (b *baker) splitAll(ctx context.Context) error {
	out := make([]cache.Blob, len(b.order))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(concurrency)
	for i, l := range b.order {
		g.Go(func() (err error) {
			out[i], err = tarSplit(gctx, b.owners[l.Chain].store, l)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, l := range b.order {
		b.splits[l.Chain] = out[i]
	}
	return nil
}

func owner(img Image) string { return "image:" + img.Ref }

// layer adds a layer's metadata, its overlay2 directory and its files.
func (b *baker) layer(l Layer) error {
	own := owner(b.owners[l.Chain])
	id, parent := cacheID(l.Chain), b.parent[l.Chain]
	db := path.Join("image/overlay2/layerdb/sha256", l.Chain.Hex())
	b.add(layers.Dir(db, 0o700, own))
	b.text(path.Join(db, "diff"), own, string(l.DiffID))
	b.text(path.Join(db, "size"), own, strconv.FormatInt(l.Size, 10))
	b.text(path.Join(db, "cache-id"), own, id)
	split := b.splits[l.Chain]
	b.add(layers.File{Path: path.Join(db, "tar-split.json.gz"), Mode: 0o644, Size: split.Size, Owner: own, Open: split.ReadCloser})

	dir := path.Join("overlay2", id)
	b.add(layers.Dir(dir, 0o710, own))
	b.text(path.Join(dir, "link"), own, linkName(l.Chain))
	b.add(layers.Regular(path.Join(dir, "committed"), 0o600, own, nil))
	if parent != "" {
		lower := strings.TrimSuffix("l/"+linkName(parent)+":"+b.lower[parent], ":")
		b.lower[l.Chain] = lower
		b.text(path.Join(db, "parent"), own, string(parent))
		b.text(path.Join(dir, "lower"), own, lower)
	}
	return b.diff(l, l.Dir(), own)
}

func (b *baker) diff(l Layer, at, own string) error {
	files, err := unpack(l, own)
	if err != nil {
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		f := files[p]
		f.Path = path.Join(at, p)
		b.add(f)
	}
	return nil
}

// metadata adds the images' configurations and the list of names.
func (b *baker) metadata() error {
	repos := map[string]map[string]string{}
	done := map[layers.Digest]bool{}
	for _, img := range b.imgs {
		if err := nameImage(repos, img); err != nil {
			return err
		}
		if !done[img.ID] {
			done[img.ID] = true
			b.add(layers.Regular(path.Join("image/overlay2/imagedb/content/sha256", img.ID.Hex()), 0o600, owner(img), img.config))
		}
	}
	raw, err := json.Marshal(map[string]any{"Repositories": repos})
	if err != nil {
		return err
	}
	const own = "kscratch:images"
	b.add(layers.Regular("image/overlay2/repositories.json", 0o600, own, raw))
	for _, d := range []string{"image/overlay2/imagedb/content/sha256", "image/overlay2/imagedb/metadata/sha256", "image/overlay2/layerdb/sha256", "overlay2"} {
		for ; d != "."; d = path.Dir(d) {
			b.add(layers.Dir(d, 0o710, own))
		}
	}
	b.add(layers.Dir(".", 0o700, own))
	slices.SortFunc(b.files, func(x, y layers.File) int { return strings.Compare(x.Path, y.Path) })
	b.files = slices.CompactFunc(b.files, func(x, y layers.File) bool { return x.Path == y.Path })
	return nil
}

// nameImage enters the names of an image as docker keeps them: by repository,
// then by whole name, in the familiar form. Digests make an image found by
// name@sha256:…, too.
func nameImage(repos map[string]map[string]string, img Image) error {
	tag, err := parseRef(img.Ref)
	if err != nil {
		return err
	}
	repo := repository(tag.Context())
	if repos[repo] == nil {
		repos[repo] = map[string]string{}
	}
	repos[repo][familiar(tag)] = string(img.ID)
	for _, d := range []layers.Digest{img.Digest, img.Index} {
		if d != "" {
			repos[repo][repo+"@"+string(d)] = string(img.ID)
		}
	}
	return nil
}

// add puts a file below the store's directory.
func (b *baker) add(f layers.File) {
	f.Path = path.Join(b.at, f.Path)
	b.files = append(b.files, f)
}

func (b *baker) text(p, own, content string) {
	b.add(layers.Regular(p, 0o644, own, []byte(content)))
}

// Dir returns the directory of the layer's files in a store, relative to it.
func (l Layer) Dir() string { return path.Join("overlay2", cacheID(l.Chain), "diff") }

// cacheID returns the name of a layer's directory in overlay2.
func cacheID(chain layers.Digest) string {
	return layers.DigestOfParts("kscratch cache-id", string(chain)).Hex()
}

// linkName returns the short name of a layer in overlay2/l, in docker's
// alphabet.
func linkName(chain layers.Digest) string {
	sum := sha256.Sum256([]byte("kscratch link " + string(chain)))
	return base32.StdEncoding.EncodeToString(sum[:])[:linkLength]
}
