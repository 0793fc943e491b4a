package seed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// stale is what has to go and, of what an earlier root had baked, what stays.
type stale struct {
	images map[string]bool // by ID
	layers []string        // chain IDs, children before their parents
	ids    map[string]string
	kept   record
}

// dbLayer is a layer as docker's layerdb has it.
type dbLayer struct {
	id     string // cache ID
	parent string // chain ID, empty for a bottom layer
	linked bool   // its diff is a link: our work
	gone   bool   // the link leads nowhere
}

// findStale finds what an earlier root had baked and what was built upon it.
func (r *root) findStale(had record, want *baked) (*stale, error) {
	db, err := r.readLayers()
	if err != nil {
		return nil, err
	}
	imgs, err := r.readImages()
	if err != nil {
		return nil, err
	}
	pinned, err := r.pinned(db)
	if err != nil {
		return nil, err
	}
	out := &stale{images: map[string]bool{}, ids: map[string]string{}}
	keep := maps.Clone(pinned)
	for chain := range want.layers {
		keep[chain] = true
	}
	for id, chains := range imgs {
		_, wanted := want.images[id]
		ours := slices.Contains(had.Images, id)
		used := len(chains) > 0 && pinned[chains[len(chains)-1]]
		switch {
		case wanted:
		case slices.ContainsFunc(chains, func(c string) bool { return broken(db, c) }), ours && !used:
			out.images[id] = true
			continue
		case ours:
			out.kept.Images = append(out.kept.Images, id)
		}
		for _, c := range chains {
			keep[c] = true
		}
	}
	for chain, l := range db {
		if !keep[chain] && (l.linked || broken(db, chain) || below(db, chain, keep)) {
			out.layers = append(out.layers, chain)
			out.ids[chain] = l.id
		}
	}
	slices.SortFunc(out.layers, func(a, b string) int {
		if d := depth(db, b) - depth(db, a); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return out, nil
}

// ancestors calls f with a layer and those below it until f returns false. It
// says whether the chain ended as it should.
func ancestors(db map[string]dbLayer, chain string, f func(string, dbLayer) bool) bool {
	for range len(db) + 1 {
		l, ok := db[chain]
		if !ok {
			return false
		}
		if !f(chain, l) || l.parent == "" {
			return true
		}
		chain = l.parent
	}
	return false // a circle
}

// broken says whether a layer, or one below it, has lost its files.
func broken(db map[string]dbLayer, chain string) bool {
	gone := false
	whole := ancestors(db, chain, func(_ string, l dbLayer) bool {
		gone = gone || l.gone
		return !gone
	})
	return gone || !whole
}

// below says whether a layer stands on one of our own that is going.
func below(db map[string]dbLayer, chain string, keep map[string]bool) bool {
	found := false
	ancestors(db, chain, func(c string, l dbLayer) bool {
		found = found || l.linked && !keep[c]
		return !found
	})
	return found
}

func depth(db map[string]dbLayer, chain string) int {
	n := 0
	ancestors(db, chain, func(string, dbLayer) bool { n++; return true })
	return n
}

func (r *root) readLayers() (map[string]dbLayer, error) {
	ns, err := r.names(layerDir)
	if err != nil {
		return nil, err
	}
	out := map[string]dbLayer{}
	for _, chain := range ns {
		if !hexName.MatchString(chain) {
			continue
		}
		id, err := r.ReadFile(path.Join(layerDir, chain, "cache-id"))
		if err != nil || !hexName.Match(bytes.TrimSpace(id)) {
			continue // docker does not load such a layer either
		}
		l := dbLayer{id: string(bytes.TrimSpace(id))}
		if p, err := r.ReadFile(path.Join(layerDir, chain, "parent")); err == nil {
			l.parent = strings.TrimPrefix(string(bytes.TrimSpace(p)), "sha256:")
		}
		if target, err := r.Readlink(path.Join(overlayDir, l.id, "diff")); err == nil {
			_, err := os.Stat(target)
			l.linked, l.gone = true, err != nil
		}
		out[chain] = l
	}
	return out, nil
}

// readImages returns the chain IDs of each image's layers, bottom first.
func (r *root) readImages() (map[string][]string, error) {
	ns, err := r.names(contentDir)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, id := range ns {
		raw, err := r.ReadFile(path.Join(contentDir, id))
		if err != nil || !hexName.MatchString(id) {
			continue
		}
		var c struct {
			RootFS struct {
				DiffIDs []string `json:"diff_ids"`
			} `json:"rootfs"`
		}
		if json.Unmarshal(raw, &c) != nil {
			continue // docker leaves it out, too
		}
		out[id] = chainsOf(c.RootFS.DiffIDs)
	}
	return out, nil
}

// chainsOf returns the chain IDs that diff IDs give.
func chainsOf(diffs []string) []string {
	var out []string
	chain := ""
	for i, d := range diffs {
		if i == 0 {
			chain = d
		} else {
			sum := sha256.Sum256([]byte(chain + " " + d))
			chain = "sha256:" + hex.EncodeToString(sum[:])
		}
		out = append(out, strings.TrimPrefix(chain, "sha256:"))
	}
	return out
}

// pinned returns the layers that containers are made of.
func (r *root) pinned(db map[string]dbLayer) (map[string]bool, error) {
	ns, err := r.names(mountDir)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, n := range ns {
		p, err := r.ReadFile(path.Join(mountDir, n, "parent"))
		if err != nil {
			continue // a container of no image
		}
		chain := strings.TrimPrefix(string(bytes.TrimSpace(p)), "sha256:")
		ancestors(db, chain, func(c string, _ dbLayer) bool { out[c] = true; return true })
	}
	return out, nil
}

func (r *root) removeStale(s *stale) error {
	for _, id := range slices.Sorted(maps.Keys(s.images)) {
		for _, p := range []string{path.Join(contentDir, id), path.Join(imageMetaDir, id)} {
			if err := r.drop(p); err != nil {
				return err
			}
		}
		r.log.Info("image removed: its files are not in this root any more", "id", id)
	}
	for _, chain := range s.layers {
		if err := r.drop(path.Join(layerDir, chain)); err != nil {
			return err
		}
		if err := r.dropOverlay(s.ids[chain]); err != nil {
			return err
		}
	}
	return nil
}

// dropOverlay removes a layer's directory and its short name.
func (r *root) dropOverlay(id string) error {
	dir := path.Join(overlayDir, id)
	link, err := r.ReadFile(path.Join(dir, "link"))
	if err == nil && shortName.Match(link) {
		if err := r.drop(path.Join(linkDir, string(link))); err != nil {
			return err
		}
	}
	return r.drop(dir)
}

// removeOrphans removes directories of ours that no layer refers to, and short
// names of directories that are not there: what a run that ended halfway, or
// docker, left behind.
func (r *root) removeOrphans(want *baked) error {
	db, err := r.readLayers()
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, l := range db {
		used[l.id] = true
	}
	for _, l := range want.layers {
		used[l.id] = true
	}
	ns, err := r.names(overlayDir)
	if err != nil {
		return err
	}
	for _, id := range ns {
		if used[id] || !hexName.MatchString(id) {
			continue
		}
		if _, err := r.Readlink(path.Join(overlayDir, id, "diff")); err == nil {
			if err := r.dropOverlay(id); err != nil {
				return err
			}
		}
	}
	return r.removeLinks()
}

func (r *root) removeLinks() error {
	ns, err := r.names(linkDir)
	if err != nil {
		return err
	}
	for _, n := range ns {
		target, err := r.Readlink(path.Join(linkDir, n))
		if err != nil {
			continue
		}
		id := path.Base(path.Dir(target))
		if _, err := r.Lstat(path.Join(overlayDir, id)); os.IsNotExist(err) {
			if err := r.drop(path.Join(linkDir, n)); err != nil {
				return fmt.Errorf("removing a short name without a layer: %w", err)
			}
		}
	}
	return nil
}
