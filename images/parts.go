package images

import (
	"fmt"

	"github.com/kscratch/kscratch/layers"
)

// Parts returns the digests under which [Registry.Pull] finds an image in the
// content store: those of the manifest, of the configuration, and of the layers
// without their compression. What a part that the store lacks would name is not
// known; a pull brings all.
func (m Importer) Parts(manifest layers.Digest) ([]layers.Digest, error) {
	out := []layers.Digest{manifest}
	b, ok := m.Store.Lookup(manifest)
	if !ok {
		return out, nil
	}
	raw, err := readCached(b)
	if err != nil {
		return nil, err
	}
	man, err := parseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("parsing the manifest %s: %w", manifest, err)
	}
	out = append(out, digestOf(man.Config))
	if b, ok = m.Store.Lookup(digestOf(man.Config)); !ok {
		return out, nil
	}
	config, err := readCached(b)
	if err != nil {
		return nil, err
	}
	diffs, err := m.diffIDs(string(manifest), config)
	return append(out, diffs...), err
}
