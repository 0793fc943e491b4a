package images

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kscratch/kscratch/layers"
)

// layerTypes are the media types of layers that are read: tars, plain or
// compressed. What is in one is found out by its first bytes.
var layerTypes = []types.MediaType{
	types.DockerLayer, types.DockerUncompressedLayer,
	types.OCILayer, types.OCIUncompressedLayer, types.OCILayerZStd,
}

// digestOf returns the digest of a descriptor.
func digestOf(d v1.Descriptor) layers.Digest { return layers.Digest(d.Digest.String()) }

// manifestType returns what a manifest is: an image's or an index. Where both
// its own word and that of its descriptor or of the server are known, they must
// agree: one text must not be two things to two readers (OCI image
// specification, "image-index.md", mediaType). Servers of plain files call
// every manifest something else, so their word counts only if it is one of the
// known ones.
func manifestType(said types.MediaType, raw []byte) (types.MediaType, error) {
	var own struct {
		SchemaVersion int
		MediaType     types.MediaType
	}
	if err := json.Unmarshal(raw, &own); err != nil {
		return "", fmt.Errorf("parsing the manifest: %w", err)
	}
	known := func(t types.MediaType) bool { return t.IsImage() || t.IsIndex() }
	switch {
	case own.SchemaVersion == 1 || said.IsSchema1() || own.MediaType.IsSchema1():
		return "", fmt.Errorf("its manifest has schema 1, which is not supported; push the image again with docker 1.10 or later")
	case known(own.MediaType) && known(said) && own.MediaType.IsIndex() != said.IsIndex():
		return "", fmt.Errorf("its manifest is said to be %s, and says of itself that it is %s", said, own.MediaType)
	case known(own.MediaType):
		return own.MediaType, nil
	case own.MediaType == "" && known(said):
		return said, nil
	}
	t := own.MediaType
	if t == "" {
		t = said
	}
	return "", fmt.Errorf("its manifest has the type %q, which is neither an image's nor an index's", t)
}

func parseIndex(raw []byte) (*v1.IndexManifest, error) {
	var idx v1.IndexManifest
	if err := json.Unmarshal(raw, &idx); err != nil {
		return nil, err
	}
	if idx.SchemaVersion != 2 {
		return nil, fmt.Errorf("schema version %d, want 2", idx.SchemaVersion)
	}
	return &idx, nil
}

// parseManifest parses the manifest of an image. Other artifacts have the same
// form and other types (OCI image specification, "manifest.md", guidelines for
// artifact usage).
func parseManifest(raw []byte) (*v1.Manifest, error) {
	var man v1.Manifest
	if err := json.Unmarshal(raw, &man); err != nil {
		return nil, err
	}
	switch {
	case man.SchemaVersion != 2:
		return nil, fmt.Errorf("schema version %d, want 2", man.SchemaVersion)
	case man.Config.Digest.Hex == "":
		return nil, fmt.Errorf("it names no configuration: not an image's manifest")
	case !man.Config.MediaType.IsConfig():
		return nil, fmt.Errorf("configuration of type %q: an artifact, not an image", man.Config.MediaType)
	}
	for i, l := range man.Layers {
		if !l.MediaType.IsDistributable() {
			return nil, fmt.Errorf("layer %d has the type %s: it is not in the registry but with its vendor, which is not supported", i+1, l.MediaType)
		}
		if !slices.Contains(layerTypes, l.MediaType) {
			return nil, fmt.Errorf("layer %d has the type %q, which is not supported; known are tar, tar+gzip and tar+zstd", i+1, l.MediaType)
		}
	}
	return &man, nil
}

// choose returns the manifest for the wanted platform out of an index. The one
// image of an index that names no platform is chosen, too: its configuration
// will tell.
func (m Importer) choose(ref string, raw []byte) (layers.Digest, error) {
	idx, err := parseIndex(raw)
	if err != nil {
		return "", fmt.Errorf("parsing the index of %s: %w", ref, err)
	}
	e := &PlatformError{Ref: ref, Want: "linux/" + m.arch()}
	var nameless []layers.Digest
	for _, d := range idx.Manifests {
		switch {
		case !d.MediaType.IsImage(): // attestations and other artifacts
		case d.Platform == nil:
			nameless = append(nameless, digestOf(d))
		case d.Platform.OS == "unknown": // buildkit's attestations
		case d.Platform.OS == "linux" && d.Platform.Architecture == m.arch():
			return digestOf(d), nil
		default:
			e.Has = append(e.Has, strings.TrimSuffix(d.Platform.OS+"/"+d.Platform.Architecture+"/"+d.Platform.Variant, "/"))
		}
	}
	if len(e.Has) == 0 && len(nameless) == 1 {
		return nameless[0], nil
	}
	return "", e
}
