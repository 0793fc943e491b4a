package seed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var (
	hexName   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	shortName = regexp.MustCompile(`^[A-Z0-9]{26}$`)
)

// names maps repositories to references to image IDs ("sha256:…").
type names map[string]map[string]string

// baked is an image store in the read-only root.
type baked struct {
	images map[string][]byte     // configurations by ID
	layers map[string]bakedLayer // by chain ID
	names  names
}

// bakedLayer is the metadata of a layer. IDs are without the algorithm.
type bakedLayer struct {
	meta  map[string][]byte // files of the layerdb by name
	id    string            // cache ID
	link  string
	lower []byte // nil for a bottom layer
	diff  string // the directory with the files, absolute
}

func (b *baked) ids() record {
	return record{slices.Sorted(maps.Keys(b.images))}
}

func readBaked(dir string) (*baked, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	fsys := os.DirFS(dir)
	b := &baked{images: map[string][]byte{}, layers: map[string]bakedLayer{}}
	raw, err := fs.ReadFile(fsys, namesFile)
	if err != nil {
		return nil, err
	}
	if b.names, err = parseNames(raw); err != nil {
		return nil, err
	}
	if err := each(fsys, contentDir, func(id string) (err error) {
		b.images[id], err = fs.ReadFile(fsys, path.Join(contentDir, id))
		return err
	}); err != nil {
		return nil, err
	}
	err = each(fsys, layerDir, func(chain string) (err error) {
		b.layers[chain], err = readLayer(fsys, dir, chain)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, b.check()
}

// each calls f with every entry of a directory that is named by a digest.
func each(fsys fs.FS, dir string, f func(string) error) error {
	es, err := fs.ReadDir(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range es {
		if !hexName.MatchString(e.Name()) {
			return fmt.Errorf("%s/%s: not named by a digest", dir, e.Name())
		}
		if err := f(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func readLayer(fsys fs.FS, dir, chain string) (bakedLayer, error) {
	l := bakedLayer{meta: map[string][]byte{}}
	db := path.Join(layerDir, chain)
	es, err := fs.ReadDir(fsys, db)
	if err != nil {
		return l, err
	}
	for _, e := range es {
		if l.meta[e.Name()], err = fs.ReadFile(fsys, path.Join(db, e.Name())); err != nil {
			return l, err
		}
	}
	l.id = string(l.meta["cache-id"])
	if !hexName.MatchString(l.id) {
		return l, fmt.Errorf("layer %s: cache ID %q: want 64 hex digits", chain, l.id)
	}
	link, err := fs.ReadFile(fsys, path.Join(overlayDir, l.id, "link"))
	if err != nil {
		return l, err
	}
	if l.link = string(link); !shortName.MatchString(l.link) {
		return l, fmt.Errorf("layer %s: link %q: want 26 upper-case letters and digits", chain, l.link)
	}
	l.lower, err = fs.ReadFile(fsys, path.Join(overlayDir, l.id, "lower"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	l.diff = filepath.Join(dir, overlayDir, l.id, "diff")
	st, err := os.Stat(l.diff)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is not a directory", l.diff)
	}
	return l, err
}

// parseNames parses a repositories.json as leniently as docker does.
func parseNames(raw []byte) (names, error) {
	var f struct{ Repositories names }
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("parsing repositories.json: %w", err)
	}
	if f.Repositories == nil {
		f.Repositories = names{}
	}
	return f.Repositories, nil
}

// check reports a name that docker would not take or that leads nowhere.
func (b *baked) check() error {
	for repo, refs := range b.names {
		for ref, id := range refs {
			if _, ok := b.images[strings.TrimPrefix(id, "sha256:")]; !ok {
				return fmt.Errorf("repositories.json: %s leads to %s, which is missing", ref, id)
			}
			if !strings.HasPrefix(ref, repo+":") && !strings.HasPrefix(ref, repo+"@") {
				return fmt.Errorf("repositories.json: %s is listed under %s", ref, repo)
			}
		}
	}
	return nil
}
