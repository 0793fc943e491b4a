package images

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kscratch/kscratch/layers"
)

// Pick chooses an image out of several.
type Pick struct {
	Tag string // the name it has where it is; if empty, the only image is meant, or of several the one that is named As
	As  string // the name docker shall know it by; the one that it has, if empty
}

// Load reads an image from a file: a docker-archive (what `docker save`
// writes, compressed or not, one image or several) or an OCI image layout (a
// directory or a tar of one). Its errors do not name the file, which may be a
// copy in a content store that says nothing to anyone.
func (m Importer) Load(ctx context.Context, file string, p Pick) (Image, error) {
	img, err := m.load(ctx, file, p)
	if err != nil {
		return Image{}, fmt.Errorf("loading the image: %w", err)
	}
	return img, nil
}

func (m Importer) load(ctx context.Context, file string, p Pick) (Image, error) {
	b, err := m.openBundle(ctx, file)
	if err != nil {
		return Image{}, err
	}
	defer b.Close()
	docker, err := has(b, "manifest.json")
	if err != nil {
		return Image{}, err
	}
	if docker {
		return m.loadArchive(ctx, b, p)
	}
	layout, err := has(b, "index.json")
	if err != nil {
		return Image{}, err
	}
	if layout {
		return m.loadLayout(ctx, b, p)
	}
	old, err := has(b, "repositories")
	if err != nil {
		return Image{}, err
	}
	if old {
		return Image{}, errors.New("it has no manifest.json: docker before 1.10 wrote it; load and save it with a later one")
	}
	return Image{}, errors.New("it has neither manifest.json nor index.json: neither a docker-archive nor an OCI layout; is it the tar of a root file system?")
}

// archiveItem is an image in a docker-archive's manifest.json.
type archiveItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// parseArchive parses a manifest.json and brings the tags to docker's
// familiar form.
func parseArchive(raw []byte) ([]archiveItem, error) {
	var items []archiveItem
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, fmt.Errorf("parsing manifest.json: %w", err)
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("parsing manifest.json: it names no image")
	}
	seen := map[string]bool{}
	for i, it := range items {
		if it.Config == "" || slices.Contains(it.Layers, "") {
			return nil, fmt.Errorf("parsing manifest.json: image %d lacks the name of its configuration or of a layer", i+1)
		}
		if len(it.Layers) > maxLayers {
			return nil, fmt.Errorf("parsing manifest.json: image %d has %d layers; docker takes %d", i+1, len(it.Layers), maxLayers)
		}
		for j, t := range it.RepoTags {
			tag, err := parseRef(t)
			if err != nil {
				return nil, fmt.Errorf("parsing manifest.json: image %d: %w", i+1, err)
			}
			items[i].RepoTags[j] = familiar(tag)
			if seen[familiar(tag)] {
				return nil, fmt.Errorf("parsing manifest.json: tag %s is there twice", t)
			}
			seen[familiar(tag)] = true
		}
	}
	return items, nil
}

func (m Importer) loadArchive(ctx context.Context, b bundle, p Pick) (Image, error) {
	raw, err := readSmall(b, "manifest.json")
	if err != nil {
		return Image{}, err
	}
	items, err := parseArchive(raw)
	if err != nil {
		return Image{}, err
	}
	it, ref, err := pickItem(items, p)
	if err != nil {
		return Image{}, err
	}
	config, err := readSmall(b, it.Config)
	if err != nil {
		return Image{}, err
	}
	return m.assemble(ctx, ref, config, len(it.Layers), func(_ context.Context, i int) (io.ReadCloser, error) {
		r, _, err := b.open(it.Layers[i])
		return r, err
	})
}

// pickItem chooses an image and says by what name docker shall know it.
func pickItem(items []archiveItem, p Pick) (archiveItem, string, error) {
	var tags []string
	for _, it := range items {
		tags = append(tags, it.RepoTags...)
	}
	if p.Tag == "" && len(items) == 1 {
		ref, err := nameFor(p, items[0].RepoTags)
		return items[0], ref, err
	}
	if p.Tag = cmp.Or(p.Tag, p.As); p.Tag == "" {
		return archiveItem{}, "", fmt.Errorf("has %d images (%s): say which", len(items), strings.Join(tags, ", "))
	}
	want, err := parseRef(p.Tag)
	if err != nil {
		return archiveItem{}, "", err
	}
	for _, it := range items {
		if slices.Contains(it.RepoTags, familiar(want)) {
			ref, err := nameFor(p, []string{familiar(want)})
			return it, ref, err
		}
	}
	return archiveItem{}, "", fmt.Errorf("has no image %s; it has: %s", familiar(want), strings.Join(tags, ", "))
}

// nameFor returns what docker shall call an image that has some tags already.
func nameFor(p Pick, tags []string) (string, error) {
	switch {
	case p.As != "":
		return p.As, nil
	case len(tags) == 1:
		return tags[0], nil
	case len(tags) == 0:
		return "", fmt.Errorf("the image has no name: give it one")
	}
	return "", fmt.Errorf("the image has the names %s: say which to use", strings.Join(tags, ", "))
}

// Annotations that name an image in a layout's index.
const (
	refAnnotation  = "org.opencontainers.image.ref.name" // OCI: a tag or a whole name
	nameAnnotation = "io.containerd.image.name"          // containerd, docker and buildkit: a whole name
)

func (m Importer) loadLayout(ctx context.Context, b bundle, p Pick) (Image, error) {
	raw, err := readSmall(b, "index.json")
	if err != nil {
		return Image{}, err
	}
	idx, err := parseIndex(raw)
	if err != nil {
		return Image{}, fmt.Errorf("parsing index.json: %w", err)
	}
	d, ref, err := pickDescriptor(idx.Manifests, p)
	if err != nil {
		return Image{}, err
	}
	digest, index := digestOf(d), layers.Digest("")
	raw, err = readBlob(b, digest)
	if err != nil {
		return Image{}, err
	}
	mt, err := manifestType(d.MediaType, raw)
	if err != nil {
		return Image{}, err
	}
	if mt.IsIndex() {
		index = digest
		digest, err = m.choose(ref, raw)
		if err != nil {
			return Image{}, err
		}
		if raw, err = readBlob(b, digest); err != nil {
			return Image{}, err
		}
	}
	img, err := m.fromManifest(ctx, ref, raw,
		func(_ context.Context, d v1.Descriptor) ([]byte, error) { return readBlob(b, digestOf(d)) },
		func(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
			if err := digestOf(d).Check(); err != nil {
				return nil, err
			}
			r, _, err := b.open("blobs/sha256/" + digestOf(d).Hex())
			return r, err
		})
	if err != nil {
		return Image{}, err
	}
	img.Digest, img.Index = digest, index
	return img, nil
}

// fromManifest makes an image from a manifest and the means to get its blobs.
func (m Importer) fromManifest(ctx context.Context, ref string, raw []byte,
	small func(context.Context, v1.Descriptor) ([]byte, error),
	open func(context.Context, v1.Descriptor) (io.ReadCloser, error),
) (Image, error) {
	man, err := parseManifest(raw)
	if err != nil {
		return Image{}, fmt.Errorf("parsing the manifest of %s: %w", ref, err)
	}
	config, err := small(ctx, man.Config)
	if err != nil {
		return Image{}, fmt.Errorf("reading the configuration of %s: %w", ref, err)
	}
	return m.assemble(ctx, ref, config, len(man.Layers), func(ctx context.Context, i int) (io.ReadCloser, error) {
		return open(ctx, man.Layers[i])
	})
}

// pickDescriptor chooses an entry of a layout's index.
func pickDescriptor(ds []v1.Descriptor, p Pick) (v1.Descriptor, string, error) {
	names := make([][]string, len(ds))
	for i, d := range ds {
		names[i] = descriptorNames(d)
	}
	i := slices.IndexFunc(names, func(ns []string) bool { return matches(ns, cmp.Or(p.Tag, p.As)) })
	if i < 0 && p.Tag == "" {
		// Tools that write a layout often note the tag and no more.
		i = slices.IndexFunc(names, func(ns []string) bool { return isTagOf(ns, p.As) })
	}
	if p.Tag == "" && len(ds) == 1 {
		i = 0
	}
	switch has := strings.Join(slices.Concat(names...), ", "); {
	case i >= 0:
		ref, err := layoutName(p, names[i])
		return ds[i], ref, err
	case p.Tag == "" && p.As == "":
		return v1.Descriptor{}, "", fmt.Errorf("has %d images (%s): say which", len(ds), has)
	default:
		return v1.Descriptor{}, "", fmt.Errorf("has no image %s; it has: %s", cmp.Or(p.Tag, p.As), has)
	}
}

// descriptorNames returns an entry's names, whole ones first.
func descriptorNames(d v1.Descriptor) []string {
	var out []string
	for _, k := range []string{nameAnnotation, refAnnotation} {
		if n := d.Annotations[k]; n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// matches says whether one of an entry's names is the wanted one.
func matches(names []string, want string) bool {
	if slices.Contains(names, want) {
		return true
	}
	w, err := parseRef(want)
	return err == nil && slices.ContainsFunc(names, func(n string) bool {
		t, err := parseRef(n)
		return err == nil && strings.ContainsAny(n, ":/") && familiar(t) == familiar(w)
	})
}

// isTagOf says whether an entry is known by a bare tag, and want has it.
func isTagOf(names []string, want string) bool {
	w, err := parseRef(want)
	return err == nil && len(names) == 1 && names[0] == w.TagStr()
}

// layoutName returns what docker shall call an entry: a bare tag alone is no
// name.
func layoutName(p Pick, names []string) (string, error) {
	whole := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.ContainsAny(n, ":/") })
	if p.As == "" && len(whole) > 0 {
		return whole[0], nil
	}
	return nameFor(p, whole)
}
